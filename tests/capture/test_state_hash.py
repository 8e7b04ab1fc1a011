# SPDX-License-Identifier: Apache-2.0
"""State hashes: equal states hash equal, however they are spelled, and unequal ones do not."""

from __future__ import annotations

import array
import base64
import collections
import dataclasses
import enum
import hashlib
import json
import numbers
import os
import random
import re
import subprocess
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditspan.capture.state import MAX_DEPTH, MAX_VALUES, StateNotHashable, canonical_form, state_hash
from tests.seal import go

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "state-hash.md"
VECTORS = json.loads((Path(__file__).parent / "vectors" / "state-hash.json").read_text())
GO = Path(__file__).parent / "statehash"


def read_exactly(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


# -- states of JSON, and other spellings of them ----------------------------------------------------------------------
KEYS = st.text(st.characters(), max_size=6) | st.sampled_from(["a", "b", "ab", "1", "", "é", "\ud800", "!set[]"])
NUMBERS = (
    st.integers()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda value: Decimal(repr(value)))
    | st.builds(lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(-9999, 9999), st.integers(-9, 9))
    | st.builds(lambda digits, zeros: digits * 10**zeros, st.integers(-99, 99), st.integers(0, 40))
)
SCALARS = st.none() | st.booleans() | KEYS | NUMBERS
STATES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    """Say whether two states (of JSON's types) are equal, by nothing that the hash uses."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, (int, float, Decimal, Fraction)) and isinstance(other, (int, float, Decimal, Fraction)):
        return rational(one) == rational(other)
    if isinstance(one, str) and isinstance(other, str):
        return list(map(ord, one)) == list(map(ord, other))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (str, Mapping)) or isinstance(other, (str, Mapping)):
        return False
    if isinstance(one, Sequence) and isinstance(other, Sequence):
        return len(one) == len(other) and all(map(same, one, other))
    return False


def rational(number: float | Decimal | Fraction) -> Fraction:
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


class Keys(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = list(items.items())

    def __getitem__(self, key: str) -> Any:
        return next(value for name, value in self._items if name == key)

    def __iter__(self) -> Any:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


MAPPINGS: list[Callable[[dict[str, Any]], Mapping[str, Any]]] = [
    dict, Keys, collections.OrderedDict, types.MappingProxyType, collections.UserDict, collections.ChainMap,
    lambda items: collections.defaultdict(list, items),
]  # fmt: skip
SEQUENCES: list[Callable[[list[Any]], Sequence[Any]]] = [list, tuple, collections.deque, collections.UserList]


def twin(state: Any, chance: random.Random) -> Any:
    """Spell a state in other types: another order of keys, other containers, other types of numbers."""
    if isinstance(state, dict):
        items = [(twin(key, chance), twin(value, chance)) for key, value in state.items()]
        chance.shuffle(items)
        return chance.choice(MAPPINGS)(dict(items))
    if isinstance(state, list):
        return chance.choice(SEQUENCES)([twin(item, chance) for item in state])
    if isinstance(state, str):
        return chance.choice([str, Text])(state)
    if state is None or isinstance(state, bool):
        return state
    spellings: list[Any] = [Decimal(spell_number(state, chance)), Fraction(state)]
    if Fraction(state).denominator == 1:
        spellings.append(int(state))
    if abs(state) < Decimal("1e300") and rational(float(state)) == state:
        spellings.append(float(state))
    return chance.choice(spellings)


def spell_number(number: int | Decimal, chance: random.Random) -> str:
    """Spell a number as JSON allows it."""
    sign, digits, exponent = Decimal(number).as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits))
    zeros = chance.randrange(3)
    text, exponent = text + "0" * zeros, exponent - zeros
    cut = chance.randrange(len(text) + 1)  # that many digits go after the point
    exponent += cut
    whole, part = text[: len(text) - cut].lstrip("0") or "0", text[len(text) - cut :]
    spelled = "-" * sign + whole + ("." + part if part else "")
    if exponent or chance.random() < 0.5:
        plus = chance.choice(["", "+"]) if exponent >= 0 else ""
        spelled += f"{chance.choice('eE')}{plus}{exponent}"
    return spelled


def spell(state: Any, chance: random.Random) -> str:
    """Spell a state as JSON text, with any spaces, escapes, numbers and order of keys."""

    def space() -> str:
        return chance.choice(["", "", " ", "\n\t", "\r"])

    if isinstance(state, dict):
        entries = [f"{space()}{spell(key, chance)}{space()}:{spell(value, chance)}" for key, value in state.items()]
        chance.shuffle(entries)
        return f"{space()}{{{','.join(entries) or space()}}}{space()}"
    if isinstance(state, list):
        return f"{space()}[{','.join(spell(item, chance) for item in state) or space()}]{space()}"
    if isinstance(state, str):
        return '"' + "".join(spell_character(character, chance) for character in state) + '"'
    if state is None or isinstance(state, bool):
        return space() + json.dumps(state) + space()
    return space() + spell_number(state, chance) + space()


def spell_character(character: str, chance: random.Random) -> str:
    point = ord(character)
    escaped = json.dumps(character)[1:-1]
    if chance.random() < 0.2 and point < 0x10000:
        return f"\\u{point:04{chance.choice('xX')}}"
    if point < 0x20 or character in '"\\' or 0xD800 <= point <= 0xDFFF or chance.random() < 0.2:
        return escaped
    return character


def mutated(state: Any, chance: random.Random) -> Any:
    """Change one thing in a state."""
    if isinstance(state, dict) and state:
        key = chance.choice(list(state))
        rest = {name: value for name, value in state.items() if name != key}
        return chance.choice([
            rest, {**rest, key: mutated(state[key], chance)}, {**rest, key + "x": state[key]}, list(state.items()),
        ])  # fmt: skip
    if isinstance(state, list) and state:
        at = chance.randrange(len(state))
        before, after = state[:at], state[at + 1 :]
        return chance.choice([
            before + after, [*before, mutated(state[at], chance), *after], [*before, state[at], state[at], *after],
            [*before, [state[at]], *after], state[::-1],
        ])  # fmt: skip
    if state in ([], {}):
        return chance.choice([[], {}, [None], {"": None}, None, ""])
    if isinstance(state, str):
        return chance.choice([state + "\0", state[1:], state[::-1], state.upper(), [state], None])
    if state is None or isinstance(state, bool):
        return chance.choice([None, True, False, 0, 1, "null", "true", []])
    return chance.choice([state + 1, -state, state * 10, Decimal(f"{state}1" if "." in str(state) else 1), str(state)])


@dataclasses.dataclass
class Counted:
    equal: int = 0
    unequal: int = 0

    def compare(self, one: Any, other: Any) -> None:
        equal = same(one, other)
        self.equal += equal
        self.unequal += not equal
        assert (state_hash(one) == state_hash(other)) is equal, (canonical_form(one), canonical_form(other))


def compare_many(examples: int) -> Counted:
    """Compare `examples` states with a twin, with what a re-spelled text of it reads as, and with mutants."""
    counted = Counted()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(STATES, st.integers(0, 2**32))
    def compare(state: Any, seed: int) -> None:
        chance = random.Random(seed)
        before = counted.equal
        counted.compare(state, twin(state, chance))
        # Text joins what are two surrogates in a row in Python's strings: both sides go through text.
        counted.compare(read_exactly(spell(state, chance)), read_exactly(spell(state, chance)))
        assert counted.equal == before + 2, "a twin is equal"
        for _ in range(3):
            counted.compare(twin(state, chance), mutated(state, chance))

    compare()
    return counted


def test_equal_states_hash_equal_and_unequal_ones_differ() -> None:
    counted = compare_many(150)
    assert counted.equal >= 300
    assert counted.unequal >= 300


@pytest.mark.slow
def test_of_very_many_states_equal_ones_hash_equal_and_unequal_ones_differ() -> None:
    counted = compare_many(6_000)
    assert counted.equal >= 12_000
    assert counted.unequal >= 12_000


def test_a_double_is_its_shortest_spelling() -> None:
    for text in ("0.1", "1e23", "5e-324", "1.7976931348623157e308", "123456.789", "-0.001", "4.35", "1e-7", "1e22"):
        assert state_hash(float(text)) == state_hash(Decimal(text)) == state_hash(Fraction(text))
    assert canonical_form(0.1 + 0.2) == "30000000000000004e-17"


@given(st.floats())
def test_doubles_are_told_apart_exactly(value: float) -> None:
    if value != value or value in (float("inf"), float("-inf")):
        assert canonical_form(value) in ("nan", "inf", "-inf")
    else:
        assert float(canonical_form(value)) == value
        assert Fraction(canonical_form(value)) == Fraction(repr(value))


# -- the page, the vectors, and another implementation ----------------------------------------------------------------
def test_the_vectors() -> None:
    by_name = {vector["name"]: vector for vector in VECTORS}
    assert len(by_name) == len(VECTORS) >= 70
    for vector in VECTORS:
        state = read_exactly(vector["json"])
        assert canonical_form(state) == vector["canonical"]
        assert state_hash(state) == vector["hash"]
        for name in vector["equal_to"]:
            assert by_name[name]["hash"] == vector["hash"]
        for name in vector["differs_from"]:
            assert by_name[name]["hash"] != vector["hash"]
    groups = collections.Counter(vector["hash"] for vector in VECTORS)
    assert all(len(vector["equal_to"]) == groups[vector["hash"]] - 1 for vector in VECTORS)


def test_the_examples_of_the_page() -> None:
    page = PAGE.read_text()
    known = {
        "Decimal": Decimal, "Fraction": Fraction, "UUID": UUID, "PurePosixPath": PurePosixPath, "date": date,
        "datetime": datetime, "time": time, "timedelta": timedelta, "timezone": timezone,
        "SimpleNamespace": types.SimpleNamespace,
    }  # fmt: skip
    examples = page.partition("| in Python | canonical form |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(examples) > 15
    for line in examples:
        expression, expected = (cell.strip().strip("`") for cell in line.strip("| ").split("|"))
        state = eval(expression, {**known})
        if expected == "*no hash*":
            with pytest.raises(StateNotHashable):
                state_hash(state)
        else:
            assert canonical_form(state) == expected
    rows = page.partition("| spellings | canonical form |")[2].partition("\n\n")[0].splitlines()[2:]
    for line in rows:
        spellings, _, expected = line.strip("| ").partition(" | ")
        for spelled in re.findall("`(.*?)`", spellings):
            assert canonical_form(read_exactly(spelled)) == expected.strip("`")
    worked = re.findall(r"```text\n(.*)\n(sha256:.*)\n```", page)
    assert len(worked) == 2
    assert worked[0][0] == canonical_form({"b": [1.50, "é\n"], "a": {"10": None, "9": True}})
    for text, digest in worked:
        assert "sha256:" + hashlib.sha256(text.encode()).hexdigest() == digest
    limits = re.findall(r"[\d,]+(?= others| values, where)", page)
    assert [int(limit.replace(",", "")) for limit in limits] == [MAX_DEPTH, MAX_VALUES]


def ask_go(program: Path, texts: list[str]) -> list[dict[str, str]]:
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


@pytest.mark.slow
def test_a_program_in_go_written_from_the_page_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(go, "SOURCE", GO)
    programs = go.build("")
    (program,) = (programs / name for name in os.listdir(programs))
    for vector, answer in zip(VECTORS, ask_go(program, [vector["json"] for vector in VECTORS]), strict=True):
        assert (answer["canonical"], answer["hash"]) == (vector["canonical"], vector["hash"])
    states: list[Any] = []

    @settings(max_examples=3_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(STATES)
    def collect(state: Any) -> None:
        states.append(state)

    collect()
    assert len(states) >= 3_000
    chance = random.Random(1)
    texts = [spell(state, chance) for state in states]
    plain = [json.dumps(state, default=float) for state in states]  # as Python's own writer spells it
    for spelled in (texts, plain):
        for text, answer in zip(spelled, ask_go(program, spelled), strict=True):
            assert answer["hash"] == state_hash(read_exactly(text)), (text, answer)
    # Our doubles, and what others print of them.
    for text, answer in zip(plain, ask_go(program, plain), strict=True):
        assert answer["hash"] == state_hash(json.loads(text)), (text, answer)
    for broken in ("", "[1,]", '{"a":1,"a":2}', "01", "1.", ".5", "nan", '"\x01"', "[1] 2", '{"a" 1}', "+1"):
        (answer,) = ask_go(program, [broken])
        assert "error" in answer, (broken, answer)


# -- what JSON does not know ------------------------------------------------------------------------------------------
class Tagged(NamedTuple):
    tag: str
    payload: Any


def read_back(text: str) -> Any:
    """Read a canonical form by the page's grammar, and check that nothing else could have been read."""
    value, rest = read_value(text)
    assert rest == ""
    return value


