# SPDX-License-Identifier: Apache-2.0
"""Verifies OTLP/JSON files: what the Collector's file exporter writes, or any other export of sealed spans.

One request ``{"resourceSpans": …}`` to a line, or one JSON document. The order does not matter, and a span may be there
more than once: delivery is at-least-once, and no store has taken the second copy out.
"""

from __future__ import annotations

import base64
import gzip
import math
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import orjson

from auditspan_seal import spans
from auditspan_seal.errors import SourceError
from auditspan_seal.verify.documents import checkpoint_of, entry_of, is_checkpoint
from auditspan_seal.verify.facts import Fact, examine
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.source import Pick
from auditspan_seal.verify.verbatim import NO_MARKS, Marks, row_of, shorten

Found = Fact | CheckpointItem | tuple[Any, ...]

_KINDS = dict(enumerate(("Unspecified", "Internal", "Server", "Client", "Producer", "Consumer")))
_KINDS_BY_NAME = {f"SPAN_KIND_{name.upper()}": name for name in _KINDS.values()}
_STATUS = {
    0: None, 1: "Ok", 2: "Error",
    "STATUS_CODE_UNSET": None, "STATUS_CODE_OK": "Ok", "STATUS_CODE_ERROR": "Error",
}  # fmt: skip
_OURS = (spans.STATEMENT, spans.DOCUMENT, spans.ORIGIN, spans.INDEX)
_BUFFER = 1024 * 1024  # bytes: lines are long
_NONE: dict[str, Any] = {}
_TWICE = "(a name that is there twice)"


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, unpacking it if its name ends in .gz or .zst.

    Raises:
        SourceError: it cannot be read, or the program ``zstd`` is not installed.
    """
    try:
        if path.name.endswith(".zst"):
            with _zstd(path) as file:
                yield file
        else:
            packed = path.name.endswith(".gz")
            with cast("IO[bytes]", gzip.open(path) if packed else open(path, "rb", _BUFFER)) as file:
                yield file
    except (OSError, EOFError) as error:
        raise SourceError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.",
            "Check the path, its permissions, and whether the file is whole.",
        ) from None


@contextmanager
def _zstd(path: Path) -> Iterator[IO[bytes]]:
    program = shutil.which("zstd")
    if program is None:
        raise SourceError(f"{path} is packed with zstd, which is not installed.", "Install zstd, or unpack the file.")
    with subprocess.Popen([program, "-dcq", "--", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout
        if process.wait() != 0:
            raise SourceError(f"{path} cannot be unpacked with zstd.", "The file is damaged or cut; fetch it again.")


def items_of(
    lines: Iterable[bytes],
    name: str,
    first: int,
    rest: Callable[[], bytes],
    problem: Callable[[str], None],
    pick: Pick | None = None,
) -> Iterator[Found]:
    """Read requests, and judge the entries in them.

    Args:
        lines: lines of a file.
        name: of the file.
        first: number of the first line, from 1.
        rest: reads what is left of the file; for a file that is one JSON document in several lines.
        problem: is told of lines that cannot be read.
        pick: which statements are wanted; None: all.

    Yields:
        checkpoints, and entries; those with nothing to say of them as rows (see :func:`.verbatim.row_of`).
    """
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        if pick is None and (found := _verbatim(line, name, number)) is not None:
            yield from found
            continue
        try:
            request = orjson.loads(line)
        except (orjson.JSONDecodeError, RecursionError):
            try:
                if number != 1:
                    raise ValueError
                request = orjson.loads(line + rest())
            except (ValueError, RecursionError):
                problem(f"line {number} of {name} is not JSON and was left out")
                continue
        for one in request if isinstance(request, list) else [request]:
            yield from _items(one, name, number, pick, NO_MARKS)


def _verbatim(line: bytes, name: str, number: int) -> list[Found] | None:
    """Judge the entries in a line without reading what is written as their statements are; None: read all of it."""
    short, marks = shorten(line)
    if not marks.known:
        return None
    try:
        request = orjson.loads(short)
    except (orjson.JSONDecodeError, RecursionError):
        return None
    found = list(_items(request, name, number, None, marks))
    return found if marks.all_taken else None


def _items(request: Any, name: str, line: int, pick: Pick | None, marks: Marks) -> Iterator[Found]:
    position = 0
    for resource_spans in _list(request, "resourceSpans"):
        for scope_spans in _list(resource_spans, "scopeSpans"):
            around: tuple[dict[str, Any], dict[str, Any]] | None = None
            agreed: set[bytes] = set()
            for span in _list(scope_spans, "spans"):
                position += 1
                pairs = span.get("attributes") if isinstance(span, dict) else None
                known = marks.take(pairs)
                attributes = _attributes(pairs) if known is None else _NONE
                if attributes is None or (known is None and attributes.keys().isdisjoint(_OURS)):
                    continue  # somebody else's span
                if around is None:
                    around = _resource(resource_spans), _scope(scope_spans)
                place = f"{name}:{line}#{position}"
                if known is not None:
                    if row := row_of(known, span, *around, agreed, place, name):
                        yield row
                        continue
                    attributes = _attributes(known.pairs(span["attributes"][1:]))
                    if attributes is None:
                        continue
                document = _document(span, attributes, *around)
                if is_checkpoint(document):
                    yield checkpoint_of(document, place)
                    continue
                item = entry_of(document, place, name)
                if pick is None or item.statement is None or pick(item.statement):
                    yield examine(item)


def _resource(resource_spans: Any) -> dict[str, Any]:
    return {
        "attributes": _attributes(_get(_get(resource_spans, "resource"), "attributes")) or {},
        "schema_url": _get(resource_spans, "schemaUrl"),
    }


def _scope(scope_spans: Any) -> dict[str, Any]:
    scope = _get(scope_spans, "scope")
    return {
        "name": _get(scope, "name"),
        "version": _get(scope, "version"),
        "attributes": _attributes(_get(scope, "attributes")) or {},
        "schema_url": _get(scope_spans, "schemaUrl"),
    }


def _document(
    span: dict[str, Any], attributes: dict[str, Any], resource: dict[str, Any], scope: dict[str, Any]
) -> dict[str, Any]:
    """Return a span in the form of a document (see :mod:`.visible`), without its detour through text."""
    get = span.get
    start, end = _whole(get("startTimeUnixNano")), _whole(get("endTimeUnixNano"))
    kind, status = get("kind"), get("status")
    links, events = get("links"), get("events")
    return {
        "attributes": attributes,
        "trace_id": get("traceId"),
        "span_id": get("spanId"),
        "parent_span_id": get("parentSpanId"),
        "trace_state": get("traceState"),
        "name": get("name"),
        "kind": _KINDS.get(kind, kind) if kind.__class__ is int else _KINDS_BY_NAME.get(str(kind), kind),
        "@timestamp": start,
        "duration": end - start if isinstance(start, int) and isinstance(end, int) else None,
        "status": _status(status) if status else {},
        "resource": resource,
        "scope": scope,
        "links": [
            {
                "trace_id": _get(link, "traceId"),
                "span_id": _get(link, "spanId"),
                "trace_state": _get(link, "traceState"),
                "attributes": _attributes(_get(link, "attributes")) or {},
            }
            for link in _list(span, "links")
        ]
        if links
        else [],
        "events": [
            {
                "name": _get(event, "name") or "",
                "time": _whole(_get(event, "timeUnixNano")),
                "attributes": _attributes(_get(event, "attributes")) or {},
            }
            for event in _list(span, "events")
        ]
        if events
        else [],
    }


def _status(status: Any) -> dict[str, Any]:
    code = _get(status, "code") or 0
    return {"code": _STATUS.get(code, "?") if isinstance(code, (int, str)) else "?", "message": _get(status, "message")}


def _attributes(pairs: Any) -> dict[str, Any] | None:
    """Return attributes as a mapping; None if they are none. A name that is there twice is one that nobody signed."""
    if pairs is None:
        return {}
    try:
        found: dict[str, Any] = {
            pair["key"]: value["stringValue"]
            if "stringValue" in (value := pair["value"]) and len(value) == 1
            else _value(value)
            for pair in pairs
        }
    except (KeyError, TypeError, AttributeError):
        return None
    if len(found) != len(pairs):
        found[f"audit.{_TWICE}"] = True
    return found


def _value(value: Any) -> Any:
    """Return one value of OTLP/JSON as a document has it: whole numbers may be text, bytes become hexadecimal."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((kind, inner),) = value.items()
    try:
        if kind == "intValue":
            return _whole(inner)
        if kind == "doubleValue":
            number = float(inner)
            return number if math.isfinite(number) else None
        if kind == "bytesValue":
            return base64.b64decode(inner, validate=True).hex()
        if kind == "arrayValue":
            return [_value(item) for item in _list(inner, "values")]
        if kind == "kvlistValue":
            return _attributes(_list(inner, "values"))
    except (TypeError, ValueError, RecursionError):
        return None
    return inner if kind in ("stringValue", "boolValue") else None


def _whole(number: Any) -> Any:
    """Read a whole number that JSON may have as text (64 bits do not fit a double)."""
    if number.__class__ is str and len(number) <= 20 and number.removeprefix("-").isdecimal():
        return int(number)
    return number


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else None


def _list(holder: Any, name: str) -> Sequence[Any]:
    found = _get(holder, name)
    return found if isinstance(found, list) else ()
