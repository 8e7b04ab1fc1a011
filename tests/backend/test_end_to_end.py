# SPDX-License-Identifier: Apache-2.0
"""The spine: one delivery, one job, one connector, two processes; a real Collector, a real Elasticsearch."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from auditspan import schema
from auditspan.cli import main
from auditspan.cli.demo import EXAMPLE, example_folder
from auditspan_seal import spans
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.elasticsearch import verify_documents, verify_elasticsearch
from auditspan_seal.verify.report import Code, Finding, Report, Verdict
from tests.conftest import BIN, OURS

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

AUDIT = "traces-audit*.otel-*"
OTHERS = "traces-generic*.otel-*"


@contextlib.contextmanager
def service(stack: Any, folder: Path, **settings: str) -> Iterator[str]:
    """Run the example's service, untouched, under ``opentelemetry-instrument``; its spans go to the Collector too."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(OURS) and k != "PYTHONPATH"}
    environment |= {
        "AUDITSPAN_DIR": str(folder / "auditspan"),
        "AUDITSPAN_REQUIRED": "true",
        "OTEL_SERVICE_NAME": EXAMPLE,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http_endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    command = [str(BIN / "opentelemetry-instrument"), sys.executable, str(example_folder() / "service.py")]
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "service.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--port", "0", "--data", str(folder / "data")],
            stdout=subprocess.PIPE, stderr=log, env=environment, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("listening on "))
        yield line.split()[-1]
    finally:
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0, (folder / "service.log").read_text()


