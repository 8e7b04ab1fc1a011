# SPDX-License-Identifier: Apache-2.0
"""The recorded incident: told by its programs, delivered through the Collector, and what its ledger says of it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditspan_seal import spans
from auditspan_seal.formats import statement as statements
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.verify.proof import entries_of
from tests.backend.honest import Api, Hit, Log, delivered, environment, run
from tests.conftest import BIN
from tests.records import ON_PURPOSE

Fact = dict[str, Any]
ERASED = "carol@example.com"
_PROGRAM = str(Path(__file__).parent / "incident.py")


@dataclass(frozen=True)
class Incident:
    """What was done, as the ledger has it, and where it is.

    Attributes:
        facts: one for each record and each document of a log, by the names of the registry.
        hits: the documents.
        production, staging, auditor: the three logs.
    """

    facts: list[Fact]
    hits: list[Hit]
    production: Log
    staging: Log
    auditor: Log

    @property
    def only(self) -> dict[str, Any]:
        """The filter for this incident: other tests write into the same streams."""
        origins = [log.origin for log in (self.production, self.staging, self.auditor)]
        return {"terms": {f"attributes.{spans.ORIGIN}": origins}}


def tell(folder: Path, endpoint: str, elasticsearch: str) -> Incident:
    """Have everything happen, and wait until it is delivered."""
    ledger = folder / "ledger.jsonl"
    production, staging, auditor = folder / "production", folder / "staging", folder / "auditor"
    production.mkdir(parents=True)
    (production / ON_PURPOSE).touch()  # one record of the story is not conformant
    signed = environment(endpoint)
    auditspan = str(BIN / "auditspan")

    def in_production() -> None:
        _play("week", production, ledger, endpoint)
        _play("dying", production, ledger, endpoint, -signal.SIGKILL)
        _tear(production)
        run([auditspan, "agent", str(production), "--once"], env=signed)
        erase = [auditspan, "erase", str(production), "--value", ERASED, "--reason", "request 4711"]
        run([*erase, "--elasticsearch", elasticsearch, "--wait", "30"], env=signed)

    def in_staging() -> None:
        _play("staging", staging, ledger, endpoint)
        run([auditspan, "keys", "rotate", str(staging)], env=signed)
        run([auditspan, "agent", str(staging), "--once"], env=signed)

    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(in_production), both.submit(in_staging)]:
            done.result()
    checks = _verify(folder, auditor, signed)
    logs = [Log(at, read_verifier_key(at.verifier_key)) for at in map(open_directory, (production, staging, auditor))]
    facts = [json.loads(line) for line in ledger.read_text().splitlines()] + checks
    api = Api(elasticsearch)
    try:
        return Incident(list(_completed(facts, logs)), delivered(api, logs), *logs)
    finally:
        api.close()


def _play(part: str, directory: Path, ledger: Path, endpoint: str, expected: int = 0) -> None:
    where = "staging" if part == "staging" else "production"
    settings = environment(
        endpoint, AUDITSPAN_DIR=str(directory), AUDITSPAN_REQUIRED="true",
        OTEL_RESOURCE_ATTRIBUTES=f"deployment.environment.name={where}", OTEL_SERVICE_NAME=f"story-{where}",
    )  # fmt: skip
    command = [str(BIN / "opentelemetry-instrument"), sys.executable, _PROGRAM, part, str(ledger)]
    run(command, (expected,), env=settings)


def _tear(directory: Path) -> None:
    """Leave what a process leaves that dies while it writes a record: the beginning of a line."""
    found = open_directory(directory)
    for _, path in segment.all_of(found):
        content = path.read_bytes().rstrip(b"\0")
        if content:
            with path.open("r+b") as file:
                file.seek(len(content))
                file.write(b'{"attributes":{"audit.act')
            return
    raise AssertionError("the process that died has left no segment")


def _verify(folder: Path, auditor: Path, settings: dict[str, str]) -> list[Fact]:
    """Verify three times, on record, and note what came of it."""
    tampered = folder / "tampered" / "staging"
    shutil.copytree(folder / "staging", tampered)
    (log,) = (tampered / "log").glob("*.log")
    content = log.read_bytes()
    log.write_bytes(content.replace(b'"audit.action":"DELETE"', b'"audit.action":"SELECT"', 1))
    found = []
    for path, verdict, outcome in (
        (folder / "production", "INCOMPLETE", "unknown"),
        (folder / "staging", "PASSED", "success"),
        (tampered, "FAILED", "failure"),
    ):
        command = [str(BIN / "auditspan"), "verify", str(path), "--record", str(auditor), "--json"]
        code = {"PASSED": 0, "FAILED": 1, "INCOMPLETE": 3}[verdict]
        report = json.loads(run(command, (code,), env=settings))
        assert report["verdict"] == verdict, report["findings"]
        codes = ", ".join(sorted({finding["code"] for finding in report["findings"]}))
        fact = {
            "audit.action": "VERIFY", "audit.event.type": "workflow.execution.finished", "audit.outcome": outcome,
            "audit.target.id": open_directory(path).origin, "audit.target.type": "auditspan.log",
            "automation.workflow.name": "auditspan.verify", "automation.trigger.type": "unknown",
            "automation.run.reason": f"{verdict}: {codes}" if codes else verdict,
        }  # fmt: skip
        found += [fact | {"audit.action": "START", "audit.event.type": "workflow.execution.started"}, fact]
        del found[-2]["automation.run.reason"]
        found[-2]["audit.outcome"] = "success"
    return found


def _completed(facts: list[Fact], logs: list[Log]) -> Iterator[Fact]:
    """Add what the story cannot know: the names of the logs, and what happened in real time, as the disk has it."""
    production, staging, auditor = logs
    later = {log.origin: list(_said_later(log.directory)) for log in logs}
    for fact in facts:
        where = fact.get("deployment.environment.name")
        log = {"production": production, "staging": staging}.get(str(where), auditor)
        fact = {"audit.log.origin": log.origin, "is": "record", **fact}
        if fact["audit.event.type"] == "workflow.execution.interrupted" or log is auditor:
            said = next(item for item in later[log.origin] if item["kind"] == fact["audit.event.type"])
            later[log.origin].remove(said)
            fact |= said["facts"]
        if fact.get("audit.actor.id") == ERASED:
            del fact["audit.actor.id"]
        yield fact
    for log in logs:
        for block in reader.batches(log.directory.log):
            yield {"audit.log.document": "checkpoint", "audit.checkpoint.tree_size": block.batch.size,
                   "audit.log.origin": log.origin, "is": "log"}  # fmt: skip
        for statement, _ in entries_of(log.directory):
            fields = statements.decode(statement)
            if fields["type"] != "span":
                said = {name: statements.plain(item) for name, item in fields["attributes"].items()}
                yield {"audit.log.origin": log.origin, "is": "log", "audit.log.document": "entry",
                       "@timestamp": int(fields["time"]), **said}  # fmt: skip


def _said_later(directory: Directory) -> Iterator[Fact]:
    """Read from the disk when things were recorded that happen in real time, and by which user of the system."""
    for statement, private in entries_of(directory):
        fields = statements.decode(statement)
        if fields["type"] == "span":
            said = {name: statements.plain(item) for name, item in fields["attributes"].items()}
            said |= {name: value for name, (_, value) in private.items()}
            names = ("audit.actor.id", "audit.actor.type", "audit.actor.evidence", "automation.run.id",
                     "automation.trigger.rule", "automation.script.name", "automation.script.version")  # fmt: skip
            begin, end = int(fields["start"]), int(fields["end"])
            times = {"@timestamp": begin, "duration": end - begin}
            yield {"kind": said["audit.event.type"], "facts": {name: said[name] for name in names} | times}
