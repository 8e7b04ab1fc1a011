# SPDX-License-Identifier: Apache-2.0
"""Writes the registry as JSON, for reading without a YAML library. `Registry.parse` reads it back as it was."""

from __future__ import annotations

import json
from typing import Any

from auditspan.registry.model import LEVELS, Attribute, EventType, Levels, Registry

PATH = "instrumentation/auditspan/registry/registry.json"


def files(registry: Registry) -> dict[str, str]:
    """Return the packaged registry: path from the root of the repository → content."""
    return {PATH: json.dumps(document(registry), indent=1, ensure_ascii=False) + "\n"}


def document(registry: Registry) -> dict[str, Any]:
    """Return a registry in the form that `Registry.parse` takes."""
    return {
        "version": registry.version,
        "enumerations": {
            name: {"brief": e.brief, "source": e.source, "values": dict(e.values)} if name != "event_type" else {}
            for name, e in registry.enumerations.items()
        },
        "attributes": {name: _attribute(attribute) for name, attribute in registry.attributes.items()},
        "every_record": _levels(registry.every["record"]),
        "every_log_entry": _levels(registry.every["log"]),
        "conditions": [
            {"when": {c.attribute: list(c.values)}, "require": list(c.require), "brief": c.brief}
            for c in registry.conditions
        ],
        "events": {name: _event(event) for name, event in registry.events.items()},
    }


def _attribute(attribute: Attribute) -> dict[str, Any]:
    return {
        field: value
        for field in Attribute.__dataclass_fields__
        if field != "name" and (value := getattr(attribute, field)) is not None
    }


def _event(event: EventType) -> dict[str, Any]:
    return {
        "carrier": event.carrier,
        "brief": event.brief,
        "actions": list(event.actions),
        "since": event.since,
        "message": event.message,
        **_levels(Levels(event.required, event.recommended, event.optional)),
        "ocsf": event.ocsf,
    }


def _levels(levels: Levels) -> dict[str, list[str]]:
    return {level: list(getattr(levels, level)) for level in LEVELS}
