# SPDX-License-Identifier: Apache-2.0
"""OTLP/JSON requests, made from the statements themselves.

The same spans as :mod:`auditspan_seal.spans` makes (a test holds the two against each other), without objects of the
SDK and of protobuf in between: that costs a seventh. Each span is written by itself, so that the interpreter's lock is
never kept for long; what is the same in many spans (resource, scope, most attributes) is written once and kept.

OTLP/JSON is protobuf's JSON mapping with three exceptions: trace and span IDs in hexadecimal, enumerations as numbers,
names in lowerCamelCase (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
"""

from __future__ import annotations

import base64
import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from opentelemetry.trace import TraceState

from auditspan_seal import spans
from auditspan_seal.errors import FormatError, MalformedStatement
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.native import NATIVE
from auditspan_seal.otlp.parcel import Checkpoint, Entry, Item, Request

CONTENT_TYPE = "application/json"

_KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}
_LOCAL_PARENT, _REMOTE_PARENT = 0x100, 0x300  # SpanFlags: "has is_remote", and "is remote"
# Trace, span and parent span ID, start, end: one look at five fields.
_EXACT = re.compile(r"[0-9a-f]{32}\n[0-9a-f]{16}\n(?:[0-9a-f]{16})?\n(?:0|[1-9][0-9]{0,19})\n(?:0|[1-9][0-9]{0,19})")
_NO_ID = "0" * 16
_INT64 = 2**63
_UINT64 = 2**64
_KEPT = 4096  # attributes that are kept
_KEPT_LENGTH = 200  # characters of a value that is kept
_KEPT_VALUES = 64  # different values of one name that are kept; of a name with more, none is found again anyway

_comma = ",".join

_NOTHING: Private = {}


def encode(origin: str, items: Sequence[Item]) -> Request:
    """Make a request.

    Args:
        origin: name of the log.
        items: what to send.
    """
    groups: dict[str, dict[str, list[bytes]]] = {}  # resource → scope → spans
    left_out = []
    count = at = 0
    most = len(items)
    while at < len(items):
        if NATIVE is not None and isinstance(items, list):
            said, scope_said, found, end = NATIVE.spans(items, at, most, _origin(origin))
            if end > at and (group := _group(groups, said, scope_said)) is not None:
                group.append(found)
                count, at, most = count + end - at, end, min(2 * most, len(items))
                continue
            most = 1  # what is not usual is seldom alone
        item = items[at]
        at += 1
        if isinstance(item, Entry):
            try:
                resource, scope, span = _entry(item, origin)
            except FormatError as error:
                left_out.append((item.place, error.what))
                continue
        else:
            resource, scope, span = _checkpoint(item, origin)
        groups.setdefault(resource, {}).setdefault(scope, []).append(span.encode())
        count += 1
    # Joined at once: a request is megabytes, and each copy of it costs as much as making half of it.
    parts = [b'{"resourceSpans":[']
    for resource, scopes in groups.items():
        parts += (b"" if len(parts) == 1 else b",", resource.encode())
        for number, (scope, spans_of) in enumerate(scopes.items()):
            parts += (b"," if number else b"", scope.encode())
            for place, span_of in enumerate(spans_of):
                parts += (b"," if place else b"", span_of)
            parts.append(b"]}")
        parts.append(b"]}")
    parts.append(b"]}")
    return Request(b"".join(parts), count, left_out)


def _group(groups: dict[str, dict[str, list[bytes]]], resource: bytes, scope: bytes) -> list[bytes] | None:
    """Return the spans of a resource and a scope that C has left as they stand; None: they cannot be written."""
    with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, FormatError):
        written, within = _resource(resource), _scope(scope)
        return groups.setdefault(written, {}).setdefault(within, [])
    return None


@lru_cache(16)
def _origin(origin: str) -> bytes:
    return _attribute(spans.ORIGIN, origin).encode()


