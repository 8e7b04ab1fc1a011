# SPDX-License-Identifier: Apache-2.0
"""What a backlog costs: a process records while the Collector is away, then the agent delivers all of it.

``python -m tests.benchmarks.backlog`` measures this part alone and prints it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from auditspan_seal.log.directory import open_directory
from auditspan_seal.standing import look
from tests.benchmarks.harness import memory
from tests.benchmarks.recording import SHORT, running_sink
from tests.seal.go import ROOT

TITLE = "A backlog"
RECORDS = 20_000 if SHORT else 1_000_000
NOBODY = "http://127.0.0.1:9"  # the discard port, where nobody listens
_IDLE = 1_000  # records after which a process has all that it will ever have, but a backlog


def page() -> list[str]:
    """Measure, and return the paragraphs of the page."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "log"
        made = _run([sys.executable, "-m", "tests.benchmarks.backlog", str(RECORDS)], directory, NOBODY)
        said = json.loads(made.stdout)
        standing = look(open_directory(directory))
        assert standing.size + standing.waiting == RECORDS + 1, standing
        with running_sink() as address:
            begin = time.perf_counter()
            _run([sys.executable, "-m", "tests.benchmarks.backlog", "drain", str(directory)], directory, address)
            seconds = time.perf_counter() - begin
        agent = json.loads((directory / "drained.json").read_text())
        standing = look(open_directory(directory))
    assert standing.pending == standing.waiting == 0, standing
    grown, most = said["peak"] - said["idle"], said["idle"]
    return [
        f"## {TITLE}",
        f"{RECORDS:,} records of 20 attributes in one process while the Collector is away; then all is delivered by\n"
        "`auditspan agent --once`.",
        "| what | measured | floor | goal |\n|---|---|---|---|\n"
        f"| memory of the process above idle ({most:.0f} MB), at its peak | {grown:.0f} MB | ≤ 64 MB | ≤ 32 MB |\n"
        f"| recorded and signed meanwhile | {RECORDS / said['seconds']:,.0f}/s | | |\n"
        f"| delivered afterwards, start of the agent included | {RECORDS / seconds:,.0f}/s | | |\n"
        f"| memory of the agent above idle ({agent['idle']:.0f} MB), at its peak "
        f"| {agent['peak'] - agent['idle']:.0f} MB | ≤ 64 MB | ≤ 32 MB |",
    ]


def _run(command: list[str], directory: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"AUDITSPAN_DIR": str(directory), "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    return subprocess.run(command, env=env, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)


def record(records: int) -> dict[str, Any]:
    """Record so many spans, in this process."""
    from opentelemetry.sdk.trace import TracerProvider

    from auditspan import boot
    from tests.records import audit_attributes

    provider = TracerProvider(shutdown_on_exit=False)
    log = boot.activate(provider)
    tracer = provider.get_tracer("benchmark", "1.0")
    fixed = audit_attributes()
    idle = 0.0
    begin = time.perf_counter()
    for number in range(records):
        if number == _IDLE:
            time.sleep(2.0)  # the first attempts to deliver have failed
            idle = memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew (man 5 proc)
            begin = time.perf_counter()
        tracer.start_span("update order", attributes=fixed | {"number": number, "target": f"order {number}"}).end()
    log.flush(600.0)
    seconds = time.perf_counter() - begin
    log.close()
    return {"idle": idle, "peak": memory("VmHWM"), "seconds": seconds}


def drain(directory: Path) -> None:
    """Deliver all of it as the agent does, and write down how much memory that took."""
    from auditspan.cli import main

    idle = memory("VmRSS")
    assert main(["agent", str(directory), "--once", "--timeout", "900"]) == 0
    (directory / "drained.json").write_text(json.dumps({"idle": idle, "peak": memory("VmHWM")}))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        drain(Path(sys.argv[2]))
    elif len(sys.argv) == 2:
        print(json.dumps(record(int(sys.argv[1]))))
    else:
        print("\n\n".join(page()))
