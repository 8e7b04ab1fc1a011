# SPDX-License-Identifier: Apache-2.0
"""The statement of a span, made as plainly as docs/formats.md says it: slow, and without anything of the product."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

BIG = 2**53


def line_of(span: ReadableSpan, origin: str, segment: str, number: int, guard: Any) -> bytes:
    """Return the line of a segment for a span. Salts are of `os.urandom`, one for each personal value, in order."""
    context = span.get_span_context()
    assert context is not None
    beside: dict[str, Any] = {}
    attributes = values(guard.attributes(span.attributes, "span"))
    personal = set(guard.personal(list(attributes)))
    for name, form in attributes.items():
        if name in personal and form is not None and form != []:
            form, salt = committed_to(form), os.urandom(16)
            content = b"auditspan/commitment/v1\n" + salt + name.encode() + b"\0" + dumps(form)
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            attributes[name] = {"commitment": digest}
            beside[name] = [base64.b64encode(salt).decode(), form]
    parent, scope = span.parent, span.instrumentation_scope
    statement = {
        "attributes": attributes,
        "dropped": {
            "attributes": span.dropped_attributes,
            "events": span.dropped_events,
            "links": span.dropped_links,
        },
        "end": str(span.end_time),
        "events": [
            {
                "attributes": values(guard.attributes(event.attributes, "event")),
                "name": text(guard.text(event.name)),
                "time": str(event.timestamp),
            }
            for event in span.events
        ],
        "kind": span.kind.name,
        "links": [
            {
                "attributes": values(guard.attributes(link.attributes, "link")),
                "span_id": format(link.context.span_id, "016x"),
                "trace_id": format(link.context.trace_id, "032x"),
                "trace_state": link.context.trace_state.to_header(),
            }
            for link in span.links
        ],
        "name": text(guard.text(span.name)),
        "number": number,
        "origin": origin,
        "parent_is_remote": bool(parent and parent.is_remote),
        "parent_span_id": format(parent.span_id, "016x") if parent else "",
        "resource": {
            "attributes": values(guard.attributes(span.resource.attributes, "resource")),
            "schema_url": span.resource.schema_url or "",
        },
        "scope": {
            "attributes": values(guard.attributes(scope.attributes, "scope")) if scope else {},
            "name": scope.name if scope else "",
            "schema_url": (scope.schema_url or "") if scope else "",
            "version": (scope.version or "") if scope else "",
        },
        "segment": segment,
        "span_id": format(context.span_id, "016x"),
        "start": str(span.start_time),
        "status": {"code": span.status.status_code.name, "message": text(guard.text(span.status.description or ""))},
        "trace_flags": int(context.trace_flags),
        "trace_id": format(context.trace_id, "032x"),
        "trace_state": context.trace_state.to_header(),
        "type": "span",
        "v": 2,
    }
    return dumps(statement) + (b"\t" + dumps(beside, ordered=False) if beside else b"")


def text(string: str) -> str:
    """Return a text without lone surrogates; two that belong together are one character."""
    if any("\ud800" <= char <= "\udfff" for char in string):
        return string.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return string


def values(items: Mapping[Any, Any] | None, depth: int = 0) -> dict[str, Any]:
    return {text(str(key)): value(item, depth) for key, item in (items or {}).items()}


def value(item: Any, depth: int = 0) -> Any:
    if item is None or isinstance(item, bool):
        return item
    if isinstance(item, str):
        return text(item)
    if isinstance(item, int):
        if abs(item) <= BIG:
            return int(item)
        return {"int": str(int(item))} if abs(item) < 10**640 else f"<integer of {item.bit_length()} bits>"
    if isinstance(item, float):
        if math.isnan(item):
            return {"double": "NaN"}
        return float(item) if math.isfinite(item) else {"double": "Infinity" if item > 0 else "-Infinity"}
    if depth >= 64:
        return f"<{type(item).__name__} nested deeper than 64>"
    if isinstance(item, (bytes, bytearray)):
        return {"bytes": base64.b64encode(item).decode()}
    if isinstance(item, Mapping):
        return {"map": values(item, depth + 1)}
    if isinstance(item, (list, tuple)):
        return [value(part, depth + 1) for part in item]
    return text(str(item))


def committed_to(form: Any) -> Any:
    """Return the form of a personal value that is committed to: nothing but texts, integers, booleans and lists."""
    if isinstance(form, list):
        return [committed_to(item) for item in form]
    if isinstance(form, (str, bool, int)):
        return form
    return str(read(form))


def read(form: Any) -> Any:
    """Return the value that a form stands for."""
    if isinstance(form, list):
        return [read(item) for item in form]
    if not isinstance(form, dict):
        return form
    ((kind, inner),) = form.items()
    if kind == "map":
        return {key: read(item) for key, item in inner.items()}
    return base64.b64decode(inner) if kind == "bytes" else int(inner) if kind == "int" else float(inner)


def dumps(item: Any, *, ordered: bool = True) -> bytes:
    """Return JSON without spaces, in UTF-8, with nothing escaped that need not be."""
    if isinstance(item, dict):
        # By code points, which is the order of UTF-8, too.
        pairs = sorted(item.items(), key=lambda pair: pair[0].encode()) if ordered else item.items()
        inner = b",".join(dumps(key) + b":" + dumps(part, ordered=ordered) for key, part in pairs)
        return b"{" + inner + b"}"
    if isinstance(item, list):
        return b"[" + b",".join(dumps(part, ordered=ordered) for part in item) + b"]"
    if isinstance(item, float):
        return _double(item)
    return json.dumps(item, ensure_ascii=False).encode()


def _double(number: float) -> bytes:
    """Return the shortest text that reads as the number: of 1e-5 to 1e16 without an exponent, else with its sign."""
    spelt = repr(number)
    mantissa, _, exponent = spelt.partition("e")
    if not exponent:
        return spelt.encode()
    power = int(exponent)
    if power == -5:  # Python writes 1e-05, JSON writers 0.00001
        digits = mantissa.replace("-", "").replace(".", "")
        return f"{'-' if number < 0 else ''}0.0000{digits}".encode()
    return f"{mantissa}e{'+' if power > 0 else '-'}{abs(power)}".encode()
