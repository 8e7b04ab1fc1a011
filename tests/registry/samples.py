# SPDX-License-Identifier: Apache-2.0
"""One whole record of each event type, made from the examples of the registry."""

from __future__ import annotations

from typing import Any

from auditspan.registry.model import EventType, Registry


def record(registry: Registry, event: EventType, *, only_required: bool = False) -> dict[str, Any]:
    """Return a conformant record of an event type."""
    names = [n for n, level in registry.of_event(event).items() if level == "required" or not only_required]
    attributes = {name: registry.attributes[name].example for name in names}
    attributes |= {"audit.event.type": event.name, "audit.action": event.actions[0]}
    attributes.pop("audit.nonconformant", None)
    return attributes
