# SPDX-License-Identifier: Apache-2.0
"""Faults of Elasticsearch under load, with the real parts: nothing is lost, nothing is there twice, status says it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from auditspan.devstack import Stack
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Verdict
from tests.backend.faulty import Load, Proxy, agent, status
from tests.backend.honest import AUDIT, LOG, Api, eventually
from tests.backend.test_reconcile import expected, held, there

pytestmark = [pytest.mark.backend, pytest.mark.slow, pytest.mark.timeout(900)]

HARMLESS = 1.0  # seconds that one span may take; the machine is shared, and what is looked for is waiting on a network


@dataclass
class Parts:
    """A stack of its own, that may be hurt; everything reaches Elasticsearch by a proxy."""

    real: Stack
    proxy: Proxy
    endpoint: str
    api: Api


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    named = {
        name: os.environ.pop(name, None) for name in ("AUDITSPAN_ELASTICSEARCH_URL", "AUDITSPAN_COLLECTOR_ENDPOINT")
    }
    try:
        with Stack.start(tmp_path_factory.mktemp("elasticsearch"), collector=False) as real:
            proxy = Proxy(urlsplit(real.elasticsearch_url).port or 0)
            os.environ["AUDITSPAN_ELASTICSEARCH_URL"] = proxy.url
            with Stack.start(tmp_path_factory.mktemp("collector")) as collecting:
                del os.environ["AUDITSPAN_ELASTICSEARCH_URL"]
                api = Api(real.elasticsearch_url)
                yield Parts(real, proxy, collecting.otlp_http_endpoint, api)
                api.close()
            proxy.close()
    finally:
        os.environ.update({name: value for name, value in named.items() if value is not None})


def settled(parts: Parts, directory: Directory, load: Load) -> None:
    """Everything is in the log, in Elasticsearch exactly once, verified, and status says that all is well."""
    load.stop()
    eventually(lambda: verify_directory(directory).records == load.recorded, "everything is in the log")

    def complete() -> bool:
        _, state = status(directory)
        return state["receipt"] is not None and state["receipt"]["size"] == state["sequenced"] > load.recorded

    eventually(complete, "the receipt covers the whole log", 480)
    documents = there(parts.api, directory)
    assert sorted(hit["_id"] for hit in documents) == sorted(expected(directory))  # a list: none is there twice
    assert held(documents) == expected(directory)
    key = read_verifier_key(directory.verifier_key)
    url = parts.real.elasticsearch_url
    assert verify_directory(directory, key).verdict is Verdict.PASSED
    assert verify_elasticsearch(url, key, origin=directory.origin, wait=10).verdict is Verdict.PASSED
    assert (load.errors, load.lost) == ([], 0)
    assert load.slowest < HARMLESS
    code, state = status(directory)
    assert (code, state["attention"]) == (0, [])


def attention(directory: Directory, said: str, timeout: float = 60) -> dict[str, Any]:
    """Wait until status says something, and return it."""
    found: list[dict[str, Any]] = []

    def says() -> bool:
        code, state = status(directory)
        found[:] = [state]
        return code == 3 and any(said in item for item in state["attention"])

    eventually(says, f"status says {said!r}", timeout)
    return found[0]


def test_elasticsearch_is_down_under_load_and_comes_back(parts: Parts, tmp_path: Path) -> None:
    with agent(tmp_path / "log", parts.endpoint, parts.proxy.url) as directory:
        load = Load(tmp_path / "log")
        eventually(lambda: (status(directory)[1]["receipt"] or {}).get("size", 0) > 50, "a first receipt")
        before = status(directory)[1]["receipt"]["size"]
        parts.real.stop_elasticsearch()
        down = load.recorded
        try:
            state = attention(directory, "nobody could compare Elasticsearch with the log")
            eventually(lambda: load.recorded > down + 500, "load goes on")
            state = status(directory)[1]
            # Accepted by the Collector is not the same as arrived: both are said.
            assert state["receipt"]["size"] < state["delivered"]
            assert before <= state["receipt"]["size"] <= down + 10
            assert "does not answer" in state["reconciliation_error"]
        finally:
            parts.real.start_elasticsearch()
        settled(parts, directory, load)


def test_elasticsearch_takes_no_writes_for_a_while(parts: Parts, tmp_path: Path) -> None:
    with agent(tmp_path / "log", parts.endpoint, parts.proxy.url) as directory:
        load = Load(tmp_path / "log")
        eventually(lambda: (status(directory)[1]["receipt"] or {}).get("size", 0) > 50, "a first receipt")
        for name in (AUDIT, LOG):
            parts.api("PUT", f"/{name}/_settings", {"index.blocks.write": True})
        try:
            state = attention(directory, "takes no writes (index.blocks.write)")
            assert state["receipt"]["missing"] > 0
            assert state["receipt"]["size"] < state["sequenced"]
        finally:
            for name in (AUDIT, LOG):
                parts.api("PUT", f"/{name}/_settings", {"index.blocks.write": None})
        settled(parts, directory, load)


def test_records_that_the_mapping_refuses_are_named_and_come_when_it_is_mended(parts: Parts, tmp_path: Path) -> None:
    with agent(tmp_path / "log", parts.endpoint, parts.proxy.url) as directory:
        load = Load(tmp_path / "log")
        eventually(lambda: (status(directory)[1]["receipt"] or {}).get("size", 0) > 50, "a first receipt")
        name = "test.refused"

        def strict(refuses: bool) -> dict[str, Any]:
            field = {"type": "long", "ignore_malformed": not refuses}
            return {"properties": {"attributes": {"type": "passthrough", "priority": 10, "properties": {name: field}}}}

        parts.api("PUT", f"/{AUDIT}/_mapping", strict(True))
        bad = Load(tmp_path / "log", rate=20, **{name: "no number"})
        eventually(lambda: bad.recorded >= 5, "some records that do not fit")
        bad.stop()
        eventually(lambda: len(_with(directory, name)) == bad.recorded, "they are in the log")
        attention(directory, f"its attribute {name} does not fit the mapping")
        eventually(lambda: _open(directory) == _with(directory, name), "status names all of them, and no other")
        state = status(directory)[1]
        assert {item["state"] for item in state["receipt"]["open"]} == {"refused"}
        parts.api("PUT", f"/{AUDIT}/_mapping", strict(False))
        load.recorded += bad.recorded
        settled(parts, directory, load)


def _with(directory: Directory, name: str) -> set[int]:
    """The indexes of the entries that say something."""
    return {
        block.batch.first + offset
        for block in reader.batches(directory.log)
        for offset, statement in enumerate(block.statements)
        if name.encode() in statement
    }


def _open(directory: Directory) -> set[int]:
    found = status(directory)[1]["receipt"]["open"]
    return {index for item in found for index in range(item["first"], item["last"] + 1)}


def test_elasticsearch_is_slow(parts: Parts, tmp_path: Path) -> None:
    with agent(tmp_path / "log", parts.endpoint, parts.proxy.url) as directory:
        load = Load(tmp_path / "log")
        eventually(lambda: (status(directory)[1]["receipt"] or {}).get("size", 0) > 50, "a first receipt")
        parts.proxy.delay = 2.0
        try:
            time.sleep(12)
            state = status(directory)[1]
            # Late, and said to be: what was not seen is not claimed.
            assert state["receipt"]["size"] < state["sequenced"]
            assert state["receipt"]["size"] <= len(held(there(parts.api, directory)))
        finally:
            parts.proxy.delay = 0.0
        settled(parts, directory, load)
