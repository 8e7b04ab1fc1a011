# SPDX-License-Identifier: Apache-2.0
"""What is sent as OTLP/JSON, made from statements, is what the SDK's encoder makes of the same entries."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from auditspan_seal import spans
from auditspan_seal.errors import MalformedStatement
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import commitment, entry
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.otlp import as_json, as_protobuf
from auditspan_seal.otlp.parcel import Checkpoint, Entry, Item

ORIGIN = 'host/"auditspan"\\é'
SPAN: dict[str, Any] = {
    "v": 2, "type": "span", "segment": "s", "number": 1, "trace_id": "1" * 32, "span_id": "2" * 16,
    "parent_span_id": "", "parent_is_remote": False, "trace_flags": 1, "trace_state": "", "name": "n",
    "kind": "INTERNAL",
    "start": "1", "end": "2", "status": {"code": "OK", "message": ""}, "attributes": {}, "events": [], "links": [],
    "resource": {"attributes": {}, "schema_url": ""},
    "scope": {"name": "", "version": "", "schema_url": "", "attributes": {}},
}  # fmt: skip


def _takes_nothing() -> bool:
    statement = statements.encode({**SPAN, "attributes": {"n": None}})
    message, *_ = as_protobuf.message_of(ORIGIN, [Entry(0, statement, b"")])
    return b"\n\x01n" in bytes(message.SerializeToString())


NULL: dict[str, None] = {"n": None} if _takes_nothing() else {}
"""A value that is nothing: encoders of old SDKs leave out the whole attribute that has one in it."""

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
numbers = st.one_of(st.integers(-(2**70), 2**70), st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63 - 1, 2**63]))
scalars = st.one_of(texts, st.booleans(), numbers, st.floats(), st.binary(max_size=20), *map(st.just, NULL.values()))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
attributes = st.dictionaries(texts, values, max_size=6)
# The SDK cleans attributes of resources and scopes: an empty name goes, and None in old versions.
simple = st.dictionaries(texts.filter(bool), st.one_of(texts, st.booleans(), st.integers(-5, 5)), max_size=3)
identifiers = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")
moments = st.integers(0, 2**64 - 1).map(str)
states = st.sampled_from(["", "a=1", "vendor=x,other=y", "not a state", "a=1,a=2"])


@st.composite
def entries(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A statement as the recorder makes it, and its private part."""
    said = statements.values(draw(attributes))
    private = {}
    for name in draw(st.sets(st.sampled_from(["user.id", "user.name", "gone"]))):
        form = statements.value(draw(texts))
        salt = bytes(16)
        said[name] = {"commitment": commitment.commit(name, form, salt)}
        if name != "gone":
            private[name] = (base64.b64encode(salt).decode(), form)
    fields = {
        "v": statements.VERSION, "type": "span", "origin": ORIGIN, "segment": draw(texts),
        "number": draw(st.integers(1, 2**53)),
        "trace_id": draw(identifiers) * 2, "span_id": draw(identifiers),
        "parent_span_id": draw(st.one_of(st.just(""), identifiers)), "parent_is_remote": draw(st.booleans()),
        "trace_flags": draw(st.integers(0, 255)), "trace_state": draw(states),
        "name": draw(texts), "kind": draw(st.sampled_from(["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"])),
        "start": draw(moments), "end": draw(moments),
        "status": {"code": draw(st.sampled_from(["UNSET", "OK", "ERROR"])), "message": draw(texts)},
        "attributes": said,
        "events": [
            {"name": draw(texts), "time": draw(moments), "attributes": statements.values(draw(attributes))}
            for _ in range(draw(st.integers(0, 2)))
        ],
        "links": [
            {
                "trace_id": draw(identifiers) * 2, "span_id": draw(identifiers), "trace_state": draw(states),
                "attributes": statements.values(draw(attributes)),
            }
            for _ in range(draw(st.integers(0, 2)))
        ],
        "dropped": {"attributes": 0, "events": 1, "links": 0},
        "resource": {"attributes": statements.values(draw(simple)), "schema_url": draw(texts)},
        "scope": {
            "name": draw(texts), "version": draw(texts), "schema_url": draw(texts),
            "attributes": statements.values(draw(simple)),
        },
    }  # fmt: skip
    return statements.encode(fields), commitment.encode(private) if private else b""


