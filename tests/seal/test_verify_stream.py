# SPDX-License-Identifier: Apache-2.0
"""One walk along a log says all there is to say: second places, heartbeats, control segments, several processes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.verify import account, parallel, report
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Claim, Code, Finding, Report, Verdict
from auditspan_seal.verify.tally import IndexSet, Numbers
from auditspan_seal.witness.trusted import TrustedCheckpoint
from tests.seal.verifying import Log, codes, entries, lines, write

SECOND = 1_000_000_000


@pytest.fixture
def log(log_folder: Path) -> Log:
    log = Log(log_folder)
    for count in (3, 1, 4, 2):
        log.add(log.spans(count))
    return log


def verdicts(report: Report) -> dict[Claim, Verdict]:
    return {claim: verdict for claim, verdict, _ in report.claims()}


# -- second places -----------------------------------------------------------------------------------------------
def test_without_a_second_place_nobody_can_know_and_that_is_said(log: Log) -> None:
    found = verify_directory(log.directory, trust=log.trust())
    assert found.verdict is Verdict.PASSED
    assert verdicts(found) == {
        Claim.RECORDS_UNALTERED: Verdict.PASSED,
        Claim.NONE_MISSING: Verdict.PASSED,
        Claim.NOTHING_CUT_OFF: Verdict.UNVERIFIABLE,
        Claim.HISTORY_NOT_REWRITTEN: Verdict.UNVERIFIABLE,
        Claim.SIGNED_BY_WHOM_YOU_TRUST: Verdict.PASSED,
        Claim.DOCUMENTS_AGREE: Verdict.UNVERIFIABLE,
    }
    demanding = verify_directory(log.directory, trust=log.trust(require=[Claim.NOTHING_CUT_OFF]))
    assert (demanding.verdict, demanding.exit_code) == (Verdict.UNVERIFIABLE, 4)
    assert verify_directory(log.directory, trust=log.trust(log.seen(), require=[Claim.NOTHING_CUT_OFF])).exit_code == 0


def test_a_log_that_is_what_was_seen_passes_at_every_size(log: Log) -> None:
    # also at sizes at which the log itself has no checkpoint
    sizes: list[TrustedCheckpoint] = []
    tree = Frontier()
    for line in lines(log.directory):
        if line.startswith(b"E "):
            tree.append(leaf_hash(line[2:-1]))
            sizes.append(TrustedCheckpoint(log.directory.origin, tree.size, tree.root(), "the archive", None, ()))
    found = verify_directory(log.directory, trust=log.trust(*sizes))
    assert (found.findings, found.anchors) == ([], {log.directory.origin: 11})
    assert verdicts(found)[Claim.HISTORY_NOT_REWRITTEN] is Verdict.PASSED
    for seen in sizes:
        other = TrustedCheckpoint(seen.origin, seen.size, bytes(32), seen.source, None, ())
        found = verify_directory(log.directory, trust=log.trust(*sizes[:5], other))
        assert codes(found) == {(Code.HISTORY_REWRITTEN, seen.size)}
        assert found.exit_code == 1


def test_a_cut_tail_is_found_at_and_off_checkpoints(log: Log) -> None:
    seen, whole = log.seen(), lines(log.directory)
    for end in range(2, len(whole)):
        write(log.directory, whole[:end])
        found = verify_directory(log.directory, trust=log.trust(seen))
        assert Code.LOG_TRUNCATED in {code for code, _ in codes(found)}, end
        assert found.verdict is Verdict.FAILED
        assert verdicts(found)[Claim.NOTHING_CUT_OFF] is Verdict.FAILED


def test_a_rewrite_with_the_stolen_key_is_found(log: Log) -> None:
    seen = log.seen()
    for path in log.directory.log.iterdir():
        path.unlink()
    thief = Log(log.directory.path)  # the same key, another history
    thief.add(thief.spans(12))
    assert verify_directory(log.directory, trust=log.trust()).verdict is Verdict.PASSED
    assert codes(verify_directory(log.directory, trust=log.trust(seen))) == {(Code.HISTORY_REWRITTEN, 11)}


def test_a_whole_log_that_is_gone_is_found(log: Log) -> None:
    for path in log.directory.log.iterdir():
        path.unlink()
    found = verify_directory(log.directory, trust=log.trust(log.seen()))
    assert codes(found) == {(Code.LOG_TRUNCATED, 0), (Code.NOTHING_FOUND, None)}
    assert found.verdict is Verdict.FAILED


# -- heartbeats and closes ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ending", "silent"),
    [
        (["heartbeat"], True),
        (["heartbeat", "span"], False),  # of just now
        (["heartbeat", "close", "span"], False),
        (["heartbeat", "close"], False),
        (["close", "heartbeat"], True),
        (["span"], False),
    ],
)
def test_a_log_that_promised_more_and_is_silent_is_said(log: Log, ending: list[str], silent: bool) -> None:
    for kind in ending:
        log.add([log.span(end=str(time.time_ns())) if kind == "span" else log.entry(kind, time="1", next=60)])
    found = verify_directory(log.directory, trust=log.trust())
    assert codes(found) == ({(Code.LOG_SILENT, log.tree.size - 1)} if silent else set())
    assert found.exit_code == (3 if silent else 0)


def test_a_heartbeat_that_is_still_good_is_not_silent(log: Log) -> None:
    log.add([log.entry("heartbeat", time=str(time.time_ns() - 100 * SECOND), next=60)])
    assert verify_directory(log.directory, trust=log.trust()).findings == []


# -- what only a thief of the key, or of the files, can do ---------------------------------------------------------
def test_a_number_that_stands_twice_in_the_signed_tree_is_found(log: Log) -> None:
    again = log.span()
    log.add([again])
    log.add([log.span()])
    log.add([again])
    for jobs in (1, 2):
        found = verify_directory(log.directory, trust=log.trust(), jobs=jobs)
        assert codes(found) == {(Code.DUPLICATE_DOCUMENT, log.tree.size - 1)}
        assert found.verdict is Verdict.FAILED


def test_a_number_of_an_earlier_range_is_found_by_several_processes(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(log_folder)
    again = log.span()
    log.add([again])
    for _ in range(10):
        log.add(log.spans(10))
    log.add([again])
    monkeypatch.setattr(parallel, "RANGE", 4000)
    for jobs in (1, 2):
        found = verify_directory(log.directory, trust=log.trust(), jobs=jobs)
        assert codes(found) == {(Code.DUPLICATE_DOCUMENT, log.tree.size - 1)}


def test_what_a_checkpoint_that_cannot_be_used_claims_leads_to_findings(log: Log) -> None:
    """Entries that claim to be beyond the batch they are held against."""
    content = lines(log.directory)
    at = next(number for number, line in enumerate(content) if line.startswith(b"C "))
    content[at] = content[at].replace(b'"first":0', b'"first":5000')
    write(log.directory, content)
    found = verify_directory(log.directory, trust=log.trust())
    assert Code.CHECKPOINT_INVALID in {code for code, _ in codes(found)}
    assert found.verdict is Verdict.FAILED


def test_a_checkpoint_line_that_stands_twice_is_found(log: Log) -> None:
    content = lines(log.directory)
    at = next(number for number, line in enumerate(content) if line.startswith(b"C "))
    write(log.directory, [*content[: at + 1], *content[at:]])
    found = verify_directory(log.directory, trust=log.trust())
    assert {code for code, _ in codes(found)} == {Code.LOG_DAMAGED}


# -- who may erase -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("control", "segment", "allowed"),
    [
        (True, "control-0011", True),
        (True, "0123456789abcdef", False),
        (False, "0123456789abcdef", True),
        (None, "0123456789abcdef", True),
        ("yes", "0123456789abcdef", True),
    ],
)
def test_erasures_come_on_the_way_that_the_log_says(
    log_folder: Path, control: object, segment: str, allowed: bool
) -> None:
    log = Log(log_folder, **({} if control is None else {"control": control}))
    log.add([log.span(attributes={"client.address": {"commitment": "A" * 43 + "="}})])
    number = 1 if segment.startswith("control-") else 2
    log.add([log.entry("erasure", segment=segment, number=number, erased=[[1, "client.address"]], reason="r")])
    found = verify_directory(log.directory, trust=log.trust())
    if allowed:
        assert Code.ENTRY_NOT_ALLOWED not in {code for code, _ in codes(found)}
        assert found.erased == 1
    else:
        assert codes(found) == {(Code.ENTRY_NOT_ALLOWED, 2), (Code.VALUE_REMOVED, 1)}


# -- running numbers -----------------------------------------------------------------------------------------------
def test_a_number_that_never_came_is_said(log: Log) -> None:
    log.span()
    log.add(log.spans(1))
    (finding,) = verify_directory(log.directory, trust=log.trust()).findings
    assert (finding.code, "number 11 " in finding.message) == (Code.RECORD_MISSING, True)


def test_numbers_are_the_same_whether_joined_or_seen_in_one(log: Log) -> None:
    rng = random.Random(5)
    for _ in range(200):
        stream = [(rng.choice("ab"), n) for n in range(1, 30) if rng.random() < 0.8]
        cut = rng.randrange(len(stream) + 1)
        whole, left, right = Numbers(), Numbers(), Numbers(whole=False)
        for name, number in stream:
            whole.see(name, number)
        for name, number in stream[:cut]:
            left.see(name, number)
        for name, number in stream[cut:]:
            right.see(name, number)
        left.join(right)
        assert sorted(left.missing()) == sorted(whole.missing())
        assert left.last == whole.last


def test_a_set_of_indexes_is_a_set() -> None:
    rng, ours, real = random.Random(1), IndexSet(), set[int]()
    for _ in range(5000):
        index = rng.choice((rng.randrange(100), rng.randrange(10**9)))
        if rng.random() < 0.7:
            ours.add(index)
            real.add(index)
        else:
            assert ours.discard(index) == (index in real)
            real.discard(index)
    assert list(ours) == sorted(real)
    assert len(ours) == len(real)


# -- bounds --------------------------------------------------------------------------------------------------------
def test_findings_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(report, "MAX_FINDINGS", 5)
    content = lines(log.directory)
    write(log.directory, [line for line in content if not line.startswith(b"E ") or b"genesis" in line])
    found = verify_directory(log.directory, trust=log.trust())
    assert (len(found.findings), found.omitted, found.verdict) == (5, {Code.ENTRY_MISSING: 5}, Verdict.FAILED)
    assert found.as_json()["findings_omitted"] == {"entry_missing": 5}


def test_what_is_out_of_place_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(account, "MAX_MISFITS", 3)
    content = lines(log.directory)
    write(log.directory, [line.replace(b'"name":"n"', b'"name":"x"') for line in content])
    found = verify_directory(log.directory, trust=log.trust())
    assert found.verdict is Verdict.FAILED
    assert any("7 more documents" in finding.message for finding in found.findings)


# -- several processes ----------------------------------------------------------------------------------------------
def swapped(content: list[bytes], one: int, other: int) -> list[bytes]:
    at, to = entries(content)[one], entries(content)[other]
    content[at], content[to] = content[to], content[at]
    return content


def checkpoint(content: list[bytes], size: int) -> int:
    """Line number of the checkpoint of a size."""
    text = b"\\n%d\\n" % size
    return next(number for number, line in enumerate(content) if line.startswith(b"C ") and text in line)


TAMPER: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "nothing": lambda c: c,
    "an entry deleted": lambda c: c[: entries(c)[40]] + c[entries(c)[40] + 1 :],
    "an entry altered": lambda c: [line.replace(b'"end":"50"', b'"end":"51"') for line in c],
    "two swapped": lambda c: swapped(c, 9, 60),
    "two of a batch swapped": lambda c: swapped(c, 13, 14),
    "an entry twice": lambda c: [*c[: entries(c)[30]], c[entries(c)[30]], *c[entries(c)[30] :]],
    "a checkpoint deleted": lambda c: [line for at, line in enumerate(c) if at != checkpoint(c, 41)],
    "beginning pruned": lambda c: c[checkpoint(c, 21) + 1 :],
    "end cut": lambda c: c[: entries(c)[77]],
    "not a line": lambda c: [b"C {}\n" if at == checkpoint(c, 61) else line for at, line in enumerate(c)],
}


@pytest.mark.slow
@pytest.mark.parametrize("how", TAMPER)
def test_several_processes_say_what_one_says(log_folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(log_folder)
    for _ in range(10):
        log.add(log.spans(10))
    log.add([log.entry("erasure", segment="other", number=1, erased=[[5, "x"]], reason="r")])
    write(log.directory, TAMPER[how](lines(log.directory)))
    monkeypatch.setattr(parallel, "RANGE", 4000)
    assert len(list(parallel.ranges(log.directory.log, parallel.reader.Cursor()))) > 4
    one = verify_directory(log.directory, trust=log.trust(log.seen()), jobs=1)
    two = verify_directory(log.directory, trust=log.trust(log.seen()), jobs=2)
    assert one.as_json() == two.as_json()
    assert (one.verdict is Verdict.PASSED) is (how == "nothing")


def test_a_process_that_is_killed_costs_time_and_nothing_else(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "RANGE", 1000)
    work = list(parallel.ranges(log.directory.log, parallel.reader.Cursor()))
    found = list(parallel.in_order(2, work, lambda pool, part: pool.submit(_die)))
    assert [part for part, _ in found] == work
    assert {result for _, result in found} == {None}


def _die() -> None:
    import os

    os._exit(9)


def test_a_report_holds_its_order() -> None:
    found = Report("x")
    for index in (3, 1, 2):
        found.add(Finding(Code.ENTRY_MISSING, "m", "o", index))
    found.order()
    assert [finding.index for finding in found.findings] == [1, 2, 3]
