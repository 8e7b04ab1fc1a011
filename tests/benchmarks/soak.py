# SPDX-License-Identifier: Apache-2.0
"""A long run through the whole real pipeline: processes, Collector, Elasticsearch; then everything is reconciled and
verified from Elasticsearch's documents alone.

    python -m tests.benchmarks.soak --records 10000000 --minutes 40

stops recording at whichever comes first, and prints the memory of each process over time. Fails if anything is lost,
doubled or does not verify. Give AUDITSPAN_DIR an empty folder on a large disk: about 2.5 kB are needed for a record in
it, and as much in Elasticsearch.
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
from tests.seal.go import ROOT

WRITERS = 2
AHEAD = 200_000  # entries that are not delivered, at which writers pause: it is the pipeline that is looked at
_EVERY = 15.0  # seconds between lines of what is printed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--minutes", type=float, default=40.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(os.environ.get("AUDITSPAN_DIR") or folder) / "log"
        with Stack.start(Path(folder) / "stack") as stack:
            print(json.dumps(run(stack, path, options.records, options.minutes * 60), indent=2))


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
        "memory in MB, agent and writers, by seconds": "; ".join(
            f"{at:.0f}: {', '.join(map(str, sizes))}" for at, *sizes in taken[:: max(1, len(taken) // 40)]
        ),
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
