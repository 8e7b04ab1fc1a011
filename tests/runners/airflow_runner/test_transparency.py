# SPDX-License-Identifier: Apache-2.0
"""Airflow's own tests of its task runner, from the source distribution of its task SDK, end alike with and without us.

They run tasks, retries, deferrals, skips, templates, XComs and other people's listeners in the very functions that the
plugin wraps. Fixtures of Airflow that are not released are in `standins`. docs/plugins/airflow.md has the counts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from auditspan import schema
from tests.conftest import BIN, QUIET
from tests.records import recorded
from tests.runners.suites import different, outcomes, source_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STANDINS = Path(__file__).parent / "standins"
TESTS = (
    "tests/task_sdk/execution_time/test_task_runner.py", "-o", "addopts=",
    # They want pyarrow, a client for Kubernetes, pytest-asyncio.
    "-k", "not dataframe_value and not masks_secrets_in_complex_objects and not axcom_pull",
)  # fmt: skip


def test_transparency(tmp_path: Path) -> None:
    place = source_of("apache-airflow-task-sdk", tmp_path)
    settings = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join((str(STANDINS), str(place / "tests"))),
    }
    log = tmp_path / "audit"
    audited = {**settings, **QUIET, "AUDITSPAN_DIR": str(log), "AUDITSPAN_REQUIRED": "true"}
    without, _ = outcomes(place, TESTS, [], settings)
    with_us, said = outcomes(place, TESTS, [str(BIN / "opentelemetry-instrument")], audited)
    print(f"\n{Counter(without.values())} without the plugin, {Counter(with_us.values())} with it")
    assert different(without, with_us) == {}
    assert Counter(without.values()).keys() == {"passed"}
    assert len(without) >= 490

    # It was on: what the tests let run was recorded, in every way in which a try can end.
    status = subprocess.run([str(BIN / "auditspan"), "status", str(log), "--json"], capture_output=True, text=True)
    assert json.loads(status.stdout)["faults"] == {}, said[-2000:]
    ends = Counter(
        (
            record["attributes"][schema.EVENT_TYPE].removeprefix("workflow.execution."),
            record["attributes"][schema.OUTCOME],
        )
        for record in recorded(log)
    )
    print(ends)
    assert min(ends[one] for one in (("finished", "success"), ("finished", "failure"), ("retried", "failure"))) > 0
    assert sum(ends.values()) > 50
