# SPDX-License-Identifier: Apache-2.0
"""The example does what its README says."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from auditspan import schema
from tests.conftest import BIN
from tests.environments import ROOT
from tests.runners.celery_runner.conftest import Installation, told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FOLDER = ROOT / "examples" / "celery-reports"


def test_the_example_of_newest(installation: Installation) -> None:
    settings = {
        "REPORTS_REDIS": installation.ours["TEST_REDIS"],
        "REPORTS_QUEUE": installation.ours["TEST_QUEUE"],
        "REPORTS_OUTPUT": str(installation.folder),
        "PYTHONPATH": str(FOLDER),
    }
    worker = installation.start(
        str(BIN / "celery"), "-A", "reports", "worker", "-c", "2", "--loglevel", "INFO", name="worker", **settings
    )
    installation.wait(lambda: "ready." in installation.output("worker"), "the worker")
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, str(FOLDER / "reports.py"), "2014"],
        capture_output=True, text=True, timeout=90, env=installation.environment(**settings),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "written: 2014.txt"
    installation.stop(worker)
    assert len((installation.folder / "2014.txt").read_text().splitlines()) == 13
    records = installation.records()
    assert len(records) == 15
    assert Counter((record[schema.TASK_NAME], *told(record)) for record in records) == {
        ("reports.year", "finished", "success"): 1,
        ("reports.month", "retried", "failure"): 1,
        ("reports.month", "finished", "success"): 12,
        ("reports.publish", "finished", "success"): 1,
    }
    assert len({record["span"]["trace_id"] for record in records}) == 1
    (year,) = (record for record in records if record[schema.TASK_NAME] == "reports.year")
    months = [record for record in records if record[schema.TASK_NAME] == "reports.month"]
    assert {record[schema.PARENT_RUN_ID] for record in months} == {year[schema.RUN_ID]}
    (publish,) = (record for record in records if record[schema.TASK_NAME] == "reports.publish")
    assert publish[schema.PARENT_RUN_ID] in {record[schema.RUN_ID] for record in months}
