# SPDX-License-Identifier: Apache-2.0
"""An Elasticsearch with security and TLS, set up by `auditspan backend setup`, and a Collector that may only write.

Everything is done by accounts with one of our roles and no other: the administrator sets it up, the writer writes, the
auditor verifies. The minimal distribution has file-realm users, ``roles.yml`` and, under the trial licence, security by
document and field. It cannot run: native roles and API keys (its security index cannot be made; the requests are still
refused or not, by privilege), ``_data_stream`` and lifecycles, the failure store, templated queries of roles.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from auditspan.cli import main
from auditspan.devstack import elasticsearch as servers
from auditspan.devstack import system
from auditspan.devstack.collector import CollectorProcess, Ports
from auditspan.devstack.elasticsearch import ElasticsearchProcess
from auditspan.devstack.security import ADMINISTRATOR, Security
from auditspan.registry.load import ROOT
from auditspan.registry.roles import ROLES
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import open_directory
from tests.backend import honest
from tests.conftest import BIN

ARTEFACTS = ROOT / "collector-config" / "elasticsearch"
TENANTS = (("acme", "production"), ("acme", "test"), ("other", "production"))
PERSON = "alice@people.example"
AUDIT, EVENTS, LOG = "traces-audit.otel-default", "logs-audit.otel-default", "auditspan-log"
SUPERUSER = ADMINISTRATOR
USERS = {name: (name,) for name in ROLES} | {
    "checker": ("auditspan_auditor", "auditspan_administrator"),
    # Somebody gave the Collector more than it needs.
    "careless": ("auditspan_writer", "auditspan_eraser"),
}
ROLE_FILE = (ARTEFACTS / "roles.yml").read_text()

PROGRAM = """
import sys
import auditspan
auditspan.install()
for number in range(int(sys.argv[1])):
    with auditspan.action("UPDATE", target=f"row-{number}", target_type="crm.contact", actor="alice@people.example"):
        pass
