# SPDX-License-Identifier: Apache-2.0
"""Between OpenTelemetry spans and statements: a finished span becomes a statement, a statement becomes a document."""

from __future__ import annotations

import base64
import os
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
from auditspan_seal.formats.batch import PRIVATE_MARK, Batch
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.guard import OPEN, Guard

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

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,19}")
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
LOG_SCOPE = "auditspan.log"
"""Name of the scope that documents of the log itself have."""
LOG_RESOURCE = {"service.name": "auditspan"}
"""Resource that documents of the log itself have."""
_SCOPE = InstrumentationScope(LOG_SCOPE)


class StatementMaker:
    """Makes the statements of a log's spans.

    Args:
        origin: name of the log.
        guard: what it asks about privacy; it must not raise.
    """

    def __init__(self, origin: str, guard: Guard = OPEN) -> None:
        self._origin = origin
        self._guard = guard
        # The same for nearly every span of a process: looked at and converted once.
        self._resource: tuple[object, dict[str, Any]] = (None, {})
        self._scope: tuple[object, dict[str, Any]] = (None, {})

    def line(self, span: ReadableSpan, segment: str, number: int) -> bytes:
        """Return the line of a segment for a finished span: its statement and, after a TAB, its private part.

        Args:
            span: the span.
            segment: name of the segment file.
            number: its running number there, from 1.

        Raises:
            MalformedStatement: it cannot be recorded.
        """
        return _line(*self.fields(span, segment, number))

    def beginning(self, span: ReadableSpan, attributes: Mapping[str, Any], segment: str, number: int) -> bytes:
        """Return the line that says that a span has begun: a record of its own, below the span, without duration.

        Args:
            span: the span, not ended.
            attributes: what the record says.
            segment: name of the segment file.
            number: its running number there, from 1.
        """
        fields, _ = self.fields(span, segment, number)
        fields["attributes"], private = self._attributes(attributes)
        fields |= {
            "span_id": os.urandom(8).hex(),
            "parent_span_id": fields["span_id"],
            "parent_is_remote": False,
            "end": fields["start"],
            "kind": "INTERNAL",
            "events": [],
            "links": [],
        }
        return _line(fields, private)

    def fields(self, span: ReadableSpan, segment: str, number: int) -> tuple[dict[str, Any], Private]:
        """Return the fields of the statement of a span, and the personal values that it only commits to."""
        context = span.get_span_context()
        if context is None:
            raise MalformedStatement("A span without a context cannot be recorded.")
        guard = self._guard
        attributes, private = self._attributes(span.attributes)
        fields = {
            "v": statements.VERSION,
            "type": "span",
            "origin": self._origin,
            "segment": segment,
            "number": number,
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "parent_span_id": f"{span.parent.span_id:016x}" if span.parent is not None else "",
            "parent_is_remote": span.parent is not None and span.parent.is_remote,
            "trace_flags": int(context.trace_flags),
            "trace_state": context.trace_state.to_header(),
            "name": statements.text(guard.text(span.name)),
            "kind": span.kind.name,
            # Nanoseconds since the epoch are beyond 2^53: decimal strings (otherwise many JSON readers round them).
            "start": str(span.start_time or 0),
            "end": str(span.end_time or 0),
            "status": {
                "code": span.status.status_code.name,
                "message": statements.text(guard.text(span.status.description or "")),
            },
            "attributes": attributes,
            "events": [
                {
                    "name": statements.text(guard.text(event.name)),
                    "time": str(event.timestamp),
                    "attributes": statements.values(guard.attributes(event.attributes, "event")),
                }
                for event in span.events
            ],
            "links": [
                {
                    "trace_id": f"{link.context.trace_id:032x}",
                    "span_id": f"{link.context.span_id:016x}",
                    "trace_state": link.context.trace_state.to_header(),
                    "attributes": statements.values(guard.attributes(link.attributes, "link")),
                }
                for link in span.links
            ],
            "dropped": {
                "attributes": span.dropped_attributes,
                "events": span.dropped_events,
                "links": span.dropped_links,
            },
            "resource": self._resource_of(span.resource),
            "scope": self._scope_of(span.instrumentation_scope),
        }
        return fields, private

    def _attributes(self, attributes: Mapping[str, Any] | None) -> tuple[dict[str, Any], Private]:
        private: Private = {}
        found = statements.values(self._guard.attributes(attributes, "span"))
        for name, form in found.items():
            if form is None or form == [] or not self._guard.personal(name):
                continue  # of nothing there is nothing to hide; and stores drop it
            form = _personal(form)
            found[name], private[name] = _committed(name, form)
        return found, private

    def _resource_of(self, resource: Resource) -> dict[str, Any]:
        known, form = self._resource
        if known is not resource:
            form = {
                "attributes": statements.values(self._guard.attributes(resource.attributes, "resource")),
                "schema_url": resource.schema_url or "",
            }
            self._resource = (resource, form)
        return form

    def _scope_of(self, scope: InstrumentationScope | None) -> dict[str, Any]:
        known, form = self._scope
        if known is not scope or scope is None:
            form = {
                "name": scope.name if scope else "",
                "version": (scope.version if scope else None) or "",
                "schema_url": (scope.schema_url if scope else None) or "",
                "attributes": statements.values(self._guard.attributes(scope.attributes if scope else None, "scope")),
            }
            self._scope = (scope, form)
        return form


def _line(fields: Mapping[str, Any], private: Private) -> bytes:
    statement = statements.encode(fields)
    return statement + PRIVATE_MARK + commitment.encode(private) if private else statement


def _committed(name: str, form: Any) -> tuple[dict[str, str], tuple[str, Any]]:
    """Commit to a personal value; returns what stands in the statement, and what stands beside it."""
    salt = os.urandom(commitment.SALT_SIZE)
    return {"commitment": commitment.commit(name, form, salt)}, (base64.b64encode(salt).decode(), form)


def _personal(form: Any) -> Any:
    """Return a value as it can be committed to: texts, whole numbers and lists of them come back from every store."""
    if isinstance(form, list):
        return [_personal(item) for item in form]
    return form if isinstance(form, (str, bool, int)) else str(statements.plain(form))


def document_of(statement: bytes, private: bytes, origin: str, index: int) -> ReadableSpan:
    """Return the span to ship for an entry: what its statement says, with the statement, origin and index on it.

    Personal values stand in it as they are, with their salts in one more attribute; what was erased does not.

    What it returns can be sent: a span that the exporter fails on would hold back everything after it.

    Raises:
        MalformedStatement: it is none, or not of what it says to be.
    """
    fields = statements.decode(statement)
    added: dict[str, Any] = {STATEMENT: statement.decode(), ORIGIN: origin, INDEX: index}
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
            added[PRIVATE] = orjson.dumps({name: salt for name, (salt, _) in openings.items()}).decode()
        return _span_of(fields, openings, added | {STREAM: fields["segment"], NUMBER: fields["number"]})
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
