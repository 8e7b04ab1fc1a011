# SPDX-License-Identifier: Apache-2.0
"""The same tests beside other versions: contrib's instrumentations, and the oldest of everything that we support."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import OURS
from tests.environments import ROOT, named

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(folder: Path, *arguments: str) -> str:
    """Run tests in an environment and return what pytest printed; all must pass."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS) and k != "PYTHONPATH"}
    done = subprocess.run(
        [str(folder / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=inherited,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_webhooks_beside_contribs_instrumentations() -> None:
    folder = named("contrib")
    printed = run(folder, "tests/plugins/test_webhooks.py", "tests/plugins/test_signatures.py")
    assert "skipped" not in printed, printed[-2000:]


def test_the_oldest_versions() -> None:
    folder = named("oldest")
    printed = run(folder, "-m", "not slow and not backend", "tests/capture", "tests/seal", "tests/plugins")
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert int(passed[1]) > 250, printed[-2000:]
