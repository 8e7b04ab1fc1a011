# SPDX-License-Identifier: Apache-2.0
"""`auditspan backend setup` and `check`, as commands, on a real secured Elasticsearch.

Without security they are run on the newest and the oldest version by test_no_false_alarm.py.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from auditspan.backend_setup import plan
from auditspan.backend_setup.artefacts import Wanted, load, retentions
from auditspan.backend_setup.server import Server
from tests.backend.secured import ARTEFACTS, AUDIT, EVENTS, LOG, SUPERUSER, Secured

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

CUSTOM = "/_component_template/auditspan@custom"
OURS = "auditspan-traces"


@pytest.fixture
def place(secured: Secured) -> Secured:
    """The secured server. Another version of it: see there."""
    return secured


@pytest.fixture
def restore(place: Secured) -> Iterator[None]:
    """Have the templates as setup makes them, whatever a test has done to them."""
    yield
    for name in ("auditspan@custom", "auditspan@retention", "auditspan@retention-log"):
        place.do("PUT", f"/_component_template/{name}", {"template": {}, "_meta": {"product": "auditspan"}})
    place.ask(SUPERUSER, "DELETE", "/_index_template/foreign")
    names = [item.name for item in load(ARTEFACTS, Wanted())]
    code, found = place.setup(*(word for name in names for word in ("--replace", name)), user=SUPERUSER)
    assert code == 0, found


def steps(found: Any) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in found["steps"]}


def template(place: Secured, name: str) -> dict[str, Any]:
    found: dict[str, Any] = place.do("GET", f"/_component_template/{name}")["component_templates"][0]
    return dict(found["component_template"])


def change(place: Secured, name: str, **settings: Any) -> None:
    """Change a component template by hand."""
    body = template(place, name)
    body = {key: body[key] for key in ("template", "version", "_meta") if key in body}
    for path, value in settings.items():
        inner = body
        *parents, last = path.split("__")
        for key in parents:
            inner = inner.setdefault(key, {})
        inner[last] = value
    place.do("PUT", f"/_component_template/{name}", body)


# -- setup ------------------------------------------------------------------------------------------------------------


def test_a_second_setup_changes_nothing(place: Secured) -> None:
    before = place.do("GET", "/_component_template/auditspan*"), place.do("GET", "/_index_template/auditspan*")
    code, found = place.setup()
    assert (code, found["state"]) == (0, "done")
    assert {step["state"] for step in found["steps"]} == {"unchanged"}, found["steps"]
    assert (
        place.do("GET", "/_component_template/auditspan*"),
        place.do("GET", "/_index_template/auditspan*"),
    ) == before
    code, found = place.setup("--dry-run")
    assert (code, found["state"], found["outdated_streams"]) == (0, "planned", [])


@pytest.mark.usefixtures("restore")
def test_what_is_missing_or_loosened_is_shown_and_put_back(place: Secured) -> None:
    place.do("DELETE", "/_index_template/auditspan-events")  # the one that no data stream uses yet
    change(place, "auditspan@settings", template__settings__index__mapping__source__mode="synthetic")
    code, found = place.setup("--dry-run")
    assert code == 3
    assert steps(found)["auditspan-events"]["state"] == "create"
    mode = {"path": "template.settings.index.mapping.source.mode", "old": "synthetic", "new": "stored"}
    assert steps(found)["auditspan@settings"]["changes"] == [mode]
    assert (
        template(place, "auditspan@settings")["template"]["settings"]["index"]["mapping"]["source"]["mode"] != "stored"
    )
    assert place.check()[1]["template:auditspan@settings"]["result"] == "FAILED"
    code, found = place.setup()
    assert (code, steps(found)["auditspan@settings"]["state"]) == (0, "update")
    assert (
        template(place, "auditspan@settings")["template"]["settings"]["index"]["mapping"]["source"]["mode"] == "stored"
    )
    assert place.setup("--dry-run")[0] == 0


@pytest.mark.usefixtures("restore")
@pytest.mark.parametrize(
    ("name", "by_hand", "why"),
    [
        ("auditspan@mappings", {"template__mappings__dynamic": "strict"}, "stricter"),
        ("auditspan@audit-mappings", {"version": 999_000_000}, "newer"),
        ("auditspan@settings", {"_meta__product": "another"}, "not auditspan's"),
        ("auditspan@settings", {"template__settings__index__number_of_replicas": "2"}, "somebody added"),
    ],
)
def test_nothing_is_made_weaker(place: Secured, name: str, by_hand: dict[str, Any], why: str) -> None:
    change(place, name, **by_hand)
    place.do("DELETE", "/_index_template/auditspan-events")
    before = template(place, name)
    code, found = place.setup()
    assert (code, found["state"]) == (1, "refused")
    assert steps(found)[name]["state"] == "refused"
    assert why in steps(found)[name]["why"] and f"--replace '{name}'" in steps(found)[name]["advice"]
    assert template(place, name) == before
    assert place.ask(SUPERUSER, "GET", "/_index_template/auditspan-events").status_code == 404, "nothing at all is done"
    code, found = place.setup("--replace", name)
    assert (code, steps(found)[name]["state"], steps(found)["auditspan-events"]["state"]) == (0, "update", "create")
    assert place.setup("--dry-run")[0] == 0


@pytest.mark.usefixtures("restore")
def test_retention_is_by_one_policy_and_never_shortened_unasked(place: Secured) -> None:
    code, found = place.setup("--retention", "365")
    assert code == 0, found
    kept = {
        name: template(place, name)["template"]["lifecycle"]["data_retention"]
        for name in ("auditspan@retention", "auditspan@retention-log")
    }
    assert kept == {"auditspan@retention": "396d", "auditspan@retention-log": "365d"}
    simulated = place.do("POST", f"/_index_template/_simulate_index/{AUDIT}")["template"]
    assert simulated["lifecycle"]["data_retention"] == "396d"
    code, found = place.setup("--retention", "30")
    assert code == 1
    assert "396d" in steps(found)["auditspan@retention"]["why"]
    assert place.setup()[0] == 0  # not asked for, left alone
    assert template(place, "auditspan@retention")["template"]["lifecycle"]["data_retention"] == "396d"
    assert place.setup("--retention", "730")[0] == 0
    assert template(place, "auditspan@retention-log")["template"]["lifecycle"]["data_retention"] == "730d"
    # The minimal distribution has no ILM: the policy is refused there, and that is said.
    code, found = place.setup("--retention", "730", "--ilm", "--replace", "auditspan@retention")
    assert code == 2 and "lifecycle policy" in found


def test_records_outlive_their_checkpoints_by_the_time_that_an_index_may_stay_open() -> None:
    for days in (1, 7, 14, 15, 90, 91, 365, 3650):
        for ilm in (False, True):
            records, checkpoints = retentions(days, ilm)
            longest_open = 30 if ilm else 1 if days <= 14 else 7 if days <= 90 else 30
            assert checkpoints >= days
            assert records >= checkpoints + longest_open
    for form in ("data-stream-lifecycle", "ilm"):
        for suffix in ("", "-log"):
            body = json.loads((ARTEFACTS / "retention" / f"{form}{suffix}.json").read_text())["template"]
            assert ("lifecycle" in body) == (form == "data-stream-lifecycle"), "never both"
            assert (body.get("settings", {}).get("index", {}).get("lifecycle") is not None) == (form == "ilm")


def test_both_forms_of_retention_have_the_same_names_so_that_there_is_never_both() -> None:
    names = [{item.name for item in load(ARTEFACTS, Wanted(retention=30, ilm=ilm))} for ilm in (False, True)]
    assert names[1] - names[0] == {"auditspan"} | {"auditspan-log"} - names[0]
    assert names[0] <= names[1]


BUILT_IN = {
    "index_patterns": ["traces-*.otel-*"], "priority": 120, "data_stream": {}, "version": 15,
    "template": {
        "settings": {"index": {"mode": "logsdb", "mapping": {"ignore_malformed": True}}},
        "mappings": {
            "dynamic": False,
            "properties": {
                "@timestamp": {"type": "date"},
                "attributes": {"type": "passthrough", "dynamic": True, "priority": 10},
            },
        },
    },
    "_meta": {"managed": True, "description": "shape of traces-otel@template"},
}  # fmt: skip
FOREIGN = {
    "traces-otel@template": BUILT_IN,
    "traces": {"index_patterns": ["traces-*-*"], "priority": 100, "data_stream": {}},
    "traces-apm@template": {"index_patterns": ["traces-apm-*"], "priority": 210, "data_stream": {}},
    "logs-otel@template": {"index_patterns": ["logs-*.otel-*"], "priority": 120, "data_stream": {}},
    "logs": {"index_patterns": ["logs-*-*"], "priority": 100, "data_stream": {}},
}


@pytest.mark.usefixtures("restore")
def test_foreign_templates_are_not_harmed_and_ours_is_in_effect(place: Secured) -> None:
    try:
        for name, body in FOREIGN.items():
            place.do("PUT", f"/_index_template/{name}", body)
        before = {name: place.do("GET", f"/_index_template/{name}") for name in FOREIGN}
        code, found = place.setup()
        assert code == 0, found
        assert {name: place.do("GET", f"/_index_template/{name}") for name in FOREIGN} == before
        found = place.do("POST", f"/_index_template/_simulate_index/{AUDIT}")
        assert {"traces-otel@template", "traces"} <= {item["name"] for item in found["overlapping"]}
        assert found["template"]["mappings"]["properties"]["@timestamp"]["type"] == "date_nanos"
        assert "mode" not in found["template"]["settings"]["index"]
        for stream in (AUDIT, EVENTS, LOG):
            assert place.check()[1][f"in_effect:{stream}"]["result"] == "OK"
        # Ordinary traces and APM's are theirs as before.
        for stream in ("traces-generic.otel-default", "traces-apm-default"):
            theirs = place.do("POST", f"/_index_template/_simulate_index/{stream}")
            assert "audit.statement" not in json.dumps(theirs["template"])
    finally:
        for name in FOREIGN:
            place.ask(SUPERUSER, "DELETE", f"/_index_template/{name}")


@pytest.mark.usefixtures("restore")
def test_a_foreign_template_that_would_win_is_refused_until_ours_is_higher(place: Secured) -> None:
    # Ours must be away: two templates of one priority cannot match the same.
    foreign = {"index_patterns": ["traces-*"], "priority": 500, "data_stream": {}}
    place.do("PUT", "/_index_template/foreign", foreign)
    code, found = place.setup()
    assert code == 1
    assert "foreign" in steps(found)[OURS]["why"] and "--priority 501" in steps(found)[OURS]["advice"]
    assert place.check()[1][f"in_effect:{AUDIT}"]["result"] == "FAILED"
    code, found = place.setup("--priority", "501")
    assert (code, steps(found)[OURS]["state"]) == (0, "update")
    assert place.check()[1][f"in_effect:{AUDIT}"]["result"] == "OK"
    assert place.do("GET", "/_index_template/foreign")["index_templates"][0]["index_template"]["priority"] == 500
    code, found = place.setup()  # the higher priority stays
    assert (code, {step["state"] for step in found["steps"]}) == (0, {"unchanged"})


@pytest.mark.usefixtures("restore")
def test_a_stream_that_is_not_as_its_template_says_is_rolled_over_only_if_asked(place: Secured) -> None:
    own = {f"site{uuid.uuid4().hex[:6]}": {"type": "keyword"}}
    place.do("PUT", CUSTOM, {"template": {"mappings": {"properties": own}}})
    before = place.backing()
    code, found = place.setup()
    assert (code, AUDIT in found["outdated_streams"], place.backing()) == (0, True, before)
    assert place.check()[1][f"live:{AUDIT}"]["result"] == "FAILED"
    assert place.setup("--rollover", "--dry-run")[0] == 3
    code, found = place.setup("--rollover")
    assert (code, found["outdated_streams"]) == (0, [])
    assert AUDIT in found["rolled_over"] and len(place.backing()) == len(before) + 1
    assert place.check()[1][f"live:{AUDIT}"]["result"] == "OK"
    assert place.setup("--rollover")[1]["rolled_over"] == []


def test_who_may_not_is_told_which_role_is_needed(place: Secured) -> None:
    code, said = place.setup("--retention", "365", user="auditspan_auditor")
    assert code == 2 and "auditspan_administrator" in said and "Traceback" not in said
    code, said = place.setup(user="nobody")
    assert code == 2 and "Traceback" not in said


@pytest.mark.parametrize(
    "arguments",
    [("--ilm",), ("--retention", "0"), ("--hide", "audit.target.id"), ("--reader", "a:b"), ("--reader", "::")],
)
def test_wrong_usage_is_said(place: Secured, arguments: tuple[str, ...]) -> None:
    code, said = place.setup(*arguments)
    assert code == 2 and "What to do" in said and "Traceback" not in said


def test_roles_are_planned_and_what_this_distribution_cannot_do_is_said(place: Secured) -> None:
    code, found = place.setup(
        "--roles", "--reader", "ops:acme:production", "--hide", "audit.target.id", "--dry-run", user=SUPERUSER
    )
    assert code == 3, found
    assert {"auditspan_writer", "auditspan_auditor", "auditspan_reader_ops"} <= steps(found).keys()
    (reader,) = (
        item for item in load(ARTEFACTS, Wanted(readers=(("ops", "acme", "test"),), hide=("audit.target.id",)))
        if item.name == "auditspan_reader_ops"
    )  # fmt: skip
    (grant,) = reader.body["indices"]
    assert "attributes.audit.target.id" not in grant["field_security"]["grant"]
    assert "attributes.audit.target.type" in grant["field_security"]["grant"]
    assert '"test"' in grant["query"]
    code, said = place.setup("--roles", user=SUPERUSER)
    assert code == 2 and "role auditspan_" in said  # native roles cannot be made here
    code, said = place.setup("--roles")
    assert code == 2 and "manage_security" in said  # and the administrator may not make any


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_is_content_with_an_honest_server(place: Secured) -> None:
    code, found = place.check()
    there = [stream for stream in (AUDIT, EVENTS, LOG) if f"source:{stream}" in found]
    assert {AUDIT, LOG} <= set(there)
    unknown = {name for name, item in found.items() if item["result"] == "UNKNOWN"}
    # Nothing was sent there yet. Looking must not make the stream (it did, and called that too many privileges).
    absent = {f"{name}:{stream}" for name in ("live", "writer") for stream in (EVENTS,) if stream not in there}
    assert unknown == {f"failure_store:{stream}" for stream in there} | absent
    assert {item["result"] for item in found.values()} == {"OK", "UNKNOWN"}, found
    assert code == 3
    assert "no _data_stream API" in found[f"failure_store:{AUDIT}"]["found"]


def test_a_collector_with_too_many_privileges_is_found_and_changes_nothing(place: Secured) -> None:
    code, found = place.check(writer="careless")
    assert code == 1
    failed = found[f"writer:{AUDIT}"]["found"]
    assert all(word in failed for word in ("search", "get", "update", "overwrite")) and "delete" not in failed
    assert "index" in found["writer:privileges"]["found"]
    code, found = place.check(writer=SUPERUSER)
    assert "delete" in found[f"writer:{AUDIT}"]["found"] and "manage_security" in found["writer:privileges"]["found"]
    for stream in (AUDIT, LOG):  # every attempt was such that it changes nothing
        assert found[f"unchanged:{stream}"]["result"] == "OK"
    assert place.check()[1][f"unchanged:{AUDIT}"]["result"] == "OK"
    code, found = place.check(writer="auditspan_reader")
    assert found["writer:writes"]["result"] == "FAILED"
    code, found = place.check(writer="nobody")
    assert (code, found["writer"]["result"]) == (1, "FAILED")


def test_check_with_an_account_that_may_little_says_unknown_and_not_ok(place: Secured) -> None:
    code, found = place.check(user="auditspan_auditor")
    assert found["template:auditspan@settings"]["result"] == "OK"
    assert found[f"in_effect:{AUDIT}"]["result"] == found[f"live:{AUDIT}"]["result"] == "UNKNOWN"
    assert "auditspan_administrator" in found[f"live:{AUDIT}"]["advice"]
    assert found[f"unchanged:{AUDIT}"]["result"] == "OK"
    assert (code, {item["result"] for item in found.values()}) == (3, {"OK", "UNKNOWN"})
    code, found = place.check(user="auditspan_administrator")
    assert found[f"unchanged:{AUDIT}"]["result"] == "UNKNOWN"
    assert found["template:auditspan@settings"]["result"] == "OK"


def test_a_changed_and_a_deleted_document_are_found(place: Secured) -> None:
    """In a stream of the same shape: that of the session is to stay as it is."""
    stream = f"traces-audit.otel-check{uuid.uuid4().hex[:6]}"
    lines: list[Any] = []
    for number in range(30):
        document = {"@timestamp": "1705314600000", "attributes": {"audit.statement": f"{{{number}}}"}}
        lines += [{"create": {"_index": stream, "_id": f"n{number}"}}, document]
    place.do("POST", "/_bulk?refresh=true", lines)
    (index,) = place.backing(stream)
    assert _unchanged(place, stream)["found"] == "30 documents, each written once, none deleted"
    place.do("POST", f"/{index}/_update/n7?refresh=true", {"doc": {"name": "y"}})
    found = _unchanged(place, stream)
    assert found["result"] == "FAILED" and found["found"].startswith("1 of 30") and "n7" in found["found"]
    place.do("DELETE", f"/{index}/_doc/n9?refresh=true")
    found = _unchanged(place, stream)
    assert found["found"].startswith("1 of 29") and "writes have left no document" in found["found"]
    place.do("POST", f"/{index}/_forcemerge?max_num_segments=1")  # no way to make it unseen
    assert _unchanged(place, stream)["result"] == "FAILED"
    place.do("POST", f"/{stream}/_rollover")
    place.do("DELETE", f"/{index}")


def _unchanged(place: Secured, stream: str) -> dict[str, str]:
    from auditspan.backend_setup import numbers

    with pytest.MonkeyPatch.context() as patch:
        if place.security.authority:
            patch.setenv("AUDITSPAN_ELASTICSEARCH_CA_FILE", str(place.security.authority))
        with Server(place.url("auditspan_auditor")) as server:
            (found,) = numbers.unchanged(server, stream)
    return {"result": found.result.value, "found": found.found}


def test_a_probe_goes_the_whole_way(secured: Secured) -> None:
    code, found = secured.check("--probe", secured.collector)
    assert (found["probe"]["result"], code) == ("OK", 3), found["probe"]
    code, found = secured.check("--probe", "http://127.0.0.1:9", "--wait", "2")
    assert (found["probe"]["result"], code) == ("FAILED", 1)


def test_an_elasticsearch_that_is_not_there_is_said(secured: Secured) -> None:
    for verb in ("setup", "check"):
        code, said = secured.command("backend", verb, "--elasticsearch", "http://127.0.0.1:9")
        assert code == 2 and "does not answer" in said and "Traceback" not in said


def test_every_template_of_ours_is_planned() -> None:
    assert {item.name for item in load(ARTEFACTS, Wanted())} == {
        file.stem for folder in ("component-templates", "index-templates") for file in (ARTEFACTS / folder).glob("*")
    }
    assert plan.State.REFUSED.value == "refused"
