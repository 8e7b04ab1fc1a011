# SPDX-License-Identifier: Apache-2.0
"""How a process that waits for a signed checkpoint wakes the sequencer, and how the sequencer answers it.

Both may be processes of different users: an audited one may record and read its directory, no more. It rings by
appending a byte to a file, which its group may write; while somebody rings, the sequencer looks at it often. The answer
is a small file with the last running number of each segment that is in a signed, synced checkpoint; it is only written
once somebody has asked.

Plain files, so that a directory can be copied while it is in use.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Mapping

import orjson

from auditspan_seal.formats.batch import Position
from auditspan_seal.keys import safe
from auditspan_seal.log import segment
from auditspan_seal.log.directory import Directory, mode_of

_LOOK = 0.004  # seconds between two looks at the bell, while it is in use
_IN_USE = 30.0  # seconds after a ring for which it is in use
_LONGEST = 65_536  # bytes of the bell, after which it is emptied


class Doorbell:
    """The sequencer's end."""

    def __init__(self, directory: Directory) -> None:
        self._path = directory.bell
        # Not an event: its lock cannot be entered twice, and a signal handler may wake while its thread does.
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if mode_of(directory.path) & 0o040:  # shared with a group, which the folder gives to new files
                    os.fchown(descriptor, -1, directory.path.stat().st_gid)
                    os.fchmod(descriptor, 0o660)
            finally:
                os.close(descriptor)
        self._size = self._rings()
        self._last = float("-inf")  # when somebody has rung

    def wake(self) -> None:
        """End the waiting in :meth:`wait`; from any thread of this process, and from signal handlers."""
        self._woken.put(None)

    def wait(self, timeout: float) -> bool:
        """Wait until this process is woken, or another one rings.

        Args:
            timeout: seconds at most.

        Returns:
            Whether another process has rung: it wants an answer.
        """
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            in_use = now - self._last < _IN_USE
            woken = self._wait(max(0.0, min(deadline - now, _LOOK if in_use else timeout)))
            rings = self._rings()
            if rings != self._size:
                self._size, self._last = rings, time.monotonic()
                if rings > _LONGEST:
                    with contextlib.suppress(OSError):
                        os.truncate(self._path, 0)
                    self._size = self._rings()
                return True
            if woken or time.monotonic() >= deadline:
                return False

    def _wait(self, timeout: float) -> bool:
        try:
            self._woken.get(timeout=timeout)
        except queue.Empty:
            return False
        with contextlib.suppress(queue.Empty):
            while True:  # woken is woken, however often
                self._woken.get_nowait()
        return True

    def _rings(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0


def ring(directory: Directory) -> None:
    """Ask for an answer; nothing happens if nobody listens. No descriptor is kept that would have to outlive a fork."""
    with contextlib.suppress(OSError):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(directory.bell, flags)
        try:
            os.write(descriptor, b"?")
        finally:
            os.close(descriptor)


def answer(directory: Directory, positions: Mapping[str, Position]) -> None:
    """Say which records are in a signed, synced checkpoint.

    It is not synced itself: whoever waits for it does not survive a power cut either.

    Args:
        directory: the directory.
        positions: how far each segment is in the log.
    """
    content = orjson.dumps({name: at.number for name, at in positions.items()})
    with contextlib.suppress(OSError):
        safe.show(directory.signed, content, mode_of(directory.path))


def answered(directory: Directory) -> dict[str, int]:
    """Return the last running number of each segment that is in a signed, synced checkpoint, as far as was asked."""
    try:
        found = orjson.loads(directory.signed.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: number for name, number in found.items() if type(number) is int}


def is_done(directory: Directory, name: str) -> bool:
    """Tell whether a segment is gone: it is removed only when all of it is in the log."""
    return not segment.path_of(directory.segments, name).exists()
