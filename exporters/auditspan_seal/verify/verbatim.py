# SPDX-License-Identifier: Apache-2.0
"""Spans whose text is, byte for byte, what their statement is written as.

Nearly all of a request is said twice: in the statement, and in attributes beside it. Where the text of the attributes
is the very one that is written for the statement (:mod:`auditspan_seal.otlp.as_json` does, and the Collector keeps it),
there is nothing left to compare in it, and it need not be read as JSON: it is cut out, a mark is put in its place, and
only the rest is read. Everything else is read and compared field by field, as if there were no such text.

A mark changes nothing about what the rest means. The text that is cut out is one JSON value or several, and begins with
``{"key"`` as the mark does: where one of them is a value, the other is; and within a text, where a quotation mark ends
it, neither is JSON. A mark is a number that whoever wrote the file cannot know, and each has to be found again where
the attributes of a span are, or the request is read as it stands.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from auditspan_seal import spans
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.verify.facts import MAX_INDEX, SPAN
from auditspan_seal.verify.visible import same_surroundings

_AT_ONCE = 32  # statements that are read together: more do not stay in the processor's cache
_KEPT = 4096  # attributes that are kept
_KEPT_AROUND = 256  # resources and scopes that are kept
_LONGEST = 200  # characters of a name or value that is kept, so that nobody fills the memory
_LONGEST_ORIGIN = 500
_LONGEST_AROUND = 20_000  # bytes of resource and scope that are kept
_LATEST = 2**63  # nanoseconds since the epoch
_MARK = 2**60 + secrets.randbits(60)
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_ATTRIBUTES = b'"attributes":['
_END = b'}"}},{'
_STATEMENT = b'{"key":"%b","value":{"stringValue":"' % spans.STATEMENT.encode()
_NOTHING: Mapping[str, Any] = {}
_INDEX = re.compile(rb"0|[1-9][0-9]{0,17}")  # of fewer digits than MAX_INDEX
_NAMES = {str: "stringValue", int: "intValue", bool: "boolValue", float: "doubleValue"}
_ADDED = frozenset(
    {spans.STATEMENT, spans.ORIGIN, spans.INDEX, spans.STREAM, spans.NUMBER, spans.PRIVATE, spans.DOCUMENT}
)
_KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}


class Known(NamedTuple):
    """A statement beside which its attributes stand just as it has them, and its place.

    Attributes:
        row: the entry as a row (see :func:`.sorter.row_of`), up to its time. It claims the log that it names.
        said: what the statement says of what was not cut out: see :func:`_left`.
        around: resource and scope, as the statement has them.
        cut: what was cut out, in two parts.
    """

    row: tuple[Any, ...]
    said: tuple[Any, ...]
    around: bytes
    cut: tuple[bytes, bytes]

    def pairs(self, others: Sequence[Any]) -> list[Any]:
        """Return the attributes of the span as they were before anything was cut out; others are those left."""
        return [*orjson.loads(b"[%b,%b%b]" % (self.cut[0], _STATEMENT, self.cut[1])), *others]


class Marks:
    """What the marks in a request stand for.

    Args:
        known: of each, in order.
    """

    def __init__(self, known: Sequence[Known] = ()) -> None:
        self.known = known
        self._taken = 0

    def take(self, pairs: Any) -> Known | None:
        """Return what the mark that attributes begin with stands for; None: they begin with none."""
        if not self.known or pairs.__class__ is not list or not pairs or (first := pairs[0]).__class__ is not dict:
            return None
        number = first.get("key")
        if number.__class__ is not int or not 0 <= number - _MARK < len(self.known):
            return None
        self._taken += 1
        return self.known[number - _MARK]

    @property
    def all_taken(self) -> bool:
        """Whether each was found again."""
        return self._taken == len(self.known)


NO_MARKS = Marks()


def shorten(request: bytes) -> tuple[bytes, Marks]:
    """Cut out what need not be read.

    Args:
        request: a line of a file.

    Returns:
        the request with marks in it, and what they stand for.
    """
    parts = request.split(_STATEMENT)
    done = [parts[0]]  # the last of it is what stands before the next statement
    known: list[Known] = []
    for begin in range(1, len(parts), _AT_ONCE):
        some, before = parts[begin : begin + _AT_ONCE], len(known)
        for part, read in zip(some, _read(some) or map(_read_one, some), strict=True):
            one = read and _cut(done, part, *read, _MARK + len(known))
            if one:
                known.append(one)
            else:
                done += (_STATEMENT, part)
        if len(known) == before:  # others have written this: it would be sought in vain
            for part in parts[begin + _AT_ONCE :]:
                done += (_STATEMENT, part)
            break
    return (b"".join(done) if known else request), Marks(known)


def _read(parts: Sequence[bytes]) -> list[tuple[bytes, bytes, dict[str, Any]]] | None:
    """Read the statements that parts of a request begin with.

    Returns:
        each as it stands there, its text, and what that says. None: they are to be looked at one by one.
    """
    # A text ends with a quotation mark before which there is no backslash, and a statement with a brace.
    quoted = [part[: part.find(_END) + 1] for part in parts]
    try:
        found = orjson.loads(b'["%b"]' % b'","'.join(quoted))
        texts = [text.encode() for text in found]
        fields = list(map(orjson.loads, texts))
        joined = b",".join(texts)
        same = (
            len(texts) == len(parts)
            and b"" not in quoted
            and len(joined) <= statements.MAX_SIZE
            and orjson.dumps(fields, option=_CANONICAL) == b"[%b]" % joined  # see verify/entries.py
        )
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return list(zip(quoted, texts, fields, strict=True)) if same else None


def _read_one(part: bytes) -> tuple[bytes, bytes, dict[str, Any]] | None:
    found = _read([part])
    return found[0] if found else None


def _cut(done: list[bytes], part: bytes, quoted: bytes, text: bytes, fields: Any, mark: int) -> Known | None:
    """Put a mark in the place of a statement and of what stands before and after it, if that is just what it says."""
    try:
        origin, segment, number, end = fields["origin"], fields["segment"], fields["number"], fields["end"]
        shown = _shown(fields["attributes"])
        after = _of_log(origin)
        index_at = len(quoted) + len(after)
        index_end = part.find(b'"', index_at, index_at + 20)
        index = part[index_at:index_end]
        stream = b'%b%d"}}' % (_of_stream(segment), number)
        if not (
            shown
            and done[-1].endswith(b"%b%b," % (_ATTRIBUTES, shown))
            and part.startswith(after, len(quoted))
            and _INDEX.fullmatch(index)
            and part.startswith(stream, index_end)
            and fields["type"] == SPAN
            and fields["v"].__class__ is number.__class__ is int
            and fields["v"] in statements.READABLE
            and 0 < number < MAX_INDEX
            and not fields["links"]
            and not fields["events"]
        ):
            return None
        said = _left(fields)
        around = orjson.dumps((fields["resource"], fields["scope"]))
        time = int(end)
    except (KeyError, TypeError, ValueError, AttributeError, _Unusual):
        return None
    if time >= _LATEST or len(around) > _LONGEST_AROUND:
        return None
    stop = index_end + len(stream)
    done[-1] = done[-1][: -len(shown) - 1]
    done.append(b'{"key":%d}%b' % (mark, part[stop:]))
    leaf = hashlib.sha256(b"\0" + text).digest()
    row = (origin, int(index), leaf, SPAN, segment, number, time)
    if len(_arounds) >= _KEPT_AROUND:
        _arounds.clear()
    return Known(row, said, _arounds.setdefault(around, around), (shown, part[:stop]))


def _left(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a statement says of what is left of its span, in the order of :func:`row_of`."""
    start, end, status = fields["start"], fields["end"], fields["status"]
    texts = (
        fields["trace_id"], fields["span_id"], fields["parent_span_id"], fields["trace_state"], fields["name"], start,
        end, status["message"],
    )  # fmt: skip
    "".join(texts)  # they are texts: one equals nothing but the same
    if not (start.isdecimal() and end.isdecimal() and len(start) <= 20 and len(end) <= 20):
        raise _Unusual
    return (*texts, _KINDS[fields["kind"]], _CODES[status["code"]])


