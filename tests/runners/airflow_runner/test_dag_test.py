# SPDX-License-Identifier: Apache-2.0
"""`dag.test()`, under `opentelemetry-instrument`: everything in one process."""

from __future__ import annotations

from collections import Counter

import pytest

from auditspan import schema
from tests.runners.airflow_runner.cases import DAG_RUN, TASK, TRIES, how_of, kind
from tests.runners.airflow_runner.serving import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_every_try_is_recorded(tested: Home) -> None:
    reported = Counter((row["task_id"], *how_of(row)) for row in tested.query(TRIES))
    recorded = Counter(
        (one.get(schema.TASK_NAME), kind(one), one.get(schema.OUTCOME))
        for one in tested.records()
        if one.get(schema.TARGET_TYPE) == TASK
    )
    assert recorded == reported
    assert sum(reported.values()) == 8
    flaky = [one for one in tested.records() if one.get(schema.TASK_NAME) == "flaky"]
    assert sorted((one.get(schema.RUN_ATTEMPT), kind(one)) for one in flaky) == [("1", "retried"), ("2", "finished")]
    assert sorted(one.get(schema.TARGET_ID) for one in tested.records() if "load" in one.get(schema.TARGET_ID)) == [
        f"orders.load[{index}]" for index in range(3)
    ]
    (run,) = tested.query("SELECT state FROM dag_run")
    (end,) = [one for one in tested.records() if one.get(schema.TARGET_TYPE) == DAG_RUN]
    assert end.get(schema.OUTCOME) == {"success": "success", "failed": "failure"}[run["state"]]


def test_run_and_trigger(tested: Home) -> None:
    found = tested.records()
    (run,) = tested.query("SELECT run_id, dag_id FROM dag_run")
    assert {one.get(schema.RUN_ID) for one in found} == {f"airflow/orders/{run['run_id']}"}
    assert {(one.get(schema.TRIGGER_TYPE), one.get(schema.TRIGGER_RULE)) for one in found} == {("manual", "test")}
    assert {one.get(schema.TASK_TRIGGER_RULE) for one in found} == {"0 0 29 2 *"}
    assert len({one.fields["trace_id"] for one in found}) == 1
    assert {one.get(schema.NONCONFORMANT) for one in found} == {""}
    assert {one.get(schema.BEHALF_ID) for one in found} == {""}  # "dag_test" is nobody
