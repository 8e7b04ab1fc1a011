# SPDX-License-Identifier: Apache-2.0
"""The real Celery says by its metadata that it is another version, as after an upgrade: said once, and left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import BIN
from tests.environments import ROOT
from tests.runners.celery_runner.conftest import MODULE, Installation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAM = f"""
from celery import signals
from {MODULE} import add, app
app.conf.task_always_eager = True
print(add.delay(1, 2).get(), len(signals.task_prerun.receivers), type(vars(type(app))["send_task"]).__name__)
"""


@pytest.mark.parametrize("version", ["5.2.7", "6.0.1"])
def test_a_version_outside_of_the_range_is_said_once_and_left_alone(
    installation: Installation, tmp_path: Path, version: str
) -> None:
    metadata = tmp_path / "first" / f"celery-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: celery\nVersion: {version}\n")
    done = subprocess.run(
        [str(BIN / "opentelemetry-instrument"), sys.executable, "-c", PROGRAM],
        cwd=ROOT, capture_output=True, text=True, timeout=90,
        env=installation.environment(PYTHONPATH=os.pathsep.join((str(metadata.parent), str(ROOT)))),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3 0 function"
    assert len(installation.ledger()) == 1  # the task itself has run
    said = [line for line in done.stderr.splitlines() if "auditspan" in line]
    assert len(said) == 1, done.stderr
    assert "celery IS NOT AUDITED" in said[0]
    assert f"celery {version}" in said[0]
    assert "celery >= 5.3, < 6" in said[0]
