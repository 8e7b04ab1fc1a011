# SPDX-License-Identifier: Apache-2.0
"""What a hostile sender does: each attack is what it sends before the honest documents of a log arrive.

The sender has seen the honest documents (it is the audited program itself, or it stands in between) and may send
whatever it likes to the Collector. Not the key: nothing that it sends is signed.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.otlp import as_json
from auditspan_seal.ship import items_of
from auditspan_seal.verify.report import Code

NOWHERE = "hostile-nowhere"
TRACES = "/v1/traces"
CONTROL: Mapping[str, Any] = {
    "elasticsearch.index": NOWHERE,
    "elasticsearch.mapping.hints": ["_noindex"],
    "elasticsearch.document_id": "chosen-by-sender",
    "elasticsearch.ingest_pipeline": "drop",
    "data_stream.dataset": NOWHERE,
    "data_stream.namespace": NOWHERE,
    "data_stream.type": "metrics",
    "elastic.mapping.mode": "bodymap",
    "encoding.format": NOWHERE,
}
BLANK = ("", " ", "\t", "\v", "\x1c", "\x1f", "\u1680", "\u2003", "\u2028", "\u205f", "\u3000", " \u2003 ")


@dataclass
class Sent:
    """One request."""

    body: Any
    """A document (sent as JSON), or bytes."""
    path: str = TRACES
    headers: dict[str, str] = field(default_factory=dict)
    answers: tuple[int, ...] = (200,)
    """What the Collector may answer."""


@dataclass(frozen=True)
class Honest:
    """A log, and the request that has all its documents."""

    directory: Directory

    @property
    def origin(self) -> str:
        return self.directory.origin

    def request(self) -> dict[str, Any]:
        items = [item for block in reader.batches(self.directory.log) for item in items_of(block)]
        found: dict[str, Any] = json.loads(as_json.encode(self.origin, items).body)
        return found

    def one(self, index: int) -> dict[str, Any]:
        """The request with one of the entries."""
        return self._only(lambda said: said.get("audit.log.index") == str(index))

    def checkpoint(self) -> dict[str, Any]:
        return self._only(lambda said: "audit.checkpoint.note" in said)

    def _only(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        request = self.request()
        for scope in scopes(request):
            scope["spans"] = [span for span in scope["spans"] if wanted(plain(span))][:1]
        assert list(spans(request))
        return request


def scopes(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request["resourceSpans"]:
        yield from resource["scopeSpans"]


def spans(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for scope in scopes(request):
        yield from scope["spans"]


def plain(holder: dict[str, Any]) -> dict[str, Any]:
    """Attributes with the value as OTLP/JSON writes it."""
    return {item["key"]: next(iter(item["value"].values()), None) for item in holder.get("attributes", [])}


def value(item: Any) -> dict[str, Any]:
    """Write a value as OTLP/JSON."""
    if isinstance(item, bool):
        return {"boolValue": item}
    if isinstance(item, int):
        return {"intValue": str(item)}
    if isinstance(item, float):
        return {"doubleValue": "NaN" if item != item else item}
    if isinstance(item, str):
        return {"stringValue": item}
    if isinstance(item, list):
        return {"arrayValue": {"values": [value(one) for one in item]}}
    pairs = item.items() if isinstance(item, dict) else item  # a tuple of pairs may name a key twice
    return {"kvlistValue": {"values": pairs_of(pairs)}}


def pairs_of(pairs: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value(item)} for key, item in pairs]


def put(holder: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Set attributes of a span, scope, resource or event."""
    kept = [item for item in holder.get("attributes", []) if item["key"] not in more]
    holder["attributes"] = kept + pairs_of(more.items())


def changed(request: dict[str, Any], more: Mapping[str, Any], place: str = "span") -> dict[str, Any]:
    """Return a copy of a request with attributes set somewhere."""
    request = copy.deepcopy(request)
    if place == "resource":
        for resource in request["resourceSpans"]:
            put(resource["resource"], more)
    for scope in scopes(request):
        if place == "scope":
            put(scope.setdefault("scope", {}), more)
        for span in scope["spans"]:
            if place == "span":
                put(span, more)
            elif place == "event":
                span["events"] = [{"name": "e", "timeUnixNano": "1700000000000000005", "attributes": []}]
                put(span["events"][0], more)
    return request


