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
    task runner   a try begins and ends                 listener                           -> airflow_tasks
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

import os
from collections.abc import Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.dependencies import get_dependency_conflicts

import auditspan
from auditspan.capture import faults
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor, say_not_audited
from auditspan.capture.recorder import Recorder

if TYPE_CHECKING:
    from auditspan.runners.airflow_server import Server
    from auditspan.runners.airflow_tasks import Tasks


_RUNNER = "airflow.sdk.execution_time.task_runner"


class AirflowInstrumentor(AuditInstrumentor):
    """Audits Airflow 3."""

    name = "airflow"
    dependencies = ("apache-airflow-core >= 3.0, < 4",)

    server: Server | None = None
    tasks: Tasks | None = None

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        from auditspan.runners import airflow_server as server  # only where there is an Airflow
        from auditspan.runners.airflow_tasks import Tasks

        made = self.server = server.Server(recorder)
        tasks = self.tasks = Tasks(recorder, made)
        release = tuple(int(part) for part in metadata.version("apache-airflow-core").split(".")[:2])
        old = release < (3, 2)
        carrier = "new_dagrun_trace_carrier"
        auth = "airflow.api_fastapi.auth.managers.base_auth_manager"
        token = "airflow.api_fastapi.execution_api." + ("deps" if old else "security")
        parsing = "airflow.models.dagbag" if old else "airflow.dag_processing.dagbag"
        return (
            Patch("airflow.models.dagrun", "DagRun.verify_integrity", server.new_run, lazy=True),
            Patch("airflow.api.common.mark_tasks", "_set_dag_run_state", server.mark_run, lazy=True),
            Patch("airflow.models.taskinstance", "TaskInstance.prepare_db_for_next_try", made.next_try, lazy=True),
            Patch(*_clearing(release), server.clear, lazy=True),
            *(() if old else (Patch("airflow.models.taskinstance", carrier, server.new_carrier, lazy=True),)),
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


def _clearing(release: tuple[int, ...]) -> tuple[str, str]:
    """Return where `airflow tasks clear` comes by: it has moved with each minor release."""
    if release < (3, 1):
        return "airflow.models.dag", "DAG.clear"
    module = "serialized_objects" if release < (3, 2) else "definitions.dag"
    return f"airflow.serialization.{module}", "SerializedDAG.clear"


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
    if AirflowInstrumentor().server is None and any(
        os.environ.get(name) for name in ("AUDITSPAN_DIR", "AUDITSPAN_REQUIRED")
    ):
        conflict = get_dependency_conflicts(AirflowInstrumentor.dependencies)
        if (
            conflict is not None and not AirflowInstrumentor.is_disabled()
        ):  # Airflow 2 has no package of the name that is looked for
            found = conflict.found or f"apache-airflow {metadata.version('apache-airflow')}"
            say_not_audited(AirflowInstrumentor.name, found, conflict.required)
        if conflict is None:
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
