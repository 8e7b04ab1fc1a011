# SPDX-License-Identifier: Apache-2.0
"""In which forms an honest value comes back from a store."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

_CONTROL = ("elasticsearch.", "data_stream.", "elastic.mapping.", "encoding.format")
"""Attributes that steer the exporter: it, or the Collector before it, removes them."""


_OF_RESOURCES = re.compile(r"(?:service|host|agent)(?:\.(?:name|version|namespace|instance\.id|instance))?")


def removed(name: str, expected: Mapping[str, Any], found: Mapping[str, Any], of_span: bool) -> bool:
    """Tell whether an attribute is not in a document because it never is there: for no document that is honest.

    Args:
        name: of an attribute in the statement that the document does not have.
        expected: all attributes of the statement, in its place.
        found: those of the document.
        of_span: they are the span's, and not those of its resource or scope.
    """
    if of_span and _OF_RESOURCES.fullmatch(name):
        return True  # the Collector removes them: searches for the resource would look there
    if not name.strip() or name.startswith(_CONTROL):
        return True  # Elasticsearch refuses a document for a blank name, so the Collector removes it
    # The exporter makes one field of latitude and longitude: [longitude, latitude].
    base, _, part = name.rpartition(".")
    pair = found.get(base)
    return (
        part in ("lat", "lon")
        and base.endswith("geo.location")
        and isinstance(pair, list)
        and len(pair) == 2
        and same(expected[name], pair[part == "lat"])
    )


def duration_of(expected: int, found: Any) -> Any:
    """Return the duration that was expected if it is what was found, else what was found.

    The clock may be set back while a span goes on. The exporter writes a negative duration as an unsigned number.
    """
    return expected if expected < 0 and type(found) is int and found == expected + 2**64 else found


def same(expected: Any, found: Any) -> bool:
    """Tell whether a value that was found is the one that was expected, in any form that stores make of it."""
    if expected is None or expected == []:
        return found is None or found == expected
    if isinstance(expected, bytes):
        return bool(found == expected.hex())
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, float):
        if not math.isfinite(expected):
            return found is None
        return isinstance(found, (int, float)) and (found == expected or found in _singles(expected))
    if isinstance(expected, int) and not -(2**63) <= expected < 2**63:
        return bool(found == str(expected))  # more than OTLP can carry (spans.document_of)
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(same(one, other) for one, other in zip(expected, found, strict=True))
        ) or _as_set(expected, found)
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and all(same(item, found.get(name)) for name, item in expected.items())
            and all(found[name] in (None, [], {}) for name in found.keys() - expected.keys())
        )
    return type(found) is type(expected) and bool(found == expected)


def _as_set(expected: list[Any], found: Any) -> bool:
    """Tell whether a list came back from synthetic source: sorted, without repetitions; of one, the element itself."""
    kinds = set(map(type, expected))
    if len(kinds) != 1 or not kinds <= {str, int, float, bool}:
        return False
    order = sorted(set(expected), key=lambda item: item.encode() if isinstance(item, str) else item)
    if len(order) == 1:
        return not isinstance(found, list) and same(order[0], found)
    return isinstance(found, list) and len(found) == len(order) and all(map(same, order, found))


def _singles(number: float) -> tuple[float, ...]:
    """Return what a 32-bit float makes of a number: the float, and the shortest decimal that means it."""
    try:
        single = float(struct.unpack("f", struct.pack("f", number))[0])
    except (OverflowError, struct.error):
        return ()
    texts = (f"{single:.{digits}g}" for digits in range(6, 10))
    short = next((t for t in texts if struct.pack("f", float(t)) == struct.pack("f", single)), repr(single))
    return single, float(short)


_ISO = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)


def time_of(expected: int, found: Any, exact: bool) -> Any:
    """Return the time that was expected (nanoseconds since the epoch) if it is what was found, else what was found.

    The exporter writes ``<milliseconds>.<nanoseconds of it, not padded>``. Elasticsearch takes the second part for a
    decimal fraction, and synthetic source writes what it has understood.

    Args:
        expected: the time in the statement.
        found: the time in the document.
        exact: the document is not from Elasticsearch; the time is a number of nanoseconds.
    """
    if exact and type(found) is int:
        return found
    if not isinstance(found, str):
        return "a number beyond all bounds" if isinstance(found, int) and abs(found) >= 2**63 else repr(found)[:100]
    milliseconds, rest = divmod(expected, 1_000_000)
    if found == f"{milliseconds}.{rest}" or (not rest and found == str(milliseconds)):
        return expected
    parts = _ISO.fullmatch(found)
    if parts is None:
        return found
    try:
        seconds = int(datetime.fromisoformat(parts[1]).replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        return found
    digits = parts[2] or ""
    moment = seconds * 1_000_000_000 + int(digits.ljust(9, "0"))
    understood = milliseconds * 1_000_000 + int(str(rest).ljust(6, "0"))
    if moment in (expected, understood) or (len(digits) <= 3 and moment == milliseconds * 1_000_000):
        return expected
    return found
