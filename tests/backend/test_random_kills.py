# SPDX-License-Identifier: Apache-2.0
"""Elasticsearch and the Collector are killed and started again at random, under load: none missing, none twice.

Both are killed with SIGKILL, each in its own time, so that they are away alone and together. Meanwhile two processes
record into one log directory, whose log holds what the Collector has not accepted; the Collector's queue on disk holds
what Elasticsearch has not taken. ``AUDITSPAN_KILL_MINUTES`` says for how long, ``AUDITSPAN_KILL_SEED`` with which dice.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
from auditspan.devstack import system
from auditspan.devstack.collector import CollectorProcess, Ports
from auditspan.devstack.elasticsearch import ElasticsearchProcess, install_templates
from auditspan.devstack.errors import DevStackError
from auditspan_seal import spans
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.standing import look
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.elasticsearch import verify_elasticsearch
from auditspan_seal.verify.report import Verdict
from tests.backend.faulty import status
from tests.backend.honest import Api, environment, eventually, run
from tests.backend.test_reconcile import expected, held, there
from tests.conftest import BIN
from tests.environments import ROOT

MINUTES = float(os.environ.get("AUDITSPAN_KILL_MINUTES", "0.6"))
SEED = int(os.environ.get("AUDITSPAN_KILL_SEED", str(random.SystemRandom().randrange(10**6))))
pytestmark = [pytest.mark.backend, pytest.mark.slow, pytest.mark.timeout(900 + 120 * MINUTES)]

WRITERS = 2
RATE = 50  # spans a second, of each writer
HARMLESS = 2.0  # seconds; the machine is shared, and what is looked for is waiting on a network


@dataclass
class Victim:
    """A part that is killed and started again, at random times, until it has been long enough."""

    name: str
    part: system.Part
    port: int
    up: tuple[float, float]
    down: tuple[float, float]
    dice: random.Random
    kills: int = 0
    alone: int = 0
    """Kills while the other one was there; the rest: while both were away."""
    away: bool = False
    errors: list[BaseException] = field(default_factory=list)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        process = self.part.state()["pid"]
        assert isinstance(process, int)
        self.away = True
        os.killpg(process, signal.SIGKILL)
        self.kills += 1
        self.part.stop()  # it is gone: this only forgets it
        eventually(self._is_gone, f"{self.name} is gone", 30)

    def start(self) -> None:
        """Start it again, on the same data, and wait until it answers."""
        self.part.start()
        self.away = False

    def run(self, going_on: Callable[[], bool], other: Victim, over: threading.Event) -> None:
        """Kill and start as long as it goes on; what was started lives as long as this thread does."""
        try:
            while not over.wait(self.dice.uniform(*self.up)) and going_on():
                self.alone += not other.away
                self.kill()
                over.wait(self.dice.uniform(*self.down))
                self.start()
        except BaseException as error:
            self.errors.append(error)
        over.wait()  # a part is told to end when the thread that started it ends

    def _is_gone(self) -> bool:
        with contextlib.suppress(DevStackError):
            system.require_free(self.port)
            return True
        return False


@dataclass
class Seen:
    """How much was in the queues at most."""

    in_the_log: int = 0
    """Entries that the Collector had not accepted."""
    in_the_collector: float = 0.0
    """Bytes that Elasticsearch had not taken, in the Collector's queues."""

    def look(self, directory: Directory, metrics: int) -> None:
        self.in_the_log = max(self.in_the_log, look(directory).pending)
        self.in_the_collector = max(self.in_the_collector, _queued(metrics) or 0.0)