def _entry(entry: Entry, origin: str) -> tuple[str, str, str]:
    """Return resource, scope and span. See :func:`auditspan_seal.spans.document_of`."""
    index, statement, private = entry
    fields = _fields(statement)
    try:
        if fields["type"] == "span":
            return (
                _resource(orjson.dumps(fields["resource"])),
                _scope(orjson.dumps(fields["scope"])),
                _span(fields, statement, private, origin, index),
            )
        said = fields.get("attributes")
        attributes = _attributes(said if isinstance(said, dict) else {})
        attributes += (*_of_log(statement, origin, index), _kept_attribute(spans.DOCUMENT, "entry"))
        return _log_span(f"log {fields['type']}", leaf_hash(statement), fields.get("time", "0"), attributes)
    except (KeyError, TypeError, ValueError, AttributeError):
        kind = fields["type"][:40]
        raise MalformedStatement(f"The statement at index {index} lacks what a {kind!r} must have.") from None


def _fields(statement: bytes) -> dict[str, Any]:
    """Read a statement. Whether it is canonical is for the verifier to say: it must be delivered to be found out."""
    if len(statement) > statements.MAX_SIZE:
        raise MalformedStatement(f"The statement is longer than {statements.MAX_SIZE} bytes.")
    try:
        fields = orjson.loads(statement)
    except (orjson.JSONDecodeError, RecursionError):
        raise MalformedStatement("The statement is not JSON.") from None
    if not (isinstance(fields, dict) and isinstance(fields.get("type"), str)):
        raise MalformedStatement("The statement is not an object with a type.")
    if type(fields.get("v")) is not int or fields["v"] not in statements.READABLE:
        raise MalformedStatement(f"The statement is of version {str(fields.get('v'))[:20]!r}, which is not known.")
    return fields


def _span(fields: Mapping[str, Any], statement: bytes, private: bytes, origin: str, index: int) -> str:
    trace, own, parent = fields["trace_id"], fields["span_id"], fields["parent_span_id"]
    start, end, flags, status = fields["start"], fields["end"], fields["trace_flags"], fields["status"]
    _check(trace, own, parent, start, end)
    if type(flags) is not int or not 0 <= flags <= 0xFF:
        raise ValueError
    openings = spans.openings_of(private) if private else {}
    attributes = _attributes(fields["attributes"], openings)
    attributes += (*_of_log(statement, origin, index), _any(spans.STREAM, fields["segment"]))
    attributes.append(_any(spans.NUMBER, fields["number"]))
    if openings:
        salts = orjson.dumps({name: salt for name, (salt, _) in openings.items()}).decode()
        attributes.append(_attribute(spans.PRIVATE, salts))
    more = f',"parentSpanId":"{parent}"' if parent else ""
    if _text(fields["trace_state"]):
        more += f',"traceState":{_quoted(_trace_state(fields["trace_state"]))}'
    if fields["events"]:
        more += f',"events":[{_comma(map(_event, fields["events"]))}]'
    if fields["links"]:
        more += f',"links":[{_comma(map(_link, fields["links"]))}]'
    code = _CODES[status["code"]]
    if code == _CODES["ERROR"] and _text(status["message"]):
        more += f',"status":{{"code":{code},"message":{_quoted(status["message"])}}}'
    else:
        more += f',"status":{{"code":{code}}}'
    return (
        f'{{"traceId":"{trace}","spanId":"{own}","flags":'
        f"{_REMOTE_PARENT if parent and fields['parent_is_remote'] else _LOCAL_PARENT}"
        f',"name":{_quoted(_text(fields["name"]))},"kind":{_KINDS[fields["kind"]]},"startTimeUnixNano":"{start}"'
        f',"endTimeUnixNano":"{end}","attributes":[{_comma(attributes)}]{more}}}'
    )


