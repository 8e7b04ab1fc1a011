# SPDX-License-Identifier: Apache-2.0
"""Personal values: is what stands beside a statement what it commits to, and was what is gone erased on record?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

import orjson

from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.verify.items import EntryItem


def erasures(entries: Iterable[tuple[int, dict[str, Any]]]) -> dict[tuple[int, str], int]:
    """Collect what the erasure entries of a log say.

    Args:
        entries: index and fields of the statements that are proven to be in the log.
    """
    found: dict[tuple[int, str], int] = {}
    for at, fields in entries:
        if fields.get("type") == "erasure":
            for value in erased_by(at, fields):
                found.setdefault(value, at)
    return found


def erased_by(at: int, fields: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Read index and attribute of each value that one erasure entry, at an index, speaks of."""
    erased = fields.get("erased")
    for value in erased if isinstance(erased, list) else ():
        # An erasure speaks of what was there before it; it is no licence for the future.
        if isinstance(value, list) and len(value) == 2 and type(value[0]) is int and 0 <= value[0] < at:
            yield value[0], str(value[1])


class State(Enum):
    """Of a personal value."""

    PRESENT = 1
    """It is there, and is the one that was committed to."""
    WRONG = 2
    """Something else is there, or only value or salt."""
    GONE = 3
    """It is not there."""
    STRAY = 4
    """A salt without a commitment."""


def states(fields: Mapping[str, Any], item: EntryItem) -> Iterator[tuple[str, State, str]]:
    """Hold the personal values of one entry against its commitments.

    Args:
        fields: its statement.
        item: what was found with it.

    Yields:
        attribute, state and, if it is not as it should be, a message; never a value.
    """
    said = fields.get("attributes")
    if not isinstance(said, dict):
        return
    if item.openings or dict in map(type, said.values()):
        for name, form in said.items():
            if not isinstance(form, dict):
                continue
            salt, shown = item.openings.get(name, (None, None))
            stated = form.get("commitment") if len(form) == 1 else None
            if salt is not None and shown is not None and commitment.opens(stated, name, shown, salt):
                yield name, State.PRESENT, ""  # nearly all; what opens is spelt as a commitment is
            elif isinstance(value := statements.plain(form), statements.Commitment):
                yield name, *_state(name, value, item)
    for name in item.openings:
        if not isinstance(said.get(name), dict):
            yield name, State.STRAY, "A salt stands here for a value that the signed statement does not commit to."


def _state(name: str, value: statements.Commitment, item: EntryItem) -> tuple[State, str]:
    salt, opened = item.openings.get(name, (None, None))
    if opened is None and item.document is not None:
        visible = item.document.get("attributes")
        opened = statements.value(visible.get(name)) if isinstance(visible, Mapping) else None
    if salt is None and opened is None:
        return State.GONE, "The personal value was removed without a signed erasure record."
    # Synthetic source makes of a list of one its element.
    forms = (opened,) if isinstance(opened, list) else (opened, [opened])
    if salt is None or opened is None or not any(commitment.opens(value.digest, name, form, salt) for form in forms):
        return (
            State.WRONG,
            "The personal value is not the one that the signed statement commits to: it or its salt was altered.",
        )
    return State.PRESENT, ""


def opened(attributes: Mapping[str, Any], beside: bytes | None) -> tuple[str, ...] | None:
    """Tell whether the personal values beside a statement are just those that it commits to; nearly all are.

    Args:
        attributes: of the statement.
        beside: the private part of its line; None: there is none.

    Returns:
        the names of the values, which all open; None: :func:`states` has something to say.
    """
    names = tuple([name for name, form in attributes.items() if form.__class__ is dict])
    if not names or beside is None or len(beside) > statements.MAX_SIZE:
        return None if names or beside is not None else ()
    try:
        openings = orjson.loads(beside)
        if openings.keys() != set(names):
            return None
        for name in names:
            form, (salt, value) = attributes[name], openings[name]
            if len(form) != 1 or not commitment.opens(form["commitment"], name, value, salt):
                return None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return names


def still_here(at: int) -> str:
    """Say that a value is there though it was erased on record at an index."""
    return (
        f"The value was erased on record (index {at}) but is still here: run the erasure again; it removes what came "
        "late."
    )
