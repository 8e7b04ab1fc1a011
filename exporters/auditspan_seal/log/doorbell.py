# SPDX-License-Identifier: Apache-2.0
"""How a process that waits for a signed checkpoint wakes the sequencer, and how the sequencer answers it.

Both may be processes of different users: an audited one may record and read its directory, no more. It rings by a
named pipe, which its group may write. The answer is a small file with the last running number of each segment that is
in a signed, synced checkpoint; it is only written once somebody has asked.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import stat
from collections.abc import Mapping
from pathlib import Path

import orjson

from auditspan_seal.formats.batch import Position
from auditspan_seal.log import segment
from auditspan_seal.log.directory import Directory, mode_of

WAKE = b"."
"""Rung by the sequencer's own process: there is something to do."""
ASK = b"?"
"""Rung by a process that waits for an answer."""


class Doorbell:
    """The sequencer's end. Where there are no named pipes it is woken by its own process only."""

    def __init__(self, directory: Directory) -> None:
        # Not an event: its lock cannot be entered twice, and a signal handler may ring while its thread rings.
        self._rung: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._descriptor = -1
        self._selector: selectors.BaseSelector | None = None
        with contextlib.suppress(OSError):
            self._open(directory.bell)

    def _open(self, path: Path) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # For reading and writing: it never comes to its end, and nobody who rings is killed because it was closed.
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return
        if mode_of(path.parent) & 0o040:  # shared with a group, which the folder gives to new files
            os.fchown(descriptor, -1, path.parent.stat().st_gid)
            os.fchmod(descriptor, 0o660)
        self._descriptor = descriptor
        self._selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        self._selector.register(descriptor, selectors.EVENT_READ)

    def wait(self, timeout: float) -> bool:
        """Wait until it is rung.

        Args:
            timeout: seconds at most.

        Returns:
            Whether somebody has asked for an answer.
        """
        if self._selector is None:
            with contextlib.suppress(queue.Empty):
                self._rung.get(timeout=timeout)
            return False
        asked = False
        if self._selector.select(timeout):
            with contextlib.suppress(BlockingIOError):
                asked = ASK in os.read(self._descriptor, 65_536)
        return asked

    def ring(self, directory: Directory) -> None:
        """Wake whoever waits in this process."""
        if self._selector is None:
            self._rung.put(None)
        else:
            ring(directory, WAKE)

    def close(self) -> None:
        """Let go of it."""
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def ring(directory: Directory, what: bytes) -> None:
    """Ring; nothing happens if nobody listens. The pipe is opened each time: no descriptor has to outlive a fork."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory.bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                os.write(descriptor, what)  # full: it has been rung often enough
        finally:
            os.close(descriptor)


def answer(directory: Directory, positions: Mapping[str, Position]) -> None:
    """Say which records are in a signed, synced checkpoint.

    It is not synced itself: whoever waits for it does not survive a power cut either.

    Args:
        directory: the directory.
        positions: how far each segment is in the log.
    """
    draft = directory.signed.with_name(".signed.new")
    with contextlib.suppress(OSError):
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode_of(directory.path))
            file.write(orjson.dumps({name: at.number for name, at in positions.items()}))
        os.rename(draft, directory.signed)


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
