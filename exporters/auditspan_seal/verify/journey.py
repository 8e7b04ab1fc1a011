# SPDX-License-Identifier: Apache-2.0
"""Where a verification begins and how far it came: all of a log, one run, what is new since a time or since last time.

A scope is never silent: what was not looked at is in the report.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from auditspan_seal.errors import SourceError
from auditspan_seal.verify.account import Misfits
from auditspan_seal.verify.core import Log, Trust
from auditspan_seal.verify.judge import KEY_ENTRIES
from auditspan_seal.verify.progress import Progress
from auditspan_seal.verify.report import Code, Finding, Report
from auditspan_seal.verify.source import Source
from auditspan_seal.verify.state import StateFile
from auditspan_seal.verify.walk import Walk

_SPAN_ENDS = tuple(f'"type":"span","v":{version}}}'.encode() for version in (1, 2))
_KEY_ENDS = tuple(f'"type":"{kind}","v":{version}}}'.encode() for kind in KEY_ENTRIES for version in (1, 2))
_SAVE = 1.0  # seconds between two times that progress is written down


@dataclass(frozen=True)
class Since:
    """Where to begin.

    Attributes:
        text: as it was given.
        index: an index; None: a time.
        moment: nanoseconds since the epoch; None: an index.
    """

    text: str
    index: int | None = None
    moment: int | None = None

    @classmethod
    def parse(cls, text: str) -> Since:
        """Read an index, or a time in ISO 8601 (without offset: UTC).

        Raises:
            SourceError: it is neither.
        """
        if text.isascii() and text.isdecimal():
            return cls(text, index=min(int(text), 2**62))
        try:
            when = dt.datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
        except ValueError:
            raise SourceError(
                f"{text!r} is neither an index nor a time.", "Give a number, or a time as in 2026-01-31T12:00:00Z."
            ) from None
        when = when if when.tzinfo is not None else when.replace(tzinfo=dt.timezone.utc)
        return cls(text, moment=int(when.timestamp()) * 1_000_000_000)


class Journey:
    """How a verification goes along the logs.

    Args:
        since: where to begin; None: at the beginning.
        run: look at the records of this run alone.
        state: remembers how far verification came; None: nothing is remembered.
    """

    def __init__(self, since: Since | None = None, run: str | None = None, state: StateFile | None = None) -> None:
        self.since = since
        self.run = run
        self._state = state
        self._saved = 0.0
        self._begun: dict[str, int] = {}

    def trusting(self, trust: Trust) -> Trust:
        """Return the trust, with what was seen of the logs before."""
        return self._state.trusting(trust) if self._state is not None else trust

    def report(self, report: Report) -> None:
        """Say in a report what it is about."""
        if self.run is not None:
            if not report.records:
                report.add(Finding(Code.NOTHING_FOUND, f"There is no record of the run {self.run}."))
            report.scope = {
                "run": self.run,
                "limit": f"that the run {self.run} is complete: only a full verification shows that none is missing",
            }
        elif self.since is not None:
            report.scope = {
                "since": self.since.text,
                "first_index": self._begun,
                "limit": f"anything before {self.since.text}: the checkpoint there is signed, but what led to it was "
                "not looked at",
            }
        if self._state is not None:
            report.notes += self._state.notes

    # -- along a log -------------------------------------------------------------------------------------------

    def begin(self, source: Source, log: Log, misfits: Misfits, trust: Trust) -> int:
        """Prepare the walk along a log.

        Returns:
            the index to begin with: at the checkpoint that covers it.
        """
        origin = log.walk.origin
        if self._state is not None and self.since is None:
            return self._state.resume(log, misfits, trust, source)
        if self.since is None:
            return 0
        first = self.since.index if self.since.moment is None else source.first_since(origin, self.since.moment)
        if not first:
            return 0
        self._prologue(source, log, first)
        events, control = log.walk.account.events, log.walk.account.control
        log.walk = Walk(origin, trust.checkpoints, misfits, copies=source.copies, lines=source.lines, adopt=True)
        log.walk.account.events, log.walk.account.control = events, control
        log.scoped = True
        return first

    def _prologue(self, source: Source, log: Log, before: int) -> None:
        """Find out which keys the log had come to: each entry that speaks of keys, under the checkpoint for it."""
        walk = Walk(log.walk.origin, (), Misfits())
        for item, facts in source.picked(log.walk.origin, lambda statement: statement.endswith(_KEY_ENDS), before):
            if item is not None:
                walk.alone(item, facts)
        log.walk.account.events = walk.account.events
        log.walk.account.control = walk.account.control

    def reached(self, log: Log, misfits: Misfits, trust: Trust, *, last: bool = False) -> None:
        """Take note that a checkpoint was reached.

        Args:
            log: the log.
            misfits: what did not fit so far.
            trust: what the verification rests on.
            last: whether it was the last one.
        """
        if log.scoped and log.walk.begin is not None:
            self._begun[log.walk.origin] = log.walk.begin
        if self._state is None or self.since is not None:
            return
        if last or time.monotonic() - self._saved > _SAVE:
            self._saved = time.monotonic()
            self._state.save(log, misfits, trust)

    # -- one run -----------------------------------------------------------------------------------------------

    def pick(self) -> Callable[[bytes], bool]:
        """Return which statements are wanted for one run: its spans, and whatever is no span."""
        wanted = run_text(self.run or "")
        return lambda statement: wanted in statement or not statement.endswith(_SPAN_ENDS)

    def one_run(self, source: Source, log: Log, misfits: Misfits) -> None:
        """Prove the records of the run, each under the checkpoint that covers it."""
        log.scoped = log.picked = True
        for item, facts in source.picked(log.walk.origin, self.pick()):
            if item is None or not log.walk.alone(item, facts):
                for fact in facts:
                    misfits.add(fact)
            log.tell()


@dataclass(frozen=True)
class Going:
    """How the walk along a log goes: where from, on what it rests, who is told, and in how many processes."""

    journey: Journey
    trust: Trust
    progress: Progress
    jobs: int | None = None

    def along(self, source: Source, log: Log, misfits: Misfits) -> None:
        """Walk along a log, in this process."""
        if self.journey.run is not None:
            self.journey.one_run(source, log, misfits)
            return
        begin = self.journey.begin(source, log, misfits, self.trust)
        checkpoints, feed = source.read(log.walk.origin, begin)
        for item in checkpoints:
            log.walk.step(item, feed)
            log.tell()
            self.journey.reached(log, misfits, self.trust)
            self.progress.at(log.walk.account.records)
        self.journey.reached(log, misfits, self.trust, last=True)
        log.walk.rest(feed)


def run_text(run: str) -> bytes:
    """Return how a statement says that it is of a run."""
    return orjson.dumps({"automation.run.id": run})[1:-1]
