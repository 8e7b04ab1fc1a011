# SPDX-License-Identifier: Apache-2.0
"""The quick way from a span to its statement makes the bytes that the plain one makes, of whatever it is given."""

from __future__ import annotations

import base64
import copy
import enum
import os
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from auditspan.capture.privacy import Guard
from auditspan_seal.formats import statement as statements
from auditspan_seal.guard import OPEN
from auditspan_seal.recording import StatementMaker
from auditspan_seal.salts import Salts
from tests.records import audit_attributes
from tests.seal import plainly


class Colour(str, enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    """A text that says something else of itself; what it is made of counts."""

    def __str__(self) -> str:
        return "something else"


class Everything:
    """Holds every other attribute to be personal, whatever it is."""

    def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
        return attributes or {}

    def text(self, text: str) -> str:
        return text

    def personal(self, names: Collection[str]) -> Collection[str]:
        return {name for name in names if len(name) % 2}


texts = st.text(st.characters(), max_size=20) | st.sampled_from(
    [
        "\ud800",
        "\ud83d\ude00",
        "a\udc00b",
        "\u2028",
        "\0",
        "\t\n",
        '"\\',
        "é",
        "%s %d",
        "password=hunter2hunter2",
        "x" * 300,
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | texts
    | st.integers(-(2**53) - 2, 2**53 + 2)
    | st.integers()
    | st.sampled_from([2**53, -(2**53), 2**63, 10**639, 10**641, Colour.RED, Number.ONE, Text("text")])
    | st.floats()
    | st.sampled_from([-0.0, 1e16, 1e-7, float("nan"), float("inf")])
    | st.binary(max_size=8)
    | st.sampled_from([bytearray(b"x"), datetime(2026, 1, 2, tzinfo=timezone.utc), uuid.UUID(int=7), 1j])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
        | st.dictionaries(texts, inner, max_size=2).map(MappingProxyType)
    ),
    max_leaves=6,
)
names = texts.filter(bool) | st.sampled_from(
    ["client.address", "audit.actor.id", "session.id", "password", "name", "value"]
)
attributes = st.dictionaries(names, values, max_size=6)
identifiers = st.integers(1, 2**64 - 1)
states = st.sampled_from([TraceState(), TraceState([("ot", "th:0"), ("x", '"')])])
contexts = st.builds(
    SpanContext, st.integers(1, 2**128 - 1), identifiers, st.booleans(), st.integers(0, 255).map(TraceFlags), states
)
times = st.integers(0, 2**64 - 1)
statuses = st.builds(Status, st.sampled_from(list(StatusCode)), st.just(None)) | st.builds(
    Status, st.just(StatusCode.ERROR), texts
)
scopes = st.none() | st.builds(
    InstrumentationScope,
    st.sampled_from(["scope", '100% "scope"']),
    st.sampled_from([None, "1.0"]),
    st.sampled_from([None, "https://example.com/%s"]),
    st.sampled_from([None, {"a": 1.5}]),
)


spans = st.builds(
    ReadableSpan,
    name=texts,
    context=contexts,
    parent=st.none() | contexts,
    resource=st.dictionaries(st.sampled_from(["service.name", "a%b"]), texts, max_size=2).map(Resource),
    attributes=attributes,  # not cleaned by the SDK: whatever a span may have
    events=st.lists(st.builds(Event, texts, attributes, times), max_size=2),
    links=st.lists(st.builds(Link, contexts, attributes), max_size=1),
    kind=st.sampled_from(list(SpanKind)),
    status=statuses,
    start_time=times,
    end_time=times,
    instrumentation_scope=scopes,
)


@pytest.fixture(autouse=True, scope="module")
def known_salts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", lambda size: bytes(range(size)))
        salt = bytes(range(16))
        patch.setattr(Salts, "take", lambda salts: (salt, base64.b64encode(salt).decode()))
        yield


@settings(max_examples=500, deadline=None)
@given(spans, st.sampled_from([OPEN, Everything(), Guard()]), st.sampled_from(["seg", 'se"%g']), st.integers(1, 2**40))
def test_every_span_has_the_plain_statement(span: ReadableSpan, guard: Any, segment: str, number: int) -> None:
    origin = 'host/100%/"x"'
    expected = plainly.line_of(span, origin, segment, number, guard)
    maker = StatementMaker(origin, guard)
    for _ in range(2):  # the second time with everything that is kept
        assert maker.line(span, segment, number) == expected


def test_what_the_sdk_makes_of_a_record_goes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(StatementMaker, "fields")
    provider = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_span_attributes=20))
    for guard in (OPEN, Everything(), Guard()):
        maker = StatementMaker("origin", guard)
        for more in (
            {},
            {"client.address": "203.0.113.7", "audit.change.fields": ["a", "b"], "app.share": 0.5, "app.ok": True},
            {"app.raw": b"\0", "app.map": {"a": [1, 2.5, None]}, "app.none": None, "app.nan": float("nan")},
        ):
            span = provider.get_tracer("test", "1").start_span("record", attributes=audit_attributes(**more))
            span.add_event("event", {"a": 1})
            span.set_status(StatusCode.ERROR, "why")
            span.end()
            assert isinstance(span, ReadableSpan)
            assert maker.line(span, "segment", 7) == plainly.line_of(span, "origin", "segment", 7, guard)


