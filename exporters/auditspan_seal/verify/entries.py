# SPDX-License-Identifier: Apache-2.0
"""The entries of a batch as they stand in a log file, in columns.

Nearly all entries are spans of which nothing but leaf hash, stream, number and time is needed. An object for each would
cost more than reading it; so one is only made where something is to be looked into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import orjson

from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK, Batch
from auditspan_seal.native import NATIVE, Native
from auditspan_seal.verify.facts import MAX_INDEX, SPAN, Extra, Fact, examine
from auditspan_seal.verify.items import EntryItem, openings_of
from auditspan_seal.verify.personal import opened
from auditspan_seal.verify.source import Pick

AT_ONCE = 32  # lines that are read together: more do not stay in the processor's cache, and cost half as much again
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_ROW = itemgetter("type", "origin", "v", "number", "segment", "end", "span_id", "attributes")
_READABLE = frozenset(statements.READABLE)
_LATEST = 2**63  # nanoseconds since the epoch


class Entries:
    """The entries of a batch.

    Args:
        origin: the log.
        place: the file, for people.

    Attributes:
        first: index of what stands in the first line of the batch.
        leaves: leaf hash of each.
        segments: process stream of each; empty if it is of none.
        numbers: running number of each there; 0 if it has none.
        times: latest time that each states, nanoseconds since the epoch; 0 if none.
        odd: position in the columns → an entry that is more than a plain span.
        opened: position → names of the personal values of a plain span, which all open, and its span ID.
        compared: whether there were visible documents.
    """

    __slots__ = (
        "_count", "_origin", "_place", "_places", "compared", "first", "leaves", "numbers", "odd", "opened", "segments",
        "times",
    )  # fmt: skip

    def __init__(self, origin: str, place: str) -> None:
        self.first = 0
        self.leaves: list[bytes] = []
        self.segments: list[str] = []
        self.numbers: list[int] = []
        self.times: list[int] = []
        self.odd: dict[int, Fact] = {}
        self.opened: dict[int, tuple[tuple[str, ...], str]] = {}
        self.compared = False
        self._origin, self._place = origin, place
        self._places: list[int] | None = None  # line of each in the batch, once one was left out
        self._count = 0  # lines of the batch

    def __len__(self) -> int:
        return len(self.leaves)

    # -- reading -----------------------------------------------------------------------------------------------

    def read(self, lines: Sequence[bytes], pick: Pick | None = None, known: int = 0) -> None:
        """Judge lines that begin as entries and end with LF.

        Args:
            lines: a few of them, in order.
            pick: which statements are wanted; None: all.
            known: how many of the first need not be judged.
        """
        texts = [line[2:-1] for line in lines]
        if NATIVE is not None and pick is None and known <= 0:
            texts = texts[self._take(texts, NATIVE) :]
            if not texts:
                return
        joined = b",".join(texts)
        beside: dict[int, bytes] = {}
        if PRIVATE_MARK in joined:
            for at, text in enumerate(texts):
                if PRIVATE_MARK in text:
                    texts[at], _, beside[at] = text.partition(PRIVATE_MARK)
            joined = b",".join(texts)
        if pick is None and known <= 0:
            self._read(texts, joined, beside)
            return
        for at, text in enumerate(texts):
            if at < known or (pick is not None and not pick(text)):
                self._leave_out()
            else:
                self._read([text], text, {0: beside[at]} if at in beside else {})

    def read_damaged(self, line: bytes, pick: Pick | None, known: bool) -> None:
        """Judge a line that stands in the place of an entry and does not begin as one; as such it will be found."""
        if known or (pick is not None and not pick(line[:-1])):
            self._leave_out()
        else:
            self._odd(line[:-1], b"", None)

    def _take(self, texts: list[bytes], native: Native) -> int:
        """Add those from the first on that are plain, as :meth:`_plain` would; returns how many."""
        hashed, segments, numbers, times, personal = native.plain(texts, 0, orjson.dumps(self._origin))
        for at, names, span in personal:
            self.opened[len(self.leaves) + at] = names, span
        sha256 = hashlib.sha256
        self.leaves += [sha256(text).digest() for text in hashed]
        self.segments += segments
        self.numbers += numbers
        self.times += times
        self._add_places(len(hashed))
        return len(hashed)

    def _read(self, texts: list[bytes], joined: bytes, beside: dict[int, bytes]) -> None:
        try:
            # Each text is read by itself, and so is one JSON value; all of them together are written anew, which costs
            # a third: texts and what is written, both joined by commas, can only be equal if each is.
            fields = list(map(orjson.loads, texts))
            rows = list(map(_ROW, fields))
            canonical = (
                len(joined) <= statements.MAX_SIZE
                and orjson.dumps(fields, option=_CANONICAL) == b"[%b]" % joined
            )  # fmt: skip
        except (ValueError, TypeError, KeyError, RecursionError):
            canonical = False
        if not canonical:
            for at, text in enumerate(texts):
                self._odd(text, beside.get(at, b""), None)
        elif not self._plain(texts, rows, beside):
            for at, (text, row) in enumerate(zip(texts, rows, strict=True)):
                if not self._plain([text], [row], {0: beside[at]} if at in beside else {}):
                    known = row[2].__class__ is int and row[2] in _READABLE and row[0].__class__ is str
                    self._odd(text, beside.get(at, b""), fields[at] if known else None)

    def _plain(self, texts: Sequence[bytes], rows: Sequence[tuple[Any, ...]], beside: Mapping[int, bytes]) -> bool:
        """Add entries, if all are spans of this log with all that a span must have, and whose personal values open.

        Returns:
            whether they are.
        """
        kinds, origins, versions, numbers, segments, ends, spans, attributes = zip(*rows, strict=True)
        personal: dict[int, tuple[tuple[str, ...], str]] = {}
        try:
            times = list(map(int, ends))
            plain = (
                set(kinds) == {SPAN}
                and set(origins) == {self._origin}
                and set(map(type, versions)) == {int}
                and _READABLE.issuperset(versions)
                and set(map(type, numbers)) == {int}
                and min(numbers) > 0
                and max(numbers) < MAX_INDEX
                and set(map(type, segments)) == {str}
                and min(times) >= 0
                and max(times) < _LATEST
                and set(map(type, attributes)) == {dict}
                and (
                    (not beside and dict not in set(map(type, chain.from_iterable(map(dict.values, attributes)))))
                    or _all_open(attributes, spans, beside, personal)
                )
            )
        except (TypeError, ValueError):
            return False
        if plain:
            for at, found in personal.items():
                self.opened[len(self.leaves) + at] = found
            sha256 = hashlib.sha256
            self.leaves += [sha256(b"\0" + text).digest() for text in texts]
            self.numbers += numbers
            self.segments += segments
            self.times += times
            self._add_places(len(texts))
        return plain

    def _odd(self, text: bytes, private: bytes, fields: dict[str, Any] | None) -> None:
        item = EntryItem(text, self._origin, self._count, None, self._place, None, openings_of(private))
        fact = examine(item, fields)
        self.odd[len(self.leaves)] = fact
        self.leaves.append(fact.leaf)
        self.numbers.append(fact.number)
        self.segments.append(fact.segment)
        self.times.append(fact.time)
        self._add_places(1)

    def _add_places(self, count: int) -> None:
        if self._places is not None:
            self._places += range(self._count, self._count + count)
        self._count += count

    def _leave_out(self) -> None:
        if self._places is None:
            self._places = list(range(self._count))
        self._count += 1

    # -- what was read -----------------------------------------------------------------------------------------

    def align(self, batch: Batch) -> None:
        """Give the entries the indexes that their places in the file claim.

        If there are more than the checkpoint covers, those before its batch have lost their own checkpoint, or some
        were put in; which it is their leaf hashes tell.
        """
        self.first = batch.first - max(0, self._count - len(batch.leaves))
        for at, fact in self.odd.items():
            fact.index = self._index(at)

    def are(self, batch: Batch) -> bool:
        """Tell whether they are the entries that a checkpoint covers, all of them, and each in its place."""
        return self._places is None and self.first == batch.first and tuple(self.leaves) == batch.leaves

    def fact(self, at: int) -> Fact:
        """Return the entry at a position of the columns."""
        fact = self.odd.get(at)
        if fact is None:
            number, time = self.numbers[at], self.times[at]
            fact = Fact(self.leaves[at], self._origin, self._index(at), SPAN, self.segments[at], number, time)
            if at in self.opened:
                names, span = self.opened[at]
                fact.extra = Extra(present=names, span_id=span, document_id=self._place)
        return fact

    def facts(self) -> list[Fact]:
        """Return all of them."""
        return list(map(self.fact, range(len(self.leaves))))

    def _index(self, at: int) -> int:
        return self.first + (at if self._places is None else self._places[at])


def _all_open(
    attributes: Sequence[Mapping[str, Any]],
    spans: Sequence[Any],
    beside: Mapping[int, bytes],
    personal: dict[int, tuple[tuple[str, ...], str]],
) -> bool:
    """Tell whether the personal values of some spans are just those that they commit to; `personal` takes which."""
    for at, said in enumerate(attributes):
        names = opened(said, beside.get(at))
        if names is None or (names and spans[at].__class__ is not str):
            return False
        if names:
            personal[at] = (names, spans[at])
    return True
