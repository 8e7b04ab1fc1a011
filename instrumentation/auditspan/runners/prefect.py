# SPDX-License-Identifier: Apache-2.0
"""Prefect 3: every flow run and task run, attempt by attempt.

How something gets to run, and where we look::

    client.create_flow_run_from_deployment   who asks for a run elsewhere: its run goes along as labels  -> hand_over
    client.read_deployment                   whoever runs a deployment reads it: its schedules           -> Deployments
    engine.initialize_run                    a run exists in this process, until its final state         -> Execution
      engine.run_context                     one attempt: the user's function is called in it            -> attempt
        FlowRunEngine.set_state              the server says that a failed flow is to be tried again     -> flow_state
        cloudpickle_wrapped_call             a task goes into a pool of processes          -> to_another_process

There are four engines (flow or task, synchronous or not), generators use the same ones, and all four are built like
this. They run in the process that calls the flow, or in a child of a runner or worker, ``python -m prefect.engine``.

The outcome is what the final state says. The engine's `_raised` may still hold what an attempt raised that was tried
again. Prefect's own hooks (`on_completion`…) are set flow by flow, and there is none for all.

Prefect makes OpenTelemetry spans of its own, named after the run. A record hangs below the one of the same run, or is
linked to it where the cause is in another trace.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Link, NonRecordingSpan

from auditspan import schema
from auditspan.capture import environ
from auditspan.capture import run as runs
from auditspan.capture.actor import os_actor
from auditspan.capture.blocks import Block, around
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Event, Record, Recorder, Target, inside
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion, script_version
from auditspan.runners.prefect_causes import Deployments, actor_of, trigger_of
from auditspan.runners.prefect_states import ending_of, failure_of
from auditspan.schema import Outcome, TriggerType
from auditspan.schema.events import WorkflowFinished, WorkflowInterrupted, WorkflowRetried

_LABEL = "__AUDITSPAN_"  # Prefect keeps labels that begin with two underscores out of its own spans
_TRACEPARENT = "__OTEL_TRACEPARENT"  # Prefect's own label
_CARRIED = ("TRACEPARENT", "TRACESTATE", "BAGGAGE")
_ATTRIBUTE = "_auditspan_execution"  # of an engine: engines are dataclasses and cannot be keys
_FILE_HASH = re.compile("[0-9a-f]{32}|[0-9a-f]{64}")  # a version that Prefect has made itself


class PrefectInstrumentor(AuditInstrumentor):
    """Audits the flow runs and task runs of Prefect 3."""

    name = "prefect"
    dependencies = ("prefect >= 3.4, < 4",)

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        deployments = Deployments()

        # -- a run elsewhere -----------------------------------------------------------------------------------
        def hand_over(call: Call) -> Hook:
            context = environ.parent_context()
            if runs.current(context) is not None and "labels" in inspect.signature(call.function).parameters:
                carried = {_LABEL + name: value for name, value in environ.carrier(context).items()}
                call.kwargs["labels"] = {**(call.kwargs.get("labels") or {}), **carried}
            yield

        def read_deployment(call: Call) -> Hook:
            deployments.remember((yield))

        # -- a run in this process -----------------------------------------------------------------------------
        running: dict[str, Execution] = {}

        def flow_run(call: Call, block: Block) -> Hook:
            execution = _Flow(call.instance, recorder, deployments)
            running[execution.id] = execution
            try:
                yield from _execute(execution, block)
            finally:
                running.pop(execution.id, None)

        def not_begun(call: Call, error: BaseException) -> None:
            # The server did not answer: if the run exists there, its process says so and ends.
            if call.instance.flow_run is not None:
                record = _Flow(call.instance, recorder, deployments).record
                record.become(WorkflowInterrupted(run_reason="it could not be begun"))
                record.finish(Outcome.FAILURE, error)

        def to_another_process(call: Call) -> Hook:
            # A task on its way into a pool of processes, in a thread that knows of no run.
            outer = (call.kwargs.get("context") or {}).get("flow_run_context") or {}
            execution = running.get(str((outer.get("flow_run") or {}).get("id")))
            if execution is not None and "task_run_id" in call.kwargs and isinstance(call.kwargs.get("env"), dict):
                call.kwargs["env"] = {**call.kwargs["env"], **environ.carrier(execution.record.context)}
            yield

        def task_run(call: Call, block: Block) -> Hook:
            yield from _execute(_Task(call.instance, recorder, deployments), block)

        def attempt(call: Call, block: Block) -> Hook:
            execution: Execution | None = getattr(call.instance, _ATTRIBUTE, None)
            if execution is None:
                return
            with execution.attempt(block):
                yield
            execution.attempted()

        def flow_state(call: Call) -> Hook:
            state = yield
            execution: Execution | None = getattr(call.instance, _ATTRIBUTE, None)
            if execution is not None and state.is_scheduled():
                execution.to_be_tried_again()

        engines = (
            ("prefect.flow_engine", "FlowRunEngine", flow_run),
            ("prefect.flow_engine", "AsyncFlowRunEngine", flow_run),
            ("prefect.task_engine", "SyncTaskRunEngine", task_run),
            ("prefect.task_engine", "AsyncTaskRunEngine", task_run),
        )
        flow = partial(Patch, "prefect.flow_engine", lazy=True)
        client = partial(Patch, "prefect.client.orchestration._deployments.client", lazy=True)
        return (
            *(
                Patch(module, f"{engine}.{method}", around(hook, f"prefect: {engine}.{method}", failed), lazy=True)
                for module, engine, run in engines
                for method, hook, failed in (
                    ("initialize_run", run, not_begun if run is flow_run else None),
                    ("run_context", attempt, None),
                )
            ),
            Patch("prefect.utilities.callables", "cloudpickle_wrapped_call", to_another_process, lazy=True),
            flow("FlowRunEngine.set_state", flow_state),
            flow("AsyncFlowRunEngine.set_state", flow_state),
            client("DeploymentClient.create_flow_run_from_deployment", hand_over),
            client("DeploymentAsyncClient.create_flow_run_from_deployment", hand_over),
            client("DeploymentClient.read_deployment", read_deployment),
            client("DeploymentAsyncClient.read_deployment", read_deployment),
        )


# -- attempts --------------------------------------------------------------------------------------------------------
def _execute(execution: Execution, block: Block) -> Hook:
    setattr(execution.engine, _ATTRIBUTE, execution)
    try:
        with inside(execution.record):
            yield
    finally:
        delattr(execution.engine, _ATTRIBUTE)
    execution.finish(block)


class Execution:
    """One run in one engine: a record for each attempt, the last of which has the outcome of the run.

    Attributes:
        engine: Prefect's.
        record: of the attempt that goes on, or has ended last.
    """

    def __init__(self, engine: Any, recorder: Recorder, deployments: Deployments) -> None:
        self.engine = engine
        self._recorder = recorder
        self._deployments = deployments
        # The counter of a run that was begun before, here or in another process, goes on.
        self._attempt = int(self._run.run_count or 0) + 1
        self._block: Block | None = None  # of the attempt that the user's function was called in last
        self._settled = False  # the attempt's record is finished, another attempt may follow
        self._base = self._cause()
        own = getattr(engine._telemetry, "span", None)  # Prefect's, which it forgets when an attempt has failed
        self._own = own.get_span_context() if own is not None else INVALID_SPAN_CONTEXT
        self.record = self._begin()

    @property
    def id(self) -> str:
        """Prefect's ID of the run."""
        return str(self._run.id)

    @property
    def _run(self) -> Any:
        raise NotImplementedError

    def _cause(self) -> Context:
        """Return the context that the run is caused in."""
        raise NotImplementedError

    def _event(self) -> tuple[Event, Run | None]:
        """Return what is known of the run, and the run of ours that it opens; None: it is a part of the current one."""
        raise NotImplementedError

    def _begin(self) -> Record:
        event, opens = self._event()
        context, links = self._base, event.links
        if self._own.is_valid:
            cause = trace.get_current_span(context).get_span_context()
            if not cause.is_valid or cause.trace_id == self._own.trace_id:
                context = trace.set_span_in_context(NonRecordingSpan(self._own), context)
            else:
                links = (*links, Link(self._own))
        event = replace(event, links=links, attributes={**event.attributes, schema.RUN_ATTEMPT: self._attempt})
        return self._recorder.start(event, opens=opens, context=context)

    def attempt(self, block: Block) -> ExitStack:
        """Begin an attempt; the first one has begun with the run."""
        stack = ExitStack()
        self._block = block
        if self._settled:
            self._settled = False
            self._attempt += 1
            self.record = self._begin()
            stack.enter_context(inside(self.record))
        return stack

    def attempted(self) -> None:
        """End an attempt: if the engine goes on, it was not the last one."""
        if self._block is not None and self._block.raised is None and self.engine.is_running():
            self.to_be_tried_again()

    def to_be_tried_again(self) -> None:
        """End the record of an attempt that failed and is not the last one."""
        if self._block is None or self._settled:
            return
        self._settled = True
        reason = "it failed, and Prefect tries it again"
        self.record.become(WorkflowRetried(run_attempt=self._attempt, run_reason=reason))
        self.record.finish(Outcome.FAILURE, failure_of(self._block.error))

    def finish(self, block: Block) -> None:
        """End the record of the last attempt as the run's state says."""
        if self._settled:  # it ended while it waited for the next attempt
            self._settled = False
            self._attempt += 1
            self.record = self._begin()
        error = self._block.error if self._block is not None else None
        ending = ending_of(self.engine, self._run.state, block.raised, self._block is not None, error)
        if ending.details is not None:
            self.record.become(ending.details)
        self.record.finish(ending.outcome, ending.error)


