# SPDX-License-Identifier: Apache-2.0
"""Writes ``auditspan.schema``: names, typed builders, and the rules that records are checked by."""

from __future__ import annotations

import pprint
import textwrap
from collections.abc import Iterable

from auditspan.registry.model import FREE, PLACEHOLDER, Attribute, EventType, Registry

FOLDER = "instrumentation/auditspan/schema"
_HEADER = '''# SPDX-License-Identifier: Apache-2.0
# Generated from registry.yaml by `python -m auditspan.registry`. Do not edit.
# fmt: off
# ruff: noqa
"""{title}"""

from __future__ import annotations
'''
_PYTHON_TYPES = {"string": "str", "int": "int", "boolean": "bool", "string[]": "Sequence[str]"}


def files(registry: Registry) -> dict[str, str]:
    """Return the generated modules: path from the root of the repository → content."""
    return {
        f"{FOLDER}/names.py": _names(registry),
        f"{FOLDER}/events.py": _events(registry),
        f"{FOLDER}/rules.py": _rules(registry),
    }


# -- names -----------------------------------------------------------------------------------------------------
def _names(registry: Registry) -> str:
    parts = [
        _HEADER.format(title="Names and enumerations of the audit record."),
        "from enum import Enum\nfrom typing import Final\n",
        f'SCHEMA_VERSION: Final = "{registry.version}"\n',
    ]
    for attribute in registry.attributes.values():
        if attribute.carrier == "record":
            parts.append(f'{attribute.constant}: Final = "{attribute.name}"\n"""{_quoted(attribute.brief)}"""')
    for enumeration in registry.enumerations.values():
        members = [
            f'    {_member(registry, enumeration.name, value)} = "{value}"' for value in sorted(enumeration.values)
        ]
        parts.append(
            f'\n\nclass {enumeration.class_name}(str, Enum):\n    """{_quoted(enumeration.brief)}"""\n\n'
            + "\n".join(members)
        )
    names = [
        "SCHEMA_VERSION",
        *(a.constant for a in registry.attributes.values() if a.carrier == "record"),
        *(e.class_name for e in registry.enumerations.values()),
    ]
    parts.append("\n\n__all__ = [\n" + "".join(f'    "{name}",\n' for name in sorted(names)) + "]")
    return "\n".join(parts) + "\n"


def _member(registry: Registry, enumeration: str, value: str) -> str:
    return registry.events[value].constant if enumeration == "event_type" else value.upper()


# -- builders --------------------------------------------------------------------------------------------------
def _events(registry: Registry) -> str:
    parts = [
        _HEADER.format(
            title="One typed builder for each event type: what a record says beyond what every record says."
        ),
        "from collections.abc import Sequence\nfrom typing import ClassVar, Final\n",
        "from auditspan.schema import names\n"
        "from auditspan.schema.details import Details\n"
        "from auditspan.schema.names import EventType\n",
    ]
    records = [event for event in registry.events.values() if event.carrier == "record"]
    parts += [_builder(registry, event) for event in records]
    by_type = "".join(f"    EventType.{event.constant}: {event.class_name},\n" for event in records)
    parts.append(f"\n\nBUILDERS: Final[dict[EventType, type[Details]]] = {{\n{by_type}}}")
    parts.append('\n__all__ = [\n    "BUILDERS",\n' + "".join(f'    "{e.class_name}",\n' for e in records) + "]")
    return "\n".join(parts) + "\n"


def _builder(registry: Registry, event: EventType) -> str:
    own = [(name, "required") for name in event.required]
    own += [(name, "recommended") for name in event.recommended] + [(name, "optional") for name in event.optional]
    attributes = [(registry.attributes[name], level) for name, level in own]
    documented = "\n".join(_argument(attribute, level) for attribute, level in attributes)
    fields = [f"    {_field(a)}: {_python_type(registry, a)}" for a, level in attributes if level == "required"]
    fields += [f'    action: str = "{event.actions[0]}"']
    fields += [
        f"    {_field(a)}: {_python_type(registry, a)} | None = None" for a, level in attributes if level != "required"
    ]
    names = "".join(f'"{_field(a)}": names.{a.constant}, ' for a, _ in attributes).rstrip(", ")
    verbs = ", ".join(event.actions)
    docstring = f'    """{_quoted(event.brief)}\n\n    Attributes:\n        action: {verbs}.\n{documented}\n    """'
    return (
        f"\n\nclass {event.class_name}(Details):\n{docstring}\n\n"
        f"    TYPE: ClassVar[EventType] = EventType.{event.constant}\n"
        f"    NAMES: ClassVar[dict[str, str]] = {{{names}}}\n\n" + "\n".join(fields)
    )


