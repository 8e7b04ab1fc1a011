# SPDX-License-Identifier: Apache-2.0
"""The statement: the one byte string that is hashed, made once and never re-canonicalised.

A statement is a JSON object with sorted keys, without spaces, in UTF-8. JSON says too little about types, so values
that it cannot carry exactly are objects with exactly one key that names the type::

    {"int": "9007199254740993"}      an integer beyond ±2^53
    {"double": "NaN"}                NaN, Infinity, -Infinity
    {"bytes": "AAE="}                bytes, base64
    {"map": {...}}                   a mapping
    {"commitment": "…"}              a personal value, only committed to (see :mod:`.commitment`); since version 2

Integers are written without, floats with a decimal point or exponent: 1 and 1.0 are different statements.
docs/formats.md says all of it, for readers in other languages, and what the limits below are for.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from auditspan_seal.errors import MalformedStatement

VERSION = 2
READABLE = (1, 2)
"""Version 1 had no commitments, and no attributes in entries that are not spans. It stays readable."""
MAX_SIZE = 16 * 1024 * 1024  # bytes
MAX_DEPTH = 254
"""Objects and lists within each other, the statement itself included: where orjson stops writing, so that nothing
deeper is canonical. :func:`value` stops before that."""
MAX_DIGITS = 640
"""Digits of an integer: what every Python converts, whatever its limit is set to (sys.int_info)."""
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_DIGEST_SIZE = 32  # bytes
_SAFE_INT = 2**53
_TOO_BIG = 10**MAX_DIGITS
_MAX_DEPTH = 64
_INTEGER = re.compile(rf"-?[1-9][0-9]{{15,{MAX_DIGITS - 1}}}")  # ASCII digits; 2^53 has 16 of them


@dataclass(frozen=True)
class Commitment:
    """Stands for a personal value whose statement does not have it.

    Attributes:
        digest: 32 bytes, base64.
    """

    digest: str

    def __str__(self) -> str:
        """Say so."""
        return "(personal value, not here)"


def encode(fields: Mapping[str, Any]) -> bytes:
    """Make the bytes of a statement.

    Args:
        fields: JSON-like fields whose open-ended values went through :func:`value` before.

    Raises:
        MalformedStatement: a field is of a kind that a statement cannot hold.
    """
    try:
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, TypeError) as error:
        raise MalformedStatement(f"A record cannot be written as a statement: {error}") from None


def decode(statement: bytes) -> dict[str, Any]:
    """Read a statement and check that it is in its one canonical form.

    Raises:
        MalformedStatement: it is not JSON, not an object, of another version or type, nested too deeply, has an
            integer beyond ±2^53, or is not canonical (duplicate keys, spaces, other spellings of a number).
    """
    if len(statement) > MAX_SIZE:
        raise MalformedStatement(f"The statement is longer than {MAX_SIZE} bytes.")
    try:
        fields = orjson.loads(statement)
    except (orjson.JSONDecodeError, RecursionError):
        raise MalformedStatement("The statement is not JSON.") from None
    if not isinstance(fields, dict):
        raise MalformedStatement("The statement is not a JSON object.")
    if type(fields.get("v")) is not int or fields["v"] not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise MalformedStatement(f"The statement is of version {str(fields.get('v'))[:20]!r}, known are {known}.")
    if not isinstance(fields.get("type"), str):
        raise MalformedStatement("The statement has no type.")
    again = _encode_again(fields)
    if again != statement and not _has_other_exponents(fields, again, statement):
        raise MalformedStatement("The statement is not in canonical form.")
    return fields


def decode_all(texts: Sequence[bytes]) -> list[dict[str, Any]]:
    """Read statements as :func:`decode` does; that they are canonical is checked at once for all, which costs less.

    Each is read by itself, so each text is one JSON object; the texts and what is written anew, both joined by commas,
    can only be equal if each is.

    Raises:
        MalformedStatement: one of them is malformed, or has to be looked at by itself.
    """
    try:
        found = [orjson.loads(text) for text in texts]
        same = orjson.dumps(found, option=_CANONICAL) == b"[%b]" % b",".join(texts)
    except (orjson.JSONDecodeError, RecursionError, TypeError):
        same = False
    if not same or any(len(text) > MAX_SIZE for text in texts):
        raise MalformedStatement("One of some statements is malformed, or unusual.")
    for fields in found:
        if type(fields) is not dict or not (
            type(version := fields.get("v")) is int and version in READABLE and type(fields.get("type")) is str
        ):
            raise MalformedStatement("One of some statements is of another version, or has no type.")
    return found


def _encode_again(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, option=_CANONICAL)
    except TypeError:
        # Strict is ±(2^53 - 1); ours is ±2^53.
        if _has_big_integer(fields):
            raise MalformedStatement("The statement has an integer beyond ±2^53 that is not written as one.") from None
        return encode(fields)


def _has_other_exponents(fields: dict[str, Any], again: bytes, statement: bytes) -> bool:
    """Tell whether a statement is canonical but for the sign of exponents: orjson before 3.13 wrote 1e16, not 1e+16."""
    if b"e+" not in (again if len(again) > len(statement) else statement):
        return False
    return orjson.dumps(_with_other_exponents(fields), option=orjson.OPT_SORT_KEYS) == statement


def _with_other_exponents(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _with_other_exponents(part) for key, part in item.items()}
    if isinstance(item, list):
        return [_with_other_exponents(part) for part in item]
    if isinstance(item, float) and not -1e16 < item < 1e16:
        spelt = orjson.dumps(item)
        return orjson.Fragment(spelt.replace(b"e+", b"e") if b"e+" in spelt else spelt.replace(b"e", b"e+"))
    return item


def _has_big_integer(item: Any) -> bool:
    if isinstance(item, (dict, list)):
        return any(map(_has_big_integer, item.values() if isinstance(item, dict) else item))
    return type(item) is int and not -_SAFE_INT <= item <= _SAFE_INT


def text(string: str) -> str:
    """Return `string` as it can be written in UTF-8: a lone surrogate becomes U+FFFD."""
    try:
        string.encode()
    except UnicodeEncodeError:
        return string.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return string


def value(item: Any, depth: int = 0) -> Any:
    """Return an attribute value in the form that a statement holds; kinds that OpenTelemetry does not know as text."""
    if item is None or item is True or item is False:
        return item
    if isinstance(item, str):
        return text(item)
    if isinstance(item, int):
        if -_SAFE_INT <= item <= _SAFE_INT:
            return int(item)
        return {"int": str(int(item))} if -_TOO_BIG < item < _TOO_BIG else f"<integer of {item.bit_length()} bits>"
    if isinstance(item, float):
        if math.isfinite(item):
            return float(item)
        return {"double": "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"}
    if depth >= _MAX_DEPTH:
        return f"<{type(item).__name__} nested deeper than {_MAX_DEPTH}>"  # its text would recurse just as deep
    if isinstance(item, (bytes, bytearray)):
        return {"bytes": base64.b64encode(bytes(item)).decode()}
    if isinstance(item, Mapping):
        return {"map": values(item, depth + 1)}
    if isinstance(item, (list, tuple)):
        return [value(part, depth + 1) for part in item]
    return text(str(item))


def values(items: Mapping[str, Any] | None, depth: int = 0) -> dict[str, Any]:
    """Return a mapping of attributes in the form that a statement holds."""
    return {text(str(key)): value(item, depth) for key, item in (items or {}).items()}


def plain(item: Any) -> Any:
    """Undo :func:`value`.

    Raises:
        MalformedStatement: an object that is none of the tagged kinds, or not in the one spelling of its kind.
    """
    if isinstance(item, list):
        return [plain(part) for part in item]
    if not isinstance(item, dict):
        return item
    if len(item) == 1:
        ((kind, inner),) = item.items()
        try:
            if kind == "int" and isinstance(inner, str):
                return _integer(inner)
            if kind == "double" and inner in ("NaN", "Infinity", "-Infinity"):
                return float(inner)
            if kind == "bytes" and isinstance(inner, str):
                return _bytes(inner)
            if kind == "commitment" and isinstance(inner, str) and len(_bytes(inner)) == _DIGEST_SIZE:
                return Commitment(inner)
            if kind == "map" and isinstance(inner, dict):
                return {key: plain(part) for key, part in inner.items()}
        except (ValueError, binascii.Error):
            pass
    raise MalformedStatement("A value of the statement is of an unknown kind.")


def _integer(digits: str) -> int:
    """Read an integer beyond ±2^53 from its one spelling; int() alone takes signs, spaces and other scripts' digits."""
    if not _INTEGER.fullmatch(digits) or -_SAFE_INT <= int(digits) <= _SAFE_INT:
        raise ValueError
    return int(digits)


def _bytes(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError
    return data
