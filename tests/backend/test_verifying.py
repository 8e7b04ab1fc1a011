# SPDX-License-Identifier: Apache-2.0
"""Verification of what is in a real Elasticsearch: in several processes, in parts, and from where it was last time."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from auditspan_seal import spans
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify import elasticsearch as stored
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.elasticsearch import documents, verify_documents, verify_elasticsearch
from auditspan_seal.verify.journey import Journey, Since
from auditspan_seal.verify.report import Code, Report, Verdict
from auditspan_seal.verify.state import StateFile
from auditspan_seal.witness.trusted import TrustedCheckpoint
from tests.conftest import BIN
from tests.seal.verifying import codes

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "WORTH_IT", 0)
    monkeypatch.setattr(stored, "SLICE", 7)


@pytest.fixture
def delivered(stack: Any, make_records: Callable[..., Directory]) -> Iterator[tuple[str, Directory]]:
    for run in "abcde":
        directory = make_records(6, **{"automation.run.id": f"{run}-{time.time_ns()}"})
    deliver(stack, directory)
    yield stack.elasticsearch_url, directory


def deliver(stack: Any, directory: Directory) -> None:
    subprocess.run(
        [str(BIN / "auditspan"), "agent", "--once", str(directory.path)], check=True, capture_output=True,
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http_endpoint},
    )  # fmt: skip


def test_a_log_of_which_nothing_has_arrived_yet_is_waited_for(
    stack: Any, make_records: Callable[..., Directory]
) -> None:
    directory = make_records(3)
    later = threading.Timer(2, deliver, (stack, directory))
    later.start()
    report = verify_elasticsearch(stack.elasticsearch_url, origin=directory.origin, wait=30, trust=trust(directory))
    later.join()
    assert (report.verdict, report.records) == (Verdict.PASSED, 3), report.findings


def trust(directory: Directory, *seen: TrustedCheckpoint) -> Trust:
    return Trust([read_verifier_key(directory.verifier_key)], checkpoints=seen)


def test_slices_parts_and_what_is_new(
    delivered: tuple[str, Directory], stack: Any, make_records: Callable[..., Directory], small_slices: None,
    tmp_path: Path, elasticsearch: Elasticsearch,
) -> None:  # fmt: skip
    url, directory = delivered
    client = elasticsearch
    own = {"term": {f"attributes.{spans.ORIGIN}": directory.origin}}

    def verify(jobs: int = 1, wait: float = 0, seen: tuple[TrustedCheckpoint, ...] = (), **way: Any) -> Report:
        journey = Journey(**way)
        return verify_elasticsearch(
            url, origin=directory.origin, wait=wait, trust=trust(directory, *seen), jobs=jobs, journey=journey
        )

    deadline = time.monotonic() + 60
    while verify().records == 0:
        assert time.monotonic() < deadline, "nothing was delivered"
        time.sleep(0.5)
    one = verify(wait=30)
    assert (one.findings, one.records, one.logs) == ([], 30, {directory.origin: 31})
    assert verify(jobs=2).as_json() == one.as_json()

    # one run, and since an index or a time
    hit = client.search(index="traces-audit*", query=own, size=1)["hits"]["hits"][0]["_source"]
    report = verify(run=hit["attributes"]["automation.run.id"])
    assert (report.findings, report.records) == ([], 6)
    report = verify(since=Since.parse("20"))
    assert (report.findings, report.records <= 20, report.records >= 11) == ([], True, True)
    assert verify(since=Since.parse("2000-01-01"), jobs=2).records == 30
    assert verify(since=Since.parse("2100-01-01")).verdict is Verdict.PASSED

    # what is new since last time
    state = tmp_path / "state.json"
    assert verify(state=StateFile(state)).records == 30
    make_records(4)
    deliver(stack, directory)
    deadline = time.monotonic() + 60
    while verify().records < 34 and time.monotonic() < deadline:  # what is not there yet, nothing tells
        time.sleep(0.5)
    report = verify(state=StateFile(state), wait=10)
    assert (report.findings, report.records, report.anchors) == ([], 34, {directory.origin: 31})

    # a second place
    beyond = TrustedCheckpoint(directory.origin, 99, bytes(32), "the archive", None, ())
    assert codes(verify(seen=(beyond,))) == {(Code.LOG_TRUNCATED, 35)}
    other = TrustedCheckpoint(directory.origin, 17, bytes(32), "the archive", None, ())
    assert codes(verify(seen=(other,), jobs=2)) == {(Code.HISTORY_REWRITTEN, 17)}

    # tampering: sorted there, sorted here and in several processes it is the same that is found
    def restored(change: Callable[[dict[str, Any]], None], position: int) -> None:
        found = client.search(index="traces-audit*", query=own, size=100, sort=[{f"attributes.{spans.INDEX}": "asc"}])
        at = found["hits"]["hits"][position]
        changed = {**at["_source"], "attributes": dict(at["_source"]["attributes"])}
        change(changed["attributes"])
        client.index(index=at["_index"], id=at["_id"], document=changed, refresh=True, **_version(client, at))
        reports = [verify(), verify(jobs=2), verify_documents(documents(client, own), url, trust=trust(directory))]
        client.index(index=at["_index"], id=at["_id"], document=at["_source"], refresh=True, **_version(client, at))
        assert len({str(report.findings) for report in reports}) == 1
        assert reports[0].verdict is Verdict.FAILED

    restored(lambda a: a.update({"audit.outcome": "failure"}), 12)
    restored(lambda a: a.update({spans.INDEX: 4711}), 12)
    restored(lambda a: a.update({spans.INDEX: "x"}), 12)
    restored(lambda a: a.pop(spans.INDEX), 12)
    restored(lambda a: a.update({spans.INDEX: 2}), 12)
    restored(lambda a: a.update({spans.STATEMENT: a[spans.STATEMENT].replace("success", "failure")}), 12)
    restored(lambda a: a.pop(spans.STATEMENT), 12)
    assert verify(jobs=2).findings == []


def _version(client: Elasticsearch, hit: dict[str, Any]) -> dict[str, int]:
    now = client.get(index=hit["_index"], id=hit["_id"])
    return {"if_seq_no": now["_seq_no"], "if_primary_term": now["_primary_term"]}