# -- flows -----------------------------------------------------------------------------------------------------------
class _Flow(Execution):
    @property
    def _run(self) -> Any:
        return self.engine.flow_run

    def _cause(self) -> Context:
        if _is_in_process(self.engine):
            return environ.parent_context()
        # Whoever asked for it is not whoever started this process, but the server says who asked, if anybody knows.
        labels = getattr(self._run, "labels", None) or {}
        carried = {name: str(labels[_LABEL + name]) for name in _CARRIED if _LABEL + name in labels}
        if not carried and _TRACEPARENT in labels and self._run.parent_task_run_id is not None:
            carried = {"TRACEPARENT": str(labels[_TRACEPARENT])}
        return runs.from_outside(environ.extract(carried))

    def _event(self) -> tuple[Event, Run | None]:
        flow, run = self.engine.flow, self._run
        script = _flow_version(flow)
        opens = _flow_run(flow, run, self._attempt, self._base, self._deployments, _is_in_process(self.engine))
        event = Event(
            name=f"flow {flow.name}",
            details=WorkflowFinished(
                task_name=flow.name,
                task_run_id=str(run.id),
                task_scheduled_time=_due(run) if run.auto_scheduled else None,
            ),
            actor=actor_of(run),
            target=Target(flow.name, "prefect.flow"),
            script=script,
            attributes={
                schema.CODE_FUNCTION: script.name,
                schema.DEPLOYMENT_NAME: self._deployments.name(run.deployment_id),
                schema.DEPLOYMENT_VERSION: getattr(run, "deployment_version", None)
                or self._deployments.version(run.deployment_id),
            },
        )
        return event, opens


