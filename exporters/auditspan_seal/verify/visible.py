# SPDX-License-Identifier: Apache-2.0
"""Does the visible document say what its statement says?

Strict on content, tolerant of what the Collector and Elasticsearch are known to do to an honest span (bytes become
hexadecimal text, NaN becomes null, doubles may come back with 32 bits, empty lists and nulls may disappear, control
attributes of the exporter are removed, processors add attributes).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from auditspan_seal import spans
from auditspan_seal.formats import statement as statements

_KINDS = {
    "INTERNAL": "Internal",
    "SERVER": "Server",
    "CLIENT": "Client",
    "PRODUCER": "Producer",
    "CONSUMER": "Consumer",
}
_STATUS = {"UNSET": None, "OK": "Ok", "ERROR": "Error"}
_OWN = ("audit.", "automation.")
_ADDED = (spans.STATEMENT, spans.ORIGIN, spans.INDEX, spans.STREAM, spans.NUMBER, spans.DOCUMENT, spans.PRIVATE)
_FIELDS = (
    f"attributes.{spans.STREAM}", f"attributes.{spans.NUMBER}", "trace_id", "span_id", "parent_span_id", "trace_state",
    "name", "kind", "@timestamp", "duration", "status.code", "status.message", "scope.name", "scope.version",
)  # fmt: skip
_CONTROL = ("elasticsearch.", "data_stream.", "elastic.mapping.")

Mismatch = tuple[str, Any, Any]
"""Field, what the statement says, what the document says."""


def mismatches(fields: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare a document with the statement it carries. Its place (log and index) is not in the statement.

    Args:
        fields: the decoded statement.
        document: the ``_source`` of the document.
    """
    attributes = _mapping(document.get("attributes"))
    if fields["type"] != "span":
        if "attributes" in fields:
            yield from _attributes("attributes", fields["attributes"], attributes, added=_ADDED)
        return
    # Nearly every document agrees: all single fields at once first, and one by one only to say which does not.
    get = document.get
    scope, status, resource = _mapping(get("scope")), _mapping(get("status")), _mapping(get("resource"))
    said, stated = fields["scope"], fields["status"]
    expected = (
        fields["segment"], fields["number"], fields["trace_id"] or None, fields["span_id"] or None,
        fields["parent_span_id"] or None, fields["trace_state"] or None, fields["name"] or None,
        _KINDS.get(fields["kind"]), int(fields["start"]), int(fields["end"]) - int(fields["start"]),
        _STATUS.get(stated["code"]), stated["message"] or None, said["name"] or None, said["version"] or None,
    )  # fmt: skip
    found = (
        attributes.get(spans.STREAM), attributes.get(spans.NUMBER), get("trace_id") or None, get("span_id") or None,
        get("parent_span_id") or None, get("trace_state") or None, get("name") or None,
        get("kind"), _nanoseconds(get("@timestamp")), get("duration"),
        status.get("code"), status.get("message") or None, scope.get("name") or None, scope.get("version") or None,
    )  # fmt: skip
    if expected != found or tuple(map(type, expected)) != tuple(map(type, found)):
        for name, one, other in zip(_FIELDS, expected, found, strict=True):
            yield from _one(name, one, other)
    yield from _attributes("attributes", fields["attributes"], attributes, added=_ADDED)
    yield from _attributes(
        "resource.attributes", fields["resource"]["attributes"], _mapping(resource.get("attributes"))
    )
    if fields["links"] or get("links"):
        yield from _links(fields["links"], get("links"))
    if "events" in document:  # Elasticsearch's exporter makes documents of their own of them
        yield from _events(fields["events"], get("events"))


def _one(name: str, expected: Any, found: Any) -> Iterator[Mismatch]:
    if type(expected) is not type(found) or expected != found:
        yield name, expected, found


def _attributes(
    prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any], added: tuple[str, ...] = ()
) -> Iterator[Mismatch]:
    values = list(expected.values())
    seen = list(map(found.get, expected))
    types = list(map(type, values))
    # Single values of the same types are the same if they are equal; lists and tagged values are looked into.
    if values != seen or types != list(map(type, seen)) or dict in types or list in types:
        yield from _one_by_one(prefix, expected, found)
    for name in found.keys() - expected.keys():
        # Others may add attributes of their own; ours can only come from the statement.
        if name not in added and name.startswith(_OWN):
            yield f"{prefix}.{name}", None, found[name]


def _one_by_one(prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Mismatch]:
    for name, item in expected.items():
        value = statements.plain(item)
        if isinstance(value, statements.Commitment) or (name.startswith(_CONTROL) and name not in found):
            continue  # personal values are held against their commitments (verify/personal.py)
        if not _same(value, found.get(name)):
            yield f"{prefix}.{name}", value, found.get(name)


def _links(expected: list[Any], found: Any) -> Iterator[Mismatch]:
    links = found if isinstance(found, list) else []
    if len(links) != len(expected):
        yield "links", len(expected), len(links)
        return
    for position, (link, other) in enumerate(zip(expected, links, strict=True)):
        other = _mapping(other)
        for name in ("trace_id", "span_id"):
            yield from _one(f"links[{position}].{name}", link[name], other.get(name))
        yield from _attributes(f"links[{position}].attributes", link["attributes"], _mapping(other.get("attributes")))


def _events(expected: list[Any], found: Any) -> Iterator[Mismatch]:
    events = found if isinstance(found, list) else []
    if len(events) != len(expected):
        yield "events", len(expected), len(events)
        return
    for position, (event, other) in enumerate(zip(expected, events, strict=True)):
        other = _mapping(other)
        yield from _one(f"events[{position}].name", event["name"], other.get("name"))
        yield from _one(f"events[{position}].time", int(event["time"]), other.get("time"))
        yield from _attributes(f"events[{position}].attributes", event["attributes"], _mapping(other.get("attributes")))


def _same(expected: Any, found: Any) -> bool:
    if expected is None or expected == []:
        return found is None or found == expected
    if isinstance(expected, bytes):
        return bool(found == expected.hex())
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, float):
        if not math.isfinite(expected):
            return found is None
        return isinstance(found, (int, float)) and (found == expected or _single(found) == _single(expected))
    if isinstance(expected, int) and not -(2**63) <= expected < 2**63:
        return bool(found == str(expected))  # more than OTLP can carry (spans.document_of)
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_same(one, other) for one, other in zip(expected, found, strict=True))
        )
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(_same(item, found.get(name)) for name, item in expected.items())
    return type(found) is type(expected) and bool(found == expected)


def _single(number: float) -> float | None:
    try:
        return float(struct.unpack("f", struct.pack("f", number))[0])
    except (OverflowError, struct.error):
        return None


def _nanoseconds(timestamp: Any) -> Any:
    """Read the exporter's ``<milliseconds>.<nanoseconds of it, not padded>``."""
    if not isinstance(timestamp, str):
        return timestamp
    milliseconds, _, rest = timestamp.partition(".")
    if len(timestamp) > 40 or not (timestamp.isascii() and milliseconds.isdecimal() and (rest.isdecimal() or not rest)):
        return timestamp
    return int(milliseconds) * 1_000_000 + int(rest or 0)


def _mapping(item: Any) -> Mapping[str, Any]:
    return item if isinstance(item, dict) else {}