"""


@dataclass
class Secured:
    """The server and what is in it.

    Attributes:
        folder: for whatever the tests need.
        server: its process.
        security: its users, roles and authority.
        collector: OTLP over HTTP of the Collector.
        metrics: what the first Collector tells of itself.
        logs: tenant and environment → the log of a process there.
    """

    folder: Path
    server: ElasticsearchProcess
    security: Security
    collector: str = ""
    metrics: str = ""
    logs: dict[tuple[str, str], honest.Log] = field(default_factory=dict)
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def url(self, user: str) -> str:
        """The URL with which a user reaches it."""
        scheme, _, rest = self.server.url.partition("://")
        return f"{scheme}://{user}:{self.security.password}@{rest}"

    def ask(self, user: str, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request as a user; a list is sent as lines."""
        if user not in self.clients:
            context = ssl.create_default_context(cafile=str(self.security.authority)) if self.security.tls else False
            self.clients[user] = httpx.Client(
                base_url=self.server.url, auth=(user, self.security.password), verify=context, timeout=60
            )
        if isinstance(body, list):
            content = "".join(json.dumps(line) + "\n" for line in body).encode()
            headers = {"content-type": "application/x-ndjson"}
            return self.clients[user].request(method, path, content=content, headers=headers)
        return self.clients[user].request(method, path, json=body)

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """Do something as the superuser; it must be done."""
        answer = self.ask(SUPERUSER, method, path, body)
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text[:1000]}"
        return answer.json()

    def backing(self, stream: str = AUDIT) -> list[str]:
        """The backing indices of a data stream, the live one last."""
        found = self.do("GET", f"/_resolve/index/{stream}")["data_streams"]
        return list(found[0]["backing_indices"]) if found else []

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of a command."""
        found = honest.environment(self.collector or None, **more)
        if self.security.authority is not None:
            found["AUDITSPAN_ELASTICSEARCH_CA_FILE"] = str(self.security.authority)
        return found

    def command(self, *arguments: str, **environment: str) -> tuple[int, Any]:
        """Run `auditspan … --json`; returns exit code and what it printed.

        In this process, where everything is imported already: it is run very often.
        """
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in self.environment(**environment).items():
                patch.setenv(name, value)
            code = main([*arguments, "--json"])
        try:
            return code, json.loads(out.getvalue())
        except ValueError:
            return code, err.getvalue()

    def setup(self, *arguments: str, user: str = "auditspan_administrator") -> tuple[int, Any]:
        """Run `auditspan backend setup`."""
        return self.command("backend", "setup", "--elasticsearch", self.url(user), *arguments)

    def check(self, *arguments: str, user: str = "checker", writer: str = "auditspan_writer") -> tuple[int, Any]:
        """Run `auditspan backend check` with the account of the Collector."""
        account = {"AUDITSPAN_ELASTICSEARCH_USER": writer, "AUDITSPAN_ELASTICSEARCH_PASSWORD": self.security.password}
        code, found = self.command("backend", "check", "--elasticsearch", self.url(user), *arguments, **account)
        assert isinstance(found, dict), found
        return code, {item["name"]: item for item in found["checks"]}

    def verify(self, log: honest.Log, user: str = "auditspan_auditor") -> tuple[int, Any]:
        """Run `auditspan verify` for one log."""
        return self.command(
            "verify", "--elasticsearch", self.url(user), "--origin", log.origin,
            "--key", str(log.directory.verifier_key), "--wait", "0",
        )  # fmt: skip

    def record(self, name: str, tenant: str, environment: str, count: int = 4) -> honest.Log:
        """Run a program under audit, deliver its log through the Collector, and wait for its documents."""
        directory = self.folder / name
        said = f"service.name=crm,service.namespace={tenant},deployment.environment.name={environment}"
        settings = self.environment(
            AUDITSPAN_DIR=str(directory), AUDITSPAN_REQUIRED="true", OTEL_RESOURCE_ATTRIBUTES=said
        )
        honest.run([sys.executable, "-c", PROGRAM, str(count)], env=settings)
        honest.run([str(BIN / "auditspan"), "agent", "--once", str(directory)], env=settings)
        opened = open_directory(directory)
        log = honest.Log(opened, read_verifier_key(opened.verifier_key))
        honest.eventually(lambda: self.count(log) >= log.size, f"{log.size} documents of {name}", 60)
        return log

    def count(self, log: honest.Log) -> int:
        """How many documents of a log there are."""
        self.ask(SUPERUSER, "POST", f"/{AUDIT},{LOG}/_refresh?ignore_unavailable=true")
        query = {"query": {"term": {"attributes.audit.log.origin": log.origin}}, "track_total_hits": True, "size": 0}
        answer = self.ask(SUPERUSER, "POST", f"/{AUDIT},{LOG}/_search?ignore_unavailable=true", query)
        if answer.status_code == 503:
            return 0  # the shards of a new backing index are not there yet
        return int(answer.json()["hits"]["total"]["value"])


def version() -> str:
    """Which version the server of the session is of."""
    return os.environ.get("AUDITSPAN_TEST_SECURED_VERSION", servers.VERSION)


@contextlib.contextmanager
def server(folder: Path, version: str = servers.VERSION, *, tls: bool = True) -> Iterator[Secured]:
    """Start the server, with nothing in it."""
    folder.mkdir(exist_ok=True)
    security = Security(ROLE_FILE, USERS, tls=tls)
    process = ElasticsearchProcess(folder, system.free_ports(1)[0], False, version, security, heap="512m")
    found = Secured(folder, process, security)
    try:
        process.start()
        yield found
    finally:
        for client in found.clients.values():
            client.close()
        process.close()


@contextlib.contextmanager
def collector(place: Secured, user: str = "auditspan_writer") -> Iterator[str]:
    """Start a Collector that writes there with the account of a user, and nothing else."""
    account = {
        "AUDITSPAN_ELASTICSEARCH_USER": user,
        "AUDITSPAN_ELASTICSEARCH_PASSWORD": place.security.password,
        "AUDITSPAN_ELASTICSEARCH_CA_FILE": str(place.security.authority or ""),
    }
    ports = Ports(*system.free_ports(4))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in account.items():
            patch.setenv(name, value)
        process = CollectorProcess(place.folder, place.server.url, ports, False)
        process.start()
    place.metrics = place.metrics or f"http://127.0.0.1:{ports.metrics}/metrics"
    try:
        yield f"http://127.0.0.1:{ports.http}"
    finally:
        process.close()


def hits(answer: httpx.Response) -> list[Mapping[str, Any]]:
    """What a search has found."""
    assert answer.status_code == 200, answer.text[:1000]
    return list(answer.json()["hits"]["hits"])
