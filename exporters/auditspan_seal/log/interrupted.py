# SPDX-License-Identifier: Apache-2.0
"""Runs that began and never ended: when their process is gone, the log says that they were interrupted.

A process records the beginning of a run as a record of its own. Whoever sequences its segments knows what is open;
once the process is gone and everything it recorded is in the log, a record *interrupted* is written for each. These
go into a segment of the log's owner that is named after the process, before the segments of the process are removed:
so they are written once, wherever a crash comes.

Another process may have said it already: one that kills a process that works for it records why, under the same run,
attempt and task run. Then nothing is left to say.
"""

from __future__ import annotations

import base64
import os
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK
from auditspan_seal.log import segment

STARTED = "workflow.execution.started"
INTERRUPTED = "workflow.execution.interrupted"
REASON = "its process ended before it did"
_BY_ANOTHER = frozenset([INTERRUPTED, "workflow.execution.cancelled"])
MARKS = tuple(f'"{kind}"'.encode() for kind in (STARTED, *sorted(_BY_ANOTHER)))
"""One of these is in the line of every record by which something begins, or may be said to have ended elsewhere."""
_REMEMBERED = 1000

Attempt = tuple[str, int, str]
"""Run, attempt and task run: what two processes that know of the same thing call it."""


@dataclass(frozen=True)
class _Begun:
    segment: str
    line: bytes
    attempt: Attempt | None


class OpenRuns:
    """What has begun and not ended yet, by process."""

    def __init__(self) -> None:
        self._open: dict[str, _Begun] = {}  # ID of the span that is to end → where it began
        self._said: OrderedDict[Attempt, None] = OrderedDict()  # by another process, before its beginning was seen

    def see(self, name: str, fields: Mapping[str, Any], line: bytes) -> None:
        """Look at a record that comes into the log.

        Args:
            name: its segment.
            fields: its statement, decoded.
            line: the line, with its private part.
        """
        if not self._open and not any(mark in line for mark in MARKS):
            return  # nearly always: nothing is open that could end here, and nothing begins
        ended = self._open.pop(str(fields.get("span_id")), None)
        attributes = fields.get("attributes")
        if not isinstance(attributes, dict):
            return
        kind = attributes.get("audit.event.type")
        if kind == STARTED:
            attempt = _attempt(attributes)
            if attempt is None or self._said.pop(attempt, self) is self:  # else another process has said how it ended
                self._open[str(fields.get("parent_span_id"))] = _Begun(name, line, attempt)
        elif kind in _BY_ANOTHER and ended is None:
            self._end_elsewhere(_attempt(attributes))

    def _end_elsewhere(self, attempt: Attempt | None) -> None:
        if attempt is None:
            return
        known = [span for span, begun in self._open.items() if begun.attempt == attempt]
        for span in known:
            del self._open[span]
        if not known:  # segments come into the log in any order
            self._said[attempt] = None
            if len(self._said) > _REMEMBERED:
                self._said.popitem(last=False)

    def see_ends(self, spans: bytes) -> None:
        """Look at records that come into the log of which none has one of :data:`MARKS`.

        Args:
            spans: the IDs of their spans, 16 hexadecimal digits each.
        """
        for at in range(0, len(spans), 16) if self._open else ():
            self._open.pop(spans[at : at + 16].decode(), None)

    def see_again(self, name: str, path: Path, end: int) -> None:
        """Look once more at what of a segment came into the log before this process sequenced it.

        Args:
            name: the segment.
            path: its file.
            end: how far it is in the log, in bytes.
        """
        at = 0
        with open(path, "rb") as file:
            for line in file:
                at += len(line)
                if at > end:
                    return
                if any(mark in line for mark in (*MARKS, *(span.encode() for span in self._open))):
                    try:
                        fields = statements.decode(line.rstrip(b"\n").partition(PRIVATE_MARK)[0])
                    except FormatError:
                        continue
                    self.see(name, fields, line.rstrip(b"\n"))

    def begun_in(self, name: str) -> bool:
        """Tell whether something that is open began in a segment."""
        return any(begun.segment == name for begun in self._open.values())

    def of(self, process: str) -> list[bytes]:
        """Return the lines by which what a process has left open began."""
        return [begun.line for begun in self._open.values() if segment.process_of(begun.segment) == process]

    def forget(self, process: str) -> None:
        """Forget what a process has left open: it has been said."""
        self._open = {span: begun for span, begun in self._open.items() if segment.process_of(begun.segment) != process}


def _attempt(attributes: Mapping[str, Any]) -> Attempt | None:
    """Return what an attempt is called; None: it names no task run, or not openly, so nobody else can mean it."""
    names = ("automation.run.id", "automation.run.attempt", "automation.task.run.id")
    run, attempt, task_run = (attributes.get(name) for name in names)
    if isinstance(run, str) and isinstance(attempt, int) and isinstance(task_run, str):
        return run, attempt, task_run
    return None


def lines(begun: list[bytes], name: str, time: int) -> Iterator[bytes]:
    """Make the lines that say what was interrupted.

    Args:
        begun: the lines by which it began.
        name: the segment that these lines are for.
        time: nanoseconds since the epoch.
    """
    for number, line in enumerate(begun, 1):
        statement, _, beside = line.partition(PRIVATE_MARK)
        fields = statements.decode(statement)
        private = commitment.decode(beside)
        attributes = dict(fields["attributes"])
        message = str(attributes.get("audit.message", "")).removesuffix(" started")
        attributes |= {
            "audit.record.id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{attributes.get('audit.record.id')}/interrupted")),
            "audit.event.type": INTERRUPTED,
            "audit.action": "INTERRUPT",
            "audit.outcome": "unknown",
            "automation.run.reason": REASON,
            "audit.message": f"{message} was interrupted: {REASON}",
        }
        for name_, (_, value) in private.items():
            salt = os.urandom(commitment.SALT_SIZE)  # a salt is used once
            attributes[name_] = {"commitment": commitment.commit(name_, value, salt)}
            private[name_] = (base64.b64encode(salt).decode(), value)
        fields |= {
            "segment": name,
            "number": number,
            "span_id": os.urandom(8).hex(),
            "start": str(time),
            "end": str(time),
            "status": {"code": "ERROR", "message": ""},
            "attributes": attributes,
        }
        made = statements.encode(fields)
        yield (made + PRIVATE_MARK + commitment.encode(private) if private else made) + b"\n"
