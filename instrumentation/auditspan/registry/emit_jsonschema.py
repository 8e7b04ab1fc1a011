# SPDX-License-Identifier: Apache-2.0
"""Writes a JSON Schema (2020-12) of the attributes of one record, for checks in any language.

It says what :func:`auditspan.schema.violations` says; a test compares the two.
"""

from __future__ import annotations

import json
from typing import Any, Final

from auditspan.registry.model import LEVELS, Attribute, EventType, Registry

PATH: Final = "docs/reference/record.schema.json"
_OURS: Final = r"^(audit|automation)\."
_PSEUDONYM: Final = r"^hmac-sha256:[0-9a-f]{32}$"
_WITHHELD: Final = "(withheld)"
_TIME: Final = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2}(:\d{2})?)?"
_PATTERNS: Final = {
    "uuid": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    "verb": r"^[A-Z][A-Z_]*$",
    "hash": r"^sha256:[0-9a-f]{64}$",
    "version": r"^\d+\.\d+\.\d+$",
    "timestamp": rf"^\d{{4}}-\d{{2}}-\d{{2}}({_TIME})?$",
}


def files(registry: Registry) -> dict[str, str]:
    """Return the schema: path from the root of the repository → content."""
    return {PATH: json.dumps(schema(registry), indent=2, ensure_ascii=False) + "\n"}


def schema(registry: Registry) -> dict[str, Any]:
    """Return the schema of one record as recorded, with the one of a stored record in ``$defs``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:auditspan:record:{registry.version}",
        "title": "Attributes of an auditspan record",
        "description": "One JSON object: attribute → value. The whole schema is for a record as it was recorded. "
        "`#/$defs/stored` is for the attributes of a document read back from the store: it allows what the seal adds, "
        "and personal values may have been erased.",
        "$comment": "Generated from registry.yaml by `python -m auditspan.registry`. Do not edit.",
        "$ref": "#/$defs/recorded",
        "$defs": {
            "recorded": _record(registry, "recorded"),
            "stored": _record(registry, "stored"),
            "attributes": {
                "type": "object",
                "properties": {name: _attribute(registry, a) for name, a in registry.attributes.items()},
            },
            **{f"enum:{name}": _enumeration(registry, name) for name in registry.enumerations},
            **{f"format:{name}": _format(pattern) for name, pattern in _PATTERNS.items()},
            **{f"names:{carrier}": {"enum": _every(registry, carrier)} for carrier in registry.every},
            "names:document": {"enum": [n for n, a in registry.attributes.items() if a.carrier == "document"]},
            **{f"event:{name}": _event(registry, event) for name, event in registry.events.items()},
            **{f"stored-event:{name}": _stored_event(registry, event) for name, event in registry.events.items()},
        },
    }


def _record(registry: Registry, form: str) -> dict[str, Any]:
    prefix = "event" if form == "recorded" else "stored-event"
    return {
        "description": {
            "recorded": "A record as it was recorded.",
            "stored": "A record as stored: personal values may have been erased, the seal has added its attributes.",
        }[form],
        "$ref": "#/$defs/attributes",
        "required": ["audit.event.type"],
        "allOf": [
            *(
                {
                    "if": {
                        "properties": {"audit.event.type": {"const": name}},
                        "required": ["audit.event.type"],
                    },
                    "then": {"$ref": f"#/$defs/{prefix}:{name}"},
                }
                for name in registry.events
            ),
            *(
                {
                    "$comment": condition.brief,
                    "if": {
                        "properties": {condition.attribute: {"enum": list(condition.values)}},
                        "required": [condition.attribute],
                    },
                    "then": {"required": _kept(registry, condition.require, form)},
                }
                for condition in registry.conditions
            ),
        ],
    }


def _attribute(registry: Registry, attribute: Attribute) -> Any:
    if attribute.privacy == "secret":
        return False
    about = {"description": attribute.brief, "x-privacy": attribute.privacy, "x-since": attribute.since}
    if attribute.unit is not None:
        about["x-unit"] = attribute.unit
    if attribute.type == "int":
        return {"type": "integer", **about}
    if attribute.type == "boolean":
        return {"type": "boolean", **about}
    if attribute.type == "string[]":
        return {"type": "array", "items": {"type": "string"}, **about}
    if attribute.type in registry.enumerations:
        return {"$ref": f"#/$defs/enum:{attribute.type}", **about}
    if attribute.format is not None:
        return {"$ref": f"#/$defs/format:{attribute.format}", **about}
    return {"type": "string", "minLength": 1, **about}


def _enumeration(registry: Registry, name: str) -> dict[str, Any]:
    enumeration = registry.enumerations[name]
    return {"description": enumeration.brief, "type": "string", "enum": list(enumeration.values)}


def _format(pattern: str) -> dict[str, Any]:
    return {
        "type": "string",
        "anyOf": [{"pattern": pattern}, {"const": _WITHHELD}, {"pattern": _PSEUDONYM}],
        "$comment": "Or what a privacy policy put in its place: withheld, or a pseudonym.",
    }


def _event(registry: Registry, event: EventType) -> dict[str, Any]:
    required = [name for name, level in registry.of_event(event).items() if level == "required"]
    return {
        "description": event.brief,
        "required": required,
        "propertyNames": _names(event, stored=False),
    }


def _stored_event(registry: Registry, event: EventType) -> dict[str, Any]:
    required = tuple(name for name, level in registry.of_event(event).items() if level == "required")
    return {
        "required": _kept(registry, required, "stored"),
        "propertyNames": _names(event, stored=True),
    }


def _names(event: EventType, *, stored: bool) -> dict[str, Any]:
    own = [*event.required, *event.recommended, *event.optional]
    known: list[dict[str, Any]] = [{"$ref": f"#/$defs/names:{event.carrier}"}]
    known += [{"enum": own}] if own else []
    known += [{"$ref": "#/$defs/names:document"}] if stored else []
    return {
        "$comment": "Under audit. and automation. nothing is unknown; other names are other people's.",
        "if": {"pattern": _OURS},
        "then": {"anyOf": known},
    }


def _every(registry: Registry, carrier: str) -> list[str]:
    return [name for level in LEVELS for name in getattr(registry.every[carrier], level)]


def _kept(registry: Registry, names: tuple[str, ...], form: str) -> list[str]:
    """Leave out what an erasure may have taken from a stored record."""
    return [name for name in names if form == "recorded" or registry.attributes[name].privacy != "personal"]
