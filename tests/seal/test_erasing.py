# SPDX-License-Identifier: Apache-2.0
"""Erasing under conditions that are not quiet: busy writers, two at once, entries that lie, parts that are away."""

from __future__ import annotations

import getpass
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from auditspan.cli import erase as cli_erase
from auditspan.cli import main
from auditspan_seal import spans
from auditspan_seal.delivery import Delivery
from auditspan_seal.erase import disk
from auditspan_seal.erase.wanted import Wanted
from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats import statement as statements
from auditspan_seal.guard import Careful
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify import elasticsearch as stored
from auditspan_seal.verify.report import Code, Finding, Report, Verdict
from tests.records import ON_PURPOSE, audit_attributes
from tests.seal.test_personal import ADDRESS, OTHER, Guard, entries, everywhere, fill, report_of

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def directory(log_folder: Path) -> Directory:
    return fill(log_folder, ADDRESS, OTHER, ADDRESS)


@pytest.fixture
def signed_by_another(directory: Directory) -> Iterator[Directory]:
    """Have somebody else be the sequencer of the directory, and do its work."""
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    ending = threading.Event()

    def work() -> None:
        while not ending.wait(0.02):
            sequencer.integrate()

    thread = threading.Thread(target=work)
    thread.start()
    yield directory
    ending.set()
    thread.join()
    sequencer.close()


def erase(directory: Directory, *arguments: str, reason: str = "request 4711") -> int:
    return main(["erase", str(directory.path), "--reason", reason, *arguments])


# -- others at work --------------------------------------------------------------------------------------------
BUSY = f"""
import sys, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
provider = TracerProvider()
provider.add_span_processor(AuditSpanProcessor(AuditLog(Path(sys.argv[1]))))
tracer = provider.get_tracer("busy")
for number in range(10**9):
    tracer.start_span("record", attributes={audit_attributes()!r}).end()
    time.sleep(0.001)
    if number == 500:
        print("busy", flush=True)
"""


