# SPDX-License-Identifier: Apache-2.0
"""A disk that answers EIO, to a real process: what was recorded is signed when it works again, the rest is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict
from tests.seal.test_modes import entries, finish, names, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to make the disk that fails"),
]


class FailingDisk:
    """Holds a program whose calls can be made to fail, and talks to it line by line."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.log = folder / "log"
        self._switch = folder / "switch"
        self._environment = {
            "LD_PRELOAD": str(library), "FAILING_DISK": str(self.log), "FAILING_SWITCH": str(self._switch),
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None

    def start(self, **environment: str) -> None:
        text = """
for line in sys.stdin:
    begin = time.monotonic()
    end(line.strip())
    print(f"{time.monotonic() - begin:.4f}", flush=True)
print(f"recorded {log.recorded}, lost {log.lost}, unsynced {log.unsynced}", flush=True)
"""
        self.process = run(self.log, text, **self._environment, **environment)

    def fail(self, *what: str) -> None:
        draft = self._switch.with_suffix(".new")
        draft.write_text(" " + " ".join(what))
        draft.rename(self._switch)

    def end(self, name: str) -> float:
        assert self.process is not None and self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()
        said = self.process.stdout.readline()
        assert said, self.process.stderr and self.process.stderr.read()
        return float(said)

    def finish(self) -> str:
        assert self.process is not None
        return finish(self.process)

    def problems(self) -> str:
        found = [json.loads(path.read_text())["problem"] for path in (self.log / "processes").glob("*.json")]
        return "; ".join(filter(None, found))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(path), str(source), "-ldl"], check=True)
    return path


@pytest.fixture
def disk(tmp_path: Path, library: Path) -> Iterator[FailingDisk]:
    disk = FailingDisk(tmp_path, library)
    yield disk
    if disk.process is not None:
        disk.process.kill()
        disk.process.communicate()


def wait_until(what: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_while_the_log_cannot_be_written_records_are_kept_and_nothing_is_published(
    disk: FailingDisk, call: str
) -> None:
    disk.start()
    disk.end("before")
    wait_until(lambda: "before" in names(open_directory(disk.log)))
    published = (disk.log / "checkpoint").read_bytes()
    disk.fail(call)
    took = [disk.end(f"during {number}") for number in range(20)]
    if call == "fsync":  # else its status cannot be written either
        wait_until(lambda: "could not be written: Input/output error" in disk.problems())
    took += [disk.end(f"during {number}") for number in range(20, 40)]
    time.sleep(0.5)
    assert max(took) < 0.5
    assert (disk.log / "checkpoint").read_bytes() == published
    disk.fail("nothing")
    wait_until(lambda: len(names(open_directory(disk.log))) == 41)
    wait_until(lambda: disk.problems() == "")
    assert disk.finish() == "recorded 41, lost 0, unsynced 0\n"
    assert names(open_directory(disk.log)) == ["before", *(f"during {number}" for number in range(40))]
    assert verify_directory(open_directory(disk.log)).verdict is Verdict.PASSED


def test_synced_waits_for_a_disk_that_fails_as_long_as_it_may(disk: FailingDisk) -> None:
    disk.start(AUDITSPAN_MODE="synced", AUDITSPAN_MAX_WAIT="1")
    disk.end("before")
    disk.fail("fsync")
    assert 0.9 < disk.end("during") < 5
    assert disk.end("during, too") < 0.5
    assert "does not wait for a signed checkpoint now" in disk.problems()
    assert "Input/output error" in disk.problems()
    disk.fail("nothing")
    wait_until(lambda: len(names(open_directory(disk.log))) == 3)
    count = 0
    deadline = time.monotonic() + 20
    while disk.problems() and time.monotonic() < deadline:
        disk.end(f"after {count}")
        count += 1
    assert disk.problems() == ""
    disk.end("last")
    assert names(open_directory(disk.log))[-1] == "last"
    assert disk.finish() == f"recorded {4 + count}, lost 0, unsynced {2 + count - 1}\n"


def test_where_no_space_can_be_reserved_lines_are_written(disk: FailingDisk) -> None:
    disk.fail("fallocate")
    disk.start()
    for number in range(30):
        disk.end(f"record {number}")
    assert disk.finish() == "recorded 30, lost 0, unsynced 0\n"
    assert names(open_directory(disk.log)) == [f"record {number}" for number in range(30)]


def test_what_cannot_be_written_at_all_is_counted_and_told(disk: FailingDisk) -> None:
    disk.fail("fallocate")
    disk.start()
    disk.end("before")
    disk.fail("fallocate", "pwrite")
    assert max(disk.end(f"during {number}") for number in range(30)) < 0.5
    assert "a record was lost" in disk.problems()
    disk.fail("nothing")
    disk.end("after")
    assert disk.finish() == "recorded 2, lost 30, unsynced 0\n"
    directory = open_directory(disk.log)
    assert names(directory) == ["before", "after"]
    (gap,) = [entry for entry in entries(directory) if entry["type"] == "gap"]
    assert (gap["records"], gap["reason"]) == (30, "Input/output error")
    assert [finding.code for finding in verify_directory(directory).findings] == [Code.GAP_ENTRY]


def test_a_process_that_ends_while_the_disk_fails_ends_in_time(disk: FailingDisk) -> None:
    disk.start(AUDITSPAN_MODE="synced", AUDITSPAN_MAX_WAIT="1")
    disk.end("before")
    disk.fail("fsync", "write", "pwrite", "fallocate")
    disk.end("last")
    begin = time.monotonic()
    assert disk.finish() == "recorded 2, lost 0, unsynced 1\n"
    assert time.monotonic() - begin < 15
    disk.fail("nothing")
    assert os.path.exists(disk.log)
    from tests.seal.test_modes import sequence

    assert names(sequence(disk.log)) == ["before", "last"]
