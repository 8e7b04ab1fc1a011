# SPDX-License-Identifier: Apache-2.0
"""Walks along one log: chains its checkpoints into one tree and holds its entries against it, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice

from auditspan_seal.formats.batch import Batch
from auditspan_seal.verify.account import MAX_MISFITS, Account, KeyEvent, Misfits
from auditspan_seal.verify.chain import Chain, Step
from auditspan_seal.verify.facts import MAX_INDEX, Fact, placed
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.judge import Judge
from auditspan_seal.verify.report import Code, Finding
from auditspan_seal.verify.source import Feed, first_claims
from auditspan_seal.witness.trusted import TrustedCheckpoint


class Walk:
    """One walk along a log, or along a range of it.

    Args:
        origin: the log.
        trusted: what the tree must be at some sizes.
        misfits: takes what does not fit.
        copies: whether second copies are honest whatever their document ID is.
        lines: whether everything comes from log files, in the order in which it stands there.
        adopt: begin with the first checkpoint that comes, wherever that is.
        compare: whether to hold the tree that it begins with against trusted checkpoints.
        known: entries below this index were judged before.
    """

    def __init__(
        self,
        origin: str,
        trusted: Sequence[TrustedCheckpoint],
        misfits: Misfits,
        *,
        copies: bool = False,
        lines: bool = False,
        adopt: bool = False,
        compare: bool = True,
        known: int = 0,
    ) -> None:
        self.origin = origin
        self.chain = Chain(origin, trusted)
        self.judge = Judge(origin, copies, known)
        self.account = self.judge.account
        self.account.numbers.whole = not adopt
        self.begin: int | None = None if adopt else 0
        """Index that the walk began with."""
        self.irregular = False
        """Whether a checkpoint could not be used or one is missing."""
        self._trusted = trusted
        self._misfits = misfits
        self._lines = lines
        self._compare = compare

    # -- checkpoints -------------------------------------------------------------------------------------------

    def step(self, item: CheckpointItem, feed: Feed) -> None:
        """Take the next checkpoint, and the entries that it covers."""
        step, note = self.chain.meet(item)
        batch = item.batch
        if step is Step.KNOWN or batch is None or note is None:
            self.irregular = True
            if note is not None:
                self._moved(self.chain.size, "A checkpoint stands in the log files twice")
            self._drain()
            return
        if self.begin is None:
            if step is Step.GAP:
                self.chain.adopt(batch, compare=self._compare)
            for fact in feed.below(batch.first):
                self._misfits.add(fact)
            self.begin = batch.first
        elif step is Step.GAP:
            self.irregular = True
            self._cross(batch, item, feed)
        entries = feed.whole(batch)
        found = self._match(feed.below(batch.size), batch) if entries is None else ()
        self.chain.advance(batch)
        latest = self.judge.entries(batch.first, found) if entries is None else self.judge.batch(entries)
        self.account.events.append(KeyEvent(None, note, batch.first, batch.size, latest, item.document_id))
        self._drain()

    def rest(self, feed: Feed) -> None:
        """Take the entries after the last checkpoint."""
        for fact in feed.below(MAX_INDEX):
            self._misfits.add(fact)

    def alone(self, item: CheckpointItem, facts: Iterable[Fact]) -> bool:
        """Hold some entries against the one checkpoint that covers them, whatever comes before it.

        Returns:
            whether the checkpoint could be used.
        """
        anchor, self.chain = self.chain.anchor, Chain(self.origin, self._trusted)
        step, note = self.chain.meet(item)
        batch = item.batch
        if batch is None or note is None or step is Step.KNOWN:
            self._drain()
            return False
        if step is Step.GAP:
            self.chain.adopt(batch)
        self.chain.advance(batch)
        self.chain.anchor = max(anchor, self.chain.anchor)
        self._drain()
        places = {leaf: at for at, leaf in enumerate(batch.leaves)}
        found: dict[int, Fact] = {}
        for fact in facts:
            if (at := places.get(fact.leaf)) is None:
                self._misfits.add(fact)
            elif at in found:
                self.judge.copy(batch.first + at, fact, found[at])
            else:
                found[at] = placed(self.origin, batch.first + at, fact)
        latest = self.judge.entries(batch.first, [found[at] for at in sorted(found)], sorted(found))
        self.account.events.append(KeyEvent(None, note, batch.first, batch.size, latest, item.document_id))
        return True

    def _cross(self, batch: Batch, item: CheckpointItem, feed: Feed) -> None:
        """Get over a missing checkpoint: the next one's frontier proves the entries, if they are all there."""
        begin, end = self.chain.size, batch.first
        proven = self.chain.bridge(first_claims(feed.preview(begin, end), begin), batch)
        if proven:
            self._across(feed, begin, end)
        else:
            self.account.unproven.append((begin, end))
            self.chain.adopt(batch)
            self.account.numbers.whole = False
            for fact in feed.below(end):
                self._misfits.add(fact)
        outcome = "its records are proven by the next one" if proven else "records in that range are not proven"
        if begin == 0 and not proven:
            code, what = Code.PREFIX_MISSING, (
                f"The beginning of the log, the indexes 0 to {end - 1}, is not there (removed by retention, or "
                f"deleted); {outcome}."
            )  # fmt: skip
        else:
            code, what = Code.CHECKPOINT_MISSING, (
                f"The checkpoint for the indexes {begin} to {end - 1} is not there though a later one is: its document "
                f"was deleted; {outcome}."
            )  # fmt: skip
        self.judge.find(Finding(code, what, self.origin, batch.first, None, item.document_id))

    def _across(self, feed: Feed, begin: int, end: int) -> None:
        """Judge the entries of a range that was proven by all of its first claims."""
        expected, last = begin, None
        for fact in feed.below(end):
            if fact.index == expected and fact.leaf:
                expected, last = expected + 1, fact
                self.judge.entries(fact.index, [fact])
            elif last is not None and fact.index == last.index and fact.leaf == last.leaf:
                self.judge.copy(fact.index, fact, last)
            else:
                self._misfits.add(fact)

    # -- entries -----------------------------------------------------------------------------------------------

    def _match(self, facts: Iterable[Fact], batch: Batch) -> list[Fact | None]:
        """Find the entries of a batch among those that claim to be of it."""
        first, leaves = batch.first, batch.leaves
        rest = iter(facts)
        begin = list(islice(rest, len(leaves) + 1))
        if len(begin) == len(leaves) and tuple([fact.leaf for fact in begin]) == leaves:
            return [
                fact if fact.index == index else placed(self.origin, index, fact)
                for index, fact in enumerate(begin, first)
            ]
        found: list[Fact | None] = [None] * len(leaves)
        stands = [0] * len(leaves)  # which in the order of reading
        odd: list[tuple[int, Fact]] = []
        for count, fact in enumerate(chain(begin, rest)):
            at = fact.index - first
            if 0 <= at < len(leaves) and leaves[at] == fact.leaf:
                if found[at] is None:
                    found[at], stands[at] = fact, count
                else:
                    self.judge.copy(fact.index, fact, found[at])
            elif len(odd) < MAX_MISFITS:
                odd.append((count, fact))
            else:
                self._misfits.add(fact)
        if odd:  # most are a little out of place: an entry before them is gone, or one was put in
            self._out_of_place(odd, found, stands, batch)
            order = [count for fact, count in zip(found, stands, strict=True) if fact is not None]
            if order != sorted(order):
                self._moved(first)
        return found

    def _out_of_place(
        self, odd: Iterable[tuple[int, Fact]], found: list[Fact | None], stands: list[int], batch: Batch
    ) -> None:
        """Find the place of entries in the batch that they claim to be of."""
        places = {leaf: at for at, leaf in enumerate(batch.leaves)}
        for count, fact in odd:
            if (place := places.get(fact.leaf)) is None:
                self._misfits.add(fact)
            elif (other := found[place]) is None:
                found[place], stands[place] = placed(self.origin, batch.first + place, fact), count
            else:
                self.judge.copy(batch.first + place, placed(self.origin, batch.first + place, fact), other)

    def _moved(self, index: int, what: str = "Entries stand in the log files in another order than was signed") -> None:
        self.irregular = True
        if self._lines:
            self.judge.find(Finding(Code.LOG_DAMAGED, f"{what}: the files were changed.", self.origin, index))

    def join(self, account: Account, end: tuple[int, tuple[bytes, ...]], checkpoints: int, anchor: int) -> None:
        """Go on with a range that was walked along elsewhere and continues this one."""
        own = self.account
        for finding in account.findings:
            self.judge.find(finding)
        for code, more in account.omitted.items():
            own.omitted[code] = own.omitted.get(code, 0) + more
        own.numbers.join(account.numbers)
        own.records += account.records
        own.copies += account.copies
        own.compared |= account.compared
        own.control = account.control
        own.promise = account.promise or own.promise
        own.latest = max(own.latest, account.latest)
        own.strangers += account.strangers
        own.events += account.events
        own.values.erased += account.values.erased
        own.values.at |= account.values.at
        for key, at in account.values.doubtful.items():
            self.judge.take(own.values.erase(at, [key]))
        for key, held in account.values.held.items():
            self.judge.take(own.values.hold(key, held))
        self.chain.go_on(*end, checkpoints, anchor)

    # -- the end -----------------------------------------------------------------------------------------------

    def late(self, index: int, fact: Fact) -> None:
        """Take an entry whose place was found at the end."""
        fact = placed(self.origin, index, fact)
        if self.account.missing.discard(index):
            self._moved(index)
            self.judge.entries(index, [fact])
        elif index >= self.judge.known:
            self.judge.copy(index, fact, None)

    def cannot_prove(self, index: int) -> bool:
        """Tell whether the checkpoint for an index is missing and nothing else proves what was there."""
        return any(begin <= index < end for begin, end in self.account.unproven)

    def find(self, finding: Finding) -> None:
        """Add a finding."""
        self.judge.find(finding)

    def _drain(self) -> None:
        for finding in self.chain.drain():
            self.find(finding)
