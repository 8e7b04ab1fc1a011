# SPDX-License-Identifier: Apache-2.0
"""What the generated builders have in common."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Final

from auditspan.schema import names

UNKNOWN: Final = "unknown"
"""What is not known is said, never left out."""

WITHHELD: Final = "(withheld)"
"""Stands where a record must have an attribute whose value the privacy policy does not allow."""


@dataclass(frozen=True, kw_only=True)
class Details:
    """What a record of one event type says beyond what every record says.

    Use the class of the event type (:mod:`auditspan.schema.events`): its required attributes are required arguments.
    """

    TYPE: ClassVar[names.EventType]
    NAMES: ClassVar[dict[str, str]]
    """Field of the builder → attribute of the record."""

    action: str

    def attributes(self) -> dict[str, Any]:
        """Return the attributes; what is None is left out."""
        found: dict[str, Any] = {names.EVENT_TYPE: self.TYPE._value_, names.ACTION: self.action}
        for field, name in self.NAMES.items():
            value = getattr(self, field)
            if value is not None:
                found[name] = value.value if isinstance(value, Enum) else value
        return found
