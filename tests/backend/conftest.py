# SPDX-License-Identifier: Apache-2.0
"""One real Collector and one real Elasticsearch for all backend tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from elasticsearch import Elasticsearch

from auditspan.devstack import Stack

_PARTS = pytest.StashKey[dict[str, str]]()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The running stack, on free ports, with empty data."""
    with Stack.start(tmp_path_factory.mktemp("stack")) as running:
        request.config.stash[_PARTS] = running.parts
        yield running


@pytest.fixture
def elasticsearch(stack: Stack) -> Iterator[Elasticsearch]:
    """A client of the stack's Elasticsearch."""
    with Elasticsearch(stack.elasticsearch_url, request_timeout=30) as client:
        yield client


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests really ran against."""
    for name, description in config.stash.get(_PARTS, {}).items():
        terminalreporter.write_line(f"backend tests ran against {name}: {description}")
