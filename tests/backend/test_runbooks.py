# SPDX-License-Identifier: Apache-2.0
"""The runbooks, tried: the trouble that a page is about is made, and its commands mend it.

With a Collector that may only write, and an Elasticsearch with TLS and our roles, of their own: they are hurt. Pages
that change documents come last.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from opentelemetry.sdk.trace import TracerProvider

from auditspan.capture.privacy import Guard
from auditspan_seal import spans
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import open_directory
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.backend import honest, secured
from tests.backend.runbook import PAGES, Runbook, commands
from tests.backend.secured import AUDIT, EVENTS, LOG, SUPERUSER, Secured, hits
from tests.environments import ROOT
from tests.records import audit_attributes

pytestmark = [pytest.mark.backend, pytest.mark.slow, pytest.mark.timeout(600)]

PERSON = "203.0.113.9"
NOBODY = "http://127.0.0.1:9"  # nothing listens there
OURS = {"index.number_of_replicas": 0}  # what a site may add; here is no second node


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured.server(tmp_path_factory.mktemp("runbooks")) as found:
        found.do("PUT", "/_component_template/auditspan@custom", {"template": {"settings": OURS}})
        code, said = found.setup()
        assert code == 0, said
        with secured.collector(found) as found.collector:
            yield found


class Host:
    """A host with a log, and what its operator has set."""

    def __init__(self, place: Secured, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.place, self._patch = place, patch
        self.path = folder / "log"
        self.variables = {
            "AUDITSPAN_DIR": str(self.path),
            "AUDITSPAN_ARCHIVE": str(folder / "checkpoints"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": place.collector,
            "AUDITSPAN_ELASTICSEARCH_URL": place.url("checker"),
            "AUDITSPAN_ELASTICSEARCH_CA_FILE": str(place.security.authority),
            # What the Collector's configuration reads.
            "AUDITSPAN_ELASTICSEARCH_USER": "auditspan_writer",
            "AUDITSPAN_ELASTICSEARCH_PASSWORD": place.security.password,
            "ADMIN_URL": place.url(SUPERUSER),
            "SETUP_URL": place.url("auditspan_administrator"),
            "BACKUP_URL": place.url("auditspan_backup"),
            "ERASER_URL": place.url("auditspan_eraser"),
            "METRICS": place.metrics,
            "COLLECTOR_CONFIG": str(ROOT / "collector-config" / "collector.yaml"),
            "KEY": str(folder / "safe.vkey"),
            "ARCHIVE": str(folder / "checkpoints"),
            "EVIDENCE": str(folder / "evidence"),
        }
        (folder / "evidence").mkdir()
        self.record(4)
        self.variables["ORIGIN"] = (self.path / "origin").read_text().strip()
        (folder / "safe.vkey").write_bytes((self.path / "log.vkey").read_bytes())

    def record(self, count: int, endpoint: str | None = None) -> None:
        """Have a process record, with a person's address in each record, and deliver if somebody takes it."""
        for name in ("AUDITSPAN_ARCHIVE", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            self._patch.setenv(name, self.variables[name])
        self._patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint or self.place.collector)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(AuditSpanProcessor(AuditLog(self.path, guard=Guard())))
        for number in range(count):
            attributes = audit_attributes(number=number, **{"client.address": PERSON})
            with provider.get_tracer("runbooks").start_as_current_span("record", attributes=attributes):
                pass
        provider.shutdown()

    @property
    def log(self) -> honest.Log:
        directory = open_directory(self.path)
        return honest.Log(directory, read_verifier_key(directory.verifier_key))

    def arrived(self) -> None:
        """Wait until all of it is in Elasticsearch."""
        honest.eventually(lambda: self.place.count(self.log) >= self.log.size, "its documents")

    def documents(self) -> list[Any]:
        query = {"query": {"term": {"attributes.audit.log.origin": self.variables["ORIGIN"]}}, "size": 100}
        self.place.do("POST", f"/{AUDIT}/_refresh")
        return list(hits(self.place.ask(SUPERUSER, "POST", f"/{AUDIT}/_search", query)))

    def runbook(self, page: str) -> Runbook:
        return Runbook(page, self.variables)


