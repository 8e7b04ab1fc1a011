# SPDX-License-Identifier: Apache-2.0
"""The agent as a user of its own: audited processes record, and can neither sign, nor erase, nor read the key."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditspan_seal.formats import statement as statements
from auditspan_seal.log import reader
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code

AGENT, APPLICATION, STRANGER, GROUP = 61001, 61003, 61004, 61002

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two other users"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users can reach, and that is the agent's."""
    with tempfile.TemporaryDirectory(prefix="auditspan-users-") as folder:
        os.chmod(folder, 0o755)
        home = Path(folder) / "agent"
        home.mkdir()
        os.chown(home, AGENT, GROUP)
        yield home


def start(uid: int, what: str, folder: Path, *arguments: str, group: int = GROUP) -> subprocess.Popen[str]:
    program = str(Path(__file__).with_name("as_user.py"))
    return subprocess.Popen(
        [sys.executable, program, str(uid), str(group), what, str(folder), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


def run(uid: int, what: str, folder: Path, *arguments: str, group: int = GROUP) -> tuple[int, str]:
    process = start(uid, what, folder, *arguments, group=group)
    said = process.communicate(timeout=60)[0]
    return process.returncode, said.partition("ready\n")[2]


@pytest.fixture
def agent(place: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    directory = place / "log"
    process = start(AGENT, "agent", directory, "--group", str(GROUP))
    deadline = time.monotonic() + 30
    while not (directory / "checkpoint").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout and process.stdout.read()
        time.sleep(0.05)
    yield directory, process
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def types(directory: Path) -> list[str]:
    entries = [statements.decode(s) for block in reader.batches(directory / "log") for s in block.statements]
    return [str(entry["type"]) for entry in entries]


def wait_for(directory: Path, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(types(directory)) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(types(directory)) >= count


def test_an_application_records_and_the_agent_signs(agent: tuple[Path, subprocess.Popen[str]]) -> None:
    directory, _ = agent
    code, said = run(APPLICATION, "record", directory, "5")
    assert (code, said) == (0, "recorded 5, lost 0, problems {}\n")
    wait_for(directory, 6)
    report = verify_directory(open_directory(directory))
    assert (report.findings, report.records) == ([], 5)


def test_an_application_can_do_no_more_than_record(agent: tuple[Path, subprocess.Popen[str]]) -> None:
    directory, _ = agent
    run(APPLICATION, "record", directory, "2")
    wait_for(directory, 3)
    before = {path: path.read_bytes() for path in (directory / "log").iterdir()}
    code, said = run(APPLICATION, "forge", directory)
    assert (code, said) == (0, "")
    wait_for(directory, 5)
    # What looks like an erasure is not taken for one: it stands in the log as something that was refused.
    assert types(directory) == ["genesis", "span", "span", "gap", "gap"]
    report = verify_directory(open_directory(directory))
    assert [finding.code for finding in report.findings] == [Code.GAP_ENTRY] * 2
    assert all(path.read_bytes().startswith(content) for path, content in before.items())
    for verb in (["erase", "--value", "x", "--reason", "y"], ["verify"]):
        code, said = run(APPLICATION, verb[0], directory, *verb[1:])
        assert code == 2
        assert "Traceback" not in said
        assert "Permission denied" in said or "another user" in said


def test_synced_an_application_waits_for_what_the_agent_signs(agent: tuple[Path, subprocess.Popen[str]]) -> None:
    directory, _ = agent
    process = start(APPLICATION, "synced", directory, "10")
    assert process.stdout is not None and process.stdin is not None
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "the process came to its end"
    took = []
    for number in range(10):
        label, unsynced, seconds = process.stdout.readline().rsplit(" ", 2)
        assert (label, unsynced) == (f"record {number}", "0")
        entries = [statements.decode(s) for block in reader.batches(directory / "log") for s in block.statements]
        assert entries[-1]["name"] == label, "it is under a checkpoint when its end() has returned"
        took.append(float(seconds))
        process.stdin.write("\n")
        process.stdin.flush()
    process.communicate(timeout=30)
    print(f"median {sorted(took)[5] * 1000:.1f} ms")
    assert sorted(took)[5] < 0.15, "the agent is rung, not waited for"


def test_a_stranger_cannot_even_record(agent: tuple[Path, subprocess.Popen[str]]) -> None:
    directory, _ = agent
    code, said = run(STRANGER, "record", directory, "1", group=STRANGER)
    assert code == 9
    assert "cannot be used: Permission denied" in said


def begin_and_kill(directory: Path) -> None:
    process = start(AGENT, "agent", directory, "--group", str(GROUP))
    deadline = time.monotonic() + 30
    while not (directory / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=30)


def test_while_the_agent_is_away_records_wait_and_are_signed_by_the_next(place: Path) -> None:
    directory = place / "log"
    begin_and_kill(directory)
    code, said = run(APPLICATION, "record", directory, "3")
    assert (code, said) == (0, "recorded 3, lost 0, problems {}\n")
    assert types(directory) == ["genesis"]
    code, said = run(AGENT, "status", directory, "--json")
    assert json.loads(said)["waiting_to_be_signed"] == 3
    code, said = run(AGENT, "agent", directory, "--once")
    assert code == 0, said
    assert types(directory) == ["genesis", "span", "span", "span"]
    assert list((directory / "segments").iterdir()) == []
    shutil.rmtree(directory)


def test_a_segment_that_cannot_be_read_keeps_no_other_from_being_signed(place: Path) -> None:
    directory = place / "log"
    begin_and_kill(directory)
    run(APPLICATION, "record", directory, "2")
    (segment,) = (path for path in (directory / "segments").iterdir() if path.is_file())
    mode = segment.stat().st_mode
    segment.chmod(0)  # what a hostile process can do to its own; a bad block of the disk comes to the same
    run(APPLICATION, "record", directory, "3")
    code, said = run(AGENT, "agent", directory, "--once")
    assert types(directory) == ["genesis", "span", "span", "span"]
    assert code == 3, said
    assert f"the records in {segment} cannot be read (Permission denied): they wait there, all else is signed" in said
    for code, verb, *more in ((3, "status"), (3, "verify"), (2, "erase", "--value", "x", "--reason", "y")):
        found, said = run(AGENT, str(verb), directory, *map(str, more))
        assert found == code, said
        assert f"{segment} cannot be read (Permission denied)" in " ".join(said.split())
        assert "Traceback" not in said
    segment.chmod(mode)
    code, said = run(AGENT, "agent", directory, "--once")
    assert (code, types(directory)) == (0, ["genesis", *["span"] * 5]), said
    assert verify_directory(open_directory(directory)).findings == []
    assert list((directory / "segments").iterdir()) == []


def test_a_value_in_the_segment_of_a_living_process_of_another_user_is_told(
    agent: tuple[Path, subprocess.Popen[str]],
) -> None:
    directory, _ = agent
    living = start(APPLICATION, "live", directory, "203.0.113.77")
    assert living.stdout is not None
    while (line := living.stdout.readline()) != "recorded\n":
        assert line, "the process came to its end"
    wait_for(directory, 2)
    erase = ("erase", directory, "--value", "203.0.113.77", "--reason", "request 4711")
    try:
        code, said = run(AGENT, *erase)  # type: ignore[arg-type]
        assert code == 3, said
        assert "still hold a value" in said
        assert b"203.0.113.77" not in (directory / "log" / f"{0:020d}.log").read_bytes()
    finally:
        living.kill()
        living.communicate()
    deadline = time.monotonic() + 10
    while list((directory / "segments").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.1)
    code, said = run(AGENT, *erase)  # type: ignore[arg-type]
    assert code == 2, "nothing is left, and nothing was found"
