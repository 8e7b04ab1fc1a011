# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema says of a record what the product says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from auditspan import schema
from auditspan.registry import emit_jsonschema
from auditspan.registry.load import ROOT, SOURCE, load
from auditspan.registry.model import Registry
from tests.registry.samples import record

EVENTS = list(load(SOURCE).events)
SCHEMA = json.loads((ROOT / emit_jsonschema.PATH).read_text())
RECORDED = jsonschema.Draft202012Validator(SCHEMA)
STORED = jsonschema.Draft202012Validator(SCHEMA | {"$ref": "#/$defs/stored"})
REAL = sorted((ROOT / "docs" / "reference" / "records").glob("*.json"))


def _agree(attributes: dict[str, Any], *, valid: bool) -> None:
    assert RECORDED.is_valid(attributes) is valid, [error.message for error in RECORDED.iter_errors(attributes)]
    assert (schema.violations(attributes) == []) is valid, schema.violations(attributes)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("only_required", [True, False])
def test_a_record_made_of_the_examples_is_valid(registry: Registry, name: str, only_required: bool) -> None:
    _agree(record(registry, registry.events[name], only_required=only_required), valid=True)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_real_records_are_valid(path: Path) -> None:
    attributes = json.loads(path.read_text())
    attributes = attributes.get("attributes", attributes)
    assert attributes["audit.event.type"] == path.stem
    _agree(attributes, valid=True)


def test_there_is_a_real_record_of_every_event_type() -> None:
    assert {path.stem for path in REAL} == set(EVENTS)


@pytest.mark.parametrize("name", EVENTS)
def test_nothing_that_is_required_may_be_missing(registry: Registry, name: str) -> None:
    event = registry.events[name]
    whole = record(registry, event)
    for attribute, level in registry.of_event(event).items():
        attributes = {key: value for key, value in whole.items() if key != attribute}
        if level == "required":
            _agree(attributes, valid=False)
        elif attribute not in whole or event.actions[0] not in ("APPROVE", "REJECT", "OVERRIDE", "RESCIND"):
            _agree(attributes, valid=True)


@pytest.mark.parametrize("name", EVENTS)
def test_only_personal_values_may_be_gone_from_a_stored_record(registry: Registry, name: str) -> None:
    event = registry.events[name]
    whole = record(registry, event)
    for attribute, level in registry.of_event(event).items():
        attributes = {key: value for key, value in whole.items() if key != attribute}
        erasable = level != "required" or registry.attributes[attribute].privacy == "personal"
        assert STORED.is_valid(attributes) is erasable, attribute
        assert (schema.violations(attributes, erasable=True) == []) is erasable, attribute
    public = {key: value for key, value in whole.items() if registry.attributes[key].privacy != "personal"}
    assert STORED.is_valid(public)


def test_a_stored_record_has_what_the_seal_adds(registry: Registry) -> None:
    whole = record(registry, registry.events["data.read"])
    added = {name: a.example for name, a in registry.attributes.items() if a.carrier == "document"}
    assert STORED.is_valid(whole | added)
    assert not RECORDED.is_valid(whole | added)
    assert not STORED.is_valid(whole | {"audit.log.index": "41"})


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("unknown", ["audit.nonsense", "automation.nonsense", "audit.policy.rul"])
def test_nothing_unknown_of_ours_is_in_a_record(registry: Registry, name: str, unknown: str) -> None:
    whole = record(registry, registry.events[name])
    _agree(whole | {unknown: "x"}, valid=False)
    assert not STORED.is_valid(whole | {unknown: "x"})


def test_what_belongs_to_another_event_type_is_unknown(registry: Registry) -> None:
    _agree(record(registry, registry.events["data.read"]) | {"audit.policy.name": "payout-limits"}, valid=False)


def test_attributes_of_others_may_be_there(registry: Registry) -> None:
    _agree(record(registry, registry.events["data.read"]) | {"thread.id": 7, "auditor.name": "x"}, valid=True)


WRONG: dict[str, list[Any]] = {
    "string": [7, True, None, "", ["x"]],
    "int": ["7", True, 1.5, None],
    "boolean": ["true", 1, None],
    "string[]": ["x", [1], None],
}


@pytest.mark.parametrize("name", list(load(SOURCE).attributes))
def test_every_example_fits_and_other_types_do_not(registry: Registry, name: str) -> None:
    attribute = registry.attributes[name]
    checked = jsonschema.Draft202012Validator(
        {"$ref": f"#/$defs/attributes/properties/{name}", "$defs": SCHEMA["$defs"]}
    )
    assert checked.is_valid(attribute.example)
    for value in WRONG.get(attribute.type, WRONG["string"]):
        assert not checked.is_valid(value), value
    if attribute.type not in WRONG:
        assert not checked.is_valid("no such value")
        assert all(checked.is_valid(value) for value in registry.enumerations[attribute.type].values)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("audit.record.id", "not-a-uuid", False),
        ("audit.record.id", "0B6F1F0E-6F0E-4B57-9D56-0F7F3F6D9C11", False),
        ("audit.action", "Read", False),
        ("audit.action", "MARK_AS_READ", True),
        ("audit.schema.version", "0.2", False),
        ("audit.state.before.hash", "sha256:44136fa355b3678a", False),
        ("audit.state.before.hash", "(withheld)", True),
        ("audit.state.before.hash", "hmac-sha256:9b1c0a51c3d94cf1a8e0c6d07a2f4b6e", True),
        ("audit.state.before.hash", "hmac-sha256:9b1c", False),
        ("audit.outcome", "Success", False),
        ("audit.risk.level", "extreme", False),
    ],
)
def test_formats_and_values(registry: Registry, name: str, value: str, valid: bool) -> None:
    _agree(record(registry, registry.events["data.update"]) | {name: value}, valid=valid)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("2026-11-24T03:00:00+00:00", True),
        ("2026-11-24T03:00:00.123456+00:00", True),
        ("2026-11-24", True),
        ("tomorrow", False),
        ("24.11.2026", False),
    ],
)
def test_times(registry: Registry, value: str, valid: bool) -> None:
    whole = record(registry, registry.events["workflow.execution.finished"])
    _agree(whole | {"automation.task.scheduled_time": value}, valid=valid)


@pytest.mark.parametrize("verb", ["APPROVE", "REJECT", "OVERRIDE", "RESCIND"])
def test_who_decides_says_why_whatever_the_event_type(registry: Registry, verb: str) -> None:
    whole = record(registry, registry.events["data.update"]) | {"audit.action": verb}
    _agree(whole, valid=True)
    for required in ("audit.rationale", "audit.decision.path"):
        _agree({name: value for name, value in whole.items() if name != required}, valid=False)


@pytest.mark.parametrize("value", [None, "no.such.type", 7])
def test_a_record_of_no_event_type_is_none(registry: Registry, value: Any) -> None:
    whole = record(registry, registry.events["data.read"]) | {"audit.event.type": value}
    _agree(whole, valid=False)
    del whole["audit.event.type"]
    _agree(whole, valid=False)
