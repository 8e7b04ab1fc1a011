# SPDX-License-Identifier: Apache-2.0
"""Celery: every attempt to run a task, and every task that was called off before it began.

How a task gets to run, and where we look::

    Scheduler.apply_async (beat)          a schedule is due                              -> celery_causes.due
    Celery.send_task                      a task is sent, by whatever means              -> celery_causes.sending
    before_task_publish                   its message is about to go: why, for whom      -> celery_causes.tell
      broker
    the worker's main process
      task_revoked, task_unknown          it will not be run                             -> _not_run
      pool: child, thread, greenlet
        task_prerun                       an attempt begins                              -> _begin
        task_postrun                      it has ended: success, retry, failure…         -> _end
      Request.terminate, on_timeout       the main process kills the child               -> _killed

Signals are Celery's own extension point. It only logs what a receiver raises, so each of ours contains its faults
itself. From `task_prerun` to `task_postrun` is one attempt in one thread or greenlet, and all that a task sends comes
in between, the next link of a chain too: the run is the current one there, and what is sent names it as its parent.

A child that is killed has no `task_postrun`. That its attempt was interrupted is said by the log, which knows that it
had begun; the main process only says what it has killed itself, because it alone knows why (the log then does not).
"""

from __future__ import annotations

import signal as signals_of_os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import wrapt
from opentelemetry import context as otel_context
from opentelemetry.context import Context

from auditspan import schema
from auditspan.capture import faults
from auditspan.capture import run as runs
from auditspan.capture.actor import os_actor
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Event, Record, Recorder, Target
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion, script_version
from auditspan.runners import celery_causes as causes
from auditspan.schema import Details, Outcome
from auditspan.schema.events import (
    WorkflowCancelled,
    WorkflowFinished,
    WorkflowInterrupted,
    WorkflowRetried,
    WorkflowSkipped,
)

REVOKED = "celery.exceptions.TaskRevokedError"
NOT_REGISTERED = "celery.exceptions.NotRegistered"
TIME_LIMIT = "billiard.exceptions.TimeLimitExceeded"

_KILLING = frozenset(
    getattr(signals_of_os, name)
    for name in ("SIGTERM", "SIGKILL", "SIGQUIT", "SIGABRT", "SIGHUP")
    if hasattr(signals_of_os, name)
)
"""Signals that end a pool child. After others, such as SIGUSR1 (the soft time limit), it goes on and reports itself."""

_SETTLED_REMEMBERED = 1000

Attempt = tuple[str, int]
"""Task ID and number of the attempt, from 1."""


@dataclass
class _Running:
    """An attempt that is going on in this process.

    Attributes:
        request: what Celery knows of it. Kept, so that no other one has its identity while this is going on.
        record: its record.
        attempt: which one it is.
        token: takes the record's context off again.
        surrounding: the exception that was being handled when it began; that is not one of the task.
    """

    request: Any
    record: Record
    attempt: Attempt
    token: Any
    surrounding: BaseException | None


