# SPDX-License-Identifier: Apache-2.0
"""Search hits as the Collector and Elasticsearch make them of what is shipped (the real ones: tests/backend)."""

from __future__ import annotations

import math
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from auditspan_seal import spans
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory

INDEX = ".ds-traces-audit.otel-default-000001"


def hits_of(directory: Directory) -> list[dict[str, Any]]:
    """Return the documents of a log."""
    found = []
    for block in reader.batches(directory.log):
        for offset, (statement, private) in enumerate(zip(block.statements, block.private, strict=True)):
            found.append(spans.document_of(statement, private, directory.origin, block.batch.first + offset))
        found.append(spans.checkpoint_document(block.batch, directory.origin, 1_700_000_000_000_000_000))
    return [
        {"_index": INDEX, "_id": f"document-{number}", "_source": _source(span)} for number, span in enumerate(found)
    ]


def _source(span: ReadableSpan) -> dict[str, Any]:
    context, scope = span.get_span_context(), span.instrumentation_scope
    assert context is not None
    assert scope is not None
    start, end = span.start_time or 0, span.end_time or 0
    status = {"UNSET": None, "OK": "Ok", "ERROR": "Error"}[span.status.status_code.name]
    source: dict[str, Any] = {
        "@timestamp": f"{start // 1_000_000}.{start % 1_000_000}",
        "attributes": {name: _value(item) for name, item in (span.attributes or {}).items()},
        "data_stream": {"dataset": "audit.otel", "namespace": "default", "type": "traces"},
        "duration": end - start,
        "kind": span.kind.name.title(),
        "links": [
            {
                "trace_id": f"{link.context.trace_id:032x}",
                "span_id": f"{link.context.span_id:016x}",
                "attributes": {name: _value(item) for name, item in (link.attributes or {}).items()},
            }
            for link in span.links
        ],
        "name": span.name,
        "resource": {"attributes": {name: _value(item) for name, item in span.resource.attributes.items()}},
        "scope": {"name": scope.name} | ({"version": scope.version} if scope.version else {}),
        "span_id": f"{context.span_id:016x}",
        "status": ({"code": status} if status else {})
        | ({"message": span.status.description} if span.status.description else {}),
        "trace_id": f"{context.trace_id:032x}",
    }
    if context.trace_state:
        source["trace_state"] = context.trace_state.to_header()
    if span.parent is not None:
        source["parent_span_id"] = f"{span.parent.span_id:016x}"
    return source


def _value(item: Any) -> Any:
    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, (list, tuple)):
        return [_value(part) for part in item]
    if isinstance(item, dict):
        return {name: _value(part) for name, part in item.items()}
    return None if isinstance(item, float) and not math.isfinite(item) else item
