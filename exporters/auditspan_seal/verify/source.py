# SPDX-License-Identifier: Apache-2.0
"""What a place to read from must be able to do, so that a log can be walked along in constant memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from auditspan_seal.formats.batch import Batch
from auditspan_seal.verify.facts import Fact, fields_of
from auditspan_seal.verify.items import CheckpointItem

if TYPE_CHECKING:
    from auditspan_seal.verify.entries import Entries

Pick = Callable[[bytes], bool]
"""Says of a statement whether it is wanted."""


class Feed(Protocol):
    """The entries of one log in the order of the index that they claim, each handed out once."""

    def below(self, limit: int) -> Iterator[Fact]:
        """Hand out what claims an index below `limit`. To be used up before anything else is asked for."""

    def preview(self, begin: int, end: int) -> Iterable[Fact]:
        """Look at the entries that claim an index from `begin` to `end` - 1, without handing them out."""

    def whole(self, batch: Batch) -> Entries | None:
        """Hand out the entries of a batch, if it is known already that they are just those; None: it is not."""


class Source(Protocol):
    """A place with checkpoints and entries of logs."""

    @property
    def copies(self) -> bool:
        """Whether a second delivery leaves a second copy there, which is honest."""

    @property
    def lines(self) -> bool:
        """Whether it is the log files themselves, in which everything has one place."""

    def origins(self) -> Sequence[str]:
        """Return the logs that have checkpoints, and those that entries claim to be of."""

    def read(self, origin: str, begin: int = 0) -> tuple[Iterator[CheckpointItem], Feed]:
        """Return the checkpoints of a log in order of first index and size, and its entries.

        Args:
            origin: the log.
            begin: start with the checkpoint that covers this index.
        """

    def checkpoints(self, origin: str) -> Iterator[CheckpointItem]:
        """Return the checkpoints of a log alone, in the same order."""

    def at(self, origin: str, indexes: Sequence[int]) -> Iterator[Fact]:
        """Return the entries that claim one of these indexes (rising)."""

    def first_since(self, origin: str, moment: int) -> int:
        """Return the lowest index of an entry that states a time from `moment` (ns since the epoch) on.

        If there is none, that of the last checkpoint.
        """

    def loose(self) -> Iterator[Fact]:
        """Return what claims no place that it could be read in."""

    def picked(
        self, origin: str, pick: Pick, before: int | None = None
    ) -> Iterator[tuple[CheckpointItem | None, list[Fact]]]:
        """Return the wanted entries, each batch of them with the checkpoint that covers it (None: there is none).

        Args:
            origin: the log.
            pick: which are wanted.
            before: only those that claim an index below this.
        """


class Buffer:
    """A feed for sources that come batch by batch: holds the entries of the batch that was read."""

    def __init__(self) -> None:
        self._facts: list[Fact] = []
        self._batch: Entries | None = None  # comes after the facts

    def put(self, batch: Entries) -> None:
        """Add the entries of a batch, in the order of the index that they claim."""
        self._spread()
        self._batch = batch

    def below(self, limit: int) -> Iterator[Fact]:
        """See :class:`Feed`."""
        facts = self._spread()
        at = len(facts) if facts and facts[-1].index < limit else bisect_left(facts, limit, key=_index)
        self._facts = facts[at:]
        return iter(facts if at == len(facts) else facts[:at])

    def preview(self, begin: int, end: int) -> Iterable[Fact]:
        """See :class:`Feed`."""
        return [fact for fact in self._spread() if begin <= fact.index < end]

    def whole(self, batch: Batch) -> Entries | None:
        """See :class:`Feed`."""
        entries = self._batch
        if entries is None or self._facts or not entries.are(batch):
            return None
        self._batch = None
        return entries

    def _spread(self) -> list[Fact]:
        if self._batch is not None:
            facts, self._batch = self._batch.facts(), None
            # What is left of batches before may claim anything: their checkpoints could not be used.
            self._facts = sorted(self._facts + facts, key=_index) if self._facts else facts
        return self._facts


def _index(fact: Fact) -> int:
    return fact.index


class Stream:
    """A feed over entries that come in order.

    Args:
        facts: the entries.
        again: reads a range of them once more.
    """

    def __init__(self, facts: Iterator[Fact], again: Callable[[int, int], Iterable[Fact]]) -> None:
        self._facts = facts
        self._again = again
        self._head: Fact | None = None
        self._begun = False

    def below(self, limit: int) -> Iterator[Fact]:
        """See :class:`Feed`."""
        if not self._begun:
            self._begun, self._head = True, next(self._facts, None)
        head = self._head
        while head is not None and head.index < limit:
            yield head
            head = next(self._facts, None)
        self._head = head

    def preview(self, begin: int, end: int) -> Iterable[Fact]:
        """See :class:`Feed`."""
        return self._again(begin, end)

    def whole(self, batch: Batch) -> Entries | None:
        """See :class:`Feed`."""
        return None


def first_claims(facts: Iterable[Fact], begin: int) -> Iterator[bytes]:
    """Return the leaf hashes of entries that claim consecutive indexes, of each index the first."""
    expected = begin
    for fact in facts:
        if fact.index == expected and fact.leaf:
            yield fact.leaf
            expected += 1
        elif fact.index >= expected:
            return


def says_control(source: Source, origin: str) -> bool:
    """Tell whether the genesis entry, as it stands there, says that erasures come from control segments only."""
    fields = next((fields_of(fact) for fact in source.at(origin, [0])), None)
    return fields is not None and fields.get("control") is True
