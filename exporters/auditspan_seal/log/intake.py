# SPDX-License-Identifier: Apache-2.0
"""What comes into the log: complete lines of segments that are what they claim to be; for all else a gap entry."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import entry
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK, Position
from auditspan_seal.keys import safe
from auditspan_seal.log import interrupted, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.window import LARGEST_WINDOW
from auditspan_seal.native import NATIVE

OF_PROCESS = ("span", "gap")
"""Types of entries that a process may put into its segment: what happened, and that something was lost."""
OF_OWNER = (*OF_PROCESS, "erasure", "revocation")
"""The same for the owner of the log."""
_AT_ONCE = 16
"""Statements that are read together: what they become must fit into the near caches, else more is lost than saved."""


class Intake:
    """Reads the segments of a directory.

    Args:
        directory: the directory.
        origins: origins that a statement may name: that of the log, and of those that it replaces.

    Attributes:
        unreadable: segments that could not be read the last time, and why. What is in them waits; the others do not.
    """

    def __init__(self, directory: Directory, origins: Collection[str]) -> None:
        self._directory = directory
        self._origins = origins
        self._runs = interrupted.OpenRuns()
        self._told = False
        self.unreadable: dict[Path, str] = {}
        self._alive: set[str] = set()  # segments that were seen to have a writer since the last round began

    def collect(self, positions: Mapping[str, Position], limit: int) -> tuple[list[bytes], dict[str, Position]]:
        """Read what is recorded and not in the log yet.

        Args:
            positions: how far each segment is in the log.
            limit: entries at most.

        Returns:
            the lines, and how far each segment is with them in the log.
        """
        self._alive.clear()
        self.unreadable.clear()
        entries: list[bytes] = []
        after = dict(positions)
        for name, path in segment.all_of(self._directory):
            if len(entries) >= limit:
                break
            try:
                found, at = self._read(name, path, after.get(name, Position(0, 0)), limit - len(entries))
            except FileNotFoundError:
                continue
            except OSError as error:  # one process, or one bad block, must not keep all others from being signed
                self._cannot_read(path, error)
                continue
            if found:
                entries += found
                after[name] = at
        return entries, after

    def _read(self, name: str, path: Path, at: Position, room: int) -> tuple[list[bytes], Position]:
        """Read one segment: the entries that become of it, and how far it is in the log with them."""
        lines, offset = segment.read_lines(path, at.offset, room)
        if not lines and path.stat().st_size > offset:
            if segment.has_writer(path):
                self._alive.add(name)
                return [], at
            lines, offset = segment.read_lines(path, at.offset, room, ended=True)
            if not lines and (torn := segment.rest(path, offset, statements.MAX_SIZE)):
                gap = self._gap(name, 0, torn, "The process died while it wrote this record.")
                return [gap], Position(offset + len(torn), at.number)
        return self._all_checked(name, at.number, lines), Position(offset, at.number + len(lines))

    def finished(self, positions: Mapping[str, Position]) -> tuple[list[str], bool]:
        """Remove the segments that are in the log to their end and will not grow: their writer is gone.

        Returns:
            their names; and whether something was recorded because of it: that runs were interrupted.
        """
        gone = []
        self._told = False
        for name, at in positions.items():
            if name in self._alive:
                continue
            path = segment.find(self._directory, name)
            try:
                if self._may_have_more(path, at) or self._is_needed(name, positions):
                    continue
                path.unlink()
                gone.append(name)
            except FileNotFoundError:
                gone.append(name)
        return gone, self._told

    def recall(self, positions: Mapping[str, Position]) -> None:
        """Find out what has begun and not ended in the segments that another process has sequenced up to here."""
        for name, at in positions.items():
            if not name.startswith(segment.CONTROL):
                with contextlib.suppress(OSError):  # who cannot be read is told of with the next round
                    self._runs.see_again(name, segment.find(self._directory, name), at.offset)

    def _is_needed(self, name: str, positions: Mapping[str, Position]) -> bool:
        """Tell whether a segment that is done is needed to know, or not to say twice, what was interrupted."""
        folder = self._directory.segments
        if name.startswith(segment.CONTROL):
            process = name.removeprefix(segment.CONTROL)
            return any(segment.process_of(other) == process for other in segment.names(folder))
        if not self._runs.begun_in(name):
            return False
        process = segment.process_of(name)
        for other in segment.names(folder):
            at = positions.get(other, Position(0, 0))
            if segment.process_of(other) == process and self._may_have_more(segment.path_of(folder, other), at):
                return True  # it lives, or may have said the end
        self._say_interrupted(process, positions)
        return False

    def _may_have_more(self, path: Path, at: Position) -> bool:
        """Tell whether there is, or may come, more in a segment than is in the log; also if it cannot be read."""
        try:
            # The order matters: first the writer is seen to be gone, then that it left nothing more.
            return segment.has_writer(path) or bool(segment.rest(path, at.offset, LARGEST_WINDOW))
        except FileNotFoundError:
            raise
        except OSError as error:
            self._cannot_read(path, error)
            return True

    def _cannot_read(self, path: Path, error: OSError) -> None:
        self.unreadable[path] = error.strerror or str(error)

    def _say_interrupted(self, process: str, positions: Mapping[str, Position]) -> None:
        name = f"{segment.CONTROL}{process}"
        path = segment.path_of(self._directory.control, name)
        if name not in positions and not path.exists():
            self._directory.control.mkdir(mode=0o700, exist_ok=True)
            self._told = True
            safe.replace(path, b"".join(interrupted.lines(self._runs.of(process), name, time.time_ns())), 0o600)
        self._runs.forget(process)

    def _all_checked(self, name: str, number: int, lines: list[bytes]) -> list[bytes]:
        """Return the entries that lines become, see :meth:`_checked`; `number` is that of the line before them."""
        entries: list[bytes] = []
        while lines:
            if usual := self._usual(name, number + 1, lines):
                entries += lines[:usual]
                lines, number = lines[usual:], number + usual
                continue
            some, lines = lines[:_AT_ONCE], lines[_AT_ONCE:]
            try:
                found = statements.decode_all([line.partition(PRIVATE_MARK)[0] for line in some])
            except FormatError:  # which one it is, and why, is said one by one
                entries += [self._checked(name, number + i, line) for i, line in enumerate(some, 1)]
            else:
                entries += [self._placed(name, number + i, some[i - 1], fields) for i, fields in enumerate(found, 1)]
            number += len(some)
        return entries

    def _usual(self, name: str, number: int, lines: list[bytes]) -> int:
        """Count the lines from the first on that may be entries as they stand, if that can be told at once."""
        if NATIVE is None or name.startswith(segment.CONTROL):
            return 0
        origin = orjson.dumps(self._directory.origin)  # what names one that this log has replaced is not usual
        count, spans = NATIVE.usual(lines, orjson.dumps(name), number, origin, interrupted.MARKS)
        if count:
            self._runs.see_ends(spans)
        return count

    def _checked(self, name: str, number: int, line: bytes) -> bytes:
        """Return the line if it may be an entry; else one that says that something there was lost."""
        try:
            fields = statements.decode(line.partition(PRIVATE_MARK)[0])
        except FormatError as error:
            return self._gap(name, number, line, error.what)
        return self._placed(name, number, line, fields)

    def _placed(self, name: str, number: int, line: bytes, fields: dict[str, Any]) -> bytes:
        """Return the line of a statement if it may stand where it stands; else a gap entry."""
        allowed = OF_OWNER if name.startswith(segment.CONTROL) else OF_PROCESS
        if fields["type"] not in allowed:
            return self._gap(name, number, line, "An entry of this type is not to be written by a process.")
        if fields["type"] == "revocation":
            return line  # its certificate says whose it is; the same bytes are kept as a file
        # What is equal is not the same: `true` and `1.0` are no running numbers.
        if fields.get("segment") != name or fields.get("number") != number or type(fields["number"]) is not int:
            return self._gap(name, number, line, "The record says that it stands in another place.")
        if fields.get("origin") not in self._origins:
            return self._gap(name, number, line, "The record says that it is of another log.")
        if not name.startswith(segment.CONTROL):
            self._runs.see(name, fields, line)
        return line

    def _gap(self, name: str, number: int, lost: bytes, reason: str) -> bytes:
        return entry.gap(self._directory.origin, name, number, lost, reason, time.time_ns())