def parsed(body: bytes) -> ExportTraceServiceRequest:
    """Read OTLP/JSON: protobuf's JSON mapping, but for the IDs."""
    return json_format.ParseDict(_ids(orjson.loads(body)), ExportTraceServiceRequest(), max_recursion_depth=1000)


def _ids(item: Any) -> Any:
    if isinstance(item, list):
        return [_ids(part) for part in item]
    if not isinstance(item, dict):
        return item
    return {
        name: base64.b64encode(bytes.fromhex(part)).decode()
        if name in ("traceId", "spanId", "parentSpanId")
        else _ids(part)
        for name, part in item.items()
    }


def content(request: ExportTraceServiceRequest) -> list[Any]:
    """What a request says, whatever the order of its groups and attributes."""
    found = []
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            around = (_sorted(resource.resource.attributes), resource.schema_url, scope.scope.name, scope.scope.version,
                      _sorted(scope.scope.attributes), scope.schema_url)  # fmt: skip
            for span in scope.spans:
                for holder in (span, *span.events, *span.links):
                    ordered = sorted(holder.attributes, key=lambda pair: pair.key)
                    del holder.attributes[:]
                    holder.attributes.extend(ordered)
                found.append((*around, _bytes(span)))
    return sorted(found)


def _sorted(attributes: Any) -> list[bytes]:
    return sorted(map(_bytes, attributes))


def _bytes(message: Any) -> bytes:
    return bytes(message.SerializeToString(deterministic=True))


def same(items: list[Item]) -> None:
    request = as_json.encode(ORIGIN, items)
    message, count, left_out = as_protobuf.message_of(ORIGIN, items)
    assert (request.spans, [place for place, _ in request.left_out]) == (count, [place for place, _ in left_out])
    assert content(parsed(request.body)) == content(message)


@settings(max_examples=60, deadline=None)
@given(st.lists(entries(), min_size=1, max_size=4))
def test_both_ways_say_the_same_of_spans(made: list[tuple[bytes, bytes]]) -> None:
    same([Entry(place, statement, private) for place, (statement, private) in enumerate(made)])


def test_both_ways_say_the_same_of_the_log_itself() -> None:
    batch = Batch(f"{ORIGIN}\n5\n\n\u2014 key AAAA\n", 3, (b"a" * 32,), (b"b" * 32, b"c" * 32))
    same(
        [
            Entry(0, entry.genesis(ORIGIN, "key", 1), b""),
            Entry(1, entry.gap(ORIGIN, "seg", 3, b"lost", "torn", 2**64 - 1), b""),
            Entry(2, statements.encode({"v": 1, "type": "close", "time": "5"}), b""),
            Checkpoint(batch, 7),
        ]
    )
    assert batches.join(batch.leaves).encode() in as_json.encode(ORIGIN, [Checkpoint(batch, 7)]).body


HOSTILE = {
    "trace_id": ["1" * 31, "1" * 33, "G" * 32, "A" * 32, 5, None, "1" * 31 + "\n"],
    "span_id": ["", "2" * 17, 2, "\uff12" * 16],
    "parent_span_id": ["x", "3" * 15, 5],
    "trace_flags": [256, -1, "1", True, None],
    "trace_state": [None, 1],
    "name": [None, 1, {}],
    "kind": ["internal", None, 1],
    "start": ["01", "-1", "18446744073709551616", 1, "", "1 ", "٣"],
    "end": ["1e3", None, "18446744073709551616"],
    "status": [None, {}, {"code": "?", "message": ""}, {"code": "ERROR", "message": 1}, {"code": "ERROR"}],
    "attributes": [None, [], {"a": {"unknown": 1}}, {"a": {"int": "1"}}],
    "events": [[{}], [{"name": 1, "time": "1", "attributes": {}}], [{"name": "", "time": 1, "attributes": {}}], [1]],
    "links": [[{}], [{"trace_id": "1" * 32, "span_id": "1", "trace_state": "", "attributes": {}}]],
    "resource": [None, {}, {"attributes": {}}, {"attributes": {}, "schema_url": 1}],
    "scope": [None, {}, {"name": 1, "version": "", "schema_url": "", "attributes": {}}],
    "v": [3, "2", True],
    "type": [1, None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, found in HOSTILE.items() for value in found])
