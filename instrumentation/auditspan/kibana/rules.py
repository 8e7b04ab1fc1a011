# SPDX-License-Identifier: Apache-2.0
"""Alert rules (type ``.es-query``) for Kibana, and the searches that they run.

A record has the time at which its span began, and arrives when it has ended, or when the way to Elasticsearch is open
again. So rules look back for long (`look_back_hours`), and an alert stays active for as long. The beginning of a run
counts, too: it is there at once.

Neither scripts nor runtime fields are used: what is unusual is said in plain queries, which anyone can run by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from auditspan.kibana import fields, kql
from auditspan.kibana.dashboards import CHANGES, DATA_VIEWS, ENDED, FAILED, GAPS, VERIFIED
from auditspan.kibana.objects import Names
from auditspan.kibana.parameters import Parameters

TAG = "auditspan"
_PATTERNS = {view.id: view.pattern.split(",") for view in DATA_VIEWS}
RECORDS, LOG, ALL = (_PATTERNS[view.id] for view in DATA_VIEWS)
_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class Rule:
    """One alert rule.

    Attributes:
        name: fixed; its id is made of it.
        title: what people read.
        index: where it looks.
        query: what it looks for.
        window: seconds back from now.
        more_than: how many documents it takes to alert; -1: alert if there is none.
        by: field: counted for each of its values by itself.
        every: minutes between two looks.
    """

    name: str
    title: str
    index: list[str]
    query: kql.Query
    window: int
    more_than: int = 0
    by: str = ""
    every: int = 1
    actions: list[dict[str, Any]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """Return the body for ``POST /api/alerting/rule/{id}``."""
        size, unit = (self.window // _HOUR, "h") if self.window % _HOUR == 0 else (self.window // _MINUTE, "m")
        absent = self.more_than < 0
        params: dict[str, Any] = {
            "searchType": "esQuery",
            "index": self.index,
            "timeField": fields.TIME,
            "esQuery": json.dumps({"query": self.query}, ensure_ascii=False),
            "size": 0 if absent else 10,
            "aggType": "count",
            "groupBy": "top" if self.by else "all",
            "threshold": [1] if absent else [self.more_than],
            "thresholdComparator": "<" if absent else ">",
            "timeWindowSize": size,
            "timeWindowUnit": unit,
            # Kibana would leave out what is older than the newest that it has seen, and so all that arrives late.
            "excludeHitsFromPreviousRun": False,
        }
        if self.by:
            params |= {"termField": fields.path(self.by), "termSize": 50}
        return {
            "name": self.title, "rule_type_id": ".es-query", "consumer": "stackAlerts",
            "schedule": {"interval": f"{self.every}m"}, "params": params, "actions": self.actions,
            "tags": [TAG, self.name],
        }  # fmt: skip

    def request(self, now: str, *also: kql.Query) -> kql.Query:
        """Return the body of the search that the rule sends.

        Args:
            now: when: an ISO 8601 instant takes the place of ``now`` in it.
            also: more filters.
        """
        query = json.loads(json.dumps(self.query).replace('"now', f'"{now}||'))
        back = {"range": {fields.TIME: {"gt": f"{now}||-{self.window}s", "lte": now}}}
        found: kql.Query = {"bool": {"filter": [query, back, *also]}}
        aggregations = {"groups": {"terms": {"field": fields.path(self.by), "size": 50}}} if self.by else {}
        return {"size": 0, "track_total_hits": True, "query": found, "aggs": aggregations}

    def alerts(self, answer: Any) -> dict[str, int]:
        """Return what it alerts of: group (empty: no groups) → documents; nothing: no alert."""
        if self.by:
            found = {item["key"]: item["doc_count"] for item in answer["aggregations"]["groups"]["buckets"]}
        else:
            found = {"": answer["hits"]["total"]["value"]}
        return {
            name: count
            for name, count in found.items()
            if (count < 1 if self.more_than < 0 else count > self.more_than)
        }


def rules(parameters: Parameters | None = None) -> list[Rule]:
    """Return the rules that the parameters allow for."""
    said = parameters or Parameters()
    return [replace(rule, actions=[dict(action) for action in said.actions]) for rule in _rules(said)]


def left_out(parameters: Parameters | None = None) -> dict[str, str]:
    """Return the rules that need a parameter which is not given: name of the rule → name of the parameter."""
    there = {rule.name for rule in rules(parameters)}
    needs = {
        "unusual-actor": "approved_actors", "outside-scope": "approved_scopes",
        "unapproved-version": "approved_versions",
    }  # fmt: skip
    return {name: parameter for name, parameter in needs.items() if name not in there}


def _rules(said: Parameters) -> Iterator[Rule]:
    back = said.look_back_hours * _HOUR
    workflow, actor = "automation.workflow.name", "audit.actor.id"
    yield Rule(
        "verification-failed",
        "Audit: verification failed",
        RECORDS,
        kql.to_query(f"{VERIFIED} and {FAILED}"),
        back,
        by="audit.target.id",
    )
    yield Rule(
        "verification-overdue",
        f"Audit: nothing was verified for {said.verification_hours} hours",
        RECORDS,
        kql.to_query(f"{VERIFIED} and audit.outcome : success"),
        said.verification_hours * _HOUR,
        -1,
        every=15,
    )
    yield Rule("gap", "Audit: something recorded was lost", LOG, kql.to_query(GAPS), back, by="audit.log.origin")
    silent = said.silent_minutes * _MINUTE
    for origin in said.expected_logs:
        query = kql.to_query(f"audit.log.origin : {kql.quoted(origin)}")
        yield Rule(f"silent-{origin}", f"Audit: the log {origin} is silent", ALL, query, silent, -1, every=5)
    if not said.expected_logs:
        yield Rule("silent", "Audit: nothing arrives", ALL, {"match_all": {}}, silent, -1, every=5)
    yield Rule(
        "failure-spike",
        "Audit: many runs fail",
        RECORDS,
        kql.to_query(f"{ENDED} and {FAILED}"),
        said.spike_minutes * _MINUTE,
        said.spike_failures - 1,
        by=workflow,
    )
    yield Rule("unusual-hour", "Audit: something is done in quiet hours", RECORDS, _quiet(said), back, by=actor)
    if said.approved_actors:
        query = _unless(workflow, {name: {actor: who} for name, who in said.approved_actors.items()})
        yield Rule("unusual-actor", "Audit: an unusual actor", RECORDS, query, back, by=actor)
    if said.approved_scopes:
        yield Rule(
            "outside-scope", "Audit: access outside of the approved scope", RECORDS, _outside(said), back, by=workflow
        )
    yield Rule(
        "unknown-version",
        "Audit: a script of unknown version ran",
        RECORDS,
        kql.to_query(
            "audit.event.type : (workflow.execution.started or workflow.execution.finished)"
            " and automation.script.version : unknown"
        ),
        back,
        by=workflow,
    )
    if said.approved_versions:
        versions = {name: {"automation.script.version": known} for name, known in said.approved_versions.items()}
        query = _unless("automation.script.name", versions)
        yield Rule(
            "unapproved-version",
            "Audit: a script of a version that nobody approved ran",
            RECORDS,
            query,
            back,
            by="automation.script.name",
        )
    yield Rule(
        "changed-at-night", "Audit: permissions or settings were changed in quiet hours", RECORDS,
        {"bool": {"filter": [kql.to_query(CHANGES), *_quiet(said)["bool"]["filter"]]}}, back, by=actor,
    )  # fmt: skip


def _terms(name: str, values: tuple[str, ...]) -> kql.Query:
    return {"terms": {fields.path(name): list(values)}}


def _unless(name: str, allowed: dict[str, dict[str, tuple[str, ...]]]) -> kql.Query:
    """Return the query for documents where `name` has one of some values, and other fields none that goes with it."""
    found = [
        {
            "bool": {
                "filter": [_terms(name, (value,))],
                "must_not": [{"bool": {"filter": [_terms(other, known) for other, known in with_it.items()]}}],
            }
        }
        for value, with_it in allowed.items()
    ]
    return kql.any_of(found)


def _outside(said: Parameters) -> kql.Query:
    """Return the query for data, of which none of the scopes of its automation speaks."""
    by_workflow: dict[str, list[kql.Query]] = {}
    for scope in said.approved_scopes:
        limits = [("audit.target.type", scope.target_types), ("audit.target.id", scope.targets)]
        inside = {"bool": {"filter": [_terms(name, values) for name, values in limits if values]}}
        by_workflow.setdefault(scope.workflow, []).append(inside)
    data = kql.to_query(
        "audit.event.type : (data.read or data.write or data.create or data.update or data.delete or data.export"
        " or data.import)"
    )
    found = [
        {"bool": {"filter": [data, _terms("automation.workflow.name", (name,))], "must_not": inside}}
        for name, inside in by_workflow.items()
    ]
    return kql.any_of(found)


def _quiet(said: Parameters) -> kql.Query:
    """Return the query for what was done in quiet hours, by Elasticsearch's date math: no script is needed."""
    begin, end = _elapsed(said.quiet_from), _elapsed(said.quiet_to)
    over_midnight = said.quiet_from >= said.quiet_to
    days = [_day(number) for number in range(-1 - (said.look_back_hours + 23) // 24, 2)]
    nights = zip(days, days[1:] if over_midnight else days, strict=False)
    spans = [(f"{evening}{begin}", f"{morning}{end}") for evening, morning in nights]
    if said.quiet_weekend:  # weeks begin on Monday
        spans += [("now/w+5d", "now/w+7d"), ("now/w-2d", "now/w")]
    hours = [
        {"range": {fields.TIME: {"gte": since, "lt": until, "time_zone": said.time_zone}}} for since, until in spans
    ]
    found = [kql.to_query("not automation.workflow.name : auditspan.verify"), kql.any_of(hours)]
    without: list[kql.Query] = []
    if said.quiet_ignores_triggers:
        without = [_terms("automation.trigger.type", said.quiet_ignores_triggers)]
    return {"bool": {"filter": [*found, *({"bool": {"must_not": [one]}} for one in without)]}}


def _day(number: int) -> str:
    return f"now{number:+}d/d" if number else "now/d"


def _elapsed(clock: str) -> str:
    hours, minutes = clock.split(":")
    return f"+{int(hours)}h+{int(minutes)}m"


def bodies(names: Names, parameters: Parameters | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the rules for a space: name → id and body."""
    return {rule.name: (names.rule(rule.name), rule.body()) for rule in rules(parameters)}
