# SPDX-License-Identifier: Apache-2.0
"""Personal values: is what stands beside a statement what it commits to, and was what is gone erased on record?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.verify.items import EntryItem
from auditspan_seal.verify.report import Code

Erased = Mapping[tuple[int, str], int]
"""Index and attribute of every value that was erased on record → index of the erasure entry."""


def erasures(entries: Iterable[tuple[int, dict[str, Any]]]) -> dict[tuple[int, str], int]:
    """Collect what the erasure entries of a log say.

    Args:
        entries: index and fields of the statements that are proven to be in the log.
    """
    found: dict[tuple[int, str], int] = {}
    for at, fields in entries:
        if fields.get("type") != "erasure" or not isinstance(fields.get("erased"), list):
            continue
        for erased in fields["erased"]:
            # An erasure speaks of what was there before it; it is no licence for the future.
            if isinstance(erased, list) and len(erased) == 2 and type(erased[0]) is int and erased[0] < at:
                found.setdefault((erased[0], str(erased[1])), at)
    return found


def check(index: int, fields: Mapping[str, Any], item: EntryItem, erased: Erased) -> Iterator[tuple[Code, str, str]]:
    """Hold the personal values of one entry against its commitments.

    Args:
        index: its index in the log.
        fields: its statement.
        item: what was found with it.
        erased: see :func:`erasures`.

    Yields:
        code, attribute and message of each thing that is not as it should be; never a value.
    """
    said = fields.get("attributes")
    if not isinstance(said, Mapping):
        return
    for name, form in said.items():
        value = statements.plain(form) if isinstance(form, dict) else None
        if not isinstance(value, statements.Commitment):
            continue
        salt, opened = item.openings.get(name, (None, None))
        if opened is None and item.document is not None:
            visible = item.document.get("attributes")
            opened = statements.value(visible.get(name)) if isinstance(visible, Mapping) else None
        if (index, name) in erased:
            if salt is not None or opened is not None:
                yield (
                    Code.ERASED_VALUE_PRESENT,
                    name,
                    f"The value was erased on record (index {erased[index, name]}) but is still here: run the erasure "
                    "again; it removes what came late.",
                )
        elif salt is None and opened is None:
            yield (
                Code.VALUE_REMOVED,
                name,
                "The personal value was removed without a signed erasure record.",
            )
        elif salt is None or opened is None or not commitment.opens(value.digest, name, opened, salt):
            yield (
                Code.FIELD_MISMATCH,
                name,
                "The personal value is not the one that the signed statement commits to: it or its salt was altered.",
            )
    for name in item.openings:
        if not isinstance(said.get(name), dict):
            yield (
                Code.FIELD_MISMATCH,
                name,
                "A salt stands here for a value that the signed statement does not commit to.",
            )
