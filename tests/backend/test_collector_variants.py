# SPDX-License-Identifier: Apache-2.0
"""The configurations of collector-config as an operator layers them: who is admitted, agents, the archive, the alerts.

Real Collectors with real TLS. The Kafka variant has tests of its own (test_kafka.py).
"""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from auditspan.devstack import Stack, collector
from auditspan_seal import ship
from auditspan_seal.delivery import Delivery
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Verdict
from tests.backend import honest
from tests.backend.faulty import status
from tests.backend.hostile import Honest, stranger
from tests.backend.variants import FOLDER, Running, arguments, names_of, running, variables
from tests.benchmarks.logs import make_log
from tests.conftest import BIN
from tests.seal.certificates import Certificates, make_certificates
from tests.test_collector_lint import SHIPPED

pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

RECORDS = 20
SEEN_ELSEWHERE = {
    "otelcol_exporter_send_failed_spans", "rpc_server_call_duration_count", "otelcol_kafka_broker_connects",
    "otelcol_kafka_receiver_unmarshal_failed_spans", "otelcol_kafka_receiver_offset_lag",
}  # fmt: skip
"""Metrics that other tests here (or of Kafka, test_kafka.py) have seen with a value."""


class Site:
    """Certificates, tokens, and the settings that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = make_certificates(folder / "own")
        self.others = make_certificates(folder / "others")
        self.archive = folder / "archive" / "records.jsonl"
        self.tokens, self.token = folder / "tokens", folder / "token"
        self.tokens.write_text("one-good-token\nanother-good-token\n")
        self.token.write_text("a-bad-token\n")
        self.settings = {
            "AUDITSPAN_COLLECTOR_CERTIFICATE": str(self.own.server),
            "AUDITSPAN_COLLECTOR_KEY": str(self.own.server_key),
            "AUDITSPAN_COLLECTOR_CLIENT_CA": str(self.own.authority), "AUDITSPAN_COLLECTOR_TOKENS": str(self.tokens),
            "AUDITSPAN_COLLECTOR_ARCHIVE": str(self.archive), "AUDITSPAN_GATEWAY_CA_FILE": str(self.own.authority),
            "AUDITSPAN_AGENT_TOKEN": str(self.token), **self.agent(self.own),
        }  # fmt: skip

    def agent(self, whose: Certificates) -> dict[str, str]:
        return {"AUDITSPAN_AGENT_CERTIFICATE": str(whose.client), "AUDITSPAN_AGENT_KEY": str(whose.client_key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def doors(site: Site, stack: Stack) -> Iterator[tuple[Running, Running]]:
    """A Collector that wants tokens (and keeps an archive), and one that wants certificates."""
    url = stack.elasticsearch_url
    tokens = Running(
        site.folder / "tokens-wanted", "collector", "receiver-token", "archive", elasticsearch=url, **site.settings
    )
    certificates = Running(
        site.folder / "certificates-wanted", "collector", "receiver-tls", elasticsearch=url, **site.settings
    )
    with running(tokens, certificates):
        yield tokens, certificates


def attempt(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, endpoint: str, *, tries: int = 3, **given: str
) -> Delivery:
    """Try to deliver a log, as any audited process does with these settings."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    for name in ("protocol", "headers", "certificate", "client_certificate", "client_key"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name.upper()}", raising=False)
    for name, text in given.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name.upper()}", text)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    shipper = ship.Shipper(directory, ship.make_sender())
    for _ in range(tries):
        if shipper.ship():
            break
    shipper.close()
    return Delivery.load(directory.delivery)


def arrived(directory: Directory, url: str) -> None:
    """All of it is in Elasticsearch, and verifies."""
    api = honest.Api(url)
    documents = RECORDS + 2  # with the entry that begins the log, and its checkpoint
    honest.eventually(
        lambda: len(api.read(f"{honest.AUDIT},{honest.LOG}", directory.origin)) == documents, f"{documents} documents"
    )
    api.close()
    report = verify_elasticsearch(
        url, origin=directory.origin, wait=0, trust=Trust([read_verifier_key(directory.verifier_key)])
    )
    assert (report.verdict, report.findings, report.records) == (Verdict.PASSED, [], RECORDS)


