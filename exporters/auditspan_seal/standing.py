# SPDX-License-Identifier: Apache-2.0
"""How far a log is: recorded, sequenced, delivered; what waits, since when, and the space that it takes.

Found by looking at the ends of the files, so that asking costs the same whatever the size of the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from auditspan_seal.delivery import Delivery
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK, Position
from auditspan_seal.log import reader, segment
from auditspan_seal.log.budget import used
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.receipt import Receipt


@dataclass(frozen=True)
class Standing:
    """How far a log is.

    Attributes:
        size: tree size: entries that are in the log, signed.
        waiting: records that are in segments and not in the log yet.
        waiting_since: when the oldest of them ended, seconds since the epoch; None: there is none.
        delivery: how far delivery is; what was rejected and has been seen to be there since is left out.
        reconciled: entries that Elasticsearch was seen to hold, all below this index.
        pending_since: when the oldest entry that is not delivered was made, seconds since the epoch; None: there is
            none.
        unreadable: segments that cannot be read, and why: whether records wait there is not known.
        disk: bytes that its records take, which is what a disk budget counts.
    """

    size: int = 0
    waiting: int = 0
    waiting_since: float | None = None
    delivery: Delivery = field(default_factory=Delivery)
    reconciled: int = 0
    pending_since: float | None = None
    disk: int = 0
    unreadable: Mapping[Path, str] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Entries that are in the log and not delivered yet."""
        return max(0, self.size - self.delivery.size)


def look(directory: Directory) -> Standing:
    """Find out how far a log is.

    Raises:
        DirectoryError: a log file cannot be read.
        MalformedLog: the last checkpoint line is none.
    """
    # Delivery first: what is sequenced in between counts as pending, never less than nothing.
    receipt = Receipt.load(directory)
    reconciled = receipt.size if receipt is not None else 0
    delivery = Delivery.load(directory.delivery).without(0, reconciled)
    found = reader.newest(directory.log)
    size, positions = (found[0].size, found[0].segments) if found is not None else (0, {})
    waiting, waiting_since, unreadable = _waiting(directory, positions)
    pending_since = _time_at(directory, delivery.cursor) if delivery.size < size else None
    return Standing(size, waiting, waiting_since, delivery, reconciled, pending_since, used(directory), unreadable)


def _waiting(
    directory: Directory, positions: Mapping[str, Position]
) -> tuple[int, float | None, Mapping[Path, str]]:  # fmt: skip
    count, since, unreadable = 0, None, {}
    for name, path in segment.all_of(directory):
        at = positions.get(name)
        offset = at.offset if at else 0
        try:
            more = segment.waiting(path, offset)
            lines = segment.read_lines(path, offset, 1)[0] if more else []
        except FileNotFoundError:
            continue  # it is in the log to its end
        except OSError as error:
            unreadable[path] = error.strerror or str(error)
            continue
        count += more
        if more:
            moment = _time_of(lines[0]) if lines else None
            since = moment if since is None else min(since, moment or since)
    return count, since, unreadable


def _time_at(directory: Directory, cursor: reader.Cursor) -> float | None:
    """Return when the entry at a place of the log was made."""
    names = [name for name in reader.files(directory.log) if name >= cursor.file]
    for name in names[:2]:  # the place may be the end of a file
        try:
            with open(directory.log / name, "rb") as file:
                file.seek(cursor.offset if name == cursor.file else 0)
                line = file.readline()
        except OSError:
            return None
        if line.startswith(ENTRY):
            return _time_of(line[len(ENTRY) :])
    return None


def _time_of(line: bytes) -> float | None:
    try:
        fields = orjson.loads(line.partition(PRIVATE_MARK)[0])
        return int(fields.get("end") or fields["time"]) / 1e9
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
