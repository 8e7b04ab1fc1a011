# SPDX-License-Identifier: Apache-2.0
"""Pruning: removes log files whose every entry Elasticsearch was seen to hold, and keeps on record what went.

A log file goes only as a whole, only from the beginning of the log, never the newest one, and only if the delivery
receipt covers all of it. What is kept of the removed part is its last signed checkpoint; the first batch that stays
holds the frontier of the tree before it, so the rest of the log is verified from there.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.errors import DirectoryError, FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys import safe
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.receipt import Receipt

NAME = "pruned.json"
LOCK = "erase.lock"
"""Who changes log files holds it: erasing and pruning do not go on at the same time."""
VERSION = 1
FRESH = 24 * 3600.0  # seconds; an older receipt says what Elasticsearch held then, not what it holds
_COSIGNED = "cosigned.note"


@dataclass(frozen=True)
class Pruned:
    """What was removed from the beginning of a log.

    Attributes:
        origin: the log.
        size: number of entries that are gone; the first one that is there has this index.
        note: the signed checkpoint of that size.
        files: how many log files were removed, in all.
        bytes: how large they were.
        place: the Elasticsearch that was seen to hold them.
        time: when the last ones were removed, in seconds since the epoch.
        origins: the logs that this one replaced: processes may still write records for them.
    """

    origin: str
    size: int
    note: str
    files: int
    bytes: int
    place: str
    time: float
    origins: tuple[str, ...] = ()

    @classmethod
    def load(cls, directory: Directory) -> Pruned | None:
        """Read what was pruned of the log of a directory; None: nothing, or it is not known."""
        try:
            fields = orjson.loads((directory.path / NAME).read_bytes())
            if fields.pop("v") != VERSION:
                return None
            fields["origins"] = tuple(map(str, fields["origins"]))
            pruned = cls(**fields)
            checkpoint = Checkpoint.parse(Note.parse(pruned.note).text)
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, FormatError):
            return None
        fits = (pruned.origin, pruned.size) == (checkpoint.origin, checkpoint.size)
        return pruned if fits and pruned.origin == directory.origin else None

    def save(self, directory: Directory) -> None:
        """Write it, as a whole and synced.

        Raises:
            OSError: it cannot be written.
        """
        fields = {"v": VERSION, **asdict(self)}
        safe.replace(directory.path / NAME, orjson.dumps(fields, option=orjson.OPT_INDENT_2), 0o640)


@dataclass(frozen=True)
class Candidate:
    """A log file.

    Attributes:
        path: the file.
        first: index of its first entry.
        end: index after its last one; None: it is the newest file, which never goes.
        size: bytes on disk.
        changed: when something was added last, in seconds since the epoch.
        kept: why it must stay; empty: it may go.
    """

    path: Path
    first: int
    end: int | None
    size: int
    changed: float
    kept: str = ""

    @property
    def age(self) -> float:
        """Seconds since something was added; 0 if the clock was set back."""
        return max(0.0, time.time() - self.changed)


def candidates(directory: Directory, older: float) -> list[Candidate]:
    """Return the log files, oldest first, each with why it must stay. From the first that must, all must.

    Args:
        directory: the log directory.
        older: seconds that a file must not have been added to.

    Raises:
        DirectoryError: the log cannot be read.
    """
    receipt = Receipt.load(directory)
    names = reader.files(directory.log)
    witnessed = _witnessed(directory)
    found: list[Candidate] = []
    for name, following in zip(names, [*names[1:], None], strict=True):
        path = directory.log / name
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        end = reader.first_of(following) if following is not None else None
        found.append(Candidate(path, reader.first_of(name), end, status.st_blocks * 512, status.st_mtime))
    kept = ""
    checked = []
    for item in found:
        kept = kept or _why_kept(item, receipt, witnessed, older)
        checked.append(Candidate(item.path, item.first, item.end, item.size, item.changed, kept))
    return checked


def _why_kept(item: Candidate, receipt: Receipt | None, witnessed: int | None, older: float) -> str:
    if item.end is None:
        return "it is the newest log file"
    if receipt is None:
        return "there is no delivery receipt: run `auditspan backend reconcile`"
    if receipt.size < item.end:
        return (
            f"Elasticsearch was seen to hold everything below index {receipt.size} only (the file ends at "
            f"{item.end - 1}): run `auditspan backend reconcile`"
        )
    if receipt.age > FRESH:
        return "the delivery receipt is older than 24 hours: run `auditspan backend reconcile` again"
    if witnessed is not None and witnessed < item.end:
        return (
            f"the witnesses have cosigned {witnessed} entries only; what comes after is needed to prove growth to them"
        )
    if item.age < older:
        return f"it was written to within the last {older / 86400:g} days"
    return ""


def _witnessed(directory: Directory) -> int | None:
    """Return the size that the witnesses have cosigned last; None: there are no witnesses."""
    try:
        return Checkpoint.parse(Note.parse((directory.path / _COSIGNED).read_text(encoding="utf-8")).text).size
    except (UnicodeDecodeError, FormatError):
        return 0
    except OSError:
        return 0 if os.environ.get("AUDITSPAN_WITNESS_POLICY") else None


def prune(directory: Directory, older: float, until: int | None = None) -> list[Candidate]:
    """Remove the log files that may go.

    Args:
        directory: the log directory; it may be in use.
        older: seconds that a file must not have been added to.
        until: stop as soon as so many bytes are free again; None: remove all that may go.

    Returns:
        The files that were removed.

    Raises:
        DirectoryError: the directory cannot be read or written, or an erasure is going on in it.
    """
    with _alone(directory):
        going: list[Candidate] = []
        for item in candidates(directory, older):
            if item.kept or (until is not None and sum(other.size for other in going) >= until):
                break
            going.append(item)
        if not going:
            return []
        try:
            # First the record, then the files: a crash in between leaves files that go the next time.
            _record(directory, going)
            for item in going:
                item.path.unlink(missing_ok=True)
            safe.sync_folder(directory.log)
        except OSError as error:
            raise DirectoryError(
                f"Log files in {directory.log} could not be removed: {error.strerror}.",
                "Run as the user who owns the directory. What was removed is on record; the rest stays.",
            ) from error
        return going


def _record(directory: Directory, going: list[Candidate]) -> None:
    before = Pruned.load(directory)
    receipt = Receipt.load(directory)
    end = going[-1].end
    assert end is not None
    known = {str(item.path) for item in going if before is not None and item.first < before.size}  # a crash came before
    Pruned(
        directory.origin,
        end,
        _note_at(directory, going[-1], end),
        (before.files if before else 0) + sum(str(item.path) not in known for item in going),
        (before.bytes if before else 0) + sum(item.size for item in going if str(item.path) not in known),
        receipt.place if receipt is not None else "",
        time.time(),
        before.origins if before is not None and before.origins else tuple(replaced(directory)),
    ).save(directory)


def _note_at(directory: Directory, item: Candidate, end: int) -> str:
    note = ""
    for block in reader.blocks(directory.log, reader.Cursor(item.path.name)):
        if not isinstance(block, reader.Block) or block.after.file != item.path.name:
            break
        note = block.batch.note if block.batch.size == end else ""
    if not note:
        raise DirectoryError(
            f"The log file {item.path} does not end with the checkpoint of {end} entries; nothing is removed.",
            f"Run `auditspan verify {directory.path}` to see what changed.",
        )
    return note


def replaced(directory: Directory, first: reader.Block | None = None) -> list[str]:
    """Return the origins of logs that the one in a directory replaces: a process that began with one may still write.

    They stand in its first entry; if that was pruned, in the record of that.

    Args:
        directory: the directory.
        first: the first batch, if it is at hand; readers do not see one yet that lacks its last LF.
    """
    pruned = Pruned.load(directory)
    if pruned is not None and pruned.origins:
        return list(pruned.origins)
    first = first or next(reader.batches(directory.log), None)
    try:
        fields: dict[str, Any] = (
            statements.decode(first.statements[0]) if first is not None and first.statements else {}
        )
    except FormatError:
        return []
    predecessor = fields.get("predecessor")
    return [str(predecessor.get("origin"))] if isinstance(predecessor, dict) else []


@contextmanager
def _alone(directory: Directory) -> Iterator[None]:
    try:
        lock = os.open(directory.path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DirectoryError(
            f"{directory.path / LOCK} cannot be opened: {error.strerror}.",
            "Run the command as the user who owns the directory.",
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DirectoryError(
            f"Values are being erased from {directory.path}; nothing is removed meanwhile.", "Try again later."
        ) from None
    finally:
        os.close(lock)
