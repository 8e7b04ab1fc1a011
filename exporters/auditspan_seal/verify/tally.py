# SPDX-License-Identifier: Apache-2.0
"""What a verification must remember of a log while it walks along it; small, whatever the size of the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from auditspan_seal.verify.personal import still_here
from auditspan_seal.verify.report import Code, Finding

PER_STREAM = 100  # missing running numbers that are said, for each process stream
_MOST_GAPS = 100_000  # ranges of missing running numbers that are remembered
_PAGE = 8192  # indexes to a page of a set


class IndexSet:
    """A set of indexes: a bit for each, in pages; a page only where there is one."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, index: int) -> bool:
        page = self._pages.get(index // _PAGE)
        return page is not None and bool(page[index % _PAGE // 8] >> index % 8 & 1)

    def add(self, index: int) -> None:
        """Add an index."""
        if index not in self:
            self._pages.setdefault(index // _PAGE, bytearray(_PAGE // 8))[index % _PAGE // 8] |= 1 << index % 8
            self._count += 1

    def discard(self, index: int) -> bool:
        """Remove an index; returns whether it was there."""
        if index not in self:
            return False
        self._pages[index // _PAGE][index % _PAGE // 8] &= ~(1 << index % 8)
        self._count -= 1
        return True

    def __iter__(self) -> Iterator[int]:
        for number in sorted(self._pages):
            for at, byte in enumerate(self._pages[number]):
                if byte:
                    yield from (number * _PAGE + at * 8 + bit for bit in range(8) if byte >> bit & 1)


@dataclass
class Numbers:
    """Running numbers of the process streams: of each only the first and last that were seen.

    They come in order, because the sequencer takes them in order.

    Attributes:
        whole: whether the log was read from its beginning; else a stream may begin with any number.
        last: stream → last number.
        first: stream → first number.
        gaps: stream, first and last of numbers that were skipped.
        lost: whether there were more gaps than are remembered.
    """

    whole: bool = True
    last: dict[str, int] = field(default_factory=dict)
    first: dict[str, int] = field(default_factory=dict)
    gaps: list[tuple[str, int, int]] = field(default_factory=list)
    lost: bool = False

    def see(self, stream: str, number: int) -> bool:
        """See a number of a stream.

        Returns:
            whether it may be the first time that it is seen.
        """
        last = self.last.get(stream)
        if last is None:
            self.first[stream] = number
            last = 0 if self.whole else number - 1
        if number > last:
            self._skip(stream, last + 1, number - 1)
            self.last[stream] = number
            return True
        first = self.first.get(stream, 1)
        if number < first and not self.whole:  # an entry from the beginning of what was read, found late
            self._skip(stream, number + 1, first - 1)
            self.first[stream] = number
            return True
        return self._fill(stream, number) or self.lost

    def continued_by(self, other: Numbers) -> bool:
        """Tell whether all numbers that were seen in another range come after those of this one."""
        return all(first > self.last.get(stream, 0) for stream, first in other.first.items())

    def join(self, other: Numbers) -> None:
        """Go on with what was seen in the range after this one."""
        for stream, first in other.first.items():
            self.see(stream, first)
            self.last[stream] = max(self.last[stream], other.last[stream])
        for gap in other.gaps:
            self._skip(*gap)
        self.lost |= other.lost

    def missing(self) -> Iterator[tuple[str, int]]:
        """Say which numbers never came, of each stream the first :data:`PER_STREAM`."""
        said: dict[str, int] = {}
        for stream, low, high in sorted(self.gaps):
            for number in range(low, high + 1):
                said[stream] = said.get(stream, 0) + 1
                if said[stream] > PER_STREAM:
                    break
                yield stream, number

    def _skip(self, stream: str, low: int, high: int) -> None:
        if low > high:
            return
        if len(self.gaps) < _MOST_GAPS:
            self.gaps.append((stream, low, high))
        else:
            self.lost = True

    def _fill(self, stream: str, number: int) -> bool:
        for at, (name, low, high) in enumerate(self.gaps):
            if name == stream and low <= number <= high:
                del self.gaps[at]
                self._skip(stream, low, number - 1)
                self._skip(stream, number + 1, high)
                return True
        return False


@dataclass(frozen=True)
class Held:
    """A personal value that is gone or wrong, until it is known whether it was erased on record."""

    gone: bool
    message: str
    span_id: str | None = None
    document_id: str | None = None


@dataclass
class Values:
    """Personal values that do not open, and erasures that speak of others. An erasure comes after what it erases.

    Attributes:
        held: index and attribute → what is not as it should be, unless an erasure says so.
        doubtful: index and attribute → index of an erasure that speaks of it though nothing is held: the value is
            still there, or its entry is not.
        erased: how many values are gone on record.
        at: indexes of the erasure entries that speak of them.
    """

    held: dict[tuple[int, str], Held] = field(default_factory=dict)
    doubtful: dict[tuple[int, str], int] = field(default_factory=dict)
    erased: int = 0
    at: set[int] = field(default_factory=set)

    def hold(self, key: tuple[int, str], held: Held) -> Iterator[Finding]:
        """Remember a value that does not open."""
        at = self.doubtful.pop(key, None)
        self.held[key] = held
        if at is not None:  # its entry was found late, after the erasure
            yield from self.erase(at, [key])

    def erase(self, at: int, values: Iterable[tuple[int, str]]) -> Iterator[Finding]:
        """Take note of an erasure entry."""
        for key in values:
            held = self.held.pop(key, None)
            if held is None:
                self.doubtful.setdefault(key, at)
            elif held.gone:
                self.erased += 1
                self.at.add(at)
            else:
                yield present(key, at, held.span_id, held.document_id)

    def left(self) -> Iterator[Finding]:
        """Say what is still held at the end of the log."""
        for (index, name), held in self.held.items():
            code = Code.VALUE_REMOVED if held.gone else Code.FIELD_MISMATCH
            yield Finding(code, held.message, None, index, held.span_id, held.document_id, f"attributes.{name}")


def present(key: tuple[int, str], at: int, span_id: str | None, document_id: str | None) -> Finding:
    """Say that a value is there though it was erased on record."""
    index, name = key
    return Finding(Code.ERASED_VALUE_PRESENT, still_here(at), None, index, span_id, document_id, f"attributes.{name}")
