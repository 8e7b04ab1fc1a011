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
        self._map: mmap.mmap | None = None
        self._begin = self._end = 0  # what of the file the window covers
        self._window = FIRST_WINDOW
        self._mappable = hasattr(os, "posix_fallocate")

    def append(self, line: bytes) -> None:
        """Append a line that ends in LF.

        Raises:
            OSError: there is no space for it; nothing of it is left.
        """
        if self.size + len(line) > self._end and self._mappable:
            self._map_next(len(line))
        if self._map is None:
            self._write(line)
        else:
            at = self.size - self._begin
            last = at + len(line) - 1
            self._map[at:last] = line[:-1]
            self._map[last] = 0x0A
        self.size += len(line)

    def close(self) -> None:
        """Cut off what is not written, and close the file."""
        if self.descriptor >= 0:
            if self._map is not None:
                self._map.close()
                self._map = None
                with contextlib.suppress(OSError):
                    os.ftruncate(self.descriptor, self.size)
            os.close(self.descriptor)
            self.descriptor = -1

    def abandon(self) -> None:
        """Let go of the file as it is: it belongs to the process that this one was forked from."""
        if self.descriptor >= 0:
            if self._map is not None:
                self._map.close()
                self._map = None
            os.close(self.descriptor)
            self.descriptor = -1

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
        if self._map is not None:
            self._map.close()
        self._map, self._begin, self._end = window, begin, begin + span
        self._window = min(LARGEST_WINDOW, 2 * self._window)

    def _leave_window(self) -> None:
        self._mappable = False
        if self._map is not None:
            self._map.close()
            self._map = None
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
            raise
