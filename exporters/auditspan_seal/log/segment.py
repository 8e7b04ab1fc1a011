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
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeAlias

from auditspan_seal.errors import DirectoryError, OverBudget
from auditspan_seal.log.budget import Gate
from auditspan_seal.log.directory import Directory, mode_of
from auditspan_seal.log.place import new_place
from auditspan_seal.log.window import LARGEST_WINDOW, Appender

SUFFIX = ".seg"
ROLL_SIZE = 64 * 1024 * 1024  # bytes; a full segment is closed so that its space can be freed
CONTROL = "control-"
"""What the names of segments begin with that only the owner of the log may write."""


Make: TypeAlias = Callable[[str, int], bytes]
"""Makes a line, without LF, for a segment and a running number."""
Ready: TypeAlias = tuple[str, bytes, bytes]
"""A segment, and what stands before and after the running number in a line of it."""


class SegmentWriter:
    """Appends statements for this process. Safe for threads; after a fork the child writes to a file of its own.

    Args:
        folder: where segments are.
        prefix: what the names of its segments begin with.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder = folder
        self._prefix = prefix
        self._gate = Gate(folder.parent) if not prefix else None  # the owner of the log may always write
        self.place = new_place()  # of its current segment
        self._lock = threading.RLock()
        self._close_later = False
        self._later: list[Make] = []
        self.failed: list[Exception] = []  # why records that were put off could not be written; to be emptied by users
        self._file: Appender | None = None
        self._process = secrets.token_hex(8)
        self._count = 0

    @property
    def segment(self) -> str:
        """The name of its current segment."""
        return self.place.segment

    @property
    def number(self) -> int:
        """The running number of the last record of the current segment; 0: there is none."""
        return self._file.lines if self._file is not None else 0

    @property
    def last(self) -> tuple[str, int]:
        """The current segment, and the running number of the last record there."""
        while True:  # another thread may begin the next segment meanwhile
            name, number = self.segment, self.number
            if name == self.segment:
                return name, number

    def check(self) -> None:
        """Look, for every 16th record, whether the disk budget allows more.

        Raises:
            OverBudget: it does not.
        """
        gate = self._gate
        # Not for every record: that would cost as much as making it.
        if gate is not None and (self._file is None or self.place.lines & 15 == 0 or gate.shut) and gate.closed:
            raise OverBudget(
                f"The log directory {self._folder.parent} uses more disk than AUDITSPAN_DISK_BUDGET allows.",
                "See `auditspan status`: deliver and reconcile, so that log files can be removed, or raise the budget.",
            )

    def append(self, make: Make, ready: Ready | None = None) -> tuple[str, int] | None:
        """Append one statement; when this returns, it survives the death of the process.

        Called while this thread is appending already (by a signal handler, or something that is collected just then),
        it is put off until that is done.

        Args:
            make: returns the statement for a segment name and a running number (1 for the first of the segment).
            ready: the same for one segment, but for the number; not used if it is another one by now.

        Returns:
            the segment, and the running number of the last record that was appended by this call; None: put off.

        Raises:
            DirectoryError: it could not be written; nothing half-written is left.
        """
        # Who has something ready has asked that already; it is a system call.
        if ready is None and self.place.process != os.getpid():
            self.forked()  # by something that does not call Python's fork hooks
        self.check()
        with self._lock:
            if self.place.held:
                self._later.append(make)
                return None
            self.place.held = True
            try:
                try:
                    self._append(make, ready)
                finally:
                    while self._later:
                        self._append_late(self._later.pop(0))
                return self.segment, self._file.lines if self._file is not None else 0
            except OSError as error:
                raise DirectoryError(
                    f"A record could not be written to {self._folder}: {error.strerror}.",
                    "Free disk space or repair the volume; what was recorded before is safe.",
                ) from error
            finally:
                self.place.held = False
                if self._close_later:
                    self._close()

    def _append(self, make: Make, ready: Ready | None = None) -> None:
        file = self._file
        if file is None or file.size >= ROLL_SIZE:
            file = self._open()
        file.settle()
        if ready is not None and ready[0] == self.segment:
            file.append(b"%b%d%b\n" % (ready[1], file.lines + 1, ready[2]))
        else:
            file.append(make(self.segment, file.lines + 1) + b"\n")

    def _append_late(self, make: Make) -> None:
        try:
            self._append(make)
        except Exception as error:  # of another record than that of the caller
            self.failed.append(error)

    def _open(self) -> Appender:
        name = f"{self._prefix}{self._process}{f'-{self._count}' if self._count else ''}"
        path = self._folder / f"{name}{SUFFIX}"
        # Written under another name until it is locked, so that nobody takes it for abandoned.
        draft = path.with_suffix(".new")
        mode = mode_of(self._folder)
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()  # of an attempt that a signal handler has cut short by an exception
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        try:
            os.fchmod(descriptor, mode)  # whatever the umask is: where an agent signs, it must be able to read
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(draft, path)
        except BaseException:
            # Also when a signal handler raises: the draft would be in the way of every later attempt.
            os.close(descriptor)
            for left in (draft, path):
                with contextlib.suppress(OSError):
                    left.unlink()
            raise
        self._close()  # only now: as long as a process lives, one of its segments is locked
        self._count += 1
        self.place.segment, self.place.limit = name, ROLL_SIZE
        self._file = Appender(descriptor, self.place)
        return self._file

    def close(self) -> None:
        """Close the current segment; the next append begins a new one.

        Called while this thread is appending (a signal handler that ends the program), it is put off until then.
        """
        if self.place.process != os.getpid():
            self.forked()
        with self._lock:
            if self.place.held:
                self._close_later = True
            else:
                self._close()

    def _close(self) -> None:
        self._close_later = False
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def forked(self) -> None:
        """Leave the parent's segment to the parent: called in the child after a fork."""
        self._lock = threading.RLock()
        self._close_later = False
        self._later = []
        self._process, self._count = secrets.token_hex(8), 0
        if self._file is not None:
            self._file.abandon()
            self._file = None
        self.place.held = False
        self.place.process = os.getpid()  # last: from now on a line may be written to it


