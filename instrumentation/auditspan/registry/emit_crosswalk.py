# SPDX-License-Identifier: Apache-2.0
"""Writes the crosswalk to Elastic Common Schema and OCSF, for people and for programs."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from auditspan.registry import markdown
from auditspan.registry.crosswalk_tables import (
    ANY,
    ECS_COMMIT,
    ECS_EVENTS,
    ECS_VERSION,
    NOTES,
    OCSF_ACTIVITIES,
    OCSF_COMMIT,
    OCSF_PROFILES,
    OCSF_VERSION,
    REASONS,
    VALUES,
)
from auditspan.registry.model import EventType, Registry, RegistryError

PAGE: Final = "docs/reference/crosswalk.md"
DATA: Final = "docs/reference/crosswalk.json"
NOWHERE: Final = "-"
OTHER: Final = "Other"
_OTHER_ID = 99
_NONE = "\N{EN DASH}"
_CLASS = re.compile(r"(?P<name>[A-Z][A-Za-z ]+) \((?P<uid>\d{4})\): (?P<activities>[A-Za-z ]+(, [A-Za-z ]+)*)")


def files(registry: Registry) -> dict[str, str]:
    """Return the page and the data: path from the root of the repository → content."""
    return {
        PAGE: _page(registry),
        DATA: json.dumps(crosswalk(registry), indent=2, ensure_ascii=False) + "\n",
    }


def crosswalk(registry: Registry) -> dict[str, Any]:
    """Return the crosswalk as data.

    Raises:
        RegistryError: an event type is not in the table of ECS, or its OCSF class cannot be read.
    """
    return {
        "registry": registry.version,
        "ecs": {"version": ECS_VERSION, "commit": ECS_COMMIT},
        "ocsf": {"version": OCSF_VERSION, "commit": OCSF_COMMIT},
        "attributes": {
            name: {
                "ecs": None if a.ecs == NOWHERE else a.ecs,
                "ocsf": None if a.ocsf == NOWHERE else a.ocsf,
                "ocsf_profile": OCSF_PROFILES.get(a.ocsf.partition(".")[0]),
            }
            for name, a in registry.attributes.items()
        },
        "values": VALUES,
        "events": {name: {"ecs": _ecs(event), "ocsf": _ocsf(event)} for name, event in registry.events.items()},
    }


def _ecs(event: EventType) -> dict[str, Any]:
    try:
        category, types = ECS_EVENTS[event.name]
    except KeyError:
        raise RegistryError(
            f"{event.name} has no ECS category.", "Add it to ECS_EVENTS in auditspan/registry/crosswalk_tables.py."
        ) from None
    return {
        "event.kind": "event",
        "event.category": [category] if category else [],
        "event.type": {action: [types.get(action, types[ANY])] for action in event.actions},
    }


def _ocsf(event: EventType) -> dict[str, Any] | None:
    if event.ocsf == NOWHERE:
        return None
    match = _CLASS.fullmatch(event.ocsf)
    activities = match["activities"].split(", ") if match else []
    if len(activities) == 1:
        activities *= len(event.actions)
    if match is None or len(activities) != len(event.actions):
        raise RegistryError(
            f"The OCSF class of {event.name} cannot be read: {event.ocsf!r}.",
            'Write "Class (uid): Activity", or as many activities as there are actions.',
        )
    uid = int(match["uid"])
    ids = {OTHER: _OTHER_ID, **OCSF_ACTIVITIES.get(uid, {})}
    unknown = [activity for activity in activities if activity not in ids]
    if unknown:
        raise RegistryError(
            f"The OCSF activity {unknown[0]!r} of class {uid} ({event.name}) is not known.",
            "Add it to OCSF_ACTIVITIES in auditspan/registry/crosswalk_tables.py.",
        )
    return {
        "class_name": match["name"],
        "class_uid": uid,
        "activities": {
            action: {
                "activity_id": ids[activity],
                # OCSF: with 99 the name is that of the source.
                "activity_name": action if activity == OTHER else activity,
                "type_uid": uid * 100 + ids[activity],
            }
            for action, activity in zip(event.actions, activities, strict=True)
        },
    }


def _page(registry: Registry) -> str:
    data = crosswalk(registry)
    return f"""{markdown.GENERATED}
# Crosswalk to ECS and OCSF

