# SPDX-License-Identifier: Apache-2.0
"""The example automation, end to end: the same with and without auditing, and the whole story when audited."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
from auditspan.cli.story import from_directory
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Verdict
from tests.conftest import BIN, OURS, QUIET

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "weather-sync"
DAYS_TO_2014 = 366 + 365 + 365
DAYS_OF_2015 = 365


@dataclass
class Service:
    """The running service, and what it has printed once it has ended."""

    url: str
    database: Path
    output: str = ""
    errors: str = ""
    deliveries: list[str] = field(default_factory=list)

    def deliver(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, str(EXAMPLE / "deliver.py"), self.url, *arguments],
            capture_output=True,
            encoding="utf-8",
            env=environment(),
            timeout=90,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.deliveries += done.stdout.splitlines()

    def days(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute("SELECT * FROM seattle_weather ORDER BY date").fetchall()


def environment(**more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(OURS) and k != "PYTHONPATH"} | more


@contextmanager
def running(folder: Path, *prefix: str, stop: signal.Signals = signal.SIGTERM) -> Iterator[Service]:
    data = folder / "data"
    command = [*prefix, sys.executable, str(EXAMPLE / "service.py"), "--port", "0", "--data", str(data)]
    with open(folder / "errors", "w+") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env=environment(AUDITSPAN_DIR=str(folder / "audit"), **QUIET),
        )
        try:
            assert process.stdout is not None
            service = Service(process.stdout.readline().split()[-1], data / "weather.sqlite")
            yield service
            process.send_signal(stop)
            service.output = process.stdout.read()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        errors.seek(0)
        service.errors = errors.read()


def whole_story(folder: Path, *prefix: str) -> Service:
    folder.mkdir()
    with running(folder, *prefix) as service:
        service.deliver("--tampered")
        assert not service.database.exists()
        service.deliver("--through", "2014-12-31")
        assert len(service.days()) == DAYS_TO_2014
        service.deliver("--times", "2")
        assert len(service.days()) == DAYS_TO_2014 + DAYS_OF_2015
    assert service.output.splitlines() == [
        f"refresh-weather: read {DAYS_TO_2014}, wrote {DAYS_TO_2014}, bookmark none → 2014-12-31",
        f"refresh-weather: read {DAYS_OF_2015}, wrote {DAYS_OF_2015}, bookmark 2014-12-31 → 2015-12-31",
        "refresh-weather: read 0, wrote 0, bookmark 2015-12-31 → 2015-12-31",
    ]
    assert service.days()[-1] == ("2015-12-31", 0.0, 5.6, -2.1, 3.5, "sun")
    return service


def without_ids(lines: list[str]) -> list[str]:
    return [re.sub("msg_[0-9a-f]+", "msg_", line) for line in lines]


def test_audited_or_not_it_does_the_same(tmp_path: Path) -> None:
    plain = whole_story(tmp_path / "plain")
    audited = whole_story(tmp_path / "audited", str(BIN / "opentelemetry-instrument"))
    assert without_ids(audited.deliveries) == without_ids(plain.deliveries)
    assert (audited.output, audited.errors) == (plain.output, plain.errors)
    assert audited.days() == plain.days()
    assert not (tmp_path / "plain" / "audit").exists()

    log = open_directory(tmp_path / "audited" / "audit")
    assert verify_directory(log).verdict is Verdict.PASSED
    everything = [record.attributes for record in from_directory(log)]
    began = [record for record in everything if record[schema.EVENT_TYPE] == "workflow.execution.started"]
    records = [record for record in everything if record not in began]
    refused, *_ = records
    # Whatever covers something has been seen to begin before it came to its end.
    covering = ("webhook.delivery", "workflow.execution.finished")
    ended = {record[schema.RECORD_ID] for record in records if record[schema.EVENT_TYPE] in covering}
    assert sorted(record[schema.PARENT_RECORD_ID] for record in began) == sorted(ended)
    assert refused[schema.WEBHOOK_SIGNATURE_VERIFIED] == "false"

    first = sorted({record[schema.RUN_ID] for record in records}, key=[r[schema.RUN_ID] for r in records].index)[1]
    run = {record[schema.RECORD_ID]: record for record in records if record[schema.RUN_ID] == first}
    by_type: dict[str, list[dict[str, Any]]] = {}
    for record in run.values():
        by_type.setdefault(str(record[schema.TARGET_TYPE]), []).append(record)
    (job,) = by_type["apscheduler.job"]
    (tap,), (stream,) = by_type["singer.tap"], by_type["singer.stream"]
    (target,), batches = by_type["singer.target"], by_type["singer.sink"]
    # From the webhook to each batch, through two processes: every record has its cause in the same run.
    assert [batch[schema.PARENT_RECORD_ID] for batch in batches] == [target[schema.RECORD_ID]] * 3
    assert stream[schema.PARENT_RECORD_ID] == tap[schema.RECORD_ID]
    assert tap[schema.PARENT_RECORD_ID] == target[schema.PARENT_RECORD_ID] == job[schema.RECORD_ID]
    assert run[job[schema.PARENT_RECORD_ID]][schema.TRIGGER_TYPE] == "webhook"
    assert [batch[schema.CONNECTOR_ROWS_WRITTEN] for batch in batches] == [500, 500, 96]
    assert stream[schema.CONNECTOR_ROWS_READ] == target[schema.CONNECTOR_ROWS_WRITTEN] == DAYS_TO_2014
    assert stream[schema.CONNECTOR_BOOKMARK_AFTER] == "2014-12-31"
    assert tap[schema.STATE_AFTER_HASH] == target[schema.STATE_AFTER_HASH]
    assert {tap[schema.CONNECTOR_NAME], target[schema.CONNECTOR_NAME]} == {"tap-weather-csv", "target-sqlite"}


def test_it_stops_in_good_order_on_ctrl_c(tmp_path: Path) -> None:
    with running(tmp_path, stop=signal.SIGINT) as service:
        assert service.url.startswith("http://127.0.0.1:")
    assert (service.output, service.errors) == ("", "")


def test_it_knows_nothing_of_auditing() -> None:
    for source in EXAMPLE.glob("*.py"):
        assert not re.search("auditspan|opentelemetry", source.read_text(encoding="utf-8"), re.IGNORECASE)


def test_what_a_program_says_itself(tmp_path: Path) -> None:
    """The example of `auditspan.action`, as it is started by hand: without opentelemetry-instrument."""
    folder = tmp_path / "audit"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE.parent / "own-actions" / "operations.py"), str(tmp_path / "office")],
        capture_output=True,
        encoding="utf-8",
        env=environment(AUDITSPAN_DIR=str(folder), AUDITSPAN_VALIDATE="true", **QUIET),
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "done: contact c-1 is gone, payout p-7 is paid\n"), done.stderr
    assert "does not follow the registry" not in done.stderr
    log = open_directory(folder)
    assert verify_directory(log).verdict is Verdict.PASSED
    records = [record.attributes for record in from_directory(log)]
    assert len({record[schema.EVENT_TYPE] for record in records}) == 19
    assert not any(schema.NONCONFORMANT in record for record in records)
    update = next(record for record in records if record[schema.EVENT_TYPE] == "data.update")
    assert update[schema.CHANGE_FIELDS] == ["stage"]
    assert update[schema.STATE_BEFORE_HASH] != update[schema.STATE_AFTER_HASH]
    assert update[schema.SCRIPT_NAME].startswith("__main__")
    override = next(record for record in records if record[schema.ACTION] == "OVERRIDE")
    assert override[schema.DECISION_PATH] == ["rule: deny", "finance: override"]
    assert "dora@example.com" not in str(records)
