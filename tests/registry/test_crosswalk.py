# SPDX-License-Identifier: Apache-2.0
"""Every name of ECS and OCSF that the registry uses was found in their specifications (``specifications.json``)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditspan.registry import crosswalk_tables as tables
from auditspan.registry import emit_crosswalk
from auditspan.registry.load import ROOT
from auditspan.registry.model import Registry, RegistryError

FOUND = json.loads((Path(__file__).parent / "specifications.json").read_text())
ECS, OCSF = FOUND["ecs"], FOUND["ocsf"]


@pytest.fixture
def crosswalk(registry: Registry) -> dict[str, Any]:
    """The file for programs."""
    return dict(json.loads((ROOT / emit_crosswalk.DATA).read_text()))


def test_the_versions_are_those_that_were_looked_up() -> None:
    assert (ECS["version"], ECS["commit"]) == (tables.ECS_VERSION, tables.ECS_COMMIT)
    assert (OCSF["version"], OCSF["commit"]) == (tables.OCSF_VERSION, tables.OCSF_COMMIT)


def test_every_ecs_field_exists(registry: Registry) -> None:
    for name, a in registry.attributes.items():
        assert a.ecs == "-" or a.ecs in ECS["fields"], f"{name}: ECS has no {a.ecs}"


def test_every_ocsf_attribute_exists_in_a_class_that_is_used(registry: Registry) -> None:
    for name, a in registry.attributes.items():
        assert a.ocsf == "-" or a.ocsf in OCSF["attributes"], f"{name}: OCSF has no {a.ocsf}"


def test_profiles_are_named(registry: Registry) -> None:
    for path, found in OCSF["attributes"].items():
        if path == "api.operation":
            continue  # API Activity has it without a profile
        assert tables.OCSF_PROFILES.get(path.partition(".")[0]) == found["profile"], path


def test_a_number_is_not_sent_to_a_text_nor_the_other_way_round(registry: Registry) -> None:
    for name, a in registry.attributes.items():
        if a.ecs != "-":
            kind = ECS["fields"][a.ecs]
            assert (kind in ("long", "float")) is (a.type == "int"), f"{name} is {a.type}, {a.ecs} is {kind}"


def _event_types(registry: Registry, crosswalk: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    assert set(crosswalk["events"]) == set(registry.events)
    yield from crosswalk["events"].items()


def test_ecs_categories_and_types_exist_and_go_together(registry: Registry, crosswalk: dict[str, Any]) -> None:
    for name, event in _event_types(registry, crosswalk):
        ecs = event["ecs"]
        assert ecs["event.kind"] in ECS["kinds"]
        for action, types in ecs["event.type"].items():
            assert action in registry.events[name].actions
            assert set(types) <= set(ECS["types"]), name
            for category in ecs["event.category"]:
                assert set(types) <= set(ECS["categories"][category]), f"{name}: {types} is no type of {category}"


def test_ocsf_classes_and_activities_exist(registry: Registry, crosswalk: dict[str, Any]) -> None:
    for name, event in _event_types(registry, crosswalk):
        ocsf = event["ocsf"]
        if ocsf is None:
            continue
        found = OCSF["classes"][str(ocsf["class_uid"])]
        assert found["name"] == ocsf["class_name"], name
        assert set(ocsf["activities"]) == set(registry.events[name].actions)
        for action, activity in ocsf["activities"].items():
            number = activity["activity_id"]
            assert number in found["activities"].values(), name
            assert activity["type_uid"] == ocsf["class_uid"] * 100 + number
            said = activity["activity_name"]
            assert said == action if number == 99 else found["activities"][said] == number, name


def test_values_of_ocsf_exist_and_cover_ours(registry: Registry) -> None:
    for name, fields in tables.VALUES.items():
        ours = registry.enumerations[registry.attributes[name].type].values
        for field, values in fields.items():
            assert set(values) == set(ours), f"{name}: {field}"
            path, _, side = field.partition(" ")
            known = OCSF["values"][path] if side == "(OCSF)" else ECS["outcomes"]
            assert set(values.values()) <= set(known), f"{name}: {field}"


def test_what_has_no_place_anywhere_has_a_reason(registry: Registry) -> None:
    named = [name for reason in tables.REASONS for name in reason.attributes]
    assert set(named) <= set(registry.attributes)
    nowhere = {name for name, a in registry.attributes.items() if (a.ecs, a.ocsf) == ("-", "-")}
    assert nowhere <= set(named), "say why in REASONS (crosswalk_tables.py)"


def test_notes_are_about_attributes(registry: Registry) -> None:
    assert set(tables.NOTES) <= set(registry.attributes)


@pytest.mark.parametrize(
    ("ocsf", "said"),
    [
        ("Datastore Activity: Read", "cannot be read"),
        ("Datastore Activity (6005): Read, Write", "cannot be read"),
        ("Datastore Activity (6005): Reed", "'Reed' of class 6005"),
    ],
)
def test_a_class_that_cannot_be_read_is_refused(document: dict[str, Any], ocsf: str, said: str) -> None:
    document["events"]["data.read"]["ocsf"] = ocsf
    with pytest.raises(RegistryError, match=said) as raised:
        emit_crosswalk.files(Registry.parse(document))
    assert "data.read" in str(raised.value)


def test_a_new_event_type_needs_a_category(document: dict[str, Any]) -> None:
    document["events"]["data.copy"] = document["events"]["data.read"]
    with pytest.raises(RegistryError, match=r"data\.copy has no ECS category"):
        emit_crosswalk.files(Registry.parse(document))