def stranger(origin: str, attributes: Mapping[str, Any], name: str = "stranger", **more: Any) -> dict[str, Any]:
    """A request with one sealed span of another log."""
    span = {
        "traceId": "ab" * 16, "spanId": "cd" * 8, "name": name, "kind": 1, "startTimeUnixNano": "1700000000000000005",
        "endTimeUnixNano": "1700000000000001005", "status": {}, "attributes": [], **more,
    }  # fmt: skip
    own = {
        "audit.record.id": "r",
        "audit.statement": "{}",
        "audit.log.origin": f"hostile/{origin}",
        "audit.log.index": 1,
    }
    put(span, {**own, **attributes})
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": pairs_of({"service.name": "hostile"}.items())},
                "scopeSpans": [{"scope": {"name": "hostile"}, "spans": [span]}],
            }
        ]
    }


def with_poison(honest: Honest, *poison: dict[str, Any]) -> list[Sent]:
    """The honest documents with spans among them that Elasticsearch refuses, in the same request and scope."""
    request = honest.request()
    bad = [span for one in poison for span in spans(one)]
    for scope in scopes(request):
        scope["spans"] = [*bad, *scope["spans"], *bad]
    return [Sent(request)]


def deep(levels: int) -> Any:
    found: Any = "x"
    for level in range(levels):
        found = {f"k{level}": found}
    return found


Attack = Callable[[Honest], list[Sent]]
NOTHING: frozenset[Code] = frozenset()


def _control(place: str) -> Attack:
    return lambda honest: [Sent(changed(honest.request(), CONTROL, place))]


def _control_of_type(item: Any) -> Attack:
    said = dict.fromkeys(CONTROL, item) | {"elasticsearch": {"index": NOWHERE}, "data_stream": {"dataset": NOWHERE}}
    return lambda honest: [Sent(changed(honest.request(), said, place)) for place in ("span", "scope", "resource")]


def _header(mode: str) -> Attack:
    return lambda honest: [Sent(honest.request(), headers={"X-Elastic-Mapping-Mode": mode})]


def _altered(index: int, more: Mapping[str, Any], place: str = "span") -> Attack:
    return lambda honest: [Sent(changed(honest.one(index), more, place))]


def _of_the_checkpoint(more: Mapping[str, Any]) -> Attack:
    return lambda honest: [Sent(changed(honest.checkpoint(), more))]


def _forged_checkpoint(honest: Honest) -> list[Sent]:
    request = honest.checkpoint()
    note = plain(next(spans(request)))["audit.checkpoint.note"]
    origin, size, rest = note.split("\n", 2)
    forged = f"{origin}\n{int(size) + 1}\n{rest}"
    return [Sent(changed(request, {"audit.checkpoint.note": forged, "audit.checkpoint.tree_size": int(size) + 1}))]


def _span_fields(index: int, **more: Any) -> Attack:
    def attack(honest: Honest) -> list[Sent]:
        request = honest.one(index)
        next(spans(request)).update(more)
        return [Sent(request)]

    return attack


def _twice(honest: Honest) -> list[Sent]:
    request = honest.request()
    for scope in scopes(request):
        scope["spans"] = scope["spans"] * 5
    return [Sent(request), Sent(request)]


def _unsealed(honest: Honest) -> list[Sent]:
    request = honest.request()
    for span in spans(request):
        span["attributes"] = [item for item in span["attributes"] if item["key"] == "audit.record.id"]
    return [Sent(request)]


def _as_ours(honest: Honest) -> list[Sent]:
    request = stranger(honest.origin, {}, name="checkpoint")
    for scope in scopes(request):
        scope["scope"] = {"name": "auditspan.log"}
        for span in scope["spans"]:
            span["attributes"] = pairs_of({"audit.log.origin": honest.origin}.items())
    return [Sent(request)]


