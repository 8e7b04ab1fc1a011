# SPDX-License-Identifier: Apache-2.0
"""Pruning and the disk budget: only what Elasticsearch was seen to hold goes, and what stays is verified from there."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan_seal.delivery import Delivery, Rejected
from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats import statement as statements
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import budget, pruned, reader, sequencer
from auditspan_seal.log.budget import Keeper, Over
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.pruned import Pruned, candidates, prune
from auditspan_seal.log.receipt import Open, Receipt
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict

Make = Callable[..., Directory]
DAY = 86400.0


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequencer, "ROLL_SIZE", 20_000)


@pytest.fixture
def directory(make_records: Make, log_folder: Path) -> Directory:
    """A log of five files, of 20 records each."""
    found = open_directory(log_folder, create=True)
    signing = sequencer.Sequencer.acquire(found)
    assert signing is not None
    for _ in range(5):
        make_records(20)  # signs nothing, as somebody else does
        while signing.integrate():
            pass
    signing.close()
    assert [reader.first_of(name) for name in reader.files(found.log)] == [0, 21, 41, 61, 81]
    return found


def seen(directory: Directory, size: int, age: float = 0.0, **more: Any) -> None:
    """Leave the receipt that a reconciliation would."""
    note = next(block.batch.note for block in reader.batches(directory.log) if block.batch.size == size)
    Receipt(directory.origin, size, note, size, place="http://es:9200", time=time.time() - age, **more).save(directory)


def first(directory: Directory) -> int:
    return reader.first_of(reader.files(directory.log)[0])


def test_nothing_goes_without_a_receipt(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(directory, 0.0) == []
    assert main(["prune", str(directory.path), "--older-than", "0"]) == 3
    assert "there is no delivery receipt: run `auditspan backend reconcile`" in capsys.readouterr().out
    # Delivered is not seen: the Collector may still have it.
    Delivery(reader.Cursor(reader.files(directory.log)[-1], 0), 101).save(directory.delivery)
    assert prune(directory, 0.0) == []
    (directory.path / "receipt.json").write_text('{"v": 1, "size": 101}')
    assert prune(directory, 0.0) == []


def test_only_files_that_the_receipt_covers_wholly_go(directory: Directory) -> None:
    seen(directory, 61)
    assert [item.first for item in prune(directory, 0.0)] == [0, 21, 41]
    assert first(directory) == 61
    assert prune(directory, 0.0) == []


def test_what_was_rejected_is_said_until_it_was_seen_to_have_arrived(
    directory: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    rejected = (Rejected(10, 20, 2, "mapping"), Rejected(50, 70, 1, "mapping"))
    cursor = reader.Cursor(reader.files(directory.log)[-1], 0)
    Delivery(cursor, 101, rejected=rejected).save(directory.delivery)

    def said() -> tuple[int, int]:
        main(["status", str(directory.path), "--json"])
        state = json.loads(capsys.readouterr().out)
        return state["rejected"], sum("were not taken" in item for item in state["attention"])

    assert said() == (3, 2)
    seen(directory, 41)
    assert said() == (1, 1)
    seen(directory, 101)
    assert said() == (0, 0)


def test_the_newest_file_never_goes(directory: Directory) -> None:
    seen(directory, 101)
    assert [item.first for item in prune(directory, 0.0)] == [0, 21, 41, 61]
    assert first(directory) == 81


def test_what_is_open_holds_back_everything_after_it(directory: Directory) -> None:
    seen(directory, 21, open=(Open("entry", 30, 30, "refused"),))
    assert [item.first for item in prune(directory, 0.0)] == [0]


def test_a_receipt_that_is_old_or_of_another_log_counts_for_nothing(directory: Directory) -> None:
    seen(directory, 61, age=25 * 3600)
    assert prune(directory, 0.0) == []
    assert "older than 24 hours" in candidates(directory, 0.0)[0].kept
    receipt = Receipt.load(directory)
    assert receipt is not None
    for change in ({"origin": "another"}, {"size": 81}, {"note": ""}, {"v": 2}):
        fields = json.loads((directory.path / "receipt.json").read_text()) | {"time": time.time()} | change
        (directory.path / "receipt.json").write_text(json.dumps(fields))
        assert prune(directory, 0.0) == []
        receipt.save(directory)


def test_files_stay_as_long_as_the_retention_says(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(directory, 101)
    for name, days in zip(reader.files(directory.log), (40, 31, 29, 1, 0), strict=True):
        moment = time.time() - days * DAY
        os.utime(directory.log / name, (moment, moment))
    assert main(["prune", str(directory.path)]) == 2  # nothing is removed that nobody asked for
    monkeypatch.setenv("AUDITSPAN_RETENTION", "30")
    assert main(["prune", str(directory.path), "--dry-run"]) == 0
    assert first(directory) == 0
    assert main(["prune", str(directory.path)]) == 0
    assert first(directory) == 41


def test_what_witnesses_have_not_cosigned_stays(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    seen(directory, 101)
    monkeypatch.setenv("AUDITSPAN_WITNESS_POLICY", "policy")
    assert prune(directory, 0.0) == []
    note = next(block.batch.note for block in reader.batches(directory.log) if block.batch.size == 41)
    (directory.path / "cosigned.note").write_text(note)
    assert [item.first for item in prune(directory, 0.0)] == [0, 21]


def test_a_pruned_log_is_verified_from_where_it_begins(directory: Directory, make_records: Make) -> None:
    seen(directory, 61)
    prune(directory, 0.0)
    key = read_verifier_key(directory.verifier_key)
    report = verify_directory(directory, key)
    assert report.verdict is Verdict.INCOMPLETE
    (finding,) = report.findings
    assert (finding.code, finding.index) == (Code.PREFIX_MISSING, 61)
    assert "were pruned from this directory, after http://es:9200 was seen to hold them" in finding.message
    assert report.records == 40
    # The log goes on, over a restart, and stays one tree.
    make_records(5)
    report = verify_directory(directory, key)
    assert ([finding.code for finding in report.findings], report.records) == ([Code.PREFIX_MISSING], 45)
    # More than was pruned is gone: that is somebody else's doing.
    (directory.log / reader.files(directory.log)[0]).unlink()
    (finding,) = verify_directory(directory, key).findings
    assert "Only the indexes below 61 were pruned: somebody has removed more" in finding.message


def test_the_record_of_pruning_holds_the_checkpoint_up_to_which_it_went(directory: Directory) -> None:
    notes = {block.batch.size: block.batch.note for block in reader.batches(directory.log)}
    sizes = {name: (directory.log / name).stat().st_blocks * 512 for name in reader.files(directory.log)}
    seen(directory, 41)
    prune(directory, 0.0)
    seen(directory, 81)
    prune(directory, 0.0)
    record = Pruned.load(directory)
    assert record is not None
    assert (record.size, record.note, record.files) == (81, notes[81], 4)
    assert record.bytes == sum(list(sizes.values())[:4])


def test_a_crash_between_record_and_removal_is_mended_by_the_next_one(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(directory, 61)
    real = Path.unlink

    def dying(path: Path, missing_ok: bool = False) -> None:
        if reader.first_of(path.name) == 21:
            raise OSError(5, "Input/output error")
        real(path, missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", dying)
        with pytest.raises(DirectoryError, match="rest stays"):
            prune(directory, 0.0)
    key = read_verifier_key(directory.verifier_key)
    assert {finding.code for finding in verify_directory(directory, key).findings} == {Code.PREFIX_MISSING}
    assert [item.first for item in prune(directory, 0.0)] == [21, 41]
    record = Pruned.load(directory)
    assert record is not None
    assert (record.size, record.files) == (61, 3)


def test_nothing_is_removed_while_values_are_erased(directory: Directory) -> None:
    seen(directory, 61)
    lock = os.open(directory.path / pruned.LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(DirectoryError, match="being erased"):
        prune(directory, 0.0)
    os.close(lock)
    assert len(prune(directory, 0.0)) == 3


# -- budget ----------------------------------------------------------------------------------------------------------
class Told(dict[str, "str | None"]):
    def __call__(self, what: str, problem: str | None) -> None:
        self[what] = problem


def keep(directory: Directory) -> Told:
    told = Told()
    Keeper(directory, told).step()
    return told


def test_by_default_nothing_is_removed_and_no_budget_kept(directory: Directory) -> None:
    seen(directory, 101)
    assert keep(directory) == {"disk budget": None}
    assert first(directory) == 0


def test_over_the_budget_the_oldest_that_may_go_goes_and_no_more(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen(directory, 101)
    one = (directory.log / reader.files(directory.log)[0]).stat().st_blocks * 512
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", str(budget.used(directory) - one - 1))
    assert keep(directory) == {"disk budget": None}
    assert first(directory) == 41
    # With a retention, the budget does not undo it.
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", "1000")
    monkeypatch.setenv("AUDITSPAN_RETENTION", "1")
    assert "written to within the last 1 days" in str(keep(directory)["disk budget"])
    assert first(directory) == 41


def test_what_was_not_seen_in_elasticsearch_stays_whatever_the_budget(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", "1kB")
    told = str(keep(directory)["disk budget"])
    assert "there is no delivery receipt" in told
    assert "recording goes on" in told
    assert first(directory) == 0
    assert main(["status", str(directory.path)]) == 3
    assert "more than AUDITSPAN_DISK_BUDGET allows (1000 bytes)" in capsys.readouterr().out
    # Reconciled, it is within its budget as far as that goes; then it is said no more.
    seen(directory, 101)
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", "1MB")
    assert keep(directory) == {"disk budget": None}
    assert Over.load(directory) is None
    assert main(["status", str(directory.path)]) == 0


def test_records_are_recorded_over_the_budget_by_default(
    directory: Directory, make_records: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", "1kB")
    make_records(7)
    assert verify_directory(directory).records == 107
    assert "more than AUDITSPAN_DISK_BUDGET allows" in caplog.text


def test_refused_records_are_counted_and_the_log_says_so_when_there_is_room(
    directory: Directory, make_records: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "EVERY", 0.2)
    monkeypatch.setattr(budget, "_LOOK", 0.0)
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", "1kB")
    monkeypatch.setenv("AUDITSPAN_OVER_BUDGET", "refuse")
    keep(directory)
    over = Over.load(directory)
    assert over is not None
    assert over.refuse
    from opentelemetry.sdk.trace import TracerProvider

    from auditspan_seal.processor import AuditSpanProcessor
    from auditspan_seal.service import AuditLog
    from tests.records import audit_attributes

    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(directory.path)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("test")

    def record(count: int) -> None:
        for _ in range(count):
            with tracer.start_as_current_span("refused", attributes=audit_attributes()):
                pass

    with caplog.at_level(logging.ERROR):
        record(9)  # the application goes on
    assert log.lost == 9
    assert caplog.text.count("uses more disk than AUDITSPAN_DISK_BUDGET allows") == 1
    # It is this process that signs, though it could record nothing yet: it sees when there is room.
    seen(directory, 101)
    _wait(lambda: first(directory) == 81)
    monkeypatch.setattr(budget, "used", lambda directory: 0)
    _wait(lambda: Over.load(directory) is None)
    record(3)
    provider.shutdown()
    entries = [statements.decode(item) for block in reader.batches(directory.log) for item in block.statements]
    (gap,) = [item for item in entries if item["type"] == "gap"]
    assert "9" in str(gap)
    assert "OverBudget" in str(gap)
    assert sum(item["type"] == "span" and item["name"] == "refused" for item in entries) == 3


def _wait(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUDITSPAN_DISK_BUDGET", "much"), ("AUDITSPAN_DISK_BUDGET", "0"), ("AUDITSPAN_RETENTION", "a year"),
        ("AUDITSPAN_RETENTION", "-1"), ("AUDITSPAN_OVER_BUDGET", "explode"), ("AUDITSPAN_RETENTION", "nan"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_understood_removes_nothing_and_is_said(
    directory: Directory, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    seen(directory, 101)
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", "1kB")
    monkeypatch.setenv(name, value)
    told = keep(directory)
    assert name in str(told["disk setting"])
    assert first(directory) == 0


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("20GB", 20 * 10**9), ("1.5 GiB", 1_610_612_736), ("64m", 64 * 10**6)]
)
def test_a_budget_may_have_a_unit(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("AUDITSPAN_DISK_BUDGET", text)
    assert budget.Limits.from_environment().budget == size
