# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a log's keys while it is read: little, however long the log is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from auditspan_seal.formats.note import Note, VerifierKey


@dataclass
class Signed:
    """Which of the checkpoints that a key signed: how many, and the first and last tree size."""

    count: int = 0
    first: int = 0
    last: int = 0

    def add(self, size: int) -> None:
        """Take in one more, of a larger tree."""
        self.first = size if self.count == 0 else self.first
        self.count, self.last = self.count + 1, size

    def uncovered(self, covered: Callable[[int], bool]) -> tuple[int, int] | None:
        """Return the smallest size that nothing covers, and the last one; None if all are covered."""
        if self.count == 0 or covered(self.last):
            return None
        low, high = self.first, self.last  # `high` is not covered
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if covered(middle) else (low, middle)
        return low, self.last


@dataclass
class Era:
    """The part of a log that one key signs.

    Attributes:
        key: it.
        begin: index of the entry that says so; None: not seen, the beginning of the log is not there.
        time: what that entry states, in nanoseconds since the epoch.
        not_after: when the key expires.
        signed: the checkpoints that it signed.
        late: those of them that state a time at which it had expired.
    """

    key: VerifierKey
    begin: int | None
    time: int = 0
    not_after: int | None = None
    signed: Signed = field(default_factory=Signed)
    late: Signed = field(default_factory=Signed)

    def __str__(self) -> str:
        return self.key.key_id.hex()


@dataclass(frozen=True)
class Seen:
    """A checkpoint that waits until it is known who should have signed it."""

    note: Note
    first: int
    size: int
    latest: int | None


def when(nanoseconds: int) -> str:
    """Return a time for people."""
    try:
        return datetime.fromtimestamp(nanoseconds // 1_000_000_000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns"
