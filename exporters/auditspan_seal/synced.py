# SPDX-License-Identifier: Apache-2.0
"""Waiting until a record is in a signed checkpoint on disk, whichever process makes it (group commit).

Many threads wait for one round of the sequencer. If that is a thread of this process, it tells; else one of those that
wait rings the other process's bell and reads its answer, and tells the others.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping

from auditspan_seal.formats.batch import Position
from auditspan_seal.log import doorbell
from auditspan_seal.log.directory import Directory

OWN_THREADS = "auditspan"
"""What the names of this package's threads begin with: the sequencer cannot wait for itself."""
_FIRST_PAUSE = 0.000_3  # seconds between two looks at the answer of another process
_LONGEST_PAUSE = 0.005
_RING_AGAIN = 0.1  # seconds: whoever heard the first ring may have died
_LOOK_AGAIN = 0.05  # seconds after which somebody who waits looks whether there is still one who asks


def may_wait() -> bool:
    """Tell whether this thread may wait at all: not one of ours, nor any while the interpreter ends."""
    return not sys.is_finalizing() and not threading.current_thread().name.startswith(OWN_THREADS)


class Checkpoints:
    """What of this process's segments is in signed checkpoints.

    No lock here is held while something is waited for, and each can be entered twice: a signal handler may record, too.

    Args:
        directory: the directory.
        limit: seconds that one record waits at most. Once that has run out, nothing waits until there is a new
            checkpoint: who signs is away, and the application must not stand still at each of its records.
        own: tells whether a thread of this process is the sequencer.
    """

    def __init__(self, directory: Directory, limit: float, own: Callable[[], bool]) -> None:
        self._directory = directory
        self._limit = limit
        self._own = own
        self._closed = False
        self.forked()

    def forked(self) -> None:
        """Forget what the parent process waits for: called in the child after a fork."""
        self._condition = threading.Condition()
        self._asking = threading.RLock()
        self._signed: dict[str, int] = {}
        self._gave_up = False

    def close(self) -> None:
        """End all waiting: nobody in this process signs any more."""
        self._closed = True
        with self._condition:
            self._condition.notify_all()

    def tell(self, positions: Mapping[str, Position]) -> None:
        """Take note of what is signed. Called by the sequencer of this process."""
        self._take({name: at.number for name, at in positions.items()})

    def wait(self, segment: str, number: int, wake: Callable[[], None]) -> bool:
        """Wait until a record is in a signed, synced checkpoint.

        Args:
            segment: its segment.
            number: its running number there.
            wake: makes the sequencer of this process look, if there is one.

        Returns:
            Whether it is; False: not within the limit, or it could not be waited for.
        """
        if self._closed or not may_wait():
            return self._reached(segment, number)
        begin = time.monotonic()
        rung, pause = float("-inf"), _FIRST_PAUSE
        if self._own():
            wake()
        while not self._reached(segment, number):
            now = time.monotonic()
            # Where it was given up, it is still looked once; that there is a new checkpoint brings the limit back.
            left = max(0.0, begin + (0.0 if self._gave_up else self._limit) - now)
            if self._closed or (left == 0 and (self._own() or rung > 0)):
                self._gave_up = True
                return self._reached(segment, number)
            if self._own():
                self._pause(segment, number, min(left, _LOOK_AGAIN))
            elif self._asking.acquire(blocking=False):
                try:
                    if now - rung >= _RING_AGAIN:
                        doorbell.ring(self._directory)
                        rung = now
                    self._take(doorbell.answered(self._directory))
                    self._pause(segment, number, min(left, pause))
                finally:
                    self._asking.release()
                pause = min(pause * 1.5, _LONGEST_PAUSE)
            else:
                rung = now  # somebody else rings
                self._pause(segment, number, min(left, _LOOK_AGAIN))
        with self._condition:
            self._condition.notify_all()  # whoever asked for all has what it waited for: another one is to go on asking
        return True

    def _pause(self, segment: str, number: int, seconds: float) -> None:
        with self._condition:
            if seconds > 0 and not self._closed and not self._reached(segment, number):
                self._condition.wait(seconds)

    def _take(self, signed: dict[str, int]) -> None:
        with self._condition:
            if signed != self._signed:
                self._signed = signed
                self._gave_up = False
                self._condition.notify_all()

    def _reached(self, segment: str, number: int) -> bool:
        signed = self._signed.get(segment)
        if signed is None:
            return doorbell.is_done(self._directory, segment)
        return signed >= number
