# SPDX-License-Identifier: Apache-2.0
"""The Collector is away, restarts, or answers badly while an application is under load.

After each fault: everything recorded is in Elasticsearch, nothing is there twice, the application has not noticed, and
``auditspan status`` said during the fault what was the matter. Faults that a real Collector does not make on request
are made by a gateway in front of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from elasticsearch import Elasticsearch

from auditspan.devstack import Stack
from auditspan_seal import ship, spans
from auditspan_seal.delivery import Delivery
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Verdict
from tests.backend.honest import environment
from tests.conftest import BIN
from tests.environments import ROOT
from tests.seal.receiver import HANG, JSON, RESET, Received, Receiver, Reply, receiving

# The time limit holds for the first test with the build of the Collector in it.
pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

RATE = 100  # spans a second


@dataclass
class Load:
    """A running application."""

    process: subprocess.Popen[str]
    path: Path

    def status(self) -> dict[str, Any]:
        """Ask the command."""
        command = [str(BIN / "auditspan"), "status", "--json", str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 3), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 3) is bool(found["attention"])
        return found

    def until(self, check: Callable[[dict[str, Any]], bool], what: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until the status says something."""
        deadline = time.monotonic() + timeout
        while not check(found := self.status()):
            assert time.monotonic() < deadline, f"status did not say within {timeout} s: {what}: {found}"
            time.sleep(0.2)
        return found

    def end(self) -> dict[str, Any]:
        """End it, and return how it fared."""
        output, errors = self.process.communicate("", timeout=60)
        assert self.process.returncode == 0, errors
        assert "Traceback" not in errors, errors
        found: dict[str, Any] = json.loads(output)
        return found


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Load]]:
    """Start an application that delivers to an endpoint."""
    started: list[Load] = []

    def start(endpoint: str, **more: str) -> Load:
        path = tmp_path / f"log-{len(started)}"
        # Nothing said of the protocol: what is sent is what is sent by default.
        env = environment(None, AUDITSPAN_DIR=str(path), OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **more)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.backend.load", str(RATE)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
        )  # fmt: skip
        started.append(Load(process, path))
        deadline = time.monotonic() + 30
        while not (path / "checkpoint").exists():
            assert time.monotonic() < deadline, "nothing is recorded"
            time.sleep(0.1)
        return started[-1]

    yield start
    for item in started:
        if item.process.poll() is None:
            item.process.kill()
        item.process.communicate()


def finish(load: Load, stack: Stack, client: Elasticsearch) -> None:
    """End the application, have the agent deliver what is left, and look at what is in Elasticsearch."""
    fared = load.end()
    assert fared["longest"] < 1.0, "the application was held up"
    assert fared["closing"] < 10
    directory = open_directory(load.path)
    agent(directory, stack.otlp_http_endpoint)
    assert verify_directory(directory).records == fared["ended"]
    assert Delivery.load(directory.delivery).size == load.status()["sequenced"]
    assert load.status()["attention"] == []
    complete(directory, stack, client)


