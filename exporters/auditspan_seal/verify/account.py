# SPDX-License-Identifier: Apache-2.0
"""What a walk along a log has found so far."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from auditspan_seal.formats.note import Note
from auditspan_seal.verify.facts import MAX_INDEX, Fact
from auditspan_seal.verify.report import Code, Finding, add_bounded
from auditspan_seal.verify.tally import IndexSet, Numbers, Values

MAX_MISFITS = 100_000


@dataclass
class Misfits:
    """Entries of all logs that are not what was signed for the index that they claim; their place is sought at the end.

    Attributes:
        facts: the first :data:`MAX_MISFITS` of them.
        more: how many more there are.
        foreign: documents without a statement: nothing can say where they belong.
        omitted: code → how many more of these there are.
    """

    facts: list[Fact] = field(default_factory=list)
    more: int = 0
    foreign: list[Finding] = field(default_factory=list)
    omitted: dict[Code, int] = field(default_factory=dict)

    def add(self, fact: Fact) -> None:
        """Add one."""
        if not fact.leaf:
            finding = Finding(
                Code.FOREIGN_DOCUMENT,
                "A document without a statement is among the sealed ones: it was put there, or its statement was "
                "removed. It is not evidence.",
                *claim_of(fact), span_of(fact), fact.more.document_id, "attributes.audit.statement",
            )  # fmt: skip
            add_bounded(self.foreign, self.omitted, finding)
        elif len(self.facts) < MAX_MISFITS:
            self.facts.append(fact)
        else:
            self.more += 1


@dataclass(frozen=True)
class KeyEvent:
    """What the key ring of a log has to be told: a proven entry that speaks of keys, or a checkpoint.

    Attributes:
        statement: the entry; None: a checkpoint.
        note: the checkpoint; None: an entry.
        index: of the entry, or of the first entry of the batch.
        size: tree size of the checkpoint.
        latest: latest time that an entry of the batch states, nanoseconds since the epoch; None: none does.
        document_id: where it was found.
    """

    statement: bytes | None
    note: Note | None
    index: int
    size: int = 0
    latest: int | None = None
    document_id: str | None = None


@dataclass
class Account:
    """What is known of a log so far.

    Attributes:
        numbers: running numbers of the process streams.
        values: personal values that are gone, and erasures.
        missing: indexes that are signed for and whose entry was not found yet.
        unproven: ranges of indexes of which nothing proves what was there.
        findings: what is not as it should be.
        omitted: code → how many more findings there are.
        records: audit spans.
        copies: second deliveries.
        compared: whether visible documents were compared.
        promise: index, time (ns) and seconds of the last heartbeat: how long until it promises another entry, each time
            until the log is closed. Seconds are 0 after it was.
        latest: latest time that an entry states, nanoseconds since the epoch.
        replaces: the log that this one replaces.
        strangers: statements of other logs: which, and what is to be said unless it is the one that is replaced.
        control: whether the log says that erasures come from :data:`.judge.CONTROL` segments only.
        events: what the key ring has to be told and was not yet.
    """

    numbers: Numbers = field(default_factory=Numbers)
    values: Values = field(default_factory=Values)
    missing: IndexSet = field(default_factory=IndexSet)
    unproven: list[tuple[int, int]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    omitted: dict[Code, int] = field(default_factory=dict)
    records: int = 0
    copies: int = 0
    compared: bool = False
    promise: tuple[int, int, int] | None = None
    latest: int = 0
    replaces: str | None = None
    strangers: list[tuple[str, Finding]] = field(default_factory=list)
    control: bool = False
    events: list[KeyEvent] = field(default_factory=list)

    def promises(self, index: int, moment: int, seconds: int) -> None:
        """Take note of a heartbeat or the end of them; see :attr:`promise`."""
        if self.promise is None or index > self.promise[0]:  # an entry that was found late may be an old one
            self.promise = (index, moment, seconds)

    def follows(self, predecessor: object) -> None:
        """Take note of the log that this one replaces: who began with that may still record under its name."""
        self.replaces = str(predecessor.get("origin")) if isinstance(predecessor, dict) else None

    def add_of_other(self, stated: str, *where: Any) -> None:
        """Take note of a statement of another log; where is origin, index, span ID and document ID."""
        if len(self.strangers) < MAX_MISFITS:
            message = f"The statement is of another log, {stated}."
            self.strangers.append((stated, Finding(Code.STATEMENT_ALTERED, message, *where)))

    def of_others(self) -> Iterator[Finding]:
        """Return what is to be said of statements of other logs."""
        return (finding for stated, finding in self.strangers if stated != self.replaces)


def span_of(fact: Fact) -> str | None:
    """Return the span ID of an entry, as far as it is known."""
    return fact.more.span_id


def claim_of(fact: Fact) -> tuple[str | None, int | None]:
    """Return the log and the index that an entry claims, as far as it does."""
    if fact.index >= 0:
        return fact.origin, fact.index
    origin, index = fact.more.shown
    return (
        origin if isinstance(origin, str) else fact.origin or None,
        index if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < MAX_INDEX else None,
    )
