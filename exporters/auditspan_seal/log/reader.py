# SPDX-License-Identifier: Apache-2.0
"""Reads the log files, batch by batch, without disturbing the sequencer that writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from auditspan_seal.errors import DirectoryError, FormatError
from auditspan_seal.formats.batch import CHECKPOINT, ENTRY, PRIVATE_MARK, Batch

SUFFIX = ".log"
_TAIL = 256 * 1024  # bytes; a batch of 512 entries has a checkpoint line of 25 kB


@dataclass(frozen=True)
class Cursor:
    """A place between two batches: log file name and byte offset."""

    file: str = ""
    offset: int = 0


@dataclass(frozen=True)
class Block:
    """A batch with its statements.

    Attributes:
        batch: the checkpoint line, parsed.
        statements: the statements of the batch, in order.
        private: the private part of each; empty where there is none.
        after: the place after it.
        begin: byte offset in its file at which it begins.
    """

    batch: Batch
    statements: list[bytes]
    private: list[bytes]
    after: Cursor
    begin: int = 0


@dataclass(frozen=True)
class Tail:
    """What follows the last checkpoint of a log file: a batch being written, or the remains of a crash."""

    file: str
    offset: int
    size: int


def files(folder: Path) -> list[str]:
    """Return the names of the log files, in the order of their entries.

    Raises:
        DirectoryError: the folder cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DirectoryError(
            f"The log folder {folder} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None


def first_of(name: str) -> int:
    """Return the index of the first entry of a log file, which is its name; a name of ours has no other form."""
    digits = name.removesuffix(SUFFIX)
    return int(digits) if digits.isdecimal() else 2**63


def blocks(folder: Path, start: Cursor | None = None) -> Iterator[Block | Tail]:
    """Read all batches from a place on; a :class:`Tail` where a file does not end with a checkpoint.

    Raises:
        DirectoryError: a file cannot be read.
        MalformedLog: a line is neither an entry nor a checkpoint.
    """
    start = start or Cursor()
    for name in files(folder):
        if name < start.file:
            continue
        yield from _blocks_of(folder / name, start.offset if name == start.file else 0)


def batches(folder: Path) -> Iterator[Block]:
    """Read all whole batches; see :func:`blocks`."""
    return (block for block in blocks(folder) if isinstance(block, Block))


def cursor_of(folder: Path, index: int) -> Cursor:
    """Return the beginning of the log file that has an index; of the first file, if none does.

    Raises:
        DirectoryError: the folder cannot be read.
    """
    names = [name for name in files(folder) if name <= f"{index:020d}{SUFFIX}"]
    return Cursor(names[-1]) if names else Cursor()


def unfinished(folder: Path, tail: Tail) -> Block | None:
    """Read what follows the last checkpoint of a file as a batch whose last LF is missing; None: it is not one.

    In the place of the LF there is the end of the file, or a zero: something was written after it, and a power cut has
    left that on disk and not the page with the LF. No line of ours has a zero in it.

    Raises:
        OSError: the file cannot be read.
    """
    with open(folder / tail.file, "rb") as file:
        file.seek(tail.offset)
        data = file.read().partition(b"\0")[0]
    *entries, last = data.split(b"\n")
    statements, private = [], []
    for line in entries:
        statement, _, beside = line.removeprefix(ENTRY).partition(PRIVATE_MARK)
        statements.append(statement if line.startswith(ENTRY) else line)
        private.append(beside)
    try:
        batch = Batch.parse(last)
    except FormatError:
        return None
    return Block(batch, statements, private, Cursor(tail.file, tail.offset + len(data) + 1), tail.offset)


def newest(folder: Path) -> tuple[Batch, Cursor] | None:
    """Return the newest batch without reading what comes before it, and the place after it; None: there is none.

    Its leaf hashes are not held against its entries: it is what the log says of itself, not evidence.

    Raises:
        DirectoryError: a file cannot be read.
        MalformedLog: the checkpoint line is none.
    """
    for name in reversed(files(folder)):
        found = _last_checkpoint(folder / name)
        if found is not None:
            line, end = found
            return Batch.parse(line), Cursor(name, end)
    return None


def _last_checkpoint(path: Path) -> tuple[bytes, int] | None:
    """Return the last whole checkpoint line of a file, and the offset after it."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _TAIL
            while True:
                begin = max(0, size - length)
                file.seek(begin)
                tail = file.read(size - begin)
                end = tail.rfind(b"\n") + 1
                at = tail.rfind(b"\n" + CHECKPOINT, 0, end)
                if at >= 0 or begin == 0:
                    at += 1
                    stop = tail.find(b"\n", at) + 1
                    whole = tail[at:].startswith(CHECKPOINT) and stop
                    return (tail[at : stop - 1], begin + stop) if whole else None
                length *= 8
    except OSError as error:
        raise DirectoryError(
            f"The log file {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None


def _blocks_of(path: Path, offset: int) -> Iterator[Block | Tail]:
    statements: list[bytes] = []
    private: list[bytes] = []
    begin = offset
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                if line.startswith(ENTRY):
                    statement, _, beside = line[len(ENTRY) : -1].partition(PRIVATE_MARK)
                    statements.append(statement)
                    private.append(beside)
                elif line.startswith(CHECKPOINT):
                    if b"\0" in line:
                        break  # its LF is missing, see unfinished()
                    yield Block(Batch.parse(line[:-1]), statements, private, Cursor(path.name, offset), begin)
                    statements, private, begin = [], [], offset
                else:
                    # A damaged line: it stands in the place of an entry, and as such it will be found.
                    statements.append(line[:-1])
                    private.append(b"")
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DirectoryError(
            f"The log file {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from None
    if size > begin:
        yield Tail(path.name, begin, size - begin)
