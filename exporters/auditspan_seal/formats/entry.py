# SPDX-License-Identifier: Apache-2.0
"""Entries that the log writes about itself: they read like records, with the names of the registry."""

from __future__ import annotations

from typing import Any

SCHEMA_VERSION = "0.2.0"
"""Version of the registry that these entries follow: that of auditspan.schema, as a test sees to."""


def own_attributes(event_type: str, action: str, origin: str, message: str, outcome: str = "success") -> dict[str, Any]:
    """Return what an entry that the log writes about itself says, so that it reads like a record.

    Args:
        event_type: of the registry, for example ``log.gap``.
        action: the verb.
        origin: name of the log.
        message: one line for people.
        outcome: ``success`` or ``failure``.
    """
    return {
        "audit.schema.version": SCHEMA_VERSION,
        "audit.event.type": event_type,
        "audit.action": action,
        "audit.outcome": outcome,
        "audit.actor.id": "auditspan",
        "audit.actor.type": "system",
        "audit.actor.evidence": "self",
        "audit.target.id": origin,
        "audit.target.type": "auditspan.log",
        "audit.message": message,
    }
