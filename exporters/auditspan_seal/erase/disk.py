# SPDX-License-Identifier: Apache-2.0
"""Erases personal values from a log directory. No statement changes: value and salt stand beside it.

What is erased is overwritten in place, by spaces: every offset in the log remains right, and the directory may be in
use. The order matters. First everything recorded is put into the log, so that each value has an index; then comes the
signed record of the erasure; then the log is overwritten, and the segments, where a copy of the line may still be.
After a crash in between the same command does the rest: what is erased on record and still there is overwritten, too.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditspan_seal.errors import DirectoryError, FormatError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK
from auditspan_seal.formats.entry import own_attributes
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.log.sequencer import Sequencer

WAIT = 30.0  # seconds for another process to put what is recorded into the log


@dataclass(frozen=True)
class Wanted:
    """What is to be erased: by value, or by record.

    Attributes:
        value: the text that a personal value is, or that is in a list of them; None: any value.
        record: record ID or span ID; None: any record.
        attributes: only these; empty: all personal ones.
    """

    value: str | None = None
    record: str | None = None
    attributes: frozenset[str] = frozenset()

    def names(self, fields: dict[str, Any], private: commitment.Private) -> set[str]:
        """Return the attributes of an entry that are to be erased."""
        if self.record is not None and self.record not in (
            fields.get("span_id"),
            fields.get("attributes", {}).get("audit.record.id"),
        ):
            return set()
        return {
            name
            for name, (_, value) in private.items()
            if (not self.attributes or name in self.attributes)
            and (self.value is None or value == self.value or (isinstance(value, list) and self.value in value))
        }


@dataclass(frozen=True)
class Found:
    """One value that is to be erased; never the value itself."""

    index: int
    name: str
    record: str
    run: str


def find(directory: Directory, wanted: Wanted) -> list[Found]:
    """Find values in the log.

    Raises:
        DirectoryError: the log cannot be read.
    """
    found = []
    for block in reader.batches(directory.log):
        for offset, (statement, beside) in enumerate(zip(block.statements, block.private, strict=True)):
            fields, names = _names(statement, beside, wanted)
            said = fields.get("attributes", {})
            found += [
                Found(
                    block.batch.first + offset,
                    name,
                    str(said.get("audit.record.id")),
                    str(said.get("automation.run.id")),
                )
                for name in sorted(names)
            ]
    return found


def erased_before(directory: Directory) -> dict[int, set[str]]:
    """Return what the erasure records of the log say was erased: index → attributes."""
    found: dict[int, set[str]] = {}
    for block in reader.batches(directory.log):
        for statement in block.statements:
            if b'"type":"erasure"' in statement:
                for index, name in statements.decode(statement).get("erased", ()):
                    found.setdefault(index, set()).add(name)
    return found


def erase(
    directory: Directory, wanted: Wanted, reason: str, actor: str, progress: Callable[[str], None] = lambda text: None
) -> list[Found]:
    """Erase values from the directory, and record it.

    Args:
        directory: the log directory; it may be in use.
        wanted: what.
        reason: why; it is signed, and anybody who reads the log can read it.
        actor: who erases, as the log shall say.
        progress: is told what goes on.

    Returns:
        What was put on record as erased now; nothing if all of it was before.

    Raises:
        DirectoryError: the directory cannot be written, or nobody puts what is recorded into the log.
    """
    with sequenced(directory, progress) as catch_up:
        before = erased_before(directory)
        found = [item for item in find(directory, wanted) if item.name not in before.get(item.index, ())]
        progress(f"{len(found)} values found in the log")
        if found:
            _record(directory, found, reason, actor)
            catch_up()
            progress("the erasure is on record, signed")
        try:
            _overwrite_all(directory)
        except OSError as error:
            raise DirectoryError(
                f"The log in {directory.path} cannot be overwritten: {error.strerror}.",
                "Run the command as the user who owns the directory; running it again does what is left.",
            ) from error
        progress("overwritten on disk")
    return found


# -- what is recorded must be in the log ---------------------------------------------------------------------------
@contextmanager
def sequenced(directory: Directory, progress: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Have everything recorded put into the log: by this process, or by the one that does it already.

    Yields:
        a function that does it once more.

    Raises:
        DirectoryError: another process holds the directory's lock but puts nothing into the log.
    """
    sequencer = Sequencer.acquire(directory)

    def catch_up() -> None:
        if sequencer is not None:
            while sequencer.integrate():
                pass
            return
        progress("another process signs this log; waiting for it")
        deadline = time.monotonic() + WAIT
        while _waiting(directory):
            if time.monotonic() > deadline:
                raise DirectoryError(
                    f"The process that signs {directory.path} does not go on.",
                    "See `auditspan status`; stop it, or mend what it says, and run the command again.",
                )
            time.sleep(0.1)

    try:
        catch_up()
        yield catch_up
    finally:
        if sequencer is not None:
            sequencer.close()


