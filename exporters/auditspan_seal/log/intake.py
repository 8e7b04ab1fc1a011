# SPDX-License-Identifier: Apache-2.0
"""What comes into the log: complete lines of segments that are what they claim to be; for all else a gap entry."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import entry
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK, Position
from auditspan_seal.log import segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.window import LARGEST_WINDOW

OF_PROCESS = ("span", "gap")
"""Types of entries that a process may put into its segment: what happened, and that something was lost."""
OF_OWNER = (*OF_PROCESS, "erasure", "revocation")
"""The same for the owner of the log."""


class Intake:
    """Reads the segments of a directory.

    Args:
        directory: the directory.
        origins: origins that a statement may name: that of the log, and of those that it replaces.
    """

    def __init__(self, directory: Directory, origins: Collection[str]) -> None:
        self._directory = directory
        self._origins = origins

    def collect(self, positions: Mapping[str, Position], limit: int) -> tuple[list[bytes], dict[str, Position]]:
        """Read what is recorded and not in the log yet.

        Args:
            positions: how far each segment is in the log.
            limit: entries at most.

        Returns:
            the lines, and how far each segment is with them in the log.
        """
        entries: list[bytes] = []
        after = dict(positions)
        for name, path in segment.all_of(self._directory):
            if len(entries) >= limit:
                break
            at = after.get(name, Position(0, 0))
            with contextlib.suppress(FileNotFoundError):
                room = limit - len(entries)
                lines, offset = segment.read_lines(path, at.offset, room)
                if not lines and path.stat().st_size > offset and not segment.has_writer(path):
                    lines, offset = segment.read_lines(path, at.offset, room, ended=True)
                    if not lines and (torn := segment.rest(path, offset, statements.MAX_SIZE)):
                        entries.append(self._gap(name, 0, torn, "The process died while it wrote this record."))
                        after[name] = Position(offset + len(torn), at.number)
                if lines:
                    entries += [self._checked(name, at.number + i, line) for i, line in enumerate(lines, 1)]
                    after[name] = Position(offset, at.number + len(lines))
        return entries, after

    def finished(self, positions: Mapping[str, Position]) -> list[str]:
        """Remove the segments that are in the log to their end and will not grow: their writer is gone.

        Returns:
            their names.
        """
        gone = []
        for name, at in positions.items():
            path = segment.find(self._directory, name)
            try:
                # The order matters: first the writer is seen to be gone, then that it left nothing more.
                if not segment.has_writer(path) and not segment.rest(path, at.offset, LARGEST_WINDOW):
                    path.unlink()
                    gone.append(name)
            except FileNotFoundError:
                gone.append(name)
        return gone

    def _checked(self, name: str, number: int, line: bytes) -> bytes:
        """Return the line if it may be an entry; else one that says that something there was lost."""
        try:
            fields = statements.decode(line.partition(PRIVATE_MARK)[0])
        except FormatError as error:
            return self._gap(name, number, line, error.what)
        allowed = OF_OWNER if name.startswith(segment.CONTROL) else OF_PROCESS
        if fields["type"] not in allowed:
            return self._gap(name, number, line, "An entry of this type is not to be written by a process.")
        if fields.get("segment") != name or fields.get("number") != number:
            return self._gap(name, number, line, "The record says that it stands in another place.")
        if fields.get("origin") not in self._origins:
            return self._gap(name, number, line, "The record says that it is of another log.")
        return line

    def _gap(self, name: str, number: int, lost: bytes, reason: str) -> bytes:
        return entry.gap(self._directory.origin, name, number, lost, reason, time.time_ns())