class _Unusual(Exception):
    """Something that is looked at field by field."""


@lru_cache(256)
def _of_log(origin: str) -> bytes:
    """Return what stands between a statement and its index."""
    if type(origin) is not str or len(origin) > _LONGEST_ORIGIN:
        raise _Unusual
    return b'"}},%b,{"key":"%b","value":{"intValue":"' % (
        _attribute(spans.ORIGIN, origin), spans.INDEX.encode()
    )  # fmt: skip


@lru_cache(256)
def _of_stream(segment: str) -> bytes:
    """Return what stands between the index of a statement and its number."""
    if type(segment) is not str or len(segment) > _LONGEST:
        raise _Unusual
    return b'"}},%b,{"key":"%b","value":{"intValue":"' % (
        _attribute(spans.STREAM, segment), spans.NUMBER.encode()
    )  # fmt: skip


class _Written(dict[tuple[str, Any], bytes]):
    """Attributes as OTLP/JSON has them: those with a text that is not long are kept."""

    def __missing__(self, pair: tuple[str, Any]) -> bytes:
        """Write one.

        Raises:
            _Unusual: it is not a text, a number, a truth value, or a list of them.
        """
        name, value = pair
        kind = value.__class__
        if kind is int and name not in _ADDED:
            return b'%b{"intValue":"%d"}}' % ((_head if len(name) <= _LONGEST else _new_head)(name), value)
        listed = kind is list and all(item.__class__ in _NAMES for item in value)
        if name in _ADDED or not (kind in _NAMES or listed):
            raise _Unusual
        written = _attribute(name, value)
        if kind is str and len(value) <= _LONGEST and len(name) <= _LONGEST:
            if len(self) >= _KEPT:
                self.clear()
            self[pair] = written
        return written


