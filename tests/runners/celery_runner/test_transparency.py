# SPDX-License-Identifier: Apache-2.0
"""Celery's own unit tests, from its source distribution, end alike with and without our plugin.

A part of them in every run; with ``AUDITSPAN_TEST_TRANSPARENCY=full`` all that is about tasks, the application, beat,
the worker and canvas (docs/plugins/celery.md has the counts).
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import BIN, QUIET
from tests.runners.suites import different, outcomes, source_of

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


BY_CHANCE = ("--deselect", "t/unit/worker/test_control.py::test_ControlPanel::test_active_safe")
"""It looks at the first of a set of requests, in which one of an earlier test is left: their order is by chance."""


def test_transparency(tmp_path: Path) -> None:
    tests = (FULL if os.environ.get("AUDITSPAN_TEST_TRANSPARENCY") == "full" else PART) + BY_CHANCE
    place = unpacked(tmp_path)
    without, _ = outcomes(place, tests, [], {})
    (place / "early.py").write_text(EARLY)
    audited = {
        **QUIET,
        "PYTHONPATH": str(place),
        "PYTEST_ADDOPTS": "-p early",
        "AUDITSPAN_DIR": str(tmp_path / "audit"),
        "AUDITSPAN_REQUIRED": "true",
    }
    with_us, _ = outcomes(place, tests, [str(BIN / "opentelemetry-instrument")], audited)
    print(f"\n{Counter(without.values())} without the plugin, {Counter(with_us.values())} with it")
    assert different(without, with_us) == {}
    assert Counter(without.values())["passed"] > 300
    assert (tmp_path / "audit" / "origin").exists()


def unpacked(folder: Path) -> Path:
    """Take the tests alone: the library is the installed one."""
    source = source_of("celery", folder)
    place = folder / "tests-of-celery"
    place.mkdir()
    shutil.copytree(source / "t", place / "t")
    shutil.copy(source / "pyproject.toml", place)
    return place
