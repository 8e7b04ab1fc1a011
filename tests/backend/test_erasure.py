# SPDX-License-Identifier: Apache-2.0
"""Privacy through the whole pipeline: secrets never arrive, and a person's address goes away on request."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Status, StatusCode

from auditspan.capture.privacy import Guard
from auditspan.cli import main
from auditspan_seal import ship, spans
from auditspan_seal.formats import commitment
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader, sequencer
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Verdict
from tests.capture.planted import left_in, plants
from tests.capture.test_secret_detection import survives
from tests.records import audit_attributes
from tests.seal.test_personal import everywhere, guesses

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

ADDRESS = "203.0.113.77"
OTHER = "203.0.113.78"
EVERYTHING = "traces-*,logs-*,auditspan-log*"


@pytest.fixture
def delivered(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", stack.otlp_http_endpoint)


def documents(client: Elasticsearch, origin: str) -> list[dict[str, Any]]:
    client.indices.refresh(index=EVERYTHING, ignore_unavailable=True)
    query = {"term": {f"attributes.{spans.ORIGIN}": origin}}
    hits = client.search(index=EVERYTHING, query=query, size=5000, ignore_unavailable=True)["hits"]["hits"]
    return list(hits)


def wait_for(client: Elasticsearch, directory: Directory) -> list[dict[str, Any]]:
    """Wait until every entry and checkpoint of a log has a document."""
    blocks = list(reader.batches(directory.log))
    expected = sum(len(block.statements) for block in blocks) + len(blocks)
    deadline = time.monotonic() + 240
    query = {"term": {f"attributes.{spans.ORIGIN}": directory.origin}}
    while True:
        client.indices.refresh(index=EVERYTHING, ignore_unavailable=True)
        # Counted, not fetched: some tests keep all that is said on the way.
        count = client.count(index=EVERYTHING, query=query, ignore_unavailable=True)["count"]
        if count >= expected:
            return documents(client, directory.origin)
        assert time.monotonic() < deadline, f"{count} of {expected} documents"
        time.sleep(1)


def test_an_address_is_erased_from_elasticsearch_and_the_log(
    stack: Any, delivered: None, elasticsearch: Elasticsearch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(tmp_path / "log", guard=Guard())
    provider.add_span_processor(AuditSpanProcessor(log))
    for address in (ADDRESS, OTHER, ADDRESS, OTHER):
        attributes = audit_attributes(**{"client.address": address})
        provider.get_tracer("test").start_span("record", attributes=attributes).end()
    provider.shutdown()
    directory = log.directory
    key = read_verifier_key(directory.verifier_key)
    before = wait_for(elasticsearch, directory)
    assert json.dumps(before).count(f'"client.address": "{ADDRESS}"') == 2
    assert (
        verify_elasticsearch(stack.elasticsearch_url, key, origin=directory.origin, wait=20).verdict is Verdict.PASSED
    )
    candidates = [f"203.0.113.{n}" for n in range(256)]
    raw = json.dumps(before).encode() + everywhere(directory.path)
    assert guesses(raw, candidates, salts(directory)) == {ADDRESS, OTHER}, "with the salts it can be found"

    command = ["erase", str(directory.path), "--value", ADDRESS, "--reason", "request 4711"]
    assert main([*command, "--elasticsearch", stack.elasticsearch_url]) in (
        0,
        3,
    )  # 3: other tests leave old versions, too
    wait_for(elasticsearch, directory)
    output = capsys.readouterr()
    assert ADDRESS not in output.out + output.err

    after = documents(elasticsearch, directory.origin)
    assert ADDRESS not in json.dumps(after)
    assert json.dumps(after).count(f'"client.address": "{OTHER}"') == 2, "nobody else's value is gone"
    assert search_everywhere(elasticsearch, ADDRESS) == 0
    assert ADDRESS.encode() not in everywhere(directory.path)
    report = verify_elasticsearch(stack.elasticsearch_url, key, origin=directory.origin, wait=20)
    assert (report.verdict, report.erased, report.records) == (Verdict.PASSED, 2, 4), report.findings
    assert main(["verify", str(directory.path)]) == 0
    assert "personal values erased on request: 2" in capsys.readouterr().out
    # What remains: all documents, statements and checkpoints among them, and all files. See test_personal for the
    # argument that a space of 2^32 addresses is no different from this one of 256.
    raw = json.dumps(after).encode() + everywhere(directory.path)
    assert guesses(raw, candidates, salts(directory)) == {OTHER}
    assert main([*command, "--elasticsearch", stack.elasticsearch_url]) == 2, "nothing is left to erase"

    # Somebody removes another value, without a record of it.
    hit = next(h for h in after if h["_source"]["attributes"].get("client.address") == OTHER)
    now = elasticsearch.get(index=hit["_index"], id=hit["_id"])
    del now["_source"]["attributes"]["client.address"]
    elasticsearch.index(
        index=hit["_index"], id=hit["_id"], document=now["_source"], if_seq_no=now["_seq_no"],
        if_primary_term=now["_primary_term"], refresh=True,
    )  # fmt: skip
    report = verify_elasticsearch(stack.elasticsearch_url, key, origin=directory.origin, wait=0)
    (finding,) = report.findings
    assert (report.verdict, finding.field) == (Verdict.FAILED, "attributes.client.address")


def salts(directory: Directory) -> list[bytes]:
    return [
        base64.b64decode(salt)
        for block in reader.batches(directory.log)
        for private in block.private
        for salt, _ in commitment.decode(private).values()
    ]


def search_everywhere(client: Elasticsearch, value: str) -> int:
    """Count the documents of all indices that have a value in any field."""
    client.indices.refresh(index=EVERYTHING, ignore_unavailable=True)
    query = {"query_string": {"query": f'"{value}"', "fields": ["*"], "lenient": True}}
    return int(client.count(index=EVERYTHING, query=query, ignore_unavailable=True)["count"])


def test_a_thousand_secrets_arrive_nowhere(
    stack: Any,
    delivered: None,
    elasticsearch: Elasticsearch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Planted in attributes, names, events (exceptions), links, status and resource of spans that others wrote into."""
    found = plants(2026, 1200)
    caplog.set_level(logging.DEBUG)
    resource = Resource(
        {"process.command_args": ["app", "--password=resource-secret-0815-resource"], "service.name": "x"}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    log = AuditLog(tmp_path / "log", guard=Guard())
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("test")
    caplog.clear()
    for number, plant in enumerate(found):
        text = plant.value if isinstance(plant.value, str) else repr(plant.value)
        place = number % 5
        own = {plant.name: text} if place == 0 else {}
        if isinstance(plant.value, dict) and plant.kind == "named":
            own = plant.value
        span = tracer.start_span(text if place == 1 else "record", attributes=audit_attributes(**own))
        if place == 2:
            span.record_exception(ValueError(text))
        elif place == 3:
            span.add_event(text, {plant.name: text})
        elif place == 4:
            span.set_status(Status(StatusCode.ERROR, text))
            span.add_link(span.get_span_context(), {plant.name: text})
        span.end()
    provider.shutdown()
    directory = open_directory(tmp_path / "log")
    exported = b""
    for block in reader.batches(directory.log):
        for index, (statement, private) in enumerate(zip(block.statements, block.private, strict=True)):
            exported += encode_spans(
                [spans.document_of(statement, private, directory.origin, block.batch.first + index)]
            ).SerializeToString()
    shipper = ship.Shipper(directory, ship.make_sender())
    assert shipper.ship()
    shipper.close()
    arrived = wait_for(elasticsearch, directory)
    events = elasticsearch.search(index="logs-*", size=5000, ignore_unavailable=True)["hits"]["hits"]
    places = {
        "files": everywhere(tmp_path).decode("utf-8", "replace"),
        "exported": exported.decode("utf-8", "replace"),
        "documents": json.dumps([hit["_source"] for hit in arrived]),
        "event documents": json.dumps([hit["_source"] for hit in events]),
        "logs": caplog.text + "".join(capsys.readouterr()),
    }
    assert len(arrived) > 1200
    for place, content in places.items():
        left = left_in(content, found)
        assert left == [], place
        assert "resource-secret-0815" not in content, place
    assert survives(found[0].secret, found[0].value)
    assert "[secret removed]" in places["documents"]


def test_no_file_of_elasticsearch_has_the_value_any_more(
    stack: Any, delivered: None, elasticsearch: Elasticsearch, tmp_path: Path
) -> None:
    """Nor an old version of a document: a changed document is a new one, and the old one stays until it is merged away.

    A file says nothing by not having the bytes of a value: fields are compressed. So the files are looked at twice,
    with the value found in them the first time, and the old versions are counted as Elasticsearch counts them itself.
    """
    person = "zq7person-4f1"
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(tmp_path / "log", guard=Guard())
    provider.add_span_processor(AuditSpanProcessor(log))
    for number in range(40):
        attributes = audit_attributes(**{"audit.actor.id": person if number == 7 else "bob"})
        provider.get_tracer("test").start_span("record", attributes=attributes).end()
    provider.shutdown()
    (place,) = {
        hit["_index"]
        for hit in wait_for(elasticsearch, log.directory)
        if hit["_source"]["attributes"].get("audit.actor.id") == person
    }
    elasticsearch.indices.flush(index=place, force=True, wait_if_ongoing=True)
    held = files_of(elasticsearch, place)
    if held is not None:
        assert person.encode() in held, "the search can find it"
    command = ["erase", str(log.directory.path), "--value", person, "--reason", "request 4711"]
    # Without the time that Elasticsearch needs (once in a while it needs none) it is not called erased, and the second
    # run, for which there is nothing to change, does what the first has left.
    code = main([*command, "--elasticsearch", stack.elasticsearch_url, "--wait", "0"])
    assert code == (3 if old_versions(elasticsearch, place) else 0)
    assert main([*command, "--elasticsearch", stack.elasticsearch_url]) == (0 if code == 3 else 2)
    assert old_versions(elasticsearch, place) == 0
    if held is not None:
        assert person.encode() not in (files_of(elasticsearch, place) or b"")
    settings = elasticsearch.indices.get_settings(index=place, flat_settings=True)[place]["settings"]
    assert not [name for name in settings if "expunge" in name], "it is as it was"
    assert person.encode() not in everywhere(log.directory.path)


def old_versions(client: Elasticsearch, place: str) -> int:
    client.indices.refresh(index=place)
    shards = client.indices.segments(index=place)["indices"][place]["shards"].values()
    return sum(part["deleted_docs"] for copies in shards for copy in copies for part in copy["segments"].values())


def files_of(client: Elasticsearch, place: str) -> bytes | None:
    """Return all bytes of the files of an index, translog included; None where they are not on this machine."""
    (node,) = client.nodes.info(metric="settings")["nodes"].values()
    uuid = client.indices.get_settings(index=place, flat_settings=True)[place]["settings"]["index.uuid"]
    data = node["settings"]["path"].get("data", "/nowhere")
    folder = Path(data if isinstance(data, str) else data[0]) / "indices" / uuid
    if not folder.is_dir():
        return None
    content = b""
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a merge in the background removes files
            content += path.read_bytes()
    return content


def test_values_in_what_was_pruned_are_erased_in_elasticsearch(
    stack: Any,
    delivered: None,
    elasticsearch: Elasticsearch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sequencer, "ROLL_SIZE", 10_000)
    for _ in range(3):
        provider = TracerProvider(shutdown_on_exit=False)
        log = AuditLog(tmp_path / "log", guard=Guard())
        provider.add_span_processor(AuditSpanProcessor(log))
        for address in [ADDRESS, OTHER] * 6:
            attributes = audit_attributes(**{"client.address": address})
            provider.get_tracer("test").start_span("record", attributes=attributes).end()
        provider.shutdown()
    directory, url = log.directory, stack.elasticsearch_url
    key = read_verifier_key(directory.verifier_key)
    wait_for(elasticsearch, directory)
    assert main(["backend", "reconcile", str(directory.path), "--elasticsearch", url]) == 0
    assert main(["prune", str(directory.path), "--older-than", "0"]) == 0
    left = sum(block.batch.size - block.batch.first for block in reader.batches(directory.log))
    assert left < 20
    erase = ["erase", str(directory.path), "--value", ADDRESS, "--reason", "request 4712"]
    # Without Elasticsearch it cannot know of them, and does not say that all is done.
    assert main([*erase, "--dry-run"]) == 3
    assert "were pruned from this directory: give --elasticsearch URL" in capsys.readouterr().out
    assert main([*erase, "--elasticsearch", url]) == 0
    assert "18 values of client.address erased" in capsys.readouterr().out
    found = json.dumps(documents(elasticsearch, directory.origin))
    assert ADDRESS not in found
    assert found.count(f'"client.address": "{OTHER}"') == 18
    report = verify_elasticsearch(url, key, origin=directory.origin, wait=30)
    assert (report.verdict, report.erased) == (Verdict.PASSED, 18)
