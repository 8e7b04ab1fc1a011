# SPDX-License-Identifier: Apache-2.0
"""Honest records from the whole pipeline, made once for a session: three logs, three plugins, an erasure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from auditspan.cli.demo import example_folder
from auditspan_seal import spans
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from tests.conftest import BIN, OURS

Hit = dict[str, Any]

ERASED = "person-3@example.com"
DELIVERIES = (105, 105, 14)
"""How many each log gets; a delivery is about ten records. The last log is the small one, for one mutation at a time,
and has the records of examples/weather-sync, too, written by its two processes."""


@dataclass(frozen=True)
class Log:
    """One log directory, with everything in it delivered."""

    directory: Directory
    key: VerifierKey

    @property
    def origin(self) -> str:
        return self.key.name

    @property
    def size(self) -> int:
        """How many documents the log has: entries and checkpoints."""
        blocks = list(reader.batches(self.directory.log))
        return sum(len(block.statements) for block in blocks) + len(blocks)


class Api:
    """Elasticsearch as it is, over HTTP, with no client library between."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=120)

    def __call__(self, method: str, path: str, body: Any = None, ok: tuple[int, ...] = (200, 201)) -> Any:
        answer = self._http.request(method, path, json=body)
        assert answer.status_code in ok, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()

    def bulk(self, lines: list[str]) -> list[dict[str, Any]]:
        """Do many things; returns what became of each. Searches see it after a refresh."""
        found: list[dict[str, Any]] = []
        for begin in range(0, len(lines), 1000):
            content = "\n".join(lines[begin : begin + 1000]) + "\n"
            answer = self._http.post(
                "/_bulk", content=content.encode(), headers={"content-type": "application/x-ndjson"}
            )
            assert answer.status_code == 200, answer.text[:2000]
            found += [next(iter(item.values())) for item in answer.json()["items"]]
        return found

    def msearch(self, index: str, lines: list[str]) -> list[Any]:
        """Search several times at once; returns the answers."""
        answer = self._http.post(
            f"/{index}/_msearch", content=("\n".join(lines) + "\n").encode(),
            headers={"content-type": "application/x-ndjson"},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text[:2000]
        found: list[Any] = answer.json()["responses"]
        assert all(item["status"] == 200 for item in found), answer.text[:2000]
        return found

    def put(self, place: Callable[[Hit], str], hits: list[Hit]) -> None:
        """Create documents, each in the stream or index that `place` says."""
        lines = []
        for hit in hits:
            action = {"create": {"_index": place(hit), "_id": hit["_id"]}}
            lines += [json.dumps(action), json.dumps(hit["_source"])]
        bad = [item for item in self.bulk(lines) if item["status"] >= 300]
        assert not bad, bad[:3]

    def remove(self, hits: list[Hit]) -> None:
        """Delete documents."""
        actions = [json.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) for hit in hits]
        bad = [item for item in self.bulk(actions) if item["status"] >= 300]
        assert not bad, bad[:3]

    def read(self, index: str, *origins: str) -> list[Hit]:
        """Read all documents of some logs (none given: all there are), as they are stored."""
        self("POST", f"/{index}/_refresh?ignore_unavailable=true&allow_no_indices=true")
        query: Mapping[str, Any] = {"match_all": {}}
        if origins:
            query = {"terms": {f"attributes.{spans.ORIGIN}": list(origins)}}
        pit = self("POST", f"/{index}/_pit?keep_alive=2m&ignore_unavailable=true&allow_no_indices=true")["id"]
        found: list[Hit] = []
        after: dict[str, Any] = {}
        while True:
            page = self(
                "POST",
                "/_search",
                {
                    "size": 1000, "pit": {"id": pit, "keep_alive": "2m"}, "query": query,
                    "sort": ["_shard_doc"], "version": True, "seq_no_primary_term": True, **after,
                },
            )["hits"]["hits"]  # fmt: skip
            found += page
            if len(page) < 1000:
                self("DELETE", "/_pit", {"id": pit})
                return found
            after = {"search_after": page[-1]["sort"]}

    def close(self) -> None:
        self._http.close()


