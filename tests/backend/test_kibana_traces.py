# SPDX-License-Identifier: Apache-2.0
"""The searches of Kibana's trace views, replayed on documents that came through the Collector.

They are those of Kibana's sources (the paths stand at each), without what the minimal distribution of Elasticsearch
lacks: a sort by script between two others, ``top_metrics``. What ES|QL does in the charts of Discover is not run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from auditspan.kibana.views import DataView
from tests.backend.honest import Api
from tests.backend.incident_data import Fact, Incident

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

TRACES = "traces-*.otel-*"
"""What APM reads where nothing else is set: x-pack/plugins/…/apm_sources_access, beside traces-apm* and apm-*."""
SPANS_OR_OTEL = {
    "bool": {
        "should": [
            {"terms": {"processor.event": ["span", "transaction"]}},
            {"bool": {"must_not": {"exists": {"field": "processor.event"}}}},
        ],
        "minimum_should_match": 1,
    }
}
WEEK = {"range": {"@timestamp": {"gte": 1794787200000, "lte": 1795219200000, "format": "epoch_millis"}}}
FIELDS = [
    "@timestamp", "trace.id", "service.name", "span.id", "span.name", "duration", "span.duration.us",
    "transaction.duration.us", "transaction.id", "transaction.name", "processor.event", "parent.id", "status.code",
    "timestamp.us", "event.outcome", "span.type", "span.subtype", "span.sync", "kind", "links.trace_id",
    "span.links.trace.id", "agent.name",
]  # fmt: skip
Item = dict[str, Any]


@pytest.fixture(scope="module")
def api(stack: Any) -> Iterator[Api]:
    found = Api(stack.elasticsearch_url)
    yield found
    found.close()


def search(api: Api, body: dict[str, Any]) -> Any:
    answer = api("POST", f"/{TRACES}/_search", body)
    assert answer["_shards"]["failed"] == 0, answer["_shards"]
    return answer


def fields(hit: Any) -> Item:
    return {name: values[0] for name, values in hit["fields"].items()}


def of_run(incident: Incident, run: str) -> list[Fact]:
    return [fact for fact in incident.facts if fact.get("automation.run.id") == run and fact["is"] == "record"]


def waterfall(api: Api, trace_id: str, *, collapse: bool) -> list[Item]:
    """apm/server/routes/traces/get_unified_trace_items.ts; `collapse` is what it had before it had `_score` sorts."""
    body: dict[str, Any] = {
        "track_total_hits": True,
        "size": 1000,
        "query": {
            "bool": {
                "must": [
                    {
                        "bool": {
                            "filter": [{"term": {"trace.id": trace_id}}, WEEK],
                            "should": {"exists": {"field": "parent.id"}},
                        }
                    }
                ],
                **SPANS_OR_OTEL["bool"],
            }
        },
        "fields": FIELDS,
        "_source": ["transaction.marks.agent"],
        "sort": [{"_score": "asc"}, {"@timestamp": "asc"}, {"_doc": "asc"}],
    }
    if collapse:
        body["collapse"] = {"field": "span.id"}
    return [fields(hit) for hit in search(api, body)["hits"]["hits"]]


@pytest.mark.parametrize("collapse", [False, True], ids=["9", "8.19"])
@pytest.mark.parametrize("run", ["payroll-17-10:00", "sync-17", "payroll-19-23:30"])
def test_the_waterfall_is_the_whole_trace(api: Api, incident: Incident, run: str, collapse: bool) -> None:
    facts = of_run(incident, run)
    (trace_id,) = {fact["trace_id"] for fact in facts}
    items = waterfall(api, trace_id, collapse=collapse)
    for item in items:  # or Kibana leaves the item out
        assert {"@timestamp", "trace.id", "service.name", "span.id", "span.name"} <= item.keys()
        assert item["service.name"] == "story-production"
    by_id = {item["span.id"]: item for item in items}
    assert len(by_id) == len(items) == len(facts)
    known = {fact["span_id"]: fact for fact in facts if "span_id" in fact}
    for span_id, fact in known.items():
        item = by_id[span_id]
        assert (item["span.name"], item["duration"], item.get("parent.id")) == (
            fact["name"], fact["duration"], fact["parent_span_id"],
        )  # fmt: skip
        assert item.get("status.code") == ("Error" if fact["audit.outcome"] == "failure" else None)
    # The records of beginnings hang below what they are the beginnings of.
    beginnings = [item for span_id, item in by_id.items() if span_id not in known]
    assert len(beginnings) == sum(fact["audit.action"] == "START" for fact in facts)
    assert all(item["parent.id"] in known for item in beginnings)
    roots = [item for item in items if "parent.id" not in item]
    assert len(roots) == 1
    assert items[0] == roots[0], "the root comes first: it has the lowest score"


def test_failures_are_seen_as_such(api: Api, incident: Incident) -> None:
    (trace_id,) = {fact["trace_id"] for fact in of_run(incident, "billing-3")}
    codes = sorted(item.get("status.code", "") for item in waterfall(api, trace_id, collapse=False))
    assert codes == ["", "Error"]  # its beginning is no failure


def test_the_root_and_one_span(api: Api, incident: Incident) -> None:
    """apm/server/routes/traces/get_unified_trace_root_span_by_trace_id.ts and get_unified_trace_span.ts"""
    facts = [fact for fact in of_run(incident, "payroll-19-23:30") if "span_id" in fact]
    trace_id = facts[0]["trace_id"]

    def one(*filters: Any, **more: Any) -> Item:
        query = {
            "bool": {"filter": [{"term": {"trace.id": trace_id}}, WEEK, *filters], **SPANS_OR_OTEL["bool"], **more}
        }
        (hit,) = search(api, {"size": 1, "terminate_after": 1, "query": query, "fields": ["*"]})["hits"]["hits"]
        return fields(hit)

    (top,) = (fact for fact in facts if fact["parent_span_id"] is None)
    root = one(must_not={"exists": {"field": "parent.id"}})
    assert (root["span.id"], root["duration"]) == (top["span_id"], top["duration"])
    assert root["attributes.audit.actor.id"] == "mallory@example.com"
    for fact in facts:
        span = one({"term": {"span.id": fact["span_id"]}})
        assert (span["span.id"], span["name"], span["duration"]) == (fact["span_id"], fact["name"], fact["duration"])


def test_data_is_there(api: Api, incident: Incident) -> None:
    """apm/server/routes/historical_data/…/has_traces_unprocessed_otel_data.ts"""
    tiers = {"terms": {"_tier": ["data_hot", "data_warm"]}}
    query = {"bool": {"filter": [tiers, incident.only], "must_not": [{"exists": {"field": "processor.event"}}]}}
    answer = search(api, {"size": 0, "terminate_after": 1, "track_total_hits": 1, "query": query})
    assert answer["hits"]["total"]["value"] == 1


def test_the_services_are_listed(api: Api, incident: Incident) -> None:
    """apm/server/routes/services/get_services/get_service_transaction_stats.ts"""

    def services(base: Any) -> dict[str, tuple[str, int, float]]:
        per_type = {"avg_duration": {"avg": {"field": "duration"}}}
        kinds = {"terms": {"field": "transaction.type", "missing": "__otel__"}, "aggs": per_type}
        names = {"terms": {"field": "service.name", "size": 500}, "aggs": {"transactionType": kinds}}
        sample = {"random_sampler": {"probability": 1, "seed": 1}, "aggs": {"services": names}}
        query = {"bool": {"filter": [WEEK, incident.only, base]}}
        found = search(api, {"size": 0, "query": query, "aggs": {"sample": sample}})["aggregations"]["sample"]
        return {
            bucket["key"]: (kind["key"], kind["doc_count"], kind["avg_duration"]["value"])
            for bucket in found["services"]["buckets"]
            for kind in bucket["transactionType"]["buckets"]
        }

    found = services(SPANS_OR_OTEL)
    at = {"story-production": "production", "story-staging": "staging"}
    assert found.keys() == at.keys()
    for name, (kind, count, mean) in found.items():
        facts = [
            fact
            for fact in incident.facts
            if fact.get("deployment.environment.name") == at[name]
            and fact["audit.event.type"] != "workflow.execution.interrupted"  # it was said later than the week
        ]
        assert (kind, count) == ("__otel__", len(facts))
        # The beginning of something takes no time; of the record that says not why the story has no time either.
        assert mean * count == pytest.approx(sum(fact.get("duration", 0) for fact in facts), rel=1e-6)
    # What Kibana 8.19 asks. It lists a service only if a processor of Elastic has made transactions of its spans; the
    # waterfall, Discover and our dashboards need none.
    assert services({"terms": {"processor.event": ["transaction"]}}) == {}


def test_what_links_to_a_trace_is_found(api: Api, incident: Incident) -> None:
    """apm/server/routes/span_links/get_linked_children.ts, in the newer form that knows OpenTelemetry's own links."""
    trace_id = of_run(incident, "payroll-17-10:00")[0]["trace_id"]
    linked = {"bool": {"should": [{"term": {"span.links.trace.id": trace_id}}, {"term": {"links.trace_id": trace_id}}]}}
    body = {"query": {"bool": {"filter": [WEEK, linked]}}, "fields": ["trace.id", "span.id", "processor.event"]}
    hits = search(api, body)["hits"]["hits"]
    wanted = {fact["span_id"] for fact in of_run(incident, "partner-sync-1") if "span_id" in fact}
    assert {fields(hit)["span.id"] for hit in hits} >= wanted
    assert {fields(hit)["trace.id"] for hit in hits} == {
        fact["trace_id"] for fact in of_run(incident, "partner-sync-1")
    }


def test_discover_takes_the_documents_for_traces(api: Api, incident: Incident) -> None:
    """discover/public/context_awareness/…/span_document_profile/profile.ts, and the fields that it asks for."""
    for hit in incident.hits:
        if hit["_index"].startswith(".ds-traces-"):
            assert hit["_source"]["data_stream"]["type"] == "traces"
            assert "processor.event" not in hit["_source"].get("attributes", {})
    names = ("trace.id", "span.id", "parent.id", "span.name", "service.name", "duration")
    found = api("GET", f"/{TRACES}/_field_caps?fields={','.join(names)},processor.event")["fields"]
    assert {name for name in names if name in found} == set(names)
    assert all(info["searchable"] for name in names for info in found[name].values())
    formatted = api("GET", f"/{TRACES}/_field_caps?fields={','.join(DataView.FORMATS)}")["fields"]
    assert formatted.keys() == DataView.FORMATS.keys()
