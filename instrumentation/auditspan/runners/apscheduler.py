# SPDX-License-Identifier: Apache-2.0
"""APScheduler 3: every time a job is run, skipped or lost.

How a job gets to run, and where we look::

    BaseScheduler.add_job, modify_job     who asked for it: remembered until the job runs    -> apscheduler_causes
    BaseExecutor.submit_job               it is due: handed over, or refused                 -> Due
      thread or process pool              the pool is given `_run_audited` for `run_job`
      every other executor                `run_job` itself is replaced where it is called
    the worker (thread, process, loop)    one record per run time, around `run_job`          -> _execution
    the future                            what no worker could report                        -> _settled

`Due` is the list of run times that the library hands from the scheduler to the worker anyway; ours also knows the
cause. So nothing has to be looked up in the worker, and no job is ever confused with another of the same name.

The library's listeners are not enough: an event names the job by its ID only, and a one-shot job is removed from the
store before its event comes; the listener is called when the job has ended, and in another thread or process.
`run_job` must stay what it is: the process pool pickles it by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext

from auditspan import __version__, schema
from auditspan.capture import environ, faults
from auditspan.capture import run as runs
from auditspan.capture.actor import os_actor
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Event, Record, Recorder, Target, inside
from auditspan.capture.run import Run
from auditspan.capture.version import script_version
from auditspan.runners.apscheduler_causes import Causes, span_of
from auditspan.schema import Outcome, TriggerType
from auditspan.schema.events import WorkflowFinished, WorkflowInterrupted, WorkflowSkipped

MISFIRE = "apscheduler.misfire"
MAX_INSTANCES = "apscheduler.max_instances"

_WORKER = "apscheduler: run_job"


class APSchedulerInstrumentor(AuditInstrumentor):
    """Audits the jobs of APScheduler 3.11 and later; version 4 is another library under the same name."""

    name = "apscheduler"
    dependencies = ("apscheduler >= 3.11, < 4",)

    _causes: Causes

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        causes = self._causes = Causes()

        # -- who asked for it ----------------------------------------------------------------------------------
        def add_job(call: Call) -> Hook:
            job = yield
            if job.pending:  # the scheduler is not started yet: here is where the job was added, not in start()
                causes.added(call.instance, job)

        def real_add_job(call: Call) -> Hook:
            yield
            if call.instance.running:  # under the scheduler's lock, so the job cannot have been started yet
                causes.added(call.instance, call.argument(0, "job"))

        def modify_job(call: Call) -> Hook:
            job_id = call.argument(0, "job_id")
            # Before the call: once it has released the scheduler's lock, the job may be started at any moment.
            before = causes.changed(call.instance, job_id, call.kwargs)
            try:
                yield
            except BaseException:
                causes.restore(call.instance, job_id, before)
                raise

        def resume_job(call: Call) -> Hook:
            # It calls modify_job() with the next time of the job's own schedule: nobody asked for a run.
            with causes.nobody_asks():
                yield

        # -- it is due -----------------------------------------------------------------------------------------
        def submit_job(call: Call) -> Hook:
            from apscheduler.executors.base import MaxInstancesReachedError

            job = call.argument(0, "job")
            run_times = call.argument(1, "run_times")
            added_by, asked = causes.take(job, run_times)
            due = Due(run_times, added_by, asked, recorder)
            call.args, call.kwargs = (job, due), {}
            try:
                yield
            except MaxInstancesReachedError:
                _not_run(job, due, MAX_INSTANCES, "too many of its runs are still going on")
            except BaseException as error:
                _not_run(job, due, error, "its executor did not take it")

        def submit_to_pool(call: Call) -> Hook:
            # For this one call (under the executor's lock), so that nothing of ours stays behind in the executor and
            # ProcessPoolExecutor, which replaces a broken pool and calls again, finds a pool of the class it knows.
            executor, pool = call.instance, call.instance._pool
            audited = executor._pool = _AuditedPool(pool)
            try:
                yield
            finally:
                if executor._pool is audited:
                    executor._pool = pool

        def submit_to_loop(call: Call) -> Hook:
            known = set(call.instance._pending_futures)
            yield
            for future in call.instance._pending_futures - known:
                future.add_done_callback(partial(_settled, call.argument(0, "job"), call.argument(1, "run_times")))

        def run_job(call: Call) -> Hook:
            if _is_ours(call.args):
                call.args, call.function = (call.function, *call.args), _run_audited
            yield

        def run_coroutine_job(call: Call) -> Hook:
            if _is_ours(call.args):
                call.args, call.function = (call.function, *call.args), _run_coroutine_audited
            yield

        scheduler = partial(Patch, "apscheduler.schedulers.base", lazy=True)
        pool = partial(Patch, "apscheduler.executors.pool", lazy=True)
        return (
            scheduler("BaseScheduler.add_job", add_job),
            scheduler("BaseScheduler._real_add_job", real_add_job),
            scheduler("BaseScheduler.modify_job", modify_job),
            scheduler("BaseScheduler.resume_job", resume_job),
            Patch("apscheduler.executors.base", "BaseExecutor.submit_job", submit_job, lazy=True),
            pool("BasePoolExecutor._do_submit_job", submit_to_pool),
            Patch("apscheduler.executors.asyncio", "AsyncIOExecutor._do_submit_job", submit_to_loop, lazy=True),
            *(
                Patch(f"apscheduler.executors.{executor}", "run_job", run_job, lazy=True)
                for executor in ("debug", "asyncio", "gevent", "tornado", "twisted")
            ),
            *(
                Patch(f"apscheduler.executors.{executor}", "run_coroutine_job", run_coroutine_job, lazy=True)
                for executor in ("asyncio", "tornado")
            ),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        super()._uninstrument(**kwargs)
        if hasattr(self, "_causes"):
            self._causes.forget_all()


# -- on the way to the worker ----------------------------------------------------------------------------------------
class Due(list[datetime]):
    """The run times of one submission, as the library passes them on, and why they are.

    Attributes:
        added_by: the span that added the job.
        asked: for the run times that somebody asked for, where.
        recorder: makes the records; in a worker process, that process's own.
        started: a worker of this very process has begun and reports by itself.
    """

    def __init__(
        self,
        run_times: Iterable[datetime],
        added_by: SpanContext | None,
        asked: Mapping[datetime, Context],
        recorder: Recorder,
    ) -> None:
        super().__init__(run_times)
        self.added_by = added_by
        self.asked = asked
        self.recorder = recorder
        self.started = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for a worker process: contexts travel as they would in environment variables."""
        asked: dict[datetime, tuple[dict[str, str], Run | None]] = {}
        with faults.contained("apscheduler: hand over to a worker process"):
            # The run goes along whole: baggage is bounded and does not carry all of it.
            asked = {time: (environ.carrier(context), runs.current(context)) for time, context in self.asked.items()}
        return _received, (list(self), self.added_by, asked)


