# SPDX-License-Identifier: Apache-2.0
"""At least 20,000 random mutations of real documents; every one must be found, with its reason, and nothing else said.

The documents come from the whole pipeline once (`honest.py`). What is done to them is in `mutations.py`. Mutations are
done to copies of what Elasticsearch returned, and a sample of each class to the documents in Elasticsearch itself.

To repeat one that failed: the seed of its round is in the message; run the test of its class alone (``-k``) on the
same documents, or read what it says was done.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from auditspan_seal import spans
from auditspan_seal.verify.report import EXIT_CODES, Code, Finding, Verdict
from tests.backend import honest, mutations
from tests.backend.conftest import Automations
from tests.backend.honest import Api, Hit
from tests.backend.mutations import REMOVED, SINGLE, WHOLE, Log, Mutation, attributes, dotted, kind_of, leaves
from tests.conftest import BIN

pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

SEED = 20261124
AT_ONCE = 100
"""Mutations of single documents in one verification; each to documents of its own."""
ROUNDS = 13
"""Verifications of each class of single documents: 13 x 100 x 14 classes are 18,200 mutations."""
ATTACKS = 150
"""Mutations of each class that concerns a whole log, one at a time: 12 classes, 1,800 mutations."""
TOTAL = 20_000

# What may be changed without being found, and why it is no evidence. `test_what_is_no_evidence_is_listed` sees to it
# that the list is not longer than it must be. docs/visible-documents.md says the same to readers.
NO_EVIDENCE = {
    "data_stream.*": "where the document is kept: written by the exporter as it routes, and said again by the index",
    "_id, _index, _version": "names of Elasticsearch's own for the place; a reindex gives others",
    "attributes of other names": "a Collector's processors and ingest pipelines add such by design; only audit.*, "
    "automation.* and what the statement has are the record",
    "fields at the root, of other names": "the same",
    "resource.attributes of other names": "the same",
    "resource.schema_url, where the process said none": "a Collector's resource detection writes it",
    "@timestamp of a checkpoint": "when it was delivered; no statement says it",
    "@timestamp by less than a millisecond, in ISO form": "synthetic source writes what Elasticsearch has understood",
    "a list in the order and number of a set": "synthetic source does it; only that one order is taken",
    "further signature lines of a note, by other keys": "cosignatures; the signature of the log's key is checked",
    "documents of span events (logs-audit.*)": "copies that the exporter makes; the events are in the statement, and "
    "verification does not read the copies",
}

done: Counter[str] = Counter()
seconds: defaultdict[str, float] = defaultdict(float)


@pytest.fixture(scope="module")
def logs(automations: Automations) -> list[Log]:
    return mutations.logs_of(automations.hits, automations.logs)


def test_the_documents_are_honest_and_of_every_kind(automations: Automations, logs: list[Log]) -> None:
    report = mutations.verify(automations.hits, [log.key for log in logs])
    assert (report.verdict, report.findings, report.compared) == (Verdict.PASSED, [], True)
    assert report.records >= 2000
    assert report.erased > 0
    assert len(logs) >= 2
    scopes = Counter(hit["_source"]["scope"]["name"] for log in logs for hit in log.entries)
    print(f"{report.records} records in {len(logs)} logs with {report.checkpoints} checkpoints: {dict(scopes)}")
    plugins = ("auditspan.runners.apscheduler", "auditspan.webhooks.starlette", "auditspan.connectors.singer")
    assert min(scopes[name] for name in plugins) > 100
    found = [attributes(hit) for log in logs for hit in log.entries]
    assert {item.get("automation.webhook.signature.verified") for item in found} >= {"true", "false"}
    statements = [orjson.loads(item[spans.STATEMENT]) for item in found]
    assert "gap" not in {fields["type"] for fields in statements}
    for part in ("links", "events", "trace_state"):
        assert any(fields.get(part) for fields in statements), part
    assert any(fields.get("dropped", {}).get("events") for fields in statements)


@pytest.mark.parametrize("name", SINGLE)
def test_single_documents(logs: list[Log], name: str) -> None:
    began = time.monotonic()
    for turn in range(ROUNDS):
        seed = f"{SEED}/{name}/{turn}"
        log = logs[turn % 2]
        drawn = _draw(random.Random(seed), log, name, AT_ONCE)
        wrong = _wrong(log, drawn)
        assert wrong == [], f"seed {seed}, log {log.origin}"
        done[name] += len(drawn)
    seconds[name] += time.monotonic() - began


def _wrong(log: Log, drawn: list[Mutation]) -> list[str]:
    return mutations.misses(mutations.verify(mutations.apply(log.hits, drawn), [log.key]).findings, drawn)


def _draw(chance: random.Random, log: Log, name: str, count: int) -> list[Mutation]:
    """Draw mutations of one class, each of documents that no other one touches."""
    pool = [hit for hit in log.entries if kind_of(hit) == "span"]
    chance.shuffle(pool)
    if name == "edit a personal value":  # few were erased; all of them are to be among the chosen
        pool.sort(key=lambda hit: spans.PRIVATE in attributes(hit), reverse=True)
    drawn: list[Mutation] = []
    while len(drawn) < count:
        one, two = pool.pop(), pool.pop()
        mutation = SINGLE[name](chance, one, two)
        if mutation is None:
            pool[:0] = [one, two]
        else:
            drawn.append(mutation)
    return drawn


def test_every_field_is_evidence_or_listed(logs: list[Log]) -> None:
    """Each field that any document has, of three documents, to everything it could be instead."""
    began = time.monotonic()
    chance = random.Random(SEED)
    queue: list[Mutation] = []
    names: set[str] = set()
    for log in logs[:2]:
        having: dict[str, list[tuple[Hit, mutations.Path, Any]]] = {}
        for hit in log.entries:
            if kind_of(hit) == "span":
                for path, value in mutations.fields_of(hit):
                    having.setdefault(re.sub(r"\[\d+\]", "[]", dotted(path)), []).append((hit, path, value))
        names |= having.keys()
        for found in having.values():
            for hit, path, value in chance.sample(found, min(3, len(found))):
                others = [REMOVED, *(mutations.another(chance, value) for _ in range(6))]
                if path == ("@timestamp",):
                    others = [REMOVED, *(form(value) for form in mutations.TIMES)]
                queue += [made for new in others if (made := mutations.edit_one(hit, path, value, new)) is not None]
        while queue:
            at_once: dict[str, Mutation] = {}
            for mutation in queue:
                at_once.setdefault(next(iter(mutation.replaced)), mutation)
            drawn = list(at_once.values())
            wrong = _wrong(log, drawn)
            assert wrong == [], f"seed {SEED}, log {log.origin}"
            done["every field"] += len(drawn)
            queue = [mutation for mutation in queue if mutation not in drawn]
    print(f"{len(names)} fields: {', '.join(sorted(names))}")
    everything = {
        re.sub(r"\[\d+\]", "[]", dotted(path))
        for log in logs for hit in log.entries if kind_of(hit) == "span" for path, _ in leaves(hit["_source"])
    }  # fmt: skip
    assert everything - names <= {"attributes.audit.statement", *mutations.NOT_EVIDENCE, *_only_in(logs[2], logs[:2])}
    seconds["every field"] += time.monotonic() - began


def _only_in(log: Log, others: list[Log]) -> set[str]:
    def fields(logs: list[Log]) -> set[str]:
        return {
            re.sub(r"\[\d+\]", "[]", dotted(path))
            for log in logs for hit in log.entries for path, _ in leaves(hit["_source"])
        }  # fmt: skip

    return fields([log]) - fields(others)


def test_what_is_no_evidence_is_listed(logs: list[Log]) -> None:
    """Each exception is one: the same mutation is not found. Whoever makes it evidence takes it off the list."""
    log = logs[2]

    def passes(what: str, *changes: tuple[Hit, mutations.Path, Any]) -> None:
        assert what in NO_EVIDENCE
        changed = {hit["_id"]: mutations.changed(hit, path, value) for hit, path, value in changes}
        report = mutations.verify([changed.get(hit["_id"], hit) for hit in log.hits], [log.key])
        assert (report.verdict, report.findings) == (Verdict.PASSED, []), what

    span = next(hit for hit in log.entries if kind_of(hit) == "span")
    point = log.checkpoints[-1]
    for name in ("type", "dataset", "namespace"):
        passes("data_stream.*", (span, ("data_stream", name), "x"))
    passes("attributes of other names", (span, ("attributes", "k8s.pod.name"), "x"))
    passes("fields at the root, of other names", (span, ("event",), {"ingested": "x"}))
    passes("resource.attributes of other names", (span, ("resource", "attributes", "host.name"), "x"))
    passes("resource.schema_url, where the process said none", (span, ("resource", "schema_url"), "x"))
    passes("@timestamp of a checkpoint", (point, ("@timestamp",), "1.5"))
    renamed = [{**hit, "_id": f"new-{at}", "_index": "elsewhere"} for at, hit in enumerate(log.hits)]
    random.Random(SEED).shuffle(renamed)
    assert mutations.verify(renamed, [log.key]).findings == []


@pytest.mark.parametrize("name", WHOLE)
def test_whole_logs(logs: list[Log], name: str) -> None:
    began = time.monotonic()
    log = logs[2]
    for turn in range(2 * ATTACKS):
        seed = f"{SEED}/{name}/{turn}"
        attack = WHOLE[name](random.Random(seed), log)
        if attack is None:
            continue
        assert mutations.attack_misses(attack, log) == [], f"seed {seed}, log {log.origin}"
        done[name] += 1
        if done[name] == ATTACKS:
            break
    assert done[name] == ATTACKS
    seconds[name] += time.monotonic() - began


def test_there_were_enough(request: pytest.FixtureRequest) -> None:
    print(f"seed {SEED}")
    for name, count in done.items():
        print(f"{count:7} {name} ({seconds[name]:.1f} s)")
    print(f"{sum(done.values()):7} mutations in {sum(seconds.values()):.0f} s, every one found with its reason")
    if set(done) == {*SINGLE, *WHOLE, "every field"}:
        assert sum(done.values()) >= TOTAL
    else:
        assert len(request.session.items) < 10, "only a part of the classes was run"


# -- the same in Elasticsearch itself ---------------------------------------------------------------------------------

STREAMS = {"span": "traces-audit.otel-default", "entry": "auditspan-log", "checkpoint": "auditspan-log"}
IN_PLACE = 20
ATTACKS_IN_PLACE = 3


class Store:
    """The documents of some logs in Elasticsearch, changed as somebody with all privileges would."""

    def __init__(self, api: Api, logs: list[Log]) -> None:
        self._api = api
        self._honest = {hit["_id"]: hit for log in logs for hit in log.hits}
        self._changed: dict[str, set[str]] = {}

    def roll_over(self) -> None:
        """Have a new backing index, for second deliveries: what was brought back went into the newest one."""
        for stream in sorted(set(STREAMS.values())):
            self._api("POST", f"/{stream}/_rollover")

    def place(self, replaced: dict[str, list[Hit]]) -> bool:
        """Replace documents by others: delete, overwrite in the backing index, or add to the stream.

        Returns:
            whether Elasticsearch takes them; else everything is as it was.
        """
        self._api("POST", f"/{honest.AUDIT},{honest.LOG}/_refresh")
        lines: list[str] = []
        for name, hits in replaced.items():
            stream = STREAMS[kind_of(self._honest[name])]
            self._changed.setdefault(name, set()).update(hit["_id"] for hit in hits)
            own = [hit for hit in hits if hit["_id"] == name]
            (now,) = self._found(name)
            here = {"_index": now["_index"], "_id": name}
            guarded = {**here, "if_seq_no": now["_seq_no"], "if_primary_term": now["_primary_term"]}
            if not own:
                lines.append(json.dumps({"delete": here}))
            elif own[0]["_source"] != self._honest[name]["_source"]:
                lines += [json.dumps({"index": guarded}), json.dumps(own[0]["_source"])]
            # The same ID again goes into the new backing index, as it does after a rollover.
            for hit in [*own[1:], *(hit for hit in hits if hit["_id"] != name)]:
                action = {"create": {"_index": stream, "_id": hit["_id"]}}
                lines += [json.dumps(action), json.dumps(hit["_source"])]
        results = self._api.bulk(lines)
        if all(item["status"] < 300 for item in results):
            return True
        assert all(item["status"] in (200, 201, 400) for item in results), results
        self.restore(list(replaced))
        return False

    def restore(self, names: list[str] | None = None) -> None:
        """Bring documents back that were changed (default: all)."""
        self._api("POST", f"/{honest.AUDIT},{honest.LOG}/_refresh")
        names = list(self._changed) if names is None else names
        found = [
            hit for name in names for identity in {name, *self._changed.pop(name)} for hit in self._found(identity)
        ]
        self._api.remove(found)
        self._api.put(lambda hit: STREAMS[kind_of(hit)], [self._honest[name] for name in names])

    def _found(self, identity: str) -> list[Hit]:
        query = {"query": {"ids": {"values": [identity]}}, "seq_no_primary_term": True}
        found: list[Hit] = self._api("POST", f"/{honest.AUDIT},{honest.LOG}/_search", query)["hits"]["hits"]
        return found


@pytest.fixture(scope="module")
def store(stack: Any, logs: list[Log]) -> Iterator[Store]:
    api = Api(stack.elasticsearch_url)
    yield Store(api, logs)
    api.close()


def _command(stack: Any, automations: Automations, *more: str, pinned: bool = True) -> dict[str, Any]:
    """Run the command, with the keys of the logs or with none, and return what it says."""
    command = [str(BIN / "auditspan"), "verify", "--elasticsearch", stack.elasticsearch_url, "--json", "--wait", "0"]
    for log in automations.logs if pinned else ():
        command += ["--key", str(log.directory.verifier_key)]
    result = subprocess.run([*command, *more], capture_output=True, text=True, env=honest.environment(), timeout=120)
    assert result.returncode in (0, 1, 3, 4), result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == EXIT_CODES[Verdict(found["verdict"])]
    found["findings"] = [Finding(**{**item, "code": Code(item["code"])}) for item in found["findings"]]
    return found


@pytest.mark.parametrize("name", SINGLE)
def test_single_documents_in_elasticsearch(
    stack: Any, automations: Automations, logs: list[Log], store: Store, name: str
) -> None:
    candidates = _draw(random.Random(f"{SEED}/{name}/in place"), logs[0], name, 3 * IN_PLACE)
    drawn: list[Mutation] = []
    refused = 0
    store.roll_over()
    try:
        while len(drawn) < IN_PLACE:
            mutation = candidates.pop(0)
            if store.place(mutation.replaced):
                drawn.append(mutation)
            else:
                refused += 1
        said = _command(stack, automations)["findings"]
    finally:
        store.restore()
    # There are other logs in this Elasticsearch, and other tests have altered them.
    origins = {log.origin for log in logs} | {at[0] for item in drawn for one in item.expected for at in one.places}
    names = {hit["_id"] for mutation in drawn for hits in mutation.replaced.values() for hit in hits}
    findings = [item for item in said if item.origin in origins or item.document_id in names]
    print(f"{name}: {len(drawn)} found in Elasticsearch; {refused} more it did not take")
    assert mutations.misses(findings, drawn) == []


@pytest.mark.parametrize("name", WHOLE)
def test_whole_logs_in_elasticsearch(
    stack: Any, automations: Automations, logs: list[Log], store: Store, name: str
) -> None:
    log = logs[2]
    chance = random.Random(f"{SEED}/{name}/in place")
    count = refused = 0
    while count < ATTACKS_IN_PLACE:
        attack = WHOLE[name](chance, log)
        if attack is None:
            continue
        replaced: dict[str, list[Hit]] = {hit["_id"]: [] for hit in log.hits}
        for hit in attack.hits:
            replaced[next(known for known in (hit["_id"], hit["_id"].rpartition("-")[0]) if known in replaced)].append(
                hit
            )
        same = [hit["_id"] for hit in log.hits if replaced[hit["_id"]] == [hit]]
        if not store.place({key: hits for key, hits in replaced.items() if key not in same}):
            refused += 1
            continue
        try:
            found = _command(stack, automations, "--origin", log.origin, pinned=attack.keys != ())
        finally:
            store.restore()
        codes = {item.code for item in found["findings"]} - {Code.NO_CHECKPOINT}
        if not attack.codes:
            assert codes == set(), attack.what
        elif "log.origin from" in attack.what:
            assert codes, attack.what  # a document that says it is of another log is not read here
        else:
            assert codes & attack.codes or (Code.NO_CHECKPOINT in attack.codes and not codes), (attack.what, codes)
        if attack.codes:
            assert found["verdict"] != "PASSED"
        claims = {item["claim"]: item["verdict"] for item in found["claims"]}
        assert all(claims[claim.value] != "PASSED" for claim in attack.open), attack.what
        count += 1
    print(f"{name}: {count} found in Elasticsearch; {refused} more it did not take")
    assert [
        item for item in _command(stack, automations, "--origin", log.origin)["findings"] if item.origin == log.origin
    ] == []