def test_what_it_makes_is_canonical() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    parent = SpanContext(1, 2, True, TraceFlags(3), TraceState([("ot", "th:0")]))
    span = provider.get_tracer("test").start_span("record", links=[Link(parent)], attributes=audit_attributes())
    span.end()
    assert isinstance(span, ReadableSpan)
    statement = StatementMaker("origin").line(span, "segment", 7)
    assert statements.decode(statement)["number"] == 7


def test_the_attributes_of_the_span_stay_as_they_are() -> None:
    given_ = {"client.address": "203.0.113.7", "app.map": {"a": 1}, "audit.record.id": "x"}
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("record", attributes=given_)
    span.end()
    assert isinstance(span, ReadableSpan)
    before = copy.deepcopy(dict(span.attributes or {}))  # old SDKs refuse a mapping
    assert before.items() <= given_.items()
    StatementMaker("origin", Guard()).line(span, "segment", 1)
    assert dict(span.attributes or {}) == before


def test_what_is_kept_is_bounded_and_right_after_many_scopes() -> None:
    maker = StatementMaker("origin")
    for number in range(1000):
        provider = TracerProvider(resource=Resource({"number": number}), shutdown_on_exit=False)
        span = provider.get_tracer(f"scope {number}").start_span(f"name {number}")
        span.end()
        assert isinstance(span, ReadableSpan)
        fields = statements.decode(maker.line(span, f"segment {number}", 1))
        said = (fields["name"], fields["segment"], fields["scope"]["name"], fields["resource"]["attributes"]["number"])
        assert said == (f"name {number}", f"segment {number}", f"scope {number}", number)
    assert max(map(len, (maker._names, maker._templates, maker._resources, maker._scopes))) <= 256


def test_no_salt_is_used_twice_by_threads_and_children() -> None:
    program = """
import os, threading
from auditspan_seal.salts import Salts
salts, found = Salts(), []
def work():
    for _ in range(2000):
        found.append(salts.take()[0])
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
child = os.fork()
more = [salts.take()[0] for _ in range(1000)]
if child == 0:
    os.write(1, b"".join(more))
    os._exit(0)
os.waitpid(child, 0)
os.write(1, b"".join(found + more))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, timeout=60, check=True)
    salts = [done.stdout[at : at + 16] for at in range(0, len(done.stdout), 16)]
    assert len(set(salts)) == len(salts) == 4 * 2000 + 2 * 1000
