# SPDX-License-Identifier: Apache-2.0
"""``auditspan schema`` as people and scripts use it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan.cli import schema as verb
from auditspan.registry import derived
from auditspan.registry import load as loading
from auditspan.registry.model import Registry

Document = dict[str, Any]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def old(tmp_path: Path, document: Document) -> Path:
    """The present registry in a file."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def breaking(tmp_path: Path, document: Document) -> Path:
    """A registry in which an attribute has another type."""
    document = copy.deepcopy(document)
    document["version"] = "0.9.0"
    document["attributes"]["audit.data.count"]["type"] = "string"
    path = tmp_path / "breaking.json"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def harmless(tmp_path: Path, document: Document) -> Path:
    """A registry in which a brief is better."""
    document = copy.deepcopy(document)
    document["version"] = "0.9.0"
    document["attributes"]["audit.data.count"]["brief"] = "Better."
    path = tmp_path / "harmless.json"
    path.write_text(json.dumps(document))
    return path


def _json(capsys: Output) -> Any:
    return json.loads(capsys.readouterr().out)


# -- show --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", [["schema"], ["schema", "show"]])
def test_the_overview_names_every_event_type(registry: Registry, capsys: Output, command: list[str]) -> None:
    assert main(command) == 0
    said = capsys.readouterr().out
    assert f"registry {registry.version}" in said
    assert f"{len(registry.attributes)} attributes" in said
    assert all(name in said for name in registry.events)


def test_an_event_type_is_shown_with_its_attributes(registry: Registry, capsys: Output) -> None:
    assert main(["schema", "show", "policy.evaluation"]) == 0
    said = capsys.readouterr().out
    assert registry.events["policy.evaluation"].message in said
    assert all(name in said for name in registry.of_event(registry.events["policy.evaluation"]))
    assert "where audit.action is OVERRIDE or RESCIND or APPROVE or REJECT" in said


def test_an_attribute_is_shown_with_levels_privacy_and_crosswalk(capsys: Output) -> None:
    assert main(["schema", "show", "audit.actor.id"]) == 0
    said = capsys.readouterr().out
    for fact in ("personal", "auditspan.schema.ACTOR_ID", "user.id", "actor.user.uid", "required: every record"):
        assert fact in said
    assert main(["schema", "show", "audit.data.count"]) == 0
    said = capsys.readouterr().out
    assert "recommended: data.export, data.import" in said
    assert "{item}" in said
    assert main(["schema", "show", "audit.statement"]) == 0
    assert "not signed" in capsys.readouterr().out
    assert main(["schema", "show", "audit.outcome"]) == 0
    assert "How it ended is not known." in capsys.readouterr().out


def test_show_as_json(registry: Registry, capsys: Output) -> None:
    assert main(["schema", "show", "--json"]) == 0
    assert Registry.parse(_json(capsys)) == registry
    assert main(["schema", "show", "data.read", "--json"]) == 0
    said = _json(capsys)
    assert said["levels"] == registry.of_event(registry.events["data.read"])
    assert said["crosswalk"]["ocsf"]["class_uid"] == 6005
    assert main(["schema", "show", "audit.decision", "--json"]) == 0
    said = _json(capsys)
    assert said["levels"] == {"required": ["policy.evaluation"]}
    assert set(said["values"]) == set(registry.enumerations["decision"].values)


def test_json_may_stand_before_the_command(capsys: Output) -> None:
    assert main(["schema", "--json", "show", "data.read"]) == 0
    assert _json(capsys)["event"] == "data.read"


@pytest.mark.parametrize(
    ("name", "near"), [("data.reed", "data.read"), ("audit.actr.id", "audit.actor.id"), ("rows_read", "rows_read")]
)
def test_an_unknown_name_gets_the_nearest_ones(capsys: Output, name: str, near: str) -> None:
    assert main(["schema", "show", name]) == 2
    said = capsys.readouterr().err
    assert repr(name) in said
    assert "Did you mean" in said
    assert near in said


def test_a_name_like_nothing_gets_the_way_to_the_list(capsys: Output) -> None:
    assert main(["schema", "show", "xyzzy"]) == 2
    assert "auditspan schema show" in capsys.readouterr().err


def test_another_registry_can_be_shown(breaking: Path, capsys: Output) -> None:
    assert main(["schema", "show", "audit.data.count", "--registry", str(breaking), "--json"]) == 0
    assert _json(capsys)["type"] == "string"