def _argument(attribute: Attribute, level: str) -> str:
    text = f"{_field(attribute)}: ({level}) {_quoted(attribute.brief)}"
    return textwrap.fill(text, 116, initial_indent=" " * 8, subsequent_indent=" " * 12, break_on_hyphens=False)


def _field(attribute: Attribute) -> str:
    return attribute.constant.lower()


def _python_type(registry: Registry, attribute: Attribute) -> str:
    if attribute.type in _PYTHON_TYPES:
        return _PYTHON_TYPES[attribute.type]
    return f"names.{registry.enumerations[attribute.type].class_name}"


# -- rules -----------------------------------------------------------------------------------------------------
def _rules(registry: Registry) -> str:
    records = {event.name: event for event in registry.events.values()}
    own = {name: a for name, a in registry.attributes.items() if a.carrier == "record"}
    tables: list[tuple[str, str, str, object]] = [
        (
            "TYPES", "dict[str, tuple[str, str | None]]", "Attribute → type (an enumeration by its name) and format.",
            {name: (a.type, a.format) for name, a in own.items()},
        ),
        (
            "ENUMERATIONS", "dict[str, frozenset[str]]", "Enumeration → its values.",
            {name: frozenset(e.values) for name, e in registry.enumerations.items()},
        ),
        (
            "PRIVACY", "dict[str, str]", "Attribute → privacy class.",
            {name: a.privacy for name, a in own.items()},
        ),
        (
            "REQUIRED", "dict[str, frozenset[str]]", "Event type → attributes that its records must have.",
            {name: frozenset(_levels(registry, event, "required")) for name, event in records.items()},
        ),
        (
            "KNOWN", "dict[str, frozenset[str]]", "Event type → attributes that its records may have.",
            {name: frozenset(registry.of_event(event)) for name, event in records.items()},
        ),
        (
            "CONDITIONS", "tuple[tuple[str, frozenset[str], frozenset[str]], ...]",
            "Attribute, its values, and what is required then.",
            tuple((c.attribute, frozenset(c.values), frozenset(c.require)) for c in registry.conditions),
        ),
        (
            "MESSAGES", "dict[str, tuple[tuple[bool, tuple[str, ...]], ...]]",
            "Event type → parts of its message: whether the part may be left out, and literals and attributes in turn.",
            {name: _message(event.message) for name, event in records.items() if event.message != FREE},
        ),
    ]  # fmt: skip
    parts = [_HEADER.format(title="What records are checked by, as tables."), "from typing import Final"]
    parts += [f'\n{name}: Final[{kind}] = {_literal(table)}\n"""{text}"""' for name, kind, text, table in tables]
    return "\n".join(parts) + "\n"


def _levels(registry: Registry, event: EventType, level: str) -> Iterable[str]:
    return (name for name, found in registry.of_event(event).items() if found == level)


def _message(template: str) -> tuple[tuple[bool, tuple[str, ...]], ...]:
    """Split a template: brackets make parts that may be left out; in a part every other item is an attribute."""
    parts: list[tuple[bool, tuple[str, ...]]] = []
    for position, text in enumerate(template.replace("]", "[").split("[")):
        if text:
            parts.append((position % 2 == 1, tuple(PLACEHOLDER.split(text))))
    return tuple(parts)


def _literal(table: object) -> str:
    if isinstance(table, dict) and all(isinstance(value, frozenset) for value in table.values()):
        rows = "".join(f"    {key!r}: frozenset({sorted(value)!r}),\n" for key, value in table.items())
        return f"{{\n{rows}}}"
    if isinstance(table, tuple):
        rows = "".join(f"    ({a!r}, frozenset({sorted(v)!r}), frozenset({sorted(r)!r})),\n" for a, v, r in table)
        return f"(\n{rows})"
    return pprint.pformat(table, width=118, sort_dicts=False)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")