class CeleryInstrumentor(AuditInstrumentor):
    """Audits the tasks of Celery 5.3 and later: workers with every kind of pool, beat, and whoever sends tasks."""

    name = "celery"
    dependencies = ("celery >= 5.3, < 6",)

    _receivers: _Receivers | None = None

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table, and connect to the signals as soon as there are any."""
        receivers = self._receivers = _Receivers(recorder)
        wrapt.register_post_import_hook(receivers.connect, "celery.signals")

        def be_last(call: Call) -> Hook:
            receivers.be_last()
            yield

        def apply_async(call: Call) -> Hook:
            with causes.due(call.argument(0, "entry")):
                yield

        def send_task(call: Call) -> Hook:
            with causes.sending():
                yield

        def terminate(call: Call) -> Hook:
            request, number = call.instance, _signal_number(call.argument(1, "signal"))
            if request.time_start and number in _KILLING:
                # Before it is killed, so that the log knows why when the child is gone.
                receivers.killed(request, WorkflowCancelled(run_reason=f"it was terminated ({number.name})"), REVOKED)
            yield

        def on_timeout(call: Call) -> Hook:
            if not call.argument(0, "soft"):
                reason = f"it took longer than its hard time limit of {call.argument(1, 'timeout')} s"
                receivers.killed(call.instance, WorkflowInterrupted(run_reason=reason), TIME_LIMIT)
            yield

        request = partial(Patch, "celery.worker.request", lazy=True)
        return (
            Patch("celery.beat", "Scheduler.apply_async", apply_async, lazy=True),
            Patch("celery.app.base", "Celery.send_task", send_task, lazy=True),
            Patch("celery.app.trace", "build_tracer", be_last, lazy=True),
            request("Request.terminate", terminate),
            request("Request.on_timeout", on_timeout),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        super()._uninstrument(**kwargs)
        if self._receivers is not None:
            self._receivers.disconnect()


# -- signals ---------------------------------------------------------------------------------------------------------
def _receiver(function: Callable[..., None]) -> Callable[..., None]:
    """Contain the faults of a receiver."""
    where = f"celery: {function.__name__}"

    @wraps(function)
    def receive(*args: Any, **kwargs: Any) -> None:
        with faults.contained(where):
            function(*args, **kwargs)

    return receive


class _Receivers:
    """What is connected to Celery's signals, and the attempts that are going on between two of them."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._signals: Any = None
        self._on = True
        self._turn = 0
        self._lock = threading.Lock()
        self._running: dict[int, _Running] = {}  # by the request: each attempt has one of its own
        self._settled: OrderedDict[Attempt, None] = OrderedDict()  # what needs no further record

    def connect(self, module: Any) -> None:
        """Connect to the signals; called when the application, or another plugin, imports them."""
        with faults.contained("celery: connect to the signals"):
            if not self._on:
                return
            self._signals = module
            for name in ("before_task_publish", "task_postrun", "task_revoked", "task_unknown"):
                getattr(module, name).connect(getattr(self, name), weak=False, dispatch_uid=f"auditspan-{name}")
            module.task_prerun.connect(self.task_prerun, weak=False, dispatch_uid="auditspan-task_prerun-0")

    def be_last(self) -> None:
        """Be called after all other receivers when an attempt begins.

        OpenTelemetry's own plugin for Celery makes what the message says the current context: ours comes inside of it.
        For a moment there are two of us, never none: other threads are at work.
        """
        prerun = self._signals.task_prerun
        if not self._lock.acquire(blocking=False):
            return  # another thread sees to it, or one of the process that this one was forked from did
        try:
            last = prerun.receivers[-1][0][0] if prerun.receivers else None
            uid = f"auditspan-task_prerun-{self._turn}"
            if last != uid:
                self._turn += 1
                prerun.connect(self.task_prerun, weak=False, dispatch_uid=f"auditspan-task_prerun-{self._turn}")
                prerun.disconnect(dispatch_uid=uid)
        finally:
            self._lock.release()

    def disconnect(self) -> None:
        """Disconnect from all signals."""
        self._on = False
        if self._signals is not None:
            for name in ("before_task_publish", "task_postrun", "task_revoked", "task_unknown"):
                getattr(self._signals, name).disconnect(dispatch_uid=f"auditspan-{name}")
            self._signals.task_prerun.disconnect(dispatch_uid=f"auditspan-task_prerun-{self._turn}")

    @_receiver
    def before_task_publish(self, *, headers: Any = None, **said: Any) -> None:
        """Tell the worker why the task is sent."""
        if isinstance(headers, dict) and "id" in headers:  # else it is protocol 1, which has no place for it
            causes.tell(headers)

    @_receiver
    def task_prerun(self, *, task: Any, **said: Any) -> None:
        """Begin the record of an attempt."""
        request = task.request
        if id(request) in self._running:
            return
        record = _begin(self._recorder, task, request)
        self._running[id(request)] = _Running(
            request, record, _attempt_of(request), otel_context.attach(record.context), sys.exc_info()[1]
        )

    @_receiver
    def task_postrun(self, *, task: Any, state: Any = None, retval: Any = None, **said: Any) -> None:
        """End it."""
        running = self._running.pop(id(task.request), None)
        if running is None:
            return
        # Another receiver that came before us, and was called before us again, has restored what was there before both.
        if otel_context.get_current() is running.record.context:
            otel_context.detach(running.token)
        error = sys.exc_info()[1]
        passing = error if error is not running.surrounding else None
        if passing is not None and _is_of_signal(passing):
            return  # the child is being killed: whoever does it says why, or the log says that it was interrupted
        if type(passing).__name__ == "GreenletExit":
            self._settle(running.attempt)  # task_revoked is still to come
        _end(running.record, running.attempt, state, retval, passing)

    @_receiver
    def task_revoked(
        self, *, request: Any, sender: Any, terminated: Any = False, expired: Any = False, **said: Any
    ) -> None:
        """Record that a task will not be run, or not to its end."""
        attempt = _attempt_of(request)
        here = [running for running in self._running.values() if running.attempt == attempt]
        for running in here:  # a greenlet that is killed: its end may come never, or later
            running.record.become(WorkflowCancelled(run_reason="it was terminated"))
            running.record.finish(Outcome.FAILURE, REVOKED)
        if here or terminated or self._settled.pop(attempt, self) is None:
            return
        details: Details = WorkflowCancelled(run_reason="it was revoked before it began")
        if expired:
            details = WorkflowSkipped(run_reason="it expired before it began")
        _not_run(self._recorder, sender, request, details, REVOKED)

    @_receiver
    def task_unknown(self, *, name: Any, id: Any, message: Any, **said: Any) -> None:
        """Record that a worker has thrown away a message because it does not know the task."""
        headers = getattr(message, "headers", None)
        request = causes.Message({**headers, "id": id, "task": name} if headers else {"id": id, "task": name})
        details = WorkflowSkipped(run_reason="no task of this name is registered here")
        _not_run(self._recorder, None, request, details, NOT_REGISTERED)

    def killed(self, request: Any, details: Details, error: str) -> None:
        """Record what the main process ends by killing a child; in other pools the attempt is of this very process."""
        attempt = _attempt_of(request._context)
        if any(running.attempt == attempt for running in self._running.values()) or attempt in self._settled:
            return
        self._settle(attempt)
        _not_run(self._recorder, request.task, request._context, details, error)

    def _settle(self, attempt: Attempt) -> None:
        self._settled[attempt] = None
        while len(self._settled) > _SETTLED_REMEMBERED:
            self._settled.popitem(last=False)


