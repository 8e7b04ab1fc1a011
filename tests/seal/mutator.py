# SPDX-License-Identifier: Apache-2.0
"""Makes hostile inputs out of good ones: bytes, JSON tokens, and parsed JSON. Seeded: the same seed, the same inputs."""

from __future__ import annotations

import base64
import random
import re
from collections.abc import Sequence
from typing import Any

# What parsers have stumbled over elsewhere: confused types, big numbers, other spellings of the same, bad UTF-8.
JSON_VALUES = [
    b"1", b'"1"', b"true", b"false", b"null", b"1.0", b"0", b"-0", b"-0.0", b"01", b"+1", b"1.", b".5", b"1e0", b"1E5",
    b"1e16", b"1e+16", b"1e-7", b"1e400", b"-1e400", b"1e-400", b"NaN", b"Infinity", b"-Infinity", b"0x10", b"1_000",
    b"-1", b"9007199254740991", b"9007199254740992", b"9007199254740993", b"-9007199254740993", b"4611686018427387904",
    b"4611686018427387905", b"9223372036854775807", b"9223372036854775808", b"18446744073709551615",
    b"18446744073709551616", b"1" + b"0" * 4500, b"0." + b"3" * 400, b"5e-324", b"1.7976931348623157e308",
    b"[]", b"{}", b'""', b"[[]]", b"[1]", b'["1"]', b'{"":1}', b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"',
    b'"\\u2028"', b'"\\u0041"', b'"\xe2\x80\xa8"', b'"\xef\xbb\xbf"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\xff"',
    b'"\xd9\xa1"', b'"' + b"a" * 5000 + b'"', b'{"int":"1"}', b'{"int":"9007199254740993"}', b'{"int":"-9007199254740993"}',
    b'{"int":"09007199254740993"}', b'{"int":"9_007_199_254_740_993"}', b'{"int":" 9007199254740993"}',
    b'{"int":"\xd9\xa1\xd9\xa1"}', b'{"int":"' + b"9" * 640 + b'"}', b'{"int":"' + b"9" * 5000 + b'"}', b'{"int":1}',
    b'{"double":"NaN"}', b'{"double":"nan"}', b'{"double":1.5}', b'{"double":[]}', b'{"bytes":"AAE="}', b'{"bytes":"AB=="}',
    b'{"bytes":"AA"}', b'{"bytes":"A\\nA=="}', b'{"map":{}}', b'{"map":{"a":1}}', b'{"map":[]}', b'{"commitment":""}',
    b'{"commitment":"' + base64.b64encode(bytes(32)) + b'"}', b'{"commitment":"' + base64.b64encode(bytes(31)) + b'"}',
    b'{"int":"9007199254740993","map":{}}', b"[" * 40 + b"]" * 40, b"[" * 260 + b"]" * 260, b"[" * 1100 + b"]" * 1100,
    b'{"a":' * 260 + b"1" + b"}" * 260, b'{"map":{"a":' * 130 + b"1" + b"}}" * 130,
    b'[["' + base64.b64encode(bytes(16)) + b'",1]]', b'["' + base64.b64encode(bytes(16)) + b'","x"]', b'"sha256"',
]  # fmt: skip
TOKENS = [
    b"\x00", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\n\n", b"\n\n\n", b"\t", b" ", b"\x0b", b"\x7f", b"\x85", b"\xc2\x85",
    b"\xc2\xa0", b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xc0\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80", b"\xff", b"\xfe", b"\xe2\x80\x94 ", b"\xe2\x80\x94", b"+", b"=", b"==", b"A", b"/", b"-", b"_",
    b"\xd9\xa1", b"\xef\xbc\x91", b"0", b"1", b"01", b"-1", b"9" * 19, b"9" * 20, b"9" * 5000, b"E ", b"C ", b"E \n", b"C {}\n",
    b'"', b"\\", b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b":", b",", b"[" * 1100, b'{"a":' * 300,
    base64.b64encode(bytes(32)), base64.b64encode(bytes(31)), base64.b64encode(b"\x01" + bytes(32)), b"AB==", b"AAB=",
    b'"v":2,"v":2,', b'"v":1,', b'"type":"span",', b'"type":"erasure",', b'"first":0,', b"extra AA==\n", b"index 0\n",
    b"c2sp.org/tlog-proof@v1\n", b"\xe2\x80\x94 x AAAAAAAA\n",
]  # fmt: skip
_PIECES = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[A-Za-z]+|[\[\]{}:,]|\s+|.', re.DOTALL)
_NUMBERS = re.compile(rb"[0-9]+")


