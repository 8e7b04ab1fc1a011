# SPDX-License-Identifier: Apache-2.0
"""Says how far a long verification is."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 2.0  # seconds between two lines


class Progress:
    """Tells how far something is, at most every :data:`EVERY` seconds.

    Args:
        tell: takes one line of text.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._begin = self._last = time.monotonic()

    def at(self, records: int, share: float | None = None) -> None:
        """Say where it is.

        Args:
            records: how many records were looked at.
            share: of the whole, 0 to 1; None: not known.
        """
        now = time.monotonic()
        if now - self._last < EVERY:
            return
        self._last = now
        done = f", {min(share, 1):.0%} done" if share is not None else ""
        self._tell(f"{records} records, {records / (now - self._begin):.0f} records/s{done}")

    def say(self, text: str) -> None:
        """Say something else."""
        self._tell(text)


SILENT = Progress(lambda text: None)
