# SPDX-License-Identifier: Apache-2.0
"""What the seal asks about privacy just before it seals a record. The answers come from the composition root."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

from auditspan_seal.interrupts import let_through

WITHHELD = "(withheld: the privacy guard failed)"
REPORT_INTERVAL = 10.0  # seconds; a guard that fails does so for every value, and a report writes a log line and a file
_STRUCTURE = ("audit.record.id", "audit.schema.version", "audit.event.type", "audit.action", "audit.outcome")
"""What stays of a record whose attributes could not be looked at: identities and enumerations of our own."""


class Usual(NamedTuple):
    """What a guard lets pass without being asked: most values of most records.

    Attributes:
        texts: texts that are known to have no secret in them; changed in place as more become known.
        names: the same for the names of attributes, those of a span together.
        look: returns the same object if there is no secret in a text.
        personal: names of attributes that enter the statement only as a commitment.
        alike: of a text without a secret, whether none that differs from it in nothing but digits has one either.
    """

    texts: set[str]
    names: set[tuple[str, ...]]
    look: Callable[[str], str]
    personal: frozenset[str]
    alike: Callable[[str], bool]


class Guard(Protocol):
    """Looks at everything that enters a statement.

    One that also has a method ``usual``, without arguments, says by a :class:`Usual` what it need not be asked.
    """

    def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
        """Return attributes without secrets; `where`: ``span``, ``resource``, ``scope``, ``event`` or ``link``."""

    def text(self, text: str) -> str:
        """Return the name of a span or event, or the description of a status, without secrets."""

    def personal(self, names: Collection[str]) -> Collection[str]:
        """Return those of a span's attributes that enter the statement only as a commitment."""


class _Open:
    """Changes nothing, and holds nothing to be personal."""

    def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
        return attributes or {}

    def text(self, text: str) -> str:
        return text

    def personal(self, names: Collection[str]) -> Collection[str]:
        return ()


def usual_of(guard: Guard) -> Callable[[], Usual | None]:
    """Return the method ``usual`` of a guard, or what says nothing where it has none."""
    found: Callable[[], Usual | None] = getattr(guard, "usual", lambda: None)
    return found


OPEN: Guard = _Open()


class Careful:
    """A guard that never raises: what another one could not look at is withheld, and the record is kept.

    Args:
        guard: the one that is asked.
        report: is told that it failed, the type of the error only; at most once in :data:`REPORT_INTERVAL`.
    """

    def __init__(self, guard: Guard, report: Callable[[str], None]) -> None:
        self._guard = guard
        self._report = report
        self._usual = usual_of(guard)
        self._failures = 0
        self._reported = float("-inf")

    def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
        """Ask; if that fails, keep what tells that there is a record, and the names of the rest."""
        try:
            return self._guard.attributes(attributes, where)
        except Exception as error:
            self._failed(error)
            return {name: v if name in _STRUCTURE else WITHHELD for name, v in (attributes or {}).items()}

    def text(self, text: str) -> str:
        """Ask; if that fails, withhold the text."""
        try:
            return self._guard.text(text)
        except Exception as error:
            self._failed(error)
            return WITHHELD

    def personal(self, names: Collection[str]) -> Collection[str]:
        """Ask; if that fails, all are."""
        try:
            return self._guard.personal(names)
        except Exception as error:
            self._failed(error)
            return names

    def usual(self) -> Usual | None:
        """Say what need not be asked; if that fails, everything is asked."""
        try:
            return self._usual()
        except Exception as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        let_through(error)
        self._failures += 1
        now = time.monotonic()
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            self._report(
                f"values are withheld because the privacy guard failed ({self._failures} times so far): "
                f"{type(error).__name__}"
            )