def read_value(text: str) -> tuple[Any, str]:
    words = {"null": None, "true": True, "false": False, "nan": Tagged("nan", None), "inf": Tagged("inf", None)}
    words["-inf"] = Tagged("-inf", None)
    found = [(value, text[len(word) :]) for word, value in words.items() if text.startswith(word)]
    if number := re.match(r"-?[0-9]+e-?[0-9]+", text):
        found.append((Fraction(number[0]), text[number.end() :]))
    if string := re.match(r'"((?:[^"\\]|\\.)*)"', text):
        found.append((json.loads(string[0]), text[string.end() :]))
    if tag := re.match(r"!([a-z]+)", text):
        payload, rest = read_value(text[tag.end() :])
        found.append((Tagged(tag[1], payload), rest))
    if text[:1] in ("[", "{"):
        found.append(read_items(text[1:], "]" if text[0] == "[" else "}"))
    ((value, rest),) = found
    return value, rest


def read_items(text: str, end: str) -> tuple[Any, str]:
    items: list[Any] = []
    while not text.startswith(end):
        item, text = read_value(text)
        if end == "}":
            assert text[0] == ":"
            value, text = read_value(text[1:])
            item = (item, value)
        items.append(item)
        assert text[0] in ("," + end)
        text = text.removeprefix(",")
    return (items if end == "]" else Tagged("{}", items)), text[1:]


