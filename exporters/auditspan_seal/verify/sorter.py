# SPDX-License-Identifier: Apache-2.0
"""A source for what comes in any order: sorts it in a temporary database, not in memory.

Only what an entry comes down to is kept (see :mod:`.facts`), not its document.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from auditspan_seal.errors import SourceError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import HASH_SIZE
from auditspan_seal.verify.facts import MAX_INDEX, SPAN, Extra, Fact
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.report import Code
from auditspan_seal.verify.runs import Row, Run, Sorted, overlapping
from auditspan_seal.verify.source import Feed, Pick

_CHUNK = 2000  # rows written at once
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -16000;
PRAGMA temp_store = FILE;
CREATE TABLE entry (origin TEXT, at INTEGER, leaf BLOB, kind TEXT, segment TEXT, number INTEGER, time INTEGER,
                    span TEXT, document TEXT, container TEXT, compared INTEGER, more BLOB);
CREATE TABLE run (origin TEXT, first INTEGER, end INTEGER, latest INTEGER, data BLOB);
CREATE TABLE checkpoint (origin TEXT, first INTEGER, size INTEGER, note TEXT, frontier BLOB, leaves BLOB,
                         document TEXT, problem TEXT);
"""
_ENTRY = "SELECT origin, at, leaf, kind, segment, number, time, span, document, container, compared, more FROM entry "
_RUN = "SELECT origin, first, data FROM run "
_CHECKPOINT = "SELECT origin, first, note, frontier, leaves, document, problem FROM checkpoint "
_ALSO_CLAIMED = (
    "SELECT rowid FROM run WHERE EXISTS (SELECT 1 FROM entry WHERE origin = run.origin AND at >= first AND at < end)"
)
_COVERS = "SELECT first FROM checkpoint WHERE origin = ? AND size > ? AND first <= ? ORDER BY first LIMIT 1"


