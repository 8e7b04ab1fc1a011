# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to honest documents in an honest life, verification stays green; on the oldest and newest server.

The same three logs of the whole pipeline (`honest.py`) are delivered anew for each case, through the real Collector,
and judged by the command. Both servers are the minimal distribution, which lacks some of what would be used in
production; each case says what it does instead:

* no ``_reindex``: the documents are read and written by a script, as a cautious operator would do it anyway;
* no data stream API (``DELETE _data_stream``), no ILM, no data stream lifecycle: what retention deletes, backing
  indices, is deleted by their names;
* the OTel plugin's own templates (``traces-otel@template``: logsdb, synthetic source) are not there: the case has a
  template with the same two settings. Without the logsdb plugin no licence is asked for.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from auditspan.devstack import Stack
from auditspan.devstack import elasticsearch as servers
from auditspan_seal import spans
from auditspan_seal.log.directory import open_directory
from tests.backend import honest
from tests.backend.conftest import Automations
from tests.backend.honest import AUDIT, LOG, Api, Hit
from tests.backend.mutations import attributes, kind_of
from tests.conftest import BIN
from tests.environments import named

pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

STREAM = "traces-audit.otel-default"
PERSON = "person-5@example.com"


@dataclass
class Server:
    """One Elasticsearch with its Collector, the command to judge it with, and copies of the log directories."""

    stack: Stack
    bin: Path
    api: Api
    logs: list[honest.Log]

    @property
    def origins(self) -> list[str]:
        return [log.origin for log in self.logs]

    def hits(self, index: str = f"{AUDIT},{LOG}") -> list[Hit]:
        return self.api.read(index, *self.origins)

    def purge(self) -> None:
        """Remove all documents of the logs."""
        self.api.remove(self.hits())

    def deliver(self, endpoint: str | None = None) -> None:
        """Deliver the logs from their beginning, as the agent does it."""
        for log in self.logs:
            log.directory.delivery.unlink(missing_ok=True)
            command = [str(self.bin / "auditspan"), "agent", "--once", str(log.directory.path)]
            honest.run(command, env=honest.environment(endpoint or self.stack.otlp_http_endpoint))

    def fresh(self) -> None:
        """Have the logs there as they are after delivery, and nothing else of them."""
        self.purge()
        self.deliver()
        honest.delivered(self.api, self.logs)

    def verify(self, log: honest.Log, *more: str) -> dict[str, Any]:
        """Judge one log with the command; there are others of other tests."""
        command = [
            str(self.bin / "auditspan"), "verify", "--elasticsearch", self.stack.elasticsearch_url, "--json",
            "--origin", log.origin, "--key", str(log.directory.verifier_key), "--wait", "0", *more,
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, env=honest.environment(), timeout=120)
        assert result.returncode in (0, 1, 3, 4), result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        found["exit_code"] = result.returncode
        return found

    def passes(self) -> list[dict[str, Any]]:
        """Every log must pass, with all its records seen."""
        reports = [self.verify(log) for log in self.logs]
        for log, report in zip(self.logs, reports, strict=True):
            assert (report["verdict"], report["findings"], report["exit_code"]) == ("PASSED", [], 0), report[
                "findings"
            ][:3]
            assert report["logs"] == {log.origin: report["logs"][log.origin]}
            assert report["records"] > 0
        return reports


