# SPDX-License-Identifier: Apache-2.0
"""Between OpenTelemetry spans and statements: a finished span becomes a statement, a statement becomes a document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from auditspan_seal.errors import MalformedStatement
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import leaf_hash

# Attributes that are added to a document on its way out; the statement itself does not have them.
STATEMENT = "audit.statement"
ORIGIN = "audit.log.origin"
INDEX = "audit.log.index"
STREAM = "audit.sequence.stream_id"
NUMBER = "audit.sequence.number"
DOCUMENT = "audit.log.document"
NOTE = "audit.checkpoint.note"
FIRST = "audit.checkpoint.first_index"
SIZE = "audit.checkpoint.tree_size"
FRONTIER = "audit.checkpoint.frontier"
LEAVES = "audit.checkpoint.leaf_hashes"

_SCOPE = InstrumentationScope("auditspan.log")


def fields_of(span: ReadableSpan, origin: str, segment: str, number: int) -> dict[str, Any]:
    """Return the fields of the statement of a finished span.

    Args:
        span: the span.
        origin: name of the log.
        segment: name of the segment file it is written to.
        number: its running number there, from 1.
    """
    context = span.get_span_context()
    if context is None:
        raise MalformedStatement("A span without a context cannot be recorded.")
    scope = span.instrumentation_scope
    return {
        "v": statements.VERSION,
        "type": "span",
        "origin": origin,
        "segment": segment,
        "number": number,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_span_id": f"{span.parent.span_id:016x}" if span.parent is not None else "",
        "parent_is_remote": span.parent is not None and span.parent.is_remote,
        "trace_flags": int(context.trace_flags),
        "trace_state": context.trace_state.to_header(),
        "name": statements.text(span.name),
        "kind": span.kind.name,
        # Nanoseconds since the epoch are beyond 2^53: decimal strings (otherwise many JSON readers round them).
        "start": str(span.start_time or 0),
        "end": str(span.end_time or 0),
        "status": {"code": span.status.status_code.name, "message": statements.text(span.status.description or "")},
        "attributes": statements.values(span.attributes),
        "events": [
            {
                "name": statements.text(event.name),
                "time": str(event.timestamp),
                "attributes": statements.values(event.attributes),
            }
            for event in span.events
        ],
        "links": [
            {
                "trace_id": f"{link.context.trace_id:032x}",
                "span_id": f"{link.context.span_id:016x}",
                "trace_state": link.context.trace_state.to_header(),
                "attributes": statements.values(link.attributes),
            }
            for link in span.links
        ],
        "dropped": {
            "attributes": span.dropped_attributes,
            "events": span.dropped_events,
            "links": span.dropped_links,
        },
        "resource": {
            "attributes": statements.values(span.resource.attributes),
            "schema_url": span.resource.schema_url or "",
        },
        "scope": {
            "name": scope.name if scope else "",
            "version": (scope.version if scope else None) or "",
            "schema_url": (scope.schema_url if scope else None) or "",
            "attributes": statements.values(scope.attributes if scope else None),
        },
    }


def document_of(statement: bytes, origin: str, index: int) -> ReadableSpan:
    """Return the span to ship for an entry: what its statement says, with the statement, origin and index on it.

    Raises:
        MalformedStatement: it is none.
    """
    fields = statements.decode(statement)
    added: dict[str, Any] = {STATEMENT: statement.decode(), ORIGIN: origin, INDEX: index}
    if fields["type"] != "span":
        return _log_document(
            f"log {fields['type']}", leaf_hash(statement), int(fields.get("time", 0)), added | {DOCUMENT: "entry"}
        )
    try:
        return _span_of(fields, added | {STREAM: fields["segment"], NUMBER: fields["number"]})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise MalformedStatement(f"The statement at index {index} lacks what a span must have.") from None


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
        resource=Resource({"service.name": "auditspan"}),
        attributes=dict(attributes),
        start_time=time,
        end_time=time,
        instrumentation_scope=_SCOPE,
    )


def _span_of(fields: Mapping[str, Any], added: Mapping[str, Any]) -> ReadableSpan:
    trace_state = TraceState.from_header([fields["trace_state"]]) if fields["trace_state"] else TraceState()
    trace_id = int(fields["trace_id"], 16)
    context = SpanContext(trace_id, int(fields["span_id"], 16), False, TraceFlags(fields["trace_flags"]), trace_state)
    parent = None
    if fields["parent_span_id"]:
        parent = SpanContext(trace_id, int(fields["parent_span_id"], 16), bool(fields["parent_is_remote"]))
    scope = fields["scope"]
    return ReadableSpan(
        name=fields["name"],
        context=context,
        parent=parent,
        resource=Resource(_plain(fields["resource"]["attributes"]), fields["resource"]["schema_url"] or None),
        attributes=_plain(fields["attributes"]) | dict(added),
        events=[Event(event["name"], _plain(event["attributes"]), int(event["time"])) for event in fields["events"]],
        links=[
            Link(
                SpanContext(
                    int(link["trace_id"], 16),
                    int(link["span_id"], 16),
                    True,
                    trace_state=TraceState.from_header([link["trace_state"]]) if link["trace_state"] else None,
                ),
                _plain(link["attributes"]),
            )
            for link in fields["links"]
        ],
        kind=SpanKind[fields["kind"]],
        status=Status(StatusCode[fields["status"]["code"]], fields["status"]["message"] or None)
        if fields["status"]["code"] == "ERROR"
        else Status(StatusCode[fields["status"]["code"]]),
        start_time=int(fields["start"]),
        end_time=int(fields["end"]),
        instrumentation_scope=InstrumentationScope(
            scope["name"], scope["version"] or None, scope["schema_url"] or None, _plain(scope["attributes"])
        ),
    )


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: statements.plain(item) for name, item in attributes.items()}
