# SPDX-License-Identifier: Apache-2.0
"""Tampering with a log on disk is found, with the right reason and place; an honest log passes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from auditspan.cli import main
from auditspan_seal.formats.batch import ENTRY
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict
from tests.seal.verifying import entries, lines, write

Make = Callable[..., Directory]


@pytest.fixture
def directory(make_records: Make) -> Directory:
    make_records(4)
    return make_records(4)


def codes(directory: Directory) -> set[tuple[Code, int | None]]:
    return {(finding.code, finding.index) for finding in verify_directory(directory, key(directory)).findings}


def key(directory: Directory) -> VerifierKey:
    return read_verifier_key(directory.verifier_key)


def test_an_honest_log_passes(directory: Directory) -> None:
    report = verify_directory(directory, key(directory))
    assert report.verdict is Verdict.PASSED
    assert (report.records, report.trust, report.findings) == (8, "pinned", [])


def test_every_single_byte_of_every_entry_counts(directory: Directory) -> None:
    honest = lines(directory)
    for index, number in enumerate(entries(honest)):
        step = max(1, len(honest[number]) // 25)
        for at in range(2, len(honest[number]) - 1, step):
            content = list(honest)
            changed = bytearray(content[number])
            changed[at] ^= 1
            content[number] = bytes(changed)
            write(directory, content)
            found = codes(directory)
            assert found == {(Code.STATEMENT_ALTERED, index)}, (index, at, found)


def test_a_deleted_entry(directory: Directory) -> None:
    content = lines(directory)
    del content[entries(content)[3]]
    write(directory, content)
    assert (Code.ENTRY_MISSING, 3) in codes(directory)


def test_an_inserted_entry(directory: Directory) -> None:
    content = lines(directory)
    at = entries(content)[3]
    content.insert(at, content[at].replace(b"record", b"forged"))
    write(directory, content)
    assert Code.STATEMENT_ALTERED in {code for code, _ in codes(directory)}


def test_a_duplicated_entry(directory: Directory) -> None:
    content = lines(directory)
    at = entries(content)[3]
    content.insert(at, content[at])
    write(directory, content)
    assert (Code.DUPLICATE_DOCUMENT, 3) in codes(directory)


def test_a_removed_checkpoint(directory: Directory) -> None:
    content = lines(directory)
    checkpoints = [number for number, line in enumerate(content) if not line.startswith(ENTRY)]
    del content[checkpoints[1]]
    write(directory, content)
    assert verify_directory(directory, key(directory)).verdict is Verdict.FAILED


def test_a_pruned_beginning_is_not_an_alarm_and_not_passed(directory: Directory) -> None:
    content = lines(directory)
    checkpoints = [number for number, line in enumerate(content) if not line.startswith(ENTRY)]
    write(directory, content[checkpoints[1] + 1 :])
    assert codes(directory) == {(Code.PREFIX_MISSING, 5)}
    assert verify_directory(directory, key(directory)).verdict is Verdict.INCOMPLETE


def test_an_altered_checkpoint(directory: Directory) -> None:
    content = lines(directory)
    content[-1] = content[-1].replace(b"\\n9\\n", b"\\n8\\n")
    write(directory, content)
    assert Code.CHECKPOINT_INVALID in {code for code, _ in codes(directory)}


def test_another_key(directory: Directory, tmp_path: Path) -> None:
    stranger = VerifierKey(directory.origin, bytes(range(32)))
    report = verify_directory(directory, stranger)
    assert report.verdict is Verdict.FAILED
    assert [finding.code for finding in report.findings] == [Code.WRONG_KEY]


def test_a_key_for_another_log_is_no_reason_to_pass(directory: Directory) -> None:
    other = VerifierKey("another/log", key(directory).public)
    report = verify_directory(directory, other)
    assert report.verdict is Verdict.UNVERIFIABLE
    assert {finding.code for finding in report.findings} == {Code.NO_KEY, Code.NO_CHECKPOINT}
    assert verify_directory(directory, other, key(directory)).checkpoints > 0
    assert verify_directory(directory, VerifierKey("", key(directory).public)).verdict is Verdict.PASSED


def test_a_truncated_log_file_is_known_by_what_was_delivered(directory: Directory) -> None:
    directory.delivery.write_text(json.dumps({"file": "x", "offset": 0, "size": 9}))
    content = lines(directory)
    write(directory, content[: entries(content)[5]])
    assert Code.LOG_TRUNCATED in {code for code, _ in codes(directory)}


# -- the command, for people and scripts ------------------------------------------------------------------------


def test_the_exit_codes(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", str(directory.path), "--key", str(directory.verifier_key), "--json"]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "PASSED"
    content = lines(directory)
    del content[entries(content)[2]]
    write(directory, content)
    assert main(arguments) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["verdict"] == "FAILED"
    assert {"code", "origin", "index", "span_id", "document_id", "field", "message"} == set(printed["findings"][0])
    assert printed["findings"][0]["index"] == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verify", "/nonexistent"], "is not an auditspan directory"),
        (["status", "/nonexistent"], "is not an auditspan directory"),
        (["runs", "/nonexistent"], "is not an auditspan directory"),
        (["agent", "--once", "/nonexistent"], "is not an auditspan directory"),
        (["verify", "--elasticsearch", "http://127.0.0.1:9"], "does not answer"),
        (["verify", "--elasticsearch", "nonsense"], "is not the URL"),
        (["show", "no-such-run", "--elasticsearch", "http://127.0.0.1:9"], "does not answer"),
    ],
)
def test_bad_input_gives_one_clear_message(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "What to do:" in printed.err
    assert "Traceback" not in printed.err + printed.out


def test_a_directory_that_may_not_be_read(directory: Directory) -> None:
    # Root may read everything. The first call has loaded all modules by the time we are somebody else.
    program = (
        "import os, sys; from auditspan.cli import main\n"
        "if os.getuid() == 0: main(); os.setuid(65534)\n"
        "sys.exit(main())"
    )
    for folder in directory.path.resolve().parents:
        if str(folder).startswith(tempfile.gettempdir() + "/"):
            folder.chmod(0o755)  # so that it is this directory which may not be read, not one above it
    directory.path.chmod(0o755)
    for item in directory.path.iterdir():
        item.chmod(0o755 if item.is_dir() else 0o644)
    for path in (directory.path, directory.log, directory.path / "origin"):
        before = path.stat().st_mode
        path.chmod(0o000)
        done = subprocess.run(
            [sys.executable, "-c", program, "verify", str(directory.path)], capture_output=True, text=True, timeout=60
        )
        path.chmod(before)
        assert done.returncode == 2, (path, done)
        assert "Permission denied" in done.stderr
        assert "What to do:" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\xff\xfe", b"a+00000000+AAAA", b"-----BEGIN PRIVATE KEY-----\n"]
)
def test_a_file_that_is_no_key(
    directory: Directory, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_bytes(content)
    assert main(["verify", str(directory.path), "--key", str(tmp_path / "key")]) == 2
    assert "What to do:" in capsys.readouterr().err


def test_a_truncated_segment(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    from auditspan_seal.log.segment import SegmentWriter
    from auditspan_seal.log.sequencer import Sequencer
    from tests.seal.test_log import _statement

    writer = SegmentWriter(directory.segments)
    for _ in range(2):
        writer.append(lambda name, number: _statement(directory, name, number))
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    sequencer.integrate()
    sequencer.close()
    path = directory.segments / f"{writer.segment}.seg"
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:-30])
    assert main(["verify", str(directory.path)]) == 1
    printed = capsys.readouterr().out
    assert "log_truncated" in printed
    assert "it was cut" in printed
    writer.close()


def test_an_unreadable_log_line_is_said_not_raised(directory: Directory) -> None:
    content = lines(directory)
    content[-1] = b"C {}\n"
    write(directory, content)
    report = verify_directory(directory)
    assert report.verdict is Verdict.FAILED
    assert Code.LOG_DAMAGED in {finding.code for finding in report.findings}
