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
_CONTROL = ("elasticsearch.", "data_stream.", "elastic.mapping.")

Mismatch = tuple[str, Any, Any]
"""Field, what the statement says, what the document says."""


def mismatches(fields: Mapping[str, Any], origin: str, index: int, document: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare a document with the statement it carries.

    Args:
        fields: the decoded statement.
        origin: the log that the statement was found in.
        index: its index there.
        document: the ``_source`` of the document.
    """
    attributes = _mapping(document.get("attributes"))
    yield from _one(f"attributes.{spans.ORIGIN}", origin, attributes.get(spans.ORIGIN))
    yield from _one(f"attributes.{spans.INDEX}", index, attributes.get(spans.INDEX))
    if fields["type"] != "span":
        if "attributes" in fields:
            yield from _attributes("attributes", fields["attributes"], attributes, added=_ADDED)
        return
    yield from _one(f"attributes.{spans.STREAM}", fields["segment"], attributes.get(spans.STREAM))
    yield from _one(f"attributes.{spans.NUMBER}", fields["number"], attributes.get(spans.NUMBER))
    for name in ("trace_id", "span_id", "parent_span_id", "trace_state", "name"):
        yield from _one(name, fields[name] or None, document.get(name) or None)
    yield from _one("kind", _KINDS.get(fields["kind"]), document.get("kind"))
    yield from _one("@timestamp", int(fields["start"]), _nanoseconds(document.get("@timestamp")))
    yield from _one("duration", int(fields["end"]) - int(fields["start"]), document.get("duration"))
    status = _mapping(document.get("status"))
    yield from _one("status.code", _STATUS.get(fields["status"]["code"]), status.get("code"))
    yield from _one("status.message", fields["status"]["message"] or None, status.get("message") or None)
    yield from _attributes("attributes", fields["attributes"], attributes, added=_ADDED)
    resource = _mapping(document.get("resource"))
    yield from _attributes(
        "resource.attributes", fields["resource"]["attributes"], _mapping(resource.get("attributes"))
    )
    scope = _mapping(document.get("scope"))
    yield from _one("scope.name", fields["scope"]["name"] or None, scope.get("name") or None)
    yield from _one("scope.version", fields["scope"]["version"] or None, scope.get("version") or None)
    yield from _links(fields["links"], document.get("links"))


def _one(name: str, expected: Any, found: Any) -> Iterator[Mismatch]:
    if type(expected) is not type(found) or expected != found:
        yield name, expected, found


def _attributes(
    prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any], added: tuple[str, ...] = ()
) -> Iterator[Mismatch]:
    for name, item in expected.items():
        value = statements.plain(item)
        if isinstance(value, statements.Commitment) or (name.startswith(_CONTROL) and name not in found):
            continue  # personal values are held against their commitments (verify/personal.py)
        if not _same(value, found.get(name)):
            yield f"{prefix}.{name}", value, found.get(name)
    for name in found:
        # Others may add attributes of their own; ours can only come from the statement.
        if name not in expected and name not in added and name.startswith(_OWN):
            yield f"{prefix}.{name}", None, found[name]


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
    return item if isinstance(item, Mapping) else {}
