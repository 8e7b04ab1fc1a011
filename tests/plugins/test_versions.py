# SPDX-License-Identifier: Apache-2.0
"""A library of a version that no plugin is made for: said once, and left alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from opentelemetry.instrumentation.dependencies import DependencyConflictError

from auditspan.capture import instrumentor
from auditspan.capture.hooks import Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Recorder


class TooNew(AuditInstrumentor):
    name = "too-new"
    dependencies = ("wrapt >= 99",)

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        raise AssertionError("nothing may be patched")


class NotThere(AuditInstrumentor):
    name = "not-there"
    dependencies = ("auditspan-no-such-library >= 1",)

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        raise AssertionError("nothing may be patched")


def test_a_version_outside_the_range_is_said_once_and_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    plugin = TooNew()
    with caplog.at_level(logging.DEBUG):
        plugin.instrument(skip_dep_check=True, raise_exception_on_conflict=True)  # as opentelemetry-instrument does
    (said,) = caplog.records
    assert said.levelno == logging.WARNING
    assert "too-new IS NOT AUDITED" in said.message
    assert "wrapt" in said.message and "wrapt >= 99" in said.message
    assert "too-new" not in instrumentor.active
    plugin.uninstrument()


def test_a_library_that_is_not_there_is_nothing_to_warn_of() -> None:
    with pytest.raises(DependencyConflictError):
        NotThere().instrument(skip_dep_check=True, raise_exception_on_conflict=True)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["99.0", "5.2.7"])
def test_a_program_with_such_a_library_runs_as_without_us(
    version: str, tmp_path: Path, instrumented: Callable[..., CompletedProcess[str]]
) -> None:
    """The library is a stand-in: the version is the fault that is made, and nothing may touch what it holds."""
    folder = tmp_path / "site"
    (folder / "celery").mkdir(parents=True)
    (folder / "celery" / "__init__.py").write_text("")
    (folder / "celery" / "signals.py").write_text("touched = []\n\ndef __getattr__(name):\n    touched.append(name)\n")
    metadata = folder / f"celery-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: celery\nVersion: {version}\n")
    program = "import celery.signals\nprint('touched', [n for n in celery.signals.touched if n[0] != '_'])\n"
    done = instrumented(program, env={"PYTHONPATH": str(folder)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "touched []\n"
    assert done.stderr.count("celery") >= 1
    warnings = [line for line in done.stderr.splitlines() if f"celery {version}" in line]
    assert len(warnings) == 1, done.stderr
    assert "celery IS NOT AUDITED" in warnings[0]