@pytest.mark.parametrize("names", SHIPPED, ids="+".join)
def test_the_collector_itself_finds_it_valid(site: Site, names: tuple[str, ...]) -> None:
    done = subprocess.run(
        [str(collector.binary()), "validate", *arguments(*names)], capture_output=True, text=True, timeout=60,
        env=variables(site.settings | {"AUDITSPAN_COLLECTOR_QUEUE": str(site.folder / "queue")}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


REFUSED = ["no token", "a wrong token", "no certificate", "a certificate of others"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("why", REFUSED)
def test_who_is_not_admitted_is_refused_and_both_sides_say_so(
    doors: tuple[Running, Running], site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str, protocol: str
) -> None:
    door = doors["certificate" in why]
    given = {"protocol": protocol, "certificate": str(site.own.authority)}
    if why == "a wrong token":
        given["headers"] = "authorization=Bearer%20a-bad-token"
    if why == "a certificate of others":
        given |= {"client_certificate": str(site.others.client), "client_key": str(site.others.client_key)}
    before = seen(door, why, protocol)
    directory = make_log(tmp_path / "log", RECORDS)
    endpoint = f"https://{door.grpc if protocol == 'grpc' else door.http}"
    delivery = attempt(directory, monkeypatch, endpoint, **given)
    # The sender: nothing is delivered, everything is kept, and the reason is said.
    assert delivery.size == 0 and delivery.rejected == ()
    code, told = status(directory)
    assert code == 3 and delivery.error
    assert any(delivery.error in line for line in told["attention"]), told["attention"]
    if "token" in why:
        assert re.search("401|UNAUTHENTICATED", delivery.error), delivery.error
    # The Collector: it counts, or its log has it. (Of a gRPC handshake that fails it says nothing; the sender does.)
    if (why, protocol) not in [(reason, "grpc") for reason in REFUSED[2:]]:
        honest.eventually(lambda: seen(door, why, protocol) > before, "the Collector shows the refusal", 10)


def seen(door: Running, why: str, protocol: str) -> float:
    if "token" not in why:
        return door.log.read_text().count("TLS handshake error")
    if protocol == "grpc":
        return door.count("rpc_server_call_duration_count", rpc_response_status_code="UNAUTHENTICATED")
    return door.count("http_server_request_duration_count", http_response_status_code="401")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("how", ["token", "certificate"])
def test_who_is_admitted_is_served(
    doors: tuple[Running, Running], site: Site, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    how: str, protocol: str,
) -> None:  # fmt: skip
    door = doors[how == "certificate"]
    given = {"protocol": protocol, "certificate": str(site.own.authority)}
    if how == "token":
        given["headers"] = "authorization=Bearer%20another-good-token"
    else:
        given |= {"client_certificate": str(site.own.client), "client_key": str(site.own.client_key)}
    directory = make_log(tmp_path / "log", RECORDS)
    endpoint = f"https://{door.grpc if protocol == 'grpc' else door.http}"
    delivery = attempt(directory, monkeypatch, endpoint, **given)
    assert delivery.size == RECORDS + 1, delivery.error
    arrived(directory, stack.elasticsearch_url)
    if how == "token":  # this one has the archive, too
        command = [str(BIN / "auditspan"), "verify", str(site.archive), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=honest.environment())
        assert '"verdict": "PASSED"' in done.stdout, done.stdout + done.stderr
        assert directory.origin in done.stdout


def test_an_agent_keeps_what_the_gateway_does_not_take(
    site: Site, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = stack.elasticsearch_url
    gateway = Running(tmp_path / "gateway", "collector", "receiver-tls", elasticsearch=url, **site.settings)
    agent = Running(tmp_path / "agent", "agent", **site.settings, AUDITSPAN_GATEWAY=gateway.grpc)
    agent.settings |= site.agent(site.others)
    one, two = make_log(tmp_path / "one", RECORDS), make_log(tmp_path / "two", RECORDS)
    with running(agent):
        # The gateway is away: the agent takes it and keeps it.
        assert attempt(one, monkeypatch, f"http://{agent.http}").size == RECORDS + 1
        with running(gateway):
            # The gateway is there and does not know the agent's certificate: nothing is dropped.
            assert attempt(two, monkeypatch, f"http://{agent.http}").size == RECORDS + 1
            honest.eventually(lambda: "failed" in agent.log.read_text(), "the agent says that it is refused", 20)
            assert "ropping data" not in agent.log.read_text()
            agent.stop()
            agent.settings |= site.agent(site.own)
            agent.start()
            arrived(one, url)
            arrived(two, url)
            assert agent.count("otelcol_exporter_queue_size") == 0


def test_an_agent_with_a_token_hands_refusals_back(
    doors: tuple[Running, Running], site: Site, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Running(tmp_path / "agent", "agent", "agent-token", **site.settings, AUDITSPAN_GATEWAY=doors[0].grpc)
    directory = make_log(tmp_path / "log", RECORDS)
    with running(agent):
        delivery = attempt(directory, monkeypatch, f"http://{agent.http}")
        assert delivery.size == 0 and delivery.rejected == () and "401" in (delivery.error or ""), delivery.error
        site.token.write_text("one-good-token\n")  # read again, without a restart
        honest.eventually(
            lambda: attempt(directory, monkeypatch, f"http://{agent.http}").size == RECORDS + 1, "delivered", 30
        )
        arrived(directory, stack.elasticsearch_url)
        assert agent.count("otelcol_exporter_send_failed_spans") > 0  # what AuditSendingFails looks at


def test_the_alerts_are_about_metrics_that_are_there(
    doors: tuple[Running, Running], site: Site, tmp_path: Path
) -> None:
    door, log = doors[0], Honest(make_log(tmp_path / "log", RECORDS))
    context = ssl.create_default_context(cafile=str(site.own.authority))
    with httpx.Client(verify=context, headers={"authorization": "Bearer one-good-token"}) as client:
        # A document that Elasticsearch refuses is lost; what AuditDocumentsRefused looks at is the one signal.
        poison = stranger(log.origin, {"m": (("a", 1), ("a", 2))})
        for request in (poison, log.request(), log.request()):
            assert client.post(f"https://{door.http}/v1/traces", json=request).status_code == 200
        assert client.post(f"https://{door.http}/v1/traces", headers={"authorization": "x"}).status_code == 401
    wanted = {"400": 1, "409": RECORDS + 2}
    for code, least in wanted.items():
        honest.eventually(
            lambda code=code, least=least: door.count(  # type: ignore[misc]
                "otelcol_elasticsearch_docs_processed", outcome="failed_client", http_response_status_code=code
            ) >= least,
            f"documents with {code} are counted",
        )  # fmt: skip
    metrics = names_of(door.metrics()) | SEEN_ELSEWHERE
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
    alerts: list[dict[str, Any]] = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 8
    for rule in alerts:
        named = set(re.findall(r"\b(?:otelcol|http_server|rpc_server)_\w+", rule["expr"]))
        assert named or rule["alert"] == "AuditCollectorDown"
        assert named <= metrics, f"{rule['alert']}: the Collector has no {named - metrics}; it has {sorted(metrics)}"
        assert rule["annotations"].keys() == {"summary", "description"} and rule["labels"]["severity"]