class Sorter:
    """Takes checkpoints and entries in any order, and is then a source that has them in order.

    Args:
        copies: see :class:`.source.Source`.
    """

    lines = False

    def __init__(self, *, copies: bool = False) -> None:
        self.copies = copies
        try:
            self._database = sqlite3.connect("", isolation_level=None)  # a file of its own, gone when it is closed
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise _no_room(error) from None
        self._entries: list[tuple[Any, ...]] = []
        self._runs: list[Row] = []
        self._checkpoints: list[tuple[Any, ...]] = []
        self._indexed = False
        self.filtered = False
        """Whether only wanted entries were added."""

    def close(self) -> None:
        """Remove the database."""
        self._database.close()

    def add(self, fact: Fact) -> None:
        """Add an entry."""
        self.add_row(row_of(fact))

    def add_row(self, row: tuple[Any, ...]) -> None:
        """Add what :func:`row_of`, here or in :mod:`.verbatim`, returned for an entry."""
        self._entries.append(stored(row))
        if len(self._entries) >= _CHUNK:
            self._write()

    def add_run(self, run: Row) -> None:
        """Add what :meth:`.runs.Run.written` returned."""
        self._runs.append(run)
        if len(self._runs) >= _CHUNK // 20:
            self._write()

    def add_checkpoint(self, item: CheckpointItem) -> None:
        """Add a checkpoint."""
        batch = item.batch
        if batch is None:
            row: tuple[Any, ...] = (item.origin, -1, -1, None, None, None, item.document_id, item.problem)
        elif batch.first >= MAX_INDEX:
            problem = "Its first index is beyond all bounds."
            row = (item.origin, -1, -1, None, None, None, item.document_id, problem)
        else:
            row = (
                item.origin, batch.first, batch.size, batch.note, b"".join(batch.frontier), b"".join(batch.leaves),
                item.document_id, None,
            )  # fmt: skip
        self._checkpoints.append(tuple(map(_storable, row)))
        if len(self._checkpoints) >= _CHUNK // 20:
            self._write()

    # -- as a source -------------------------------------------------------------------------------------------

    def origins(self) -> Sequence[str]:
        """See :class:`.source.Source`."""
        self._write()
        if not self._indexed:
            self._run("CREATE INDEX of_entry ON entry (origin, at)")
            self._run("CREATE INDEX of_run ON run (origin, first)")
            self._part()
            self._run("CREATE INDEX of_checkpoint ON checkpoint (origin, first, size)")
            self._indexed = True
        query = (
            "SELECT DISTINCT origin FROM entry WHERE at >= 0 UNION SELECT DISTINCT origin FROM run UNION "
            "SELECT DISTINCT origin FROM checkpoint"
        )
        return sorted(row[0] for row in self._run(query))

    def read(self, origin: str, begin: int = 0) -> tuple[Iterator[CheckpointItem], Feed]:
        """See :class:`.source.Source`."""
        first = self._covering(origin, begin) if begin else 0
        return self._checkpoint_rows(origin, first), self._sorted(origin, first, MAX_INDEX)

    def checkpoints(self, origin: str) -> Iterator[CheckpointItem]:
        """See :class:`.source.Source`."""
        return self._checkpoint_rows(origin, 0)

    def at(self, origin: str, indexes: Sequence[int]) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        for index in indexes:
            yield from self._range(origin, index, index + 1)

    def loose(self) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        return map(_fact, self._run(_ENTRY + "WHERE at < 0 ORDER BY rowid"))

    def picked(
        self, origin: str, pick: Pick, before: int | None = None
    ) -> Iterator[tuple[CheckpointItem | None, list[Fact]]]:
        """See :class:`.source.Source`. Spans are picked when they are added, or not at all: no statement is kept."""
        query = _ENTRY + "WHERE origin = ? AND at >= 0 AND at < ? AND (? OR kind != ?) ORDER BY at"
        values = (origin, MAX_INDEX if before is None else before, self.filtered, SPAN)
        wanted = (
            fact
            for fact in map(_fact, self._run(query, *values))
            if fact.kind == SPAN or pick(fact.more.statement or b"")
        )
        return grouped(wanted, lambda index: self._at_checkpoint(origin, index))

    def first_since(self, origin: str, moment: int) -> int:
        """See :class:`.source.Source`."""
        row = self._run("SELECT min(at) FROM entry WHERE origin = ? AND at >= 0 AND time >= ?", origin, moment)
        found = next(row, (None,))[0]
        query = _RUN + "WHERE origin = ? AND latest >= ? ORDER BY first LIMIT 1"
        for run in map(_read_run, self._run(query, origin, moment)):
            index = next(run.first + at for at, time in enumerate(run.times) if time >= moment)
            found = index if found is None else min(index, found)
        if found is None:
            found = next(self._run("SELECT max(first) FROM checkpoint WHERE origin = ?", origin), (None,))[0]
        return int(found or 0)

    def _at_checkpoint(self, origin: str, index: int) -> CheckpointItem | None:
        query = _CHECKPOINT + "WHERE origin = ? AND first <= ? AND size > ? ORDER BY first LIMIT 1"
        return next(map(_item, self._run(query, origin, index, index)), None)

    def _covering(self, origin: str, index: int) -> int:
        found = next(self._run(_COVERS, origin, index, index), None)
        return found[0] if found is not None else index

    def _range(self, origin: str, begin: int, end: int) -> Iterator[Fact]:
        return self._sorted(origin, begin, end).below(end)

    def _sorted(self, origin: str, begin: int, end: int) -> Sorted:
        query = _ENTRY + "WHERE origin = ? AND at >= ? AND at < ? ORDER BY at, rowid"
        facts = map(_fact, self._run(query, origin, begin, end))
        query = _RUN + "WHERE origin = ? AND first < ? AND end > ? ORDER BY first"
        runs = (run.cut(begin, end) for run in map(_read_run, self._run(query, origin, end, begin)))
        return Sorted(facts, runs, lambda low, high: self._range(origin, low, high))

    def _part(self) -> None:
        """Sort the entries of runs one by one where they claim the same place as others."""
        numbers = overlapping(self._run("SELECT rowid, origin, first, end FROM run ORDER BY origin, first, rowid"))
        numbers.update(number for (number,) in self._run(_ALSO_CLAIMED))
        for number in sorted(numbers):
            for run in map(_read_run, list(self._run(_RUN + "WHERE rowid = ?", number))):
                self._entries += map(row_of, run.facts())
            self._run("DELETE FROM run WHERE rowid = ?", number)
            self._write()

    def _checkpoint_rows(self, origin: str, first: int) -> Iterator[CheckpointItem]:
        query = _CHECKPOINT + "WHERE origin = ? AND (first >= ? OR first < 0) ORDER BY first, size, rowid"
        return map(_item, self._run(query, origin, first))

    # -- the database ------------------------------------------------------------------------------------------

    def _run(self, query: str, *values: Any) -> Iterator[Any]:
        try:
            return iter(self._database.execute(query, values))
        except sqlite3.Error as error:
            raise _no_room(error) from None

    def _write(self) -> None:
        entries, self._entries = self._entries, []
        runs, self._runs = self._runs, []
        checkpoints, self._checkpoints = self._checkpoints, []
        try:
            self._database.execute("BEGIN")
            try:
                self._insert(entries)
            except UnicodeEncodeError:  # rare enough not to look for it in every text
                self._database.execute("ROLLBACK")
                self._database.execute("BEGIN")
                self._insert([tuple(map(_storable, row)) for row in entries])
            self._database.executemany("INSERT INTO run VALUES (?,?,?,?,?)", runs)
            self._database.executemany("INSERT INTO checkpoint VALUES (?,?,?,?,?,?,?,?)", checkpoints)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _no_room(error) from None

    def _insert(self, entries: list[tuple[Any, ...]]) -> None:
        self._database.executemany("INSERT INTO entry VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", entries)