def agent(directory: Directory, endpoint: str) -> None:
    done = subprocess.run(
        [str(BIN / "auditspan"), "agent", "--once", str(directory.path)],
        capture_output=True, text=True, timeout=120, env=environment(None, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def complete(directory: Directory, stack: Stack, client: Elasticsearch) -> None:
    """Every entry and checkpoint is in Elasticsearch, once, and verifies."""
    blocks = list(reader.batches(directory.log))
    wanted = set(range(blocks[-1].batch.size)) | {f"checkpoint {block.batch.size}" for block in blocks}
    deadline = time.monotonic() + 90
    while missing := wanted - (found := stored(client, directory.origin)).keys():
        assert time.monotonic() < deadline, f"{len(missing)} missing: {sorted(map(str, missing))[:5]}"
        time.sleep(0.5)
    time.sleep(1.5)  # a second copy would come now
    found = stored(client, directory.origin)
    assert found.keys() == wanted
    assert set(found.values()) == {1}, "something is there twice"
    report = verify_elasticsearch(
        stack.elasticsearch_url, origin=directory.origin, trust=Trust([read_verifier_key(directory.verifier_key)])
    )
    assert (report.verdict, report.findings) == (Verdict.PASSED, [])


def stored(client: Elasticsearch, origin: str) -> Counter[Any]:
    """Count the documents of a log in Elasticsearch: by index, and the checkpoints by size."""
    found: Counter[Any] = Counter()
    for index in ("traces-audit*.otel-*", "auditspan-log*"):
        if not client.indices.exists(index=index, allow_no_indices=False):
            continue
        client.indices.refresh(index=index)
        query = {"term": {f"attributes.{spans.ORIGIN}": origin}}
        after: dict[str, Any] = {}
        while True:
            page = client.search(
                index=index, query=query, size=5000, sort=[{"@timestamp": "asc"}, {"_doc": "asc"}], **after
            )["hits"]["hits"]
            for hit in page:
                said = hit["_source"]["attributes"]
                found[said.get(spans.INDEX, f"checkpoint {said.get(spans.SIZE)}")] += 1
            if len(page) < 5000:
                break
            after = {"search_after": page[-1]["sort"]}
    return found


def test_the_collector_is_down_under_load_and_comes_back(
    stack: Stack, load: Callable[..., Load], elasticsearch: Elasticsearch
) -> None:
    running = load(stack.otlp_http_endpoint)
    running.until(lambda s: s["delivered"] > 0, "delivering")
    begin = time.time()
    stack.stop_collector()
    try:
        down = running.until(lambda s: s["delivery_error"] is not None, "delivery stands still")
        assert down["delivery_failing_since"] > begin
        assert "cannot be reached" in down["attention"][0]
        later = running.until(lambda s: s["sequenced"] > down["sequenced"] + 3 * RATE, "recorded and signed anyway")
        assert later["delivered"] == down["delivered"]
        assert later["delivery_failing_since"] == down["delivery_failing_since"]
        assert running.process.poll() is None
    finally:
        stack.start_collector()
    running.until(lambda s: s["delivered"] > later["sequenced"] and not s["attention"], "delivery goes on by itself")
    finish(running, stack, elasticsearch)


def test_the_collector_restarts_every_few_seconds(
    stack: Stack, load: Callable[..., Load], elasticsearch: Elasticsearch
) -> None:
    running = load(stack.otlp_http_endpoint)
    for _ in range(4):
        before = running.status()["delivered"]
        stack.stop_collector()
        time.sleep(0.5)
        stack.start_collector()
        running.until(lambda s, before=before: s["delivered"] > before, "some of it is delivered in between")  # type: ignore[misc]
    finish(running, stack, elasticsearch)


class Gateway:
    """Stands before a Collector: passes requests on, or makes a fault of them."""

    def __init__(self, receiver: Receiver, target: str) -> None:
        self.receiver = receiver
        self._target = target
        self._http = httpx.Client(timeout=30)
        receiver.reply = self.pass_on

    def pass_on(self, request: Received) -> Reply:
        headers = {"content-type": request.headers["content-type"]}
        answer = self._http.post(f"{self._target}{request.path}", content=request.body, headers=headers)
        return Reply(answer.status_code, {"content-type": answer.headers["content-type"]}, answer.content)

    def lose_the_answer(self, request: Received) -> Reply:
        """The Collector has it, and the sender does not know."""
        assert self.pass_on(request).status == 200
        return RESET

    def take_all_but_one(self, request: Received) -> Reply:
        """Pass on all spans but the last; say so."""
        assert request.headers["content-type"] == JSON
        body = orjson.loads(request.body)
        body["resourceSpans"][0]["scopeSpans"][0]["spans"].pop()
        assert self.pass_on(Received(request.path, request.headers, orjson.dumps(body))).status == 200
        self.receiver.reply = self.pass_on
        return Reply(body=b'{"partialSuccess":{"rejectedSpans":"1","errorMessage":"one too many"}}')

    def close(self) -> None:
        self._http.close()


@pytest.fixture
def gateway(stack: Stack) -> Iterator[Gateway]:
    with receiving() as receiver:
        made = Gateway(receiver, stack.otlp_http_endpoint)
        yield made
        made.close()


FAULTS: dict[str, tuple[Callable[[Gateway], Callable[[Received], Reply]], str]] = {
    "429": (lambda g: lambda request: Reply(429, {"retry-after": "1"}), "HTTP 429"),
    "503": (lambda g: lambda request: Reply(503), "HTTP 503"),
    "hangs": (lambda g: lambda request: HANG, "does not answer in time"),
    "resets": (lambda g: lambda request: RESET, "cannot be reached"),
    "loses the answer": (lambda g: g.lose_the_answer, "cannot be reached"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_under_load_ends_and_everything_is_there_once(
    stack: Stack, load: Callable[..., Load], gateway: Gateway, elasticsearch: Elasticsearch, fault: str
) -> None:
    make, told = FAULTS[fault]
    running = load(gateway.receiver.url, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    running.until(lambda s: s["delivered"] > 0, "delivering")
    gateway.receiver.reply = make(gateway)
    wrong = running.until(lambda s: s["delivery_error"] is not None, "delivery stands still")
    assert told in wrong["attention"][0]
    later = running.until(lambda s: s["sequenced"] > wrong["sequenced"] + RATE, "recorded and signed anyway")
    assert later["delivered"] == wrong["delivered"]
    gateway.receiver.reply = gateway.pass_on
    running.until(lambda s: s["delivered"] > later["sequenced"] and not s["attention"], "delivery goes on by itself")
    finish(running, stack, elasticsearch)


def test_what_is_rejected_is_not_sent_again_at_once_but_not_forgotten(
    stack: Stack, load: Callable[..., Load], gateway: Gateway, elasticsearch: Elasticsearch
) -> None:
    running = load(gateway.receiver.url)
    running.until(lambda s: s["delivered"] > 0, "delivering")
    gateway.receiver.reply = gateway.take_all_but_one
    told = running.until(lambda s: s["rejected"] == 1, "one is rejected")
    assert "one too many" in told["attention"][0]
    running.until(lambda s: s["delivered"] > told["delivered"], "the others are delivered")
    running.end()
    directory = open_directory(running.path)
    agent(directory, stack.otlp_http_endpoint)
    assert running.status()["rejected"] == 1
    send_rejected(directory, stack)
    assert running.status()["attention"] == []
    complete(directory, stack, elasticsearch)


def send_rejected(directory: Directory, stack: Stack) -> None:
    """What reconciliation does about it."""
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", stack.otlp_http_endpoint)
        shipper = ship.Shipper(directory, ship.make_sender())
        for item in shipper.delivery.rejected:
            for block in reader.batches(directory.log):
                if block.batch.first < item.end and block.batch.size > item.first:
                    assert shipper.send(ship.items_of(block))
        shipper.close()
    sequencer.close()
