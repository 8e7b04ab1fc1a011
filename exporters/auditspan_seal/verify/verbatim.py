# SPDX-License-Identifier: Apache-2.0
"""Spans whose text is, byte for byte, what their statement is written as.

Nearly all of a request is said twice: in the statement, and in attributes beside it. Where the text of the attributes
is the very one that is written for the statement (:mod:`auditspan_seal.otlp.as_json` does, and the Collector keeps it),
there is nothing left to compare in it, and it need not be read as JSON: it is cut out, a mark is put in its place, and
only the rest is read. A personal value stands there itself, where the statement only commits to it: it is read, and
opened with the salt behind it. Everything else is read and compared field by field, as if there were no such text.

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
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.verify.facts import MAX_INDEX, SPAN
from auditspan_seal.verify.visible import same_surroundings
from auditspan_seal.verify.written import LONGEST, Unusual, attribute, new_head, written_of

_AT_ONCE = 32  # statements that are read together: more do not stay in the processor's cache
_KEPT_AROUND = 256  # resources and scopes that are kept
_LONGEST_ORIGIN = 500
_LONGEST_AROUND = 20_000  # bytes of resource and scope that are kept
_LATEST = 2**63  # nanoseconds since the epoch
_MARK = 2**60 + secrets.randbits(60)
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_ATTRIBUTES = b'"attributes":['
_END = b'}"}},{'
_STATEMENT = b'{"key":"%b","value":{"stringValue":"' % spans.STATEMENT.encode()
_SALTS = b',{"key":"%b","value":{"stringValue":"' % spans.PRIVATE.encode()
_NOTHING: Mapping[str, Any] = {}
_INDEX = re.compile(rb"0|[1-9][0-9]{0,17}")  # of fewer digits than MAX_INDEX
_KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}


class Known(NamedTuple):
    """A statement beside which its attributes stand just as it has them, and its place.

    Attributes:
        row: the entry as a row (see :func:`.sorter.row_of`), up to its time. It claims the log that it names.
        said: what the statement says of what was not cut out: see :func:`_left`.
        around: resource and scope, as the statement has them.
        cut: what was cut out, in two parts.
        present: names of the personal values in it, which all open.
    """

    row: tuple[Any, ...]
    said: tuple[Any, ...]
    around: bytes
    cut: tuple[bytes, bytes]
    present: tuple[str, ...]

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
        attributes, before = fields["attributes"], done[-1]
        values: dict[str, str] = {}
        if dict in map(type, attributes.values()):
            shown = before[_personal(attributes, before, values) :]
        else:
            shown = b"%b," % written_of(attributes) if attributes else b""
        after = _then(spans.ORIGIN, origin, spans.INDEX, _LONGEST_ORIGIN)
        index_at = len(quoted) + len(after)
        index_end = part.find(b'"', index_at, index_at + 20)
        index = part[index_at:index_end]
        stream = b'%b%d"}}' % (_then(spans.STREAM, segment, spans.NUMBER, LONGEST), number)
        if not (
            shown
            and before.endswith(_ATTRIBUTES + shown)
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
        stop = index_end + len(stream)
        if values:
            stop = _opened(attributes, values, part, stop)
        around = orjson.dumps((fields["resource"], fields["scope"]))
        time = int(end)
    except (KeyError, TypeError, ValueError, AttributeError, Unusual):
        return None
    if time >= _LATEST or len(around) > _LONGEST_AROUND:
        return None
    done[-1] = before[: -len(shown)]
    done.append(b'{"key":%d}%b' % (mark, part[stop:]))
    leaf = hashlib.sha256(b"\0" + text).digest()
    row = (origin, int(index), leaf, SPAN, segment, number, time)
    if len(_arounds) >= _KEPT_AROUND:
        _arounds.clear()
    return Known(row, said, _arounds.setdefault(around, around), (shown[:-1], part[:stop]), tuple(values)[::-1])


def _personal(said: Mapping[str, Any], text: bytes, values: dict[str, str]) -> int:
    """Go back over the attributes of a statement at the end of a text, where a comma follows them.

    Args:
        said: the attributes.
        text: ends with them.
        values: takes the texts that stand in the place of commitments.

    Returns:
        where they begin.

    Raises:
        Unusual: they do not stand there as they are written.
    """
    pairs = list(said.items())
    at, end = len(pairs), len(text)
    while at:
        name, form = pairs[at - 1]
        if form.__class__ is dict:
            head = b'%b{"stringValue":' % new_head(name)
            begin = text.rfind(head, 0, end)
            value = text[begin + len(head) : end - 3]
            if begin < 0 or name in spans.ADDED or text[end - 3 : end] != b"}},":
                raise Unusual
            values[name] = found = orjson.loads(value)
            if found.__class__ is not str or orjson.dumps(found) != value:
                raise Unusual
            at, end = at - 1, begin
        else:
            first = at - 1
            while first and pairs[first - 1][1].__class__ is not dict:
                first -= 1
            written = b"%b," % written_of(dict(pairs[first:at]))
            if not text.endswith(written, 0, end):
                raise Unusual
            at, end = first, end - len(written)
    return end


def _opened(said: Mapping[str, Any], values: Mapping[str, str], part: bytes, at: int) -> int:
    """Open the personal values with the salts that stand at a place.

    Returns:
        where the salts end.

    Raises:
        Unusual: there are no salts as they are written, or not just those of these values, or one does not open.
    """
    if not part.startswith(_SALTS, at):
        raise Unusual
    begin = at + len(_SALTS) - 1
    end = part.find(b'"}}', begin + 1) + 1
    text = orjson.loads(part[begin:end])
    salts = orjson.loads(text)
    if orjson.dumps(text) != part[begin:end] or orjson.dumps(salts) != text.encode() or salts.keys() != values.keys():
        raise Unusual
    for name, value in values.items():
        form = said[name]
        if len(form) != 1 or not commitment.opens(form["commitment"], name, value, salts[name]):
            raise Unusual
    return end + 2


def _left(fields: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a statement says of what is left of its span, in the order of :func:`row_of`."""
    start, end, status = fields["start"], fields["end"], fields["status"]
    texts = (
        fields["trace_id"], fields["span_id"], fields["parent_span_id"], fields["trace_state"], fields["name"], start,
        end, status["message"],
    )  # fmt: skip
    "".join(texts)  # they are texts: one equals nothing but the same
    if not (start.isdecimal() and end.isdecimal() and len(start) <= 20 and len(end) <= 20):
        raise Unusual
    return (*texts, _KINDS[fields["kind"]], _CODES[status["code"]])


@lru_cache(512)
def _then(name: str, text: str, number: str, longest: int) -> bytes:
    """Return what stands behind a text: an attribute that is a text, too, and all of a number but its value.

    Args:
        name: of the attribute.
        text: its value.
        number: name of the attribute that is a number.
        longest: characters that the text may have.
    """
    if type(text) is not str or len(text) > longest:
        raise Unusual
    return b'"}},%b,{"key":"%b","value":{"intValue":"' % (attribute(name, text), number.encode())


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
        the entry as a row (see :func:`.sorter.row_of`), with nothing wrong in it; its last column has the names of
        personal values that are there, or None. None: it is to be looked at field by field.
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
        return (*known.row, own, place, container, True, known.present or None)
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
