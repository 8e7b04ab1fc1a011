# SPDX-License-Identifier: Apache-2.0
"""The registry as objects. Pure: takes what a YAML or JSON reader returns, says what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auditspan_seal.errors import AuditspanError

PRIMITIVES = ("string", "int", "boolean", "string[]")
FORMATS = ("uuid", "verb", "hash", "timestamp", "version")
PRIVACY = ("public", "internal", "personal", "secret")
LEVELS = ("required", "recommended", "optional")
FREE = "free"
"""The message of an entry that the log writes itself: it says something else each time."""

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class RegistryError(AuditspanError):
    """A registry that contradicts itself, or is none."""


@dataclass(frozen=True)
class Attribute:
    """One attribute.

    Attributes:
        name: its name in a record.
        type: ``string``, ``int``, ``boolean``, ``string[]``, or the name of an enumeration.
        format: what its text looks like; one of :data:`FORMATS` or None.
        unit: UCUM unit, or None.
        privacy: one of :data:`PRIVACY`.
        carrier: ``record``, or ``document``: added by the seal, not signed.
        since: the registry version that brought it.
        source: where it is defined.
        constant: its name in Python.
        brief: what it says.
        example: a value.
        ecs: the field of Elastic Common Schema that says the same; ``-``: none.
        ocsf: the same of OCSF.
    """

    name: str
    type: str
    format: str | None
    unit: str | None
    privacy: str
    carrier: str
    since: str
    source: str
    constant: str
    brief: str
    example: Any
    ecs: str
    ocsf: str


@dataclass(frozen=True)
class Enumeration:
    """A closed set of values, each with what it means."""

    name: str
    brief: str
    source: str
    values: Mapping[str, str]

    @property
    def class_name(self) -> str:
        """Its name in Python: ``ActorType`` for ``actor_type``."""
        return "".join(part.capitalize() for part in self.name.split("_"))


@dataclass(frozen=True)
class EventType:
    """One event type.

    Attributes:
        name: dotted name.
        carrier: ``record`` for an audit span, ``log`` for an entry that the log writes about itself.
        brief: what happened.
        actions: its usual verbs.
        since: the registry version that brought it.
        message: template of the message; :data:`FREE` if it has none.
        required, recommended, optional: attributes beyond what every record of its carrier has.
        ocsf: the OCSF class and activity that come nearest; ``-``: none.
    """

    name: str
    carrier: str
    brief: str
    actions: tuple[str, ...]
    since: str
    message: str
    required: tuple[str, ...]
    recommended: tuple[str, ...]
    optional: tuple[str, ...]
    ocsf: str

    @property
    def constant(self) -> str:
        """Its name in Python: ``WORKFLOW_FINISHED`` for ``workflow.execution.finished``."""
        return self.name.replace(".execution", "").replace(".", "_").upper()

    @property
    def class_name(self) -> str:
        """The name of its builder: ``WorkflowFinished``."""
        return "".join(part.capitalize() for part in self.constant.split("_"))


@dataclass(frozen=True)
class Condition:
    """Attributes that are required when another one has one of some values."""

    attribute: str
    values: tuple[str, ...]
    require: tuple[str, ...]
    brief: str


@dataclass(frozen=True)
class Levels:
    """Requirement levels that hold for a whole carrier."""

    required: tuple[str, ...] = ()
    recommended: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """All of it; made by :meth:`parse`, which checks that it fits together."""

    version: str
    enumerations: Mapping[str, Enumeration]
    attributes: Mapping[str, Attribute]
    events: Mapping[str, EventType]
    every: Mapping[str, Levels]
    conditions: tuple[Condition, ...]

    @classmethod
    def parse(cls, document: Any) -> Registry:
        """Read a registry from what a YAML or JSON reader returned.

        Raises:
            RegistryError: it is not one, or contradicts itself; the message names the attribute or event.
        """
        try:
            return _checked(_read(document))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise RegistryError(
                f"The registry cannot be read: {type(error).__name__}: {error}.",
                "Compare it with the form that is described at the top of registry.yaml.",
            ) from None

    def level(self, event: EventType, attribute: str) -> str | None:
        """Return the requirement level of an attribute in records of an event type; None: it is not part of them."""
        for level in LEVELS:
            if attribute in getattr(event, level) or attribute in getattr(self.every[event.carrier], level):
                return level
        return None

    def of_event(self, event: EventType) -> dict[str, str]:
        """Return all attributes of an event type with their levels, the strictest first."""
        found: dict[str, str] = {}
        for level in LEVELS:
            for name in (*getattr(self.every[event.carrier], level), *getattr(event, level)):
                found.setdefault(name, level)
        return found

    def type_text(self, attribute: Attribute) -> str:
        """Return the type for people: an enumeration is said to be one."""
        return attribute.type if attribute.type in PRIMITIVES else f"enum {attribute.type}"


def _read(document: Any) -> Registry:
    events = {name: _event(name, fields) for name, fields in document["events"].items()}
    enumerations = {
        name: Enumeration(name, fields["brief"], fields["source"], dict(fields["values"]))
        for name, fields in document["enumerations"].items()
        if name != "event_type"
    }
    enumerations["event_type"] = Enumeration(
        "event_type", "What kind of thing happened.", "own", {event.name: event.brief for event in events.values()}
    )
    return Registry(
        version=str(document["version"]),
        enumerations=enumerations,
        attributes={name: _attribute(name, fields) for name, fields in document["attributes"].items()},
        events=events,
        every={"record": _levels(document["every_record"]), "log": _levels(document["every_log_entry"])},
        conditions=tuple(
            Condition(attribute, tuple(values), tuple(fields["require"]), fields["brief"])
            for fields in document["conditions"]
            for attribute, values in fields["when"].items()
        ),
    )


def _attribute(name: str, fields: Mapping[str, Any]) -> Attribute:
    _known(name, fields, set(Attribute.__dataclass_fields__) - {"name"})
    default = name.removeprefix("audit.").removeprefix("automation.").replace(".", "_").upper()
    return Attribute(
        name=name,
        type=fields["type"],
        format=fields.get("format"),
        unit=fields.get("unit"),
        privacy=fields["privacy"],
        carrier=fields.get("carrier", "record"),
        since=str(fields["since"]),
        source=fields["source"],
        constant=fields.get("constant", default),
        brief=fields["brief"],
        example=fields["example"],
        ecs=fields["ecs"],
        ocsf=fields["ocsf"],
    )


def _event(name: str, fields: Mapping[str, Any]) -> EventType:
    _known(name, fields, set(EventType.__dataclass_fields__) - {"name"})
    levels = _levels(fields)
    return EventType(
        name=name,
        carrier=fields.get("carrier", "record"),
        brief=fields["brief"],
        actions=tuple(fields["actions"]),
        since=str(fields["since"]),
        message=fields["message"],
        required=levels.required,
        recommended=levels.recommended,
        optional=levels.optional,
        ocsf=fields["ocsf"],
    )


def _levels(fields: Mapping[str, Any]) -> Levels:
    return Levels(*(tuple(fields.get(level) or ()) for level in LEVELS))


def _known(name: str, fields: Mapping[str, Any], allowed: set[str]) -> None:
    unknown = set(fields) - allowed
    if unknown:
        raise RegistryError(f"{name} has the unknown field {sorted(unknown)[0]!r}.", "Check its spelling.")


def _checked(registry: Registry) -> Registry:
    problems = list(_problems(registry))
    if problems:
        raise RegistryError(f"The registry contradicts itself: {problems[0]}.", "; ".join(problems[1:6]))
    return registry


def _problems(registry: Registry) -> Iterator[str]:
    if not _VERSION.fullmatch(registry.version):
        yield f"its version {registry.version!r} is not of the form 1.2.3"
    constants: dict[str, str] = {}
    for attribute in registry.attributes.values():
        yield from _attribute_problems(registry, attribute)
        other = constants.setdefault(attribute.constant, attribute.name)
        if other != attribute.name:
            yield f"{attribute.name} and {other} have the same constant {attribute.constant}"
    for event in registry.events.values():
        yield from _event_problems(registry, event)
    for condition in registry.conditions:
        for name in (condition.attribute, *condition.require):
            if name not in registry.attributes:
                yield f"a condition names the unknown attribute {name}"


def _attribute_problems(registry: Registry, attribute: Attribute) -> Iterator[str]:
    name = attribute.name
    if not _NAME.fullmatch(name):
        yield f"{name} is not a dotted lower-case name"
    if attribute.type not in (*PRIMITIVES, *registry.enumerations):
        yield f"{name} has the unknown type {attribute.type!r}"
    if attribute.format is not None and attribute.format not in FORMATS:
        yield f"{name} has the unknown format {attribute.format!r}"
    if attribute.privacy not in PRIVACY:
        yield f"{name} has the unknown privacy class {attribute.privacy!r}"
    if attribute.carrier not in ("record", "document"):
        yield f"{name} has the unknown carrier {attribute.carrier!r}"
    if not _VERSION.fullmatch(attribute.since):
        yield f"{name} says since {attribute.since!r}, which is no version"
    if not attribute.brief.endswith("."):
        yield f"the brief of {name} is not a sentence"


def _event_problems(registry: Registry, event: EventType) -> Iterator[str]:
    if event.carrier not in registry.every:
        yield f"{event.name} has the unknown carrier {event.carrier!r}"
        return
    every = registry.every[event.carrier]
    named: Sequence[str] = [*event.required, *event.recommended, *event.optional]
    for name in (*named, *every.required, *every.recommended, *every.optional):
        attribute = registry.attributes.get(name)
        if attribute is None:
            yield f"{event.name} names the unknown attribute {name}"
        elif attribute.carrier != "record":
            yield f"{event.name} names {name}, which only stored documents have"
    for name in {name for name in named if named.count(name) > 1}:
        yield f"{event.name} names {name} twice"
    present = registry.of_event(event)
    for name in PLACEHOLDER.findall(event.message):
        if name not in present:
            yield f"the message of {event.name} uses {name}, which its records do not have"
        elif registry.attributes[name].privacy not in ("public", "internal"):
            yield f"the message of {event.name} uses {name}, which is {registry.attributes[name].privacy}"
