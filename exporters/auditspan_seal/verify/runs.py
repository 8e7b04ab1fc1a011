# SPDX-License-Identifier: Apache-2.0
"""Entries that were found in the order of their log: kept together, in columns, instead of being sorted one by one.

A file has most of what it has in the order in which it was sent. What stands there in a row, and of which nothing is
to be said, is kept as one run; where runs or entries claim the same place, they are sorted one by one after all.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import HASH_SIZE
from auditspan_seal.verify.entries import Entries
from auditspan_seal.verify.facts import SPAN, Extra, Fact

_SHORTEST = 8  # entries: fewer are sorted one by one

Row = tuple[Any, ...]
"""See :func:`.sorter.row_of`."""


class Run(Entries):
    """Spans of one log with consecutive indexes, in visible documents that say what they say.

    Args:
        origin: the log.
        first: index of the first.
        columns: leaf hashes, process streams, running numbers, times, span IDs, places, names of the personal values
            that are there and open.
        container: the file that they were found in.
    """

    __slots__ = ("_container", "_documents", "_names", "_spans")

    def __init__(self, origin: str, first: int, columns: Sequence[list[Any]], container: str) -> None:
        super().__init__(origin, container)
        self.compared = True
        self.first = first
        self._container = container
        self.leaves, self.segments, self.numbers, self.times, self._spans, self._documents, self._names = columns
        self.opened = {at: (names, self._spans[at]) for at, names in enumerate(self._names) if names}
        self._add_places(len(self.leaves))

    @property
    def end(self) -> int:
        """The index after the last."""
        return self.first + len(self.leaves)

    def written(self) -> Row:
        """Return it as it is kept: log, first index, the one after the last, latest time, columns."""
        leaves = b"".join(self.leaves)
        rest = (self.segments, self.numbers, self.times, self._spans, self._documents, self._names)
        return self._origin, self.first, self.end, max(self.times), marshal.dumps((leaves, *rest, self._container))

    @classmethod
    def kept(cls, origin: str, first: int, data: bytes) -> Run:
        """Read what :meth:`written` wrote."""
        leaves, *columns, container = marshal.loads(data)  # noqa: S302 (of our own database)
        hashes = [leaves[at : at + HASH_SIZE] for at in range(0, len(leaves), HASH_SIZE)]
        return cls(origin, first, [hashes, *columns], container)

    def cut(self, begin: int, end: int) -> Run:
        """Return the part between two indexes."""
        if begin <= self.first and end >= self.end:
            return self
        part = slice(max(0, begin - self.first), max(0, end - self.first))
        columns = (
            self.leaves, self.segments, self.numbers, self.times, self._spans, self._documents, self._names
        )  # fmt: skip
        return Run(self._origin, self.first + part.start, [column[part] for column in columns], self._container)

    def fact(self, at: int) -> Fact:
        """Return the entry at a position of the columns."""
        fact = super().fact(at)
        fact.extra = Extra(
            present=self._names[at],
            compared=True,
            span_id=self._spans[at],
            document_id=self._documents[at],
            container=self._container,
        )
        return fact


def in_runs(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Put together what stands in a row.

    Args:
        rows: entries, as they were found.

    Returns:
        what is to be sorted one by one, and runs as :meth:`Run.written` returns them.
    """
    single: list[Row] = []
    runs: list[Row] = []
    group: list[Row] = []
    expected: tuple[Any, ...] = ()

    def close() -> None:
        if len(group) < _SHORTEST:
            single.extend(group)
        else:
            origins, indexes, leaves, _, segments, numbers, times, spans, places, containers, _, names = zip(
                *group, strict=True
            )
            names = tuple(found or () for found in names)
            columns = list(map(list, (leaves, segments, numbers, times, spans, places, names)))
            runs.append(Run(origins[0], indexes[0], columns, containers[0]).written())

    for row in rows:
        origin, index, leaf, kind, _, number, _, span, place, container, compared, more = row
        if (origin, index, container) != expected:
            close()
            group = []
        plain = (
            (more is None or more.__class__ is tuple)
            and kind == SPAN
            and compared
            and leaf
            and number
            and span
            and place
            and container
        )
        if not plain or index < 0:
            close()
            group = []
            single.append(row)
            expected = ()
        else:
            group.append(row)
            expected = (origin, index + 1, container)
    close()
    return single, runs


class Sorted:
    """A feed over entries and runs, each in order, of which no two claim the same place.

    Args:
        facts: the entries.
        runs: the runs.
        again: reads a range of all of them once more.
    """

    def __init__(self, facts: Iterator[Fact], runs: Iterator[Run], again: Callable[[int, int], Iterable[Fact]]) -> None:
        self._facts, self._runs, self._again = facts, runs, again
        self._fact: Fact | None = None
        self._run: Run | None = None
        self._begun = False

    def below(self, limit: int) -> Iterator[Fact]:
        """See :class:`.source.Feed`."""
        self._begin()
        while True:
            fact, run = self._fact, self._run
            if run is not None and run.first < limit and (fact is None or run.first < fact.index):
                self._cut(limit)
                yield from run.cut(run.first, limit).facts()
            elif fact is not None and fact.index < limit:
                self._fact = next(self._facts, None)
                yield fact
            else:
                return

    def preview(self, begin: int, end: int) -> Iterable[Fact]:
        """See :class:`.source.Feed`."""
        return self._again(begin, end)

    def whole(self, batch: Batch) -> Entries | None:
        """See :class:`.source.Feed`."""
        self._begin()
        fact, run = self._fact, self._run
        if run is None or not run.first == batch.first < batch.size <= run.end:
            return None
        part = run.cut(batch.first, batch.size)
        if not part.are(batch) or (fact is not None and fact.index < batch.size):
            return None
        self._cut(batch.size)
        return part

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._fact, self._run = next(self._facts, None), next(self._runs, None)

    def _cut(self, limit: int) -> None:
        """Go on with what a run has from an index on, or with the next one."""
        run = self._run
        assert run is not None
        self._run = run.cut(limit, run.end) if limit < run.end else next(self._runs, None)


def overlapping(places: Iterable[tuple[int, str, int, int]]) -> set[int]:
    """Find runs that claim a place that others claim, too.

    Args:
        places: number, log, first index and the one after the last of each, in the order of log and first index.
    """
    found: set[int] = set()
    widest: tuple[int, str, int] | None = None
    for number, origin, first, end in places:
        if widest is not None and widest[1] == origin and first < widest[2]:
            found |= {number, widest[0]}
        if widest is None or widest[1] != origin or end > widest[2]:
            widest = number, origin, end
    return found