class Mutator:
    """Turns good inputs into bad ones.

    Args:
        seed: of the random numbers.
        seeds: good inputs.
        limit: bytes of an input at most.
    """

    def __init__(self, seed: int, seeds: Sequence[bytes], limit: int = 20_000) -> None:
        self._chance = random.Random(seed)
        self._seeds = list(seeds)
        self._pieces = [_PIECES.findall(item) for item in seeds]
        self._limit = limit

    def next(self) -> bytes:
        """Return the next input."""
        chance = self._chance
        kind = chance.random()
        if kind < 0.02:
            return chance.randbytes(int(2 ** chance.uniform(0, 9)))
        data = self._other_pieces() if kind < 0.45 else chance.choice(self._seeds)
        for _ in range(0 if kind < 0.3 else 1 + int(chance.expovariate(0.9))):
            data = self._other_bytes(data)
        return data[: self._limit]

    def _other_pieces(self) -> bytes:
        chance = self._chance
        pieces = list(chance.choice(self._pieces))
        for _ in range(1 + int(chance.expovariate(1))):
            if not pieces:
                break
            at = chance.randrange(len(pieces))
            what = chance.randrange(6)
            if what < 2:
                pieces[at] = chance.choice(JSON_VALUES)
            elif what == 2:
                end = min(len(pieces), at + chance.randrange(1, 9))
                pieces[at:at] = pieces[at:end]
            elif what == 3:
                del pieces[at : at + chance.randrange(1, 9)]
            elif what == 4:
                other = chance.randrange(len(pieces))
                pieces[at], pieces[other] = pieces[other], pieces[at]
            else:
                pieces[at] = chance.choice(TOKENS)
        return b"".join(pieces)

    def _other_bytes(self, data: bytes) -> bytes:
        chance = self._chance
        if not data:
            return chance.choice(TOKENS)
        at = chance.randrange(len(data))
        what = chance.randrange(9)
        if what == 0:
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        if what == 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        if what == 2:
            return data[:at]
        if what == 3:
            return data[:at] + data[at + chance.randrange(1, 60) :]
        if what == 4:
            return data[:at] + data[max(0, at - chance.randrange(1, 60)) :]
        if what == 5:
            other = chance.choice(self._seeds)
            return data[:at] + other[chance.randrange(len(other) + 1) :]
        if what == 6:
            return data[:at] + chance.choice(TOKENS) + data[at + chance.randrange(3) :]
        if what == 7:
            found = _NUMBERS.search(data, at)
            if found is not None:
                return data[: found.start()] + chance.choice(JSON_VALUES[:50]) + data[found.end() :]
        return data[:at] + chance.choice(JSON_VALUES) + data[at:]


def _deep(depth: int) -> Any:
    item: Any = 1
    for _ in range(depth):
        item = [item]
    return item


# What a JSON reader may hand over: more than orjson does, as the client of Elasticsearch reads with the json module.
OBJECTS: list[Any] = [
    None, True, False, 0, 1, -1, 2**53 + 1, 2**62, 2**63, 2**64, 10**4000, 10**5000, -(10**5000), 1.0, -0.0, 1e16, 1e308,
    float("nan"), float("inf"), float("-inf"), "", "1", "0", "\x00", "\ud800", "\udfff\ud800", "\u2028", "\ufeff", "٣",
    "9" * 5000, "a" * 5000, "[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"a":' + "1" * 5000 + "}", "AAAA", "AB==", "\n\n",
    '{"client.address":1}', '{"client.address":"AAAA"}', '{"":""}', "[]", "checkpoint", "entry", [], {}, [[]], [{}], {"": 1},
    {"a": {}}, [1, "1", True, None], _deep(50), _deep(300), _deep(900), {"attributes": []}, {"\ud800": "\ud800"},
]  # fmt: skip


def other_object(chance: random.Random, item: Any) -> Any:
    """Return parsed JSON with something in it replaced, removed, added or exchanged; the original stays."""
    if isinstance(item, (dict, list)) and item and chance.random() < 0.93:
        key = chance.choice(list(item)) if isinstance(item, dict) else chance.randrange(len(item))
        copy: Any = item.copy()
        what = chance.random()
        if what < 0.08:
            del copy[key]
        elif what < 0.12:
            other = chance.choice(list(item)) if isinstance(item, dict) else chance.randrange(len(item))
            copy[key], copy[other] = copy[other], copy[key]
        elif what < 0.16:
            if isinstance(copy, dict):
                copy[chance.choice(["", "audit.x", "automation.\ud800", "\u2028", "client.address"])] = chance.choice(
                    OBJECTS
                )
            else:
                copy.append(chance.choice([chance.choice(OBJECTS), item[key]]))
        else:
            copy[key] = other_object(chance, item[key])
        return copy
    if isinstance(item, str) and item and chance.random() < 0.5:
        at = chance.randrange(len(item))
        return item[:at] + chance.choice(["", "\ud800", "\x00", "0", "A", "\n", "٣", item]) + item[at + 1 :]
    if type(item) is int and chance.random() < 0.5:
        return chance.choice([item + 1, item - 1, -item, "1", bool(item), item * 2**60])
    return chance.choice(OBJECTS)
