# SPDX-License-Identifier: Apache-2.0
"""The archive: every checkpoint, in a place where what was written can only be added to.

Two forms, by what the place can do:

A **file** has one JSON object per line, ``{"note": <signed note>, "previous": <hexadecimal>}``, with keys in this order
and no spaces; ``previous`` is the SHA-256 of the line before it without its LF, 64 zeros in the first line. So a line
that was removed or altered is seen by the next one. Several logs, also of several hosts, may share a file.

A **store** has one immutable object per checkpoint, whose content is the signed note, verbatim::

    <SHA-256 of the origin>/<tree size, 20 digits>-<id>-<id of the object before it>.note

An id is the first 16 hexadecimal digits of the SHA-256 of the content; 16 zeros: there is none before it. So an object
that was removed is seen by the next one.

Neither shows that its own end was cut off: that the place must prevent (append-only file, object lock, other
credentials). What a host wrote last, it remembers in its log directory (``archive.json``); it looks whether it is
still there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from auditspan_seal.errors import SecondPlaceError, SourceError
from auditspan_seal.formats.add_checkpoint import origin_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys.safe import sync_folder
from auditspan_seal.witness.store import MAX_OBJECT, SUFFIX, Store, Stored, reason, store_of

MAX_LINE = MAX_OBJECT  # bytes
_FIRST_LINE = "0" * 64
_FIRST_OBJECT = "0" * 16
_NAME = re.compile(r"([0-9a-f]{64})/(\d{20})-([0-9a-f]{16})-([0-9a-f]{16})\.note")


@dataclass(frozen=True)
class Receipt:
    """Where the last checkpoint of a log stands in an archive, to see later that it still does.

    Attributes:
        place: the archive.
        name: of the object; of a line in a file, the byte offset of its beginning, in decimal.
        digest: SHA-256 (hexadecimal) of the object or line.
        size: tree size of the checkpoint.
    """

    place: str
    name: str
    digest: str
    size: int

    def save(self, path: Path) -> None:
        """Write it, atomically."""
        draft = path.with_suffix(".new")
        draft.write_bytes(orjson.dumps(self))
        os.replace(draft, path)

    @classmethod
    def load(cls, path: Path) -> Receipt | None:
        """Read it; None if there is none or it is damaged."""
        try:
            fields = orjson.loads(path.read_bytes())
            found = cls(fields["place"], fields["name"], fields["digest"], fields["size"])
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return None
        strings = (found.place, found.name, found.digest)
        return found if all(type(item) is str for item in strings) and type(found.size) is int else None


class Archive:
    """An archive to write to.

    Args:
        place: see :func:`store_of`.

    Raises:
        SourceError: there is no such kind of place.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._store = store_of(place)
        self._path = Path(place.removeprefix("file://"))
        self._last: dict[str, str] = {}  # origin -> id of the last object

    def add(self, note: Note) -> Receipt:
        """Add a checkpoint; durable when this returns.

        Raises:
            SecondPlaceError: it could not be written; it may be tried again.
            MalformedNote: it is not a checkpoint.
        """
        checkpoint = Checkpoint.parse(note.text)
        try:
            if self._store is None:
                return self._append(str(note), checkpoint)
            return self._put(self._store, str(note).encode(), checkpoint)
        except OSError as error:
            raise SecondPlaceError(
                f"The checkpoint of size {checkpoint.size} could not be archived in {self.place}: {reason(error)}.",
                "Check the place and this host's right to add to it; the next checkpoint covers what this one did.",
            ) from None

    def holds(self, receipt: Receipt) -> bool:
        """Tell whether what was written is still there, unaltered.

        Raises:
            SecondPlaceError: the place cannot be read.
        """
        try:
            if self._store is not None:
                content = self._store.get(receipt.name)
            else:
                content = _line_at(self._path, int(receipt.name))
        except (FileNotFoundError, ValueError):
            return False
        except OSError as error:
            raise SecondPlaceError(
                f"The archive {self.place} cannot be read: {reason(error)}.",
                "Give this host the right to read it, so that it can see whether somebody changed it.",
            ) from None
        return hashlib.sha256(content).hexdigest() == receipt.digest

    # -- file --------------------------------------------------------------------------------------------------

    def _append(self, note: str, checkpoint: Checkpoint) -> Receipt:
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # released by closing
            size = os.fstat(descriptor).st_size
            last, torn = _last_line(descriptor, size)
            previous = hashlib.sha256(last).hexdigest() if size else _FIRST_LINE
            line = orjson.dumps({"note": note, "previous": previous})
            # A line that a crash cut short stays, ended: nothing may ever be removed here.
            data = (b"\n" if torn else b"") + line + b"\n"
            if os.write(descriptor, data) != len(data):
                raise OSError(28, "only a part could be written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if not size:
            sync_folder(self._path.parent)
        return Receipt(self.place, str(size + torn), hashlib.sha256(line).hexdigest(), checkpoint.size)

    # -- store -------------------------------------------------------------------------------------------------

    def _put(self, store: Store, content: bytes, checkpoint: Checkpoint) -> Receipt:
        folder = origin_hash(checkpoint.origin)
        if folder not in self._last:
            # Only once per process: what is the newest object?
            names = [name for item in _existing(store, f"{folder}/") if (name := _NAME.fullmatch(item.name))]
            followed = {name[4] for name in names}
            ends = [(name[2], name[3]) for name in names if name[3] not in followed]
            self._last[folder] = max(ends, default=("", _FIRST_OBJECT))[1]
        digest = hashlib.sha256(content).hexdigest()
        path = f"{folder}/{checkpoint.size:020d}-{digest[:16]}-{self._last[folder]}{SUFFIX}"
        store.put(path, content)  # False: another process has written the very same
        self._last[folder] = digest[:16]
        return Receipt(self.place, path, digest, checkpoint.size)


@dataclass(frozen=True)
class Item:
    """Something found in an archive.

    Attributes:
        where: what to call it in a message.
        content: a signed note, if it is one.
        time: see :attr:`Stored.time`.
        problem: what is wrong with the archive here; empty: nothing.
    """

    where: str
    content: str
    time: int | None = None
    problem: str = ""


def read(place: str) -> Iterator[Item]:
    """Read all of an archive, or a file with one signed note (such as ``cosigned.note``).

    Yields:
        Each note, none of them verified; and each problem.

    Raises:
        SourceError: the place cannot be read.
    """
    try:
        store = store_of(place)
        if store is not None:
            yield from _read_store(place, store)
        else:
            yield from _read_file(Path(place.removeprefix("file://")))
    except OSError as error:
        raise SourceError(
            f"The checkpoints in {place} cannot be read: {reason(error)}.",
            "Check the path and your right to read it.",
        ) from None


def _read_file(path: Path) -> Iterator[Item]:
    with open(path, "rb") as file:
        if not file.read(1).startswith(b"{"):
            file.seek(0)
            yield _item(str(path), file.read(MAX_LINE))
            return
        file.seek(0)
        previous = _FIRST_LINE
        for number in range(1, 2**63):
            line = file.readline(MAX_LINE)
            if not line:
                return
            where = f"{path}, line {number}"
            body = line.removesuffix(b"\n")
            note, named = _parse_line(body)
            if named is None:
                torn = "it was cut short, by a crash or by somebody" if body == line else "it was altered"
                yield Item(where, "", problem=f"{where} is not a line of an archive: {torn}.")
            elif named != previous:
                missing = (
                    "the beginning of the archive is missing"
                    if number == 1
                    else "a line before it was removed or altered"
                )
                yield Item(where, note, problem=f"{where}: {missing}.")
            else:
                yield Item(where, note)
            previous = hashlib.sha256(body).hexdigest()


def _parse_line(line: bytes) -> tuple[str, str | None]:
    """Return the note and the hash of the line before; None in its place: it is not a line of an archive."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "", None
    if not isinstance(fields, dict) or set(fields) != {"note", "previous"}:
        return "", None
    note, previous = fields["note"], fields["previous"]
    return (note, previous) if type(note) is str and type(previous) is str else ("", None)


def _read_store(place: str, store: Store) -> Iterator[Item]:
    found = sorted(store.list(""), key=lambda item: item.name)
    names = [_NAME.fullmatch(item.name) for item in found]
    known = {(name[1], name[3]) for name in names if name}
    linked: set[str] = set()
    for item, name in zip(found, names, strict=True):
        where = f"{item.name} in {place}"
        content = store.get(item.name)
        yield _item(where, content, item.time)
        if name is None:
            continue  # a note that somebody put there by hand: it counts for what it says
        if hashlib.sha256(content).hexdigest()[:16] != name[3]:
            yield Item(where, "", problem=f"{where} was altered: its content is not what its name says.")
        if name[4] == _FIRST_OBJECT:
            if name[1] in linked:
                yield Item(where, "", problem=f"{where} says to be the first of its log, and others are before it.")
        elif (name[1], name[4]) not in known:
            yield Item(where, "", problem=f"{where} follows the object {name[4]}, which was removed.")
        linked.add(name[1])


def _item(where: str, content: bytes, time: int | None = None) -> Item:
    try:
        return Item(where, content.decode(), time)
    except UnicodeDecodeError:
        return Item(where, "", time, f"{where} is not text.")


def _existing(store: Store, prefix: str) -> Iterator[Stored]:
    try:
        yield from store.list(prefix)
    except FileNotFoundError:
        return  # a folder that the first object makes


def _last_line(descriptor: int, size: int) -> tuple[bytes, bool]:
    """Return the last line of a file without LF, and whether it lacks one."""
    tail, begin = b"", size
    while begin and b"\n" not in tail[:-1]:
        step = min(begin, 65536)
        begin -= step
        tail = os.pread(descriptor, step, begin) + tail
        if len(tail) > MAX_LINE:
            break
    torn = bool(tail) and not tail.endswith(b"\n")
    return tail.removesuffix(b"\n").rpartition(b"\n")[2], torn


def _line_at(path: Path, offset: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.readline(MAX_LINE).removesuffix(b"\n")
