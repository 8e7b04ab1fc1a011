# SPDX-License-Identifier: Apache-2.0
"""Every rule finds its change in the real registry, names it, and an addition breaks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from auditspan.registry.compare import Change, compare, refused
from auditspan.registry.compare_rules import RULES
from auditspan.registry.model import Registry

Document = dict[str, Any]
Edit = Callable[[Document], Any]


def _rename(table: str, old: str, new: str) -> Edit:
    """Rename an attribute or event type, everywhere."""

    def edit(document: Document) -> None:
        document[table][new] = document[table].pop(old) | {"since": "0.9.0"}
        places = [document["every_record"], document["every_log_entry"], *document["events"].values()]
        for place in places if table == "attributes" else []:
            for level in ("required", "recommended", "optional"):
                place[level] = [new if name == old else name for name in place[level]]

    return edit


def _set(*path: Any) -> Edit:
    """Set what stands at a path: the last two items are key and value."""

    def edit(document: Document) -> None:
        place: Any = document
        *steps, key, value = path
        for step in steps:
            place = place[step]
        place[key] = value

    return edit


def _move(place: tuple[str, ...], name: str, old: str, new: str) -> Edit:
    """Move an attribute from one level to another; `""` is none."""

    def edit(document: Document) -> None:
        levels: Any = document
        for step in place:
            levels = levels[step]
        if old:
            levels[old].remove(name)
        if new:
            levels[new].append(name)

    return edit


def _without_removed_attribute(document: Document) -> None:
    document["events"]["data.read"]["optional"].remove("automation.connector.bookmark.before")
    del document["attributes"]["automation.connector.bookmark.before"]


NEW_ATTRIBUTE = {
    "type": "string", "privacy": "internal", "since": "0.9.0", "source": "own", "brief": "New.", "example": "x",
    "ecs": "-", "ocsf": "-",
}  # fmt: skip
NEW_EVENT = {
    "brief": "New.", "actions": ["READ"], "since": "0.9.0", "message": "new", "required": ["audit.rationale"],
    "ocsf": "-",
}  # fmt: skip
CONDITION = {"when": {"audit.outcome": ["failure"]}, "require": ["error.type"], "brief": "Say what failed."}

BREAKING: list[tuple[str, str, Edit]] = [
    ("attribute-removed", "automation.connector.bookmark.before", _without_removed_attribute),
    ("attribute-removed", "audit.module", _rename("attributes", "audit.module", "audit.area")),
    ("attribute-type", "audit.data.count", _set("attributes", "audit.data.count", "type", "string")),
    ("attribute-type", "audit.outcome", _set("attributes", "audit.outcome", "type", "string")),
    ("attribute-format", "audit.record.id", _set("attributes", "audit.record.id", "format", None)),
    ("attribute-format", "audit.record.id", _set("attributes", "audit.record.id", "format", "hash")),
    ("attribute-format", "audit.module", _set("attributes", "audit.module", "format", "uuid")),
    ("attribute-unit", "audit.data.count", _set("attributes", "audit.data.count", "unit", "By")),
    ("attribute-carrier", "audit.log.origin", _set("attributes", "audit.log.origin", "carrier", "record")),
    ("attribute-constant", "audit.module", _set("attributes", "audit.module", "constant", "AREA")),
    ("privacy-loosened", "audit.actor.id", _set("attributes", "audit.actor.id", "privacy", "internal")),
    ("privacy-loosened", "audit.module", _set("attributes", "audit.module", "privacy", "public")),
    ("privacy-made-personal", "audit.rationale", _set("attributes", "audit.rationale", "privacy", "personal")),
    ("privacy-made-secret", "session.id", _set("attributes", "session.id", "privacy", "secret")),
    ("since-changed", "audit.module", _set("attributes", "audit.module", "since", "0.1.0")),
    ("since-changed", "data.export", _set("events", "data.export", "since", "0.1.0")),
    ("since-of-new", "audit.new", _set("attributes", "audit.new", NEW_ATTRIBUTE | {"since": "0.2.0"})),
    ("since-of-new", "data.new", _set("events", "data.new", NEW_EVENT | {"since": "0.2.0"})),
    ("enumeration-removed", "decision", lambda d: (
        d["enumerations"].pop("decision"), d["attributes"]["audit.decision"].update(type="string")
    )),
    ("enumeration-value-removed", "trigger_type", lambda d: d["enumerations"]["trigger_type"]["values"].pop("api")),
    ("event-type-removed", "data.import", lambda d: d["events"].pop("data.import")),
    ("event-type-removed", "data.import", _rename("events", "data.import", "data.ingest")),
    ("event-carrier", "log.gap", _set("events", "log.gap", "carrier", "record")),
    ("default-action", "permission.change", _set("events", "permission.change", "actions", ["REVOKE", "GRANT"])),
    ("attribute-removed-from-event", "automation.connector.bookmark.after",
     _move(("events", "data.read"), "automation.connector.bookmark.after", "optional", "")),
    ("attribute-removed-from-event", "session.id", _move(("every_record",), "session.id", "optional", "")),
    ("attribute-made-required", "audit.data.count", _move(("events", "data.read"), "audit.data.count", "optional", "required")),
    ("attribute-made-required", "automation.connector.name",
     _move(("events", "data.read"), "automation.connector.name", "recommended", "required")),
    ("attribute-made-required", "audit.policy.name", _move(("events", "data.read"), "audit.policy.name", "", "required")),
    ("required-of-every-record", "audit.module", _move(("every_record",), "audit.module", "optional", "required")),
    ("requirement-lowered", "audit.decision", _move(("events", "policy.evaluation"), "audit.decision", "required", "recommended")),
    ("requirement-lowered", "audit.actor.evidence", _move(("every_record",), "audit.actor.evidence", "required", "optional")),
    ("condition-added", "audit.outcome", lambda d: d["conditions"].append(CONDITION)),
    ("condition-widened", "audit.action", lambda d: d["conditions"][0]["when"]["audit.action"].append("GRANT")),
    ("condition-widened", "audit.action", lambda d: d["conditions"][0]["require"].append("audit.policy.name")),
    ("condition-narrowed", "audit.action", lambda d: d["conditions"][0]["when"]["audit.action"].remove("REJECT")),
    ("condition-narrowed", "audit.action", lambda d: d["conditions"].clear()),
    ("version-not-raised", "registry", _set("version", "0.2.0")),
    ("version-not-raised", "registry", _set("version", "0.1.9")),
]  # fmt: skip

HARMLESS: list[tuple[str, str, Edit]] = [
    ("attribute-added", "audit.new", _set("attributes", "audit.new", NEW_ATTRIBUTE)),
    ("event-type-added", "data.new", _set("events", "data.new", NEW_EVENT)),
    ("enumeration-added", "mood", _set("enumerations", "mood", {"brief": "M.", "source": "own", "values": {"x": "X."}})),
    ("enumeration-value-added", "trigger_type", _set("enumerations", "trigger_type", "values", "queue", "A queue.")),
    ("attribute-added-to-event", "audit.policy.name", _move(("events", "data.read"), "audit.policy.name", "", "optional")),
    ("attribute-added-to-event", "audit.policy.name", _move(("every_record",), "audit.policy.name", "", "recommended")),
    ("recommendation-changed", "automation.connector.name",
     _move(("events", "data.read"), "automation.connector.name", "recommended", "optional")),
    ("privacy-tightened", "audit.decision", _set("attributes", "audit.decision", "privacy", "internal")),
    ("text-changed", "audit.module", _set("attributes", "audit.module", "brief", "Better.")),
    ("text-changed", "audit.module", _set("attributes", "audit.module", "example", "sales")),
    ("text-changed", "data.read", _set("events", "data.read", "message", "read {audit.target.id}")),
    ("text-changed", "data.read", _set("events", "data.read", "actions", ["READ", "LIST"])),
    ("text-changed", "trigger_type", _set("enumerations", "trigger_type", "values", "api", "Better.")),
    ("text-changed", "trigger_type", _set("enumerations", "trigger_type", "brief", "Better.")),
    ("text-changed", "conditions", _set("conditions", 0, "brief", "Better.")),
    ("text-changed", "registry", lambda d: d["events"]["data.read"]["optional"].reverse()),
    ("crosswalk-changed", "audit.module", _set("attributes", "audit.module", "ecs", "-")),
    ("crosswalk-changed", "data.read", _set("events", "data.read", "ocsf", "-")),
]  # fmt: skip


def _compared(
    registry: Registry, document: Document, edit: Edit, version: str = "0.9.0"
) -> tuple[list[Change], Registry]:
    document["version"] = version
    edit(document)
    new = Registry.parse(document)
    return compare(registry, new), new


@pytest.mark.parametrize(("rule", "subject", "edit"), BREAKING, ids=[f"{r}-{s}" for r, s, _ in BREAKING])
def test_a_breaking_change_is_found_and_named(
    registry: Registry, document: Document, rule: str, subject: str, edit: Edit
) -> None:
    if rule == "version-not-raised":
        document["attributes"]["audit.module"]["brief"] = "Better."
    changes, new = _compared(registry, document, edit)
    (change,) = [c for c in changes if c.rule == rule and c.subject == subject]
    assert change.breaking
    assert (subject if subject != "registry" else new.version) in change.message
    assert change in refused(changes, registry, new)


@pytest.mark.parametrize(("rule", "subject", "edit"), BREAKING, ids=[f"{r}-{s}" for r, s, _ in BREAKING])
def test_a_minimal_edit_breaks_one_rule_only(
    registry: Registry, document: Document, rule: str, subject: str, edit: Edit
) -> None:
    changes, _ = _compared(registry, document, edit)
    also = {"enumeration-removed": {"attribute-type"}, "version-not-raised": set()}.get(rule, set())
    if rule == "attribute-carrier":
        return  # it is carried by no event type
    assert {c.rule for c in changes if c.breaking} - also == ({rule} if subject != "registry" or changes else set())


@pytest.mark.parametrize(("rule", "subject", "edit"), BREAKING, ids=[f"{r}-{s}" for r, s, _ in BREAKING])
def test_a_raised_major_version_allows_what_cannot_be_mended(
    registry: Registry, document: Document, rule: str, subject: str, edit: Edit
) -> None:
    if rule == "version-not-raised":
        pytest.skip("the version is raised here")
    changes, new = _compared(registry, document, edit, version="1.0.0")
    of_rule = [c for c in refused(changes, registry, new) if c.rule == rule]
    assert bool(of_rule) is RULES[rule].always


@pytest.mark.parametrize(("rule", "subject", "edit"), HARMLESS, ids=[f"{r}-{s}" for r, s, _ in HARMLESS])
def test_what_breaks_nobody_passes(registry: Registry, document: Document, rule: str, subject: str, edit: Edit) -> None:
    changes, new = _compared(registry, document, edit)
    assert rule in {c.rule for c in changes if c.subject == subject}
    assert refused(changes, registry, new) == []


def test_every_rule_is_tested() -> None:
    assert {rule for rule, _, _ in BREAKING} == {name for name, rule in RULES.items() if rule.breaking}
    assert {rule for rule, _, _ in HARMLESS} == {name for name, rule in RULES.items() if not rule.breaking}


def test_every_breaking_rule_says_what_to_do_instead() -> None:
    for name, rule in RULES.items():
        assert rule.why.endswith("."), name
        assert bool(rule.instead) is rule.breaking, name


def test_no_difference_is_none(registry: Registry, document: Document) -> None:
    assert compare(registry, Registry.parse(document)) == []


@pytest.mark.parametrize(
    ("edit", "hint"),
    [
        (_rename("attributes", "audit.module", "audit.area"), "renamed to audit.area?"),
        (_rename("events", "data.import", "data.ingest"), "renamed to data.ingest?"),
        (
            lambda d: d["enumerations"]["trigger_type"]["values"].update(
                http=d["enumerations"]["trigger_type"]["values"].pop("api")
            ),
            "renamed to http?",
        ),
    ],
)
def test_a_new_name_for_an_old_thing_is_suspected(
    registry: Registry, document: Document, edit: Edit, hint: str
) -> None:
    changes, _ = _compared(registry, document, edit)
    assert any(hint in change.message for change in changes if change.breaking)


def test_one_attribute_in_many_event_types_is_one_change(registry: Registry, document: Document) -> None:
    edit = _move(("every_record",), "audit.module", "optional", "required")
    changes, _ = _compared(registry, document, edit)
    (change,) = changes
    assert change.message == "audit.module was optional and is required of every record"


def test_what_was_new_in_between_may_say_so(registry: Registry, document: Document) -> None:
    edit = _set("attributes", "audit.new", NEW_ATTRIBUTE)
    _, new = _compared(registry, document, edit, version="0.10.0")
    assert {c.rule for c in compare(registry, new)} == {"attribute-added", "since-of-new"}
    assert {c.rule for c in compare(registry, new, between=["0.9.0"])} == {"attribute-added"}
