# SPDX-License-Identifier: Apache-2.0
"""What is derived from the registry is up to date, agrees with real records, and a change that breaks is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from auditspan import schema
from auditspan.cli import main
from auditspan.registry.load import RELEASED, SOURCE, load
from auditspan_seal.formats import statement as statements
from auditspan_seal.log.directory import open_directory
from auditspan_seal.spans import readable
from auditspan_seal.verify.proof import entries_of

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
CORPUS = ROOT / "tests" / "corpus" / schema.SCHEMA_VERSION


def corpus() -> Iterator[dict[str, Any]]:
    """Read the attributes of every record of the frozen log of this version."""
    for statement, private in entries_of(open_directory(CORPUS)):
        yield readable(statements.decode(statement)["attributes"], private)


def test_nothing_breaks_what_was_released(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("edit", "rule", "name"),
    [
        (lambda d: d["attributes"]["audit.data.count"].update(type="string"), "attribute-type", "audit.data.count"),
        (lambda d: d["enumerations"]["outcome"]["values"].pop("unknown"), "enumeration-value-removed", "outcome"),
        (lambda d: d["every_record"]["required"].append("automation.run.attempt")
         or d["every_record"]["recommended"].remove("automation.run.attempt"), "required-of-every-record",
         "automation.run.attempt"),
    ],
)  # fmt: skip
def test_a_breaking_edit_is_red_and_says_what_and_why(
    edit: Any, rule: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    document["version"] = "0.9.0"
    edit(document)
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert main(["schema", "check", "--registry", str(tmp_path / "registry.yaml")]) == 1
    output = capsys.readouterr().out
    assert rule in output
    assert name in output


def test_an_additive_edit_is_green(tmp_path: Path) -> None:
    document = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    document["attributes"]["audit.shift"] = document["attributes"]["audit.module"] | {"since": document["version"]}
    document["every_record"]["optional"].append("audit.shift")
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    assert main(["schema", "check", "--registry", str(tmp_path / "registry.yaml")]) == 0


# -- real records ----------------------------------------------------------------------------------------------
def test_the_corpus_has_every_event_type_and_each_record_is_conformant() -> None:
    seen = set()
    for attributes in corpus():
        seen.add(attributes[schema.EVENT_TYPE])
        problems = schema.violations(attributes, erasable=True)
        assert problems == [], attributes
    assert seen == {event.value for event in schema.EventType}


def test_the_json_schema_takes_every_real_record_and_refuses_wrong_ones() -> None:
    document = json.loads((REFERENCE / "record.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(document)
    recorded = jsonschema.Draft202012Validator(document)
    stored = jsonschema.Draft202012Validator({**document, "$ref": "#/$defs/stored"})
    good = 0
    for attributes in corpus():
        plain = json.loads(json.dumps(attributes))
        assert stored.is_valid(plain), next(stored.iter_errors(plain)).message
        if attributes[schema.EVENT_TYPE].startswith("log."):
            continue
        erased = schema.missing(attributes) != []
        assert recorded.is_valid(plain) is not erased
        if not erased:
            good += 1
            assert not recorded.is_valid({k: v for k, v in plain.items() if k != schema.TARGET_ID})
            assert not recorded.is_valid({**plain, schema.OUTCOME: "maybe"})
            assert not recorded.is_valid({**plain, "audit.nonsense": "x"})
    assert good > 20


def test_the_page_shows_a_real_record_of_every_event_type() -> None:
    page = (REFERENCE / "records.md").read_text(encoding="utf-8")
    for event in schema.EventType:
        record = json.loads((REFERENCE / "records" / f"{event.value}.json").read_text(encoding="utf-8"))
        assert schema.violations(record, erasable=True) == []
        assert record[schema.MESSAGE] in page.replace("\\u2014", "—"), event.value
    for name in load().attributes:
        assert f"`{name}`" in page


# -- the command -----------------------------------------------------------------------------------------------
def test_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "show", "data.read"]) == 0
    assert "Data were read" in capsys.readouterr().out
    assert main(["schema", "show", "audit.actor.id", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["schema", "show"]) == 0
    assert main(["schema", "show", "data.raed"]) == 2
    assert "data.read" in capsys.readouterr().err, "the nearest name is offered"


def test_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "diff", str(RELEASED / "0.2.0.yaml"), str(SOURCE)]) == 0
    (tmp_path / "broken.yaml").write_text("version: [", encoding="utf-8")
    capsys.readouterr()
    assert main(["schema", "diff", str(RELEASED / "0.2.0.yaml"), str(tmp_path / "broken.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err
