# SPDX-License-Identifier: Apache-2.0
"""Every runner's tests in every environment of its own: built once, kept in ``.cache``."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.conftest import OURS
from tests.environments import ROOT
from tests.runners.environments import RUNNERS, Runner, environment_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def is_kept(name: str) -> bool:
    """Tell whether a variable is for the tests in an environment, too: where a service for tests is, for example."""
    return name.startswith("AUDITSPAN_TEST_") or not (name.startswith(OURS) or name == "PYTHONPATH")


@pytest.mark.parametrize("runner", RUNNERS, ids=str)
def test_the_runner_in_its_own_environment(runner: Runner) -> None:
    folder = environment_of(runner)
    inherited = {k: v for k, v in os.environ.items() if is_kept(k)}
    done = subprocess.run(
        [
            str(folder / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider",
            f"tests/runners/{runner.name}_runner", *runner.select,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=inherited | {"PATH": f"{folder}{os.pathsep}{inherited['PATH']}"},
        timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= runner.at_least, done.stdout[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]
