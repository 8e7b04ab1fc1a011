# SPDX-License-Identifier: Apache-2.0
"""Attributes of a statement as they are written in an OTLP/JSON request: what :mod:`.verbatim` looks for.

Written by itself, not by :mod:`auditspan_seal.otlp`: a verifier rests on nothing that the other side uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from auditspan_seal import spans

_KEPT = 4096  # attributes that are kept
LONGEST = 200  # characters of a name or value that is kept, so that nobody fills the memory
_NAMES = {str: "stringValue", int: "intValue", bool: "boolValue", float: "doubleValue"}


class Unusual(Exception):
    """Something that is looked at field by field."""


class _Written(dict[tuple[str, Any], bytes]):
    """Attributes as OTLP/JSON has them: those with a text that is not long are kept."""

    def __missing__(self, pair: tuple[str, Any]) -> bytes:
        """Write one.

        Raises:
            Unusual: it is not a text, a number, a truth value, or a list of them.
        """
        name, value = pair
        kind = value.__class__
        if kind is int and name not in spans.ADDED:
            return b'%b{"intValue":"%d"}}' % ((_head if len(name) <= LONGEST else new_head)(name), value)
        listed = kind is list and all(item.__class__ in _NAMES for item in value)
        if name in spans.ADDED or not (kind in _NAMES or listed):
            raise Unusual
        written = attribute(name, value)
        if kind is str and len(value) <= LONGEST and len(name) <= LONGEST:
            if len(self) >= _KEPT:
                self.clear()
            self[pair] = written
        return written


def new_head(name: str) -> bytes:
    """Return what stands before the value of an attribute."""
    return b'{"key":%b,"value":' % orjson.dumps(name)


_head = lru_cache(1024)(new_head)


def attribute(name: str, value: Any) -> bytes:
    return b"%b%b}" % (new_head(name), orjson.dumps(_value(value)))


def _value(value: Any) -> dict[str, Any]:
    """Return a value as OTLP's AnyValue."""
    kind = value.__class__
    if kind is list:
        return {"arrayValue": {"values": list(map(_value, value))}}
    return {_NAMES[kind]: str(value) if kind is int else value}


_kept = _Written()
_written = _kept.__getitem__


def written_of(said: Mapping[str, Any]) -> bytes:
    """Write attributes as OTLP/JSON has them.

    Raises:
        Unusual: see :class:`_Written`.
    """
    try:
        return b",".join(map(_written, said.items()))
    except TypeError:  # lists cannot be looked up
        return b",".join(
            [(_kept.__missing__ if pair[1].__class__ is list else _written)(pair) for pair in said.items()]
        )