def names(folder: Path) -> list[str]:
    """Return the names of all segments: those of a process in their order, whatever the clock did meanwhile.

    Processes are ordered by when one of their segments was written last, so that none waits behind the others for good.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    written: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for item in os.scandir(folder):
            if item.name.endswith(SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    time, name = item.stat().st_mtime_ns, item.name.removesuffix(SUFFIX)
                    process = name if name.startswith(CONTROL) else process_of(name)
                    found.setdefault(process, []).append((_place_of(name), name))
                    written[process] = min(time, written.get(process, time))
    return [name for process in sorted(found, key=written.__getitem__) for _, name in sorted(found[process])]


def _place_of(name: str) -> int:
    """Return the place of a segment among those of its process."""
    count = name.partition("-")[2]
    return int(count) if count.isdecimal() and count.isascii() and len(count) < 19 else 0


def path_of(folder: Path, name: str) -> Path:
    """Return the file of a segment."""
    return folder / f"{name}{SUFFIX}"


def process_of(name: str) -> str:
    """Return what the names of all segments of a process begin with."""
    return name.partition("-")[0]


def all_of(directory: Directory) -> list[tuple[str, Path]]:
    """Return the segments of a directory with their files: those of its owner first, then those of processes.

    A process that gives its segment a name of the owner's kind does not become the owner: it is listed by its folder.
    """
    control = [(name, path_of(directory.control, name)) for name in names(directory.control)]
    return [(name, path) for name, path in control if name.startswith(CONTROL)] + [
        (f"segments/{name}" if name.startswith(CONTROL) else name, path_of(directory.segments, name))
        for name in names(directory.segments)
    ]


def find(directory: Directory, name: str) -> Path:
    """Return the file of a segment that :func:`all_of` has listed under a name."""
    if name.startswith(CONTROL):
        return path_of(directory.control, name)
    return path_of(directory.segments, name.removeprefix("segments/"))


def read_lines(path: Path, offset: int, limit: int, *, ended: bool = False) -> tuple[list[bytes], int]:
    """Read up to `limit` complete lines.

    Args:
        path: the segment.
        offset: bytes to skip.
        limit: lines to return at most.
        ended: nobody writes to it any more: a line with zeros in it will not become whole, and is returned, too.

    Returns:
        The lines without LF, and the offset after the last of them.
    """
    lines: list[bytes] = []
    with open(path, "rb") as file:
        file.seek(offset)
        # What stands there whole, in one piece; what is not as usual is read line by line below.
        piece = file.read(min(limit * 2048, 4 * 1024 * 1024))
        if (end := piece.rfind(b"\n") + 1) and piece.find(b"\0", 0, end) < 0:
            lines = piece[: end - 1].split(b"\n", limit)[:limit]
            offset += sum(map(len, lines)) + len(lines)
            if len(lines) > limit // 2:
                return lines, offset
        file.seek(offset)
        while len(lines) < limit:
            if not ended and file.peek(1)[:1] == b"\0":
                break  # reserved and not written; not to be read through
            line = file.readline()
            if not line.endswith(b"\n") or (not ended and b"\0" in line):
                break
            lines.append(line[:-1])
            offset += len(line)
    return lines, offset


def rest(path: Path, offset: int, limit: int) -> bytes:
    """Return what stands after `offset`, up to `limit` bytes, without the zeros of space that was reserved."""
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(limit).rstrip(b"\0")


def waiting(path: Path, offset: int) -> int:
    """Count the complete lines after `offset`; 0 if the segment is gone, which it is only when it was read."""
    try:
        return len(read_lines(path, offset, 1_000_000)[0])
    except FileNotFoundError:
        return 0


def remove_empty(folder: Path, known: Collection[str]) -> None:
    """Remove segments that a process made and died before it wrote anything.

    Args:
        folder: where segments are.
        known: names of those that something is in the log of; they are left alone.
    """
    for name in names(folder):
        if name not in known:
            path = path_of(folder, name)
            with contextlib.suppress(OSError):  # gone; or it cannot be read, which is told where that is tried
                # The order matters: first the writer is seen to be gone, then that it left nothing.
                if not has_writer(path) and not rest(path, 0, LARGEST_WINDOW):
                    path.unlink()


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
