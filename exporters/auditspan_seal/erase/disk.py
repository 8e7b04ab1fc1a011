# SPDX-License-Identifier: Apache-2.0
"""Erases personal values from a log directory. No statement changes: value and salt stand beside it.

What is erased is overwritten in place, by spaces: every offset in the log remains right, and the directory may be in
use. The order matters. First everything recorded is put into the log, so that each value has an index; then comes the
signed record of the erasure; then the log is overwritten, and the segments, where a copy of the line may still be.
After a crash in between the same command does the rest: what is erased on record and still there is overwritten, too.
One erasure at a time: of two that overwrite the same line, the second would write back what the first has removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from auditspan_seal.erase.wanted import Found, Hit, Wanted, hits_in
from auditspan_seal.errors import AuditspanError, DirectoryError, FormatError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK
from auditspan_seal.formats.entry import own_attributes
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.verify.personal import erasures

WAIT = 30.0  # seconds for another process to put what is recorded into the log
LOCK = "erase.lock"
WITHHELD = "(withheld: it is the value that was erased)"


def find(directory: Directory, wanted: Wanted) -> list[Found]:
    """Find values in the log.

    Raises:
        DirectoryError: the log cannot be read.
    """
    return [item for item, _ in _search(directory, wanted)]


def _search(directory: Directory, wanted: Wanted) -> Iterator[Hit]:
    for block in reader.batches(directory.log):
        for offset, (statement, beside) in enumerate(zip(block.statements, block.private, strict=True)):
            try:
                yield from hits_in(wanted, block.batch.first + offset, statement, commitment.decode(beside))
            except FormatError:
                continue


def erased_before(directory: Directory) -> dict[int, set[str]]:
    """Return what the erasure records of the log say was erased: index → attributes.

    What is not the entry that was put into the log there, or speaks of what came after it, says nothing.
    """
    found: dict[int, set[str]] = {}
    for index, name in erasures(_erasure_entries(directory)):
        found.setdefault(index, set()).add(name)
    return found


def _erasure_entries(directory: Directory) -> Iterator[tuple[int, dict[str, Any]]]:
    for block in reader.batches(directory.log):
        leaves = block.batch.leaves
        for offset, statement in enumerate(block.statements[: len(leaves)]):
            if b'"type":"erasure"' in statement and leaf_hash(statement) == leaves[offset]:
                with contextlib.suppress(FormatError):
                    yield block.batch.first + offset, statements.decode(statement)


def erase(
    directory: Directory,
    wanted: Wanted,
    reason: str,
    actor: str,
    progress: Callable[[str], None] = lambda text: None,
    elsewhere: Collection[Hit] = (),
) -> list[Found]:
    """Erase values from the directory, and record it.

    Args:
        directory: the log directory; it may be in use.
        wanted: what.
        reason: why; it is signed, and anybody who reads the log can read it.
        actor: who erases, as the log shall say; withheld if that is what is to be erased.
        progress: is told what goes on.
        elsewhere: values in entries that are no longer in the directory: it was pruned, and Elasticsearch holds them.

    Returns:
        What was put on record as erased now; nothing if all of it was before.

    Raises:
        DirectoryError: the directory cannot be written, or nobody puts what is recorded into the log.
        AuditspanError: the reason names what is to be erased; nothing was changed.
    """
    with _alone(directory, progress), sequenced(directory, progress) as catch_up:
        before = erased_before(directory)
        everywhere = [*elsewhere, *_search(directory, wanted)]
        hits = [hit for hit in everywhere if hit[0].name not in before.get(hit[0].index, ())]
        found = [item for item, _ in hits]
        texts = {text for _, texts in hits for text in texts}
        progress(f"{len(found)} values found in the log")
        if found:
            if _names_one_of(reason, texts):
                raise AuditspanError(
                    "The reason contains a value that is to be erased; it would be signed and stay forever.",
                    "Name a ticket or a request instead.",
                )
            _record(directory, found, reason, WITHHELD if _names_one_of(actor, texts) else actor)
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


def _names_one_of(text: str, values: Collection[str]) -> bool:
    """Tell whether a text has one of the values in it, as a whole word: the reason "request 12" does not name a 1."""
    return any(value and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.IGNORECASE) for value in values)


@contextmanager
def _alone(directory: Directory, progress: Callable[[str], None]) -> Iterator[None]:
    """Be the only one who erases from the directory; wait for another one."""
    path = directory.path / LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DirectoryError(
            f"{path} cannot be opened: {error.strerror}.", "Run the command as the user who owns the directory."
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another erasure is going on in this directory; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


# -- what is recorded must be in the log ---------------------------------------------------------------------------
@contextmanager
def sequenced(directory: Directory, progress: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Have everything recorded put into the log: by this process, or by the one that does it already.

    Yields:
        a function that does it once more.

    Raises:
        DirectoryError: another process holds the directory's lock but puts nothing into the log; or some of what is
            recorded cannot be read.
    """
    sequencer = Sequencer.acquire(directory)

    def catch_up() -> None:
        if sequencer is not None:
            while sequencer.integrate():
                pass
            if sequencer.unreadable:
                raise _unreadable(*next(iter(sequencer.unreadable.items())))
            return
        progress("another process signs this log; waiting for it")
        deadline = time.monotonic() + WAIT
        log = _Followed(directory)
        # Only for what is recorded by now: a busy process never has nothing waiting.
        ends = log.ends()
        while not log.has(ends):
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