@pytest.fixture(scope="module", params=[servers.VERSION, servers.OLDEST])
def server(
    request: pytest.FixtureRequest, stack: Stack, automations: Automations, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """The server of the session, or the oldest one in its place: both at once would be too much for a small machine."""
    folder = tmp_path_factory.mktemp(f"server-{request.param}")
    logs = []
    for at, log in enumerate(automations.logs):
        shutil.copytree(log.directory.path, folder / f"log-{at}")
        logs.append(honest.Log(open_directory(folder / f"log-{at}"), log.key))
    if request.param == servers.VERSION:
        api = Api(stack.elasticsearch_url)
        yield Server(stack, BIN, api, logs)
        api.close()
        return
    if stack.parts["elasticsearch"].startswith("running at"):
        pytest.skip("the server of this session was named by AUDITSPAN_ELASTICSEARCH_URL; there is only that one")
    # The client of that major: `pip install 'elasticsearch<9'` is what many users have.
    commands = named("elasticsearch-8")
    stack.stop_collector()
    stack.stop_elasticsearch()
    try:
        with Stack.start(folder / "stack", version=request.param) as oldest:
            api = Api(oldest.elasticsearch_url)
            yield Server(oldest, commands, api, logs)
            api.close()
    finally:
        stack.start_elasticsearch()
        stack.start_collector()


def test_the_server_is_the_one_that_was_asked_for(server: Server, request: pytest.FixtureRequest) -> None:
    (node,) = server.api("GET", "/_nodes")["nodes"].values()
    expected = servers.OLDEST if "8." in request.node.name else servers.VERSION
    assert node["version"] == expected


@pytest.mark.parametrize("client", ["of this environment", "of the server's major"])
def test_setup_and_check_know_this_version(server: Server, client: str) -> None:
    """With a client of either major: what a user has installed need not be of the server's."""
    server.fresh()
    program = str((BIN if client == "of this environment" else server.bin) / "auditspan")
    place = ["--elasticsearch", server.stack.elasticsearch_url, "--json"]
    found = json.loads(honest.run([program, "backend", "setup", *place], env=honest.environment()))
    assert {step["state"] for step in found["steps"]} == {"unchanged"}
    found = json.loads(honest.run([program, "backend", "check", *place], (1,), env=honest.environment()))
    results = {item["name"]: item["result"] for item in found["checks"]}
    kinds = ("version", "template", "in_effect", "live", "source")
    assert {result for name, result in results.items() if name.partition(":")[0] in kinds} == {"OK"}, found
    assert results["security"] == "FAILED"  # this stack has none, and that is said
    command = [program, "verify", *place, "--origin", server.logs[0].origin, "--wait", "0"]
    found = json.loads(honest.run(command, env=honest.environment()))
    assert (found["verdict"], found["findings"]) == ("PASSED", [])


def test_untouched(server: Server) -> None:
    server.fresh()
    reports = server.passes()
    assert sum(report["records"] for report in reports) >= 2000
    assert sum(report["erased"] for report in reports) > 0


def test_a_second_delivery_after_a_rollover(server: Server) -> None:
    server.fresh()
    for stream in (STREAM, "auditspan-log"):
        server.api("POST", f"/{stream}/_rollover")
    server.deliver()
    twice = 2 * sum(log.size for log in server.logs)
    honest.eventually(lambda: len(server.hits()) == twice, "everything is there twice")
    server.passes()


# -- stored to synthetic source ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["logsdb", "standard"])
def test_reindexed_to_synthetic_source(server: Server, mode: str) -> None:
    """With the index mode of the built-in OTel templates, which keeps lists, and the one that makes sets of them."""
    server.fresh()
    before = server.hits()
    own = ["auditspan@settings", "auditspan@mappings", "auditspan@audit-mappings"]
    synthetic: dict[str, Any] = {
        "index_patterns": [f"traces-audit{mode}.otel-*"],
        "priority": 300,
        "data_stream": {},
        "composed_of": own,
        "template": {"settings": {"index": {"mode": mode, "mapping": {"source": {"mode": "synthetic"}}}}},
    }
    server.api("PUT", f"/_index_template/traces-{mode}", synthetic)
    log_pattern = f"auditspan-log-{mode}"
    server.api("PUT", f"/_index_template/log-{mode}", synthetic | {"index_patterns": [log_pattern], "priority": 301})
    server.api.put(lambda hit: f"traces-audit{mode}.otel-default" if kind_of(hit) == "span" else log_pattern, before)
    server.api.remove(before)
    after = server.hits()
    assert len(after) == len(before)
    sources = {hit["_id"]: hit["_source"] for hit in before}
    altered = [hit for hit in after if hit["_source"] != sources[hit["_id"]]]
    print(
        f"{len(altered)} of {len(after)} documents came back in another form, for example "
        f"{_differences(altered[0], sources)}"
    )
    assert all(hit["_index"].startswith((f".ds-traces-audit{mode}", f".ds-{log_pattern}")) for hit in after)
    assert len(altered) > len(after) // 2, "this is not synthetic source"
    server.passes()


def _differences(hit: Hit, sources: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    old, new = sources[hit["_id"]], hit["_source"]
    return {name: (old.get(name), new.get(name)) for name in old if name != "attributes" and old[name] != new.get(name)}


# -- snapshot and restore ---------------------------------------------------------------------------------------------


def test_snapshot_and_restore(server: Server) -> None:
    server.fresh()
    count = len(server.hits())
    server.api("PUT", "/_snapshot/safe", {"type": "fs", "settings": {"location": "safe"}})
    taken = server.api(
        "PUT", "/_snapshot/safe/one?wait_for_completion=true",
        {"indices": f"{AUDIT},{LOG}", "include_global_state": False},
    )  # fmt: skip
    assert taken["snapshot"]["state"] == "SUCCESS"
    server.purge()
    assert server.verify(server.logs[0])["verdict"] != "PASSED"
    # Beside the streams that are in use; what was restored is read because its name begins the same.
    restored = server.api(
        "POST", "/_snapshot/safe/one/_restore?wait_for_completion=true",
        {"indices": f"{AUDIT},{LOG}", "rename_pattern": "^(.*?)(-default)?$", "rename_replacement": "$1-restored"},
    )  # fmt: skip
    assert restored["snapshot"]["shards"]["failed"] == 0
    found = server.hits()
    assert len(found) == count
    assert all("restored" in hit["_index"] or hit["_index"].startswith(".ds-") for hit in found)
    server.passes()


# -- what a Collector adds --------------------------------------------------------------------------------------------

# The built Collector has the transform processor only; `resource`, `attributes` and `k8sattributes` of the contrib
# image add in the same way. What replaces a value that is there (`upsert`) alters the record, and is found.
ADDS = """
processors:
  transform/others:
    error_mode: propagate
    trace_statements:
      - context: resource
        statements:
          - set(resource.attributes["data_stream.namespace"], "others")
          - set(resource.attributes["deployment.environment.name"], "production")
          - set(resource.attributes["k8s.pod.name"], "pod-7")
          - set(resource.attributes["cloud.zones"], Split("a,b", ","))
          - set(resource.schema_url, "https://opentelemetry.io/schemas/1.27.0")
      - context: span
        statements:
          - set(span.attributes["team.name"], "blue")
          - set(span.attributes["sampling.weight"], 0.25)
service:
  pipelines:
    traces/audit:
      receivers: [routing]
      processors: [transform/audit, transform/others]
      exporters: [elasticsearch/audit]
"""


def test_a_collector_adds_attributes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.purge()
    overlay = tmp_path / "adds.yaml"
    overlay.write_text(ADDS)
    monkeypatch.setenv("AUDITSPAN_ELASTICSEARCH_URL", server.stack.elasticsearch_url)
    with Stack.start(tmp_path / "stack", overlay=overlay) as second:
        server.deliver(second.otlp_http_endpoint)
        found = honest.delivered(server.api, server.logs)
    records = [hit for hit in found if kind_of(hit) == "span"]
    assert all(hit["_source"]["resource"]["attributes"]["k8s.pod.name"] == "pod-7" for hit in records)
    assert all(attributes(hit)["team.name"] == "blue" and "others" in hit["_index"] for hit in records)
    server.passes()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_after_key_rotation(server: Server) -> None:
    if not _has(server, "keys", "rotate"):
        pytest.skip("`auditspan keys rotate` does not exist yet")
    server.fresh()
    try:
        for log in server.logs:
            for _ in range(2):
                honest.run([str(server.bin / "auditspan"), "keys", "rotate", str(log.directory.path)])
        server.deliver()
        honest.delivered(server.api, server.logs)
        for log in server.logs:  # the key that the auditor has had from the beginning vouches for those after it
            (log.directory.path / "first.vkey").write_text(f"{log.key}\n")
            report = server.verify(log, "--key", str(log.directory.path / "first.vkey"))
            assert (report["verdict"], report["findings"]) == ("PASSED", [])
        server.passes()
    finally:
        server.purge()


def _has(server: Server, *verb: str) -> bool:
    command = [str(server.bin / "auditspan"), *verb, "--help"]
    return subprocess.run(command, capture_output=True, env=honest.environment(), timeout=60).returncode == 0


# -- retention --------------------------------------------------------------------------------------------------------


def _aged(server: Server, spans_below: int, log_below: int) -> None:
    """Have the documents of the first log in two backing indices of each stream, and delete the older ones.

    Args:
        server: where.
        spans_below: index in the log; the documents of records below it are in the older backing index.
        log_below: the documents of checkpoints and other entries that begin below it are.
    """
    server.purge()
    log = server.logs[0]
    server.deliver()
    mine = [hit for hit in honest.delivered(server.api, server.logs) if attributes(hit)[spans.ORIGIN] == log.origin]
    server.purge()
    # Streams of their own: the backing indices of the others have documents of other tests.
    places = {"span": f"traces-audit.otel-aged{spans_below}", "entry": f"auditspan-log-aged{spans_below}-{log_below}"}
    places["checkpoint"] = places["entry"]
    pattern = {"index_patterns": ["auditspan-log-aged*"], "priority": 300, "data_stream": {}}
    own = ["auditspan@settings", "auditspan@mappings", "auditspan@audit-mappings"]
    server.api("PUT", "/_index_template/log-aged", pattern | {"composed_of": own})

    def old(hit: Hit) -> bool:
        first: int = attributes(hit)[spans.FIRST if kind_of(hit) == "checkpoint" else spans.INDEX]
        return bool(first < (spans_below if kind_of(hit) == "span" else log_below))

    server.api.put(lambda hit: places[kind_of(hit)], [hit for hit in mine if old(hit)])
    oldest = {hit["_index"] for hit in server.hits()}
    for stream in set(places.values()):
        server.api("POST", f"/{stream}/_rollover")
    server.api.put(lambda hit: places[kind_of(hit)], [hit for hit in mine if not old(hit)])
    for index in oldest:
        server.api("DELETE", f"/{index}")


def _boundaries(server: Server) -> list[int]:
    server.fresh()
    found = [hit for hit in server.hits() if attributes(hit)[spans.ORIGIN] == server.logs[0].origin]
    return sorted(attributes(hit)[spans.FIRST] for hit in found if kind_of(hit) == "checkpoint")


def test_pruned_by_retention(server: Server) -> None:
    """The oldest backing index of each stream is gone: a beginning is missing, and nothing is called altered."""
    boundaries = _boundaries(server)
    middle = boundaries[len(boundaries) // 2]
    for records in (middle, middle - 3, 2):  # the log stream may lose more than the stream of the records, never less
        _aged(server, records, middle)
        report = server.verify(server.logs[0])
        assert {item["code"] for item in report["findings"]} == {"prefix_missing"}, records
        assert (report["verdict"], report["exit_code"]) == ("INCOMPLETE", 3)
        server.purge()


def test_retention_that_takes_records_before_their_checkpoints_is_not_told_from_deletion(server: Server) -> None:
    """The limit: where a checkpoint still vouches for a record, its absence is a deletion.

    docs/visible-documents.md says that the stream of checkpoints must not be kept longer than that of the records.
    """
    boundaries = _boundaries(server)
    middle = boundaries[len(boundaries) // 2]
    _aged(server, middle + 3, middle)
    report = server.verify(server.logs[0])
    missing = {item["index"] for item in report["findings"] if item["code"] == "entry_missing"}
    assert (report["verdict"], missing) == ("FAILED", {middle, middle + 1, middle + 2})
    server.purge()


# -- erasure ----------------------------------------------------------------------------------------------------------


def test_after_legitimate_erasure(server: Server) -> None:
    server.fresh()
    before = [report["erased"] for report in server.passes()]
    text = json.dumps([hit["_source"] for hit in server.hits()])
    assert PERSON in text
    for log in server.logs:
        command = [
            str(server.bin / "auditspan"), "erase", str(log.directory.path), "--value", PERSON, "--reason", "request 1",
            "--elasticsearch", server.stack.elasticsearch_url, "--wait", "0",
        ]  # fmt: skip
        honest.run(command, (0, 2, 3), env=honest.environment(server.stack.otlp_http_endpoint))
    found = honest.delivered(server.api, server.logs)
    assert PERSON not in json.dumps([hit["_source"] for hit in found])
    after = [report["erased"] for report in server.passes()]
    assert sum(after) > sum(before)
