# SPDX-License-Identifier: Apache-2.0
"""Every panel, search and alert rule for Kibana is run on a recorded incident, and finds what its ledger says.

What Kibana does beside the query (drawing, scheduling) is not run here: no Kibana newer than 5.1 is to be had from the
package registries. The minimal distribution of Elasticsearch runs all the queries: they use neither scripts nor ES|QL.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from auditspan.devstack.system import configuration_folder
from auditspan.kibana.dashboards import DASHBOARDS, DATA_VIEWS, SEARCHES
from auditspan.kibana.panels import NUMBER, Panel
from auditspan.kibana.parameters import Parameters, Scope
from auditspan.kibana.rules import Rule, rules
from tests.backend import kibana_expected as expected
from tests.backend.honest import Api
from tests.backend.incident_data import Fact, Incident

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

PATTERNS = {view.id: view.pattern for view in DATA_VIEWS}
ALL = [(page.id, panel) for page in DASHBOARDS for panel in page.all_panels()]


@pytest.fixture(scope="module")
def api(stack: Any) -> Iterator[Api]:
    found = Api(stack.elasticsearch_url)
    yield found
    found.close()


def ask(api: Api, index: str, body: dict[str, Any]) -> Any:
    answer = api("POST", f"/{index}/_search", body)
    assert answer["_shards"]["failed"] == 0, answer["_shards"]
    return answer


def test_every_panel_and_search_is_judged() -> None:
    for page in DASHBOARDS:
        assert [panel.title for panel in page.panels] == list(expected.PANELS[page.id])
    assert [item.id for item in SEARCHES] == list(expected.SEARCHES)


def test_the_ledger_has_as_many_documents_as_arrived(incident: Incident) -> None:
    documents = Counter("log" if hit["_index"].startswith(".ds-auditspan-log") else "record" for hit in incident.hits)
    assert documents == Counter(fact["is"] for fact in incident.facts)


@pytest.mark.parametrize(("page", "panel"), ALL, ids=[f"{page}-{panel.title}" for page, panel in ALL])
def test_a_panel_shows_what_happened(api: Api, incident: Incident, page: str, panel: Panel) -> None:
    facts = [fact for fact in expected.of_view(panel.of, incident.facts) if expected.PANELS[page][panel.title](fact)]
    assert facts, "the story says nothing of it: whatever the panel shows would do"
    answer = ask(api, PATTERNS[panel.of], panel.request(incident.only))
    assert answer["hits"]["total"]["value"] == len(facts)
    if "@timestamp" in panel.by and any("@timestamp" not in fact for fact in facts):
        # When a checkpoint was shipped is nowhere but in its document.
        days = [key[0] for key in panel.rows(answer)]
        assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT00:00:00.000Z", day) for day in days)
        counted = Counter(fact["audit.log.origin"] for fact in facts)
        shown: Counter[str] = Counter()
        for (_, origin), (count,) in panel.rows(answer).items():
            shown[origin] += count
        assert shown == counted
        return
    found, wanted = panel.rows(answer), expected.rows(panel, facts)
    assert len(wanted) <= panel.top or panel.show == NUMBER or len(panel.by) > 1
    assert set(found) == set(wanted)
    for key, values in found.items():
        for metric, value, behind in zip(panel.metrics, values, wanted[key], strict=True):
            if not any("@timestamp" not in fact and metric.of == "@timestamp" for fact in behind):
                assert expected.agrees(metric, value, behind), (key, metric.label, value, len(behind))


@pytest.mark.parametrize("item", SEARCHES, ids=lambda item: item.id)
def test_a_search_lists_what_happened(api: Api, incident: Incident, item: Any) -> None:
    facts = [fact for fact in expected.of_view(item.view, incident.facts) if expected.SEARCHES[item.id](fact)]
    hits = ask(api, PATTERNS[item.view], item.request(incident.only))["hits"]["hits"]
    said = Counter((hit["_source"]["attributes"]["audit.event.type"],) for hit in hits)
    assert said == Counter((fact["audit.event.type"],) for fact in facts)
    times = [hit["sort"][0] for hit in hits]
    assert times == sorted(times, reverse=True)


# -- alert rules ----------------------------------------------------------------------------------------------------


PARAMETERS = Parameters(
    approved_actors={"payroll": ("alice@example.com", "agent-7")},
    approved_scopes=(Scope("payroll", ("hr.timesheet",)), Scope("payroll", ("bank.transfer",), ("account-17",))),
    approved_versions={"sync.run": ("1.4.0",), "billing.export": ("1.9.9",)},
)
NIGHT, MIDNIGHT, MORNING = "2026-11-19T23:59:00Z", "2026-11-20T00:10:00Z", "2026-11-20T10:10:00Z"
BEFORE, EVENING, NEXT_DAY = "2026-11-19T20:00:00Z", "2026-11-20T23:00:00Z", "2026-11-20T23:50:00Z"
SYNCING, PAYING, FAILING, LATER = (
    "2026-11-18T02:25:00Z", "2026-11-17T10:40:00Z", "2026-11-20T14:12:00Z", "2026-11-21T12:00:00Z",
)  # fmt: skip


def at(rule: str, parameters: Parameters = PARAMETERS) -> Rule:
    (found,) = (item for item in rules(parameters) if item.name == rule)
    return found


def by_mallory(fact: Fact) -> bool:
    return fact.get("audit.actor.id") == "mallory@example.com"


MATCHES: dict[str, tuple[str, str, str, Callable[[Fact], bool]]] = {
    "unusual-hour": (NIGHT, BEFORE, "audit.actor.id", by_mallory),
    "changed-at-night": (MIDNIGHT, BEFORE, "audit.actor.id", lambda f: by_mallory(f) and expected.is_change(f)),
    "unusual-actor": (
        NIGHT, PAYING, "audit.actor.id", lambda f: by_mallory(f) and f["automation.workflow.name"] == "payroll",
    ),
    "outside-scope": (
        NIGHT, PAYING, "automation.workflow.name",
        lambda f: by_mallory(f) and f["audit.action"] in ("READ", "EXPORT"),
    ),
    "unknown-version": (
        NIGHT, PAYING, "automation.workflow.name",
        lambda f: by_mallory(f) and (f["audit.target.id"], f["audit.target.type"]) == ("payroll", "story.job"),
    ),
    "unapproved-version": (
        FAILING, SYNCING, "automation.script.name",
        lambda f: f.get("automation.script.name") == "billing.export",
    ),
    "failure-spike": (
        FAILING, SYNCING, "automation.workflow.name",
        lambda f: expected.failed_end(f) and f["automation.workflow.name"] == "billing-export",
    ),
}  # fmt: skip
"""Rule → when it must alert, when it must not, by what, and the facts that it must count then."""


@pytest.mark.parametrize("name", MATCHES)
def test_a_rule_alerts_when_it_should_and_not_else(api: Api, incident: Incident, name: str) -> None:
    when, quiet, group, which = MATCHES[name]
    rule = at(name)
    wanted = Counter(fact[group] for fact in incident.facts if which(fact))
    assert wanted
    found = rule.alerts(ask(api, ",".join(rule.index), rule.request(when, incident.only)))
    assert found == dict(wanted)
    assert rule.alerts(ask(api, ",".join(rule.index), rule.request(quiet, incident.only))) == {}


def test_quiet_hours_are_of_a_time_zone_and_of_weekends(api: Api, incident: Incident) -> None:
    def alerts(when: str, **changed: Any) -> dict[str, int]:
        rule = at("unusual-hour", Parameters(**changed))
        return rule.alerts(ask(api, ",".join(rule.index), rule.request(when, incident.only)))

    assert sum(alerts(NIGHT).values()) == 10
    assert alerts(MIDNIGHT) == alerts(NIGHT)  # what was done before midnight is still seen after it
    # There it was 18:59, and the delivery of the morning came at 04:00.
    assert alerts(NIGHT, time_zone="America/New_York") == {"github": 2}
    assert alerts(NIGHT, quiet_from="00:00", quiet_to="05:00") == {}
    assert alerts(NIGHT, quiet_from="23:00", quiet_to="23:30") == {"mallory@example.com": 6}  # up to 23:30, without it
    assert alerts(SYNCING) == {}  # a schedule set it in motion
    assert alerts(SYNCING, quiet_ignores_triggers=()) == {"scheduler": 14}
    assert alerts(FAILING, quiet_weekend=True) == alerts(FAILING)  # a Friday


def test_what_arrives_late_alerts_all_the_same(api: Api, incident: Incident) -> None:
    """A record has the time at which it began; a run of many hours is there with its end."""
    for when, count in ((MORNING, 10), (EVENING, 10), (NEXT_DAY, 0)):
        rule = at("unusual-hour")
        found = rule.alerts(ask(api, ",".join(rule.index), rule.request(when, incident.only)))
        assert sum(found.values()) == count, when
    rule = at("unusual-hour", Parameters(look_back_hours=72))
    found = rule.alerts(ask(api, ",".join(rule.index), rule.request("2026-11-22T12:00:00Z", incident.only)))
    assert sum(found.values()) == 10


def test_the_weekend_is_quiet(api: Api) -> None:
    rule = at("unusual-hour", Parameters(quiet_weekend=True))
    index = "/auditspan-test-weekend"
    properties = {
        "@timestamp": {"type": "date_nanos"},
        "attributes": {"properties": {"audit.actor.id": {"type": "keyword"}}},
    }
    api("PUT", index, {"mappings": {"properties": properties}})
    try:
        for number, when in enumerate(("2026-11-20T12:00:00Z", "2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z")):
            document = {"@timestamp": when, "attributes": {"audit.actor.id": "someone"}}
            api("PUT", f"{index}/_doc/{number}?refresh=true", document)
        for day, count in ((20, 0), (21, 1), (22, 1), (23, 0)):
            found = ask(api, index[1:], rule.request(f"2026-11-{day}T12:30:00Z"))
            assert found["hits"]["total"]["value"] == count, day
    finally:
        api("DELETE", index)


def test_the_rules_of_the_log_itself(api: Api, incident: Incident) -> None:
    now = dt.datetime.now(dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

    def alerts(name: str, when: str, parameters: Parameters = PARAMETERS) -> dict[str, int]:
        rule = at(name, parameters)
        return rule.alerts(ask(api, ",".join(rule.index), rule.request(when, incident.only)))

    assert alerts("gap", now) == {incident.production.origin: 1}
    assert alerts("gap", MORNING) == {}
    assert alerts("verification-failed", now) == {incident.staging.origin: 1}
    assert alerts("verification-failed", MORNING) == {}
    assert alerts("verification-overdue", now) == {}
    assert alerts("verification-overdue", MORNING) == {"": 0}
    assert alerts("silent", now) == {}
    assert alerts("silent", LATER) == {"": 0}
    logs = Parameters(expected_logs=(incident.production.origin, "another/log"))
    assert alerts(f"silent-{incident.production.origin}", now, logs) == {}
    assert alerts("silent-another/log", now, logs) == {"": 0}


def test_every_rule_is_judged() -> None:
    judged = {*MATCHES, "gap", "verification-failed", "verification-overdue", "silent"}
    assert {rule.name for rule in rules(PARAMETERS)} == judged


# -- why whole paths ---------------------------------------------------------------------------------------------------


def test_a_sender_cannot_take_a_name_over(api: Api) -> None:
    """Of attributes with one name, the short name is that of one place, for every document of the index: the mapping
    says of which. The views use whole paths all the same, which do not depend on it."""
    mappings: dict[str, Any] = {}
    for name in ("auditspan@mappings", "auditspan@audit-mappings"):
        stored = api("GET", f"/_component_template/{name}")["component_templates"][0]["component_template"]
        _merge(mappings, stored["template"]["mappings"])
    assert (configuration_folder() / "elasticsearch" / "component-templates" / "auditspan@mappings.json").exists()
    index = "/auditspan-test-short-names"
    api("PUT", index, {"mappings": mappings})
    try:
        honest = {"@timestamp": "2026-11-20T12:00:00Z", "attributes": {"audit.outcome": "failure"}}
        api("PUT", f"{index}/_doc/honest?refresh=true", honest)
        short, whole = (
            {"query": {"term": {name: "failure"}}} for name in ("audit.outcome", "attributes.audit.outcome")
        )
        assert ask(api, index[1:], short)["hits"]["total"]["value"] == 1
        hostile = {"@timestamp": "2026-11-20T12:00:00Z", "resource": {"attributes": {"audit.outcome": "x"}}}
        api("PUT", f"{index}/_doc/hostile?refresh=true", hostile)
        for asked in (short, whole):
            assert ask(api, index[1:], asked)["hits"]["total"]["value"] == 1
        # The short names that Kibana's own trace views have are fields or aliases of the template: nobody takes those.
        traces = {"trace.id": "t", "span.id": "s", "parent.id": "p", "span.name": "n", "service.name": "v"}
        real = {"trace_id": "t", "span_id": "s", "parent_span_id": "p", "name": "n"}
        resource = {"attributes": {"service.name": "v"}}
        api(
            "PUT",
            f"{index}/_doc/span?refresh=true",
            {"@timestamp": "2026-11-20T12:00:00Z", **real, "resource": resource},
        )
        for number, place in enumerate(("resource", "scope", "")):
            # From a span the Collector takes the name of the service off (tests/backend/test_hostile_sender.py).
            names = traces if place else [name for name in traces if name != "service.name"]
            taken = {"attributes": dict.fromkeys(names, "taken")}
            document = {"@timestamp": "2026-11-20T12:00:00Z", **({place: taken} if place else taken)}
            api("PUT", f"{index}/_doc/taker-{number}?refresh=true", document)
            for name, value in traces.items():
                hits = ask(api, index[1:], {"query": {"term": {name: value}}})["hits"]["hits"]
                assert [hit["_id"] for hit in hits] == ["span"], (place, name)
    finally:
        api("DELETE", index)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, item in more.items():
        if isinstance(item, dict) and isinstance(into.get(name), dict):
            _merge(into[name], item)
        else:
            into[name] = item
