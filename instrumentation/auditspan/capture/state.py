# SPDX-License-Identifier: Apache-2.0
"""A deterministic hash of a state: equal states hash equal, however they are spelled, and unequal ones do not.

The hash is that of the state's canonical form, a text that docs/state-hash.md defines for any language.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import numbers
import operator
import re
from collections import UserString
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cached_property
from json.encoder import encode_basestring
from pathlib import PurePath
from types import BuiltinFunctionType, MemberDescriptorType
from typing import Any
from uuid import UUID

MAX_DEPTH = 128
"""How many containers a value may be inside of."""
MAX_VALUES = 1_000_000
"""How many values a state may consist of: what is shared counts each time, and could multiply without end."""

_EPOCH = date(1970, 1, 1).toordinal()
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_STEPS = 12  # of a path that are shown
_HEAP_TYPE, _NOT_FOR_PYTHON = 1 << 9, 1 << 7  # Py_TPFLAGS_HEAPTYPE, Py_TPFLAGS_DISALLOW_INSTANTIATION


class StateNotHashable(TypeError):
    """A state has no canonical form. The message has the type and the place of what is at fault, never a value.

    Attributes:
        kind: qualified name of the type at fault.
        path: where in the state, from its root ``$``. A key that is no plain name is shown by its position.
        why: what is wrong with it.
    """

    def __init__(self, kind: str, path: str, why: str) -> None:
        super().__init__(f"no state hash: {kind} at {path}: {why}")
        self.kind = kind
        self.path = path
        self.why = why


def state_hash(state: Any) -> str:
    """Hash a state; nothing of it is kept.

    Args:
        state: what JSON knows, and more: docs/state-hash.md says which types, and what is equal.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.

    Raises:
        StateNotHashable: something in it has no canonical form, contains itself, or is too deep or too large.
    """
    return "sha256:" + hashlib.sha256(canonical_form(state).encode()).hexdigest()


def canonical_form(state: Any) -> str:
    """Return the text that is hashed, which holds the whole state.

    Raises:
        StateNotHashable: see :func:`state_hash`.
    """
    try:
        return _write(state, 0, [MAX_VALUES])
    except Exception as error:
        refused = error if isinstance(error, _Refused) else _Refused(state, _raised(error))
    # Outside of the handler: what was raised inside may have the state's values in its text.
    raise refused.explained()


class _Refused(Exception):
    """A value has no canonical form; what it is inside of is added on the way out."""

    def __init__(self, value: Any, why: str) -> None:
        super().__init__(why)
        self.kind = _type_name(value)
        self.why = why
        self.steps: list[str] = []  # innermost first
        self.around: list[int] = []

    def explained(self) -> StateNotHashable:
        if len(set(self.around)) < len(self.around):
            self.why = "a container contains itself"
        shown = self.steps[: -_STEPS - 1 : -1]
        return StateNotHashable(self.kind, "$" + "".join(shown) + "…" * (len(shown) < len(self.steps)), self.why)


def _inside(error: Exception, container: Any, position: int, key: Any = None) -> _Refused:
    refused = error if isinstance(error, _Refused) else _Refused(container, _raised(error))
    plain = isinstance(key, str) and _NAME.fullmatch(key)  # other keys may be data
    refused.steps.append(f".{key}" if plain else f"[{position}]")
    refused.around.append(id(container))
    return refused


def _raised(error: Exception) -> str:
    return f"reading it raised {_type_name(error)}"


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


# -- what JSON knows, in the types that it is read into ---------------------------------------------------------------
def _write(value: Any, depth: int, left: list[int]) -> str:
    """Return the canonical form of a value that is inside of `depth` containers; `left` more values may come."""
    kind = type(value)
    if kind is str:
        return _string(value)
    if kind is int:
        return _integer(value)
    if kind is dict:
        return _mapping(value, value, depth, left)
    if kind is list or kind is tuple:
        return _sequence(value, depth, left)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return _float(value)
    return _other(value, depth, left)


def _string(value: str) -> str:
    text = encode_basestring(value)
    if text.isascii():
        return text
    # Surrogates, which UTF-8 does not know, become \udXXX; no other escape looks like this.
    return text.encode("utf-8", "backslashreplace").decode()


def _enter(container: Any, size: int, depth: int, left: list[int]) -> None:
    if depth >= MAX_DEPTH:
        raise _Refused(container, f"it is inside of more than {MAX_DEPTH} containers")
    left[0] -= size
    if left[0] < 0:
        raise _Refused(container, f"the state has more than {MAX_VALUES} values")


def _mapping(container: Any, mapping: Mapping[Any, Any], depth: int, left: list[int]) -> str:
    _enter(container, len(mapping), depth, left)
    depth += 1
    entries: list[str] = []
    key = None
    try:
        for key, value in mapping.items():
            name = _string(key) if type(key) is str else _write(key, depth, left)
            entries.append(f"{name}:{_write(value, depth, left)}")
    except Exception as error:
        raise _inside(error, container, len(entries), key) from None
    # By the whole entry: two keys of one canonical form both stay, in an order that is not theirs in the mapping.
    entries.sort()
    return "{" + ",".join(entries) + "}"


def _items(container: Collection[Any], depth: int, left: list[int]) -> list[str]:
    _enter(container, len(container), depth, left)
    depth += 1
    texts: list[str] = []
    try:
        for item in container:
            texts.append(_write(item, depth, left))
    except Exception as error:
        raise _inside(error, container, len(texts)) from None
    return texts


def _sequence(value: Sequence[Any], depth: int, left: list[int]) -> str:
    return "[" + ",".join(_items(value, depth, left)) + "]"


# -- numbers ----------------------------------------------------------------------------------------------------------
def _number(digits: str, exponent: int, negative: bool) -> str:
    digits = digits.lstrip("0")
    short = digits.rstrip("0")
    if not short:
        return "0e0"
    return f"{'-' if negative else ''}{short}e{exponent + len(digits) - len(short)}"


def _digits(value: int) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # more digits than Python writes at once (sys.set_int_max_str_digits); decimal has no limit
        return str(Decimal(value))


def _integer(value: int) -> str:
    text = _digits(value)
    if text[-1] != "0":
        return f"{text}e0"
    return _number(text.lstrip("-"), 0, value < 0)


def _float(value: float) -> str:
    text = float.__repr__(value)  # the shortest spelling that reads back as the same double
    if text in ("nan", "inf", "-inf"):
        return text
    mantissa, _, exponent = text.partition("e")
    whole, _, part = mantissa.partition(".")
    if not exponent and part != "0" and whole not in ("0", "-0"):
        return f"{whole}{part}e-{len(part)}"  # the usual case
    return _number(whole.lstrip("-") + part, int(exponent or 0) - len(part), text[0] == "-")


def _decimal(value: Decimal) -> str:
    sign, digits, exponent = Decimal.as_tuple(value)
    if isinstance(exponent, int):
        return _number("".join(map(str, digits)), exponent, bool(sign))
    return ("-inf" if sign else "inf") if exponent == "F" else "nan"


def _ratio(value: Fraction) -> str:
    numerator, denominator = value.numerator, value.denominator
    twos = (denominator & -denominator).bit_length() - 1
    rest, fives = denominator >> twos, 0
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:  # its decimals never end
        return f"!fraction[{_integer(numerator)},{_integer(denominator)}]"
    places = max(twos, fives)
    return _number(_digits(abs(numerator) * 10**places // denominator), -places, numerator < 0)


def _real(value: Any) -> str:
    if isinstance(value, numbers.Integral):
        return _integer(operator.index(value))
    if isinstance(value, numbers.Rational):
        return _ratio(Fraction(int(value.numerator), int(value.denominator)))
    double = float(value)
    if double == value or double != double:
        return _float(double)
    return _ratio(Fraction(*map(int, value.as_integer_ratio())))  # wider than a double


# -- everything else --------------------------------------------------------------------------------------------------
def _other(value: Any, depth: int, left: list[int]) -> str:
    """Return the canonical form of a value of any other type: a subclass, or a type that JSON does not know."""
    if isinstance(value, Enum):
        return _write(value.value, depth, left)
    if isinstance(value, (str, UserString)):
        return _string(str.__str__(value) if isinstance(value, str) else value.data)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, numbers.Real):
        return _real(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f'!bytes"{base64.b64encode(bytes(value)).decode()}"'
    if isinstance(value, (date, time, timedelta)):
        return _moment(value)
    if isinstance(value, UUID):
        return f'!uuid"{value}"'
    if isinstance(value, PurePath):
        return f"!path{_string(value.as_posix())}"
    if isinstance(value, Mapping):
        return _mapping(value, value, depth, left)
    if isinstance(value, Set):
        # A set has equal members once, and here 0.1 and Decimal("0.1") are equal.
        return "!set[" + ",".join(sorted(set(_items(value, depth, left)))) + "]"
    if isinstance(value, Sequence):
        return _sequence(value, depth, left)
    if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
        return "true" if value else "false"
    return _object(value, depth, left)


def _moment(value: date | time | timedelta) -> str:
    """Write a point in time or a duration as a tagged number of seconds, a day as text.

    Nothing is computed by the objects themselves: near the ends of the calendar that overflows, and subclasses (those
    of pandas, which know nanoseconds, and of pendulum) compute in their own ways.
    """
    if isinstance(value, timedelta):
        return "!duration" + _seconds(value.days, value.seconds, value.microseconds, getattr(value, "nanoseconds", 0))
    if not isinstance(value, (datetime, time)):
        return f'!date"{value.year:04}-{value.month:02}-{value.day:02}"'
    days = value.toordinal() - _EPOCH if isinstance(value, datetime) else 0
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    micros, nanos = value.microsecond, getattr(value, "nanosecond", 0)
    offset = value.utcoffset()
    if offset is not None:
        days, seconds, micros = days - offset.days, seconds - offset.seconds, micros - offset.microseconds
    tag = ("!instant" if offset is not None else "!datetime") if isinstance(value, datetime) else None
    return (tag or ("!utctime" if offset is not None else "!time")) + _seconds(days, seconds, micros, nanos)


def _seconds(days: int, seconds: int, micros: int, nanos: int) -> str:
    total = ((days * 86_400 + seconds) * 1_000_000 + micros) * 1_000 + nanos
    return _number(str(abs(total)), -9, total < 0)


def _object(value: Any, depth: int, left: list[int]) -> str:
    kind = type(value)
    names: Iterable[str] | None = None
    extra: Mapping[str, Any] = {}
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif isinstance(getattr(kind, "__attrs_attrs__", None), tuple):
        names = [field.name for field in kind.__attrs_attrs__]
    elif hasattr(kind, "__pydantic_fields__"):
        # Not by model_dump: it runs the application's serializers, and leaves out what is marked so.
        if getattr(kind, "__pydantic_root_model__", False):
            return _write(value.root, depth, left)
        names, extra = kind.__pydantic_fields__, value.__pydantic_extra__ or {}
    if names is not None:
        return _mapping(value, {**_present(value, names), **extra}, depth, left)
    return f"!object[{_string(_type_name(value))},{_mapping(value, _attributes(value), depth, left)}]"


def _present(value: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _attributes(value: Any) -> dict[str, Any]:
    """Return what an object consists of, if its attributes are all that it consists of."""
    classes = [base for base in type(value).__mro__ if base is not object]
    if not all(map(_made_in_python, classes)):
        # Two functions, or two exceptions, may have the same attributes and not be equal.
        raise _Refused(value, "its type keeps more than attributes, which cannot be seen")
    members = {name: member for base in reversed(classes) for name, member in vars(base).items()}
    slots = [name for name, member in members.items() if isinstance(member, MemberDescriptorType)]
    if not slots and not hasattr(value, "__dict__"):
        raise _Refused(value, "it has no attributes to tell it by")
    # A cached property is there once it was asked for, and says nothing new.
    own = {k: v for k, v in getattr(value, "__dict__", {}).items() if not isinstance(members.get(k), cached_property)}
    return {**_present(value, slots), **own}


def _made_in_python(kind: type) -> bool:
    made = bool(kind.__flags__ & _HEAP_TYPE) and not kind.__flags__ & _NOT_FOR_PYTHON
    return made and not isinstance(vars(kind).get("__new__"), BuiltinFunctionType)