def _of_log(statement: bytes, origin: str, index: int) -> tuple[str, str, str]:
    """Return the attributes that tie a document to its place in the log."""
    return (
        f'{{"key":"{spans.STATEMENT}","value":{{"stringValue":{_quoted(statement.decode())}}}}}',
        _kept.get((spans.ORIGIN, origin)) or _kept_attribute(spans.ORIGIN, origin),
        f'{{"key":"{spans.INDEX}","value":{{"intValue":"{index}"}}}}',
    )


def _event(event: Mapping[str, Any]) -> str:
    _check(time=event["time"])
    attributes = _attributes(event["attributes"], added=False)
    return (
        f'{{"timeUnixNano":"{event["time"]}","name":{_quoted(_text(event["name"]))}'
        f',"attributes":[{_comma(attributes)}]}}'
    )


def _link(link: Mapping[str, Any]) -> str:
    _check(link["trace_id"], link["span_id"])
    attributes = _attributes(link["attributes"], added=False)
    # Its trace state is left out, as the SDK's exporter does.
    return (
        f'{{"traceId":"{link["trace_id"]}","spanId":"{link["span_id"]}","flags":{_REMOTE_PARENT}'
        f',"attributes":[{_comma(attributes)}]}}'
    )


def _checkpoint(item: Checkpoint, origin: str) -> tuple[str, str, str]:
    batch = item.batch
    attributes = [
        _attribute(spans.DOCUMENT, "checkpoint"),
        _attribute(spans.ORIGIN, origin),
        _attribute(spans.NOTE, batch.note),
        _attribute(spans.FIRST, batch.first),
        _attribute(spans.SIZE, batch.size),
        _attribute(spans.FRONTIER, batches.join(batch.frontier)),
        _attribute(spans.LEAVES, batches.join(batch.leaves)),
    ]
    return _log_span("log checkpoint", leaf_hash(batch.note.encode()), str(item.time), attributes)


def _log_span(name: str, digest: bytes, time: str, attributes: list[str]) -> tuple[str, str, str]:
    """Make a document of the log itself. See :func:`auditspan_seal.spans._log_document`."""
    _check(time=time)
    return (
        _resource(_LOG_RESOURCE),
        _scope(_LOG_SCOPE),
        f'{{"traceId":"{digest[:16].hex()}","spanId":"{digest[16:24].hex()}","flags":{_LOCAL_PARENT}'
        f',"name":{_quoted(name)},"kind":{_KINDS["INTERNAL"]},"startTimeUnixNano":"{time}"'
        f',"endTimeUnixNano":"{time}","attributes":[{_comma(attributes)}],"status":{{}}}}',
    )


_LOG_RESOURCE = orjson.dumps({"attributes": spans.LOG_RESOURCE, "schema_url": ""})
_LOG_SCOPE = orjson.dumps({"name": spans.LOG_SCOPE, "version": "", "schema_url": "", "attributes": {}})


@lru_cache(256)
def _resource(said: bytes) -> str:
    """Return everything of a resource up to its scopes."""
    resource = orjson.loads(said)
    return (
        f'{{"resource":{{"attributes":[{_comma(_attributes(resource["attributes"], added=False))}]}}'
        f',"schemaUrl":{_quoted(_text(resource["schema_url"]))},"scopeSpans":['
    )


@lru_cache(1024)
def _scope(said: bytes) -> str:
    """Return everything of a scope up to its spans."""
    scope = orjson.loads(said)
    return (
        f'{{"scope":{{"name":{_quoted(_text(scope["name"]))},"version":{_quoted(_text(scope["version"]))}'
        f',"attributes":[{_comma(_attributes(scope["attributes"], added=False))}]}}'
        f',"schemaUrl":{_quoted(_text(scope["schema_url"]))},"spans":['
    )


@lru_cache(1024)
def _trace_state(header: str) -> str:
    return TraceState.from_header([header]).to_header()


def _check(trace: Any = "0" * 32, own: Any = _NO_ID, parent: Any = "", time: Any = "0", end: Any = "0") -> None:
    """Look at what is put into a span as it is.

    Raises:
        TypeError: not text.
        ValueError: not IDs or nanoseconds.
    """
    if not _EXACT.fullmatch("\n".join((trace, own, parent, time, end))):
        raise ValueError
    if (len(time) == 20 or len(end) == 20) and max(int(time), int(end)) >= _UINT64:
        raise ValueError


