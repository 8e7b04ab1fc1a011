# SPDX-License-Identifier: Apache-2.0
"""The fixtures that Airflow's own tests of the task runner want, by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

LONG_AGO = "2024-12-01T01:00:00Z"


@pytest.fixture
def mock_supervisor_comms(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a task says to its supervisor goes here."""
    from airflow.sdk.execution_time import comms, task_runner

    made = mock.create_autospec(comms.CommsDecoder)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", made, raising=False)
    return made


@pytest.fixture
def listener_manager() -> Iterator[Callable[[Any], None]]:
    """Adds listeners, and takes them away again."""
    from airflow.sdk.listener import get_listener_manager

    manager, added = get_listener_manager(), []

    def add(listener: Any) -> None:
        manager.add_listener(listener)
        added.append(listener)

    yield add
    for listener in added:
        manager.pm.unregister(listener)


@pytest.fixture
def mock_xcom_backend() -> Iterator[Any]:
    """A backend for XComs that is none."""
    with mock.patch("airflow.sdk.execution_time.task_runner.XCom", create=True) as made:
        yield made


@pytest.fixture
def mocked_parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Has the task runner find a task without a file: returns its task instance."""
    from airflow.sdk import DAG
    from airflow.sdk.execution_time import task_runner

    def parse(what: Any, dag_id: str, task: Any) -> Any:
        if not task.has_dag():
            dag = DAG(dag_id=dag_id, start_date=datetime(2024, 12, 3, tzinfo=timezone.utc))
            task.dag = dag
            task = dag.task_dict[task.task_id]
        if what.ti_context.dag_run.conf:
            task.dag.params = what.ti_context.dag_run.conf
        made = task_runner.RuntimeTaskInstance.model_construct(
            **what.ti.model_dump(exclude_unset=True),
            task=task,
            _ti_context_from_server=what.ti_context,
            max_tries=what.ti_context.max_tries,
            start_date=what.start_date,
            state="running",
            sentry_integration=what.sentry_integration,
            bundle_instance=SimpleNamespace(name="anything", version="any", path="/nowhere"),
        )
        monkeypatch.setattr(task_runner, "parse", lambda _, log: made)
        return made

    return parse


@pytest.fixture
def create_runtime_ti(mocked_parse: Callable[..., Any]) -> Callable[..., Any]:
    """Make the task instance that the task runner has for an operator."""
    from airflow.sdk import DAG
    from airflow.sdk.api.datamodels._generated import DagRun, TaskInstance, TIRunContext
    from airflow.sdk.execution_time.comms import BundleInfo, StartupDetails
    from uuid6 import uuid7

    def create(
        task: Any,
        dag_id: str = "test_dag",
        run_id: str = "test_run",
        logical_date: Any = LONG_AGO,
        start_date: Any = LONG_AGO,
        run_type: str = "manual",
        try_number: int = 1,
        map_index: int | None = -1,
        task_reschedule_count: int = 0,
        ti_id: Any = None,
        conf: dict[str, Any] | None = None,
        should_retry: bool | None = None,
        max_tries: int | None = None,
        **more: Any,
    ) -> Any:
        if not task.has_dag():
            dag = DAG(dag_id=dag_id, start_date=datetime(2024, 12, 3, tzinfo=timezone.utc))
            task.dag = dag
            task = dag.task_dict[task.task_id]
        retries = task.retries or 0
        named = {name: more.pop(name) for name in list(more) if name in DagRun.model_fields}
        at = {"data_interval_start": logical_date, "data_interval_end": logical_date} | named
        dag_run = DagRun.model_validate(
            {
                "dag_id": task.dag.dag_id, "run_id": run_id, "logical_date": logical_date, "start_date": start_date,
                "end_date": None, "run_after": logical_date or start_date, "run_type": run_type, "state": "running",
                "conf": conf, "consumed_asset_events": [], "partition_key": None, **at,
            }
        )  # fmt: skip
        context = TIRunContext(
            dag_run=dag_run,
            task_reschedule_count=task_reschedule_count,
            max_tries=retries if max_tries is None else max_tries,
            should_retry=try_number <= retries if should_retry is None else should_retry,
            **{name: more.pop(name) for name in list(more) if name in TIRunContext.model_fields},
        )
        told = StartupDetails(
            ti=TaskInstance(
                id=ti_id or uuid7(), task_id=task.task_id, dag_id=task.dag.dag_id, run_id=run_id, try_number=try_number,
                map_index=map_index, dag_version_id=uuid7(),
            ),
            dag_rel_path="", bundle_info=BundleInfo(name="anything", version="any"), ti_context=context,
            start_date=start_date, sentry_integration="",
        )  # fmt: skip
        assert not more, more
        return mocked_parse(told, dag_id, task)

    return create