UTC_OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
HASHABLE = st.recursive(
    SCALARS
    | st.binary(max_size=4)
    | st.dates()
    | st.datetimes(timezones=st.none() | UTC_OFFSETS)
    | st.times(timezones=st.none() | UTC_OFFSETS)
    | st.timedeltas()
    | st.uuids()
    | st.fractions()
    | st.sampled_from(["!date", "!", "nan", "-inf", 'a":1e0,"b']),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
ANYTHING = st.recursive(HASHABLE, lambda inner: st.dictionaries(HASHABLE, inner, max_size=3), max_leaves=4)


def model(value: Any) -> Any:
    """Return what a canonical form must say of a value, by nothing that the hash uses."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return json.loads(json.dumps(value))  # as text has it: surrogates in a row are one character
    if isinstance(value, (int, float, Decimal)):
        return rational(value)
    if isinstance(value, Fraction):
        finite = pow(10, 10_000, value.denominator) == 0
        return value if finite else Tagged("fraction", [Fraction(value.numerator), Fraction(value.denominator)])
    if isinstance(value, bytes):
        return Tagged("bytes", base64.b64encode(value).decode())
    if isinstance(value, datetime):
        since = Fraction((value.replace(tzinfo=None) - datetime(1970, 1, 1)) // timedelta(microseconds=1), 10**6)
        return Tagged("instant" if value.tzinfo else "datetime", since - offset_of(value))
    if isinstance(value, time):
        since = Fraction(value.hour * 3600 + value.minute * 60 + value.second) + Fraction(value.microsecond, 10**6)
        return Tagged("utctime" if value.tzinfo else "time", since - offset_of(value))
    if isinstance(value, date):
        return Tagged("date", value.isoformat())
    if isinstance(value, timedelta):
        return Tagged("duration", Fraction(value // timedelta(microseconds=1), 10**6))
    if isinstance(value, UUID):
        return Tagged("uuid", str(value))
    if isinstance(value, dict):
        return Tagged("{}", sorted(((model(key), model(item)) for key, item in value.items()), key=repr))
    if isinstance(value, frozenset):
        members: list[Any] = []
        for member in map(model, value):
            if member not in members:
                members.append(member)
        return Tagged("set", sorted(members, key=repr))
    return [model(item) for item in value]


def offset_of(value: datetime | time) -> Fraction:
    return Fraction((value.utcoffset() or timedelta()) // timedelta(seconds=1))


def in_order(read: Any) -> Any:
    """Sort what a canonical form was read as in the same way as :func:`model` does."""
    if isinstance(read, Tagged) and read.tag == "{}":
        return Tagged("{}", sorted(((in_order(key), in_order(value)) for key, value in read.payload), key=repr))
    if isinstance(read, Tagged) and read.tag == "set":
        return Tagged("set", sorted(map(in_order, read.payload), key=repr))
    if isinstance(read, Tagged):
        return Tagged(read.tag, in_order(read.payload))
    return [in_order(item) for item in read] if isinstance(read, list) else read


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(ANYTHING)
def test_a_canonical_form_reads_back_in_one_way(state: Any) -> None:
    """So it holds the whole state, and two states with one canonical form are one state."""
    assert repr(in_order(read_back(canonical_form(state)))) == repr(model(state))


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 1


class Bits(enum.Flag):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Data:
    x: int
    y: list[Any]


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("x", "y")
    x: int
    y: Any


@attrs.define
class Attrs:
    x: int
    y: list[Any]


class Inner(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: int
    hidden: int = pydantic.Field(default=1, exclude=True)
    _private: int = 3

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> int:
        raise AssertionError("no code of the application runs")

    @pydantic.field_serializer("x")
    def serializer(self, _: int) -> int:
        raise AssertionError("no code of the application runs")


class Plain(pydantic.BaseModel):
    x: Decimal
    y: list[Any]


class Root(pydantic.RootModel[list[int]]):
    pass


class Member:
    """An object that consists of its attributes, one of them in a slot."""

    __slots__ = ("__dict__", "slot")

    def __init__(self, slot: Any, other: Any) -> None:
        self.slot = slot
        self.other = other

    @cached_property
    def cached(self) -> int:
        return 1


class NoAttributes:
    pass


class FakeReal(float):
    __slots__ = ()

    def __repr__(self) -> str:
        return "np.float64(0.5)"


EQUAL: list[list[Any]] = [
    [{"a": 1, "b": [1, 2]}, collections.OrderedDict([("b", (1, 2)), ("a", 1.0)])],
    [1, 1.0, 1e0, Decimal("1.00"), Fraction(2, 2), Colour.RED, Level.HIGH, Bits.ONE],
    [-0.0, 0.0, 0, Decimal("-0.000")],
    [{1, 2, 3}, frozenset([3, 2, 1]), {1: 0, 2: 0, 3: 0}.keys(), {0.1, 1, 2, 3} - {0.1}],
    [{0.1}, {Decimal("0.1")}, {0.1, Decimal("0.1")}],
    [10**20, 1e20],
    [10**5000, Decimal("1e5000")],
    [10**4999 + 1, Decimal(10**4999 + 1)],
    [0.5, FakeReal(0.5), Fraction(1, 2)],
    [float("nan"), Decimal("nan"), Decimal("-sNaN12")],
    [float("-inf"), Decimal("-Infinity")],
    ["a", Text("a"), collections.UserString("a")],
    [[0, 1, 2], range(3), (0, 1, 2), array.array("i", [0, 1, 2]), collections.deque([0, 1, 2]), Root([0, 1, 2])],
    [Point(1, 2), [1, 2]],
    [Data(1, [2]), Attrs(1, [2]), Plain(x=Decimal(1), y=[2]), Slotted(1, (2,)), {"x": 1, "y": [2]}],
    [Inner(x=1, more=2), {"x": 1, "hidden": 1, "more": 2}],
    [b"ab", bytearray(b"ab"), memoryview(b"xab")[1:]],
    [datetime(2024, 1, 1, 12, tzinfo=timezone.utc), datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))],
    [time(12, tzinfo=timezone.utc), time(14, tzinfo=timezone(timedelta(hours=2)))],
    [timedelta(hours=24), timedelta(days=1)],
    [PurePosixPath("a/b"), PureWindowsPath("a\\b"), Path("a//b")],
    [{1: "x", "1": "y"}, {"1": "y", 1: "x"}],
]
DIFFERENT: list[Any] = [
    None, False, 0, "0", "", [], {}, [0], {"0": 0}, {0: 0}, {False: 0}, {None: 0}, {"null": 0}, "null", 1, True, "1",
    [1, 2], [2, 1], [[1], 2], [1, [2]], b"1", b"", 0.1, Decimal("0.10000000000000001"), {1}, {"1"}, {1, 2}, set(),
    float("nan"), float("inf"), float("-inf"), "nan", "inf", Fraction(1, 3), 1 / 3, Fraction(-1, 3), [1, 3],
    datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=timezone.utc), date(2024, 1, 1), "2024-01-01", 1704067200,
    datetime(2024, 1, 1, 0, 0, 0, 1), time(1), time(1, tzinfo=timezone.utc), timedelta(hours=1), 3600,
    UUID(int=1), str(UUID(int=1)), PurePosixPath("a"), "a", "A", "é", "e\u0301", "\ud83d", "\\ud83d", "\ud83d\ude00",
    "😀", "!set[]", ["!set", []], Member(1, 2), Member(2, 1), Member(1, Member(1, 2)), NoAttributes(),
    {"slot": 1, "other": 2}, {1: "x", "1": "y"}, {1: "y", "1": "x"}, {0.1: 1, Decimal("0.1"): 2}, {0.1: 1},
    {0.1: 1, Decimal("0.1"): 1}, 10**5000, 10**5000 + 1, {"a": {"b": 1}}, {"a": {}, "b": 1}, {(1, 2): 3},
]  # fmt: skip


@pytest.mark.parametrize("states", EQUAL)
def test_equal_states_of_other_types_hash_equal(states: list[Any]) -> None:
    assert len({canonical_form(state) for state in states}) == 1
    assert len({state_hash(state) for state in states}) == 1


def test_different_states_hash_differently() -> None:
    assert len({state_hash(state) for state in DIFFERENT}) == len(DIFFERENT)


def test_a_cached_property_does_not_change_the_hash() -> None:
    member = Member(1, 2)
    before = state_hash(member)
    assert member.cached == 1
    assert state_hash(member) == before


def test_keys_with_one_canonical_form_are_both_there_in_any_order() -> None:
    one = {0.1: "a", Decimal("0.1"): "b"}
    assert len(one) == 2
    assert state_hash(one) == state_hash({Decimal("0.1"): "b", 0.1: "a"})
    assert state_hash(one) == state_hash({0.1: "b", Decimal("0.1"): "a"}), "as keys of a state they are the same"
    assert state_hash(one) != state_hash({0.1: "b"})


def test_the_ends_of_the_calendar() -> None:
    east, west = timezone(timedelta(hours=14)), timezone(-timedelta(hours=12))
    first, last = datetime.min.replace(tzinfo=east), datetime.max.replace(tzinfo=west)
    assert canonical_form(first) == "!instant-621356472e2"
    assert canonical_form(last).startswith("!instant2534023439")


def test_nanoseconds_of_subclasses_count() -> None:
    class Stamp(datetime):  # as pandas has them
        nanosecond = 7

        def __sub__(self, other: Any) -> Any:
            raise AssertionError("subclasses compute in their own ways")

    class Span(timedelta):
        nanoseconds = 7

    assert canonical_form(Stamp(1970, 1, 1)) == "!datetime7e-9"
    assert canonical_form(Span(seconds=1)) == "!duration1000000007e-9"


def test_the_second_of_two_equal_hours_is_later() -> None:
    class Berlin(tzinfo):
        def utcoffset(self, value: datetime | None) -> timedelta:
            return timedelta(hours=1 if value is not None and value.fold else 2)

    once, again = datetime(2024, 10, 27, 2, tzinfo=Berlin()), datetime(2024, 10, 27, 2, fold=1, tzinfo=Berlin())
    assert state_hash(once) != state_hash(again)


class FakeInteger:
    """As NumPy has them: registered, but no int."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


numbers.Integral.register(FakeInteger)


class Wide:
    """A float that is wider than a double, as NumPy's longdouble."""

    def __init__(self, value: Fraction) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)

    def __eq__(self, other: object) -> bool:
        return self.value == other

    __hash__ = None  # type: ignore[assignment]

    def as_integer_ratio(self) -> tuple[int, int]:
        return self.value.as_integer_ratio()