def _queued(metrics: int) -> float | None:
    """Return how many bytes are in the queues of the Collector; None: it is away just now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=2) as answer:
            found = answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    sizes = re.findall(r'^otelcol_exporter_queue_size\{[^}]*exporter="elasticsearch/[^}]*\} (\S+)', found, re.MULTILINE)
    return sum(map(float, sizes)) if sizes else None


@dataclass
class Parts:
    """What is hurt, and how it is reached."""

    elasticsearch: ElasticsearchProcess
    collector: CollectorProcess
    elasticsearch_port: int
    ports: Ports

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports.http}"


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    port, *others = system.free_ports(5)
    elasticsearch = ElasticsearchProcess(tmp_path, port, False, heap="512m")
    ports = Ports(*others)
    collector = CollectorProcess(tmp_path, elasticsearch.url, ports, False)
    try:
        elasticsearch.start()
        install_templates(elasticsearch.url)
        collector.start()
        yield Parts(elasticsearch, collector, port, ports)
    finally:
        collector.close()
        elasticsearch.close()


def test_nothing_is_missing_and_nothing_twice_after_random_kills(parts: Parts, tmp_path: Path) -> None:
    path = tmp_path / "log"
    dice = random.Random(SEED)
    elasticsearch = Victim(
        "Elasticsearch", parts.elasticsearch, parts.elasticsearch_port, (4, 12), (0.5, 5), random.Random(dice.random())
    )
    collector = Victim(
        "the Collector", parts.collector, parts.ports.http, (1, 7), (0.2, 3), random.Random(dice.random())
    )
    ledgers = [tmp_path / f"ledger-{number}" for number in range(WRITERS)]
    env = environment(parts.endpoint, AUDITSPAN_DIR=str(path))
    writers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.backend.load", str(RATE), str(ledger)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=ROOT,
        )
        for ledger in ledgers
    ]  # fmt: skip
    over = threading.Event()
    threads: list[threading.Thread] = []
    try:
        eventually(lambda: (path / "checkpoint").exists(), "the log has begun")
        directory = open_directory(path)
        end = time.monotonic() + 60 * MINUTES

        def going_on() -> bool:
            # However quick or slow a machine starts them: each was killed, and the Collector with a queue, too.
            enough = elasticsearch.kills >= 1 and collector.alone >= 1 and collector.kills > collector.alone
            return time.monotonic() < end or not enough

        seen = Seen()
        threads += [
            threading.Thread(target=one.run, args=(going_on, other, over), name=one.name)
            for one, other in ((elasticsearch, collector), (collector, elasticsearch))
        ]
        for thread in threads:
            thread.start()
        while going_on() or elasticsearch.away or collector.away:
            assert not [*elasticsearch.errors, *collector.errors]
            assert [writer.poll() for writer in writers] == [None] * WRITERS
            seen.look(directory, parts.ports.metrics)
            time.sleep(0.5)
        fared = [_end(writer) for writer in writers]
        recorded = [line for ledger in ledgers for line in ledger.read_text().split()]
        said = (
            f"seed {SEED}: Elasticsearch killed {elasticsearch.kills} times, the Collector {collector.kills} times "
            f"({collector.kills - collector.alone} of them while Elasticsearch was away); {len(recorded)} records by "
            f"{WRITERS} processes; at most {seen.in_the_log} entries in the log waiting for the Collector, and "
            f"{seen.in_the_collector:.0f} bytes in its queue; longest end() {max(f['longest'] for f in fared):.3f} s"
        )
        print(said)
        run([str(BIN / "auditspan"), "agent", "--once", str(directory.path)], env=env)
        # What is on its way is not missing: else nobody could tell what a queue has lost from what it had not sent yet.
        eventually(lambda: _queued(parts.ports.metrics) == 0, "the Collector has sent all that it has", 600)
        reconciled = _reconcile(directory, parts, env)
        outcome = {name: reconciled[name] for name in ("state", "sequenced", "hashed", "copies", "resent")}
        lost = sum(item["count"] for item in reconciled["returned"])
        print(f"reconciliation: {json.dumps(outcome)}; the Collector had lost {lost}, all of them brought back")
        _nothing_missing_nothing_twice(directory, parts, recorded, reconciled)
        # Both queues were at work, or nothing was shown.
        assert seen.in_the_log > RATE, said
        assert seen.in_the_collector > 0, said
        # The applications have not noticed.
        assert [item["ended"] for item in fared] == [len(ledger.read_text().split()) for ledger in ledgers]
        assert max(item["longest"] for item in fared) < HARMLESS, said
        assert max(item["closing"] for item in fared) < 15, said
    finally:
        for writer in writers:
            if writer.poll() is None:
                writer.kill()
            writer.communicate()
        over.set()
        for thread in threads:
            thread.join(240)


def _end(writer: subprocess.Popen[str]) -> dict[str, Any]:
    """End a writer, and return how it fared."""
    output, errors = writer.communicate("", timeout=60)
    assert writer.returncode == 0, errors
    assert "Traceback" not in errors, errors
    found: dict[str, Any] = json.loads(output)
    return found


def _reconcile(directory: Directory, parts: Parts, env: dict[str, str]) -> dict[str, Any]:
    """Reconcile, as an operator does it."""
    command = ["backend", "reconcile", str(directory.path), "--elasticsearch", parts.elasticsearch.url, "--full"]
    found: dict[str, Any] = json.loads(run([str(BIN / "auditspan"), *command, "--wait", "60", "--json"], env=env))
    return found


def _nothing_missing_nothing_twice(
    directory: Directory, parts: Parts, recorded: list[str], reconciled: dict[str, Any]
) -> None:
    assert (reconciled["state"], reconciled["open"], reconciled["pending"]) == ("complete", [], 0)
    api = Api(parts.elasticsearch.url)
    documents = there(api, directory)
    api.close()
    # By the log: every entry and checkpoint, as it is there, once.
    assert sorted(hit["_id"] for hit in documents) == sorted(expected(directory))
    assert held(documents) == expected(directory)
    said = [hit["_source"]["attributes"] for hit in documents]
    indexes = Counter(item[spans.INDEX] for item in said if spans.INDEX in item)
    assert indexes == Counter(range(reconciled["sequenced"]))
    # By the applications' own ledgers.
    assert Counter(item[schema.RECORD_ID] for item in said if schema.RECORD_ID in item) == Counter(recorded)
    key = read_verifier_key(directory.verifier_key)
    of_log = verify_directory(directory, key)
    assert (of_log.verdict, of_log.records) == (Verdict.PASSED, len(recorded))
    of_documents = verify_elasticsearch(parts.elasticsearch.url, key, origin=directory.origin, wait=10)
    assert (of_documents.verdict, of_documents.records, of_documents.findings) == (Verdict.PASSED, len(recorded), [])
    code, state = status(directory)
    assert (code, state["attention"], state["lost"], state["faults"]) == (0, [], 0, {})