def _no_room(error: sqlite3.Error) -> SourceError:
    return SourceError(
        f"What was read cannot be sorted in a temporary database: {error}.",
        "Make room in the temporary folder (about 200 bytes for each record), or set TMPDIR to another one.",
    )


def grouped(facts: Iterable[Fact], covering: Any) -> Iterator[tuple[CheckpointItem | None, list[Fact]]]:
    """Put entries together that one checkpoint covers.

    Args:
        facts: entries in the order of their index.
        covering: returns the checkpoint that covers an index; None: there is none.
    """
    item: CheckpointItem | None = None
    group: list[Fact] = []
    for fact in facts:
        size = item.batch.size if item is not None and item.batch is not None else 0
        if group and not (item is not None and fact.index < size):
            yield item, group
            group = []
        if not group:
            item = covering(fact.index)
        group.append(fact)
    if group:
        yield item, group


def row_of(fact: Fact) -> tuple[Any, ...]:
    """Return an entry as a row."""
    extra = fact.more
    more = None
    if extra.statement is not None or extra.flaws or extra.values or extra.present or extra.stated or fact.index < 0:
        more = _more(extra)
    return (
        fact.origin, fact.index, fact.leaf, fact.kind, fact.segment, fact.number, fact.time,
        extra.span_id, extra.document_id, extra.container, extra.compared, more,
    )  # fmt: skip


def stored(row: Row) -> Row:
    """Return a row as it is kept by itself; see :func:`.verbatim.row_of` for what its last column may be before."""
    return (*row[:-1], _more(Extra(present=row[-1]))) if row[-1].__class__ is tuple else row


def _more(extra: Extra) -> bytes:
    """Write what has no column of its own."""
    shown = [part if _plain(part) else None for part in extra.shown]
    statement = extra.statement.decode("utf-8", "replace") if extra.statement is not None else None
    parts = [statement, extra.flaws, extra.values, extra.present, extra.stated, shown]
    try:
        return orjson.dumps(parts)
    except TypeError:  # text that is no UTF-8: half of a surrogate pair in a name
        return orjson.dumps(_clean(parts))


def _plain(part: Any) -> bool:
    return isinstance(part, str) or (type(part) is int and abs(part) < 2**63)


def _fact(row: tuple[Any, ...]) -> Fact:
    origin, at, leaf, kind, segment, number, time, span, document, container, compared, more = row
    extra = Extra(compared=bool(compared), span_id=span, document_id=document, container=container)
    if more is not None:
        statement, flaws, values, present, extra.stated, shown = orjson.loads(more)
        extra.statement = statement.encode() if statement is not None else None
        extra.flaws = [(Code(code), message, name) for code, message, name in flaws]
        extra.values = [(name, gone, message) for name, gone, message in values]
        extra.present = tuple(present)
        extra.shown = tuple(shown)
    return Fact(leaf, origin, at, kind, segment, number, time, extra)


def _read_run(row: Row) -> Run:
    return Run.kept(*row)


def _item(row: tuple[Any, ...]) -> CheckpointItem:
    origin, first, note, frontier, leaves, document, problem = row
    if note is None:
        return CheckpointItem(origin, None, document, problem)
    return CheckpointItem(origin, Batch(note, first, _hashes(frontier), _hashes(leaves)), document)


def _hashes(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined[at : at + HASH_SIZE] for at in range(0, len(joined), HASH_SIZE))


def _clean(value: Any) -> Any:
    """Return a value with all text in it as UTF-8 can have it."""
    if isinstance(value, (list, tuple)):
        return [_clean(part) for part in value]
    return statements.text(value) if type(value) is str else value


def _storable(value: Any) -> Any:
    """Return a value that the database takes: text that is no UTF-8 is none."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "replace").decode()
    return value