numbers.Real.register(Wide)


def test_registered_numbers() -> None:
    assert canonical_form(FakeInteger(120)) == "12e1"
    assert canonical_form(Wide(Fraction(0.1))) == "1e-1"
    assert Fraction(canonical_form(Wide(1 + Fraction(1, 2**60)))) == 1 + Fraction(1, 2**60)


# -- what has no hash -------------------------------------------------------------------------------------------------
def nested(depth: int) -> Any:
    state: Any = "innermost"
    for level in range(depth):
        state = [state] if level % 2 else {"k": state}
    return state


class Sly(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        raise KeyError("secret value")

    def __iter__(self) -> Any:
        return iter(["key"])

    def __len__(self) -> int:
        return 1


def cyclic() -> Any:
    state: dict[str, Any] = {"a": []}
    state["a"] += [1, state]
    return state


def bomb() -> Any:
    state: Any = []
    for _ in range(100):
        state = [state, state]
    return state


NO_HASH = [
    (object(), "object", "$", "no attributes"),
    ({"a": [1, {"b": object()}]}, "object", "$.a[1].b", "no attributes"),
    ({"ok": 1, "secret@example.org": {"x": len}}, "builtin_function_or_method", "$[1].x", "more than attributes"),
    ({object(): 1}, "object", "$[0]", "no attributes"),
    (ValueError("secret"), "ValueError", "$", "more than attributes"),
    (lambda: 1, "function", "$", "more than attributes"),
    (int, "type", "$", "more than attributes"),
    (types, "module", "$", "more than attributes"),
    ((x for x in ()), "generator", "$", "more than attributes"),
    ([].append, "builtin_function_or_method", "$", "more than attributes"),
    (re.compile("a"), "re.Pattern", "$", "more than attributes"),
    (1j, "complex", "$", "more than attributes"),
    ([threading.Lock()], "_thread.lock", "$[0]", ""),
    (Member(1, threading.Lock()), "_thread.lock", "$.other", ""),
    ({"a": [Sly()]}, f"{__name__}.Sly", "$.a[0][0]", "reading it raised KeyError"),
    (cyclic(), "dict", "$.a[1].a[1].a[1].a[1].a[1].a[1]…", "contains itself"),
    (nested(MAX_DEPTH + 1), "dict", "$[0].k[0].k[0].k[0].k[0].k[0].k…", "more than 128 containers"),
    (bomb(), "list", "$[0][0][0][0][0][0][0][0][0][0][0][0]…", "more than 1000000 values"),
    (range(10**12), "range", "$", "more than 1000000 values"),
    (range(10**30), "range", "$", "reading it raised OverflowError"),
]


@pytest.mark.parametrize(("state", "kind", "path", "why"), NO_HASH, ids=lambda item: "")
def test_what_has_no_hash_is_refused_by_type_and_place(state: Any, kind: str, path: str, why: str) -> None:
    with pytest.raises(StateNotHashable) as refused:
        state_hash(state)
    error = refused.value
    assert isinstance(error, TypeError)
    if "more than 1000000" not in why and "128" not in why:
        assert error.kind == kind
        assert error.path == path
    assert why in error.why
    assert f"{error.kind} at {error.path}: {error.why}" in str(error)
    for leaked in ("secret", "0x", "innermost"):
        assert leaked not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None, "a log of the traceback would have the values of what was raised inside"


def test_as_deep_as_it_may_be() -> None:
    assert state_hash(nested(MAX_DEPTH))


def test_nothing_of_a_state_is_changed() -> None:
    state = {"b": collections.defaultdict(list), "a": {2, 1}}
    state_hash(state)
    assert list(state) == ["b", "a"]
    assert state["b"] == {}
