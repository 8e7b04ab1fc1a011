# SPDX-License-Identifier: Apache-2.0
"""Reads log files batch by batch, as the log's own reader does, and judges each entry while it is at hand.

Of a batch only what its entries come down to is held, not their bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats.batch import CHECKPOINT, ENTRY, Batch
from auditspan_seal.log import reader
from auditspan_seal.verify.entries import AT_ONCE, Entries
from auditspan_seal.verify.facts import Fact
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.source import Pick

_BUFFER = 256 * 1024  # bytes


@dataclass(frozen=True)
class Block:
    """A batch.

    Attributes:
        batch: its checkpoint.
        entries: what stands before that.
        after: the place after it.
    """

    batch: Batch
    entries: Entries
    after: reader.Cursor

    @property
    def facts(self) -> list[Fact]:
        """Its entries, one by one."""
        return self.entries.facts()

    def item(self, origin: str) -> CheckpointItem:
        """Return the checkpoint as it was found."""
        return CheckpointItem(origin, self.batch, f"log/{self.after.file}")


def blocks(
    folder: Path,
    origin: str,
    start: reader.Cursor,
    stop: reader.Cursor | None = None,
    pick: Pick | None = None,
    known: int = 0,
) -> Iterator[Block | reader.Tail]:
    """Read all batches from one place to another; a Tail where a file does not end with a checkpoint.

    Args:
        folder: the folder of the log files.
        origin: the log.
        start: a place between two batches.
        stop: another; None: the end.
        pick: which entries to judge; None: all.
        known: entries below this index need not be judged.

    Raises:
        DirectoryError: a file cannot be read.
        MalformedLog: a line is not what it begins as.
    """
    for name in reader.files(folder):
        if name < start.file or (stop is not None and name > stop.file):
            continue
        end = stop.offset if stop is not None and name == stop.file else None
        path, offset = folder / name, start.offset if name == start.file else 0
        try:
            with open(path, "rb", buffering=_BUFFER) as file:
                file.seek(offset)
                size = os.fstat(file.fileno()).st_size if end is None else end
                yield from _blocks(file, name, origin, offset, size, pick, known)
        except OSError as error:
            raise DirectoryError(
                f"The log file {path} cannot be read: {error.strerror}.", "Check its permissions."
            ) from None


def _blocks(
    file: Iterable[bytes], name: str, origin: str, offset: int, end: int, pick: Pick | None, known: int
) -> Iterator[Block | reader.Tail]:
    place = f"log/{name}"
    entries = Entries(origin, place)
    lines: list[bytes] = []
    begin, first = offset, 0
    if offset or not name[:20].isdecimal():
        known = 0
    elif known:
        first = int(name[:20])  # the name of a log file is the index of its first entry
    for line in file:
        if offset >= end or line[-1:] != b"\n":
            break
        offset += len(line)
        kind = line[:2]
        if kind == ENTRY:
            lines.append(line)
            if len(lines) < AT_ONCE:
                continue
        if lines:
            entries.read(lines, pick, known - first)
            first += len(lines)
            lines = []
        if kind == CHECKPOINT:
            batch = Batch.parse(line[:-1])
            entries.align(batch)
            yield Block(batch, entries, reader.Cursor(name, offset))
            entries = Entries(origin, place)
            begin, first = offset, batch.size
        elif kind != ENTRY:
            entries.read_damaged(line, pick, first < known)
            first += 1
    if end > begin:
        yield reader.Tail(name, begin, end - begin)
