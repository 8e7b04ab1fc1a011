# SPDX-License-Identifier: Apache-2.0
"""The Elasticsearch mapping: every attribute, nothing that can refuse a document, nothing weaker than it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from auditspan.registry import emit_mapping
from auditspan.registry.load import ROOT
from auditspan.registry.model import Registry

KEYWORD = {"type": "keyword", "ignore_above": 1024}
LONG = {"type": "long"}
STORED = {"type": "keyword", "index": False, "doc_values": False}

BEFORE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        [
            "audit.action", "audit.actor.evidence", "audit.actor.id", "audit.actor.type", "audit.event.type",
            "audit.log.document", "audit.log.origin", "audit.outcome", "audit.parent.record.id", "audit.rationale",
            "audit.record.id", "audit.schema.version", "audit.sequence.stream_id", "audit.state.after.hash",
            "audit.state.before.hash", "audit.target.id", "audit.target.type", "automation.parent.run.id",
            "automation.run.id", "automation.script.name", "automation.script.version",
            "automation.script.version.source", "automation.task.name", "automation.task.run.id",
            "automation.trigger.rule", "automation.trigger.type", "automation.workflow.name",
        ],
        KEYWORD,
    ),
    **dict.fromkeys(
        [
            "audit.checkpoint.first_index", "audit.checkpoint.tree_size", "audit.log.index", "audit.sequence.number",
            "automation.run.attempt",
        ],
        LONG,
    ),
    **dict.fromkeys(
        ["audit.checkpoint.frontier", "audit.checkpoint.leaf_hashes", "audit.checkpoint.note", "audit.statement"],
        STORED,
    ),
}  # fmt: skip
"""The mapping that was written by hand, of version 0.1.0."""


@pytest.fixture
def fields(registry: Registry) -> dict[str, dict[str, Any]]:
    """The mappings of the attributes, from the file that is installed."""
    template = json.loads((ROOT / emit_mapping.PATH).read_text())
    attributes = template["template"]["mappings"]["properties"]["attributes"]
    assert {key: attributes[key] for key in ("type", "dynamic", "priority")} == {
        "type": "passthrough", "dynamic": True, "priority": 30,  # above those of scope and resource: hostile.py
    }  # fmt: skip
    return dict(attributes["properties"])


def test_every_attribute_is_mapped(registry: Registry, fields: dict[str, dict[str, Any]]) -> None:
    assert set(fields) == set(registry.attributes)


def test_nothing_is_weaker_than_before(fields: dict[str, dict[str, Any]]) -> None:
    for name, before in BEFORE.items():
        assert {key: value for key, value in fields[name].items() if key != "fields"} == before, name


def test_what_is_signed_as_a_text_is_neither_cut_nor_indexed(
    registry: Registry, fields: dict[str, dict[str, Any]]
) -> None:
    stored = {name for name, a in registry.attributes.items() if a.brief.endswith("Stored, not indexed.")}
    assert stored | {"audit.statement"} == emit_mapping.STORED_ONLY
    for name in emit_mapping.STORED_ONLY:
        assert fields[name] == STORED, name


def test_types_are_those_of_the_registry(registry: Registry, fields: dict[str, dict[str, Any]]) -> None:
    for name, a in registry.attributes.items():
        wanted = {"int": "long", "boolean": "boolean"}.get(a.type, "keyword")
        assert fields[name]["type"] == wanted, name


def test_no_text_can_refuse_a_document(fields: dict[str, dict[str, Any]]) -> None:
    for name, field in fields.items():
        if field["type"] == "keyword" and field.get("index", True):
            assert field["ignore_above"] <= 8191, f"{name}: a term of more than 32766 bytes is refused"
        for more in field.get("fields", {}).values():
            assert more["type"] in ("text", "date"), name
            assert more["type"] != "date" or more["ignore_malformed"] is True, name


def test_prose_can_be_searched_by_words_and_times_by_time(fields: dict[str, dict[str, Any]]) -> None:
    assert {name for name, field in fields.items() if "text" in field.get("fields", {})} == {
        "audit.message", "audit.rationale", "audit.remediation", "automation.run.reason",
    }  # fmt: skip
    assert "date" in fields["automation.task.scheduled_time"]["fields"]


def test_names_of_sub_fields_are_no_attributes(registry: Registry, fields: dict[str, dict[str, Any]]) -> None:
    for name, field in fields.items():
        for sub in field.get("fields", {}):
            assert f"{name}.{sub}" not in registry.attributes