def _is_in_process(engine: Any) -> bool:
    """Tell whether a flow was called here; else this process was started to run what the server knows of."""
    from prefect.context import FlowRunContext

    if engine.flow_run.deployment_id is None:
        return True
    return FlowRunContext.get() is not None and engine.flow_run.parent_task_run_id is not None


def _flow_run(
    flow: Any, run: Any, attempt: int, context: Context | None, deployments: Deployments, in_process: bool
) -> Run:
    """Return the run of ours that a flow run is: its ID is Prefect's."""
    trigger, rule = trigger_of(run, runs.current(context), deployments)
    return Run(str(run.id), flow.name, trigger, rule, _flow_version(flow), attempt=attempt)


def _due(run: Any) -> str | None:
    due = getattr(run, "expected_start_time", None)
    return due.isoformat() if due is not None else None


def _flow_version(flow: Any) -> ScriptVersion:
    """Return a flow's version: the one it declares, or that of its code. Prefect's default is a hash of the file."""
    found = script_version(flow.fn)
    if not flow.version or _FILE_HASH.fullmatch(str(flow.version)):
        return found
    return ScriptVersion(str(flow.version), "declared", found.name)


# -- tasks -----------------------------------------------------------------------------------------------------------
class _Task(Execution):
    @property
    def _run(self) -> Any:
        return self.engine.task_run

    def _cause(self) -> Context:
        context = environ.parent_context()
        flow_run_id = str(self._run.flow_run_id)
        here = runs.current(context)
        if self._run.flow_run_id is not None and (here is None or here.id != flow_run_id):
            # In a pool of processes Prefect sets the environment anew for each task.
            handed = environ.extract(os.environ)
            sent = runs.current(handed)
            if sent is not None and sent.id == flow_run_id:
                return handed
        return context

    def _event(self) -> tuple[Event, Run | None]:
        from prefect.context import FlowRunContext

        task, run = self.engine.task, self._run
        code = script_version(task.fn)
        script = ScriptVersion(str(task.version), "declared", code.name) if task.version else code
        outer = FlowRunContext.get()
        flow_run = outer.flow_run if outer is not None and run.flow_run_id is not None else None
        parent = runs.current(self._base)
        opens: Run | None = None
        if flow_run is None and run.flow_run_id is None:
            trigger = (TriggerType.PARENT_RUN, parent.workflow) if parent else (TriggerType.MANUAL, "direct call")
            opens = Run(str(run.id), task.name, *trigger, script, attempt=self._attempt)
        elif flow_run is not None and (parent is None or parent.id != str(flow_run.id)):
            # The flow runs in another process, and only Prefect's own context came along.
            count = max(int(flow_run.run_count or 0), 1)
            opens = _flow_run(outer.flow, flow_run, count, None, self._deployments, True)
        event = Event(
            name=f"task {task.name}",
            details=WorkflowFinished(task_name=task.name, task_run_id=str(run.id)),
            actor=actor_of(flow_run) if flow_run is not None else os_actor(),
            target=Target(task.name, "prefect.task"),
            script=script,
            attributes={schema.CODE_FUNCTION: code.name},
        )
        return event, opens
