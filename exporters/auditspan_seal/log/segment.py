# SPDX-License-Identifier: Apache-2.0
"""Segments: each process appends its finished statements to a file of its own; a complete line is *recorded*.

A segment is a sequence of statements, one per line. Its writer holds an exclusive lock on the file while it lives, so
that the sequencer can tell a segment that will grow from one that will not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from auditspan_seal.errors import DirectoryError

SUFFIX = ".seg"
ROLL_SIZE = 64 * 1024 * 1024  # bytes; a full segment is closed so that its space can be freed


class SegmentWriter:
    """Appends statements for this process. Safe for threads; after a fork the child writes to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptor = -1
        self._size = 0
        self.segment = ""
        self.number = 0

    def append(self, make: Callable[[str, int], bytes]) -> None:
        """Append one statement; when this returns, it survives the death of the process.

        Args:
            make: returns the statement for a segment name and a running number (1 for the first of the segment).

        Raises:
            DirectoryError: it could not be written; nothing half-written is left.
        """
        with self._lock:
            try:
                if self._descriptor < 0 or self._size >= ROLL_SIZE:
                    self._open()
                line = make(self.segment, self.number + 1) + b"\n"
                self._write(line)
            except OSError as error:
                raise DirectoryError(
                    f"A record could not be written to {self._folder}: {error.strerror}.",
                    "Free disk space or repair the volume; what was recorded before is safe.",
                ) from error
            self._size += len(line)
            self.number += 1

    def _open(self) -> None:
        self.close()
        self.segment = secrets.token_hex(8)
        path = self._folder / f"{self.segment}{SUFFIX}"
        # Written under another name until it is locked, so that nobody takes it for abandoned.
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(draft, path)
        self._descriptor, self._size, self.number = descriptor, 0, 0

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):  # a nearly full disk writes a part first and fails after that
                written += os.write(self._descriptor, line[written:])
        except OSError:
            # A torn line would glue to the next record.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise

    def close(self) -> None:
        """Close the current segment; the next append begins a new one."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def forked(self) -> None:
        """Leave the parent's segment to the parent: called in the child after a fork."""
        self._lock = threading.Lock()
        self.close()


def names(folder: Path) -> list[str]:
    """Return the names of all segments, oldest first."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for item in os.scandir(folder):
            if item.name.endswith(SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    found.append((item.stat().st_mtime_ns, item.name.removesuffix(SUFFIX)))
    return [name for _, name in sorted(found)]


def path_of(folder: Path, name: str) -> Path:
    """Return the file of a segment."""
    return folder / f"{name}{SUFFIX}"


def read_lines(path: Path, offset: int, limit: int) -> tuple[list[bytes], int]:
    """Read up to `limit` complete lines.

    Args:
        path: the segment.
        offset: bytes to skip.
        limit: lines to return at most.

    Returns:
        The lines without LF, and the offset after the last of them.
    """
    lines: list[bytes] = []
    with open(path, "rb") as file:
        file.seek(offset)
        while len(lines) < limit:
            line = file.readline()
            if not line.endswith(b"\n"):
                break
            lines.append(line[:-1])
            offset += len(line)
    return lines, offset


def waiting(path: Path, offset: int) -> int:
    """Count the complete lines after `offset`; 0 if the segment is gone, which it is only when it was read."""
    try:
        return len(read_lines(path, offset, 1_000_000)[0])
    except FileNotFoundError:
        return 0


def has_writer(path: Path) -> bool:
    """Tell whether the process that writes the segment is alive."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
