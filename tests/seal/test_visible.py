# SPDX-License-Identifier: Apache-2.0
"""The visible document against its statement: every lie beside the truth is seen, and every honest form taken."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from auditspan_seal import spans
from auditspan_seal.formats import commitment
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint
from auditspan_seal.verify.items import EntryItem
from auditspan_seal.verify.personal import State, states
from auditspan_seal.verify.visible import checkpoint_mismatches, mismatches

START = 1_795_549_777_704_095_010
FIELDS: dict[str, Any] = {
    "v": 2, "type": "span", "origin": "host/auditspan/1f", "segment": "ab", "number": 7, "trace_id": "a" * 32,
    "span_id": "b" * 16, "parent_span_id": "", "parent_is_remote": False, "trace_flags": 1, "trace_state": "",
    "name": "update crm.contact", "kind": "INTERNAL", "start": str(START), "end": str(START + 5),
    "status": {"code": "UNSET", "message": ""},
    "attributes": {
        "audit.outcome": "success", "audit.actor.id": {"commitment": "A" * 43 + "="}, "app.weight": 0.1,
        "app.labels": ["zulu", "alpha", "zulu"], "app.one": ["zulu"], "app.map": {"map": {"a": 1}}, "app.sizes": [3, 1],
    },
    "events": [], "links": [{"trace_id": "c" * 32, "span_id": "d" * 16, "trace_state": "x=1", "attributes": {}}],
    "dropped": {"attributes": 0, "events": 1, "links": 0},
    "resource": {"attributes": {"service.name": "s"}, "schema_url": "https://opentelemetry.io/schemas/1.1.0"},
    "scope": {"name": "auditspan.api", "version": "1", "schema_url": "", "attributes": {}},
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "@timestamp": "1795549777704.95010",
    "data_stream": {"type": "traces", "dataset": "audit.otel", "namespace": "default"},
    "trace_id": "a" * 32, "span_id": "b" * 16, "name": "update crm.contact", "kind": "Internal", "duration": 5,
    "attributes": {
        "audit.outcome": "success", "audit.actor.id": "alice", "app.weight": 0.1,
        "app.labels": ["zulu", "alpha", "zulu"], "app.one": ["zulu"], "app.map": {"a": 1}, "app.sizes": [3, 1],
        "audit.statement": "…", "audit.log.origin": "host/auditspan/1f", "audit.log.index": 7,
        "audit.sequence.stream_id": "ab", "audit.sequence.number": 7,
        "audit.private": '{"audit.actor.id":"dZrfBCPQMRHLjVRrGEg2JA=="}',
    },
    "links": [{"trace_id": "c" * 32, "span_id": "d" * 16}], "status": {},
    "resource": {"attributes": {"service.name": "s"}, "schema_url": "https://opentelemetry.io/schemas/1.1.0"},
    "scope": {"name": "auditspan.api", "version": "1"},
}  # fmt: skip

Change = Callable[[dict[str, Any]], Any]

LIES: dict[str, Change] = {
    # Elasticsearch reads all of these as a second value of attributes.audit.outcome, or as a field of ours.
    "object beside dotted": lambda d: d["attributes"].update(audit={"outcome": "failure"}),
    "list of objects beside dotted": lambda d: d["attributes"].update(audit=[{"outcome": "failure"}]),
    "empty first step": lambda d: d["attributes"].update({"audit": "failure"}),
    "own field, nested": lambda d: d["attributes"].update(audit={"approved": {"by": "bob"}}),
    "attributes spelled with a dot": lambda d: d.update({"attributes.audit.outcome": "failure"}),
    "attributes spelled with a dot, nested": lambda d: d.update({"attributes.audit": {"outcome": "failure"}}),
    "at the root": lambda d: d.update({"audit.outcome": "failure"}),
    "at the root, nested": lambda d: d.update(audit={"outcome": "failure"}),
    "somebody else's attribute at the root": lambda d: d.update({"app.weight": 5}),
    "status spelled with a dot": lambda d: d.update({"status.code": "Error"}),
    "service spelled with a dot": lambda d: d.update({"resource.attributes.service.name": "x"}),
    "service inside the resource": lambda d: d["resource"].update({"attributes.service.name": "x"}),
    "service nested beside dotted": lambda d: d["resource"]["attributes"].update(service={"name": "x"}),
    "ours in the resource": lambda d: d["resource"]["attributes"].update(automation={"x": "x"}),
    "ours in the scope": lambda d: d["scope"].update(attributes={"audit.outcome": "failure"}),
    "map key added": lambda d: d["attributes"]["app.map"].update(b=2),
    "map key beside the map": lambda d: d["attributes"].update({"app.map.a": 2}),
    # What was not compared at all.
    "status is a text": lambda d: d.update(status="Error"),
    "status has more": lambda d: d["status"].update(reason="x"),
    "links is a number": lambda d: d.update(links=0),
    "link has a trace state": lambda d: d["links"][0].update(trace_state="x=2"),
    "link has more": lambda d: d["links"][0].update(dropped_attributes_count=3),
    "scope schema": lambda d: d["scope"].update(schema_url="x"),
    "resource schema": lambda d: d["resource"].update(schema_url="x"),
    "dropped events": lambda d: d.update(dropped_events_count=2),
    "dropped links": lambda d: d.update(dropped_links_count=1),
    "is an entry": lambda d: d["attributes"].update({"audit.log.document": "entry"}),
    "salts twice": lambda d: d["attributes"].update({"audit.private": '{"a":"dZrfBCPQMRHLjVRrGEg2JA==","a":""}'}),
    "salts, empty": lambda d: d["attributes"].update({"audit.private": "{}"}),
    "salts, no text": lambda d: d["attributes"].update({"audit.private": 5}),
    "salt, spelled otherwise": lambda d: d["attributes"].update(
        {"audit.private": '{"audit.actor.id":"dZrfBCPQMRHLjVRrGEg2JB=="}'}
    ),
    "events, in a document of Elasticsearch": lambda d: d.update(events=[]),
    # Times that are read otherwise than they look.
    "time as a number": lambda d: d.update({"@timestamp": START}),
    "time as a float": lambda d: d.update({"@timestamp": 1795549777704.95010}),
    "time padded": lambda d: d.update({"@timestamp": "1795549777704.095010"}),
    "time with zeros": lambda d: d.update({"@timestamp": "01795549777704.95010"}),
    "time in other digits": lambda d: d.update({"@timestamp": "\N{ARABIC-INDIC DIGIT ONE}795549777704.95010"}),
    "time a microsecond off": lambda d: d.update({"@timestamp": "2026-11-24T19:49:37.704096010Z"}),
    "time a millisecond off": lambda d: d.update({"@timestamp": "2026-11-24T19:49:37.705Z"}),
    "time that is none": lambda d: d.update({"@timestamp": "2026-13-24T19:49:37.704Z"}),
    "time with an offset": lambda d: d.update({"@timestamp": "2026-11-24T20:49:37.704+01:00"}),
    # Near what synthetic source makes of a value, but not it.
    "double, last digits": lambda d: d["attributes"].update({"app.weight": 0.1 + 1e-10}),
    "list, other order": lambda d: d["attributes"].update({"app.labels": ["zulu", "zulu", "alpha"]}),
    "list, one gone": lambda d: d["attributes"].update({"app.labels": ["alpha"]}),
    "list, order of numbers": lambda d: d["attributes"].update({"app.sizes": ["1", "3"]}),
    "element of a longer list": lambda d: d["attributes"].update({"app.labels": "zulu"}),
}  # fmt: skip

HONEST: dict[str, Change] = {
    "as it was sent": lambda d: None,
    "attributes of others": lambda d: d["attributes"].update({"k8s.pod.name": "p", "geo": {"country": "x"}}),
    "resource of others": lambda d: d["resource"]["attributes"].update({"k8s": {"pod": "p"}, "host.name": "h"}),
    "fields of others": lambda d: d.update(event={"ingested": "x"}, ecs={"version": "9"}),
    "no empty values": lambda d: d.pop("status"),
    "time as it was": lambda d: d.update({"@timestamp": "2026-11-24T19:49:37.70409501Z"}),
    "time as Elasticsearch understands it": lambda d: d.update({"@timestamp": "2026-11-24T19:49:37.7049501Z"}),
    "time in milliseconds": lambda d: d.update({"@timestamp": "2026-11-24T19:49:37.704Z"}),
    "double in 32 bits": lambda d: d["attributes"].update({"app.weight": 0.10000000149011612}),
    "list as a sorted set": lambda d: d["attributes"].update({"app.labels": ["alpha", "zulu"], "app.sizes": [1, 3]}),
    "list of one": lambda d: d["attributes"].update({"app.one": "zulu"}),
    "one link": lambda d: d.update(links=d["links"][0]),
    "how many events were dropped": lambda d: d.update(dropped_events_count=1),
    "fewer salts": lambda d: d["attributes"].pop("audit.private"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_beside_the_truth_is_seen(lie: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    LIES[lie](document)
    assert list(mismatches(FIELDS, document)) != []


@pytest.mark.parametrize("form", HONEST)
def test_what_is_honest_is_taken(form: str) -> None:
    document = copy.deepcopy(DOCUMENT)
    HONEST[form](document)
    assert list(mismatches(FIELDS, document)) == []


def test_no_salt_is_ever_said() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["attributes"]["audit.private"] = '{ "audit.actor.id":"dZrfBCPQMRHLjVRrGEg2JA=="}'
    found = list(mismatches(FIELDS, document))
    assert [name for name, *_ in found] == ["attributes.audit.private"]
    assert "dZrf" not in repr(found)


def log_document(name: str, digest: bytes, attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "@timestamp": "1795549777704.95010", "trace_id": digest[:16].hex(), "span_id": digest[16:24].hex(),
        "name": name, "kind": "Internal", "duration": 0, "attributes": attributes, "links": [], "status": {},
        "resource": {"attributes": {"service.name": "auditspan"}}, "scope": {"name": "auditspan.log"},
    }  # fmt: skip


ON_LOG_DOCUMENTS: dict[str, Change] = {
    "name": lambda d: d.update(name="log erasure"),
    "trace_id": lambda d: d.update(trace_id="a" * 32),
    "span_id": lambda d: d.pop("span_id"),
    "kind": lambda d: d.update(kind="Server"),
    "duration": lambda d: d.update(duration=1),
    "status": lambda d: d.update(status={"code": "Error"}),
    "links": lambda d: d.update(links=[{"trace_id": "a" * 32, "span_id": "b" * 16}]),
    "scope.name": lambda d: d["scope"].update(name="x"),
    "resource.attributes.service.name": lambda d: d["resource"]["attributes"].update({"service.name": "x"}),
    "attributes.audit.outcome": lambda d: d["attributes"].update({"audit.outcome": "failure"}),
    "attributes.audit.log.origin": lambda d: d["attributes"].update({"audit.log.origin": "another"}),
}


def test_every_field_of_an_entry_that_is_no_span_follows_from_its_statement() -> None:
    fields = {
        "v": 2, "type": "genesis", "origin": "host/auditspan/1f", "key": "k", "time": str(START),
        "attributes": {"audit.outcome": "success"},
    }  # fmt: skip
    digest = leaf_hash(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))
    honest = log_document(
        "log genesis", digest, {"audit.outcome": "success", "audit.statement": "…", "audit.log.document": "entry"}
    )
    assert list(mismatches(fields, honest)) == []
    more: dict[str, Change] = {
        "@timestamp": lambda d: d.update({"@timestamp": "1795549777704.95011"}),
        "attributes.audit.log.document": lambda d: d["attributes"].pop("audit.log.document"),
        "attributes.audit.sequence.number": lambda d: d["attributes"].update({"audit.sequence.number": 5}),
        "attributes.audit.private": lambda d: d["attributes"].update({"audit.private": "{}"}),
    }
    for name, change in (ON_LOG_DOCUMENTS | more).items():
        if name == "attributes.audit.log.origin":
            continue  # it says which place is meant; the walk along the log compares it
        document = copy.deepcopy(honest)
        change(document)
        assert [found[0] for found in mismatches(fields, document)] == [name]


def test_every_field_of_a_checkpoint_follows_from_its_note() -> None:
    tree = Frontier()
    tree.append(leaf_hash(b"x"))
    note = Checkpoint("host/auditspan/1f", 1, tree.root()).text() + "\n— host/auditspan/1f AAAAAAAA\n"
    batch = Batch(note, 0, (), (leaf_hash(b"x"),))
    honest = log_document(
        "log checkpoint",
        leaf_hash(note.encode()),
        {
            "audit.log.document": "checkpoint", spans.ORIGIN: "host/auditspan/1f", spans.NOTE: note, spans.FIRST: 0,
            spans.SIZE: 1, spans.FRONTIER: "", spans.LEAVES: "…",
        },
    )  # fmt: skip
    assert list(checkpoint_mismatches(batch, honest)) == []
    more: dict[str, Change] = {
        "attributes.audit.checkpoint.tree_size": lambda d: d["attributes"].update({spans.SIZE: 2}),
        "attributes.audit.statement": lambda d: d["attributes"].update({spans.STATEMENT: "x"}),
    }
    for name, change in (ON_LOG_DOCUMENTS | more).items():
        document = copy.deepcopy(honest)
        change(document)
        assert [found[0] for found in checkpoint_mismatches(batch, document)] == [name]


def test_a_personal_list_of_one_may_come_back_as_its_element() -> None:
    salt = "dZrfBCPQMRHLjVRrGEg2JA=="
    name = "audit.change.fields"
    digest = commitment.commit(name, ["stage"], base64.b64decode(salt))
    fields = {"attributes": {name: {"commitment": digest}}}

    def state(value: Any) -> State:
        item = EntryItem(b"", document={"attributes": {name: value}}, openings={name: (salt, value)})
        return next(state for _, state, _ in states(fields, item))

    assert [state(value) for value in (["stage"], "stage")] == [State.PRESENT] * 2
    assert [state(value) for value in ("owner", [["stage"]], ["stage", "stage"])] == [State.WRONG] * 3
