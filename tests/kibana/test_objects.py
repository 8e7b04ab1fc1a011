# SPDX-License-Identifier: Apache-2.0
"""The saved objects: complete, of fields that exist, importable by the oldest Kibana in use, and up to date on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditspan.kibana import __main__ as generator
from auditspan.kibana import fields, install, kql, lens, objects, panels, parameters, rules
from auditspan.kibana.dashboards import DASHBOARDS, DATA_VIEWS, SEARCHES
from auditspan.kibana.errors import DescriptionError, ParametersError
from auditspan.kibana.objects import Names
from auditspan.kibana.panels import BARS, DONUT, NUMBER, TABLE, Metric, Panel
from auditspan.kibana.parameters import Parameters

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "collector-config"
LINES = (CONFIG / "kibana" / "saved-objects.ndjson").read_text(encoding="utf-8").splitlines()
OBJECTS: list[dict[str, Any]] = [json.loads(line) for line in LINES]
MAPPED = fields.mapped(CONFIG / "elasticsearch")
NEWEST = {"index-pattern": "8.0.0", "search": "10.5.0", "dashboard": "10.2.0"}
"""The newest version of each type that Kibana 8.19 knows, or an older one that it is certain to know."""


def parsed(item: Any) -> Any:
    """Return a saved object with the JSON in its strings read."""
    if isinstance(item, dict):
        return {
            name: parsed(json.loads(value))
            if name.endswith(("JSON", "Map")) and isinstance(value, str)
            else parsed(value)
            for name, value in item.items()
        }
    return [parsed(one) for one in item] if isinstance(item, list) else item


def below(item: Any) -> Iterator[dict[str, Any]]:
    if isinstance(item, dict):
        yield item
    for one in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from below(one)


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_files_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert generator.main(["--check"]) == 0, capsys.readouterr().err


def test_the_pictures_show_every_panel() -> None:
    for page in DASHBOARDS:
        picture = (ROOT / "docs" / "kibana" / f"{page.id.removeprefix('auditspan-')}.svg").read_text(encoding="utf-8")
        missing = [panel.title for panel in page.panels if f">{panel.title}</text>" not in picture]
        assert missing == [], "run `python -m tests.backend.kibana_pictures`"


def test_the_default_parameters_are_those_of_the_file() -> None:
    assert parameters.read(CONFIG / "kibana" / "parameters.yaml") == Parameters()


def test_every_reference_leads_somewhere_and_is_used() -> None:
    known = {(item["type"], item["id"]) for item in OBJECTS}
    assert len(known) == len(OBJECTS)
    for item in OBJECTS:
        names = [reference["name"] for reference in item["references"]]
        assert len(names) == len(set(names))
        for reference in item["references"]:
            assert (reference["type"], reference["id"]) in known, reference
        used = set()
        for panel in parsed(item["attributes"]).get("panelsJSON", []):
            inner = panel["embeddableConfig"].get("attributes", {"references": []})
            used |= {f"{panel['panelIndex']}:{one['name']}" for one in inner["references"]}
            if panel["type"] == "search":
                used.add(f"{panel['panelIndex']}:{panel['panelRefName']}")
            else:
                (layer,) = inner["state"]["datasourceStates"]["formBased"]["layers"]
                assert [one["name"] for one in inner["references"]] == [f"indexpattern-datasource-layer-{layer}"]
        if item["type"] == "search":
            used.add(parsed(item["attributes"])["kibanaSavedObjectMeta"]["searchSourceJSON"]["indexRefName"])
        assert used == set(names)


def test_no_version_is_newer_than_the_oldest_kibana_knows() -> None:
    for item in OBJECTS:
        assert version(item["typeMigrationVersion"]) <= version(NEWEST[item["type"]])
        assert item["coreMigrationVersion"] == "8.8.0"
        assert item["managed"] is False


def test_columns_and_looks_fit_together() -> None:
    for item in OBJECTS:
        for panel in parsed(item["attributes"]).get("panelsJSON", []):
            if panel["type"] != "lens":
                continue
            attributes = panel["embeddableConfig"]["attributes"]
            layer = attributes["state"]["datasourceStates"]["formBased"]["layers"][lens.LAYER]
            assert list(layer["columns"]) == layer["columnOrder"]
            # Kibana groups by columns in their order, and measures last.
            grouping = [layer["columns"][name]["isBucketed"] for name in layer["columnOrder"]]
            assert grouping == sorted(grouping, reverse=True)
            shown = json.dumps(attributes["state"]["visualization"])
            for name, column in layer["columns"].items():
                assert f'"{name}"' in shown
                order = column.get("params", {}).get("orderBy", {})
                assert order.get("columnId", "m0") in layer["columns"]


def test_every_field_is_mapped() -> None:
    used = {block["sourceField"] for item in OBJECTS for block in below(parsed(item)) if "sourceField" in block}
    used -= {"___records___"}
    for page in DASHBOARDS:
        for panel in page.panels:
            used |= set(asked(panel.request()))
    for item in SEARCHES:
        used |= {*map(fields.path, item.columns), *asked(item.request())}
    every = Parameters(
        approved_actors={"a": ("b",)}, approved_scopes=(parameters.Scope("a", ("b",), ("c",)),),
        approved_versions={"a": ("b",)}, expected_logs=("a",),
    )  # fmt: skip
    for rule in rules.rules(every):
        used |= set(asked(rule.query)) | ({fields.path(rule.by)} if rule.by else set())
    assert len(used) > 40
    for name in used:
        if name.startswith("resource.attributes."):
            continue
        assert MAPPED[name].get("index", True), f"{name} is not indexed"
        assert MAPPED[name]["type"] in ("keyword", "long", "boolean", "date_nanos")


def test_kinds_of_values_are_those_of_the_mapping() -> None:
    kinds = {"keyword": "string", "long": "number", "boolean": "boolean", "date_nanos": "date"}
    for page in DASHBOARDS:
        for panel in page.panels:
            for name in panel.fields:
                assert kinds[MAPPED[fields.path(name)]["type"]] == fields.kind(name)


def asked(query: Any) -> Iterator[str]:
    """Return the fields that a search names."""
    for block in below(query):
        for word in ("match", "match_phrase", "terms", "term", "range"):
            if word in block:
                yield from (name for name in block[word] if name.startswith(("attributes.", "@")))
        for word in ("exists", "cardinality", "percentiles", "max", "sum", "terms", "date_histogram"):
            if isinstance(block.get(word), dict) and isinstance(block[word].get("field"), str):
                yield block[word]["field"]


def test_panels_lie_beside_each_other() -> None:
    for item in OBJECTS:
        taken: set[tuple[int, int]] = set()
        for panel in parsed(item["attributes"]).get("panelsJSON", []):
            place = panel["gridData"]
            assert place["i"] == panel["panelIndex"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert max(x for x, _ in cells) < 48
            assert not cells & taken
            taken |= cells


def test_ids_and_titles_are_there_once() -> None:
    for names in (
        [view.id for view in DATA_VIEWS] + [item.id for item in SEARCHES] + [page.id for page in DASHBOARDS],
        [item["attributes"].get("name", item["attributes"]["title"]) for item in OBJECTS],
        *([panel.title for panel in page.panels] for page in DASHBOARDS),
    ):
        assert len(names) == len(set(names))


def test_a_change_of_a_description_is_a_change_of_the_mark() -> None:
    item = objects.dashboard(DASHBOARDS[0], Names())
    other = objects.dashboard(objects.Dashboard(**vars(DASHBOARDS[0]) | {"searches": ()}), Names())
    assert objects.fingerprint(item) is not None
    assert objects.fingerprint(item) != objects.fingerprint(other)
    assert objects.fingerprint(item) == objects.fingerprint(objects.dashboard(DASHBOARDS[0], Names()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": ("audit.actor",)},
        {"by": ("audit.statement",)},
        {"where": "audit.outcom : failure"},
        {"where": "audit.outcome failure"},
        {"where": "audit.outcome : (a or"},
        {"where": "audit.event.type : workflow.*"},
        {"where": "audit.outcome : failure )"},
        {"show": "lnsGauge"},
        {"show": NUMBER},
        {"by": ()},
        {"show": BARS, "by": ("@timestamp", "audit.action", "audit.outcome")},
        {"show": DONUT, "metrics": (Metric(), Metric())},
    ],
)
def test_a_description_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"title": "t", "asks": "?", "show": TABLE, "by": ("audit.action",)}
    Panel(**good)
    with pytest.raises(DescriptionError):
        Panel(**(good | wrong))


def test_a_metric_that_means_nothing_is_refused() -> None:
    for wrong in ({"what": "mean"}, {"what": "count", "of": "duration"}, {"what": "sum"}):
        with pytest.raises(DescriptionError):
            Metric(**wrong)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", {"match_all": {}}),
        ("audit.outcome : failure", {"match": {"attributes.audit.outcome": "failure"}}),
        ('audit.message : "a \\"b\\" (c"', {"match_phrase": {"attributes.audit.message": 'a "b" (c'}}),
        ("audit.decision : *", {"exists": {"field": "attributes.audit.decision"}}),
        ("duration > 5", {"range": {"duration": {"gt": "5"}}}),
        (
            "not audit.action : (A or B) and duration <= 5 or kind : C",
            {
                "bool": {
                    "should": [
                        {
                            "bool": {
                                "filter": [
                                    {
                                        "bool": {
                                            "must_not": [
                                                {
                                                    "bool": {
                                                        "should": [
                                                            {"match": {"attributes.audit.action": "A"}},
                                                            {"match": {"attributes.audit.action": "B"}},
                                                        ],
                                                        "minimum_should_match": 1,
                                                    }
                                                }
                                            ]
                                        }
                                    },
                                    {"range": {"duration": {"lte": "5"}}},
                                ]
                            }
                        },
                        {"match": {"kind": "C"}},
                    ],
                    "minimum_should_match": 1,
                }
            },
        ),
    ],
)
def test_kql(text: str, query: dict[str, Any]) -> None:
    assert kql.to_query(text) == query


def test_kql_for_kibana_has_whole_paths_and_leaves_texts_alone() -> None:
    text = 'audit.outcome : "audit.action : ( x )" and (kind : a or not audit.decision : *)'
    assert kql.to_kibana(text) == (
        'attributes.audit.outcome : "audit.action : ( x )" and (kind : a or not attributes.audit.decision : *)'
    )
    for nasty in ('"', "\\", '\\"', "a or b", ")", "*", "ü\n"):
        assert kql.to_query(f"audit.log.origin : {kql.quoted(nasty)}") == {
            "match_phrase": {"attributes.audit.log.origin": nasty}
        }


def test_rules_are_as_the_alerting_api_takes_them() -> None:
    for name, (identifier, body) in rules.bodies(Names(), Parameters()).items():
        written = json.loads((CONFIG / "kibana" / "rules" / f"{name}.json").read_text())
        assert written == {"id": identifier, "body": body}
        assert set(body) == {"name", "rule_type_id", "consumer", "schedule", "params", "actions", "tags"}
        params = body["params"]
        assert set(json.loads(params["esQuery"])) == {"query"}
        assert params["groupBy"] == ("top" if "termField" in params else "all")
        assert params["timeWindowSize"] >= 1
        assert params["timeWindowUnit"] in "mh"
        assert params["thresholdComparator"] in (">", "<")
        # A look at less than what passed since the last look would overlook things.
        minutes = params["timeWindowSize"] * (60 if params["timeWindowUnit"] == "h" else 1)
        assert int(body["schedule"]["interval"].rstrip("m")) * 5 <= minutes


@pytest.mark.parametrize(
    "wrong",
    [
        [], {"quiet_from": "25:00"}, {"quiet_from": 1320}, {"silent_minutes": 0}, {"silent_minutes": True},
        {"approved_actors": {"a": []}}, {"approved_actors": {"a": "b"}}, {"approved_scopes": [{"workflow": "a"}]},
        {"approved_scopes": [{"workflow": "a", "target_types": ["b"], "x": 1}]}, {"approved_scopes": {"a": "b"}},
        {"actions": [{"group": "x"}]}, {"quiet_weekend": "yes"}, {"nothing": 1}, {"expected_logs": [1]},
    ],
)  # fmt: skip
def test_parameters_that_mean_nothing_are_refused(wrong: Any) -> None:
    with pytest.raises(ParametersError):
        parameters.parse(wrong)


def test_parameters_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text('{"expected_logs": ["a/b"]}')
    assert parameters.read(file).expected_logs == ("a/b",)
    made = install.files(Names(), parameters.read(file))
    assert "rules/silent-a_b.json" in made
    for text in ("{", "\x00"):
        file.write_text(text)
        with pytest.raises(ParametersError):
            parameters.read(file)
    with pytest.raises(ParametersError):
        parameters.read(tmp_path / "absent.yaml")
    empty = tmp_path / "empty.yaml"
    empty.write_text("# nothing\n")
    assert parameters.read(empty) == Parameters()


def test_every_kind_of_metric_has_an_operation_in_lens() -> None:
    assert panels._OPERATIONS.keys() == lens._OPERATIONS.keys()
