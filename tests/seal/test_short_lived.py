# SPDX-License-Identifier: Apache-2.0
"""Processes that live 200 ms: their records reach the log and the receiver, and their end does not take long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import status
from auditspan_seal.delivery import Delivery
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Verdict
from tests.conftest import BIN, OURS
from tests.environments import ROOT
from tests.seal.receiver import HANG, Reply, receiving

pytestmark = pytest.mark.slow

TASK = """
import json, sys, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.records import audit_attributes

provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(AuditSpanProcessor(AuditLog(Path(sys.argv[1]))))
tracer = provider.get_tracer("task")
for number in range(5):
    tracer.start_span(f"step {number}", attributes=audit_attributes(number=number)).end()
time.sleep(0.2)
begin = time.monotonic()
provider.shutdown()
print(json.dumps(time.monotonic() - begin))
"""
STEPS = 5
PROMPT = 4.0  # seconds that an end may take on a busy machine; one that waits for a receiver takes 5


def environment(endpoint: str) -> dict[str, str]:
    clean = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    return {**clean, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}


def start(path: Path, endpoint: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TASK, str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(endpoint), cwd=ROOT,
    )  # fmt: skip


def end(task: subprocess.Popen[str]) -> float:
    """Return how long its end took, in seconds."""
    output, errors = task.communicate(timeout=60)
    assert task.returncode == 0, errors
    assert "Traceback" not in errors, errors
    return float(json.loads(output))


def agent(path: Path, endpoint: str) -> None:
    done = subprocess.run(
        [str(BIN / "auditspan"), "agent", "--once", str(path)],
        env=environment(endpoint), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def all_there(path: Path, tasks: int, indexes: list[int]) -> None:
    directory = open_directory(path)
    report = verify_directory(directory)
    assert (report.verdict, report.records) == (Verdict.PASSED, tasks * STEPS)
    assert sorted(set(indexes)) == list(range(Delivery.load(directory.delivery).size))
    assert status.gather(directory)["attention"] == []


def test_many_at_once_leave_their_records_to_one_of_them_or_to_the_agent(log_folder: Path) -> None:
    with receiving() as receiver:
        tasks = [start(log_folder, receiver.url) for _ in range(8)]
        for task in tasks:  # how long each takes beside seven others says nothing of it; that it ends does
            end(task)
        agent(log_folder, receiver.url)
        all_there(log_folder, 8, receiver.indexes)
        assert len(receiver.indexes) == len(set(receiver.indexes)), "something was sent twice for no reason"


FAULTS: dict[str, Callable[[Any], Reply]] = {"busy": lambda request: Reply(503), "hanging": lambda request: HANG}


@pytest.mark.parametrize("fault", ["away", *FAULTS])
def test_one_after_the_other_while_nobody_takes_their_records(log_folder: Path, fault: str) -> None:
    with receiving() as receiver:
        endpoint = "http://127.0.0.1:9" if fault == "away" else receiver.url
        receiver.reply = FAULTS.get(fault, receiver.reply)
        times = [end(start(log_folder, endpoint)) for _ in range(4)]
        assert times[0] < 7, times  # nobody could know
        assert max(times[1:]) < PROMPT, times
        assert any("delivery stands still" in item for item in status.gather(open_directory(log_folder))["attention"])
        receiver.reply = lambda request: Reply()
        end(start(log_folder, receiver.url))
        agent(log_folder, receiver.url)
        all_there(log_folder, 5, receiver.indexes)