def _as_logs(honest: Honest) -> list[Sent]:
    said = pairs_of({"audit.log.origin": honest.origin, "audit.log.index": 1, "audit.statement": "forged"}.items())
    record = {"timeUnixNano": "1700000000000000005", "attributes": said, "body": {"stringValue": "x"}}
    logs = {"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": [record]}]}]}
    return [Sent(logs, "/v1/logs", answers=(404,)), Sent({"resourceMetrics": []}, "/v1/metrics", answers=(404,))]


def _garbage(honest: Honest) -> list[Sent]:
    binary = {"content-type": "application/x-protobuf"}
    bomb = gzip.compress(b"\0" * 200_000_000, 9)
    return [
        Sent(b"{", answers=(400,)), Sent(b"\xff" * 1000, headers=binary, answers=(400,)),
        Sent(json.dumps(honest.request()).encode()[:-20], answers=(400,)),
        Sent(bomb, headers={"content-encoding": "gzip"}, answers=(400, 413)),
        Sent(b" " * 40_000_000, answers=(400, 413)),
    ]  # fmt: skip


def _poison(honest: Honest) -> list[Sent]:
    origin = honest.origin
    return with_poison(
        honest,
        stranger(origin, {"m": (("a", 1), ("a", 2))}),  # a key twice in a map: refused with 400
        stranger(origin, {"k" * 40_000: 1}), stranger(origin, {"deep": deep(60)}),
        stranger(origin, dict.fromkeys(BLANK, 1)), stranger(origin, {"n": {"": 1, " ": {"": 2}}}),
        stranger(origin, {"x.geo.location.lat": 1e300, "x.geo.location.lon": float("nan")}),
        stranger(origin, {}, startTimeUnixNano=str(2**64 - 1)), stranger(origin, {}, startTimeUnixNano="0"),
        stranger(origin, {}, traceId="0" * 32, spanId="0" * 16), stranger(origin, {}, name="n" * 40_000),
        stranger(origin, {}, events=[{"name": "e", "attributes": pairs_of({"f": float("nan"), "": 1}.items())}]),
        stranger(origin, {}, links=[{"traceId": "0" * 32, "attributes": pairs_of((("m", (("a", 1), ("a", 2))),))}]),
    )  # fmt: skip


def _nan_in_an_event(honest: Honest) -> list[Sent]:
    said = pairs_of({"loss": float("nan")}.items())
    return with_poison(honest, stranger(honest.origin, {}, events=[{"name": "e", "attributes": said}] * 2))


def _other_shadows(honest: Honest) -> list[Sent]:
    said = {
        "audit.actor.id": "mallory",
        "audit.action": "NOTHING",
        "automation.run.id": "other",
        "client.address": "::1",
    }
    theirs = {"service.name": "mallory", "service": {"name": "mallory"}, "host": {"name": "x"}}
    return [Sent(changed(stranger(honest.origin, theirs), said, place)) for place in ("resource", "scope")]


PLACES = ("span", "scope", "resource", "event")
AT_ONCE = 1_700_000_000_000_000_005
OWN: dict[str, dict[str, Any]] = {
    **{f"control attributes, {place}": {place: CONTROL} for place in ("span", "resource", "scope", "event")},
    **{f"blank keys, {place}": {place: dict.fromkeys(filter(None, BLANK), "x")} for place in ("span", "resource")},
    "names of the resource": {"span": {"service.name": "x", "host.name": "y", "service": "z"}},
    "numbers that are none": {"span": {"f": float("nan"), "g": [float("inf"), 1.0]}},
    "numbers that are none, event": {"event": {"f": float("nan")}},
    "an end before the beginning": {"start": AT_ONCE, "end": AT_ONCE - 5},
    "no time": {"start": 1, "end": 2},
    "places on the globe": {"span": {"geo.location.lat": 1.5, "geo.location.lon": 2.5, "x.geo.location.lat": 3.5}},
    "places on the globe, resource": {"resource": {"x.geo.location.lat": 1.5, "x.geo.location.lon": 2.5}},
    "colliding keys": {"span": {"a.b": 1, "a": 2, "a..b": 3, ".": 4, "..": 5, "a.": 6, " . ": 7}},
    "long keys and values": {"span": {"k" * 40_000: 1, "v": "v" * 300_000}},
    "values of other types": {"span": {"audit.actor.id": 5, "automation.run.attempt": "many", "audit.outcome": ["a"]}},
}  # fmt: skip
"""What a program may say in records of its own, or have put into them by whoever calls it. All of it is honest."""

