# SPDX-License-Identifier: Apache-2.0
"""``auditspan schema show|check|diff``: what records can say, and whether a change of that breaks anybody."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from auditspan.cli import common
from auditspan.registry import derived, emit_crosswalk, emit_json
from auditspan.registry.compare import Change, compare, refused
from auditspan.registry.compare_rules import RULES
from auditspan.registry.load import SOURCE, load, released, source_tree
from auditspan.registry.model import LEVELS, Attribute, EventType, Registry, RegistryError

_BREAKING = 1
_CODES = "0 nothing breaks, 1 a breaking change, 2 wrong usage or unreadable registry"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class UnknownName(RegistryError):
    """Neither an event type nor an attribute has that name."""


def register(verbs: common.Verbs) -> None:
    """Add the verb with its three commands."""
    parser = common.add_verb(
        verbs,
        "schema",
        show,
        "Show what records can say; check that a change of it breaks nobody.",
        "auditspan schema show data.read\n  auditspan schema check",
        _CODES,
    )
    parser.set_defaults(name=None, registry=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    showing = common.add_verb(
        commands,
        "show",
        show,
        "Show all event types, or one, or one attribute.",
        "auditspan schema show audit.actor.id",
        "0 done, 2 no such name or unreadable registry",
        inner=True,
    )
    showing.add_argument("name", nargs="?", metavar="NAME", help="an event type or an attribute (default: overview)")
    checking = common.add_verb(
        commands,
        "check",
        check,
        "Compare the registry with the last released one; in a source tree also check the files derived from it.",
        "auditspan schema check",
        "0 nothing breaks\n  1 a breaking change without a new major version, or a derived file is not up to date\n"
        "  2 wrong usage or unreadable registry",
        inner=True,
    )
    checking.add_argument(
        "--against", metavar="FILE|VERSION", help="compare with this instead of the last released registry"
    )
    for command in (showing, checking):
        command.add_argument("--registry", type=Path, metavar="FILE", help="use this registry instead of our own")
    differing = common.add_verb(
        commands,
        "diff",
        diff,
        "Tell what changed between two registries, and whom it breaks.",
        "auditspan schema diff 0.2.0 instrumentation/auditspan/registry/registry.yaml",
        "0 nothing breaks, 1 a breaking change (whatever the versions), 2 wrong usage or unreadable registry",
        inner=True,
    )
    differing.add_argument("old", metavar="OLD", help="file or released version")
    differing.add_argument("new", metavar="NEW", help="file or released version")


# -- show --------------------------------------------------------------------------------------------------------
def show(options: argparse.Namespace) -> int:
    """Run ``auditspan schema show``."""
    registry = load(options.registry)
    name = options.name
    if name is None:
        if options.json:
            common.print_json(emit_json.document(registry))
        else:
            _show_overview(registry)
    elif name in registry.events:
        event = registry.events[name]
        if options.json:
            common.print_json(_event_fields(registry, event))
        else:
            _show_event(registry, event)
    elif name in registry.attributes:
        attribute = registry.attributes[name]
        if options.json:
            common.print_json(_attribute_fields(registry, attribute))
        else:
            _show_attribute(registry, attribute)
    else:
        names = [*registry.events, *registry.attributes]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or [n for n in names if name in n][:3]
        raise UnknownName(
            f"There is no event type and no attribute {name!r} in the registry {registry.version}.",
            f"Did you mean {' or '.join(near)}?" if near else "`auditspan schema show` lists the event types.",
        )
    return 0


def _show_overview(registry: Registry) -> None:
    console = common.console()
    console.print(
        f"[bold]registry {registry.version}[/]  {len(registry.events)} event types, "
        f"{len(registry.attributes)} attributes, {len(registry.enumerations) - 1} enumerations"
    )
    for carrier, what in (("record", "every record"), ("log", "every entry that the log writes itself")):
        counts = ", ".join(f"{len(getattr(registry.every[carrier], level))} {level}" for level in LEVELS)
        console.print(f"  {what}: {counts}", style="dim")
    table = _table("event type", "actions", "own attributes", "since", "is")
    for event in registry.events.values():
        counts = ", ".join(f"{len(own)} {level}" for level in LEVELS if (own := getattr(event, level)))
        table.add_row(event.name, ", ".join(event.actions), counts or "none", event.since, escape(event.brief))
    console.print(table)


def _show_event(registry: Registry, event: EventType) -> None:
    console = common.console()
    console.print(f"[bold]{event.name}[/]  since {event.since}")
    console.print(escape(event.brief))
    console.print(f"  actions  {', '.join(event.actions)}")
    console.print(f"  message  {escape(event.message)}")
    console.print(f"  OCSF     {escape(event.ocsf)}")
    for condition in registry.conditions:
        if condition.attribute != "audit.action" or set(condition.values) & set(event.actions):
            values = " or ".join(condition.values)
            console.print(
                f"  where {condition.attribute} is {values}: also {', '.join(condition.require)}", style="dim"
            )
    table = _table("attribute", "level", "type", "privacy", "says")
    own = {*event.required, *event.recommended, *event.optional}
    # What belongs to this event type alone comes first: the rest is the same everywhere.
    for name, level in sorted(registry.of_event(event).items(), key=lambda item: item[0] not in own):
        a = registry.attributes[name]
        table.add_row(
            name, level, registry.type_text(a), a.privacy, escape(a.brief), style=None if name in own else "dim"
        )
    console.print(table)


def _show_attribute(registry: Registry, attribute: Attribute) -> None:
    console = common.console()
    console.print(f"[bold]{attribute.name}[/]  {registry.type_text(attribute)}, {attribute.privacy}")
    console.print(escape(attribute.brief))
    facts = {
        "format": attribute.format, "unit": attribute.unit, "since": attribute.since, "source": attribute.source,
        "constant": f"auditspan.schema.{attribute.constant}" if attribute.carrier == "record" else None,
        "carrier": "the stored document only, not signed" if attribute.carrier == "document" else None,
        "example": json.dumps(attribute.example, ensure_ascii=False), "ECS": attribute.ecs, "OCSF": attribute.ocsf,
    }  # fmt: skip
    for fact, value in facts.items():
        if value is not None:
            console.print(f"  {fact:<8}  {escape(value)}")
    enumeration = registry.enumerations.get(attribute.type)
    if enumeration is not None:
        table = _table("value", "means")
        for value, brief in enumeration.values.items():
            table.add_row(value, escape(brief))
        console.print(table)
    for level, events in _levels(registry, attribute).items():
        console.print(f"  {level}: {_everywhere(registry, events)}")


def _levels(registry: Registry, attribute: Attribute) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for event in registry.events.values():
        level = registry.of_event(event).get(attribute.name)
        if level is not None:
            found.setdefault(level, []).append(event.name)
    return {level: found[level] for level in LEVELS if level in found}


def _everywhere(registry: Registry, events: list[str]) -> str:
    records = [event.name for event in registry.events.values() if event.carrier == "record"]
    if set(events) >= set(records):
        return ", ".join(["every record", *(name for name in events if name not in records)])
    return ", ".join(events)


def _event_fields(registry: Registry, event: EventType) -> dict[str, Any]:
    fields = emit_json.document(registry)
    crosswalk = emit_crosswalk.crosswalk(registry)["events"][event.name]
    return {
        "event": event.name,
        **fields["events"][event.name],
        "levels": registry.of_event(event),
        "conditions": fields["conditions"],
        "crosswalk": crosswalk,
    }


def _attribute_fields(registry: Registry, attribute: Attribute) -> dict[str, Any]:
    fields = emit_json.document(registry)["attributes"][attribute.name]
    enumeration = registry.enumerations.get(attribute.type)
    return {
        "attribute": attribute.name,
        **fields,
        "levels": _levels(registry, attribute),
        "values": dict(enumeration.values) if enumeration else None,
    }


# -- check and diff ----------------------------------------------------------------------------------------------
def check(options: argparse.Namespace) -> int:
    """Run ``auditspan schema check``."""
    root = source_tree()
    # In a source tree the file that people edit counts, not the one that is derived from it.
    new = load(options.registry or (SOURCE if root else None))
    versions = released()
    against = options.against or (list(versions)[-1] if versions else None)
    outdated = derived.outdated(derived.files(new), root) if root and options.registry is None else []
    changes: list[Change] = []
    not_allowed: list[Change] = []
    if against is not None:
        old = _named(against)
        changes = compare(old, new, between=_between(old, new))
        not_allowed = refused(changes, old, new)
    if options.json:
        common.print_json(
            {
                "version": new.version,
                "against": against,
                "changes": [_fields(change) for change in changes],
                "refused": [_fields(change) for change in not_allowed],
                "not_up_to_date": outdated,
            }
        )
    else:
        console = common.console()
        if against is None:
            console.print(f"registry {new.version}: no registry was released yet, so nothing can break")
        else:
            console.print(f"registry {new.version} against {escape(against)}: {_count(changes)}")
            _show_changes(console, changes, not_allowed)
        for path in outdated:
            console.print(f"[bold red]✗[/] not up to date: {escape(path)}")
        if outdated:
            console.print(f"  run `{derived.COMMAND}`")
        if not outdated and not not_allowed:
            console.print("[bold green]all is well[/]")
    return _BREAKING if not_allowed or outdated else 0


def diff(options: argparse.Namespace) -> int:
    """Run ``auditspan schema diff``."""
    old, new = _named(options.old), _named(options.new)
    changes = compare(old, new, between=_between(old, new))
    breaking = [change for change in changes if change.breaking]
    if options.json:
        common.print_json({"old": old.version, "new": new.version, "changes": [_fields(change) for change in changes]})
    else:
        console = common.console()
        console.print(f"{old.version} to {new.version}: {_count(changes)}")
        _show_changes(console, changes, breaking)
    return _BREAKING if breaking else 0


def _named(name: str) -> Registry:
    if _VERSION.fullmatch(name):
        versions = released()
        if name not in versions:
            known = ", ".join(versions) or "none yet"
            raise RegistryError(f"No registry {name} was released.", f"Released: {known}. Or give a file.")
        return load(versions[name])
    return load(Path(name))


def _between(old: Registry, new: Registry) -> list[str]:
    low, high = (tuple(map(int, registry.version.split("."))) for registry in (old, new))
    return [version for version in released() if low < tuple(map(int, version.split("."))) <= high]


def _fields(change: Change) -> dict[str, Any]:
    return {"rule": change.rule, "subject": change.subject, "message": change.message, "breaking": change.breaking}


def _count(changes: list[Change]) -> str:
    if not changes:
        return "no difference"
    breaking = sum(change.breaking for change in changes)
    return f"{len(changes)} {'change' if len(changes) == 1 else 'changes'}, {breaking or 'none'} of them breaking"


def _show_changes(console: Console, changes: list[Change], refused: list[Change]) -> None:
    for change in changes:
        mark = "[bold red]✗[/]" if change in refused else "[yellow]![/]" if change.breaking else "[green]+[/]"
        console.print(f"{mark} {escape(change.message)}  [dim]{change.rule}[/]")
        if change in refused:
            console.print(f"    why      {escape(RULES[change.rule].why)}", style="dim")
            console.print(f"    instead  {escape(RULES[change.rule].instead)}", style="dim")
    if any(change.breaking and change not in refused for change in changes):
        console.print("[dim]! is breaking, and allowed because the major version is raised[/]")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            column, overflow="fold", no_wrap=column in ("event type", "attribute", "level", "since", "value")
        )
    return table
