# SPDX-License-Identifier: Apache-2.0
"""Beside elastic-opentelemetry, which pins an older exact SDK and has a sampler that sets trace state and flags."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import OURS, QUIET
from tests.environments import named, pip
from tests.test_boot import PROGRAM, assert_audited

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def elastic() -> Path:
    return named("elastic")


def run(elastic: Path, tmp_path: Path, log_folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS) and k != "PYTHONPATH"}
    return subprocess.run(
        [str(elastic / "opentelemetry-instrument"), str(elastic / "python"), str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=inherited | QUIET | {"AUDITSPAN_DIR": str(log_folder), "AUDITSPAN_REQUIRED": "true"} | env,
    )


def test_the_pair_is_the_one_meant(elastic: Path) -> None:
    listed = subprocess.run([*pip(elastic), "list"], capture_output=True, text=True, check=True)
    versions = dict(line.split()[:2] for line in listed.stdout.splitlines()[2:])
    assert "elastic-opentelemetry" in versions
    print(f"elastic-opentelemetry {versions['elastic-opentelemetry']}, SDK {versions['opentelemetry-sdk']}")
    checked = subprocess.run([*pip(elastic), "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_audited_with_the_samplers_trace_state(elastic: Path, tmp_path: Path, log_folder: Path) -> None:
    done = run(elastic, tmp_path, log_folder)
    assert (done.returncode, done.stdout) == (0, "the program is done\n"), done.stderr
    (found,) = assert_audited(log_folder)
    resource = found["resource"]
    assert isinstance(resource, dict)
    assert resource["attributes"]["telemetry.distro.name"] == "elastic"  # its distro, not one that we brought
    # The default sampler of this distro is composite and writes its threshold into the trace state.
    assert str(found["trace_state"]).startswith("ot=th:")
    assert int(str(found["trace_flags"])) & 1 == 1


def test_audited_when_the_sampler_drops_everything(elastic: Path, tmp_path: Path, log_folder: Path) -> None:
    done = run(elastic, tmp_path, log_folder, OTEL_TRACES_SAMPLER="experimental_composite_parentbased_traceidratio",
               OTEL_TRACES_SAMPLER_ARG="0.0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = assert_audited(log_folder)
    assert int(str(found["trace_flags"])) & 1 == 0
