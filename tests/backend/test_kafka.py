# SPDX-License-Identifier: Apache-2.0
"""Kafka between agents and gateways (kafka-agent.yaml, kafka-gateway.yaml): a real broker, Collectors and TLS."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from auditspan import schema
from auditspan.devstack import Stack
from auditspan_seal import spans
from auditspan_seal.log.directory import Directory, open_directory
from tests.backend import honest
from tests.backend.faulty import status
from tests.backend.hostile import Honest
from tests.backend.kafka_broker import AGENT, GATEWAY, Broker
from tests.backend.test_collector_variants import RECORDS, arrived, attempt
from tests.backend.test_reconcile import expected, held, there
from tests.backend.variants import Running, names_of, running
from tests.benchmarks.logs import make_log
from tests.conftest import BIN
from tests.environments import ROOT
from tests.seal.certificates import make_certificates

pytestmark = [pytest.mark.backend, pytest.mark.slow, pytest.mark.timeout(600)]

RATE = 50  # records a second


class Site:
    """A broker, an agent that may write to it, and a gateway that may read from it."""

    def __init__(self, folder: Path, elasticsearch: str) -> None:
        self.folder = folder
        self.url = elasticsearch
        self.broker = Broker(folder / "broker")
        self.agent = self.collector("agent", "agent", "kafka-agent")
        self.gateway = self.collector("gateway", "collector", "kafka-gateway")

    def collector(self, name: str, *names: str, who: str | None = None) -> Running:
        """Return a Collector that shows the broker the certificate of `who`: by default, whose part it plays."""
        certificates = self.broker.certificates
        made = Running(
            self.folder / name, *names, elasticsearch=self.url, AUDITSPAN_KAFKA=self.broker.address,
            AUDITSPAN_KAFKA_CA=str(certificates.authority),
        )  # fmt: skip
        self.shows(made, *certificates.peers[who or (AGENT if names[0] == "agent" else GATEWAY)])
        return made

    def shows(self, collector: Running, certificate: Path | str, key: Path | str) -> None:
        for part in ("AGENT", "COLLECTOR"):
            collector.settings |= {f"AUDITSPAN_{part}_CERTIFICATE": str(certificate), f"AUDITSPAN_{part}_KEY": str(key)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("kafka"), stack.elasticsearch_url)
    try:
        found.broker.start()
        found.broker.set_up()
        with running(found.gateway, found.agent):
            yield found
    finally:
        found.broker.stop()


@pytest.fixture
def api(stack: Stack) -> Iterator[honest.Api]:
    found = honest.Api(stack.elasticsearch_url)
    yield found
    found.close()


def test_nothing_is_missing_and_nothing_twice_while_broker_gateway_and_agent_are_killed(
    site: Site, api: honest.Api, tmp_path: Path
) -> None:
    with running(second := site.collector("second gateway", "collector", "kafka-gateway")):
        _kill_and_look(site, second, api, tmp_path)


def _kill_and_look(site: Site, second: Running, api: honest.Api, tmp_path: Path) -> None:
    path, ledger = tmp_path / "log", tmp_path / "ledger"
    env = honest.environment(f"http://{site.agent.http}", AUDITSPAN_DIR=str(path))
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.backend.load", str(RATE), str(ledger)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
    )  # fmt: skip
    try:
        honest.eventually(lambda: (path / "checkpoint").exists(), "the log has begun")
        directory = open_directory(path)
        for gateway in (site.gateway, second):
            honest.eventually(lambda gateway=gateway: _read(gateway) > RATE, "each gateway reads its partition")  # type: ignore[misc]
        site.broker.kill()
        honest.eventually(lambda: status(directory)[1]["pending"] > RATE, "records wait at their sender")
        site.broker.start()
        honest.eventually(lambda: status(directory)[1]["pending"] < RATE, "they are taken again")
        site.gateway.kill()
        before = _read(second)
        honest.eventually(lambda: _read(second) > before + RATE, "the other gateway goes on")
        site.agent.kill()
        site.agent.start()
        site.gateway.start()
        before = len(there(api, directory))
        honest.eventually(lambda: len(there(api, directory)) > before + RATE, "records arrive again")
        output, errors = writer.communicate("", timeout=60)
    finally:
        writer.kill()
        writer.communicate()
    assert writer.returncode == 0 and "Traceback" not in errors, errors
    recorded = ledger.read_text().split()
    honest.run([str(BIN / "auditspan"), "agent", "--once", str(path)], env=env)
    # All of it arrives by itself: nothing had to be sent again.
    honest.eventually(lambda: len(there(api, directory)) >= len(expected(directory)), "all has arrived")
    state = _reconcile(site, directory, env, "--full", "--wait", "20")
    assert (state["state"], state["open"], state["pending"]) == ("complete", [], 0)
    assert (state["resent"], state["returned"], state["copies"]) == (0, [], 0)
    documents = there(api, directory)
    assert sorted(hit["_id"] for hit in documents) == sorted(expected(directory))  # a list: none is there twice
    assert held(documents) == expected(directory)
    said = [hit["_source"]["attributes"] for hit in documents]
    assert Counter(item[schema.RECORD_ID] for item in said if schema.RECORD_ID in item) == Counter(recorded)
    assert len(recorded) == json.loads(output)["ended"] > 5 * RATE
    _verify(site, directory, len(recorded))


def _read(gateway: Running) -> float:
    """How many spans a gateway has from Kafka."""
    return gateway.count("otelcol_receiver_accepted_spans", receiver="kafka")


def _reconcile(site: Site, directory: Directory, env: dict[str, str], *more: str, code: int = 0) -> dict[str, Any]:
    """Reconcile, as an operator does it."""
    command = [
        "backend",
        "reconcile",
        str(directory.path),
        "--elasticsearch",
        site.url,
        "--wait",
        "20",
        "--json",
        *more,
    ]
    found: dict[str, Any] = json.loads(honest.run([str(BIN / "auditspan"), *command], (code,), env=env))
    return found


def _verify(site: Site, directory: Directory, records: int) -> None:
    """Verify, as an auditor does it."""
    command = [
        "verify",
        "--elasticsearch",
        site.url,
        "--origin",
        directory.origin,
        "--key",
        str(directory.verifier_key),
    ]
    found = json.loads(honest.run([str(BIN / "auditspan"), *command, "--json"], env=honest.environment()))
    assert (found["verdict"], found["findings"], found["records"]) == ("PASSED", [], records)


def test_messages_of_many_megabytes_pass(
    site: Site, api: honest.Api, make_records: Callable[..., Directory], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Random, so that they are as large on the wire. Kafka's and the exporter's default is 1 MB.
    directory = make_records(40, **{"app.note": secrets.token_hex(50_000)})
    assert attempt(directory, monkeypatch, f"http://{site.agent.http}").size == 41
    honest.eventually(lambda: held(there(api, directory)) == expected(directory), "large records arrive")
    assert max(map(len, held_statements(api, directory))) > 100_000
    _verify(site, directory, 40)
    # The largest request that the agent takes is one message.
    before = _read(site.gateway)
    body = _largest()
    answer = httpx.post(f"http://{site.agent.http}/v1/traces", content=body, headers=PROTOBUF, timeout=60)
    assert answer.status_code == 200, answer.text
    honest.eventually(lambda: _read(site.gateway) >= before + LARGE, "it is read")


LARGE = 32
PROTOBUF = {"content-type": "application/x-protobuf"}


def held_statements(api: honest.Api, directory: Directory) -> list[str]:
    return [hit["_source"]["attributes"].get(spans.STATEMENT, "") for hit in there(api, directory)]


def _largest() -> bytes:
    """A request with ordinary spans, to the byte as large as the agent takes it."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(LARGE):
        span = scope.spans.add(
            trace_id=secrets.token_bytes(16), span_id=secrets.token_bytes(8), name="large",
            start_time_unix_nano=time.time_ns(), end_time_unix_nano=time.time_ns(),
        )  # fmt: skip
        span.attributes.add(key="note").value.string_value = secrets.token_hex(500_000 if number else 100_000)
    value = scope.spans[0].attributes[0].value
    value.string_value += "x" * (LARGEST_REQUEST - request.ByteSize() - 8)
    value.string_value += "x" * (LARGEST_REQUEST - request.ByteSize())
    assert request.ByteSize() == LARGEST_REQUEST
    return request.SerializeToString()