def test_what_is_not_of_its_kind_is_left_out_by_both(name: str, value: Any) -> None:
    statement = orjson.dumps(SPAN | {name: value}, option=orjson.OPT_SORT_KEYS)
    with pytest.raises(MalformedStatement):
        spans.document_of(statement, b"", ORIGIN, 7)
    found = as_json.encode(ORIGIN, [Entry(7, statement, b"")])
    assert (found.spans, [place for place, _ in found.left_out]) == (0, [7])


@pytest.mark.parametrize(
    "more",
    [
        {"attributes": dict.fromkeys((spans.STATEMENT, spans.ORIGIN, spans.INDEX, spans.NUMBER), "theirs")},
        {"attributes": {"truth": True, "one": 1, "float": 1.0, "text": "1"}},
        {"attributes": {"n": {"double": "NaN"}, "i": {"double": "-Infinity"}, "z": -0.0, "big": 1e16, "small": 5e-324}},
        {"attributes": {"map": {"map": {"b": {"bytes": "AAE="}, **NULL, "e": {"map": {}}}}}},
        {"attributes": {"list": [], "mixed": [1, "a", [True]]}},
        {"segment": 5, "number": "x"},
        {"segment": [1, "a"], "number": {"a": 1}},
        {"parent_span_id": "3" * 16, "parent_is_remote": True},
        {"type": "span\u2028", "attributes": {"a": '\x00\u2028😀\\"</script>'}},
    ],
)  # fmt: skip
def test_both_ways_say_the_same_of_what_is_unusual(more: dict[str, Any]) -> None:
    same([Entry(7, orjson.dumps(SPAN | more, option=orjson.OPT_SORT_KEYS), b"")])


def test_deep_values_are_sent() -> None:
    deep: Any = "bottom"
    for _ in range(64):
        deep = {"a": deep}
    statement = statements.encode({**SPAN, "attributes": statements.values({"deep": deep, "list": [[deep]]})})
    found = as_json.encode(ORIGIN, [Entry(1, statement, b"")])
    assert found.spans == 1
    assert b"bottom" in found.body
    assert orjson.loads(found.body)


def test_values_of_different_types_are_not_mistaken_for_each_other() -> None:
    # They are equal to Python, and so they are one key of a cache.
    for value in ("1", 1, True, 1.0, "1", 1.0, True, 1):
        same([Entry(1, statements.encode({**SPAN, "attributes": {"x": value}}), b"")])


def test_many_different_values_do_not_fill_the_memory() -> None:
    for number in range(10_000):
        as_json.encode(
            ORIGIN, [Entry(1, statements.encode({**SPAN, "attributes": {f"n{number}": "v", "x": f"{number}"}}), b"")]
        )
    assert len(as_json._kept) <= 4096
    assert len(as_json._values) <= 4096 + 1


def test_a_damaged_line_is_left_out_and_the_others_are_sent() -> None:
    good = statements.encode(SPAN)
    found = as_json.encode(
        ORIGIN, [Entry(1, b"\x00torn", b""), Entry(2, good, b"not a private part"), Entry(3, b"[]", b"")]
    )
    assert ([place for place, _ in found.left_out], found.spans) == ([1, 3], 1)
    assert len(parsed(found.body).resource_spans) == 1
