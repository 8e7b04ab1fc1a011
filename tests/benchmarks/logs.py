# SPDX-License-Identifier: Apache-2.0
"""Makes large logs quickly: what the sequencer would write for so many records, without waiting for its disk."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from auditspan.capture.privacy import Guard
from auditspan_seal import spans
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK, Batch, Position
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint
from auditspan_seal.guard import OPEN
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import BATCH_SIZE, ROLL_SIZE
from auditspan_seal.recording import StatementMaker
from tests.records import audit_attributes

SEGMENT = "0123456789abcdef"


def make_log(
    folder: Path, records: int, *, batch: int = BATCH_SIZE, segments: int = 1, personal: bool = False
) -> Directory:
    """Write a log directory.

    Args:
        folder: where.
        records: audit spans in it.
        batch: entries to a checkpoint.
        segments: process streams that they come from.
        personal: the actor of each is only committed to, as in a record of a real process.
    """
    directory = open_directory(folder, create=True)
    signer = KeyFileSigner.load_or_create(directory.key, directory.origin)
    directory.verifier_key.write_text(f"{signer.verifier_key}\n")
    tree = Frontier()
    numbers: dict[str, int] = {}
    entries_of = _statements(directory.origin, str(signer.verifier_key), records, segments, numbers, personal)
    path = directory.log / f"{0:020d}{reader.SUFFIX}"
    for entries in _batches(entries_of, batch):
        if path.exists() and path.stat().st_size >= ROLL_SIZE:
            path = directory.log / f"{tree.size:020d}{reader.SUFFIX}"
        before, first = tree.hashes, tree.size
        leaves = tuple(leaf_hash(entry.partition(PRIVATE_MARK)[0]) for entry in entries)
        for leaf in leaves:
            tree.append(leaf)
        note = str(sign_checkpoint(signer, Checkpoint(directory.origin, tree.size, tree.root())))
        positions = {name: Position(0, number) for name, number in numbers.items()} if segments < 10 else {}
        line = Batch(note, first, before, leaves, positions).line()
        with open(path, "ab") as file:
            file.write(b"".join(ENTRY + entry + b"\n" for entry in entries) + line + b"\n")
    return directory


def _statements(
    origin: str, key: str, records: int, segments: int, numbers: dict[str, int], personal: bool
) -> Iterator[bytes]:
    yield statements.encode({"v": 2, "type": "genesis", "origin": origin, "key": key, "time": "1", "attributes": {}})
    maker = StatementMaker(origin, Guard() if personal else OPEN)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("benchmark", "1.0")
    templates = []
    for number in range(100):
        span = tracer.start_span(f"record {number}", attributes=audit_attributes(number=number))
        span.end()
        assert isinstance(span, ReadableSpan)
        made, private = maker.fields(span, SEGMENT, 1)
        templates.append((made, PRIVATE_MARK + commitment.encode(private) if private else b""))
    for number in range(records):
        name = f"{int(SEGMENT, 16) + number % segments:016x}"
        numbers[name] = numbers.get(name, 0) + 1
        made, beside = templates[number % 100]
        fields = {**made, "segment": name, "number": numbers[name], "span_id": f"{number + 1:016x}"}
        yield statements.encode(fields) + beside


def _batches(entries: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    for entry in entries:
        group.append(entry)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def export(directory: Directory, path: Path) -> int:
    """Write a log as the Collector's file exporter does: OTLP/JSON, one request with a batch in each line.

    Returns:
        how many records it has.
    """
    count = 0
    with open(path, "wb") as file:
        for block in reader.batches(directory.log):
            found = [
                spans.document_of(statement, private, directory.origin, block.batch.first + offset)
                for offset, (statement, private) in enumerate(zip(block.statements, block.private, strict=True))
            ]
            file.write(
                orjson.dumps(otlp([*found, spans.checkpoint_document(block.batch, directory.origin, 1)])) + b"\n"
            )
            count += len(found)
    return count


def otlp(found: list[ReadableSpan]) -> dict[str, Any]:
    """Return spans as an OTLP/JSON request, in the spelling of the Collector."""
    groups: dict[object, list[ReadableSpan]] = {}
    for span in found:
        groups.setdefault(span.resource.attributes.get("service.name"), []).append(span)
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(group[0].resource.attributes)},
                "scopeSpans": [_scope(group)],
            }
            for group in groups.values()
        ]
    }


def _scope(group: list[ReadableSpan]) -> dict[str, Any]:
    scope = group[0].instrumentation_scope
    assert scope is not None
    return {
        "scope": {"name": scope.name} | ({"version": scope.version} if scope.version else {}),
        "spans": [_span(span) for span in group],
    }


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None
    status = {"UNSET": {}, "OK": {"code": 1}, "ERROR": {"code": 2}}[span.status.status_code.name]
    if span.status.description:
        status["message"] = span.status.description  # type: ignore[assignment]
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": span.kind.value + 1,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes or {}),
        "events": [
            {
                "timeUnixNano": str(event.timestamp),
                "name": event.name,
                "attributes": _attributes(event.attributes or {}),
            }
            for event in span.events
        ],
        "links": [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "attributes": _attributes(link.attributes or {}),
            }
            for link in span.links
        ],
        "status": status,
    }


def _attributes(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": base64.b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _attributes(value)}}
    return {"stringValue": str(value)} if value is not None else {}
