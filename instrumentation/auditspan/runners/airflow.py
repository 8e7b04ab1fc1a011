# SPDX-License-Identifier: Apache-2.0
"""Airflow 3: every DAG run, every try of every task, and what people do to them by hand.

Which processes there are, and where we look::

    API server    a DAG run is made                     DagRun.verify_integrity           -> airflow_server
                  a user marks a run or a task          listener, _set_dag_run_state
                  a user clears a task                  TaskInstance.prepare_db_for_next_try
                  who asks                              get_user_from_token, JWTBearer
    scheduler     a task is given to an executor        ExecuteTask.make: told of its run
                  a DAG run ends                        listener
                    and with it what never ran          its task instances
    task runner   a try begins and ends                 listener                          -> _Tasks
      (forked)    its code runs                         _execute_task
                  it is deferred, rescheduled           finalize: no listener is told
                  its DAG file cannot be loaded         parse

Listeners are Airflow's own extension point; functions are wrapped for what no listener is told. A try after which
another will follow is reported as failed, in the state UP_FOR_RETRY. Airflow swallows what a listener raises, so each
of ours is contained and counted.

A task's process ends by `os._exit`, or is killed: what is recorded is in the log by then. A try that was killed has no
end of its own; the log says that it was interrupted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

import auditspan
from auditspan import schema
from auditspan.capture import faults
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Event, Record, Recorder, inside
from auditspan.capture.version import script_version
from auditspan.runners import airflow_runs as known
from auditspan.runners import airflow_server as server
from auditspan.runners.airflow_server import Server
from auditspan.schema import Outcome
from auditspan.schema.events import WorkflowFinished, WorkflowRetried, WorkflowSkipped

logger = logging.getLogger("auditspan")

_RUNNER = "airflow.sdk.execution_time.task_runner"
_ON_HOLD = {
    "deferred": "deferred until its trigger fires; the same try goes on then",
    "up_for_reschedule": "rescheduled; the same try goes on then",
    "awaiting_input": "waits for somebody's input; the same try goes on then",
}


class AirflowInstrumentor(AuditInstrumentor):
    """Audits Airflow 3."""

    name = "airflow"
    dependencies = ("apache-airflow-core >= 3.0, < 4",)

    server: Server | None = None
    tasks: _Tasks | None = None

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        made = self.server = Server(recorder)
        tasks = self.tasks = _Tasks(recorder, made)
        old = _release() < (3, 2)
        auth = "airflow.api_fastapi.auth.managers.base_auth_manager"
        token = "airflow.api_fastapi.execution_api." + ("deps" if old else "security")
        parsing = "airflow.models.dagbag" if old else "airflow.dag_processing.dagbag"
        return (
            Patch("airflow.models.dagrun", "DagRun.verify_integrity", server.new_run, lazy=True),
            Patch("airflow.api.common.mark_tasks", "_set_dag_run_state", server.mark_run, lazy=True),
            Patch("airflow.models.taskinstance", "TaskInstance.prepare_db_for_next_try", made.next_try, lazy=True),
            *_clearing(),
            *(() if old else (Patch("airflow.models.taskinstance", _CARRIER, server.new_carrier, lazy=True),)),
            Patch(auth, "BaseAuthManager.get_user_from_token", server.login, lazy=True),
            Patch(token, "JWTBearer.__call__", server.task_token, lazy=True),
            Patch("starlette.applications", "Starlette.__call__", server.answer, lazy=True),
            Patch("airflow.executors.workloads", "ExecuteTask.make", server.hand_over, lazy=True),
            Patch(parsing, "get_listener_manager", _not_our_listener, lazy=True),
            Patch("airflow.sdk.definitions.dag", "_run_task", tasks.test_task, lazy=True),
            Patch(_RUNNER, "parse", tasks.load, lazy=True),
            Patch(_RUNNER, "_execute_task", tasks.execute, lazy=True),
            Patch(_RUNNER, "finalize", tasks.finalize, lazy=True),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        super()._uninstrument(**kwargs)
        self.server = self.tasks = None


_CARRIER = "new_dagrun_trace_carrier"


def _release() -> tuple[int, ...]:
    return tuple(int(part) for part in metadata.version("apache-airflow-core").split(".")[:2])


def _clearing() -> tuple[Patch, ...]:
    """Return where `airflow tasks clear` comes by: it has moved with each minor release."""
    release = _release()
    if release < (3, 1):
        return (Patch("airflow.models.dag", "DAG.clear", server.clear, lazy=True),)
    module = "serialized_objects" if release < (3, 2) else "definitions.dag"
    return (Patch(f"airflow.serialization.{module}", "SerializedDAG.clear", server.clear, lazy=True),)


# -- what Airflow loads ----------------------------------------------------------------------------------------------
def __getattr__(name: str) -> Any:
    # The entry point `airflow.plugins`. Made when it is asked for: without Airflow there is no class to derive from.
    if name != "AuditspanPlugin":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from airflow.plugins_manager import AirflowPlugin

    listeners: list[Any] = []
    with faults.contained("airflow: load the plugin"):
        if _activate():
            listeners.append(_marked(_Listener()))
    plugin = type(name, (AirflowPlugin,), {"name": "auditspan", "listeners": listeners})
    globals()[name] = plugin
    return plugin


def _activate() -> bool:
    """Switch auditing on in a process that was not started under ``opentelemetry-instrument``, if it is wanted there.

    ``opentelemetry-instrument`` does not reach the processes that its program starts, and Airflow is made of those.
    """
    conflict = get_dependency_conflicts(AirflowInstrumentor.dependencies)
    if conflict is not None:
        logger.warning("auditspan: Airflow is NOT audited, its version is not supported: %s", conflict)
        return False
    if AirflowInstrumentor().server is None and any(
        os.environ.get(name) for name in ("AUDITSPAN_DIR", "AUDITSPAN_REQUIRED")
    ):
        auditspan.install()
    return AirflowInstrumentor().server is not None


def _marked(listener: _Listener) -> _Listener:
    """Mark the methods of the listener, as Airflow (pluggy) wants it."""
    from airflow.listeners import hookimpl

    for name, function in vars(_Listener).items():
        if name.startswith("on_"):
            hookimpl(function)
    return listener


def _not_our_listener(call: Call) -> Hook:
    # Airflow refuses DAGs with `end_from_trigger=True` where there are listeners at all. Ours must not change that:
    # such a try is recorded until it is deferred.
    call.function = _WithoutOurs(call.function)
    yield


class _WithoutOurs:
    """Stands for the listener manager where it is only asked whether there are listeners."""

    def __init__(self, get: Any) -> None:
        self._get = get

    def __call__(self) -> Any:
        self._manager = self._get()
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    @property
    def has_listeners(self) -> bool:
        return any(not isinstance(plugin, _Listener) for plugin in self._manager.pm.get_plugins())


class _Listener:
    """Is told by Airflow what happens to DAG runs (scheduler, API server) and to tasks (their own process)."""

    def on_dag_run_success(self, dag_run: Any) -> None:
        self._dag_run(dag_run, "on_dag_run_success")

    def on_dag_run_failed(self, dag_run: Any) -> None:
        self._dag_run(dag_run, "on_dag_run_failed")

    def on_task_instance_running(self, task_instance: Any) -> None:
        with faults.contained("airflow: on_task_instance_running"):
            tasks = AirflowInstrumentor().tasks
            if tasks is not None:
                tasks.begin(task_instance)

    def on_task_instance_success(self, task_instance: Any) -> None:
        self._task(task_instance, "success")

    def on_task_instance_skipped(self, task_instance: Any) -> None:
        self._task(task_instance, "skipped")

    def on_task_instance_failed(self, task_instance: Any) -> None:
        self._task(task_instance, "failed")

    def _dag_run(self, dag_run: Any, where: str) -> None:
        with faults.contained(f"airflow: {where}"):
            made = AirflowInstrumentor().server
            if made is not None:
                made.dag_run_ended(dag_run)

    def _task(self, ti: Any, state: str) -> None:
        with faults.contained(f"airflow: on_task_instance_{state}"):
            instrumentor = AirflowInstrumentor()
            # In the task's own process it has been recorded by `finalize`, which knows more.
            if instrumentor.server is not None and type(ti).__module__.startswith("airflow.models."):
                instrumentor.server.task_changed(ti, state)


# -- the task's own process ------------------------------------------------------------------------------------------
class _Tasks:
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
