# SPDX-License-Identifier: Apache-2.0
"""Airflow 3, the process of a task: every try, and every part of one that was deferred or rescheduled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditspan import schema
from auditspan.capture.hooks import Call, Hook
from auditspan.capture.recorder import Event, Record, Recorder, inside
from auditspan.capture.version import script_version
from auditspan.runners import airflow_runs as known
from auditspan.runners import airflow_server as server
from auditspan.runners.airflow_server import Server
from auditspan.schema import Outcome
from auditspan.schema.events import WorkflowFinished, WorkflowRetried, WorkflowSkipped

_ON_HOLD = {
    "deferred": "deferred until its trigger fires; the same try goes on then",
    "up_for_reschedule": "rescheduled; the same try goes on then",
    "awaiting_input": "waits for somebody's input; the same try goes on then",
}


class Tasks:
    """Makes the records of the processes that run tasks: one task in each, but for ``dag.test()``."""

    def __init__(self, recorder: Recorder, made: Server) -> None:
        self._recorder = recorder
        self._server = made
        self._running: dict[str, Record] = {}  # by the UUID of the try
        self._told: dict[str, Mapping[str, str]] = {}

    def begin(self, ti: Any) -> Record:
        """Begin the record of a try, or of the next part of one that was deferred or rescheduled."""
        key = str(ti.id)
        found, context = known.of_task(ti, self._told.get(key))
        function = getattr(ti.task, "python_callable", None)
        script = script_version(function or type(ti.task).execute)
        attributes = {**found.attributes, schema.RUN_ATTEMPT: ti.try_number, schema.CODE_FUNCTION: script.name}
        from_server = getattr(ti, "_ti_context_from_server", None)
        if not getattr(from_server, "task_reschedule_count", 0) and not getattr(from_server, "next_method", None):
            attributes[schema.RECORD_ID] = known.record_id(ti.id)  # of the first part
        event = Event(
            name=f"task {ti.dag_id}.{ti.task_id}",
            details=WorkflowFinished(**server.task(ti)),
            actor=known.actor_of_process(found.person),
            target=server.target(ti),
            # Of an operator that comes from a package, what matters is how the DAG uses it.
            script=None if function is None and script.source in ("declared", "package") else script,
            attributes=attributes,
        )
        record = self._running[key] = self._recorder.start(event, opens=found.run, context=context)
        return record

    def execute(self, call: Call) -> Hook:
        """_execute_task: what the task's code does belongs to its record."""
        record = self._running.get(str(call.argument(1, "ti").id))
        if record is None:
            return
        with inside(record):
            yield

    def finalize(self, call: Call) -> Hook:
        """finalize: a try, or a part of it, has come to its end."""
        ti, state, error = call.argument(0, "ti"), known.value(call.argument(1, "state")), call.argument(4, "error")
        # There is none if it failed before it ran: while its templates were rendered, for example.
        record = self._running.pop(str(ti.id), None) or self.begin(ti)
        self._running.pop(str(ti.id), None)
        failed = error if isinstance(error, BaseException) else None
        if state in _ON_HOLD:
            record.set(schema.RUN_REASON, _ON_HOLD[state])
            record.finish(Outcome.UNKNOWN)
        elif state == "skipped":
            record.become(WorkflowSkipped(run_reason="it skipped itself"))
            record.finish(Outcome.SUCCESS)
        elif state == "up_for_retry":
            record.become(WorkflowRetried(run_attempt=ti.try_number, run_reason="it failed; it will be tried again"))
            record.finish(Outcome.FAILURE, failed)
        else:
            record.finish(Outcome.SUCCESS if state == "success" else Outcome.FAILURE, failed)
        yield

    def load(self, call: Call) -> Hook:
        """parse: a try fails before it begins, because the task is not in its DAG file any more for example."""
        try:
            yield
        except BaseException as error:
            message = call.argument(0, "what")
            ti = message.ti
            found, context = known.of_task(ti, None, message.ti_context)
            actor = known.actor_of_process(found.person)
            later = type(error).__name__ == "AirflowRescheduleException"
            reason = f"it could not be loaded{'; the same try goes on later' if later else ''}"
            details = WorkflowFinished(run_reason=reason, **server.task(ti))
            record = self._server.start(ti, found, details, actor, context)
            record.finish(Outcome.UNKNOWN if later else Outcome.FAILURE, error)
            raise

    def test_task(self, call: Call) -> Hook:
        """_run_task of ``dag.test()``: the task runs in this process, and no executor tells it of its run."""
        ti = call.argument(0, "ti")
        self._told[str(ti.id)] = known.hand_over(ti)
        try:
            yield
        finally:
            self._told.pop(str(ti.id), None)
