# SPDX-License-Identifier: Apache-2.0
"""What it costs to start ``opentelemetry-instrument python -c pass``: with auditspan, or with the OTLP exporter.

The environments are folders of links to what is installed here: one without auditspan, one with it, and one with it
and without the libraries that it has plugins for.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

LIBRARIES = ("apscheduler", "starlette", "fastapi", "singer_sdk", "standardwebhooks")
EACH = 3  # starts in a round


def startup(rounds: int) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with_otlp = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
        ours = {"OTEL_TRACES_EXPORTER": "none", "AUDITSPAN_DIR": str(root / "log")}
        cases = {
            "baseline": (_environment(root / "baseline", ("auditspan",)), with_otlp),
            "present": (_environment(root / "present", ()), ours),
            "absent": (_environment(root / "absent", LIBRARIES), ours),
        }
        wall: dict[str, list[float]] = {name: [] for name in cases}
        cpu: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds + 1):
            for name, (python, environment) in cases.items():
                seconds, used = _start(python, environment)
                if number:  # the first one writes byte code
                    wall[name].append(seconds)
                    cpu[name].append(used)
    rows = []
    for name in ("present", "absent"):
        ratios = [ours / base for ours, base in zip(wall[name], wall["baseline"], strict=True)]
        spent = [ours / base for ours, base in zip(cpu[name], cpu["baseline"], strict=True)]
        took = [statistics.median(wall[case]) * 1000 for case in (name, "baseline")]
        said = (
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"CPU {statistics.median(spent):.2f}; {took[0]:.0f} ms of {took[1]:.0f}"
        )
        what = f"start of `opentelemetry-instrument python -c pass` to that with the OTLP exporter, libraries {name}"
        rows.append((what, said, "≤ 1.1", "≤ 0.9"))
    return rows


def _environment(folder: Path, without: Collection[str]) -> Path:
    """Make a virtual environment of links to what is installed here; returns its ``python``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(folder)], check=True)
    installed = Path(sysconfig.get_path("purelib"))
    packages = Path(
        subprocess.run(
            [folder / "bin" / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    left_out = tuple(f"{name}{end}" for name in without for end in (".", "-"))
    for item in installed.iterdir():
        name = item.name.lower().lstrip("_").removeprefix("editable_impl_")
        if item.name != "__pycache__" and name not in without and not name.startswith(left_out):
            (packages / item.name).symlink_to(item)
    return folder / "bin" / "python"


def _start(python: Path, more: dict[str, str]) -> tuple[float, float]:
    """Return seconds and seconds of CPU of a start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AUDITSPAN_", "PYTHON"))}
    environment = {
        **kept,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **more,
    }
    program = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for _ in range(EACH):
        done = subprocess.run(
            [str(python), "-c", program, str(python), "-c", "pass"], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds / EACH, used / EACH