def _received(
    run_times: list[datetime],
    added_by: SpanContext | None,
    asked: Mapping[datetime, tuple[Mapping[str, str], Run | None]],
) -> list[datetime]:
    with faults.contained("apscheduler: receive in a worker process"):
        contexts = {}
        for time, (carrier, run) in asked.items():
            context = environ.extract(carrier)
            contexts[time] = context if run is None else runs.enter(run, context)
        # No provider is named: the records go to the worker process's own global one.
        return Due(run_times, added_by, contexts, Recorder(__name__, __version__))
    return run_times


class _AuditedPool:
    """A pool for one submission: what is submitted to it is run by `_run_audited`."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not _is_ours(args):
            return self._pool.submit(function, *args, **kwargs)
        future = self._pool.submit(_run_audited, function, *args, **kwargs)
        with faults.contained("apscheduler: watch a future"):
            # Before the library's own callback: the record is there when the listeners are called.
            future.add_done_callback(partial(_settled, args[0], args[2]))
        return future


def _is_ours(args: Sequence[Any]) -> bool:
    """Tell whether these are the arguments of `run_job`, with our list of run times among them."""
    return len(args) == 4 and isinstance(args[2], Due)


# -- in the worker ---------------------------------------------------------------------------------------------------
class _Events(list[Any]):
    """The events that `run_job` returns. `recorded` says for which run times there is a record (it is pickled too)."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[datetime] = []


def _run_audited(
    run_job: Callable[..., list[Any]], job: Any, alias: str, run_times: list[datetime], logger_name: str
) -> list[Any]:
    """Do what `run_job` does, with a record for each run time. Pickled by name: never wrap it."""
    if not isinstance(run_times, Due):
        return run_job(job, alias, run_times, logger_name)
    run_times.started = True
    events = _Events()
    for run_time in run_times:
        with _execution(job, run_times, run_time, events):
            events += run_job(job, alias, [run_time], logger_name)
    return events