def _waiting(directory: Directory) -> int:
    positions: dict[str, int] = {}
    for block in reader.batches(directory.log):
        positions = {name: at.offset for name, at in block.batch.segments.items()}
    return sum(
        segment.waiting(segment.path_of(directory.segments, name), positions.get(name, 0))
        for name in segment.names(directory.segments)
    )


def _record(directory: Directory, found: Collection[Found], reason: str, actor: str) -> None:
    said = own_attributes("log.erasure", "ERASE", directory.origin, _said(len(found)))
    said |= {
        "audit.actor.id": actor,
        "audit.actor.type": "user",
        "audit.actor.evidence": "os_user",
        "audit.rationale": reason,
    }
    writer = SegmentWriter(directory.segments)
    try:
        writer.append(
            lambda name, number: statements.encode(
                {
                    "v": statements.VERSION,
                    "type": "erasure",
                    "origin": directory.origin,
                    "segment": name,
                    "number": number,
                    "erased": sorted([item.index, item.name] for item in found),
                    "reason": statements.text(reason),
                    "time": str(time.time_ns()),
                    "attributes": statements.values(said),
                }
            )
        )
    finally:
        writer.close()


def _said(count: int) -> str:
    return "1 personal value was erased on request" if count == 1 else f"{count} personal values were erased on request"


# -- overwriting -----------------------------------------------------------------------------------------------------
def _overwrite_all(directory: Directory) -> None:
    """Overwrite everything that is erased on record, wherever a line with it is."""
    erased = erased_before(directory)
    targets: dict[bytes, set[str]] = {}
    for block in reader.batches(directory.log):
        for offset, leaf in enumerate(block.batch.leaves):
            if block.batch.first + offset in erased:
                targets[leaf] = erased[block.batch.first + offset]
    if not targets:
        return
    for name in reader.files(directory.log):
        _overwrite(directory.log / name, ENTRY, targets)
    for name in segment.names(directory.segments):
        with contextlib.suppress(FileNotFoundError):  # it was in the log to its end, and has been removed
            _overwrite(segment.path_of(directory.segments, name), b"", targets)


def _overwrite(path: Path, prefix: bytes, targets: Mapping[bytes, set[str]]) -> None:
    """Overwrite values in a file of lines, and have it on disk.

    Args:
        path: the file.
        prefix: what comes before the statement in a line.
        targets: leaf hash of a statement → attributes whose values go.
    """
    descriptor = os.open(path, os.O_RDWR)
    try:
        changed = False
        offset = 0
        with os.fdopen(os.dup(descriptor), "rb") as file:
            for line in file:
                statement, mark, beside = line.rstrip(b"\n").partition(PRIVATE_MARK)
                if mark and beside.strip(b" ") and statement.startswith(prefix):
                    names = targets.get(leaf_hash(statement[len(prefix) :]))
                    if names:
                        os.pwrite(descriptor, _left(beside, names), offset + len(statement) + len(mark))
                        changed = True
                offset += len(line)
        if changed:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _left(beside: bytes, names: set[str]) -> bytes:
    try:
        return commitment.without(beside, names)
    except FormatError:
        return b" " * len(beside)  # damaged: nothing in it opens anything, but the value may still be readable


def _names(statement: bytes, beside: bytes, wanted: Wanted) -> tuple[dict[str, Any], set[str]]:
    if not beside.strip(b" "):
        return {}, set()
    try:
        fields = statements.decode(statement)
        return fields, wanted.names(fields, commitment.decode(beside))
    except FormatError:
        return {}, set()
