# SPDX-License-Identifier: Apache-2.0
"""A verification goes on where it was; what it has seen must still be there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.verify import journey, judge
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.journey import Journey
from auditspan_seal.verify.report import Code, Report, Verdict
from auditspan_seal.verify.state import StateFile
from tests.seal.verifying import Log, codes, entries, lines, write


@pytest.fixture
def log(log_folder: Path) -> Log:
    log = Log(log_folder)
    for count in (3, 1, 4, 2):
        log.add(log.spans(count))
    return log


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def verify(log: Log, state: Path, trust: Trust | None = None) -> Report:
    return verify_directory(log.directory, trust=trust or log.trust(), journey=Journey(state=StateFile(state)))


def test_only_what_is_new_is_judged_and_all_is_counted(log: Log, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = verify_directory(log.directory, trust=log.trust())
    assert verify(log, state).as_json() == whole.as_json()
    log.add(log.spans(5))
    judged: list[int] = []
    batch = judge.Judge.batch
    monkeypatch.setattr(
        judge.Judge,
        "batch",
        lambda self, entries: judged.extend(f.index for f in entries.facts()) or batch(self, entries),
    )
    report = verify(log, state)
    assert judged == [11, 12, 13, 14, 15]
    assert (report.findings, report.records, report.checkpoints) == ([], 15, 6)
    assert report.logs == {log.directory.origin: 16}
    assert report.anchors == {log.directory.origin: 11}, "what was seen before vouches for it"
    assert verify(log, state).records == 15


def test_a_log_that_became_shorter_or_vanished(log: Log, state: Path) -> None:
    verify(log, state)
    content = lines(log.directory)
    write(log.directory, content[: entries(content)[8]])
    assert Code.LOG_TRUNCATED in {code for code, _ in codes(verify(log, state))}
    for path in log.directory.log.iterdir():
        path.unlink()
    report = verify(log, state)
    assert Code.LOG_TRUNCATED in {code for code, _ in codes(report)}
    assert report.verdict is Verdict.FAILED


def test_another_history_with_the_same_key(log: Log, state: Path) -> None:
    verify(log, state)
    for path in log.directory.log.iterdir():
        path.unlink()
    thief = Log(log.directory.path)
    thief.add(thief.spans(20))
    assert Code.HISTORY_REWRITTEN in {code for code, _ in codes(verify(log, state))}


def test_what_was_missing_is_looked_for_again(log: Log, state: Path) -> None:
    content = lines(log.directory)
    at = entries(content)[6]
    write(log.directory, [*content[:at], *content[at + 1 :]])
    assert codes(verify(log, state)) == {(Code.ENTRY_MISSING, 6)}
    assert codes(verify(log, state)) == {(Code.ENTRY_MISSING, 6)}, "it does not go by"
    write(log.directory, content)
    assert verify(log, state).findings == []


def test_an_erasure_of_what_was_seen_before(log_folder: Path, state: Path) -> None:
    log = Log(log_folder)
    log.add([log.span(attributes={"client.address": {"commitment": "A" * 43 + "="}})])
    assert codes(verify(log, state)) == {(Code.VALUE_REMOVED, 1)}
    log.add([log.entry("erasure", segment="b", number=1, erased=[[1, "client.address"]], reason="r")])
    report = verify(log, state)
    assert (report.findings, report.erased, report.erasures) == ([], 1, {log.directory.origin: [2]})


def test_findings_and_running_numbers_are_remembered(log: Log, state: Path) -> None:
    log.span()
    log.add([log.entry("gap", segment="x", number=1, reason="torn"), *log.spans(1)])
    first = codes(verify(log, state))
    assert first == {(Code.GAP_ENTRY, 11), (Code.RECORD_MISSING, None)}
    log.add(log.spans(2))
    assert codes(verify(log, state)) == first


def test_an_interrupted_verification_goes_on(log: Log, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journey, "_SAVE", 0.0)
    step, count = journey.Journey.reached, iter(range(100))

    def interrupted(self: Journey, *values: Any, **more: Any) -> None:
        step(self, *values, **more)
        if next(count) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(journey.Journey, "reached", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(log, state)
    assert json.loads(state.read_bytes())["logs"][log.directory.origin]["size"] == 5
    assert not list(state.parent.glob("*.new"))
    monkeypatch.setattr(journey.Journey, "reached", step)
    report = verify(log, state)
    assert (report.findings, report.records, report.checkpoints) == ([], 10, 5)


def test_other_keys_begin_anew(log: Log, state: Path) -> None:
    verify(log, state)
    stranger = Trust([VerifierKey(log.directory.origin, bytes(range(32)))])
    report = verify(log, state, stranger)
    assert {code for code, _ in codes(report)} == {Code.WRONG_KEY}
    assert "from the beginning" in report.notes[0]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version":1}', b'{"version":1,"trust":"","logs":{"x":{}}}'])
def test_a_state_that_is_none(log: Log, state: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_bytes(content)
    assert main(["verify", str(log.directory.path), "--state", str(state)]) == 2
    assert "What to do:" in capsys.readouterr().err


def test_a_state_of_a_log_that_is_damaged(log: Log, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(log, state)
    content = json.loads(state.read_bytes())
    content["logs"][log.directory.origin]["numbers"] = 5
    state.write_text(json.dumps(content))
    code = main(["verify", str(log.directory.path), "--state", str(state), "--key", str(log.directory.verifier_key)])
    assert code == 2
    assert "is damaged" in capsys.readouterr().err
