# SPDX-License-Identifier: Apache-2.0
"""What auditing costs a task: the same mapped tasks in an Airflow that is audited and in one that is not.

    python -m tests.runners.airflow_runner.measure [TURNS]

in an environment with Airflow. Each try is a process; Airflow's own words say how long each took.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
from pathlib import Path

from tests.runners.airflow_runner.serving import Standalone, running

ROUNDS = 3


def measure(airflow: Standalone) -> tuple[list[float], list[float]]:
    """Return the seconds that each task took: as Airflow stores them, and of its whole process."""
    for _ in range(ROUNDS):
        airflow.ended("many", airflow.trigger("many"), 180)
    stored = airflow.home.query("SELECT duration FROM task_instance WHERE dag_id = 'many'")
    said = (airflow.home.folder / "standalone.log").read_text()
    whole = re.findall(r"Workload finished .*duration=([0-9.]+) exit_code=0 final_state=success", said)
    return [row["duration"] for row in stored], [float(seconds) for seconds in whole]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(int(sys.argv[1]) if len(sys.argv) > 1 else 2):
            for audited in (False, True):
                with running(Path(folder) / f"{audited}{turn}", audited=audited) as airflow:
                    stored, whole = measure(airflow)
                late = sum(seconds > 1 for seconds in whole)
                print(
                    f"{'audited' if audited else 'plain':8} task {statistics.median(stored):.3f} s, "
                    f"process {statistics.median(whole):.3f} s (medians of {len(stored)}, {len(whole)}; "
                    f"{late} took more than a second)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
