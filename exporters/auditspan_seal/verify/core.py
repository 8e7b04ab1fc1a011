# SPDX-License-Identifier: Apache-2.0
"""The verifier: walks along every log of a source, finds the place of what is out of place, and says what is wrong."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.verify.account import KeyEvent, Misfits, claim_of, span_of
from auditspan_seal.verify.chain import Chain, Step
from auditspan_seal.verify.facts import UNREADABLE, Fact
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.judge import KEY_ENTRIES
from auditspan_seal.verify.parallel import Part
from auditspan_seal.verify.report import Claim, Code, Finding, Report
from auditspan_seal.verify.source import Source
from auditspan_seal.verify.trust import KeyRing, Revocation, coverage
from auditspan_seal.verify.walk import Walk
from auditspan_seal.witness.trusted import TrustedCheckpoint

_PATIENCE = 2  # a log is silent when it is this many times as late as its last heartbeat promised


@dataclass(frozen=True)
class Trust:
    """What a verification rests on.

    Attributes:
        keys: the keys to trust, each for the log of its name (a key without a name: for every log). None given: take
            the one that each log names in its genesis entry (trust on first use).
        revocations: keys that are not to be trusted any more.
        checkpoints: what a second place has seen of the logs.
        require: claims that must not be left open.
    """

    keys: Sequence[VerifierKey] = ()
    revocations: Sequence[Revocation] = ()
    checkpoints: Sequence[TrustedCheckpoint] = ()
    require: Sequence[Claim] = ()

    def of(self, origin: str) -> Trust:
        """Return the trust for one log alone: what a second place has seen of others says nothing here."""
        return replace(self, checkpoints=[item for item in self.checkpoints if item.origin == origin])

    def ring(self, origin: str) -> KeyRing:
        """Return the keys of a log."""
        seen = [(item.size, item.time) for item in self.checkpoints if item.origin == origin]
        return KeyRing(origin, self.keys, self.revocations, coverage(seen))

    def report(self, source: str) -> Report:
        """Return an empty report."""
        return Report(source, "pinned" if self.keys else "first_use", required=tuple(self.require))


@dataclass
class Log:
    """One log while it is verified.

    Attributes:
        walk: how far it is.
        ring: its keys.
        keys: what the ring was told of keys, to be able to tell it again.
        rekey: whether an entry that speaks of keys was found late.
        scoped: whether the walk did not begin at the beginning on purpose.
        picked: whether only some entries were looked at.
        resumed: whether it went on where another verification had ended.
        before: signed checkpoints that were verified by that one.
    """

    walk: Walk
    ring: KeyRing
    keys: list[KeyEvent] = field(default_factory=list)
    rekey: bool = False
    scoped: bool = False
    picked: bool = False
    resumed: bool = False
    before: int = 0

    def tell(self) -> None:
        """Tell the ring what it was not told yet."""
        events, self.walk.account.events = self.walk.account.events, []
        spoken = False
        for event in events:
            self._tell(event)
            if event.statement is not None or spoken:
                self.keys.append(event)
                spoken = event.statement is not None

    def join(self, part: Part, control: bool) -> bool:
        """Go on with a range that was walked along elsewhere; returns whether it continues this one.

        Args:
            part: what was found there.
            control: what it was told of the log (see :class:`.walk.Account`).
        """
        chain, account = self.walk.chain, self.walk.account
        if part.begin != (chain.size, chain.tree.hashes) or (chain.size and control != account.control):
            return False
        if not account.numbers.continued_by(part.account.numbers):
            return False
        self.walk.join(part.account, part.end, part.read, part.anchor)
        self.tell()
        return True

    def named_keys(self) -> list[VerifierKey]:
        """Return the keys that the entries told so far name."""
        found = []
        for event in self.keys:
            if event.statement is not None:
                fields = statements.decode(event.statement)
                with contextlib.suppress(FormatError):
                    found.append(VerifierKey.parse(str(fields.get("new") or fields.get("key"))))
        return found

    def _tell(self, event: KeyEvent) -> None:
        found: Iterable[tuple[Code, str]] = ()
        if event.statement is not None:
            found = self.ring.entry(event.index, statements.decode(event.statement))
        elif event.note is not None:
            found = self.ring.checkpoint(event.note, event.index, event.size, event.latest)
        for code, message in found:
            self.walk.find(Finding(code, message, self.walk.origin, event.index, None, event.document_id))


class Verifier:
    """Verifies the logs of a source.

    Args:
        source: where they are.
        report: takes the result.
        trust: what the verification rests on.
        walk: walks along one log; None: from its beginning to its end, in this process.
        now: nanoseconds since the epoch.
    """

    def __init__(
        self,
        source: Source,
        report: Report,
        trust: Trust,
        walk: Callable[[Log, Misfits], None] | None = None,
        now: int | None = None,
    ) -> None:
        self.report = report
        self.misfits = Misfits()
        self._source = source
        self._trust = trust
        self._walk = walk or self._whole
        self._now = time.time_ns() if now is None else now

    def run(self) -> Report:
        """Verify everything."""
        logs: dict[str, Log] = {}
        without: set[str] = set()
        for origin in self._source.origins():
            log = self._log(origin)
            self._walk(log, self.misfits)
            if log.walk.chain.read or log.walk.account.findings or log.resumed:
                logs[origin] = log
            else:
                without.add(origin)
        for fact in self._source.loose():
            self.misfits.add(fact)
            if fact.origin and fact.origin not in logs and fact.leaf:
                without.add(fact.origin)
        if not logs and not without and not self.misfits.facts and not self.misfits.foreign:
            message = "There is nothing to verify: no audit record and no checkpoint was found."
            self.report.add(Finding(Code.NOTHING_FOUND, message))
            self._lost(())
            return self.report
        altered = self._place(logs)
        for log in logs.values():
            self._finish(log, altered.get(log.walk.origin, set()))
        for origin in sorted(without):
            message = f"Records claim to be of the log {origin}, of which no checkpoint is there."
            self.report.add(Finding(Code.NO_CHECKPOINT, message, origin))
        for key in self._trust.keys:
            if key.name and key.name not in logs:
                message = f"A key for the log {key.name} was given, of which no checkpoint is there."
                self.report.add(Finding(Code.NO_CHECKPOINT, message, key.name))
        self._lost(logs.keys())
        self.report.order()
        return self.report

    def _log(self, origin: str) -> Log:
        walk = Walk(origin, self._trust.checkpoints, self.misfits, copies=self._source.copies, lines=self._source.lines)
        return Log(walk, self._trust.ring(origin))

    def _whole(self, log: Log, misfits: Misfits) -> None:
        checkpoints, feed = self._source.read(log.walk.origin)
        for item in checkpoints:
            log.walk.step(item, feed)
            log.tell()
        log.walk.rest(feed)

    # -- what is out of place ----------------------------------------------------------------------------------

    def _place(self, logs: dict[str, Log]) -> dict[str, set[int]]:
        """Find the place of each misfit by its leaf hash: what a document says about its own place proves nothing.

        Returns:
            log → indexes that an altered statement claims: what was signed there is not simply missing.
        """
        for finding in self.misfits.foreign:
            self.report.add(finding)
        for code, count in self.misfits.omitted.items():
            self.report.omitted[code] = self.report.omitted.get(code, 0) + count
        wanted = {fact.leaf for fact in self.misfits.facts}
        places: dict[bytes, tuple[Log, int]] = {}
        for origin, log in logs.items() if wanted else ():
            places |= {leaf: (log, index) for leaf, index in self._leaves(origin) if leaf in wanted}
        altered: dict[str, set[int]] = {}
        placed: list[tuple[Log, int, Fact]] = []
        for fact in self.misfits.facts:
            place = places.get(fact.leaf)
            if place is not None:
                placed.append((*place, fact))
            else:
                self._unplaced(fact, logs, altered)
        for log, index, fact in sorted(placed, key=lambda item: (item[0].walk.origin, item[1])):
            log.rekey |= fact.kind in KEY_ENTRIES
            log.walk.late(index, fact)
        if self.misfits.more:
            message = (
                f"{self.misfits.more} more documents are not what was signed for the index that they claim; only of "
                f"the first {len(self.misfits.facts)} was the place looked for."
            )
            self.report.add(Finding(Code.STATEMENT_ALTERED, message))
        return altered

    def _unplaced(self, fact: Fact, logs: dict[str, Log], altered: dict[str, set[int]]) -> None:
        origin, index = claim_of(fact)
        log = logs.get(origin or "")
        where = (origin, index, span_of(fact), fact.more.document_id)
        if log is not None and index is not None and index >= log.walk.chain.size:
            message = (
                f"The record at index {index} is not covered by a checkpoint yet ({log.walk.chain.size} entries are)."
            )
            self.report.add(Finding(Code.ENTRY_UNCOVERED, message, *where))
        elif log is not None and index is not None and log.walk.cannot_prove(index) and _could_be(fact):
            pass  # said once for the whole range
        elif log is not None or origin is None:
            if log is not None and index is not None:
                altered.setdefault(log.walk.origin, set()).add(index)
            message = "The statement is not the one that was signed for this index: it was altered or forged."
            name = "attributes.audit.statement" if fact.more.compared else None
            self.report.add(Finding(Code.STATEMENT_ALTERED, message, *where, name))

    def _leaves(self, origin: str) -> Iterator[tuple[bytes, int]]:
        """Return the leaf hashes of all good checkpoints of a log."""
        for _, batch, _ in self._chained(origin):
            yield from zip(batch.leaves, range(batch.first, batch.size), strict=True)

    def _chained(self, origin: str) -> Iterator[tuple[CheckpointItem, Batch, Note | None]]:
        """Go along the good checkpoints of a log once more, over what is missing."""
        chain = Chain(origin)
        for item in self._source.checkpoints(origin):
            step, note = chain.meet(item)
            if step is Step.KNOWN or item.batch is None:
                continue
            if step is Step.GAP:
                chain.adopt(item.batch)
            chain.advance(item.batch)
            yield item, item.batch, note

    # -- the end of a log --------------------------------------------------------------------------------------

    def _finish(self, log: Log, altered: set[int]) -> None:
        walk, account, origin = log.walk, log.walk.account, log.walk.origin
        if log.rekey:
            self._tell_again(log)
        else:
            log.tell()
        chained = walk.chain.read
        for code, message in log.ring.finish():
            walk.find(Finding(code, message, origin))
        if not chained and not walk.chain.size and not log.resumed:
            walk.find(Finding(Code.NO_CHECKPOINT, "No checkpoint of this log could be used.", origin))
        for index in account.missing:
            if index not in altered:
                message = f"The record at index {index} is signed for but not there: its document was deleted."
                walk.find(Finding(Code.ENTRY_MISSING, message, origin, index))
        if (
            not account.missing and not account.unproven and not log.picked
        ):  # else the numbers of what is missing would be missing too
            for stream, number in account.numbers.missing():
                message = f"Record number {number} of the process stream {stream} was never put into the log."
                walk.find(Finding(Code.RECORD_MISSING, message, origin))
        self._values(log)
        for finding in account.of_others():
            walk.find(finding)
        if not log.picked:
            self._end(log)
        report = self.report
        for finding in account.findings:
            report.add(finding)
        for code, count in account.omitted.items():
            report.omitted[code] = report.omitted.get(code, 0) + count
        report.logs[origin] = walk.chain.size
        report.records += account.records
        report.checkpoints += log.before + log.ring.verified
        report.copies += account.copies
        report.compared |= account.compared
        report.erased += account.values.erased
        if account.values.at:
            report.erasures[origin] = sorted(account.values.at)
        if walk.chain.anchor:
            report.anchors[origin] = walk.chain.anchor
        if report.trust == "pinned" and log.ring.trust == "first_use":
            report.trust = "first_use"

    def _values(self, log: Log) -> None:
        """Say which personal values are gone without a record, and which are still there though erased on record."""
        values, origin = log.walk.account.values, log.walk.origin
        begin = (log.walk.begin or 0) if log.scoped else 0
        wanted = sorted({index for index, _ in values.doubtful if index >= begin and not log.picked})
        for fact in self._source.at(origin, wanted) if wanted else ():
            for name in fact.more.present:
                if (fact.index, name) in values.doubtful:
                    log.walk.judge.still_there(fact.index, name, fact)
        for finding in values.left():
            log.walk.find(replace(finding, origin=origin))

    def _end(self, log: Log) -> None:
        """Look at how the log ends: against a second place, and against what it promised itself."""
        walk, origin, size = log.walk, log.walk.origin, log.walk.chain.size
        beyond = list(walk.chain.beyond())
        if beyond:
            last = beyond[-1]
            message = (
                f"The log has {size} entries, but {last.source} has seen {last.size}: its end was cut off, or is not "
                "delivered yet."
            )
            walk.find(Finding(Code.LOG_TRUNCATED, message, origin, size))
        promise = walk.account.promise
        if promise is not None and promise[2] and not log.scoped:
            newest = max(promise[1], min(walk.account.latest, self._now))
            late = (self._now - newest) / 1e9
            if late > _PATIENCE * promise[2]:
                message = (
                    f"The log promises an entry every {promise[2]} s until it is closed (index {promise[0]}), and "
                    f"there is none since {late:.0f} s: whoever wrote the log is gone without closing it, its "
                    "delivery stands still, or its end was cut off. If its process was killed, the next one closes it "
                    "(`auditspan agent --once`)."
                )
                walk.find(Finding(Code.LOG_SILENT, message, origin, size - 1))

    def _tell_again(self, log: Log) -> None:
        """Tell a new ring everything: an entry that speaks of keys was found where it does not belong."""
        log.tell()
        log.ring, origin = self._trust.ring(log.walk.origin), log.walk.origin
        codes = {Code.NO_KEY, Code.WRONG_KEY, Code.KEY_CHANGE_INVALID, Code.KEY_EXPIRED, Code.KEY_REVOKED}
        log.walk.account.findings = [found for found in log.walk.account.findings if found.code not in codes]
        entries = sorted((event for event in log.keys if event.statement is not None), key=lambda event: event.index)
        for item, batch, note in self._chained(origin):
            while entries and entries[0].index < batch.size:
                log.walk.account.events.append(entries.pop(0))
            log.walk.account.events.append(KeyEvent(None, note, batch.first, batch.size, None, item.document_id))
            log.tell()

    def _lost(self, found: Iterable[str]) -> None:
        """Say which logs a second place has seen of which nothing is here."""
        for origin in sorted({item.origin for item in self._trust.checkpoints} - set(found)):
            last = max((item for item in self._trust.checkpoints if item.origin == origin), key=lambda item: item.size)
            message = f"{last.source} has seen {last.size} entries of the log {origin}, of which nothing is here."
            self.report.add(Finding(Code.LOG_TRUNCATED, message, origin, 0))


def _could_be(fact: Fact) -> bool:
    """Tell whether an entry of a range that nothing proves could be what was signed for.

    Retention removes documents one by one, as their store pleases, but log files only as a whole.
    """
    return fact.more.compared and fact.kind != UNREADABLE
