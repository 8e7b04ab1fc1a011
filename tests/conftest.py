# SPDX-License-Identifier: Apache-2.0
"""What all tests share: records made by the real SDK, and programs run under the real ``opentelemetry-instrument``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings
from opentelemetry.sdk.trace import TracerProvider

from auditspan.capture import conformance
from auditspan_seal.log.directory import Directory
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.records import audit_attributes

settings.register_profile("auditspan", deadline=None)  # machines are noisy: what is slow is for the benchmarks
settings.load_profile("auditspan")
BIN = Path(sys.executable).parent
QUIET = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
OURS = ("AUDITSPAN_", "OTEL_", "TRACEPARENT", "TRACESTATE", "BAGGAGE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked as last looks at what all the others have left."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(autouse=True, scope="session")
def every_value_is_validated() -> None:
    """In tests every value of every record is looked at, as AUDITSPAN_VALIDATE=true does it in a process."""
    conformance.validate_whole(True)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the person who runs the tests must not reach them (where the backend is, may)."""
    for name in os.environ:
        if name.startswith("AUDITSPAN_TEST_"):  # where a service for tests is
            continue
        if name.startswith(OURS) and name not in ("AUDITSPAN_ELASTICSEARCH_URL", "AUDITSPAN_COLLECTOR_ENDPOINT"):
            monkeypatch.delenv(name)


@pytest.fixture
def log_folder(tmp_path: Path) -> Path:
    return tmp_path / "log-directory"


@pytest.fixture
def make_records(log_folder: Path) -> Iterator[Callable[..., Directory]]:
    """Record spans with a real provider and close the log: `make_records(3)`; may be called again."""

    def make(count: int, **attributes: object) -> Directory:
        provider = TracerProvider(shutdown_on_exit=False)
        log = AuditLog(log_folder)
        provider.add_span_processor(AuditSpanProcessor(log))
        tracer = provider.get_tracer("test", "1.0")
        for number in range(count):
            with tracer.start_as_current_span(
                f"record {number}",
                attributes=audit_attributes(number=number, **attributes),
            ):
                pass
        provider.shutdown()
        return log.directory

    yield make


Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def instrumented(tmp_path: Path, log_folder: Path) -> Run:
    """Run a program text under ``opentelemetry-instrument``, audited into `log_folder`."""

    def run(
        program: str, *, env: Mapping[str, str] | None = None, instrument: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "program.py"
        script.write_text(program)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(OURS) and k != "PYTHONPATH"}
        environment |= {"AUDITSPAN_DIR": str(log_folder), "AUDITSPAN_VALIDATE": "true", **QUIET, **(env or {})}
        command = [str(BIN / "opentelemetry-instrument")] if instrument else []
        return subprocess.run(
            [*command, sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=timeout
        )

    return run
