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

from auditspan_seal.log.place import Place, new_place

FIRST_WINDOW = 128 * 1024  # bytes; many processes are short-lived
LARGEST_WINDOW = 4 * 1024 * 1024


class Appender:
    """Appends to a file that is empty and that nobody else writes.

    Args:
        descriptor: of the file, open for reading and writing; closed with this.
        place: where it says what it has written; None: nobody else is to see.
    """

    def __init__(self, descriptor: int, place: Place | None = None) -> None:
        self.descriptor = descriptor
        self.place = new_place() if place is None else place
        self.place.size = self.place.lines = 0
        self._pending = 0  # where the line ends that is being written without a window; 0: none is
        self._window = FIRST_WINDOW
        self._mappable = hasattr(os, "posix_fallocate")

    @property
    def size(self) -> int:
        """Bytes that are written."""
        return self.place.size

    @property
    def lines(self) -> int:
        """Lines that are written."""
        return self.place.lines

    def append(self, line: bytes) -> None:
        """Append a line that ends in LF.

        Raises:
            OSError: there is no space for it; nothing of it is left.
        """
        place = self.place
        if place.size + len(line) > place.end and self._mappable:
            self._map_next(len(line))
        if place.mapped:
            place.append(line)
        else:
            self._write(line)

    def settle(self) -> None:
        """Find out what became of a line whose appending was cut short by an exception (see :class:`Place`)."""
        place, end = self.place, self._pending
        if place.mapped:
            place.settle()
        elif end:
            if os.pread(self.descriptor, 1, end - 1) == b"\n":
                place.size, place.lines = end, place.lines + 1
            else:
                os.ftruncate(self.descriptor, place.size)
        self._pending = 0

    def close(self) -> None:
        """Cut off what is not written, and close the file."""
        if self.descriptor >= 0:
            if self.place.mapped:
                self.place.unmap()
                with contextlib.suppress(OSError):
                    os.ftruncate(self.descriptor, self.place.size)
            self._close_descriptor()

    def abandon(self) -> None:
        """Let go of the file as it is: it belongs to the process that this one was forked from."""
        if self.descriptor >= 0:
            self.place.unmap()
            self._close_descriptor()

    def _close_descriptor(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        with contextlib.suppress(OSError):  # a disk that fails; it is closed all the same
            os.close(descriptor)

    def _map_next(self, length: int) -> None:
        """Map the window in which the next line has its place."""
        size = self.place.size
        begin = size - size % mmap.ALLOCATIONGRANULARITY
        span = max(self._window, size - begin + length)
        try:
            os.posix_fallocate(self.descriptor, begin, span)
            self.place.map(self.descriptor, begin, span)
        except (OSError, ValueError):
            # Not this file system, or a disk that is nearly full: the line itself may still have space.
            self._leave_window()
            return
        self._window = min(LARGEST_WINDOW, 2 * self._window)

    def _leave_window(self) -> None:
        self._mappable = False
        self.place.unmap()
        with contextlib.suppress(OSError):
            os.ftruncate(self.descriptor, self.place.size)  # a part may have been reserved

    def _write(self, line: bytes) -> None:
        place, written = self.place, 0
        self._pending = place.size + len(line)
        try:
            while written < len(line):  # a nearly full disk writes a part first and fails after that
                written += os.pwrite(self.descriptor, line[written:], place.size + written)
        except OSError:
            # Zeros are no part of a record; a torn line would glue to the next one if its end could not be cut off,
            # but that is written to the same place.
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, place.size)
            self._pending = 0
            raise
        place.size, place.lines, self._pending = self._pending, place.lines + 1, 0
