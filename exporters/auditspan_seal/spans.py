# SPDX-License-Identifier: Apache-2.0
"""From a statement to the span that is shipped: the document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from auditspan_seal.errors import MalformedLog, MalformedStatement
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.merkle import leaf_hash

# Attributes that are added to a document on its way out; the statement itself does not have them.
STATEMENT = "audit.statement"
ORIGIN = "audit.log.origin"
INDEX = "audit.log.index"
STREAM = "audit.sequence.stream_id"
NUMBER = "audit.sequence.number"
DOCUMENT = "audit.log.document"
PRIVATE = "audit.private"
NOTE = "audit.checkpoint.note"
FIRST = "audit.checkpoint.first_index"
SIZE = "audit.checkpoint.tree_size"
FRONTIER = "audit.checkpoint.frontier"
LEAVES = "audit.checkpoint.leaf_hashes"
ADDED = frozenset({STATEMENT, ORIGIN, INDEX, STREAM, NUMBER, DOCUMENT, PRIVATE})
"""What may be added to an entry's document: its statement must not have attributes of these names."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
LOG_SCOPE = "auditspan.log"
"""Name of the scope that documents of the log itself have."""
LOG_RESOURCE = {"service.name": "auditspan"}
"""Resource that documents of the log itself have."""
_SCOPE = InstrumentationScope(LOG_SCOPE)


def document_of(statement: bytes, private: bytes, origin: str, index: int) -> ReadableSpan:
    """Return the span to ship for an entry: what its statement says, with the statement, origin and index on it.

    Personal values stand in it as they are, with their salts in one more attribute; what was erased does not.

    What it returns can be sent: a span that the exporter fails on would hold back everything after it.

    Raises:
        MalformedStatement: it is none, or not of what it says to be.
    """
    fields = statements.decode(statement)
    added: dict[str, Any] = {STATEMENT: statement.decode(), ORIGIN: origin, INDEX: index}
    salts: dict[str, Any] = {}
    try:
        if fields["type"] != "span":
            said = fields.get("attributes")
            return _log_document(
                f"log {fields['type']}",
                leaf_hash(statement),
                _nanoseconds(fields.get("time", "0")),
                (_plain(said) if isinstance(said, dict) else {}) | added | {DOCUMENT: "entry"},
            )
        openings = openings_of(private)
        if openings:
            salts[PRIVATE] = orjson.dumps({name: salt for name, (salt, _) in openings.items()}).decode()
        return _span_of(fields, openings, added | {STREAM: fields["segment"], NUMBER: fields["number"]} | salts)
    except (KeyError, TypeError, ValueError, AttributeError):
        kind = fields["type"][:40]
        raise MalformedStatement(f"The statement at index {index} lacks what a {kind!r} must have.") from None


def openings_of(private: bytes) -> Private:
    """Read the private part of an entry.

    A damaged one is not sent, but must not hold back its statement: verification says so.
    """
    try:
        return commitment.decode(private)
    except MalformedLog:
        return {}


def checkpoint_document(batch: Batch, origin: str, time: int) -> ReadableSpan:
    """Return the span to ship for a checkpoint.

    Args:
        batch: the checkpoint and its hashes.
        origin: name of the log.
        time: when, in nanoseconds since the epoch (for sorting in views; it proves nothing).
    """
    return _log_document(
        "log checkpoint",
        leaf_hash(batch.note.encode()),
        time,
        {
            DOCUMENT: "checkpoint",
            ORIGIN: origin,
            NOTE: batch.note,
            FIRST: batch.first,
            SIZE: batch.size,
            FRONTIER: batches.join(batch.frontier),
            LEAVES: batches.join(batch.leaves),
        },
    )


