# SPDX-License-Identifier: Apache-2.0
"""Reconciliation with a real Collector and a real Elasticsearch: what is missing is named, and comes back."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from auditspan.cli import main
from auditspan.devstack import Stack
from auditspan_seal import spans
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader, sequencer
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.receipt import Receipt
from auditspan_seal.reconcile import compare, run
from auditspan_seal.reconcile.held import checkpoint_id, entry_id
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Verdict
from tests.backend import honest
from tests.backend.honest import Api, Hit, eventually
from tests.backend.mutations import kind_of
from tests.backend.test_mutations import STREAMS
from tests.serving import serving

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

Make = Callable[..., Directory]
DOCUMENTS = f"{honest.AUDIT},{honest.LOG}"


@pytest.fixture
def api(stack: Stack) -> Iterator[Api]:
    found = Api(stack.elasticsearch_url)
    yield found
    found.close()


@pytest.fixture
def delivering(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", stack.otlp_http_endpoint)
    monkeypatch.setenv("AUDITSPAN_ELASTICSEARCH_URL", stack.elasticsearch_url)


def expected(directory: Directory) -> dict[str, bytes]:
    """The IDs that documents of a log have, each with the leaf hash of its statement (or the hash of its note)."""
    found = {}
    for block in reader.batches(directory.log):
        for offset, statement in enumerate(block.statements):
            found[entry_id(directory.origin, block.batch.first + offset, statement)] = leaf_hash(statement)
        found[checkpoint_id(block.batch, directory.origin)] = leaf_hash(block.batch.note.encode())
    return found


def there(api: Api, directory: Directory) -> list[Hit]:
    return api.read(DOCUMENTS, directory.origin)


def held(hits: list[Hit]) -> dict[str, bytes]:
    return {
        hit["_id"]: leaf_hash(
            (hit["_source"]["attributes"].get(spans.STATEMENT) or hit["_source"]["attributes"][spans.NOTE]).encode()
        )
        for hit in hits
    }


def reconciled(
    capsys: pytest.CaptureFixture[str], directory: Directory, *more: str, code: int = 0, wait: float = 5
) -> dict[str, Any]:
    capsys.readouterr()
    found = main(["backend", "reconcile", str(directory.path), "--json", "--wait", str(wait), *more])
    printed = capsys.readouterr()
    assert found == code, printed.out + printed.err
    state: dict[str, Any] = json.loads(printed.out)
    return state


def indexes(ranges: list[dict[str, Any]], directory: Directory | None = None) -> list[int]:
    """The indexes of all entries in ranges; with a directory, the tree sizes of its checkpoints in ranges instead."""
    if directory is None:
        return sorted(
            index for item in ranges if item["kind"] == "entry" for index in range(item["first"], item["last"] + 1)
        )
    return sorted(
        block.batch.size
        for block in reader.batches(directory.log)
        for item in ranges
        if item["kind"] == "checkpoint" and item["first"] <= block.batch.first <= item["last"]
    )


def verified(stack: Stack, directory: Directory) -> Verdict:
    key = read_verifier_key(directory.verifier_key)
    return verify_elasticsearch(stack.elasticsearch_url, key, origin=directory.origin, wait=10).verdict


def test_everything_that_arrived_is_read_back_hashed_and_put_into_the_receipt(
    delivering: None, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(300)
    state = reconciled(capsys, directory, wait=30)
    assert held(there(api, directory)) == expected(directory)
    last = list(reader.batches(directory.log))[-1].batch
    assert (state["state"], state["open"], state["returned"], state["resent"]) == ("complete", [], [], 0)
    assert state["hashed"] == len(expected(directory))
    receipt = Receipt.load(directory)
    assert receipt is not None
    assert (receipt.size, receipt.note) == (last.size, last.note)
    # The next one counts what was seen before, and reads only what is new.
    make_records(3)
    state = reconciled(capsys, directory, wait=30)
    assert state["counted"] == len(held(there(api, directory))) - state["hashed"]
    assert 3 < state["hashed"] < 12
    assert reconciled(capsys, directory, "--full")["hashed"] == len(expected(directory))


def test_documents_that_elasticsearch_lost_are_named_exactly_and_come_back(
    delivering: None, stack: Stack, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(4):
        directory = make_records(200)
    reconciled(capsys, directory, wait=30)
    everything = there(api, directory)
    checkpoints = [hit for hit in everything if spans.NOTE in hit["_source"]["attributes"]]
    entries = [hit for hit in everything if spans.STATEMENT in hit["_source"]["attributes"]]
    lost = [*random.Random(20).sample(entries, 18), *random.Random(2).sample(checkpoints, 2)]
    lost_entries = sorted(hit["_source"]["attributes"][spans.INDEX] for hit in lost[:18])
    lost_sizes = sorted(hit["_source"]["attributes"][spans.SIZE] for hit in lost[18:])
    api.remove(lost)
    # Looking changes nothing.
    state = reconciled(capsys, directory, "--dry-run", code=3, wait=0)
    assert indexes(state["open"]) == lost_entries
    assert indexes(state["open"], directory) == lost_sizes
    assert {item["state"] for item in state["open"]} == {"missing"}
    assert len(there(api, directory)) == len(everything) - 20
    assert verified(stack, directory) is Verdict.FAILED
    # Exactly those come back, each once.
    state = reconciled(capsys, directory, wait=5)
    assert indexes(state["returned"]) == lost_entries
    assert indexes(state["returned"], directory) == lost_sizes
    assert (state["state"], state["resent"], state["open"]) == ("complete", 20, [])
    again = there(api, directory)
    assert sorted(hit["_id"] for hit in again) == sorted(expected(directory))  # a list: none is there twice
    assert held(again) == expected(directory)
    assert verified(stack, directory) is Verdict.PASSED
    assert reconciled(capsys, directory)["hashed"] == 0


def test_an_altered_document_is_named_and_not_overwritten(
    delivering: None, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(20)
    reconciled(capsys, directory, wait=30)
    hit = next(hit for hit in there(api, directory) if hit["_source"]["attributes"].get(spans.INDEX) == 7)
    statement = hit["_source"]["attributes"][spans.STATEMENT].replace("record 6", "record X")
    place = f"/{hit['_index']}/_update/{quote(hit['_id'], safe='')}"
    api("POST", place, {"doc": {"attributes": {spans.STATEMENT: statement}}})
    state = reconciled(capsys, directory, "--full", code=1)
    assert [(item["kind"], item["first"], item["last"], item["state"]) for item in state["open"]] == [
        ("entry", 7, 7, "altered")
    ]
    assert state["resent"] == 0
    receipt = Receipt.load(directory)
    assert receipt is not None
    assert receipt.size <= 7  # what comes before is a whole number of batches
    # Moved to another place in the log, the ID still says where it belongs.
    api(
        "POST", place,
        {"doc": {"attributes": {spans.STATEMENT: hit["_source"]["attributes"][spans.STATEMENT], spans.INDEX: 99}}},
    )  # fmt: skip
    assert indexes(reconciled(capsys, directory, code=1)["open"]) == [7]


def test_what_is_not_delivered_is_pending_and_not_missing(
    stack: Stack, make_records: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUDITSPAN_ELASTICSEARCH_URL", stack.elasticsearch_url)
    directory = make_records(5)
    state = reconciled(capsys, directory, code=3)
    assert (state["pending"], state["missing"], state["receipt"]["size"]) == (6, 0, 0)
    assert main(["backend", "reconcile", str(directory.path)]) == 3
    assert "6 entries are not delivered yet" in capsys.readouterr().out


def test_without_a_collector_to_send_to_it_says_so(
    delivering: None, make_records: Make, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(5)
    reconciled(capsys, directory, wait=30)
    api.remove([hit for hit in there(api, directory) if hit["_source"]["attributes"].get(spans.INDEX) == 3])
    for endpoint, said in ((None, "No Collector is named"), ("http://127.0.0.1:9", "did not accept")):
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
        if endpoint is not None:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        state = reconciled(capsys, directory, code=3, wait=0)
        assert said in state["problem"]
        assert indexes(state["open"]) == [3]


def test_a_stream_that_has_rolled_over(
    delivering: None, stack: Stack, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(30)
    reconciled(capsys, directory, wait=30)
    before = there(api, directory)
    api("POST", "/traces-audit.otel-default/_rollover")
    lost = [hit for hit in before if hit["_source"]["attributes"].get(spans.INDEX) in range(10, 13)]
    api.remove(lost)
    # What is lost in the old index comes back into the new one; nothing else is sent, so nothing is there twice.
    state = reconciled(capsys, directory)
    assert (indexes(state["returned"]), state["copies"]) == ([10, 11, 12], 0)
    again = there(api, directory)
    assert sorted(hit["_id"] for hit in again) == sorted(hit["_id"] for hit in before)
    assert len({hit["_index"] for hit in again}) == 3
    # Delivered once more, Elasticsearch cannot know that the old index has it: that is seen, and no harm.
    directory.delivery.unlink()
    make_records(1)
    eventually(lambda: len(there(api, directory)) >= len(expected(directory)) + 27, "copies of spans of the old index")
    state = reconciled(capsys, directory, "--full", wait=20)
    assert (state["state"], state["copies"]) == ("complete", 27)
    assert verified(stack, directory) is Verdict.PASSED


class _Answers(http.server.BaseHTTPRequestHandler):
    """Stands in for what the development stack does not have: a Collector that loses, and a failure store."""

    elasticsearch: str
    reasons: dict[str, str]
    forbidden: str | None = None

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.startswith("/v1/traces"):
            self._answer(200, b"", {"content-type": "application/x-protobuf"})
        elif self.forbidden is not None and self.forbidden in self.path:
            answer = b'{"error": {"type": "security_exception", "reason": "unauthorized"}, "status": 403}'
            self._answer(403, answer, {"content-type": "application/json", "x-elastic-product": "Elasticsearch"})
        elif "failures" in self.path:
            hits = [
                {"_source": {"document": {"id": name}, "error": {"type": "document_parsing_exception", "message": why}}}
                for name, why in self.reasons.items()
                if name in body.decode()
            ]
            answer = json.dumps({"hits": {"hits": hits}}).encode()
            self._answer(200, answer, {"content-type": "application/json", "x-elastic-product": "Elasticsearch"})
        else:
            self._forward(body)

    def do_GET(self) -> None:
        self._forward(b"")

    def do_DELETE(self) -> None:
        self._forward(self.rfile.read(int(self.headers.get("content-length") or 0)))

    def _forward(self, body: bytes) -> None:
        names = {"content-type", "accept"}
        headers = {name: value for name, value in self.headers.items() if name.lower() in names}
        answer = httpx.request(
            self.command, self.elasticsearch + self.path, content=body, headers=headers, timeout=60
        )  # fmt: skip
        kept = {name: answer.headers[name] for name in ("content-type", "x-elastic-product") if name in answer.headers}
        self._answer(answer.status_code, answer.content, kept)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def answering(**more: Any) -> Iterator[str]:
    with serving(type("Answers", (_Answers,), more)) as url:
        yield url


def test_who_may_only_read_can_reconcile(
    delivering: None, stack: Stack, make_records: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(5)
    with answering(elasticsearch=stack.elasticsearch_url, reasons={}, forbidden="_refresh") as url:
        assert reconciled(capsys, directory, "--elasticsearch", url, wait=30)["state"] == "complete"


def test_what_is_in_a_failure_store_is_named_with_its_reason(
    delivering: None,
    stack: Stack,
    make_records: Make,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = make_records(6)
    reconciled(capsys, directory, wait=30)
    gone = [hit for hit in there(api, directory) if hit["_source"]["attributes"].get(spans.INDEX) in (2, 4)]
    api.remove(gone)
    refused = next(hit["_id"] for hit in gone if hit["_source"]["attributes"][spans.INDEX] == 4)
    more = {"reasons": {refused: "failed to parse field [x]"}, "elasticsearch": stack.elasticsearch_url}
    with answering(**more) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        state = reconciled(capsys, directory, "--elasticsearch", url, code=3, wait=1)
    assert [(item["first"], item["last"], item["state"]) for item in state["open"]] == [
        (2, 2, "missing"),
        (4, 4, "refused"),
    ]
    assert "`failed to index document` in the log of the Collector" in state["open"][0]["why"]
    assert "failure store: document_parsing_exception: failed to parse field [x]" in state["open"][1]["why"]


def test_what_stays_open_does_not_have_all_before_it_read_again(
    delivering: None, make_records: Make, api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "WINDOW", 10)
    for _ in range(4):
        directory = make_records(20)
    reconciled(capsys, directory, wait=30)
    everything = there(api, directory)
    last = max(hit["_source"]["attributes"].get(spans.INDEX, -1) for hit in everything)
    api.remove([hit for hit in everything if hit["_source"]["attributes"].get(spans.INDEX) == last])
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    for _ in range(3):
        state = reconciled(capsys, directory, code=3, wait=0)
        assert indexes(state["open"]) == [last]
        assert state["counted"] > 60
        assert state["hashed"] < 30
        receipt = Receipt.load(directory)
        assert receipt is not None
        assert 60 < receipt.base <= receipt.size <= last
        assert receipt.seen == last + 1


def test_wrong_usage_is_said(
    make_records: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AUDITSPAN_ELASTICSEARCH_URL", raising=False)
    directory = make_records(1)
    url = "http://127.0.0.1:9"
    for arguments, said in (
        ([str(directory.path)], "No Elasticsearch is named"),
        ([str(directory.path), "--elasticsearch", "nonsense"], "is not the URL"),
        ([str(directory.path), "--elasticsearch", url], "does not answer"),
        ([str(directory.path), "--elasticsearch", url, "--retention", "-1"], "--retention must be"),
        ([str(tmp_path), "--elasticsearch", url], "is not an auditspan directory"),
    ):
        assert main(["backend", "reconcile", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_all_that_was_delivered_comes_back_into_an_empty_elasticsearch(
    delivering: None, stack: Stack, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(50)
    eventually(lambda: len(there(api, directory)) == len(expected(directory)), "everything is delivered")
    api.remove(there(api, directory))
    state = reconciled(capsys, directory, wait=5)
    assert (state["state"], state["resent"]) == ("complete", len(expected(directory)))
    assert held(there(api, directory)) == expected(directory)
    assert verified(stack, directory) is Verdict.PASSED


def test_what_is_still_arriving_is_waited_for_and_not_sent_again(
    delivering: None, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_records(400)
    eventually(lambda: len(there(api, directory)) == len(expected(directory)), "everything is delivered")
    hits = there(api, directory)
    api.remove(hits)
    monkeypatch.setattr(run, "PORTION", 50)  # so that most of it is not the last part
    monkeypatch.setattr(compare, "WINDOW", 100)

    def arrive() -> None:  # as out of a long queue: later than what is waited for, but never that long nothing at all
        for begin in range(0, len(hits), 40):
            time.sleep(1.2)
            api.put(lambda hit: STREAMS[kind_of(hit)], hits[begin : begin + 40])

    arriving = threading.Thread(target=arrive)
    arriving.start()
    state = reconciled(capsys, directory, wait=4)
    arriving.join()
    assert (state["state"], state["resent"]) == ("complete", 0)
    assert held(there(api, directory)) == expected(directory)


def test_a_pruned_log_goes_on_is_delivered_and_verified_in_elasticsearch(
    delivering: None,
    stack: Stack,
    make_records: Make,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sequencer, "ROLL_SIZE", 20_000)
    for _ in range(4):
        directory = make_records(30)
    everything = expected(directory)
    assert main(["prune", str(directory.path), "--older-than", "0"]) == 3  # delivered, but nobody has looked
    reconciled(capsys, directory, wait=30)
    assert main(["prune", str(directory.path), "--older-than", "0"]) == 0
    assert len(reader.files(directory.log)) == 1
    # Also if the cursor of delivery is lost: what is gone was delivered, and the rest is refused as a repeat.
    directory.delivery.unlink()
    make_records(5)
    everything |= expected(directory)
    state = reconciled(capsys, directory, wait=30)
    assert (state["state"], state["resent"]) == ("complete", 0)
    documents = there(api, directory)
    assert sorted(hit["_id"] for hit in documents) == sorted(everything)
    assert held(documents) == everything
    assert verified(stack, directory) is Verdict.PASSED
    # The next one is incremental again, and a loss in what is still here is mended.
    api.remove([hit for hit in documents if hit["_id"] in list(expected(directory))[:2]])
    assert reconciled(capsys, directory)["resent"] == 2
    assert held(there(api, directory)) == everything


def test_what_is_past_the_retention_of_elasticsearch_is_not_missing(
    delivering: None, make_records: Make, api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    make_records(10)
    directory = make_records(10)
    reconciled(capsys, directory, wait=30)
    api.remove([hit for hit in there(api, directory) if hit["_source"]["attributes"].get(spans.INDEX, 99) < 5])
    state = reconciled(capsys, directory, "--retention", "0.000001", wait=0)
    assert (state["state"], state["resent"], state["open"]) == ("complete", 0, [])
    assert state["expired"] >= 5
    state = reconciled(capsys, directory, "--retention", "0.000001", wait=0)
    assert state["expired"] >= 5  # it is remembered
    state = reconciled(capsys, directory, "--full")
    assert (state["resent"], state["expired"]) == (5, 0)
