# SPDX-License-Identifier: Apache-2.0
"""What an entry comes down to before it has a place: its leaf hash, and all that can be said of it alone.

Whether a visible document agrees with its statement, and whether its personal values are those that were committed to,
does not depend on other entries. So it is judged where the entry is read, in any order and in any process; what goes on
from there is small. Nothing of it counts before the leaf hash is found in a signed tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from auditspan_seal import spans
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.verify.items import EntryItem
from auditspan_seal.verify.personal import State, states
from auditspan_seal.verify.report import Code
from auditspan_seal.verify.visible import mismatches

MAX_INDEX = 2**62
SPAN = "span"
UNREADABLE = ""
"""Kind of an entry that is no statement."""


@dataclass(slots=True)
class Extra:
    """What most entries of a log directory do not have.

    Attributes:
        statement: the statement, of entries that are not spans.
        flaws: code, message and field of what is not as it should be, wherever the place of the entry is.
        values: attribute, whether it is gone (else: wrong), and message of each personal value that does not open.
        present: attributes whose personal value is there and opens.
        compared: whether there was a visible document.
        stated: the log that the statement names, if not the one that the document names.
        shown: what the document says about its log and index, if that is no usable claim.
        span_id: the span ID that is visible, or the one of the statement.
        document_id: where it was found.
        container: the index or file that holds it.
    """

    statement: bytes | None = None
    flaws: list[tuple[Code, str, str | None]] = field(default_factory=list)
    values: list[tuple[str, bool, str]] = field(default_factory=list)
    present: tuple[str, ...] = ()
    compared: bool = False
    stated: str | None = None
    shown: tuple[Any, Any] = (None, None)
    span_id: str | None = None
    document_id: str | None = None
    container: str | None = None


_NOTHING = Extra()


class Fact:
    """An entry, judged by itself.

    Attributes:
        leaf: its leaf hash (32 bytes); empty if there is no statement.
        origin: the log that it claims to be in; empty if it names none.
        index: the index that it claims; -1 if it claims none.
        kind: the type of the statement; :data:`UNREADABLE`.
        segment: its process stream; empty if it is of none.
        number: its running number there; 0 if it has none.
        time: latest time that it states, nanoseconds since the epoch; 0 if none.
        extra: see :class:`Extra`; None if there is nothing of it.
    """

    __slots__ = ("extra", "index", "kind", "leaf", "number", "origin", "segment", "time")

    def __init__(
        self, leaf: bytes, origin: str, index: int, kind: str, segment: str, number: int, time: int,
        extra: Extra | None = None,
    ) -> None:  # fmt: skip
        self.leaf = leaf
        self.origin = origin
        self.index = index
        self.kind = kind
        self.segment = segment
        self.number = number
        self.time = time
        self.extra = extra

    @property
    def more(self) -> Extra:
        """The extra facts, or that there are none."""
        return self.extra or _NOTHING


def examine(item: EntryItem, fields: dict[str, Any] | None = None) -> Fact:
    """Judge an entry by itself.

    Args:
        item: the entry.
        fields: its statement, if that was decoded and is in canonical form, of a known version and with a type.
    """
    origin = item.origin if item.origin is not None else ""
    usable = item.origin is not None and item.index is not None and 0 <= item.index < MAX_INDEX
    index = item.index if usable and item.index is not None else -1
    extra = Extra(document_id=item.document_id, container=item.container, compared=item.document is not None)
    if not usable:
        extra.shown = (item.origin, item.index)
    if item.document is not None:
        seen = item.document.get("span_id")
        extra.span_id = seen if isinstance(seen, str) else None
    if item.statement is None:
        return Fact(b"", origin, index, UNREADABLE, "", 0, 0, extra)
    fact = Fact(leaf_hash(item.statement), origin, index, UNREADABLE, "", 0, 0, extra)
    try:
        _read(fact, extra, item, statements.decode(item.statement) if fields is None else fields)
    except (FormatError, KeyError, TypeError, ValueError, AttributeError) as error:
        fact.segment, fact.number, fact.time = "", 0, 0  # nothing of it counts; it may be beyond what can be kept
        extra.flaws.append(
            (Code.STATEMENT_ALTERED, f"The entry is signed but not a statement ({type(error).__name__}).", None)
        )
    return fact


def _read(fact: Fact, extra: Extra, item: EntryItem, fields: dict[str, Any]) -> None:
    kind = fields["type"]
    stated = fields.get("origin")
    if stated != item.origin:
        extra.stated = str(stated)
    if kind == SPAN:
        fact.segment, fact.number = str(fields["segment"]), int(fields["number"])
        fact.time = int(fields["end"])
        if extra.span_id is None and item.document is None:
            extra.span_id = fields["span_id"] if isinstance(fields.get("span_id"), str) else None
        for name, state, message in states(fields, item):
            if state is State.PRESENT:
                extra.present = (*extra.present, name)
            elif state is State.STRAY:
                extra.flaws.append((Code.FIELD_MISMATCH, message, f"attributes.{name}"))
            else:
                extra.values.append((name, state is State.GONE, message))
    else:
        extra.statement = item.statement
        fact.time = int(fields.get("time") or 0)
        if kind == "erasure":
            fact.segment, fact.number = str(fields["segment"]), int(fields["number"])
        elif kind == "gap":
            fact.segment, fact.number = str(fields.get("segment", "")), int(fields.get("number") or 0)
            extra.flaws.append((Code.GAP_ENTRY, f"Something was lost here: {fields.get('reason')}", None))
        elif kind == "revocation":
            fact.segment = str(fields.get("segment", ""))
    if not (0 <= fact.number < MAX_INDEX and 0 <= fact.time < 2**63):
        raise ValueError("beyond all bounds")
    fact.kind = kind
    if item.document is not None:
        for name, expected, seen in mismatches(fields, item.document):
            extra.flaws.append((Code.FIELD_MISMATCH, says(expected, seen), name))


def placed(origin: str, index: int, fact: Fact) -> Fact:
    """Take note that an entry was found at another place than its document says."""
    extra = fact.extra
    if extra is not None and extra.compared and (fact.origin != origin or fact.index != index):
        shown = extra.shown if fact.index < 0 else (fact.origin, fact.index)
        for name, expected, seen in ((spans.ORIGIN, origin, shown[0]), (spans.INDEX, index, shown[1])):
            if type(expected) is not type(seen) or expected != seen:
                extra.flaws.append((Code.FIELD_MISMATCH, says(expected, seen), f"attributes.{name}"))
    return fact


def says(expected: Any, seen: Any) -> str:
    """Say that a document and its statement differ."""
    return f"The document says {_short(seen)} where the signed statement says {_short(expected)}."


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or more digits than Python converts
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:77]}…"


def fields_of(fact: Fact) -> Mapping[str, Any] | None:
    """Read the statement of an entry that is not a span; None if it is none."""
    try:
        return statements.decode(fact.more.statement or b"")
    except FormatError:
        return None
