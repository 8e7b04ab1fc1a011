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
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from auditspan_seal.errors import MalformedStatement

VERSION = 2
READABLE = (1, 2)
"""Version 1 had no commitments, and no attributes in entries that are not spans. It stays readable."""
MAX_SIZE = 16 * 1024 * 1024  # bytes
_SAFE_INT = 2**53
_MAX_DEPTH = 64


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
        MalformedStatement: it is not JSON, not an object, of another version or type, or not canonical (duplicate
            keys, spaces, other spellings of a number).
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
    if encode(fields) != statement:
        raise MalformedStatement("The statement is not in canonical form.")
    return fields


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
        return int(item) if -_SAFE_INT <= item <= _SAFE_INT else {"int": str(int(item))}
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
        MalformedStatement: an object that is none of the tagged kinds.
    """
    if isinstance(item, list):
        return [plain(part) for part in item]
    if not isinstance(item, dict):
        return item
    if len(item) == 1:
        ((kind, inner),) = item.items()
        try:
            if kind == "int" and isinstance(inner, str):
                return int(inner)
            if kind == "double" and inner in ("NaN", "Infinity", "-Infinity"):
                return float(inner)
            if kind == "bytes" and isinstance(inner, str):
                return base64.b64decode(inner, validate=True)
            if kind == "commitment" and isinstance(inner, str):
                return Commitment(inner)
            if kind == "map" and isinstance(inner, dict):
                return {key: plain(part) for key, part in inner.items()}
        except (ValueError, binascii.Error):
            pass
    raise MalformedStatement("A value of the statement is of an unknown kind.")