AUDIT = "traces-audit*.otel-*"
EVENTS = "logs-audit*.otel-*"
LOG = "auditspan-log*"


def environment(endpoint: str | None = None, **more: str) -> dict[str, str]:
    """The environment of an audited process or of a command, with nothing from whoever runs the tests."""
    found = {name: value for name, value in os.environ.items() if not name.startswith(OURS) and name != "PYTHONPATH"}
    if endpoint is not None:
        found |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    quiet = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    return found | quiet | more


def run(command: list[str], expected: tuple[int, ...] = (0,), timeout: float = 180, **options: Any) -> str:
    """Run a command to its end and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)
    assert done.returncode in expected, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
    return str(done.stdout)


def eventually(check: Callable[[], bool], what: str, timeout: float = 90) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.3)


def produce(folder: Path, endpoint: str, elasticsearch: str) -> list[Log]:
    """Run the automations under audit, have some personal values erased, and wait until all is delivered."""
    program = str(Path(__file__).parent / "automation.py")
    running = []
    for number, deliveries in enumerate(DELIVERIES):
        more = {"AUDITSPAN_DIR": str(folder / f"log-{number}"), "AUDITSPAN_REQUIRED": "true"}
        if number == 1:
            more["OTEL_SPAN_EVENT_COUNT_LIMIT"] = "1"  # of two events one is dropped, and counted
        command = [str(BIN / "opentelemetry-instrument"), sys.executable, program, str(deliveries), str(number)]
        with open(folder / f"automation-{number}.log", "wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(endpoint, **more))
        running.append((process, number))
    for process, number in running:
        assert process.wait(180) == 0, (folder / f"automation-{number}.log").read_text()[-4000:]
    _weather_sync(folder, endpoint, folder / f"log-{len(DELIVERIES) - 1}")
    for number in range(len(DELIVERIES)):
        directory = str(folder / f"log-{number}")
        run(
            [
                str(BIN / "auditspan"), "erase", directory, "--value", ERASED, "--reason", "request 4711",
                "--elasticsearch", elasticsearch, "--wait", "0",
            ],
            (0, 3), env=environment(endpoint),
        )  # fmt: skip
    found = [open_directory(folder / f"log-{number}") for number in range(len(DELIVERIES))]
    return [Log(directory, read_verifier_key(directory.verifier_key)) for directory in found]


def _weather_sync(folder: Path, endpoint: str, directory: Path) -> None:
    """Run the example with two deliveries: its service, and the connector as a process of its own."""
    settings = environment(endpoint, AUDITSPAN_DIR=str(directory), AUDITSPAN_REQUIRED="true", PYTHONUNBUFFERED="1")
    command = [
        str(BIN / "opentelemetry-instrument"), sys.executable, str(example_folder() / "service.py"),
        "--port", "0", "--data", str(folder / "weather"),
    ]  # fmt: skip
    with open(folder / "weather-sync.log", "wb") as log:
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=settings, text=True)
    try:
        assert service.stdout is not None
        url = next(line for line in service.stdout if line.startswith("listening on ")).split()[-1]
        for more in (["--through", "2013-06-30"], ["--tampered"]):
            run([sys.executable, str(example_folder() / "deliver.py"), url, *more], env=environment())
    finally:
        service.terminate()
        service.communicate(timeout=60)


def delivered(api: Api, logs: list[Log]) -> list[Hit]:
    """Wait until every entry and checkpoint of the logs has its document; return them all."""
    expected = sum(log.size for log in logs)
    origins = [log.origin for log in logs]
    found: list[Hit] = []

    def there() -> bool:
        found[:] = api.read(f"{AUDIT},{LOG}", *origins)
        return len(found) >= expected

    eventually(there, f"{expected} documents")
    return found
