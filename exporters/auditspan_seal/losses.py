# SPDX-License-Identifier: Apache-2.0
"""What could not be recorded: counted, and told to the log as soon as it can be (a gap entry)."""

from __future__ import annotations

import time
from collections import Counter

from auditspan_seal.formats import entry
from auditspan_seal.log.segment import SegmentWriter


class Losses:
    """The lost records of a process.

    Args:
        origin: name of the log.

    Attributes:
        count: how many there are.
        untold: of these, those that the log does not know of: why they were lost, and how many.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self.count = 0
        self.untold: Counter[str] = Counter()

    def add(self, error: Exception) -> None:
        """Count a record that was lost because of an error."""
        cause = error.__cause__ or error
        self.count += 1
        self.untold[(isinstance(cause, OSError) and cause.strerror) or type(cause).__name__] += 1

    def tell(self, writer: SegmentWriter) -> None:
        """Have the log say what could not be recorded; nothing happens if that cannot be either."""
        if not self.untold:
            return
        reasons, self.untold = self.untold, Counter()
        why = ", ".join(sorted(reasons))
        count = sum(reasons.values())
        try:
            writer.append(lambda segment, number: entry.lost(self._origin, segment, number, count, why, time.time_ns()))
        except Exception:  # it cannot be yet
            self.untold = reasons + self.untold
