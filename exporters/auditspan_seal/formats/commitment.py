# SPDX-License-Identifier: Apache-2.0
"""Commitments: how a personal value is signed for without being in what is signed.

::

    commitment = SHA-256("auditspan/commitment/v1" LF ‖ salt ‖ name ‖ 0x00 ‖ value)

The salt is 16 random bytes of the operating system, one for each value and never used again; the value is canonical
JSON. While value and salt stand beside the statement, anybody can check them. Once the salt is gone, the commitment
says nothing: whoever tries all values out must also try all 2^128 salts, however few values there are. It stays
binding: another value with the same commitment would be a collision of SHA-256. The name is part of it so that a
value cannot be moved to another attribute.

The identifiers of a span are no salt: they stay in the document, and the SDK makes them with a generator that is not
meant to be unpredictable.
"""

from __future__ import annotations

import binascii
import hashlib
from typing import Any

import orjson

from auditspan_seal.errors import MalformedLog, MalformedStatement
from auditspan_seal.formats import statement as statements

SALT_SIZE = 16  # bytes
_DOMAIN = b"auditspan/commitment/v1\n"

Private = dict[str, tuple[str, Any]]
"""Attribute → its salt (base64) and its value, in the form that a statement has for values."""


def commit(name: str, value: Any, salt: bytes) -> str:
    """Return the commitment to a value.

    Args:
        name: the attribute.
        value: its value, in the form that a statement has for values.
        salt: :data:`SALT_SIZE` random bytes, used for nothing else.

    Returns:
        32 bytes, base64.
    """
    content = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    digest = hashlib.sha256(_DOMAIN + salt + name.encode() + b"\0" + content).digest()
    return binascii.b2a_base64(digest, newline=False).decode()


def opens(commitment: str | None, name: str, value: Any, salt: str) -> bool:
    """Tell whether a value and a salt (base64) are those that were committed to."""
    try:
        raw = binascii.a2b_base64(salt)  # takes what is no base64, too; it is written anew and compared
        if len(raw) != SALT_SIZE or binascii.b2a_base64(raw, newline=False).decode() != salt:
            return False
        return commit(name, value, raw) == commitment
    except (binascii.Error, ValueError, TypeError, orjson.JSONEncodeError):
        return False


def encode(private: Private) -> bytes:
    """Return the private part of a line: JSON without line breaks and tabs; empty if there is nothing."""
    return orjson.dumps(private) if private else b""  # it writes tuples as lists


def decode(content: bytes) -> Private:
    """Read the private part of a line. Spaces stand where something was erased.

    Raises:
        MalformedLog: it is not one.
    """
    if len(content) > statements.MAX_SIZE:
        raise MalformedLog(f"The private part of an entry is longer than {statements.MAX_SIZE} bytes.")
    content = content.strip(b" ")
    if not content:
        return {}
    try:
        fields = orjson.loads(content)
        statements.encode(fields)
    except orjson.JSONDecodeError:
        raise MalformedLog("The private part of an entry is not JSON.") from None
    except MalformedStatement:
        depth = statements.MAX_DEPTH
        raise MalformedLog(f"The private part of an entry is nested deeper than {depth} levels.") from None
    found: Private = {}
    for name, opening in fields.items() if isinstance(fields, dict) else [("", None)]:
        if not (isinstance(opening, list) and len(opening) == 2 and isinstance(opening[0], str)):
            raise MalformedLog("The private part of an entry is not a mapping of salts and values.")
        found[name] = (opening[0], opening[1])
    return found


def without(content: bytes, names: set[str]) -> bytes:
    """Return a private part without some values, of the same length in bytes.

    The length stays, so that what was erased can be overwritten in place and every offset in the log remains right.

    Raises:
        MalformedLog: it is not one.
    """
    left = encode({name: opening for name, opening in decode(content).items() if name not in names})
    if len(left) > len(content):  # only if we did not write it: 1e9 becomes 1000000000.0
        raise MalformedLog(
            "The private part of an entry is not as the log writes it, and cannot be shortened in place."
        )
    return left.ljust(len(content), b" ")
