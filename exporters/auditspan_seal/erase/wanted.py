# SPDX-License-Identifier: Apache-2.0
"""What is to be erased, and what of an entry that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements


@dataclass(frozen=True)
class Wanted:
    """What is to be erased: by value, or by record.

    Attributes:
        value: what a personal value is, or what is in a list of them, as text; None: any value.
        record: record ID or span ID; None: any record.
        attributes: only these; empty: all personal ones.
    """

    value: str | None = None
    record: str | None = None
    attributes: frozenset[str] = frozenset()

    def names(self, fields: dict[str, Any], private: commitment.Private) -> set[str]:
        """Return the attributes of an entry that are to be erased."""
        if self.record is not None and self.record not in (
            fields.get("span_id"),
            fields.get("attributes", {}).get("audit.record.id"),
        ):
            return set()
        return {
            name
            for name, (_, value) in private.items()
            if (not self.attributes or name in self.attributes) and (self.value is None or self.value in _texts(value))
        }


def _texts(value: Any) -> list[str]:
    """Return a personal value as people write it: a text, a whole number or a list of them."""
    items = value if isinstance(value, list) else [value]
    return [str(item) for item in items if isinstance(item, (str, int)) and not isinstance(item, bool)]


@dataclass(frozen=True)
class Found:
    """One value that is to be erased; never the value itself."""

    index: int
    name: str
    record: str
    run: str


Hit = tuple[Found, list[str]]
"""A value with its texts, which must go no further than to what is checked before something is signed."""


def hits_in(wanted: Wanted, index: int, statement: bytes, private: commitment.Private) -> Iterator[Hit]:
    """Find the values of one entry that are to be erased.

    Args:
        wanted: which.
        index: of the entry.
        statement: its statement.
        private: the personal values that stand beside it.

    Raises:
        FormatError: the statement is none.
    """
    fields = statements.decode(statement) if private else {}
    said = fields.get("attributes", {})
    for name in sorted(wanted.names(fields, private)):
        record, run = str(said.get("audit.record.id")), str(said.get("automation.run.id"))
        yield Found(index, name, record, run), _texts(private[name][1])
