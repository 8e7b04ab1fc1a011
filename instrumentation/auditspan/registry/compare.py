# SPDX-License-Identifier: Apache-2.0
"""What changed between two registries, and whom it breaks. Pure. For people: docs/schema-evolution.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from auditspan.registry.compare_rules import RULES
from auditspan.registry.model import PRIVACY, Attribute, Condition, EventType, Registry

_EVENT_TYPE = "event_type"  # the enumeration that is made of the event types: they have rules of their own


@dataclass(frozen=True)
class Change:
    """One change.

    Attributes:
        rule: stable name, a key of :data:`RULES`.
        subject: what changed: the name of an attribute, event type or enumeration, or ``registry``.
        message: the change in one sentence that names the subject.
        breaking: it breaks somebody.
    """

    rule: str
    subject: str
    message: str
    breaking: bool


def compare(old: Registry, new: Registry, *, between: Collection[str] = ()) -> list[Change]:
    """Tell what changed.

    Args:
        old: the registry that was released.
        new: the registry that is to be released.
        between: versions released in between; what is new may be since one of them.

    Returns:
        The changes, the breaking ones first. Whether they are allowed is said by :func:`refused`.
    """
    versions = {new.version, *between}
    found = [
        *_attributes(old, new, versions),
        *_enumerations(old, new),
        *_events(old, new, versions),
        *_conditions(old.conditions, new.conditions),
    ]
    if not found and old != replace(new, version=old.version):
        found.append(_change("text-changed", "registry", "something stands in another place or order"))
    lower = _numbers(new.version) < _numbers(old.version)
    if lower or (found and new.version == old.version):
        found.append(
            _change("version-not-raised", "registry", f"the version {new.version} is not higher than {old.version}")
        )
    return sorted(found, key=lambda change: not change.breaking)


def refused(changes: Iterable[Change], old: Registry, new: Registry) -> list[Change]:
    """Return the changes that must not be released so: breaking ones, unless the major version is raised."""
    major_raised = _numbers(new.version)[0] > _numbers(old.version)[0]
    return [c for c in changes if c.breaking and (RULES[c.rule].always or not major_raised)]


def _change(rule: str, subject: str, message: str) -> Change:
    return Change(rule, subject, message, RULES[rule].breaking)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


# -- attributes --------------------------------------------------------------------------------------------------
def _attributes(old: Registry, new: Registry, versions: Collection[str]) -> Iterator[Change]:
    added = [a for name, a in new.attributes.items() if name not in old.attributes]
    for name, before in old.attributes.items():
        after = new.attributes.get(name)
        if after is None:
            same = [a.name for a in added if a.constant == before.constant or a.brief == before.brief]
            hint = f" (renamed to {same[0]}?)" if same else ""
            yield _change("attribute-removed", name, f"{name} is no longer an attribute{hint}")
        else:
            yield from _attribute(before, after)
    for attribute in added:
        yield _change("attribute-added", attribute.name, f"{attribute.name} is new")
        if attribute.since not in versions:
            yield _change(
                "since-of-new",
                attribute.name,
                f"{attribute.name} is new in {new.version}, but says since {attribute.since}",
            )


def _attribute(old: Attribute, new: Attribute) -> Iterator[Change]:
    for rule, field in (
        ("attribute-type", "type"),
        ("attribute-format", "format"),
        ("attribute-unit", "unit"),
        ("attribute-carrier", "carrier"),
        ("attribute-constant", "constant"),
        ("since-changed", "since"),
    ):
        before, after = getattr(old, field), getattr(new, field)
        if before != after:
            yield _change(rule, old.name, f"the {field} of {old.name} was {_said(before)} and is {_said(after)}")
    if new.privacy != old.privacy:
        yield _change(
            _privacy(old.privacy, new.privacy), old.name, f"{old.name} was {old.privacy} and is {new.privacy}"
        )
    yield from _texts(old.name, old, new, ("brief", "example", "source"), ("ecs", "ocsf"))


def _privacy(old: str, new: str) -> str:
    if PRIVACY.index(new) < PRIVACY.index(old):
        return "privacy-loosened"
    return {"personal": "privacy-made-personal", "secret": "privacy-made-secret"}.get(new, "privacy-tightened")


def _texts(name: str, old: object, new: object, texts: Iterable[str], fields: Iterable[str]) -> Iterator[Change]:
    for rule, changed in (
        ("text-changed", [field for field in texts if getattr(old, field) != getattr(new, field)]),
        ("crosswalk-changed", [field for field in fields if getattr(old, field) != getattr(new, field)]),
    ):
        if changed:
            yield _change(rule, name, f"{name} has another {' and '.join(changed)}")


def _said(value: object) -> str:
    return "none" if value is None else str(value)


# -- enumerations ------------------------------------------------------------------------------------------------
def _enumerations(old: Registry, new: Registry) -> Iterator[Change]:
    for name in sorted({*old.enumerations, *new.enumerations} - {_EVENT_TYPE}):
        before, after = old.enumerations.get(name), new.enumerations.get(name)
        if after is None:
            yield _change("enumeration-removed", name, f"the enumeration {name} is gone")
        elif before is None:
            yield _change("enumeration-added", name, f"the enumeration {name} is new")
        else:
            yield from _values(name, before.values, after.values)
            yield from _texts(name, before, after, ("brief", "source"), ())


def _values(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    added = [value for value in new if value not in old]
    for value, brief in old.items():
        if value not in new:
            same = [other for other in added if new[other] == brief]
            hint = f" (renamed to {same[0]}?)" if same else ""
            yield _change("enumeration-value-removed", name, f"{value} is no longer a value of {name}{hint}")
        elif new[value] != brief:
            yield _change("text-changed", name, f"the value {value} of {name} has another brief")
    for value in added:
        yield _change("enumeration-value-added", name, f"{value} is a new value of {name}")


# -- event types -------------------------------------------------------------------------------------------------
def _events(old: Registry, new: Registry, versions: Collection[str]) -> Iterator[Change]:
    added = [event for name, event in new.events.items() if name not in old.events]
    for name, before in old.events.items():
        after = new.events.get(name)
        if after is None:
            same = [e.name for e in added if e.brief == before.brief or e.message == before.message != "free"]
            hint = f" (renamed to {same[0]}?)" if same else ""
            yield _change("event-type-removed", name, f"{name} is no longer an event type{hint}")
            continue
        if before.carrier != after.carrier:
            yield _change("event-carrier", name, f"{name} was carried by {before.carrier} and is by {after.carrier}")
        if before.since != after.since:
            yield _change("since-changed", name, f"the since of {name} was {before.since} and is {after.since}")
        if before.actions[:1] != after.actions[:1]:
            yield _change(
                "default-action", name, f"the first action of {name} was {before.actions[0]} and is {after.actions[0]}"
            )
        yield from _texts(name, before, after, ("brief", "actions", "message"), ("ocsf",))
    for event in added:
        yield _change("event-type-added", event.name, f"the event type {event.name} is new")
        if event.since not in versions:
            yield _change(
                "since-of-new", event.name, f"{event.name} is new in {new.version}, but says since {event.since}"
            )
    yield from _levels(old, new)


def _levels(old: Registry, new: Registry) -> Iterator[Change]:
    """Compare the requirement levels; one attribute in many event types is one change."""
    found: dict[tuple[str, str, str], list[EventType]] = {}
    for name, before in old.events.items():
        after = new.events.get(name)
        if after is None or after.carrier != before.carrier:
            continue
        was, becomes = old.of_event(before), new.of_event(after)
        for attribute in sorted({*was, *becomes}):
            if attribute not in new.attributes:
                continue  # attribute-removed has said so
            rule = _level(was.get(attribute), becomes.get(attribute))
            if rule is None:
                continue
            if rule == "attribute-made-required" and attribute in new.every[after.carrier].required:
                rule = "required-of-every-record"
            step = f"was {was.get(attribute, 'not part')} and is {becomes.get(attribute, 'not part')}"
            found.setdefault((rule, attribute, step), []).append(after)
    for (rule, attribute, step), events in found.items():
        yield _change(rule, attribute, f"{attribute} {step} of {_places(events, new)}")


def _level(was: str | None, becomes: str | None) -> str | None:
    if was == becomes:
        return None
    if becomes == "required":
        return "attribute-made-required"
    if becomes is None:
        return "attribute-removed-from-event"
    if was is None:
        return "attribute-added-to-event"
    return "requirement-lowered" if was == "required" else "recommendation-changed"


def _places(events: list[EventType], new: Registry) -> str:
    carriers = {event.carrier for event in events}
    everywhere = [event for event in new.events.values() if event.carrier in carriers]
    if len(carriers) == 1 and len(events) > 1 and len(events) == len(everywhere):
        return "every record" if carriers == {"record"} else "every entry of the log"
    named = ", ".join(event.name for event in events[:3])
    return named if len(events) <= 3 else f"{named} and {len(events) - 3} more"


# -- conditions --------------------------------------------------------------------------------------------------
def _conditions(old: tuple[Condition, ...], new: tuple[Condition, ...]) -> Iterator[Change]:
    before, after = _pairs(old), _pairs(new)
    for attribute in sorted({name for name, _, _ in {*before, *after}}):
        more = sorted(pair for pair in after - before if pair[0] == attribute)
        less = sorted(pair for pair in before - after if pair[0] == attribute)
        if more:
            known = any(name == attribute for name, _, _ in before)
            yield _change(
                "condition-widened" if known else "condition-added",
                attribute,
                _condition(more, "is required from now on"),
            )
        if less:
            yield _change("condition-narrowed", attribute, _condition(less, "is no longer required"))
    if before == after and [c.brief for c in old] != [c.brief for c in new]:
        yield _change("text-changed", "conditions", "the conditions have other briefs")


def _pairs(conditions: tuple[Condition, ...]) -> set[tuple[str, str, str]]:
    return {(c.attribute, value, name) for c in conditions for value in c.values for name in c.require}


def _condition(pairs: list[tuple[str, str, str]], what: str) -> str:
    attribute, value, required = pairs[0]
    more = f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
    return f"where {attribute} is {value}, {required} {what}{more}"
