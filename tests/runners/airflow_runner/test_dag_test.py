# SPDX-License-Identifier: Apache-2.0
"""`dag.test()`, under `opentelemetry-instrument`: everything in one process."""

from __future__ import annotations

from collections import Counter

import pytest

from auditspan import schema
from tests.runners.airflow_runner.conftest import Home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_every_try_is_recorded(tested: Home) -> None:
    found = Counter(
        (
            one.get(schema.TARGET_ID),
            one.get(schema.RUN_ATTEMPT),
            one.get(schema.EVENT_TYPE)[19:],
            one.get(schema.OUTCOME),
        )
        for one in tested.records()
    )
    assert found == Counter(
        [
            ("orders", "1", "finished", "success"),
            ("orders.count", "1", "finished", "success"),
            ("orders.load[0]", "1", "finished", "success"),
            ("orders.load[1]", "1", "finished", "success"),
            ("orders.load[2]", "1", "finished", "success"),
            ("orders.flaky", "1", "retried", "failure"),
            ("orders.flaky", "2", "finished", "success"),
            ("orders.optional", "1", "skipped", "success"),
            ("orders.after_optional", "1", "skipped", "success"),
        ]
    )
    assert (
        len(tested.query("SELECT id FROM task_instance UNION ALL SELECT task_instance_id FROM task_instance_history"))
        == 8
    )


def test_run_and_trigger(tested: Home) -> None:
    found = tested.records()
    (run,) = tested.query("SELECT run_id, dag_id FROM dag_run")
    assert {one.get(schema.RUN_ID) for one in found} == {f"airflow/orders/{run['run_id']}"}
    assert {(one.get(schema.TRIGGER_TYPE), one.get(schema.TRIGGER_RULE)) for one in found} == {("manual", "test")}
    assert {one.get(schema.TASK_TRIGGER_RULE) for one in found} == {"0 0 29 2 *"}
    assert len({one.fields["trace_id"] for one in found}) == 1
    assert {one.get(schema.NONCONFORMANT) for one in found} == {""}
    assert {one.get(schema.BEHALF_ID) for one in found} == {""}  # "dag_test" is nobody