@pytest.fixture
def host(place: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(place, tmp_path, monkeypatch)


def test_pipeline_monitoring(host: Host) -> None:
    host.arrived()
    assert _no_events(host.place)
    page = host.runbook("pipeline-monitoring")
    page.run()
    # No record had an event: that is all well, and looking at it does not make the stream.
    assert _no_events(host.place)
    assert "all is well" in page.said("auditspan status")
    assert "otelcol_exporter_queue_capacity" in page.said("queue_capacity")
    assert "COMPLETE" in page.said("reconcile")
    assert "PASSED" in page.said("--require all")


def _no_events(place: Secured) -> bool:
    return place.ask(SUPERUSER, "GET", f"/_resolve/index/{EVENTS}").status_code == 404


def test_upgrade(host: Host) -> None:
    page = host.runbook("upgrade")
    page.run()
    assert (Path(host.variables["EVIDENCE"]) / "kibana" / "saved-objects.ndjson").exists()


def test_revoking_a_service_account(host: Host) -> None:
    place = host.place
    users = place.folder / "elasticsearch" / "config" / "users"
    host.variables |= {
        "OLD_ACCOUNT": f"careless:{place.security.password}", "ELASTICSEARCH_HOST": place.server.url,
        "ACTOR": "tester", "SINCE": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert place.ask("careless", "GET", "/_security/_authenticate").status_code == 200

    def remove() -> None:
        lines = users.read_text().splitlines(keepends=True)
        users.write_text("".join(line for line in lines if not line.startswith("careless:")))
        gone = "the server has read that the user is gone"
        honest.eventually(lambda: place.ask("careless", "GET", "/_security/_authenticate").status_code == 401, gone, 60)

    page = host.runbook("revoking-a-service-account")
    page.run({"OLD_ACCOUNT": remove})
    found = json.loads((Path(host.variables["EVIDENCE"]) / "actions.json").read_text())
    assert found["hits"]["total"]["value"] >= 4
    assert "test-run" in page.said("auditspan runs")


def test_ingest_failure(host: Host) -> None:
    host.record(3, NOBODY)
    page = host.runbook("ingest-failure")
    page.run()
    (first, *_) = (text for command, text in page.printed.items() if command == "auditspan status")
    assert "all is well" in first  # the last of the page; that it was not at first, its exit code has said
    assert "200" in page.said("resourceSpans")
    assert len(host.documents()) == 7


def test_key_compromise_and_rotation(host: Host) -> None:
    page = host.runbook("key-compromise-and-rotation")
    since = datetime.now(timezone.utc)

    def leaked() -> None:
        time.sleep(1)
        host.variables["OLD_KEY"] = re.findall(r"^  ([0-9a-f]{8})  from", page.said("auditspan keys show"), re.M)[-1]
        host.variables["SINCE"] = since.isoformat()

    page.run({"keys revoke": leaked})
    assert "revoked" in page.said("auditspan keys show")
    # The leaked key signed since then, and nobody can say who it was: it is said, and nothing else is wrong.
    last = page.said("--revoked")
    assert page.ended("--revoked") == 1, last
    assert set(re.findall(r"✗ (\w+)  ", last)) == {"key_revoked"}, last


def test_erasure_request(host: Host) -> None:
    host.arrived()
    host.variables["VALUE"] = PERSON
    page = host.runbook("erasure-request")
    page.run()
    assert PERSON not in json.dumps(host.documents())
    assert "erased" in page.said("verify --elasticsearch")


def test_disk_full(host: Host) -> None:
    host.arrived()
    host.place.do("PUT", f"/{AUDIT},{LOG}/_settings", {"index.blocks.read_only_allow_delete": True})
    host.record(3)
    time.sleep(2)
    assert len(host.documents()) == 4
    page = host.runbook("disk-full")
    page.run()
    assert "read_only_allow_delete" in page.said("index.blocks.*")
    assert len(host.documents()) == 7


def test_elasticsearch_red(host: Host) -> None:
    place = host.place
    nowhere = {"settings": {"index.routing.allocation.require._name": "nowhere", "index.number_of_replicas": 0}}
    place.do("PUT", "/broken?wait_for_active_shards=0", nowhere)
    page = host.runbook("elasticsearch-red")
    page.run(
        {
            "_cluster/reroute": lambda: place.do(
                "PUT", "/broken/_settings", {"index.routing.allocation.require._name": None}
            )
        }
    )
    assert "red" in page.said("status,unassigned_shards")
    assert "broken" in page.said("_cat/shards")
    assert "broken" in page.said("allocation/explain")
    place.do("DELETE", "/broken")


def test_restore_and_verify(host: Host) -> None:
    place = host.place
    host.arrived()
    host.variables["SNAPSHOT"] = "nightly"

    def lose() -> None:
        for stream in (AUDIT, LOG):
            place.do("POST", f"/{stream}/_rollover")
            for index in place.backing(stream)[:-1]:
                place.do("DELETE", f"/{index}")

    page = host.runbook("restore-and-verify")
    page.run({"--dry-run": lose})
    assert page.ended("--dry-run") == 3
    restored = '--origin "$ORIGIN" --key "$KEY"'
    (first,) = (text for command, text in page.printed.items() if command.endswith(restored))
    assert "PASSED" in first
    assert "0 counted" in page.said("--full")


def test_suspected_tampering(host: Host) -> None:
    host.arrived()
    document = host.documents()[1]
    where = f"{document['_index']}/_doc/{quote(document['_id'], '')}"
    changed = {"doc": {"attributes": {"audit.outcome": "failure"}}}
    host.place.do("POST", f"/{where.replace('/_doc/', '/_update/')}?refresh=true", changed)
    said = document["_source"]["attributes"]
    host.variables |= {
        "RUN": said["automation.run.id"], "SPAN": document["_source"]["span_id"], "DOCUMENT_PLACE": where
    }  # fmt: skip
    page = host.runbook("suspected-tampering")
    page.run()
    evidence = Path(host.variables["EVIDENCE"])
    (finding,) = json.loads((evidence / "elasticsearch.json").read_text())["findings"]
    assert (finding["code"], finding["field"]) == ("field_mismatch", "attributes.audit.outcome")
    assert finding["index"] == said[spans.INDEX]
    kept = json.loads((evidence / "document.json").read_text())
    assert (kept["_version"], kept["_source"]["attributes"]["audit.outcome"]) == (2, "failure")
    assert list((evidence / "proof").iterdir())
    assert "FAILED" in page.said("backend check")
    assert {hit["_source"]["attributes"]["audit.outcome"] for hit in host.documents()} == {"success"}


def test_every_page_is_tried_and_in_the_table() -> None:
    pages = {page.stem for page in PAGES.glob("*.md")} - {"README"}
    assert {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")} >= pages
    table = (PAGES / "README.md").read_text().split("## Set once")[0]
    assert set(re.findall(r"\]\(([a-z-]+)\.md\)", table)) == pages


def test_every_page_says_what_a_runbook_says() -> None:
    for page in PAGES.glob("[a-z]*.md"):
        text = page.read_text()
        for part in ("**You notice**", "**It means**", "**Do", "**It is over when**", "**Do not**"):
            assert part in text, f"{page.name}: {part}"
        marked = text.count("**Production**")
        assert marked >= text.count("```sh production"), f"{page.name}: what was not run is not said"


def test_variables_are_explained() -> None:
    explained = set(re.findall(r"^export (\w+)=", (PAGES / "README.md").read_text(), re.MULTILINE))
    for page in PAGES.glob("[a-z]*.md"):
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for command in commands(page.stem):
            for name in re.findall(r"\$\{?([A-Z_]+)", command.text):
                assert name in explained or f"`{name}`" in prose, f"{page.name}: ${name}"


def test_what_they_name_exists() -> None:
    """Settings, metrics and reasons that a page names are ours."""
    known = "".join(
        (ROOT / name).read_text()
        for name in (
            "docs/metrics.md",
            "docs/verifying.md",
            "README.md",
            "docs/kibana.md",
            "docs/reconciliation.md",
            "docs/durability.md",
            "docs/reference/elasticsearch-roles.md",
            "collector-config/elasticsearch/roles.yml",
        )
    )
    for page in PAGES.glob("*.md"):
        for name in re.findall(r"`((?:auditspan\.|AUDITSPAN_|auditspan_)[\w.]+)`", page.read_text()):
            assert name in known, f"{page.name}: {name}"


def test_every_alert_leads_to_a_page_and_is_in_the_table() -> None:
    groups = yaml.safe_load((ROOT / "collector-config" / "alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule["annotations"]["description"] for group in groups for rule in group["rules"]}
    assert len(rules) >= 9
    for name, description in rules.items():
        (page,) = re.findall(r"Runbook: docs/runbooks/([a-z-]+)\.md\.$", description)
        assert (PAGES / f"{page}.md").exists(), name
    assert set(re.findall(r"`(Audit\w+)`", (PAGES / "README.md").read_text())) == set(rules)
