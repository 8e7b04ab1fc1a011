# SPDX-License-Identifier: Apache-2.0
"""Judges entries that are proven to be in a log: what they add up to, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

from auditspan_seal.verify.account import Account, KeyEvent, span_of
from auditspan_seal.verify.entries import Entries
from auditspan_seal.verify.facts import SPAN, Fact, fields_of
from auditspan_seal.verify.personal import erased_by
from auditspan_seal.verify.report import Code, Finding, add_bounded
from auditspan_seal.verify.tally import Held, present

KEY_ENTRIES = ("genesis", "rotation", "revocation")
CONTROL = "control-"
"""How the names of segments begin that only the owner of the log can write (since ``"control": true`` in genesis)."""


class Judge:
    """Judges the entries of one log.

    Args:
        origin: the log.
        copies: whether second copies are honest whatever their document ID is.
        known: entries below this index were judged before.

    Attributes:
        account: what was found.
    """

    def __init__(self, origin: str, copies: bool, known: int) -> None:
        self.account = Account()
        self.known = known
        self._origin = origin
        self._copies = copies

    def batch(self, entries: Entries) -> int | None:
        """Judge a whole batch.

        Returns:
            the latest time that its entries state.
        """
        if entries.first < self.known:
            return self.entries(entries.first, entries.facts())
        account = self.account
        account.records += len(entries) - len(entries.odd)
        account.compared |= entries.compared
        account.latest = max(account.latest, latest := max(entries.times, default=0))
        if not self._in_a_row(entries):
            for at, (segment, number) in enumerate(zip(entries.segments, entries.numbers, strict=True)):
                if number and not account.numbers.see(segment, number):
                    self._twice(entries.first + at, entries.fact(at))
        for at in entries.opened if account.values.doubtful else ():
            self._flaws(entries.first + at, entries.fact(at))
        for fact in entries.odd.values():
            if fact.kind == SPAN:
                account.records += 1
            else:
                self._special(fact.index, fact)
            if fact.extra is not None:
                self._flaws(fact.index, fact)
        return latest or None

    def _in_a_row(self, entries: Entries) -> bool:
        """Take note of the running numbers at once, if they are those that come next in one stream."""
        numbers, segment, last = entries.numbers, entries.segments[0] if entries.segments else "", self.account.numbers
        begin = last.last.get(segment, 0) + 1
        if begin == 1 or len(set(entries.segments)) != 1 or numbers != list(range(begin, begin + len(numbers))):
            return False
        last.last[segment] = numbers[-1]
        return True

    def entries(self, first: int, found: Sequence[Fact | None], places: Sequence[int] | None = None) -> int | None:
        """Judge proven entries, in order.

        Args:
            first: index of the first.
            found: the entries; None where one is missing.
            places: their distances to `first`; None: 0, 1, 2 …

        Returns:
            the latest time that they state.
        """
        account = self.account
        last, see, known = account.numbers.last, account.numbers.see, self.known
        latest = 0
        for place, fact in enumerate(found) if places is None else zip(places, found, strict=True):
            if first + place < known:
                continue
            if fact is None:
                account.missing.add(first + place)
                continue
            if fact.time > latest:
                latest = fact.time
            if fact.kind == SPAN:
                account.records += 1
            else:
                self._special(first + place, fact)
            number = fact.number
            if number:
                if last.get(fact.segment, 0) + 1 == number and number > 1:
                    last[fact.segment] = number
                elif not see(fact.segment, number):
                    self._twice(first + place, fact)
            if fact.extra is not None:
                self._flaws(first + place, fact)
        account.latest = max(account.latest, latest)
        return latest or None

    def _twice(self, index: int, fact: Fact) -> None:
        message = f"Record number {fact.number} of the process stream {fact.segment} is in the log twice."
        self._entry(Code.DUPLICATE_DOCUMENT, message, index, fact)

    def _flaws(self, index: int, fact: Fact) -> None:
        extra = fact.more
        self.account.compared |= extra.compared
        for code, message, name in extra.flaws:
            self._entry(code, message, index, fact, name)
        stated = extra.stated if extra.stated is not None else (None if fact.origin == self._origin else fact.origin)
        if stated is not None and stated != self._origin and fact.kind:
            self.account.add_of_other(stated, self._origin, index, span_of(fact), fact.more.document_id)
        doubtful = self.account.values.doubtful
        for name, gone, message in extra.values:
            held = Held(gone, message, extra.span_id, extra.document_id)
            self.take(self.account.values.hold((index, name), held))
        if doubtful:  # an erasure before its value: this entry was found late
            for name in extra.present:
                if (index, name) in doubtful:
                    self.still_there(index, name, fact)

    def still_there(self, index: int, name: str, fact: Fact) -> None:
        """Say that a value is there though it was erased on record."""
        at = self.account.values.doubtful.pop((index, name))
        self.take([present((index, name), at, fact.more.span_id, fact.more.document_id)])

    def _special(self, index: int, fact: Fact) -> None:
        """Take note of an entry that is not a span."""
        fields = fields_of(fact)
        if fields is None:
            return
        if fact.kind == "genesis" and index == 0:
            self.account.control = fields.get("control") is True
            self.account.follows(fields.get("predecessor"))
        elif fact.kind == "heartbeat":
            seconds = fields.get("next")
            if isinstance(seconds, (int, float)) and 0 < seconds < 2**40:
                self.account.promises(index, fact.time, ceil(seconds))
        elif fact.kind == "close":
            self.account.promises(index, fact.time, 0)
        if not self._allowed(index, fact):
            return
        if fact.kind in KEY_ENTRIES:
            self.account.events.append(KeyEvent(fact.more.statement, None, index))
        elif fact.kind == "erasure":
            self.take(self.account.values.erase(index, erased_by(index, fields)))

    def _allowed(self, index: int, fact: Fact) -> bool:
        """Tell whether an entry came on a way on which such an entry may come.

        Whoever can write a segment can put any text into the log. A revocation without segment comes from the
        sequencer, and is good for nothing without the certificate of the key.
        """
        guarded = fact.kind == "erasure" or (fact.kind == "revocation" and fact.segment)
        if not self.account.control or not guarded or fact.segment.startswith(CONTROL):
            return True
        self._entry(
            Code.ENTRY_NOT_ALLOWED,
            f"An entry of type {fact.kind} was written by an audited process (segment {fact.segment}), which may not: "
            "it is not followed. Find out which process that was.",
            index,
            fact,
        )
        return False

    def copy(self, index: int, fact: Fact, other: Fact | None) -> None:
        """Judge a second copy of an entry."""
        one, two = fact.more, other.more if other is not None else None
        # The same ID in another backing index is an honest second delivery after a rollover.
        honest = self._copies or (
            two is not None and one.document_id == two.document_id and one.container != two.container
        )
        if index < self.known:
            return
        if not honest or (fact.index != index and fact.index >= 0):
            also = f"; the other document is {two.document_id}" if two is not None else ""
            message = f"The record at index {index} is there twice{also}."
            self._entry(Code.DUPLICATE_DOCUMENT, message, index, fact)
            return
        self.account.copies += 1
        for code, message, name in one.flaws:
            if code is not Code.GAP_ENTRY:
                self._entry(code, message, index, fact, name)
        for name, is_gone, message in one.values:
            if not is_gone:
                held = Held(False, message, one.span_id, one.document_id)
                self.take(self.account.values.hold((index, name), held))
        gone = {name for extra in (one, two) if extra for name, is_gone, _ in extra.values if is_gone}
        for name in gone & {name for extra in (one, two) if extra for name in extra.present}:
            held = Held(False, "The personal value is gone in one copy of the document, but not in the other.")
            self.take(self.account.values.hold((index, name), held))

    def find(self, finding: Finding) -> None:
        """Add a finding."""
        add_bounded(self.account.findings, self.account.omitted, finding)

    def _entry(self, code: Code, message: str, index: int, fact: Fact, name: str | None = None) -> None:
        self.find(Finding(code, message, self._origin, index, span_of(fact), fact.more.document_id, name))

    def take(self, findings: Iterable[Finding]) -> None:
        """Add findings that speak of entries of this log."""
        for finding in findings:
            self.find(
                Finding(
                    finding.code, finding.message, self._origin, finding.index, finding.span_id, finding.document_id,
                    finding.field,
                )
            )  # fmt: skip
