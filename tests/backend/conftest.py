# SPDX-License-Identifier: Apache-2.0
"""One real Collector and one real Elasticsearch for all backend tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from auditspan.devstack import Stack
from auditspan.devstack.system import tail
from tests.backend import honest, incident_data
from tests.backend import secured as secured_servers
from tests.backend.secured import Secured

_PARTS = pytest.StashKey[dict[str, str]]()
_FOLDER = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The running stack, on free ports, with empty data."""
    with Stack.start(tmp_path_factory.mktemp("stack")) as running:
        request.config.stash[_PARTS] = running.parts
        request.config.stash[_FOLDER] = running.directory
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
    if _FOLDER in config.stash and (terminalreporter.stats.get("failed") or terminalreporter.stats.get("error")):
        for log in sorted(config.stash[_FOLDER].glob("*.log")):
            terminalreporter.write_line(f"last lines of {log}:\n{tail(log, 20)}")


@dataclass(frozen=True)
class Automations:
    """What the automations have left: their logs, and their documents as Elasticsearch has them."""

    logs: list[honest.Log]
    hits: list[honest.Hit]
    events: list[honest.Hit]


@pytest.fixture(scope="session")
def automations(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Automations:
    """The honest documents of the whole pipeline, made once."""
    logs = honest.produce(tmp_path_factory.mktemp("automations"), stack.otlp_http_endpoint, stack.elasticsearch_url)
    api = honest.Api(stack.elasticsearch_url)
    found = Automations(logs, honest.delivered(api, logs), api.read(honest.EVENTS))
    api.close()
    return found


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A secured server with the logs of three processes, which came there through a Collector that may only write.

    `AUDITSPAN_TEST_SECURED_VERSION=8.19.7` has it of that version.
    """
    with secured_servers.server(tmp_path_factory.mktemp("secured"), secured_servers.version()) as place:
        code, found = place.setup()
        assert code == 0, found
        with secured_servers.collector(place) as place.collector:
            for tenant, environment in secured_servers.TENANTS:
                place.logs[tenant, environment] = place.record(f"log-{tenant}-{environment}", tenant, environment)
            yield place


@pytest.fixture(scope="session")
def incident(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> incident_data.Incident:
    """A week with an incident in it, and its ledger."""
    return incident_data.tell(tmp_path_factory.mktemp("incident"), stack.otlp_http_endpoint, stack.elasticsearch_url)