def _unreadable(path: Path, why: str) -> DirectoryError:
    return DirectoryError(
        f"The segment {path} cannot be read ({why}): values that are wanted may stand in it.",
        "Run the command as a user who may read it, or check the disk.",
    )


class _Followed:
    """How far the log has come in each segment, as another process writes it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._cursor = reader.Cursor()
        self._positions: dict[str, int] = {}
        self._read()

    def ends(self) -> dict[str, int]:
        """Return where the complete lines of each segment end now, in bytes."""
        found = {}
        for name, path in segment.all_of(self._directory):
            try:
                found[name] = segment.read_lines(path, self._positions.get(name, 0), 1_000_000)[1]
            except FileNotFoundError:
                continue  # it was in the log to its end, and has been removed
            except OSError as error:
                raise _unreadable(path, error.strerror or str(error)) from None
        return found

    def has(self, ends: Mapping[str, int]) -> bool:
        """Tell whether the log has the segments up to these ends; it has all of one that is gone."""
        self._read()
        return all(
            self._positions.get(name, 0) >= end or not segment.find(self._directory, name).exists()
            for name, end in ends.items()
        )

    def _read(self) -> None:
        for block in reader.blocks(self._directory.log, self._cursor):
            if isinstance(block, reader.Block):
                self._cursor = block.after
                self._positions = {name: at.offset for name, at in block.batch.segments.items()}


def _record(directory: Directory, found: Collection[Found], reason: str, actor: str) -> None:
    said = own_attributes("log.erasure", "ERASE", directory.origin, _said(len(found)))
    said |= {
        "audit.actor.id": actor,
        "audit.actor.type": "user",
        "audit.actor.evidence": "os_user",
        "audit.rationale": reason,
    }
    directory.control.mkdir(mode=0o700, exist_ok=True)
    writer = SegmentWriter(directory.control, segment.CONTROL)
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
def still_recorded(directory: Directory) -> list[str]:
    """Return the segments that still hold a value that is erased on record, each as its file name.

    They are of processes of other users, which only these may change; each goes when its process ends.
    """
    targets = _targets(directory)
    found = []
    for _, path in segment.all_of(directory) if targets else ():
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            if next(_hits(file, b"", targets), None) is not None:
                found.append(path.name)
    return found


def _targets(directory: Directory) -> dict[bytes, set[str]]:
    """Return what is erased on record: leaf hash of a statement → attributes whose values go."""
    erased = erased_before(directory)
    targets: dict[bytes, set[str]] = {}
    for block in reader.batches(directory.log):
        for offset, leaf in enumerate(block.batch.leaves):
            if block.batch.first + offset in erased:
                targets[leaf] = erased[block.batch.first + offset]
    return targets


def _overwrite_all(directory: Directory) -> None:
    """Overwrite everything that is erased on record, wherever a line with it is."""
    targets = _targets(directory)
    if not targets:
        return
    for name in reader.files(directory.log):
        _overwrite(directory.log / name, ENTRY, targets)
    for _, path in segment.all_of(directory):
        # Gone: it was in the log to its end. Of another user: see still_recorded.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            _overwrite(path, b"", targets)


def _overwrite(path: Path, prefix: bytes, targets: Mapping[bytes, set[str]]) -> None:
    """Overwrite values in a file of lines, and have it on disk.

    Args:
        path: the file.
        prefix: what comes before the statement in a line.
        targets: see :func:`_targets`.
    """
    with open(path, "rb") as file:
        hits = list(_hits(file, prefix, targets))
    if not hits:
        return
    descriptor = os.open(path, os.O_WRONLY)
    try:
        for offset, left in hits:
            os.pwrite(descriptor, left, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hits(file: Iterable[bytes], prefix: bytes, targets: Mapping[bytes, set[str]]) -> Iterator[tuple[int, bytes]]:
    """Find the private parts with a value that goes: offset in the file, and what is left of the part."""
    offset = 0
    for line in file:
        statement, mark, beside = line.rstrip(b"\n").partition(PRIVATE_MARK)
        if mark and beside.strip(b" ") and statement.startswith(prefix):
            names = targets.get(leaf_hash(statement[len(prefix) :]))
            left = _left(beside, names) if names else beside
            if left != beside:
                yield offset + len(statement) + len(mark), left
        offset += len(line)


def _left(beside: bytes, names: set[str]) -> bytes:
    try:
        return commitment.without(beside, names)
    except FormatError:
        return b" " * len(beside)  # damaged: nothing in it opens anything, but the value may still be readable
