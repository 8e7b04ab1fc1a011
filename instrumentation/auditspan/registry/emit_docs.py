# SPDX-License-Identifier: Apache-2.0
"""Writes the reference page: what a record is, every event type, every attribute, every value."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from auditspan.registry import docs_texts, load, markdown
from auditspan.registry.model import (
    FREE,
    LEVELS,
    PLACEHOLDER,
    PRIMITIVES,
    PRIVACY,
    Attribute,
    EventType,
    Registry,
    RegistryError,
)

PAGE: Final = "docs/reference/records.md"
_LONGEST = 44  # characters of an example in a table
_TEXTS = "Add it to auditspan/registry/docs_texts.py."


def files(registry: Registry) -> dict[str, str]:
    """Return the page: path from the root of the repository → content."""
    return {PAGE: page(registry)}


def page(registry: Registry) -> str:
    """Return the reference page.

    Raises:
        RegistryError: something of the registry has no text of its own yet.
    """
    records = [event for event in registry.events.values() if event.carrier == "record"]
    entries = [event for event in registry.events.values() if event.carrier == "log"]
    return f"""{markdown.GENERATED}
# Audit records

Registry {registry.version}: {len(registry.events)} event types, {len(registry.attributes)} attributes.

## What an audit record is

An audit record is one thing that an automation did: who did it, what it did to what, when, from where, why, in which
run of which version of which script, and how it ended. It is an ordinary OpenTelemetry span with the attributes on
this page, so it is also part of the trace. What makes it evidence is that its attributes are signed together, as one
*statement* that is stored beside them ([formats.md](../formats.md)). The records of one run form a story:

{docs_texts.PICTURE}

## How to read this page

