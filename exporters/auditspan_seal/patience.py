# SPDX-License-Identifier: Apache-2.0
"""Waits for a disk that is full or fails, where ``AUDITSPAN_WHEN_FULL`` says so and as long as it says."""

from __future__ import annotations

import time
from collections.abc import Callable

from auditspan_seal import modes as modes_
from auditspan_seal.errors import DirectoryError
from auditspan_seal.log.segment import Make, Ready, SegmentWriter
from auditspan_seal.modes import Modes
from auditspan_seal.synced import may_wait

RETRY = 0.05  # seconds between attempts to write a record


class PatientWriter:
    """Appends, and tries again if that cannot be.

    Args:
        writer: of the segments.
        modes: whether it waits, and how long.
        report: is told that it waits; None: it does not any more.

    Attributes:
        full: the last record could not be written, in all that time.
    """

    def __init__(self, writer: SegmentWriter, modes: Modes, report: Callable[[str | None], None]) -> None:
        self._writer, self._modes, self._report = writer, modes, report
        self.full = False

    def append(self, make: Make, ready: Ready | None) -> tuple[str, int] | None:
        """See :meth:`SegmentWriter.append`.

        Raises:
            DirectoryError: it could not be written.
        """
        try:
            return self._writer.append(make, ready)
        except DirectoryError:
            if self._modes.when_full != modes_.BLOCK or self.full or not may_wait():
                raise
        # Once this has taken its time in vain, the next ones are counted at once: the application goes on.
        deadline = time.monotonic() + self._modes.max_wait
        self._report("span.end() waits: a record cannot be written, as the disk is full or fails.")
        while True:
            left = deadline - time.monotonic()
            time.sleep(max(0.0, min(left, RETRY)))
            try:
                recorded = self._writer.append(make, ready)
                self._report(None)
                return recorded
            except DirectoryError:
                if left <= 0:
                    self.full = True
                    raise