# -- attributes ----------------------------------------------------------------------------------------------------

_kept: dict[tuple[str, Any], str] = {}  # only texts are in it
_values: dict[str, int] = {}  # how many values of a name were kept


def _attributes(said: Mapping[str, Any], openings: Private = _NOTHING, added: bool = True) -> list[str]:
    """Return attributes of a statement, each as OTLP has it.

    Args:
        said: the attributes.
        openings: the personal values; those that are not in it are left out.
        added: the span gets attributes of ours, which these must not be beside.
    """
    if added and not spans.ADDED.isdisjoint(said):
        said = {name: item for name, item in said.items() if name not in spans.ADDED}
    found = []
    kept = _kept.get
    for pair in said.items():
        name, item = pair
        if type(item) is str:
            found.append(kept(pair) or _kept_attribute(name, item))
        else:
            with contextlib.suppress(_LeftOut):
                found.append(_new(pair, openings))
    return found


def _new(pair: tuple[str, Any], openings: Private) -> str:
    name, item = pair
    value = statements.plain(item)
    if isinstance(value, statements.Commitment):
        if name not in openings:
            raise _LeftOut
        value = statements.plain(openings[name][1])
    return _attribute(name, value)


class _LeftOut(Exception):
    """A value that is not shown: a personal one that is gone, or one that nobody makes."""


def _kept_attribute(name: str, text: str) -> str:
    """Make an attribute, and keep it for other spans if they are likely to have it, too."""
    found = _attribute(name, text)
    if len(text) <= _KEPT_LENGTH and (count := _values.get(name, 0)) < _KEPT_VALUES:
        if len(_kept) >= _KEPT:
            _kept.clear()
            _values.clear()
        _values[name] = count + 1
        _kept[name, text] = found
    return found


def _any(name: str, item: Any) -> str:
    """Make an attribute of what stands beside the attributes in a statement."""
    return _kept.get((name, item)) or _kept_attribute(name, item) if type(item) is str else _attribute(name, item)


def _attribute(name: str, value: Any) -> str:
    kind = type(value)
    if kind is str:
        return f'{_head(name)}{{"stringValue":{_quoted(value)}}}}}'
    return f"{_head(name)}{orjson.dumps(_value(value)).decode()}}}"


@lru_cache(1024)
def _head(name: str) -> str:
    """Return what stands before the value of an attribute."""
    return f'{{"key":{_quoted(name)},"value":'


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def _value(value: Any) -> dict[str, Any] | orjson.Fragment:
    """Return a value as OTLP's AnyValue."""
    if value is None:
        return {}
    kind = type(value)
    if kind is str:
        return {"stringValue": value}
    if kind is bool:
        return {"boolValue": value}
    if kind is int:
        # Beyond 64 bits there is no integer in OTLP.
        return {"intValue" if -_INT64 <= value < _INT64 else "stringValue": str(value)}
    if kind is float:
        if math.isfinite(value):
            return {"doubleValue": value}
        return {"doubleValue": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    if kind is bytes:
        return {"bytesValue": base64.b64encode(value).decode()}
    if kind is list:
        return _written({"arrayValue": {"values": [_value(part) for part in value]}})
    if kind is dict:
        pairs = [{"key": name, "value": _value(part)} for name, part in value.items()]
        return _written({"kvlistValue": {"values": pairs}})
    raise _LeftOut  # a commitment within a list: nobody makes one


def _written(value: Any) -> orjson.Fragment:
    """Write what has parts at once: orjson goes 254 levels deep, and OTLP makes several of each."""
    return orjson.Fragment(orjson.dumps(value))


def _text(item: Any) -> str:
    if type(item) is not str:
        raise TypeError
    return item