- [Every record](#every-record) has the attributes of the first section. Each [event type](#event-types) adds some of
  its own.
- **required**: always there; what is not known is said to be `unknown`. **recommended**: there when it is known.
  **optional**: there when it makes sense. A record that lacks something required is recorded all the same, and says
  so in `audit.nonconformant`.
- **privacy** says who may see a value and whether it can be erased: see [Privacy classes](#privacy-classes).
- A **message** such as `read {{audit.target.type}}[, {{audit.data.count}} items]` is made by putting values in the
  place of names. A part in brackets is left out when an attribute in it is not there. If the outcome is not success
  and the message does not give a reason already, ` — failed` and the error follow.
- The text of an attribute is never parsed: whatever a message says, an attribute says as well.
- Names under `audit.` and `automation.` that are not on this page are in no conformant record. Other names
  may be there; other instrumentation sets them.
- In Elasticsearch each attribute is a field of its name. Messages, rationales, remediations and reasons can be
  searched by words as well, as in `attributes.audit.message.text`; when a task was due, by time, as in
  `attributes.automation.task.scheduled_time.date`. Such sub-fields need the `attributes.` in front.
- The same for programs: [record.schema.json](record.schema.json) (JSON Schema), `auditspan schema show --json`. In
  the words of Elastic and OCSF: [crosswalk.md](crosswalk.md). What may change, and how:
  [schema-evolution.md](../schema-evolution.md).

## Every record

{_every(registry)}

## Event types

{_contents(registry)}

{_events(registry, records)}

## Entries that the log writes itself

They are signed like records, but are about the log: no run caused them, so they have no run, script or trigger. They
have {_names(registry.every["log"].required)}.

{_events(registry, entries)}

## Conditions

{_conditions(registry)}

## All attributes

Types: string, int, boolean, string[] (a list), or an [enumeration](#enumerations). *since* is the version of the
registry that brought an attribute. *source* is where it is defined: *otep* is the draft of the OpenTelemetry
audit-logging data model (OTEP 0267), *semconv* the OpenTelemetry semantic conventions.

{_index(registry, "record")}

What the seal adds to the stored document. It is not part of the statement, which could not contain itself:

{_index(registry, "document")}

A format is checked beside the type:

{markdown.table(["format", "is"], _formats(registry))}

## Enumerations

{_enumerations(registry)}

## Privacy classes

More in [privacy.md](../privacy.md), and on what is recognised as a secret in [secrets.md](../secrets.md).

{_privacy(registry)}
"""


# -- every record ------------------------------------------------------------------------------------------------
def _every(registry: Registry) -> str:
    every = registry.every["record"]
    levels = {name: level for level in LEVELS for name in getattr(every, level)}
    grouped = {name for _, names in docs_texts.GROUPS.values() for name in names}
    if grouped != set(levels):
        name = sorted(grouped ^ set(levels))[0]
        raise RegistryError(f"{name} is in the groups of the page or in every record, not in both.", _TEXTS)
    parts = []
    for title, (sentence, names) in docs_texts.GROUPS.items():
        parts.append(f"### {title}\n\n{sentence}\n\n{_levelled(registry, {name: levels[name] for name in names})}")
    return "\n\n".join(parts)


def _levelled(registry: Registry, levels: dict[str, str]) -> str:
    rows = []
    for name, level in levels.items():
        a = registry.attributes[name]
        rows.append([_link(name), level, _type(registry, a), a.privacy, a.brief, _example(a)])
    return markdown.table(["attribute", "level", "type", "privacy", "says", "example"], rows)


# -- event types -------------------------------------------------------------------------------------------------
def _contents(registry: Registry) -> str:
    rows = [
        [markdown.event(event.name, ""), ", ".join(event.actions), event.brief] for event in registry.events.values()
    ]
    return markdown.table(["event type", "actions", "is"], rows)


def _events(registry: Registry, events: Iterable[EventType]) -> str:
    return "\n\n".join(_event(registry, event) for event in events)


def _event(registry: Registry, event: EventType) -> str:
    if event.name not in docs_texts.MEET:
        raise RegistryError(f"The page does not say when one meets {event.name}.", _TEXTS)
    verbs = ", ".join(f"`{action}`" for action in event.actions)
    parts = [
        f'<a id="event-{markdown.anchor(event.name)}"></a>\n### {event.name}',
        f"{event.brief} You meet it {docs_texts.MEET[event.name]}",
        f"Action: {verbs}. Since {event.since}.",
    ]
    own = {name: level for level in LEVELS for name in getattr(event, level)}
    if own:
        parts.append(_levelled(registry, own))
    if event.message == FREE:
        parts.append("Message: free text; it says something else each time.")
    else:
        full, least = (message(registry, event, full=full) for full in (True, False))
        lines = [f"Message: `{event.message}`", f"For example: {full}"]
        lines += [f"At least: {least}"] if least != full else []
        parts.append("  \n".join(lines))
    real = load.real_record(event.name)
    if real is not None:
        parts.append(
            "<details><summary>A real record</summary>\n\n```json\n"
            + json.dumps(real, indent=2, ensure_ascii=False)
            + "\n```\n\n</details>"
        )
    return "\n\n".join(parts)


def message(registry: Registry, event: EventType, *, full: bool) -> str:
    """Return the message of an event type, made from the examples of the attributes.

    Args:
        full: with the parts that may be left out.
    """
    text = ""
    present = registry.of_event(event)
    for position, part in enumerate(event.message.replace("]", "[").split("[")):
        certain = all(present[name] == "required" for name in PLACEHOLDER.findall(part))
        if position % 2 == 0 or full or certain:
            text += PLACEHOLDER.sub(lambda match: _text(registry.attributes[match[1]].example), part)
    return text


# -- conditions, index, enumerations, privacy --------------------------------------------------------------------
def _conditions(registry: Registry) -> str:
    if not registry.conditions:
        return "There are none."
    rows = [[f"{_link(c.attribute)} is {_or(c.values)}", _names(c.require), c.brief] for c in registry.conditions]
    return markdown.table(["when", "required as well", "because"], rows)


def _index(registry: Registry, carrier: str) -> str:
    rows = [
        [
            f'<a id="{markdown.anchor(name)}"></a>`{name}`', _type(registry, a), a.unit or "", a.privacy, a.since,
            a.source, a.brief,
        ]
        for name, a in registry.attributes.items()
        if a.carrier == carrier
    ]  # fmt: skip
    return markdown.table(["attribute", "type", "unit", "privacy", "since", "source", "says"], rows)


def _formats(registry: Registry) -> Iterable[list[str]]:
    used = {a.format for a in registry.attributes.values()}
    return [[name, text] for name, text in docs_texts.FORMATS.items() if name in used]


def _enumerations(registry: Registry) -> str:
    parts = []
    for name, enumeration in registry.enumerations.items():
        if name == "event_type":
            continue
        users = [a.name for a in registry.attributes.values() if a.type == name]
        table = markdown.table(["value", "means"], [[f"`{v}`", brief] for v, brief in enumeration.values.items()])
        parts.append(
            f'<a id="enum-{markdown.anchor(name)}"></a>\n### {name}\n\n{enumeration.brief} Used by '
            f"{_names(users) if users else 'nothing'}.\n\n{table}"
        )
    parts.append('<a id="enum-event-type"></a>\n### event_type\n\nThe [event types](#event-types).')
    return "\n\n".join(parts)


def _privacy(registry: Registry) -> str:
    rows = []
    for name in PRIVACY:
        count = sum(a.privacy == name for a in registry.attributes.values())
        what, where = docs_texts.PRIVACY[name]
        rows.append([name, what, where, str(count)])
    return markdown.table(["class", "is", "where values are", "attributes"], rows)


# -- small pieces ------------------------------------------------------------------------------------------------
def _link(name: str) -> str:
    return markdown.attribute(name, "")


def _names(names: Iterable[str]) -> str:
    return ", ".join(_link(name) for name in names)


def _or(values: Iterable[str]) -> str:
    *first, last = (f"`{value}`" for value in values)
    return f"{', '.join(first)} or {last}" if first else last


def _type(registry: Registry, attribute: Attribute) -> str:
    if attribute.type in PRIMITIVES:
        return f"{attribute.type} ({attribute.format})" if attribute.format else attribute.type
    return f"[{attribute.type}](#enum-{markdown.anchor(attribute.type)})"


def _example(attribute: Attribute) -> str:
    text = (
        json.dumps(attribute.example, ensure_ascii=False)
        if not isinstance(attribute.example, str)
        else _text(attribute.example)
    )
    text = text.replace("\n", "\\n")
    return f"`{text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}`"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
