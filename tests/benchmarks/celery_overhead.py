# SPDX-License-Identifier: Apache-2.0
"""What auditing costs a task of Celery: in the worker, and where it is sent. Run it where Celery is installed.

``python -m tests.benchmarks.celery_overhead [TASKS] [ROUNDS]``: real Redis, real prefork worker with one child, a task
that does nothing. What is measured is the CPU time of the child, with signing in it, and that of the sender: the clock
on the wall says more of the machine and of Redis. Three kinds in turn, so that noise hits all alike: without
OpenTelemetry, under ``opentelemetry-instrument`` without our plugin, and with it.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from tests.conftest import BIN, OURS, QUIET
from tests.environments import ROOT
from tests.runners.redis_broker import redis

APPLICATION = """
import os, sys, time
from celery import Celery
app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.task_default_queue = os.environ["BENCH_QUEUE"]
app.conf.broker_connection_retry_on_startup = True
ledger = open(os.environ["BENCH_LEDGER"], "a", buffering=1)

@app.task(name="bench.note")
def note():
    ledger.write(f"{time.process_time()}\\n")

if __name__ == "__main__":
    note.delay()
    began = time.process_time()
    for _ in range(int(sys.argv[1])):
        note.delay()
    print((time.process_time() - began) / int(sys.argv[1]))
"""
KINDS = {
    "without OpenTelemetry": None,
    "OpenTelemetry, without our plugin": {"AUDITSPAN_DISABLED_PLUGINS": "celery"},
    "audited": {},
}


def measure(folder: Path, url: str, kind: dict[str, str] | None, tasks: int) -> tuple[float, float]:
    """Return the seconds of CPU for each task in the worker, and for each one sent."""
    place = folder / uuid.uuid4().hex
    place.mkdir()
    (place / "bench.py").write_text(APPLICATION)
    ledger = place / "ledger"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment = {
        **kept, **QUIET, "BENCH_REDIS": url, "BENCH_QUEUE": place.name, "BENCH_LEDGER": str(ledger),
        "AUDITSPAN_DIR": str(place / "audit"), "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "celery,redis",
        "PYTHONPATH": str(place), **(kind or {}),
    }  # fmt: skip
    instrument = [] if kind is None else [str(BIN / "opentelemetry-instrument")]
    sent = subprocess.run(
        [*instrument, sys.executable, str(place / "bench.py"), str(tasks)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    with open(place / "out", "w") as out:
        worker = subprocess.Popen(
            [*instrument, str(BIN / "celery"), "-A", "bench", "worker", "-c", "1", "--without-gossip",
             "--without-mingle", "--loglevel", "WARNING"],
            env=environment, cwd=ROOT, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until = time.monotonic() + 300
        while not ledger.exists() or len(ledger.read_text().splitlines()) <= tasks:
            if time.monotonic() > until:
                raise RuntimeError((place / "out").read_text())
            time.sleep(0.2)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    times = [float(line) for line in ledger.read_text().splitlines()]
    first = len(times) // 10  # what is done once is not what a task costs
    return (times[-1] - times[first]) / (len(times) - 1 - first), float(sent.stdout)


def main(tasks: int = 2000, rounds: int = 5) -> None:
    """Measure and print."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in KINDS}
    with tempfile.TemporaryDirectory() as temporary, redis(Path(temporary)) as url:
        for _ in range(rounds):
            for name, kind in KINDS.items():
                found[name].append(measure(Path(temporary), url, kind, tasks))
    print(f"{tasks} tasks, median of {rounds} rounds; µs of CPU for each, and the ratio to the line without our plugin")
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    base = middle["OpenTelemetry, without our plugin"]
    for name, (worker, sender) in middle.items():
        print(
            f"{name:36} worker {worker * 1e6:7.0f} ({worker / base[0]:4.2f})   "
            f"sender {sender * 1e6:7.0f} ({sender / base[1]:4.2f})"
        )


if __name__ == "__main__":
    main(*[int(argument) for argument in sys.argv[1:3]])