def _log_document(name: str, digest: bytes, time: int, attributes: Mapping[str, Any]) -> ReadableSpan:
    # Stable identifiers, so that a second delivery is the same span.
    context = SpanContext(int.from_bytes(digest[:16], "big") or 1, int.from_bytes(digest[16:24], "big") or 1, False)
    return ReadableSpan(
        name=name,
        context=context,
        resource=Resource(LOG_RESOURCE),
        attributes=dict(attributes),
        start_time=time,
        end_time=time,
        instrumentation_scope=_SCOPE,
    )


def _span_of(fields: Mapping[str, Any], openings: Private, added: Mapping[str, Any]) -> ReadableSpan:
    trace_id = _identifier(fields["trace_id"], 32)
    flags = fields["trace_flags"]
    if type(flags) is not int or not 0 <= flags <= 0xFF:
        raise ValueError
    context = SpanContext(
        trace_id, _identifier(fields["span_id"], 16), False, TraceFlags(flags), _trace_state(fields["trace_state"])
    )
    parent = None
    if fields["parent_span_id"]:
        parent = SpanContext(trace_id, _identifier(fields["parent_span_id"], 16), bool(fields["parent_is_remote"]))
    scope = fields["scope"]
    return ReadableSpan(
        name=_text(fields["name"]),
        context=context,
        parent=parent,
        resource=Resource(_plain(fields["resource"]["attributes"]), _text(fields["resource"]["schema_url"]) or None),
        attributes=_sendable(readable(fields["attributes"], openings)) | dict(added),
        events=[
            Event(_text(event["name"]), _plain(event["attributes"]), _nanoseconds(event["time"]))
            for event in fields["events"]
        ],
        links=[
            Link(
                SpanContext(
                    _identifier(link["trace_id"], 32),
                    _identifier(link["span_id"], 16),
                    True,
                    trace_state=_trace_state(link["trace_state"]),
                ),
                _plain(link["attributes"]),
            )
            for link in fields["links"]
        ],
        kind=SpanKind[fields["kind"]],
        status=Status(StatusCode[fields["status"]["code"]], _text(fields["status"]["message"]) or None)
        if fields["status"]["code"] == "ERROR"
        else Status(StatusCode[fields["status"]["code"]]),
        start_time=_nanoseconds(fields["start"]),
        end_time=_nanoseconds(fields["end"]),
        instrumentation_scope=InstrumentationScope(
            _text(scope["name"]),
            _text(scope["version"]) or None,
            _text(scope["schema_url"]) or None,
            _plain(scope["attributes"]),
        ),
    )


def _text(item: Any) -> str:
    if not isinstance(item, str):
        raise TypeError
    return item


def _trace_state(header: Any) -> TraceState:
    return TraceState.from_header([header]) if _text(header) else TraceState()


def _identifier(text: Any, digits: int) -> int:
    if len(_text(text)) != digits or not _HEXADECIMAL.fullmatch(text):
        raise ValueError
    return int(text, 16)


def _nanoseconds(text: Any) -> int:
    if not _DECIMAL.fullmatch(_text(text)) or (number := int(text)) >= 2**64:
        raise ValueError
    return number


def _sendable(item: Any) -> Any:
    """Return a value as OTLP can carry it: integers beyond 64 bits as text, as the exporter would drop them."""
    if type(item) is int:
        return item if -(2**63) <= item < 2**63 else str(item)
    if isinstance(item, dict):
        return {name: _sendable(part) for name, part in item.items()}
    return [_sendable(part) for part in item] if isinstance(item, list) else item


def readable(attributes: Mapping[str, Any], openings: Private) -> dict[str, Any]:
    """Return the attributes of a statement with the personal values in their places; those that are gone are not there.

    Raises:
        MalformedStatement: a value is of an unknown kind.
    """
    found = {}
    for name, item in attributes.items():
        value = statements.plain(item)
        if not isinstance(value, statements.Commitment):
            found[name] = value
        elif name in openings:
            found[name] = statements.plain(openings[name][1])
    return found


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _sendable(statements.plain(item)) for name, item in attributes.items()}