M, A, F, D = Code.FIELD_MISMATCH, Code.STATEMENT_ALTERED, Code.FOREIGN_DOCUMENT, Code.DUPLICATE_DOCUMENT
ATTACKS: dict[str, tuple[Attack, frozenset[Code]]] = {
    # Hide and re-route: what is stripped leaves an honest document.
    **{f"control attributes on the {place}": (_control(place), NOTHING) for place in PLACES},
    "control attributes that are maps": (_control_of_type({"x": NOWHERE}), NOTHING),
    "control attributes that are lists": (_control_of_type([NOWHERE]), NOTHING),
    "control attributes that are numbers": (_control_of_type(7), NOTHING),
    **{f"the header for {mode}": (_header(mode), NOTHING) for mode in ("ecs", "none", "raw", "bodymap", "bogus")},
    "blank keys": (lambda honest: [Sent(changed(honest.request(), dict.fromkeys(BLANK, 1)))], NOTHING),
    "into the log's stream": (_altered(1, {"audit.log.document": "entry"}), frozenset({M})),
    "into the log's stream, as nothing known": (_altered(1, {"audit.log.document": 5}), frozenset({D, M})),
    "unsealed copies": (_unsealed, NOTHING),
    "as logs and metrics": (_as_logs, NOTHING),
    "names of other scopes": (_as_ours, NOTHING),
    "fields of that name elsewhere": (_other_shadows, NOTHING),
    # Overwrite, and be first.
    "another statement first": (_altered(1, {"audit.statement": "forged"}), frozenset({A})),
    "the honest statement under another actor": (_altered(1, {"audit.actor.id": "mallory"}), frozenset({M})),
    "the honest statement under another name": (_span_fields(1, name="harmless"), frozenset({M})),
    "the honest statement at another time": (_span_fields(1, startTimeUnixNano="0"), frozenset({M})),
    "the honest statement beyond all time": (_span_fields(1, startTimeUnixNano=str(2**64 - 1)), frozenset({M})),
    "the honest statement without ids": (_span_fields(1, traceId="", spanId=""), frozenset({M})),
    "the honest statement of another resource": (_altered(1, {"service.name": "other"}, "resource"), frozenset({M})),
    "one index more": (_altered(1, {"audit.log.index": 99}), frozenset({D})),
    "an index below zero": (_altered(1, {"audit.log.index": -1}), frozenset({D})),
    "an index as text": (_altered(1, {"audit.log.index": "1"}), frozenset({D})),
    "an index as a double": (_altered(1, {"audit.log.index": 1.0}), frozenset({D})),
    "a statement that is a number": (_altered(1, {"audit.statement": 5}), frozenset({F})),
    "a statement that is a list": (_altered(1, {"audit.statement": ["a", "b"]}), frozenset({F})),
    "a statement that is a map": (_altered(1, {"audit.statement": {"v": 1}}), frozenset({F})),
    "a checkpoint of a larger tree": (_forged_checkpoint, frozenset({Code.CHECKPOINT_INVALID})),
    "a checkpoint with other leaves": (
        _of_the_checkpoint({"audit.checkpoint.leaf_hashes": "AAAA"}),
        frozenset({Code.CHECKPOINT_INVALID, Code.NO_CHECKPOINT, Code.ENTRY_UNCOVERED}),
    ),
    # Duplicate.
    "everything ten times": (_twice, NOTHING),
    # Poison.
    "poison in the same request": (_poison, NOTHING),
    "a number that is none in an event": (_nan_in_an_event, NOTHING),
    "requests that are none": (_garbage, NOTHING),
}  # fmt: skip
"""What is sent first, and the reason codes of the verification afterwards (none: PASSED)."""
