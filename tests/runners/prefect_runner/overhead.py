# SPDX-License-Identifier: Apache-2.0
"""What a task and a flow cost with and without us: ``python -m tests.runners.prefect_runner.overhead``.

The same program beside the same server, in turn: without OpenTelemetry, under ``opentelemetry-instrument`` with this
plugin switched off, and with it. Printed are medians of the rounds, in milliseconds of CPU of the calling thread (which
hardly depends on what else the machine does) and of wall time.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.runners.prefect_runner.serving import INSTRUMENTED, audited, environment, server

ROUNDS = int(os.environ.get("ROUNDS", "5"))
TASKS = 200
FLOWS = 10

PROGRAM = f"""
import json, time
from prefect import flow, task

@task
def nothing(): pass

@flow
def inner(): pass

@flow
def tasks(): [nothing() for _ in range({TASKS})]

@flow
def flows(): [inner() for _ in range({FLOWS})]

def took(function, number):
    wall, cpu = time.perf_counter(), time.thread_time()
    function()
    return [1000 * (time.thread_time() - cpu) / number, 1000 * (time.perf_counter() - wall) / number]

inner(); nothing()
print(json.dumps({{"task": took(tasks, {TASKS}), "flow": took(flows, {FLOWS})}}))
"""


def main() -> None:
    """Measure and print a table."""
    measured: dict[tuple[str, str], list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with server(folder) as url:
            ways = {
                "plain": ([sys.executable], environment(folder, PREFECT_API_URL=url)),
                "plugin off": ([*INSTRUMENTED], audited(folder, url, AUDITSPAN_DISABLED_PLUGINS="prefect")),
                "plugin on": ([*INSTRUMENTED], audited(folder, url)),
            }
            for _ in range(ROUNDS):
                for way, (command, env) in ways.items():
                    env = env | {"PREFECT_LOGGING_LEVEL": "ERROR", "AUDITSPAN_VALIDATE": "false"}
                    done = subprocess.run(
                        [*command, "-c", PROGRAM], env=env, cwd=folder, capture_output=True, text=True, check=True
                    )
                    for what, figures in json.loads(done.stdout.splitlines()[-1]).items():
                        measured.setdefault((what, way), []).append(figures)
    print("| | CPU, ms | wall, ms | CPU against plain | wall against plain |\n|---|---|---|---|---|")
    for (what, way), rounds in sorted(measured.items()):
        cpu, wall = (statistics.median(column) for column in zip(*rounds, strict=True))
        base = [statistics.median(column) for column in zip(*measured[what, "plain"], strict=True)]
        print(f"| {what}, {way} | {cpu:.2f} | {wall:.2f} | {cpu / base[0]:.2f} | {wall / base[1]:.2f} |")


if __name__ == "__main__":
    main()
