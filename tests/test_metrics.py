# SPDX-License-Identifier: Apache-2.0
"""What auditing says about itself as OpenTelemetry metrics, and `auditspan status` says the same to people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan_seal.log.directory import open_directory
from tests.conftest import Run

pytestmark = pytest.mark.slow

PROGRAM = """
import time
import auditspan
for number in range(5):
    with auditspan.action("UPDATE", target=str(number), target_type="row"):
        pass
from opentelemetry import trace
trace.get_tracer_provider().force_flush()
time.sleep(0.5)  # the sequencer's turn
"""
CONSOLE = {"OTEL_METRICS_EXPORTER": "console"}


def measured(stdout: str) -> dict[str, list[dict[str, Any]]]:
    """Return the data points of each of our metrics as the console exporter printed them last."""
    found: dict[str, list[dict[str, Any]]] = {}
    decoder, at = json.JSONDecoder(), stdout.find("{")
    while at >= 0:
        document, end = decoder.raw_decode(stdout, at)
        for resource in document["resource_metrics"]:
            for scope in resource["scope_metrics"]:
                for metric in scope["metrics"]:
                    if metric["name"].startswith("auditspan."):
                        found[metric["name"]] = metric["data"]["data_points"]
        at = stdout.find("{", end)
    return found


def test_a_process_reports_what_it_recorded_and_how_far_the_log_is(instrumented: Run, log_folder: Path) -> None:
    done = instrumented(PROGRAM, env=CONSOLE)
    assert done.returncode == 0, done.stderr
    points = measured(done.stdout)
    origin = open_directory(log_folder).origin
    values = {name: point["value"] for name, (point, *_) in points.items()}
    assert values["auditspan.record.recorded"] == 5
    assert values["auditspan.record.lost"] == 0
    assert values["auditspan.entry.sequenced"] == 6, "with the genesis entry"
    assert values["auditspan.entry.delivered"] == 0
    assert values["auditspan.entry.pending"] == 6, "nothing is sent"
    assert values["auditspan.entry.waiting"] == 0
    assert values["auditspan.entry.rejected"] == values["auditspan.entry.reconciled"] == 0
    assert values["auditspan.delivery.age"] > 0.3
    assert values["auditspan.disk.usage"] > 10_000
    assert {point["attributes"]["audit.log.origin"] for found in points.values() for point in found} == {origin}


def test_faults_and_lost_records_are_measured(instrumented: Run, log_folder: Path) -> None:
    breaking = """
import errno, os
from auditspan.capture import faults
from auditspan_seal.log.window import Appender
with faults.contained("somewhere"):
    raise RuntimeError("injected")
def full(self, line):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
Appender.append = full
"""
    points = measured(instrumented(breaking + PROGRAM, env=CONSOLE).stdout)
    assert [(p["value"], p["attributes"]) for p in points["auditspan.fault.contained"]] == [
        (1, {"auditspan.fault.location": "somewhere"})
    ]
    assert [point["value"] for point in points["auditspan.record.lost"]] == [5]
    assert [point["value"] for point in points["auditspan.record.recorded"]] == [0]


def test_status_says_what_waits_since_when_and_what_to_do(
    instrumented: Run, log_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from auditspan.cli import status

    nobody = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    assert instrumented(PROGRAM, env=nobody).returncode == 0
    assert main(["status", str(log_folder), "--json"]) == 3
    state = json.loads(capsys.readouterr().out)
    assert (state["sequenced"], state["delivered"], state["pending"]) == (6, 0, 6)
    assert state["pending_since"] == pytest.approx(state["processes"][0]["started"], abs=10)
    assert any("6 entries are safe here and wait" in item for item in state["attention"])
    # Records that nobody has signed: a process died before its sequencer's turn.
    dying = PROGRAM.replace("trace.get_tracer_provider().force_flush()", "import os; os._exit(0)")
    patch = "from auditspan_seal.log.sequencer import Sequencer\nSequencer.acquire = lambda *_: None\n"
    instrumented(patch + dying)
    monkeypatch.setattr(status, "_PATIENCE", 0.0)
    assert main(["status", str(log_folder), "--json"]) == 3
    state = json.loads(capsys.readouterr().out)
    assert state["waiting_to_be_signed"] == 5
    assert any(f"auditspan agent --once {log_folder}" in item for item in state["attention"])
    assert main(["agent", str(log_folder), "--once", "--timeout", "5"]) == 0
    capsys.readouterr()
    assert main(["status", str(log_folder), "--json"]) == 3, "of the process that could not deliver"
    assert json.loads(capsys.readouterr().out)["waiting_to_be_signed"] == 0