def _attempt_of(request: Any) -> Attempt:
    return str(request.id), int(request.retries or 0) + 1


def _is_of_signal(error: BaseException) -> bool:
    """Tell whether an exception is how a pool child reacts to a signal that ends it, and not the task's own doing."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == "_shutdown_cleanup":  # in billiard.common
            return True
        traceback = traceback.tb_next
    return False


def _signal_number(said: Any) -> Any:
    """Return the signal that `Request.terminate` is told to send: a name, a number or, as usual, nothing."""
    from billiard.common import TERM_SIGNAME
    from celery.platforms import signals

    return signals_of_os.Signals(signals.signum(said or TERM_SIGNAME))


# -- the record ------------------------------------------------------------------------------------------------------
def _known(task: Any, request: Any, details: Details) -> tuple[Event, Run, Context]:
    """Return what is known of an attempt: the record, its run, and the context that it belongs in."""
    attempt = _attempt_of(request)
    name = schema.bounded(str(task.name if task is not None else request.task))
    script = ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, name)
    if task is not None:
        with faults.contained("celery: version of a task"):
            script = script_version(task.run)
    cause, context = causes.told(request)
    run = Run(
        id=causes.run_id(attempt[0]),
        workflow=name,
        trigger=cause.trigger,
        rule=cause.rule,
        script=script,
        parent_id=cause.parent_id,
        claimed=cause.claimed,
        attempt=attempt[1],
    )
    event = Event(
        name=f"task {name}",
        details=details,
        actor=cause.for_whom(os_actor()),
        target=Target(name, "celery.task"),
        script=script,
        attributes={
            schema.TASK_NAME: name,
            schema.TASK_RUN_ID: run.id,
            schema.TASK_SCHEDULED_TIME: causes.timestamp(request.eta),
            schema.CODE_FUNCTION: script.name if task is not None else None,
        },
    )
    # The run itself is entered, so that what caused it is named as its parent and nothing else is.
    return event, run, runs.enter(run, context)


def _begin(recorder: Recorder, task: Any, request: Any) -> Record:
    """Begin the record of an attempt."""
    event, run, context = _known(task, request, WorkflowFinished())
    return recorder.start(event, opens=run, context=context)


def _not_run(recorder: Recorder, task: Any, request: Any, details: Details, error: str) -> None:
    """Record an attempt that does not begin, or one whose end no other process can report."""
    event, _, context = _known(task, request, details)
    recorder.start(event, context=context).finish(Outcome.FAILURE, error)  # it opens nothing: no beginning is said


def _end(record: Record, attempt: Attempt, state: Any, result: Any, passing: BaseException | None) -> None:
    """End the record of an attempt.

    Args:
        record: that record.
        attempt: which attempt it is.
        state: what Celery makes of it; None: it has no state of its own, because an exception passes through.
        result: the exception where the state is of one. Else it is data, and not looked at.
        passing: an exception that goes on beyond the task.
    """
    if passing is not None and not isinstance(passing, Exception):
        kind = type(passing).__name__
        if kind == "GreenletExit":
            record.become(WorkflowCancelled(run_reason="it was terminated"))
            record.finish(Outcome.FAILURE, REVOKED)
            return
        record.become(WorkflowInterrupted(run_reason=f"{kind} went through its worker"))
        record.finish(Outcome.FAILURE, passing)
    elif state == "SUCCESS" and passing is None:
        record.finish(Outcome.SUCCESS)
    elif state == "RETRY" or type(passing).__name__ == "Retry":
        retry = result if state == "RETRY" else passing
        reason = "the task asks for it" if getattr(retry, "exc", None) is None else "the task failed and asks for it"
        record.become(WorkflowRetried(run_attempt=attempt[1], run_reason=reason))
        record.finish(Outcome.FAILURE, getattr(retry, "exc", None) or retry)
    elif state == "IGNORED":
        record.set(schema.RUN_REASON, "the task says that its state is not to be kept, or was replaced by another task")
        record.finish(Outcome.UNKNOWN, result)
    elif state == "REJECTED":
        again = ", which is delivered again" if getattr(result, "requeue", False) else ""
        record.set(schema.RUN_REASON, f"the task rejects its message{again}")
        record.finish(Outcome.FAILURE, result)
    else:
        error = passing if passing is not None else result
        record.finish(Outcome.FAILURE, error if isinstance(error, BaseException) else schema.UNKNOWN)