async def _run_coroutine_audited(
    run_coroutine_job: Callable[..., Awaitable[list[Any]]], job: Any, alias: str, run_times: Due, logger_name: str
) -> list[Any]:
    """Do what `run_coroutine_job` does, with a record for each run time."""
    run_times.started = True
    events = _Events()
    for run_time in run_times:
        with _execution(job, run_times, run_time, events):
            events += await run_coroutine_job(job, alias, [run_time], logger_name)
    return events


@contextmanager
def _execution(job: Any, due: Due, run_time: datetime, events: _Events) -> Iterator[None]:
    """Record one run of a job: how it ended is in the event that is added to `events` meanwhile."""
    record = None
    known = len(events)
    with ExitStack() as covered:
        with faults.contained(_WORKER):
            record = _begin(job, due, run_time)
            covered.enter_context(inside(record))
        try:
            yield
        except BaseException as error:
            with faults.contained(_WORKER):
                if record is not None:
                    _lost(record, job, error)
            raise
    with faults.contained(_WORKER):
        if record is not None:
            recording = trace.get_current_span(record.context).is_recording()
            _finish(record, job, events[known])
            if recording:
                events.recorded.append(run_time)


# -- what no worker could report -------------------------------------------------------------------------------------
def _settled(job: Any, due: Due, future: Future[Any] | asyncio.Future[Any]) -> None:
    """Record what the worker did not: it was lost, never began, or is a process in which nothing is audited."""
    with faults.contained("apscheduler: settle a submission"):
        if future.cancelled():
            if not due.started:
                _not_run(job, due, "concurrent.futures.CancelledError", "it was cancelled before it began")
            return
        error = future.exception()
        if error is None:
            events = future.result()
            recorded = getattr(events, "recorded", ())
            for event in events:
                if event.scheduled_run_time not in recorded:
                    _finish(_begin(job, due, event.scheduled_run_time), job, event)
        elif not due.started:
            for run_time in due:
                _lost(_begin(job, due, run_time), job, error)


def _not_run(job: Any, due: Due, error: BaseException | str, why: str) -> None:
    for run_time in due:
        record = _begin(job, due, run_time)
        record.become(WorkflowSkipped(run_reason=why))
        record.finish(Outcome.FAILURE, error)


# -- the record ------------------------------------------------------------------------------------------------------
def _begin(job: Any, due: Due, run_time: datetime) -> Record:
    """Begin the record of one run of a job."""
    scheduled = run_time.astimezone(timezone.utc).isoformat()
    run_id = f"apscheduler/{job.id}/{scheduled}"  # the library has no run ID of its own
    schedule = str(job.trigger)
    script = script_version(job.func)
    asked = due.asked.get(run_time)
    opens: Run | None
    if asked is not None and runs.current(asked) is not None:
        opens, context, linked = None, asked, None  # it belongs to the run that asked for it
    elif asked is not None:
        opens = Run(run_id, job.name, TriggerType.MANUAL, "next_run_time", script)
        context, linked = _nowhere(), span_of(asked) or due.added_by
    else:
        opens = Run(run_id, job.name, TriggerType.SCHEDULE, schedule, script)
        context, linked = _nowhere(), due.added_by
    event = Event(
        name=f"job {job.name}",
        details=WorkflowFinished(
            task_name=job.name, task_run_id=run_id, task_trigger_rule=schedule, task_scheduled_time=scheduled
        ),
        actor=os_actor(),
        target=Target(job.id, "apscheduler.job"),
        script=script,
        attributes={schema.CODE_FUNCTION: job.func_ref or script.name},  # a lambda or a partial has no reference
        links=(Link(linked),) if linked is not None else (),
    )
    return due.recorder.start(event, opens=opens, context=context)


def _nowhere() -> Context:
    """Return an empty context that also stays empty in a process which was itself started by a run."""
    return runs.from_outside(Context())


def _finish(record: Record, job: Any, event: Any) -> None:
    """End a record as the library's event says."""
    from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_MISSED

    if event.code == EVENT_JOB_EXECUTED:
        record.finish(Outcome.SUCCESS)
    elif event.code == EVENT_JOB_MISSED:
        record.become(WorkflowSkipped(run_reason="it was due too long ago"))
        record.finish(Outcome.FAILURE, MISFIRE)
    else:
        record.finish(Outcome.FAILURE, event.exception)


def _lost(record: Record, job: Any, error: BaseException) -> None:
    record.become(WorkflowInterrupted(run_reason="it did not report how it ended"))
    record.finish(Outcome.FAILURE, error)
