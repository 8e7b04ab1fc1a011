# SPDX-License-Identifier: Apache-2.0
"""``auditspan backend kibana`` against a server that gives Kibana's documented answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan.kibana import objects, rules
from auditspan.kibana.objects import Names
from auditspan.kibana.parameters import Parameters
from tests.kibana.fake import FakeKibana, serving

OBJECTS = len(objects.all_objects())
RULES = len(rules.rules())


@pytest.fixture(params=["8.19.4", "9.5.0-SNAPSHOT"])
def kibana(request: pytest.FixtureRequest) -> FakeKibana:
    return FakeKibana(request.param)


@pytest.fixture
def url(kibana: FakeKibana) -> Iterator[str]:
    with serving(kibana) as found:
        yield found


def install(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["backend", "kibana", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["backend", "kibana", *arguments]) == 2
    said = capsys.readouterr().err
    assert "What to do:" in said
    assert "Traceback" not in said
    return said


def test_everything_is_there_after_one_command(
    kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = install(capsys, "--kibana", url)
    assert (done["created"], done["updated"], done["unchanged"]) == (OBJECTS + RULES, 0, 0)
    assert {name for _, name in (*kibana.views, *kibana.objects)} == {item["id"] for item in objects.all_objects()}
    assert {rule["name"] for rule in kibana.rules.values()} == {rule.title for rule in rules.rules()}
    assert done["left_out"] == {
        "unusual-actor": "approved_actors", "outside-scope": "approved_scopes",
        "unapproved-version": "approved_versions",
    }  # fmt: skip


def test_a_second_time_nothing_is_written(kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    install(capsys, "--kibana", url)
    kibana.writes.clear()
    done = install(capsys, "--kibana", url)
    assert done["unchanged"] == OBJECTS + RULES
    assert kibana.writes == []


def test_a_dry_run_writes_nothing_and_says_what_it_would(
    kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = install(capsys, "--kibana", url, "--dry-run")
    assert done["created"] == OBJECTS + RULES
    assert kibana.writes == []
    install(capsys, "--kibana", url)
    kibana.writes.clear()
    kibana.views["default", "auditspan-log"]["title"] = "something else"
    kibana.objects["default", "auditspan-users"]["attributes"]["description"] = "an older one [auditspan 0123456789ab]"
    (rule,) = (rule for rule in kibana.rules.values() if "gap" in rule["tags"])
    rule["schedule"] = {"interval": "1d"}
    done = install(capsys, "--kibana", url, "--dry-run")
    assert {change["title"]: change["differences"] for change in done["changes"] if change["what"] == "update"} == {
        "Audit: log entries and checkpoints": ["title"],
        "Audit: user behaviour": ["made of 0123456789ab"],
        "Audit: something recorded was lost": ["schedule.interval"],
    }
    assert kibana.writes == []
    assert install(capsys, "--kibana", url)["updated"] == 3
    assert len(kibana.writes) == 3


def test_what_people_have_changed_stays_unless_forced(
    kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(capsys, "--kibana", url)
    mine = kibana.objects["default", "auditspan-users"]["attributes"]
    mine["panelsJSON"] = "[]"
    kibana.views["default", "auditspan-log"]["runtimeFieldMap"] = {"hour": {"type": "long"}}
    for rule in kibana.rules.values():
        rule["enabled"] = False
        rule["actions"] = []
    install(capsys, "--kibana", url)
    assert kibana.objects["default", "auditspan-users"]["attributes"]["panelsJSON"] == "[]"
    install(capsys, "--kibana", url, "--force")
    assert kibana.objects["default", "auditspan-users"]["attributes"]["panelsJSON"] != "[]"
    assert kibana.views["default", "auditspan-log"]["runtimeFieldMap"] == {"hour": {"type": "long"}}
    assert not any(rule["enabled"] for rule in kibana.rules.values())


def test_two_spaces_have_all_of_it_each(kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    install(capsys, "--kibana", url)
    assert install(capsys, "--kibana", url, "--space", "ops")["created"] == OBJECTS + RULES
    assert install(capsys, "--kibana", url, "--space", "ops")["unchanged"] == OBJECTS + RULES
    assert ("ops", "auditspan-activity-ops") in kibana.objects
    page = kibana.objects["ops", "auditspan-activity-ops"]
    assert {reference["id"] for reference in page["references"]} == {
        "auditspan-records-ops",
        "auditspan-search-activity-ops",
    }
    assert "is no space" in refused(capsys, "--kibana", url, "--space", "../default")


def test_parameters_make_rules(
    kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("approved_actors: {payroll: [alice]}\nactions: [{id: c1, group: query matched, params: {}}]\n")
    done = install(capsys, "--kibana", url, "--parameters", str(file))
    assert "unusual-actor" not in done["left_out"]
    assert all(
        rule["actions"] == [{"id": "c1", "group": "query matched", "params": {}}] for rule in kibana.rules.values()
    )
    for rule in kibana.rules.values():  # Kibana says more of an action than it was told
        rule["actions"][0] |= {"connector_type_id": ".index", "uuid": "1"}
    assert install(capsys, "--kibana", url, "--parameters", str(file))["updated"] == 0
    file.write_text("quiet_from: 22:00\n")  # YAML takes that for a number
    assert "in quotes" in refused(capsys, "--kibana", url, "--parameters", str(file))
    file.write_text("quiet_hours: all\n")
    assert "Unknown parameters: quiet_hours" in refused(capsys, "--kibana", url, "--parameters", str(file))


def test_credentials(kibana: FakeKibana, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("KIBANA_API_KEY", "a2V5")
    install(capsys, "--kibana", url, "--dry-run")
    assert kibana.headers[-1]["authorization"] == "ApiKey a2V5"
    install(capsys, "--kibana", url.replace("://", "://elastic:p%40ss@"), "--dry-run")
    assert kibana.headers[-1]["authorization"] == "Basic ZWxhc3RpYzpwQHNz"


@pytest.mark.parametrize(
    ("request_", "answer", "said"),
    [
        (("GET", "/api/status"), (401, {"message": "Unauthorized"}), "does not know who asks"),
        (("GET", "/api/status"), (302, ""), "sends us elsewhere (HTTP 302): /login"),
        (("GET", "/api/status"), (200, "<html>"), "is no Kibana"),
        (("GET", "/api/status"), (200, {"version": {"number": "8.18.9"}}), "Kibana 8.19 or newer is needed"),
        (("GET", "/api/data_views"), (403, {"message": "missing privileges"}), "missing privileges"),
        (("POST", "/api/data_views"), (500, {"message": "An internal server error"}), "HTTP 500"),
        (("POST", "/api/saved_objects/_export"), (400, {"message": "no space left"}), "no space left"),
        (
            ("POST", "/api/saved_objects/_import"),
            (200, {"success": False, "successCount": 9,
                   "errors": [{"type": "dashboard", "id": "auditspan-users", "error": {"type": "unsupported_type"}}]}),
            "auditspan-users: unsupported_type",
        ),
        (("POST", "/api/saved_objects/_import"), (413, "<html>too large"), "HTTP 413"),
        (
            ("POST", "/api/alerting"),
            (400, {"message": "Unable to create rule: encryption key missing"}),
            "xpack.encryptedSavedObjects.encryptionKey",
        ),
    ],
)  # fmt: skip
def test_what_kibana_refuses_is_told(
    capsys: pytest.CaptureFixture[str], request_: tuple[str, str], answer: tuple[int, Any], said: str
) -> None:
    kibana = FakeKibana()
    kibana.refuse[request_] = answer
    with serving(kibana) as url:
        assert said in refused(capsys, "--kibana", url)
        kibana.refuse.clear()
        assert main(["backend", "kibana", "--kibana", url]) == 0  # and nothing stands in the way of a second try


def test_ids_in_use_elsewhere_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    kibana = FakeKibana()
    kibana.objects["another", "auditspan-activity"] = {"id": "auditspan-activity", "attributes": {}}
    with serving(kibana) as url:
        assert "in use in another space" in refused(capsys, "--kibana", url)


def test_no_kibana(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No Kibana is named" in refused(capsys)
    assert "is no URL" in refused(capsys, "--kibana", "kibana.example:5601")
    with serving(FakeKibana()) as url:
        gone = url
    assert "does not answer" in refused(capsys, "--kibana", gone)


def test_files_instead(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    done = install(capsys, "--export", str(tmp_path / "out"))
    assert sorted(done["files"]) == sorted(
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    )
    lines = (tmp_path / "out" / "saved-objects.ndjson").read_text().splitlines()
    assert [json.loads(line) for line in lines] == objects.all_objects()
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(capsys, "--export", str(tmp_path / "file"))


def test_people_see_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(FakeKibana()) as url:
        assert main(["backend", "kibana", "--kibana", url, "--without-rules"]) == 0
    said = capsys.readouterr().out
    assert "Kibana 8.19.4" in said
    assert "+ dashboard Audit: activity" in said
    assert "rule" not in said
    assert f"{OBJECTS} created, 0 updated, 0 unchanged" in said


def test_a_rule_keeps_its_id() -> None:
    assert Names().rule("gap") == "b9a38a13-d645-41ee-be97-30ada1db85da"
    assert len({name for name, _ in rules.bodies(Names(), Parameters()).values()}) == RULES
