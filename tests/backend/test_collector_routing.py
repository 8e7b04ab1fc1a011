# SPDX-License-Identifier: Apache-2.0
"""Every kind of span ends in the right data stream, once, whatever the sender and the network do."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from elasticsearch import Elasticsearch, NotFoundError
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind

from auditspan.devstack import Stack
from auditspan.devstack.elasticsearch import install_templates
from tests.backend.hostile import CONTROL, NOWHERE

# The time limit holds for the first test with the build of the Collector in it.
pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

AUDIT, LOG, GENERAL, EVENTS = (
    "traces-audit.otel-default",
    "auditspan-log",
    "traces-generic.otel-default",
    "logs-audit.otel-default",
)
STATEMENT = '{"text":"\\"quoted\\" ' + "\0\u2028 é 😀 <&> \\\\" + "x" * 40_000 + '"}'

Attributes = Mapping[str, Any]
Documents = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def send(stack: Stack) -> Iterator[Callable[..., None]]:
    """Send spans with the stock exporter; they must be accepted."""
    exporter = OTLPSpanExporter(f"{stack.otlp_http_endpoint}/v1/traces", timeout=30)

    def send_all(*spans: ReadableSpan) -> None:
        assert exporter.export(spans) is SpanExportResult.SUCCESS

    yield send_all
    exporter.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def documents(elasticsearch: Elasticsearch) -> Documents:
    """Wait until a search finds (at least) so many documents; return them."""

    def find(index: str, run: str, count: int = 1, seconds: float = 60) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while True:
            found = _search(elasticsearch, index, run)
            if len(found) >= count or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    return find


@pytest.fixture
def run() -> str:
    """A value that marks the spans of one test."""
    return secrets.token_hex(8)


def test_templates_that_come_late_delay_and_lose_nothing(
    send: Callable[..., None], documents: Documents, elasticsearch: Elasticsearch, stack: Stack, run: str
) -> None:
    # The first test, because it needs a data stream that is not there yet.
    if elasticsearch.indices.exists(index=EVENTS):
        pytest.skip(f"{EVENTS} exists already")
    elasticsearch.indices.delete_index_template(name="auditspan-events")
    try:
        send(_span(run, _sealed(f"host/{run}", 1), events=1))
        assert documents(AUDIT, run)
        _settle()
        assert not elasticsearch.indices.exists(index=EVENTS)
    finally:
        install_templates(stack.elasticsearch_url)
    assert documents(EVENTS, run)


def test_each_kind_lands_in_its_data_stream_once(
    send: Callable[..., None], documents: Documents, elasticsearch: Elasticsearch, run: str
) -> None:
    origin = f"host/auditspan/{run}"
    send(
        _span(run, name="ordinary"),
        _span(run, _unsealed(), name="unsealed copy"),
        _span(run, _sealed(origin, 7), name="sealed"),
        _span(run, _checkpoint(origin, 8), name="checkpoint"),
        _span(run, _entry(origin, 0), name="genesis"),
    )
    for index, names in ((GENERAL, {"ordinary"}), (AUDIT, {"sealed"}), (LOG, {"checkpoint", "genesis"})):
        found = documents(index, run, len(names))
        assert sorted(hit["_source"]["name"] for hit in found) == sorted(names), index
    statement, note = _digest(STATEMENT), _digest(f"{origin}\n8\n")
    assert {hit["_id"] for hit in documents(AUDIT, run)} == {f"{origin}-7-{statement}"}
    assert {hit["_id"] for hit in documents(LOG, run, 2)} == {
        f"{origin}-checkpoint-8-{note}",
        f"{origin}-0-{statement}",
    }
    everywhere = _search(elasticsearch, "*", run)
    assert len(everywhere) == 4, [hit["_source"]["name"] for hit in everywhere]


def test_sending_again_stores_nothing_twice(send: Callable[..., None], documents: Documents, run: str) -> None:
    origin = f"host/auditspan/{run}"
    spans = (
        _span(run, _sealed(origin, 1), events=2),
        _span(run, _entry(origin, 0)),
        _span(run, _checkpoint(origin, 2)),
    )
    for _ in range(3):
        send(*spans)
    send(_span(run, _sealed(origin, 2), name="last"))
    found = documents(AUDIT, run, 2)
    _settle()
    found = documents(AUDIT, run, 2)
    assert sorted(hit["_source"]["attributes"]["audit.log.index"] for hit in found) == [1, 2]
    assert len(documents(LOG, run, 2)) == 2
    assert len(documents(EVENTS, run, 2)) == 2


def test_signed_strings_come_back_byte_exact(send: Callable[..., None], documents: Documents, run: str) -> None:
    origin = f"host/auditspan/{run}"
    note = f"{origin}\n5\n\u2014 key AAAA\n" + "n" * 50_000
    send(
        _span(run, _sealed(origin, 1)),
        _span(
            run, _checkpoint(origin, 5) | {"audit.checkpoint.note": note, "audit.checkpoint.leaf_hashes": "A" * 50_000}
        ),
    )
    assert documents(AUDIT, run)[0]["_source"]["attributes"]["audit.statement"] == STATEMENT
    checkpoint = documents(LOG, run)[0]["_source"]["attributes"]
    assert checkpoint["audit.checkpoint.note"] == note
    assert checkpoint["audit.checkpoint.leaf_hashes"] == "A" * 50_000


def test_numbers_and_nanoseconds_are_kept(send: Callable[..., None], documents: Documents, run: str) -> None:
    origin = f"host/auditspan/{run}"
    send(_span(run, _sealed(origin, 2**53 + 1) | {"automation.a": 3.141592653589793, "automation.b": 2.0}))
    source = documents(AUDIT, run)[0]["_source"]
    assert source["attributes"]["audit.log.index"] == 2**53 + 1
    assert source["attributes"]["automation.a"] == 3.141592653589793
    millis, _, rest = source["@timestamp"].partition(".")
    assert int(millis) * 10**6 + int(rest) == 1_700_000_000_000_000_005  # the fraction is written without zeros


HOSTILE = {
    **CONTROL,
    "elastic.mapping.mode": "ecs",
    " ": "a blank key is refused by Elasticsearch",
}


@pytest.mark.parametrize("place", ["span", "resource", "scope", "event"])
@pytest.mark.parametrize("kind", ["sealed", "entry", "ordinary"])
def test_a_sender_cannot_re_route_or_hide(
    send: Callable[..., None], documents: Documents, elasticsearch: Elasticsearch, run: str, kind: str, place: str
) -> None:
    origin = f"host/auditspan/{run}"
    attributes = {"sealed": _sealed(origin, 1), "entry": _entry(origin, 1), "ordinary": {}}[kind]
    span = _span(
        run,
        {**attributes, **(HOSTILE if place == "span" else {})},
        resource=HOSTILE if place == "resource" else {},
        # A name that the exporter would derive a dataset from.
        scope=InstrumentationScope("x/receiver/hostilereceiver/y", attributes=HOSTILE if place == "scope" else {}),
        events=1,
        event_attributes=HOSTILE if place == "event" else {},
    )
    send(span)
    spans, events = {
        "sealed": (AUDIT, EVENTS),
        "entry": (LOG, LOG),
        "ordinary": (GENERAL, "logs-generic.otel-default"),
    }[kind]
    assert [hit["_source"]["name"] for hit in documents(spans, run) if "name" in hit["_source"]] == ["work"]
    assert [
        hit["_source"]["event_name"]
        for hit in documents(events, run, 1 + (spans == events))
        if "event_name" in hit["_source"]
    ] == ["e0"]
    assert len(_search(elasticsearch, "*", run)) == 2
    with pytest.raises(NotFoundError):
        elasticsearch.count(index=NOWHERE)


def test_the_mapping_mode_header_is_not_honoured(stack: Stack, documents: Documents, run: str) -> None:
    exporter = OTLPSpanExporter(f"{stack.otlp_http_endpoint}/v1/traces", headers={"X-Elastic-Mapping-Mode": "ecs"})
    assert exporter.export([_span(run, _sealed(f"host/{run}", 1))]) is SpanExportResult.SUCCESS
    exporter.shutdown()  # type: ignore[no-untyped-call]
    assert documents(AUDIT, run)[0]["_source"]["attributes"]["audit.statement"] == STATEMENT


def test_an_attribute_of_another_type_does_not_lose_the_document(
    send: Callable[..., None], documents: Documents, run: str
) -> None:
    origin = f"host/auditspan/{run}"
    values: list[Any] = [1, "text", True, 2.5, ["a", "b"], [1, 2], "2024-01-01", {"a": 1}, [], 2**63 - 1]
    count = len(values)
    for turn in range(count):
        # One request for each turn: the first value of a field makes its mapping. Every value is first once.
        for shift in range(count):
            value = values[(turn + shift) % count]
            send(_span(run, _sealed(origin, turn * count + shift) | {f"automation.{run}.{shift}": value}))
        documents(AUDIT, run, (turn + 1) * count, seconds=10)
    found = {hit["_source"]["attributes"]["audit.log.index"] for hit in documents(AUDIT, run, count**2, seconds=1)}
    missing = set(range(count**2)) - found
    assert not missing, [(values[item % count], values[sum(divmod(item, count)) % count]) for item in missing]


def test_a_forged_document_that_comes_first_does_not_keep_the_honest_one_out(
    send: Callable[..., None], documents: Documents, run: str
) -> None:
    origin = f"host/auditspan/{run}"
    for kind in (_sealed(origin, 1), _entry(origin, 0), _checkpoint(origin, 2)):
        signed = "audit.statement" if "audit.statement" in kind else "audit.checkpoint.note"
        send(_span(run, {**kind, signed: "forged"}))
        send(_span(run, kind))
    assert len(documents(AUDIT, run, 2)) == 2
    assert len(documents(LOG, run, 4)) == 4


def test_an_unusual_origin_gets_a_safe_document_id(send: Callable[..., None], documents: Documents, run: str) -> None:
    send(
        _span(run, _sealed("o" * 600, 1)), _span(run, _sealed("", 1) | {"audit.log.origin": 5, "audit.log.index": "x"})
    )
    assert len(documents(AUDIT, run, 2)) == 2


def test_large_batches_are_accepted(send: Callable[..., None], documents: Documents, run: str) -> None:
    origin = f"host/auditspan/{run}"
    send(*(_span(run, _sealed(origin, place)) for place in range(512)))  # 20 MB in one request
    assert len(documents(AUDIT, run, 512)) == 512


def test_nothing_is_missing_after_elasticsearch_was_away(
    stack: Stack, send: Callable[..., None], documents: Documents, run: str
) -> None:
    origin = f"host/auditspan/{run}"
    stack.stop_elasticsearch()
    try:
        for place in range(20):
            send(*_one_of_each(run, origin, place))
            time.sleep(0.2)
    finally:
        stack.start_elasticsearch()
    _assert_all_there(documents, run, 20)


def test_nothing_is_missing_after_the_collector_stopped_with_a_filled_queue(
    stack: Stack, send: Callable[..., None], documents: Documents, run: str
) -> None:
    origin = f"host/auditspan/{run}"
    stack.stop_elasticsearch()
    try:
        for place in range(20):
            send(*_one_of_each(run, origin, place))
        stack.stop_collector()
        stack.start_collector()
        send(*_one_of_each(run, origin, 20))
        stack.stop_collector()
    finally:
        stack.start_elasticsearch()
        stack.start_collector()
    _assert_all_there(documents, run, 21)


@pytest.mark.parametrize("index", [AUDIT, LOG, EVENTS])
def test_the_source_is_stored(
    send: Callable[..., None], documents: Documents, elasticsearch: Elasticsearch, run: str, index: str
) -> None:
    origin = f"host/auditspan/{run}"
    send(_span(run, _sealed(origin, 1), events=1), _span(run, _entry(origin, 0)))
    backing = documents(index, run)[0]["_index"]
    settings = elasticsearch.indices.get_settings(index=backing)[backing]["settings"]["index"]
    assert settings["mapping"]["source"]["mode"] == "stored"
    fields = elasticsearch.indices.get_mapping(index=backing)[backing]["mappings"]["properties"]
    assert fields["@timestamp"]["type"] == "date_nanos"
    statement = fields["attributes"]["properties"]["audit.statement"]
    assert statement == {"type": "keyword", "index": False, "doc_values": False}


def test_trace_views_find_audit_spans(
    send: Callable[..., None], documents: Documents, elasticsearch: Elasticsearch, run: str
) -> None:
    span = _span(run, _sealed(f"host/auditspan/{run}", 1) | {"automation.run.id": "r1"}, parent=True)
    send(span)
    documents(AUDIT, run)
    context = span.get_span_context()
    assert context is not None
    answer = elasticsearch.search(
        index="traces-*.otel-*",
        query={
            "bool": {
                "filter": [
                    {"term": {"trace.id": f"{context.trace_id:032x}"}},
                    {"term": {"span.id": f"{context.span_id:016x}"}},
                    {"exists": {"field": "parent.id"}},
                    {"term": {"automation.run.id": "r1"}},
                    {"term": {"service.name": "tests"}},
                ]
            }
        },
        fields=[{"field": name} for name in ("span.name", "duration", "audit.log.index")],
    )
    (hit,) = answer["hits"]["hits"]
    assert hit["fields"]["span.name"] == ["work"]
    assert hit["fields"]["duration"] == [1000]
    assert hit["fields"]["audit.log.index"] == [1]


def _one_of_each(run: str, origin: str, place: int) -> list[ReadableSpan]:
    return [
        _span(run),
        _span(run, _sealed(origin, place), events=1),
        _span(run, _entry(origin, place)),
        _span(run, _checkpoint(origin, place)),
    ]


def _assert_all_there(documents: Documents, run: str, count: int) -> None:
    assert len(documents(AUDIT, run, count)) == count
    assert len(documents(EVENTS, run, count)) == count
    assert len(documents(LOG, run, 2 * count)) == 2 * count
    # Ordinary spans have no document id of ours: they may be stored again, but none may be missing.
    assert len({hit["_source"]["span_id"] for hit in documents(GENERAL, run, count)}) == count


def _search(client: Elasticsearch, index: str, run: str) -> list[dict[str, Any]]:
    client.indices.refresh(index=index, ignore_unavailable=True, expand_wildcards="all")
    answer = client.search(
        index=index,
        ignore_unavailable=True,
        query={"term": {"resource.attributes.test.run": run}},
        size=2000,
    )
    return list(answer["hits"]["hits"])


def _settle() -> None:
    # Longer than the Collector's flush interval: what was going to be stored is stored.
    time.sleep(2)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unsealed() -> Attributes:
    return {"audit.record.id": secrets.token_hex(8), "audit.action": "UPDATE"}


def _sealed(origin: str, index: int) -> dict[str, Any]:
    return {
        **_unsealed(),
        "audit.statement": STATEMENT,
        "audit.log.origin": origin,
        "audit.log.index": index,
        "audit.sequence.stream_id": "segment-1",
        "audit.sequence.number": index,
    }


def _entry(origin: str, index: int) -> dict[str, Any]:
    return {
        "audit.log.document": "entry",
        "audit.log.origin": origin,
        "audit.log.index": index,
        "audit.statement": STATEMENT,
    }


def _checkpoint(origin: str, size: int) -> dict[str, Any]:
    return {
        "audit.log.document": "checkpoint",
        "audit.log.origin": origin,
        "audit.checkpoint.note": f"{origin}\n{size}\n",
        "audit.checkpoint.first_index": 0,
        "audit.checkpoint.tree_size": size,
        "audit.checkpoint.frontier": "AAAA",
        "audit.checkpoint.leaf_hashes": "AAAA",
    }


def _span(
    run: str,
    attributes: Attributes | None = None,
    *,
    name: str = "work",
    resource: Attributes | None = None,
    scope: InstrumentationScope | None = None,
    events: int = 0,
    event_attributes: Attributes | None = None,
    parent: bool = False,
) -> ReadableSpan:
    trace_id, start = secrets.randbits(127) + 1, 1_700_000_000_000_000_005
    return ReadableSpan(
        name=name,
        context=SpanContext(trace_id, secrets.randbits(63) + 1, False),
        parent=SpanContext(trace_id, secrets.randbits(63) + 1, False) if parent else None,
        resource=Resource({"service.name": "tests", "test.run": run, **(resource or {})}),
        attributes=attributes,
        events=[Event(f"e{place}", dict(event_attributes or {}), start + place) for place in range(events)],
        kind=SpanKind.INTERNAL,
        start_time=start,
        end_time=start + 1000,
        instrumentation_scope=scope or InstrumentationScope("tests"),
    )
