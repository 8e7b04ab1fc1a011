# SPDX-License-Identifier: Apache-2.0
"""Celery's own unit tests, from its source distribution, end alike with and without our plugin.

A part of them in every run; with ``AUDITSPAN_TEST_TRANSPARENCY=full`` all that is about tasks, the application, beat,
the worker and canvas (docs/plugins/celery.md has the counts).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import BIN, OURS, QUIET

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PART = (
    "t/unit/tasks/test_trace.py", "t/unit/tasks/test_context.py", "t/unit/worker/test_request.py",
    "t/unit/worker/test_control.py", "t/unit/app/test_beat.py", "t/unit/app/test_amqp.py",
)  # fmt: skip
EARLY = """
import auditspan
with auditspan.action("READ", target="nothing", target_type="test.nothing"):
    pass
"""
"""Makes a record before the first test: the suite demands that no test leaves a thread, and ours begins with it."""

FULL = ("t/unit/app", "t/unit/tasks", "t/unit/worker", "t/unit/test_canvas.py", "t/unit/test_loops.py")


def test_transparency(tmp_path: Path) -> None:
    tests = FULL if os.environ.get("AUDITSPAN_TEST_TRANSPARENCY") == "full" else PART
    place = unpacked(tmp_path)
    without = outcomes(place, tests, [], {})
    (place / "early.py").write_text(EARLY)
    audited = {
        **QUIET,
        "PYTHONPATH": str(place),
        "PYTEST_ADDOPTS": "-p early",
        "AUDITSPAN_DIR": str(tmp_path / "audit"),
        "AUDITSPAN_REQUIRED": "true",
    }
    with_us = outcomes(place, tests, [str(BIN / "opentelemetry-instrument")], audited)
    print(f"\n{Counter(without.values())} without the plugin, {Counter(with_us.values())} with it")
    assert with_us == without, {
        name: (without.get(name), end) for name, end in with_us.items() if without.get(name) != end
    }
    assert Counter(without.values())["passed"] > 300
    assert (tmp_path / "audit" / "origin").exists()


def unpacked(folder: Path) -> Path:
    """Fetch the source distribution of the installed version and take the tests alone: the library is the installed."""
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", str(folder),
         f"celery=={version('celery')}"],
        check=True,
    )  # fmt: skip
    (archive,) = folder.glob("celery-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    place = folder / "tests-of-celery"
    place.mkdir()
    shutil.copytree(source / "t", place / "t")
    shutil.copy(source / "pyproject.toml", place)
    return place


def outcomes(place: Path, tests: tuple[str, ...], command: list[str], settings: dict[str, str]) -> dict[str, str]:
    """Run tests and return how each ended."""
    report = place / "report.xml"
    report.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [*command, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "60",
         f"--junitxml={report}", *tests],
        cwd=place, env=kept | settings, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    found = {}
    for case in ET.parse(report).iter("testcase"):
        ended = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found[f"{case.get('classname')}::{case.get('name')}"] = ended
    return found