def deliver(url: str) -> None:
    done = subprocess.run(
        [sys.executable, str(example_folder() / "deliver.py"), url], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stdout + done.stderr


def eventually(check: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.3)


@dataclass(frozen=True)
class Story:
    """One run of the example, delivered."""

    client: Elasticsearch
    url: str
    directory: Directory
    key: VerifierKey

    def verify(self, wait: float = 0) -> Report:
        # Other tests of the session write other logs into the same streams; this story is one of them.
        return verify_elasticsearch(self.url, self.key, origin=self.directory.origin, wait=wait)

    def documents(self) -> list[dict[str, Any]]:
        return self.search(AUDIT, {"term": {f"attributes.{spans.ORIGIN}": self.directory.origin}})

    def log_documents(self, kind: str) -> list[dict[str, Any]]:
        own = {"term": {f"attributes.{spans.ORIGIN}": self.directory.origin}}
        query = {"bool": {"filter": [own, {"term": {f"attributes.{spans.DOCUMENT}": kind}}]}}
        found = self.search("auditspan-log*", query)
        return sorted(found, key=lambda hit: hit["_source"]["attributes"].get(spans.SIZE, -1))

    def search(self, index: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        self.client.indices.refresh(index=f"{AUDIT},{OTHERS},auditspan-log*", ignore_unavailable=True)
        found = self.client.search(index=index, query=query, size=500, ignore_unavailable=True)
        return sorted(found["hits"]["hits"], key=lambda hit: hit["_source"]["attributes"].get(spans.INDEX, -1))


@pytest.fixture(scope="module")
def told(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("story")
    with service(stack, folder) as url:
        deliver(url)
    directory = open_directory(folder / "auditspan")
    told = Story(
        Elasticsearch(stack.elasticsearch_url),
        stack.elasticsearch_url,
        directory,
        read_verifier_key(directory.verifier_key),
    )
    records = verify_directory(directory, told.key).records
    eventually(lambda: len(told.documents()) == records, "every record is in Elasticsearch")
    yield told
    told.client.close()


def attributes(hit: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = hit["_source"]["attributes"]
    return found


def test_every_record_says_what_a_record_must_say(told: Story) -> None:
    documents = told.documents()
    assert {attributes(hit)[schema.ACTION] for hit in documents} == {"START", "RECEIVE", "EXECUTE", "READ", "WRITE"}
    for hit in documents:
        assert schema.missing(attributes(hit)) == []
        assert attributes(hit)[schema.SCRIPT_VERSION] != schema.UNKNOWN
        assert hit["_source"]["data_stream"]["dataset"] == "audit.otel"
        assert hit["_index"].startswith(".ds-traces-audit.otel-default-")


def test_one_query_by_run_id_returns_the_whole_run_across_both_processes(told: Story) -> None:
    documents = told.documents()
    (run_id,) = {attributes(hit)[schema.RUN_ID] for hit in documents}
    found = told.search("traces-*", {"term": {f"attributes.{schema.RUN_ID}": run_id}})
    assert [hit["_id"] for hit in found] == [hit["_id"] for hit in documents]
    assert len({attributes(hit)[spans.STREAM] for hit in found}) == 2
    assert {attributes(hit)[schema.TRIGGER_TYPE] for hit in found} == {"webhook"}
    (rule,) = {attributes(hit)[schema.TRIGGER_RULE] for hit in found}
    assert "/hooks/dataset" in rule


def test_one_query_by_trace_id_returns_the_whole_story(told: Story) -> None:
    (trace_id,) = {hit["_source"]["trace_id"] for hit in told.documents()}
    eventually(lambda: bool(told.search(OTHERS, {"term": {"trace_id": trace_id}})), "the other spans of the trace")
    found = told.search("traces-*", {"term": {"trace_id": trace_id}})
    streams = {hit["_index"].split("-default-")[0] for hit in found}
    assert streams == {".ds-traces-audit.otel", ".ds-traces-generic.otel"}
    ids = [hit["_source"]["span_id"] for hit in found]
    assert len(ids) == len(set(ids)), "a span is there twice"
    for hit in found:
        sealed = spans.STATEMENT in attributes(hit)
        assert sealed is (schema.RECORD_ID in attributes(hit)) is ("audit" in hit["_index"])
    # Every record but the first has its nearest audit ancestor in the same story.
    records = {attributes(hit)[schema.RECORD_ID] for hit in told.documents()}
    parents = [attributes(hit).get(schema.PARENT_RECORD_ID) for hit in told.documents()]
    assert parents.count(None) == 1
    assert {parent for parent in parents if parent} <= records


def test_it_verifies_from_the_documents_alone(told: Story) -> None:
    report = told.verify(wait=20)
    assert (report.findings, report.compared, report.trust) == ([], True, "pinned")
    assert report.logs[told.directory.origin] == len(told.documents()) + 1  # and the genesis entry


ALTERATIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "name": lambda d: d.update(name="something else"),
    "trace_id": lambda d: d.update(trace_id="0" * 31 + "1"),
    "span_id": lambda d: d.update(span_id="0" * 15 + "1"),
    "kind": lambda d: d.update(kind="Producer"),
    "duration": lambda d: d.update(duration=d["duration"] + 1),
    "@timestamp": lambda d: d.update({"@timestamp": str(int(d["@timestamp"].split(".")[0]) + 1) + ".1"}),
    "status.code": lambda d: d.update(status={"code": "Error"}),
    f"attributes.{schema.OUTCOME}": lambda d: d["attributes"].update({schema.OUTCOME: "failure"}),
    f"attributes.{schema.RUN_ID}": lambda d: d["attributes"].update({schema.RUN_ID: "another run"}),
    f"attributes.{schema.SCRIPT_VERSION}": lambda d: d["attributes"].update({schema.SCRIPT_VERSION: "9.9"}),
    f"attributes.{schema.TRIGGER_RULE}": lambda d: d["attributes"].update({schema.TRIGGER_RULE: "nobody asked"}),
    f"attributes.{schema.ACTOR_ID}": lambda d: d["attributes"].update({schema.ACTOR_ID: "mallory"}),
    f"attributes.{schema.TARGET_ID}": lambda d: d["attributes"].update({schema.TARGET_ID: "another"}),
    f"attributes.{schema.MESSAGE}": lambda d: d["attributes"].update({schema.MESSAGE: ""}),
    f"attributes.{schema.RATIONALE}": lambda d: d["attributes"].update({schema.RATIONALE: "it was approved"}),
    f"attributes.{spans.INDEX}": lambda d: d["attributes"].update({spans.INDEX: 4711}),
    "attributes.audit.statement": lambda d: d["attributes"].update(
        {spans.STATEMENT: d["attributes"][spans.STATEMENT].replace('"success"', '"failure"')}
    ),
    "resource.attributes.service.name": lambda d: d["resource"]["attributes"].update({"service.name": "x"}),
    "scope.name": lambda d: d["scope"].update(name="x"),
}


@pytest.mark.parametrize("field", ALTERATIONS)
def test_altering_a_document_turns_red_and_restoring_it_green(told: Story, field: str) -> None:
    for hit in told.documents()[:: max(1, len(told.documents()) - 1)]:  # the first and the last record
        place = {"index": hit["_index"], "id": hit["_id"], "refresh": True}
        altered: dict[str, Any] = _copy(hit["_source"])
        ALTERATIONS[field](altered)
        told.client.update(**place, doc=altered)
        found = told.verify().findings
        told.client.index(**place, document=hit["_source"], **_version(told, hit))
        index = attributes(hit)[spans.INDEX]
        assert all(finding.index == index for finding in found), found
        if field == "attributes.audit.statement":
            assert {f.code for f in found} >= {Code.STATEMENT_ALTERED}
            continue
        (finding,) = found
        assert (finding.code, finding.field, finding.document_id) == (Code.FIELD_MISMATCH, field, hit["_id"])
    assert told.verify().findings == []


# What others may change without touching what was signed (the document's own name for where it is stored).
NOT_SIGNED = {"data_stream.type", "data_stream.dataset", "data_stream.namespace"}


def leaves(document: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def other(value: Any) -> Iterator[Any]:
    """Values that are not `value`, of its own and of other types."""
    if isinstance(value, bool):
        yield from (not value, str(value))
    elif isinstance(value, int):
        yield from (value + 1, str(value), float(value) + 0.5)
    elif isinstance(value, str):
        yield from (value + "x", value[:-1], value.swapcase() + " ", 0)
    yield None


def test_every_field_of_every_document_counts(told: Story) -> None:
    """On the real documents, without writing each of several thousand alterations to Elasticsearch."""
    honest = [*told.documents(), *told.log_documents("entry"), *told.log_documents("checkpoint")]
    altered = 0
    for position, hit in enumerate(honest):
        for path, value in leaves(hit["_source"]):
            if ".".join(path) in NOT_SIGNED or attributes(hit).get(spans.DOCUMENT) == "checkpoint":
                continue
            sealed = spans.DOCUMENT not in attributes(hit)
            if not sealed and path[-1] not in (spans.STATEMENT, spans.ORIGIN, spans.INDEX):
                continue  # of an entry that is no span only these are shown
            for replacement in other(value):
                if value == replacement or (value == [] and replacement is None):
                    continue
                document = _copy(hit["_source"])
                holder = document
                for step in path[:-1]:
                    holder = holder[step]
                holder[path[-1]] = replacement
                hits = [*honest[:position], {**hit, "_source": document}, *honest[position + 1 :]]
                report = verify_documents(hits, told.url, told.key)
                assert report.verdict is not Verdict.PASSED, (path, value, replacement)
                altered += 1
    print(f"{altered} alterations, all found")
    assert altered > 500
    assert verify_documents(honest, told.url, told.key).verdict is Verdict.PASSED


def _copy(document: dict[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, dict) else value for key, value in document.items()}


def _version(told: Story, hit: dict[str, Any]) -> dict[str, int]:
    now = told.client.get(index=hit["_index"], id=hit["_id"])
    return {"if_seq_no": now["_seq_no"], "if_primary_term": now["_primary_term"]}


def test_deleting_a_document_turns_red_and_restoring_it_green(told: Story) -> None:
    for hit in told.documents():
        told.client.delete(index=hit["_index"], id=hit["_id"], refresh=True)
        found: list[Finding] = told.verify().findings
        stream = hit["_source"]["data_stream"]
        told.client.create(
            index=f"traces-{stream['dataset']}-{stream['namespace']}",
            id=hit["_id"],
            document=hit["_source"],
            refresh=True,
        )
        assert [(f.code, f.index) for f in found] == [(Code.ENTRY_MISSING, attributes(hit)[spans.INDEX])]
    assert told.verify().findings == []


CHECKPOINT_ALTERATIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    spans.NOTE: lambda a: a.update({spans.NOTE: a[spans.NOTE].replace("\n\n", "\nx\n\n")}),
    spans.FIRST: lambda a: a.update({spans.FIRST: a[spans.FIRST] + 1}),
    spans.LEAVES: lambda a: a.update({spans.LEAVES: "A" * 43 + "="}),
    spans.FRONTIER: lambda a: a.update({spans.FRONTIER: "not base64"}),
    spans.DOCUMENT: lambda a: a.update({spans.DOCUMENT: "entry"}),
}


@pytest.mark.parametrize("name", CHECKPOINT_ALTERATIONS)
def test_altering_a_checkpoint_turns_red_and_restoring_it_green(told: Story, name: str) -> None:
    for hit in told.log_documents("checkpoint"):
        altered: dict[str, Any] = _copy(hit["_source"])
        CHECKPOINT_ALTERATIONS[name](altered["attributes"])
        place = {"index": hit["_index"], "id": hit["_id"], "refresh": True}
        told.client.update(**place, doc=altered)
        report = told.verify()
        told.client.index(**place, document=hit["_source"], **_version(told, hit))
        assert report.verdict is Verdict.FAILED
    assert told.verify().findings == []


def test_deleting_a_log_document_is_found(told: Story) -> None:
    checkpoints = told.log_documents("checkpoint")
    assert len(checkpoints) >= 3
    for hit in (*checkpoints, *told.log_documents("entry")):
        told.client.delete(index=hit["_index"], id=hit["_id"], refresh=True)
        codes = {finding.code for finding in told.verify().findings}
        told.client.create(index="auditspan-log", id=hit["_id"], document=hit["_source"], refresh=True)
        if hit is checkpoints[-1]:
            assert codes == {Code.ENTRY_UNCOVERED}  # nothing in Elasticsearch can say more about its own end
        elif attributes(hit)[spans.DOCUMENT] == "checkpoint":
            assert codes == {Code.CHECKPOINT_MISSING}
        else:
            assert codes == {Code.ENTRY_MISSING}
    assert told.verify().findings == []


def test_a_document_that_is_not_ours_is_named(told: Story) -> None:
    hit = told.documents()[0]
    forged: dict[str, Any] = _copy(hit["_source"])
    del forged["attributes"][spans.STATEMENT]
    stream = f"traces-{forged['data_stream']['dataset']}-{forged['data_stream']['namespace']}"
    told.client.create(index=stream, id="forged", document=forged, refresh=True)
    found = told.verify().findings
    told.client.delete(index=hit["_index"], id="forged", refresh=True)
    assert [(f.code, f.document_id) for f in found] == [(Code.FOREIGN_DOCUMENT, "forged")]
    assert told.verify().findings == []


def test_a_copied_document_is_named(told: Story) -> None:
    hit = told.documents()[1]
    stream = hit["_source"]["data_stream"]
    told.client.create(
        index=f"traces-{stream['dataset']}-{stream['namespace']}", id="copy", document=hit["_source"], refresh=True
    )
    found = told.verify().findings
    told.client.delete(index=hit["_index"], id="copy", refresh=True)
    assert [(f.code, f.index) for f in found] == [(Code.DUPLICATE_DOCUMENT, attributes(hit)[spans.INDEX])]


def test_the_command_says_the_same(told: Story) -> None:
    key = str(told.directory.verifier_key)
    done = subprocess.run(
        [str(BIN / "auditspan"), "show", attributes(told.documents()[0])[schema.RUN_ID], "--elasticsearch", told.url],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "RECEIVE" in done.stdout
    done = subprocess.run(
        [str(BIN / "auditspan"), "verify", "--elasticsearch", told.url, "--key", key, "--wait", "0"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr


def test_one_record_can_be_proven_from_the_documents(told: Story, tmp_path: Path) -> None:
    for hit in told.documents():
        span = hit["_source"]["span_id"]
        assert main(["prove", span, "--elasticsearch", told.url, "--out", str(tmp_path)]) == 0
        assert main(["verify", str(tmp_path / f"{span}.tlog-proof"), "--key", str(told.directory.verifier_key)]) == 0


def test_always_off_gives_the_same_records_and_no_span_to_the_users_exporter(
    told: Story, stack: Any, tmp_path: Path
) -> None:
    with service(stack, tmp_path, OTEL_TRACES_SAMPLER="always_off") as url:
        deliver(url)
    directory = open_directory(tmp_path / "auditspan")
    silent = Story(told.client, told.url, directory, read_verifier_key(directory.verifier_key))
    assert verify_directory(directory).records == len(told.documents())
    eventually(lambda: len(silent.documents()) == len(told.documents()), "every record is in Elasticsearch")
    assert silent.verify(wait=20).findings == []
    traces = {hit["_source"]["trace_id"] for hit in silent.documents()}
    time.sleep(2)
    assert silent.search(OTHERS, {"terms": {"trace_id": sorted(traces)}}) == []


def test_the_collector_is_away_during_the_run(told: Story, stack: Any, tmp_path: Path) -> None:
    stack.stop_collector()
    try:
        with service(stack, tmp_path) as url:
            deliver(url)
            directory = open_directory(tmp_path / "auditspan")
            eventually(lambda: verify_directory(directory).records >= len(told.documents()), "recorded and signed")
    finally:
        stack.start_collector()
    late = Story(told.client, told.url, directory, read_verifier_key(directory.verifier_key))
    assert late.documents() == []
    # The service is gone. Whoever runs next on the directory delivers; here it is the agent.
    done = subprocess.run(
        [str(BIN / "auditspan"), "agent", "--once", str(directory.path)], capture_output=True, text=True,
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http_endpoint},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = verify_directory(directory).records
    eventually(lambda: len(late.documents()) == records, "nothing is missing")
    assert late.verify(wait=20).findings == []
    # Sent again from the start: nothing is doubled.
    directory.delivery.unlink()
    subprocess.run(
        [str(BIN / "auditspan"), "agent", "--once", str(directory.path)], check=True, capture_output=True,
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http_endpoint},
    )  # fmt: skip
    time.sleep(3)
    assert len(late.documents()) == records
    assert late.verify(wait=20).findings == []
    assert late.verify().verdict in (
        Verdict.PASSED,
        Verdict.FAILED,
    )  # of other logs in the same streams, not of this one


def test_the_collector_comes_back_while_the_service_runs(told: Story, stack: Any, tmp_path: Path) -> None:
    with service(stack, tmp_path) as url:
        stack.stop_collector()
        try:
            deliver(url)
        finally:
            stack.start_collector()
        directory = open_directory(tmp_path / "auditspan")
        back = Story(told.client, told.url, directory, read_verifier_key(directory.verifier_key))
        eventually(lambda: len(back.documents()) >= len(told.documents()), "delivered by the service itself")
    assert back.verify(wait=20).findings == []
