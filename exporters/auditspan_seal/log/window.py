# SPDX-License-Identifier: Apache-2.0
"""Appends lines to a file so that each survives the death of the process, at the price of a copy in memory.

A window of the file is mapped into memory; what is copied there is the kernel's and outlives the process. The LF of a
line is stored last, so that a line that a reader sees to its end is whole; what is not written yet reads as zeros, and
a line with a zero in it is not whole. No system call is made per line: a ``write`` gives up the GIL, and another
thread may keep it for 5 ms.

The space is reserved before it is mapped: storing into a hole of a full disk would kill the process (SIGBUS). Where
space cannot be reserved (some file systems, macOS), lines are written by ``pwrite``.
"""

from __future__ import annotations

import contextlib
import mmap
import os

FIRST_WINDOW = 128 * 1024  # bytes; many processes are short-lived
LARGEST_WINDOW = 4 * 1024 * 1024


class Appender:
    """Appends to a file that is empty and that nobody else writes.

    Args:
        descriptor: of the file, open for reading and writing; closed with this.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = 0
        self.lines = 0
        self._pending = 0  # where the line ends that is being appended; 0: none is
        self._map: mmap.mmap | None = None
        self._begin = self._end = 0  # what of the file the window covers
        self._window = FIRST_WINDOW
        self._mappable = hasattr(os, "posix_fallocate")

    def append(self, line: bytes) -> None:
        """Append a line that ends in LF.

        Raises:
            OSError: there is no space for it; nothing of it is left.
        """
        end = self.size + len(line)
        if end > self._end and self._mappable:
            self._map_next(len(line))
        self._pending = end
        if self._map is None:
            self._write(line)
        else:
            at = self.size - self._begin
            last = at + len(line) - 1
            self._map[at:last] = line[:-1]
            self._map[last] = 0x0A
        self.size, self.lines, self._pending = end, self.lines + 1, 0

    def settle(self) -> None:
        """Find out what became of a line whose appending was cut short by an exception.

        A signal handler may raise at any point here (Ctrl-C, a time limit for a task). If the LF was stored, the line
        is recorded and may have been read already: the next one must not take its place.
        """
        end = self._pending
        if end:
            if self._map is not None:
                whole = self._map[end - 1 - self._begin] == 0x0A
            else:
                whole = os.pread(self.descriptor, 1, end - 1) == b"\n"
            if whole:
                self.size, self.lines = end, self.lines + 1
            elif self._map is not None:
                at = self.size - self._begin
                self._map[at : end - self._begin] = bytes(end - self.size)
            else:
                os.ftruncate(self.descriptor, self.size)
            self._pending = 0

    def close(self) -> None:
        """Cut off what is not written, and close the file."""
        if self.descriptor >= 0:
            if self._map is not None:
                self._map.close()
                self._map = None
                with contextlib.suppress(OSError):
                    os.ftruncate(self.descriptor, self.size)
            self._close_descriptor()

    def abandon(self) -> None:
        """Let go of the file as it is: it belongs to the process that this one was forked from."""
        if self.descriptor >= 0:
            if self._map is not None:
                self._map.close()
                self._map = None
            self._close_descriptor()

    def _close_descriptor(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        with contextlib.suppress(OSError):  # a disk that fails; it is closed all the same
            os.close(descriptor)

    def _map_next(self, length: int) -> None:
        """Map the window in which the next line has its place."""
        begin = self.size - self.size % mmap.ALLOCATIONGRANULARITY
        span = max(self._window, self.size - begin + length)
        try:
            os.posix_fallocate(self.descriptor, begin, span)
            window = mmap.mmap(self.descriptor, span, offset=begin)
        except (OSError, ValueError):
            # Not this file system, or a disk that is nearly full: the line itself may still have space.
            self._leave_window()
            return
        old = self._map
        self._map, self._begin, self._end = window, begin, begin + span
        if old is not None:
            old.close()
        self._window = min(LARGEST_WINDOW, 2 * self._window)

    def _leave_window(self) -> None:
        self._mappable = False
        old, self._map = self._map, None
        if old is not None:
            old.close()
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, self.size)  # a part may have been reserved

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):  # a nearly full disk writes a part first and fails after that
                written += os.pwrite(self.descriptor, line[written:], self.size + written)
        except OSError:
            # Zeros are no part of a record; a torn line would glue to the next one if its end could not be cut off,
            # but that is written to the same place.
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, self.size)
            self._pending = 0
            raise