def _new_head(name: str) -> bytes:
    """Return what stands before the value of an attribute."""
    return b'{"key":%b,"value":' % orjson.dumps(name)


_head = lru_cache(1024)(_new_head)


def _attribute(name: str, value: Any) -> bytes:
    return b"%b%b}" % (_new_head(name), orjson.dumps(_value(value)))


def _value(value: Any) -> dict[str, Any]:
    """Return a value as OTLP's AnyValue."""
    kind = value.__class__
    if kind is list:
        return {"arrayValue": {"values": list(map(_value, value))}}
    return {_NAMES[kind]: str(value) if kind is int else value}


_kept = _Written()
_written = _kept.__getitem__


def _shown(said: Mapping[str, Any]) -> bytes:
    """Write attributes as OTLP/JSON has them.

    Raises:
        _Unusual: see :class:`_Written`.
    """
    try:
        return b",".join(map(_written, said.items()))
    except TypeError:  # lists cannot be looked up
        return b",".join(
            [(_kept.__missing__ if pair[1].__class__ is list else _written)(pair) for pair in said.items()]
        )


_arounds: dict[bytes, bytes] = {}  # the same are kept once


def row_of(
    known: Known, span: Mapping[str, Any], resource: Mapping[str, Any], scope: Mapping[str, Any], agreed: set[bytes],
    place: str, container: str,
) -> tuple[Any, ...] | None:  # fmt: skip
    """Judge what is left of a span, if that is as plain as nearly all are.

    Args:
        known: what was cut out of it.
        span: the span in OTLP/JSON, with a mark.
        resource: its resource in the form of a document.
        scope: its scope in the form of a document.
        agreed: what statements say of resource and scope that these agree with; more is added.
        place: where it was found.
        container: the file.

    Returns:
        the entry as a row (see :func:`.sorter.row_of`), with nothing wrong in it. None: it is to be looked at field by
        field.
    """
    get = span.get
    kind, status = get("kind"), get("status") or _NOTHING
    if kind.__class__ is not int or status.__class__ is not dict:
        return None
    code = status.get("code", 0)
    own = get("spanId")
    seen = (
        get("traceId"), own, get("parentSpanId") or "", get("traceState") or "", get("name"), get("startTimeUnixNano"),
        get("endTimeUnixNano"), status.get("message") or "", kind, code,
    )  # fmt: skip
    if (
        seen == known.said
        and code.__class__ is int
        and len(span["attributes"]) == 1
        and not get("links")
        and not get("events")
        and (known.around in agreed or _surrounded(known.around, resource, scope, agreed))
    ):
        return (*known.row, own, place, container, True, None)
    return None


def _surrounded(around: bytes, resource: Mapping[str, Any], scope: Mapping[str, Any], agreed: set[bytes]) -> bool:
    """Tell whether resource and scope say what a statement says of them."""
    try:
        meant, said = orjson.loads(around)
        same = same_surroundings(meant, said, resource, scope)
    except (KeyError, TypeError, AttributeError, FormatError):
        return False
    if same:
        agreed.add(around)
    return same