LARGEST_REQUEST = 33554432


def test_who_is_not_admitted_is_refused_and_both_sides_say_so(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = make_certificates(tmp_path / "others")
    without, strange = (site.collector(f"{name} agent", "agent", "kafka-agent") for name in ("unknown", "strange"))
    site.shows(without, "", "")
    site.shows(strange, others.client, others.client_key)
    directory = make_log(tmp_path / "log", RECORDS)
    with running(without, strange), ThreadPoolExecutor(1) as beside:
        answer = beside.submit(
            httpx.post, f"http://{strange.http}/v1/traces", json=Honest(directory).request(), timeout=30
        )
        delivery = attempt(directory, monkeypatch, f"http://{without.http}", tries=1)
        assert answer.result().status_code == 503
        assert (delivery.size, delivery.rejected) == (0, ())
        assert "answers HTTP 503: error exporting to topic" in (delivery.error or "")
        assert status(directory)[0] == 3
        for agent in (without, strange):
            assert agent.count("otelcol_kafka_broker_connects", outcome="failure") > 0
            assert "remote error: tls: " in agent.log.read_text()


def test_without_the_right_to_write_nothing_is_taken_and_nothing_dropped(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The gateway's name may read, and not write.
    agent = site.collector("agent that may read", "agent", "kafka-agent", who=GATEWAY)
    directory = make_log(tmp_path / "log", RECORDS)
    with running(agent):
        delivery = attempt(directory, monkeypatch, f"http://{agent.http}", tries=1)
        assert (delivery.size, delivery.rejected) == (0, ())
        assert re.search("HTTP 500: .*AUTHORIZATION_FAILED", delivery.error or ""), delivery.error
        assert status(directory)[0] == 3
        assert agent.count("otelcol_exporter_send_failed_spans") > 0  # what AuditSendingFails looks at
        assert "ropping data" not in agent.log.read_text()
    site.shows(agent, *site.broker.certificates.peers[AGENT])
    with running(agent):
        assert attempt(directory, monkeypatch, f"http://{agent.http}").size == RECORDS + 1
    arrived(directory, site.url)


def test_without_the_right_to_read_nothing_is_read(site: Site) -> None:
    gateway = site.collector("gateway that may write", "collector", "kafka-gateway", who=AGENT)
    with running(gateway):
        honest.eventually(lambda: "GROUP_AUTHORIZATION_FAILED" in gateway.log.read_text(), "it is said", 20)
        assert _read(gateway) == 0


def test_a_header_of_a_message_costs_its_own_records_alone_and_they_come_back(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The receiver hands headers on as if they were a client's, and Elasticsearch's exporter takes the mapping from this
    # one: it refuses all but otel. Whoever may write to the topic can do so, and could as well not have written.
    header = "{name: X-Elastic-Mapping-Mode, value: ecs}"
    agent = site.collector("hostile agent", "agent", "kafka-agent", _over(tmp_path, f"record_headers: [{header}]"))
    hurt, beside = make_log(tmp_path / "hurt", RECORDS), make_log(tmp_path / "beside", RECORDS)
    with running(agent):
        assert attempt(hurt, monkeypatch, f"http://{agent.http}").size == RECORDS + 1
    honest.eventually(lambda: site.gateway.count("otelcol_exporter_send_failed_spans") > 0, "the gateway counts them")
    assert attempt(beside, monkeypatch, f"http://{site.agent.http}").size == RECORDS + 1
    arrived(beside, site.url)
    env = honest.environment(f"http://{site.agent.http}")
    state = _reconcile(site, hurt, env, "--wait", "2")
    assert (state["state"], state["open"]) == ("complete", [])
    assert sum(item["count"] for item in state["returned"]) == RECORDS + 2
    arrived(hurt, site.url)


def test_what_kafka_deletes_before_it_was_read_is_found_missing_and_comes_back(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_log(tmp_path / "log", RECORDS)
    site.gateway.stop()
    assert attempt(directory, monkeypatch, f"http://{site.agent.http}").size == RECORDS + 1
    site.broker.forget()
    site.gateway.start()
    env = honest.environment(f"http://{site.agent.http}")
    state = _reconcile(site, directory, env, "--dry-run", "--wait", "0", code=3)
    assert sum(item["count"] for item in state["open"]) == RECORDS + 2
    state = _reconcile(site, directory, env, "--wait", "2")
    assert (state["state"], sum(item["count"] for item in state["returned"])) == ("complete", RECORDS + 2)
    arrived(directory, site.url)


def test_a_message_that_cannot_be_read_stops_its_partition_and_loses_nothing(
    site: Site, api: honest.Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = site.collector(
        "agent with another encoding", "agent", "kafka-agent", _over(tmp_path, "traces: {encoding: zipkin_json}")
    )
    with running(wrong):
        attempt(make_log(tmp_path / "wrong", RECORDS), monkeypatch, f"http://{wrong.http}")
    said = re.compile(r'pausing partition due to permanent.*"partition": (\d+), "offset": (\d+)')
    honest.eventually(lambda: said.search(site.gateway.log.read_text()) is not None, "the gateway says so", 20)
    assert site.gateway.count("otelcol_kafka_receiver_unmarshal_failed_spans") > 0
    assert "otelcol_kafka_receiver_offset_lag" in names_of(site.gateway.metrics())
    behind = []
    for number in range(8):  # some of them come behind it: which partition a message goes to is chance
        behind.append(make_log(tmp_path / str(number), RECORDS))
        assert attempt(behind[-1], monkeypatch, f"http://{site.agent.http}").size == RECORDS + 1
    # As the operator does it: look which one it is, and begin after it.
    found = said.findall(site.gateway.log.read_text())
    site.gateway.stop()
    for partition, offset in dict(found).items():
        site.broker.skip(int(partition), int(offset))
    site.gateway.start()
    for directory in behind:
        arrived(directory, site.url)


def _over(folder: Path, settings: str) -> str:
    """A layer that changes the exporter of kafka-agent.yaml; as a name of a configuration."""
    (folder / "over.yaml").write_text(f"exporters: {{kafka/records: {{{settings}}}}}")
    return str(folder / "over")