@pytest.mark.slow
def test_a_process_that_never_has_nothing_waiting_is_no_obstacle(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(log_folder, ADDRESS)
    monkeypatch.setattr(disk, "WAIT", 20.0)
    with subprocess.Popen([sys.executable, "-c", BUSY, str(log_folder)], stdout=subprocess.PIPE, text=True) as busy:
        try:
            assert busy.stdout is not None
            assert busy.stdout.readline() == "busy\n"
            found = disk.erase(open_directory(log_folder), Wanted(ADDRESS), "r", "tester")
        finally:
            busy.kill()
    assert len(found) == 1
    assert ADDRESS.encode() not in everywhere(log_folder)


def test_a_sequencer_that_does_not_go_on_is_said(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Sequencer.acquire(directory)
    assert stuck is not None
    before = everywhere(directory.log)
    monkeypatch.setattr(disk, "WAIT", 0.3)
    with pytest.raises(DirectoryError, match="does not go on"):
        disk.erase(directory, Wanted(ADDRESS), "r", "tester")
    assert everywhere(directory.log) == before, "nothing is overwritten before it is on record"
    stuck.close()
    assert erase(directory, "--value", ADDRESS) in (0, 2)
    assert ADDRESS.encode() not in everywhere(directory.path)
    assert report_of(directory).verdict is Verdict.PASSED


def test_two_who_erase_at_once_do_not_bring_back_each_others_values(
    signed_by_another: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, pwrite = signed_by_another, os.pwrite
    reached, go_on = threading.Event(), threading.Event()

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        if threading.current_thread().name == "first":
            reached.set()
            go_on.wait(10)
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    first, second = (
        threading.Thread(target=disk.erase, args=(directory, Wanted(value), "r", "tester"), name=name)
        for name, value in (("first", ADDRESS), ("second", "alice"))
    )
    first.start()
    assert reached.wait(20)
    second.start()
    second.join(1)
    go_on.set()
    first.join()
    second.join()
    left = everywhere(directory.path)
    assert ADDRESS.encode() not in left
    assert b"alice" not in left
    report = report_of(directory)
    assert (report.verdict, report.erased) == (Verdict.PASSED, 5)


# -- what would be signed --------------------------------------------------------------------------------------
def test_whoever_erases_their_own_name_does_not_sign_it_again(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    assert erase(directory, "--value", "alice") == 0
    assert b"alice" not in everywhere(directory.path)
    assert entries(directory)[-1][0]["attributes"]["audit.actor.id"] == disk.WITHHELD


def test_a_reason_with_a_value_of_the_record_in_it_is_refused(
    directory: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    span = entries(directory)[1][0]["span_id"]
    before = everywhere(directory.log)
    assert erase(directory, "--record", span, reason=f"asked for by Alice, {OTHER}") == 2
    assert "signed and stay forever" in capsys.readouterr().err
    assert everywhere(directory.log) == before
    assert erase(directory, "--record", span, reason=f"request alice4711, not {OTHER}") == 0, "no whole word of it"


def test_a_number_is_found_as_it_is_written(log_folder: Path) -> None:
    class Numbers(Guard):
        def personal(self, names: Collection[str]) -> Collection[str]:
            return {"user.number"} & set(names)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log := AuditLog(log_folder, guard=Numbers())))
    for value in (4711123, [7, 4711123], True):
        attributes = audit_attributes(**{"user.number": value})
        provider.get_tracer("test").start_span("record", attributes=attributes).end()
    provider.shutdown()
    assert erase(log.directory, "--value", "True") == 2, "what is yes or no is nobody's number"
    assert erase(log.directory, "--value", "4711123") == 0
    assert b"4711123" not in everywhere(log.directory.log)
    assert report_of(log.directory).erased == 2


# -- entries that lie or are damaged -----------------------------------------------------------------------------
@pytest.mark.parametrize("erased", [[[1]], 5, "x", [["1", "client.address"]], [[10_000, "client.address"]]])
def test_an_erasure_entry_that_makes_no_sense_erases_nothing_and_stops_nothing(
    directory: Directory, erased: Any
) -> None:
    writer = SegmentWriter(directory.segments)
    writer.append(lambda name, number: forged(directory, name, number, erased))
    writer.close()
    before = [private for _, private in entries(directory)]
    assert erase(directory, "--value", "nobody") == 2
    assert [private for _, private in entries(directory)][: len(before)] == before
    assert erase(directory, "--value", ADDRESS) == 0
    assert report_of(directory).erased == 2


def forged(directory: Directory, segment: str, number: int, erased: Any) -> bytes:
    return statements.encode(
        {
            "v": 2, "type": "erasure", "origin": directory.origin, "segment": segment, "number": number,
            "erased": erased, "reason": "", "time": "1", "attributes": {},
        }
    )  # fmt: skip


def test_an_erasure_entry_that_is_not_in_the_log_is_no_order_to_erase(directory: Directory) -> None:
    path = directory.log / reader.files(directory.log)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.startswith(b"E "))
    lines[last] = b"E " + forged(directory, "s", 1, [[1, "client.address"]]) + b"\n"
    path.write_bytes(b"".join(lines))
    assert disk.erased_before(directory) == {}


def test_a_damaged_private_part_does_not_hold_back_its_statement(directory: Directory) -> None:
    statement = [statement for block in reader.batches(directory.log) for statement in block.statements][1]
    for damaged in (b"{x", b"[]", b'{"client.address":1}', b"\xff"):
        document = spans.document_of(statement, damaged, directory.origin, 1)
        assert document.attributes is not None
        assert document.attributes[spans.STATEMENT] == statement.decode()
        assert spans.PRIVATE not in document.attributes


# -- parts that are away -----------------------------------------------------------------------------------------
def test_what_is_left_is_said_by_the_exit_code_each_time(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result: dict[str, Any] = {
        "documents_changed": 0, "documents_left": 0, "old_versions_released": 0, "old_versions_left": 2,
        "not_delivered_yet": [1],
    }  # fmt: skip
    monkeypatch.setattr(cli_erase, "_in_elasticsearch", lambda url, directory, wait: result)
    arguments = ["--value", ADDRESS, "--elasticsearch", NOWHERE]
    assert [erase(directory, *arguments), erase(directory, *arguments)] == [3, 3]
    assert "2 old versions of documents are still in its files" in capsys.readouterr().out
    result.update(old_versions_left=0, old_versions_released=2, not_delivered_yet=[])
    assert erase(directory, *arguments) == 0, "the rest of an earlier run is done"
    result.update(old_versions_released=0)
    assert erase(directory, *arguments) == 2, "nothing is left, and nothing was found"


def test_an_elasticsearch_that_is_away_does_not_keep_the_log_from_being_erased(
    directory: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert erase(directory, "--value", ADDRESS, "--elasticsearch", NOWHERE, "--json") == 3
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["erased"]) == 2
    assert "does not answer" in printed["left"][0]
    assert ADDRESS.encode() not in everywhere(directory.path)


def test_a_wrong_url_is_said_before_anything_is_changed(directory: Directory) -> None:
    before = everywhere(directory.log)
    assert erase(directory, "--value", ADDRESS, "--elasticsearch", "nonsense") == 2
    assert everywhere(directory.log) == before


def test_a_collector_that_is_away_is_said(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier/pigeon")
    assert erase(directory, "--value", ADDRESS) == 3
    assert ADDRESS.encode() not in everywhere(directory.path)


def test_what_was_delivered_is_not_called_erased_while_elasticsearch_still_has_it(
    directory: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    Delivery(reader.Cursor("00000000000000000000.log", 0), 2).save(directory.delivery)
    assert erase(directory, "--value", ADDRESS) == 3
    assert "give --elasticsearch" in capsys.readouterr().out


def test_a_value_whose_erasure_record_is_on_its_way_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    early, late = Report("x"), Report("x")
    early.findings.append(Finding(Code.VALUE_REMOVED, "", "o", 1))
    reports = [early, late]
    monkeypatch.setattr(stored, "_verify_once", lambda *arguments: reports.pop(0))
    assert stored.verify_elasticsearch(NOWHERE, wait=5) is late


# -- the guard -----------------------------------------------------------------------------------------------------
def test_a_guard_that_always_fails_does_not_cost_the_application_a_file_for_each_value(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Guard):
        def personal(self, names: Collection[str]) -> Collection[str]:
            raise RuntimeError

    monkeypatch.setattr(logging.getLogger("auditspan"), "disabled", True)
    log = AuditLog(log_folder, guard=Broken())
    written: list[int] = []
    monkeypatch.setattr(log, "publish_status", lambda: written.append(1))
    monkeypatch.setattr(log, "_start", lambda: None)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    for _ in range(50):
        provider.get_tracer("test").start_span("record", attributes=audit_attributes()).end()
    assert log.recorded == 50
    assert written == [1]
    provider.shutdown()
    (log_folder / ON_PURPOSE).touch()  # of records whose every value is held to be personal there is little to judge


def test_a_guard_that_goes_on_failing_is_said_again_with_how_often(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Guard):
        def text(self, text: str) -> str:
            raise ValueError(text)

    said: list[str] = []
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    careful = Careful(Broken(), said.append)
    for _ in range(3):
        careful.text("secret")
    now[0] += 60
    careful.text("secret")
    assert len(said) == 2
    assert "4 times" in said[1]
    assert not any("secret" in text for text in said)