For whoever brings audit records into a SIEM that speaks another language: which field of [Elastic Common
Schema](https://www.elastic.co/guide/en/ecs/current/index.html) (ECS) and of the [Open Cybersecurity Schema
Framework](https://schema.ocsf.io) (OCSF) says the same as ours. The attributes themselves are described in
[records.md](records.md). For programs: [crosswalk.json](crosswalk.json).

auditspan writes its own names only; a pipeline of yours adds the others. The signed statement has our names, so
convert copies, and keep the original.

| | version | looked up in |
|---|---|---|
| auditspan | {registry.version} | this registry |
| ECS | {ECS_VERSION} | `elastic/ecs` at `{ECS_COMMIT[:12]}` |
| OCSF | {OCSF_VERSION} | `ocsf/ocsf-schema` at `{OCSF_COMMIT[:12]}`; the state before the release of 1.9.0 |

Not every OCSF class has every attribute. Where a profile brings it, the table says so in brackets.

## Attributes

{_attributes(registry)}

{_nowhere(registry)} more attributes have no field in either.
[What they cannot express](#what-they-cannot-express) names them all.

## Values

Where the other side has values of its own:

{_values()}

## Event types

`event.kind` is `event` throughout. OCSF: `type_uid` is class times 100 + activity. With activity 99 (Other),
`activity_name` is our verb.

{_events(registry, data)}

A line without a category or class: neither fits. OCSF then wants the Base Event (0), with our attributes in
`unmapped`.

## What they cannot express

A converted copy says less than the record. These are the reasons; the numbers say how many of the attributes have some
field on the other side, if only a poor one.

{_reasons(registry)}
"""


def _attributes(registry: Registry) -> str:
    rows = [
        [markdown.attribute(name), _field(a.ecs), _field(a.ocsf, profile=True), NOTES.get(name, "")]
        for name, a in registry.attributes.items()
        if (a.ecs, a.ocsf) != (NOWHERE, NOWHERE)
    ]
    return markdown.table(["attribute", "ECS", "OCSF", "note"], rows)


def _field(field: str, *, profile: bool = False) -> str:
    if field == NOWHERE:
        return _NONE
    brought = OCSF_PROFILES.get(field.partition(".")[0]) if profile else None
    return f"`{field}`" + (f" ({brought})" if brought else "")


def _nowhere(registry: Registry) -> int:
    return sum((a.ecs, a.ocsf) == (NOWHERE, NOWHERE) for a in registry.attributes.values())


def _values() -> str:
    rows = []
    for name, fields in VALUES.items():
        for field, values in fields.items():
            said = ", ".join(f"{ours} → {theirs}" for ours, theirs in values.items() if ours != theirs)
            rows.append([markdown.attribute(name), field, said or "the same words"])
    return markdown.table(["attribute", "field", "value"], rows)


def _events(registry: Registry, data: dict[str, Any]) -> str:
    rows = []
    for name, event in registry.events.items():
        ecs, ocsf = data["events"][name]["ecs"], data["events"][name]["ocsf"]
        types = {action: values[0] for action, values in ecs["event.type"].items()}
        rows.append(
            [
                markdown.event(name),
                ", ".join(ecs["event.category"]) or _NONE,
                _by_verb(types),
                f"{ocsf['class_name']} ({ocsf['class_uid']})" if ocsf else _NONE,
                _by_verb(dict(zip(event.actions, _activities(ocsf), strict=True))) if ocsf else _NONE,
            ]
        )
    return markdown.table(["event type", "ECS category", "ECS type", "OCSF class", "OCSF activity"], rows)


def _activities(ocsf: dict[str, Any]) -> list[str]:
    return [
        f"{OTHER if activity['activity_id'] == _OTHER_ID else activity['activity_name']} ({activity['activity_id']})"
        for activity in ocsf["activities"].values()
    ]


def _by_verb(said: dict[str, str]) -> str:
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{action}: {value}" for action, value in said.items())


def _reasons(registry: Registry) -> str:
    parts = []
    for reason in REASONS:
        attributes = [registry.attributes[name] for name in reason.attributes]
        ecs, ocsf = (sum(getattr(a, side) != NOWHERE for a in attributes) for side in ("ecs", "ocsf"))
        parts.append(
            f"### {reason.title}\n\n{', '.join(markdown.attribute(a.name) for a in attributes)}\n\n"
            f"- **ECS** ({ecs} of {len(attributes)}): {reason.ecs}\n"
            f"- **OCSF** ({ocsf} of {len(attributes)}): {reason.ocsf}"
        )
    return "\n\n".join(parts)
