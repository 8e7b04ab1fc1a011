# SPDX-License-Identifier: Apache-2.0
"""A hostile sender tries to hide, re-route, overwrite, duplicate or poison records: nothing succeeds unnoticed.

For each attack (tests/backend/hostile.py): the hostile requests are sent and stored, then the honest documents of the
log arrive. Afterwards each honest statement is in Elasticsearch, where it belongs, and verification either passes or
names what is foreign. All attacks share one Collector and one Elasticsearch, and wait for them together.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from auditspan.devstack import Stack
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Code, Verdict
from tests.backend import honest
from tests.backend.hostile import ATTACKS, NOWHERE, OWN, Honest, Sent, plain, stranger
from tests.benchmarks.logs import make_log
from tests.records import ON_PURPOSE, audit_attributes

pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

RECORDS = 3
NAMES = "names of other scopes"
SHADOWS = "fields of that name elsewhere"


def own_records(folder: Path, said: Mapping[str, Any]) -> Honest:
    """Record spans that have something unusual in them."""
    provider = TracerProvider(
        resource=Resource({"service.name": "tests", **said.get("resource", {})}), shutdown_on_exit=False
    )
    log = AuditLog(folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("own", "1", None, said.get("scope"))
    for number in range(RECORDS):
        attributes = {**audit_attributes(number=number), **said.get("span", {})}
        span = tracer.start_span("work", attributes=attributes, start_time=said.get("start"))
        for _ in range(2 if "event" in said else 0):
            span.add_event("e", said["event"])
        span.end(said.get("end"))
    provider.shutdown()
    (folder / ON_PURPOSE).touch()
    return Honest(log.directory)


@pytest.fixture(scope="module")
def attacked(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Honest]:
    """Every attack, each on a log of its own, and after it the honest documents."""
    folder = tmp_path_factory.mktemp("attacked")
    logs = {name: Honest(make_log(folder / str(number), RECORDS)) for number, name in enumerate(ATTACKS)}
    own = {name: own_records(folder / f"own-{number}", said) for number, (name, said) in enumerate(OWN.items())}
    with httpx.Client(base_url=stack.otlp_http_endpoint, timeout=60) as collector:
        settle(stack, collector)  # the data streams are there, and who sends first is stored first
        for name, log in logs.items():
            for sent in ATTACKS[name][0](log):
                status = post(collector, sent)
                assert status in sent.answers, f"{name}: answered {status}"
        settle(stack, collector)
        # Of what is to be found later, the hostile document is there first.
        came_first(stack, {log.origin for name, log in logs.items() if ATTACKS[name][1]})
        for name, log in (logs | own).items():
            assert post(collector, Sent(log.request())) == 200, name
        settle(stack, collector)
    return logs | own


def post(collector: httpx.Client, sent: Sent) -> int:
    body = sent.body if isinstance(sent.body, bytes) else json.dumps(sent.body).encode()
    headers = {"content-type": "application/json", **sent.headers}
    return collector.post(sent.path, content=body, headers=headers).status_code


def settle(stack: Stack, collector: httpx.Client) -> None:
    """Wait until what was sent is stored or refused: what is sent last is there, in both streams."""
    api, marks = honest.Api(stack.elasticsearch_url), [f"mark-{secrets.token_hex(8)}" for _ in range(2)]
    for mark, more in zip(marks, ({}, {"audit.log.document": "entry"}), strict=True):
        assert post(collector, Sent(stranger(mark, more))) == 200
    honest.eventually(
        lambda: all(api.read(f"{honest.AUDIT},{honest.LOG}", f"hostile/{mark}") for mark in marks), "what was sent last"
    )
    time.sleep(1)  # another consumer of the queue may still be at work
    api.close()


def came_first(stack: Stack, origins: set[str]) -> None:
    with contextlib.closing(honest.Api(stack.elasticsearch_url)) as api:

        def there() -> set[str]:
            hits = api.read(f"{honest.AUDIT},{honest.LOG}", *origins)
            return {hit["_source"]["attributes"]["audit.log.origin"] for hit in hits}

        honest.eventually(lambda: there() == origins, "a document of each attack")


def statements(api: honest.Api, log: Honest) -> dict[str, list[Any]]:
    """Statements and notes of a log by the stream they are in."""
    found: dict[str, list[Any]] = {"audit": [], "log": []}
    for hit in api.read(f"{honest.AUDIT},{honest.LOG}", log.origin):
        said = hit["_source"]["attributes"]
        place = "log" if "auditspan-log" in hit["_index"] else "audit"
        found[place].append(said.get("audit.statement", said.get("audit.checkpoint.note")))
    return found


def missing(found: dict[str, list[Any]], log: Honest) -> set[str]:
    """Honest statements that are not where they belong."""
    blocks = list(reader.batches(log.directory.log))
    entries = [item.decode() for block in blocks for item in block.statements]
    records = {item for item in entries if json.loads(item)["type"] == "span"}
    others = set(entries).difference(records).union(block.batch.note for block in blocks)
    return others.difference(_texts(found["log"])) | records.difference(_texts(found["audit"]))


def _texts(values: list[Any]) -> set[str]:
    return {item for item in values if isinstance(item, str)}


@pytest.mark.parametrize("attack", [*ATTACKS, *OWN])
def test_the_attack_is_without_effect_or_named(attacked: Mapping[str, Honest], stack: Stack, attack: str) -> None:
    log = attacked[attack]
    report = verify_elasticsearch(
        stack.elasticsearch_url, origin=log.origin, wait=0, trust=Trust([read_verifier_key(log.directory.verifier_key)])
    )
    expected: frozenset[Code] = frozenset() if attack in OWN else ATTACKS[attack][1]
    with contextlib.closing(honest.Api(stack.elasticsearch_url)) as api:
        assert missing(statements(api, log), log) == set(), "an honest statement is not where it belongs"
    assert {finding.code for finding in report.findings} == expected, report.findings
    assert report.verdict is (Verdict.FAILED if expected else Verdict.PASSED)
    assert report.records == (0 if Code.NO_CHECKPOINT in expected else RECORDS)
    assert not expected or any(finding.document_id for finding in report.findings), "a finding names the document"


def test_names_in_other_places_do_not_take_over_searches(attacked: Mapping[str, Honest], stack: Stack) -> None:
    # A search for `audit.actor.id` must not be answered from `resource.attributes.audit.actor.id`, which a sender sets.
    with contextlib.closing(honest.Api(stack.elasticsearch_url)) as api:
        resource = attacked[SHADOWS].request()["resourceSpans"][-1]["resource"]
        honest_values = {"audit.actor.id": "tester", "audit.action": "UPDATE", "automation.run.id": "test-run"}
        for name, text in {**honest_values, "service.name": plain(resource)["service.name"]}.items():
            query = {
                "bool": {"filter": [{"term": {"audit.log.origin": attacked[SHADOWS].origin}}, {"term": {name: text}}]}
            }
            assert api("GET", f"/{honest.AUDIT}/_count", {"query": query})["count"] == RECORDS, name


def test_nothing_is_anywhere_else(attacked: Mapping[str, Honest], stack: Stack) -> None:
    with contextlib.closing(honest.Api(stack.elasticsearch_url)) as api:
        names = api("GET", "/_all/_settings?expand_wildcards=all")
        assert not [name for name in names if NOWHERE in name or "hostile" in name]
        for log in attacked.values():  # no honest statement is among the ordinary spans
            assert api.read("traces-generic.otel-*", log.origin) == [] or log is attacked[NAMES]
