# SPDX-License-Identifier: Apache-2.0
"""A long run through the whole real pipeline: processes, Collector, Elasticsearch; then everything is reconciled and
verified from Elasticsearch's documents alone.

    python -m tests.benchmarks.soak --records 10000000 --minutes 40

stops recording at whichever comes first, and prints the memory of each process over time, and then its part of the
page. Fails if anything is lost, doubled or does not verify. Give AUDITSPAN_DIR an empty folder on a large disk: about
1.6 kB are needed for a record in it, and as much in Elasticsearch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from auditspan.devstack.stack import Stack
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.standing import look
from tests.benchmarks.harness import memory
from tests.benchmarks.recording import SHORT
from tests.seal.go import ROOT

TITLE = "A long run"
RECORDS = 20_000 if SHORT else 300_000
MINUTES = 40.0
WRITERS = 2
AHEAD = 200_000  # entries that are not delivered, at which writers pause: it is the pipeline that is looked at
_EVERY = 15.0  # seconds between lines of what is printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    options = parser.parse_args()
    found = _in_a_stack(options.records, options.minutes)
    print(json.dumps(found, indent=2))
    print("\n\n".join(_said(found)))


def page() -> list[str]:
    """Measure a run that is not long, and return the paragraphs of the page."""
    return _said(_in_a_stack(RECORDS, MINUTES))


def _in_a_stack(records: int, minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(os.environ.get("AUDITSPAN_DIR") or folder) / "log"
        with Stack.start(Path(folder) / "stack") as stack:
            return run(stack, path, records, minutes * 60)


def _said(found: dict[str, Any]) -> list[str]:
    """Write what :func:`run` has found as paragraphs of the page."""
    records, seconds, taken = found["records"], found["seconds"], found["memory"]
    agent = [sizes[0] for _, *sizes in taken]
    writers = [size for _, *sizes in taken for size in sizes[1:] if size]
    rows = {
        "records; lost; verdict": f"{records:,}; {found['lost']}; {found['verdict']}",
        "recorded; the last one delivered": f"after {seconds['recording']:,} s; after {seconds['until delivered']:,} s "
        f"({found['delivered per second']:,}/s)",
        "reconciled: every document read back and hashed": f"{seconds['reconciling']:,} s",
        "verified from Elasticsearch": f"{seconds['verifying']:,} s ({records / max(1, seconds['verifying']):,.0f}/s)",
        "memory of the agent at the beginning, at most, at the end": f"{agent[0]}, {max(agent)}, {agent[-1]} MB",
        "memory of a recording process, least and most": f"{min(writers)}, {max(writers)} MB",
    }
    return [
        f"## {TITLE}",
        f"`python -m tests.benchmarks.soak --records {records}`: two processes record, `auditspan agent` signs and\n"
        "delivers to a real Collector and Elasticsearch (one shard, heap 1 GB), all on one machine. Then all of it is\n"
        "read back and hashed, and verified from Elasticsearch's documents alone.",
        "| what | measured |\n|---|---|\n" + "\n".join(f"| {what} | {how} |" for what, how in rows.items()),
    ]


def run(stack: Stack, path: Path, records: int, seconds: float) -> dict[str, Any]:
    """Record, deliver, reconcile and verify; returns what was found."""
    directory = open_directory(path, create=True)
    env = os.environ | {"AUDITSPAN_DIR": str(path), "OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http_endpoint}
    agent = subprocess.Popen([sys.executable, "-m", "auditspan.cli", "agent", str(path)], env=env, cwd=ROOT)
    time.sleep(2)
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.soak_writer", str(records // WRITERS), str(AHEAD)],
            env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(WRITERS)
    ]  # fmt: skip
    begin = time.monotonic()
    taken: list[list[float]] = []
    while time.monotonic() - begin < seconds and any(writer.poll() is None for writer in writers):
        time.sleep(min(_EVERY, seconds / 20))
        taken.append(_line(directory, begin, [agent, *writers]))
    ended = 0
    for writer in writers:
        said, _ = writer.communicate("stop")  # closes its input, too
        assert writer.returncode == 0
        ended += json.loads(said)["ended"]
    recording = time.monotonic() - begin
    while (standing := look(directory)).pending or standing.waiting:
        time.sleep(_EVERY / 3)
        taken.append(_line(directory, begin, [agent]))
    delivered = time.monotonic() - begin
    agent.terminate()
    assert agent.wait(60) == 0
    url = stack.elasticsearch_url
    _command(env, "backend", "reconcile", str(path), "--elasticsearch", url)
    reconciled = time.monotonic() - begin
    report = json.loads(
        _command(env, "verify", "--elasticsearch", url, "--key", str(directory.verifier_key), "--json")
    )  # fmt: skip
    assert report["verdict"] in ("PASSED", "passed"), report
    assert report["records"] == ended, (report["records"], ended)
    return {
        "records": ended,
        "lost": ended - report["records"],
        "verdict": report["verdict"],
        "seconds": {
            "recording": round(recording),
            "until delivered": round(delivered),
            "reconciling": round(reconciled - delivered),
            "verifying": round(time.monotonic() - begin - reconciled),
        },
        "delivered per second": round(ended / delivered),
        "memory": taken[:: max(1, len(taken) // 40)],  # seconds since the beginning; MB of the agent, of each writer
    }


def _command(env: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "auditspan.cli", *arguments], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def _line(directory: Directory, begin: float, processes: list[subprocess.Popen[Any]]) -> list[float]:
    standing = look(directory)
    at = time.monotonic() - begin
    sizes = [memory("VmRSS", process.pid) for process in processes]
    print(
        f"{at:6.0f} s  {standing.size:>10,} signed  {standing.pending:>9,} to be delivered  "
        f"{standing.disk / 1e6:>7,.0f} MB on disk  memory {', '.join(f'{one:.0f}' for one in sizes)} MB",
        file=sys.stderr,
        flush=True,
    )
    return [round(at), *map(round, sizes)]


if __name__ == "__main__":
    main()
