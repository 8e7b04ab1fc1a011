# SPDX-License-Identifier: Apache-2.0
"""Prefect without its telemetry, in folders of the test's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before the first import of Prefect, which reads them.
_home = tempfile.TemporaryDirectory(prefix="auditspan-prefect-")
os.environ |= {
    "PREFECT_HOME": _home.name,
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}

from tests.plugins.conftest import audited, in_run  # noqa: E402, F401


def pytest_configure(config: pytest.Config) -> None:
    """Warnings of Prefect and its dependencies are theirs; ours stay errors."""
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:(?!auditspan).*")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
    config.addinivalue_line("filterwarnings", "ignore::ResourceWarning")
    config.addinivalue_line("filterwarnings", "ignore::UserWarning:pydantic.*")


@pytest.fixture(scope="session")
def harness() -> Iterator[None]:
    """A database and a server of Prefect's own, for flows of this process."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a real server that has its database in it: one for all tests."""
    from tests.runners.prefect_runner.serving import server

    folder = tmp_path_factory.mktemp("prefect")
    with server(folder) as url:
        yield folder, url