# -- check -------------------------------------------------------------------------------------------------------
def test_the_registry_of_this_version_passes(capsys: Output) -> None:
    assert main(["schema", "check"]) == 0, capsys.readouterr().out
    assert "all is well" in capsys.readouterr().out


def test_without_a_released_registry_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(loading, "RELEASED", tmp_path / "none")
    assert main(["schema", "check"]) == 0
    assert "no registry was released yet" in capsys.readouterr().out
    assert main(["schema", "check", "--json"]) == 0
    assert _json(capsys)["against"] is None


def test_a_breaking_change_is_refused_with_its_reason(old: Path, breaking: Path, capsys: Output) -> None:
    command = ["schema", "check", "--against", str(old), "--registry", str(breaking)]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "the type of audit.data.count was int and is string" in said
    for part in ("attribute-type", "why", "instead"):
        assert part in said
    assert main([*command, "--json"]) == 1
    assert [change["rule"] for change in _json(capsys)["refused"]] == ["attribute-type"]


def test_a_raised_major_version_allows_it(old: Path, breaking: Path, capsys: Output) -> None:
    changed = json.loads(breaking.read_text()) | {"version": "1.0.0"}
    breaking.write_text(json.dumps(changed))
    assert main(["schema", "check", "--against", str(old), "--registry", str(breaking)]) == 0
    assert "allowed because the major version is raised" in capsys.readouterr().out


def test_what_breaks_nobody_passes(old: Path, harmless: Path, capsys: Output) -> None:
    assert main(["schema", "check", "--against", str(old), "--registry", str(harmless)]) == 0
    assert "1 change, none of them breaking" in capsys.readouterr().out


def test_derived_files_that_are_not_up_to_date_are_named(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(derived, "outdated", lambda wanted, root: ["docs/reference/records.md"])
    assert main(["schema", "check"]) == 1
    said = capsys.readouterr().out
    assert "not up to date: docs/reference/records.md" in said
    assert derived.COMMAND in said


def test_outside_of_a_source_tree_the_packaged_registry_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(verb, "source_tree", lambda: None)
    monkeypatch.setattr(derived, "outdated", lambda wanted, root: pytest.fail("there is nothing to compare"))
    assert main(["schema", "check"]) == 0


def test_it_compares_with_the_newest_released_one(
    tmp_path: Path, old: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    folder = tmp_path / "released"
    folder.mkdir()
    for version in ("0.1.0", "0.0.9"):
        (folder / f"{version}.yaml").write_text(json.dumps(json.loads(old.read_text()) | {"version": version}))
    monkeypatch.setattr(loading, "RELEASED", folder)
    assert main(["schema", "check", "--json"]) == 0
    assert _json(capsys)["against"] == "0.1.0"
    assert main(["schema", "check", "--against", "0.0.9", "--json"]) == 0
    assert _json(capsys)["against"] == "0.0.9"


# -- diff --------------------------------------------------------------------------------------------------------
def test_diff(old: Path, breaking: Path, harmless: Path, capsys: Output) -> None:
    assert main(["schema", "diff", str(old), str(old)]) == 0
    assert "no difference" in capsys.readouterr().out
    assert main(["schema", "diff", str(old), str(harmless)]) == 0
    assert "audit.data.count has another brief" in capsys.readouterr().out
    assert main(["schema", "diff", str(old), str(breaking)]) == 1
    assert "1 change, 1 of them breaking" in capsys.readouterr().out
    assert main(["schema", "diff", str(old), str(breaking), "--json"]) == 1
    (change,) = _json(capsys)["changes"]
    assert change["rule"] == "attribute-type"
    assert change["breaking"] is True


def test_diff_says_breaking_whatever_the_version(old: Path, breaking: Path) -> None:
    breaking.write_text(json.dumps(json.loads(breaking.read_text()) | {"version": "1.0.0"}))
    assert main(["schema", "diff", str(old), str(breaking)]) == 1


# -- usage -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["schema", "diff", "9.9.9", "9.9.9"], "No registry 9.9.9 was released"),
        (["schema", "check", "--against", "9.9.9"], "No registry 9.9.9 was released"),
        (["schema", "diff", "nowhere.yaml", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["schema", "check", "--registry", "nowhere.json"], "nowhere.json cannot be read"),
        (["schema", "show", "--registry", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_a_way_out(capsys: Output, command: list[str], said: str) -> None:
    assert main(command) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "What to do" in printed


@pytest.mark.parametrize("command", [["show"], ["check"], ["diff"], []])
def test_every_command_explains_itself(capsys: Output, command: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["schema", *command, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    for part in ("example:", "exit codes:", "--json"):
        assert part in said
