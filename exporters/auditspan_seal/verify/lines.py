# SPDX-License-Identifier: Apache-2.0
"""Reads log files batch by batch, as the log's own reader does, and judges each entry while it is at hand.

Of a batch only what its entries come down to is held, not their bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import CHECKPOINT, ENTRY, PRIVATE_MARK, Batch
from auditspan_seal.log import reader
from auditspan_seal.verify.facts import MAX_INDEX, SPAN, Fact, examine
from auditspan_seal.verify.items import CheckpointItem, EntryItem, openings_of
from auditspan_seal.verify.source import Pick

_AT_ONCE = 512  # statements whose canonical form is checked together
_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


@dataclass(frozen=True)
class Block:
    """A batch.

    Attributes:
        batch: its checkpoint.
        facts: its entries.
        after: the place after it.
    """

    batch: Batch
    facts: list[Fact]
    after: reader.Cursor

    def item(self, origin: str) -> CheckpointItem:
        """Return the checkpoint as it was found."""
        return CheckpointItem(origin, self.batch, f"log/{self.after.file}")


def blocks(
    folder: Path,
    origin: str,
    start: reader.Cursor,
    stop: reader.Cursor | None = None,
    pick: Pick | None = None,
    known: int = 0,
) -> Iterator[Block | reader.Tail]:
    """Read all batches from one place to another; a Tail where a file does not end with a checkpoint.

    Args:
        folder: the folder of the log files.
        origin: the log.
        start: a place between two batches.
        stop: another; None: the end.
        pick: which entries to judge; None: all.
        known: entries below this index need not be judged.

    Raises:
        DirectoryError: a file cannot be read.
        MalformedLog: a line is not what it begins as.
    """
    for name in reader.files(folder):
        if name < start.file or (stop is not None and name > stop.file):
            continue
        end = stop.offset if stop is not None and name == stop.file else None
        path, offset = folder / name, start.offset if name == start.file else 0
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                size = os.fstat(file.fileno()).st_size if end is None else end
                yield from _blocks(file, name, origin, offset, size, pick, known)
        except OSError as error:
            raise DirectoryError(
                f"The log file {path} cannot be read: {error.strerror}.", "Check its permissions."
            ) from None


def _blocks(
    file: Iterable[bytes], name: str, origin: str, offset: int, end: int, pick: Pick | None, known: int
) -> Iterator[Block | reader.Tail]:
    loads, sha256, readable, no_values = orjson.loads, hashlib.sha256, statements.READABLE, {dict}.isdisjoint
    place = f"log/{name}"
    facts: list[Fact] = []
    plain = _Plain(origin, place)
    begin, first = offset, 0
    if offset or not name[:20].isdecimal():
        known = 0
    elif known:
        first = int(name[:20])  # the name of a log file is the index of its first entry
    index = first
    for line in file:
        if offset >= end or line[-1:] != b"\n":
            break
        offset += len(line)
        kind = line[:2]
        if kind == CHECKPOINT:
            plain.check(facts)
            batch = Batch.parse(line[:-1])
            _align(facts, batch, index - first, first)
            yield Block(batch, facts, reader.Cursor(name, offset))
            facts, begin, first, index = [], offset, batch.size, batch.size
            continue
        # A damaged line stands in the place of an entry, and as such it will be found.
        statement, private = line[2:-1] if kind == ENTRY else line[:-1], b""
        index += 1
        if PRIVATE_MARK in statement and kind == ENTRY:
            statement, _, private = statement.partition(PRIVATE_MARK)
        if index <= known or (pick is not None and not pick(statement)):
            continue
        fact = None
        if not private:
            try:  # the common case, and nothing but it: a span with all it must have, without personal values
                fields = loads(statement)
                if fields["type"] == SPAN and fields["origin"] == origin and fields["v"] in readable:
                    number, segment = fields["number"], fields["segment"]
                    if (
                        number.__class__ is int
                        and fields["v"].__class__ is int
                        and segment.__class__ is str
                        and 0 < number < MAX_INDEX
                        and no_values(map(type, fields["attributes"].values()))
                    ):
                        leaf = sha256(b"\0" + statement).digest()
                        fact = Fact(leaf, origin, index - 1, SPAN, segment, number, int(fields["end"]))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                pass  # said below, in words
        if fact is not None:
            plain.add(len(facts), statement, fields)
            if len(plain) >= _AT_ONCE:
                facts.append(fact)
                plain.check(facts)
                continue
        facts.append(fact or examine(EntryItem(statement, origin, index - 1, None, place, None, openings_of(private))))
    plain.check(facts)
    if end > begin:
        yield reader.Tail(name, begin, end - begin)


class _Plain:
    """Statements of plain spans whose canonical form is still to be checked: many at once, which costs half.

    Each was parsed by itself, so each text is one JSON object; texts and what is written anew, both joined by commas,
    can only be equal if each is.
    """

    def __init__(self, origin: str, place: str) -> None:
        self._origin, self._place = origin, place
        self._at: list[int] = []
        self._texts: list[bytes] = []
        self._fields: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._at)

    def add(self, at: int, text: bytes, fields: dict[str, Any]) -> None:
        """Add one: its place among the facts, its text, and what was read from that."""
        self._at.append(at)
        self._texts.append(text)
        self._fields.append(fields)

    def check(self, facts: list[Fact]) -> None:
        """Check all that were added; of those that are not canonical, say so."""
        if not self._at:
            return
        try:
            same = orjson.dumps(self._fields, option=_CANONICAL) == b"[%b]" % b",".join(self._texts)
        except TypeError:
            same = False
        if not same:
            for at, text in zip(self._at, self._texts, strict=True):
                facts[at] = examine(EntryItem(text, self._origin, facts[at].index, None, self._place))
        self._at, self._texts, self._fields = [], [], []


def _align(facts: list[Fact], batch: Batch, count: int, first: int) -> None:
    """Give the entries of a batch the indexes that their places in the file claim.

    If there are more than the checkpoint covers, those before its batch have lost their own checkpoint, or some were
    put in; which it is their leaf hashes tell.

    Args:
        facts: the entries that were judged, with the indexes they would have if the first were `first`.
        batch: the batch.
        count: how many entries stand there.
        first: see `facts`.
    """
    move = batch.first - max(0, count - len(batch.leaves)) - first
    if move:
        for fact in facts:
            fact.index += move
