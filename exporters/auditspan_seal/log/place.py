# SPDX-License-Identifier: Apache-2.0
"""Where in a segment the next line goes, and the part of it that is mapped into memory.

There are two of this kind: the one below, and the same in C (``exporters/native/place.h``), which writes a line in one
step, whatever threads and signal handlers do meanwhile.
"""

from __future__ import annotations

import mmap
import os

from auditspan_seal.native import NATIVE


class Place:
    """The same in Python.

    Attributes:
        segment: name of the segment.
        size: bytes that are written of it.
        lines: lines that are written of it.
        limit: bytes from which on the next line goes to another segment.
        begin: what of the file is mapped, in bytes.
        end: the same.
        process: ID of the process whose segment it is.
        held: a line is about to be written, so nothing else may be.
    """

    def __init__(self) -> None:
        self.segment = ""
        self.size = self.lines = self.limit = self.begin = self.end = 0
        self.process = os.getpid()
        self.held = False
        self._map: mmap.mmap | None = None
        self._pending = 0  # where the line ends that is being written; 0: none is

    @property
    def mapped(self) -> bool:
        """Whether a part of the file is mapped."""
        return self._map is not None

    def map(self, descriptor: int, begin: int, size: int) -> None:
        """Map a part of a file, whose space is reserved, instead of what is mapped.

        Raises:
            OSError, ValueError: it cannot be; nothing has changed.
        """
        new, old = mmap.mmap(descriptor, size, offset=begin), self._map
        self._map, self.begin, self.end = new, begin, begin + size
        if old is not None:
            old.close()

    def unmap(self) -> None:
        """Map nothing."""
        old, self._map = self._map, None
        self.begin = self.end = 0
        if old is not None:
            old.close()

    def append(self, line: bytes) -> None:
        """Write a line, which ends in LF, to what is mapped; it must have room there."""
        window, end = self._map, self.size + len(line)
        if window is None or end > self.end:
            raise ValueError("there is no room for the line")
        self._pending = end
        at, last = self.size - self.begin, end - 1 - self.begin
        window[at:last] = line[:-1]
        window[last] = 0x0A  # last: a line that a reader sees to its end is whole
        self.size, self.lines, self._pending = end, self.lines + 1, 0

    def settle(self) -> None:
        """Find out what became of a line whose writing was cut short by an exception.

        A signal handler may raise at any point (Ctrl-C, a time limit for a task). If the LF was stored, the line
        is recorded and may have been read already: the next one must not take its place.
        """
        end, window = self._pending, self._map
        if end and window is not None:
            if window[end - 1 - self.begin] == 0x0A:
                self.size, self.lines = end, self.lines + 1
            else:
                window[self.size - self.begin : end - self.begin] = bytes(end - self.size)
        self._pending = 0


def new_place() -> Place:
    """Return one, in C where there is that."""
    return Place() if NATIVE is None else NATIVE.Place()
