# SPDX-License-Identifier: Apache-2.0
"""What span.end() waits for: durable, synced and deferred; and what it does when the disk is full."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from auditspan.cli import main
from auditspan_seal import modes
from auditspan_seal.driver import Driver
from auditspan_seal.formats import statement as statements
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.modes import Modes
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict
from tests.records import audit_attributes

LONG = 20.0  # seconds: a wait that takes this long has failed
SYNCED = Modes(modes.SYNCED, max_wait=LONG)


def start(folder: Path, mode: Modes) -> tuple[AuditLog, TracerProvider, Tracer]:
    log = AuditLog(folder, modes=mode)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    return log, provider, provider.get_tracer("t")


def end(tracer: Tracer, name: str) -> float:
    """End an audit span; return the seconds that it took."""
    span = tracer.start_span(name, attributes=audit_attributes())
    begin = time.monotonic()
    span.end()
    return time.monotonic() - begin


def entries(directory: Directory) -> list[dict[str, Any]]:
    """Return what is under signed checkpoints right now."""
    return [statements.decode(item) for block in reader.batches(directory.log) for item in block.statements]


def names(directory: Directory) -> list[str]:
    return [entry["name"] for entry in entries(directory) if entry["type"] == "span"]


def sequence(folder: Path) -> Directory:
    one = Sequencer.acquire(open_directory(folder))
    assert one is not None
    while one.integrate():
        pass
    one.close()
    return open_directory(folder)


PROGRAM = """
import os, sys, threading, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.log import reader
from auditspan_seal.formats import statement as statements
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.records import audit_attributes
log = AuditLog(Path(sys.argv[1]))
provider = TracerProvider()
provider.add_span_processor(AuditSpanProcessor(log))
tracer = provider.get_tracer("t")
def end(name):
    tracer.start_span(name, attributes=audit_attributes()).end()
def there():
    return [e["name"] for b in reader.batches(log.directory.log) for e in map(statements.decode, b.statements)
            if e["type"] == "span"]
"""


def run(folder: Path, text: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + text, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    said, complained = process.communicate(timeout=60)
    assert process.returncode == code, complained
    return said


@pytest.mark.slow
def test_a_flush_ends_under_a_steady_load(log_folder: Path) -> None:
    """What was recorded when it began is waited for, and not what comes meanwhile."""
    text = """
def work():
    while True:
        end("beside")
        time.sleep(0.001)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
end("mine")
begin = time.monotonic()
print(log.flush(20), time.monotonic() - begin < 10, "mine" in there(), flush=True)
os._exit(0)
"""
    assert finish(run(log_folder, text)) == "True True True\n"


# -- settings --------------------------------------------------------------------------------------------------------


def test_the_default_is_durable_and_nonsense_is_told_and_not_obeyed(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert Modes.of({}) == Modes("durable", "count", 5.0, None)
    good = {"AUDITSPAN_MODE": "Synced", "AUDITSPAN_WHEN_FULL": "block", "AUDITSPAN_MAX_WAIT": "0.5"}
    assert Modes.of(good) == Modes("synced", "block", 0.5, None)
    for name, value in (("AUDITSPAN_MODE", "fast"), ("AUDITSPAN_WHEN_FULL", "drop"), ("AUDITSPAN_MAX_WAIT", "nan")):
        found = Modes.of({name: value})
        assert (found.mode, found.when_full, found.max_wait) == ("durable", "count", 5.0)
        assert found.problem is not None and name in found.problem and value in found.problem
    monkeypatch.setenv("AUDITSPAN_MODE", "fast")
    log, provider, tracer = start(log_folder, Modes.of())
    end(tracer, "kept")
    provider.shutdown()
    assert "AUDITSPAN_MODE is 'fast', not durable or synced or deferred; it is durable now." in caplog.text
    assert (names(log.directory), log.lost) == (["kept"], 0)


# -- synced ----------------------------------------------------------------------------------------------------------


def test_synced_when_end_returns_it_is_under_a_checkpoint(log_folder: Path) -> None:
    log, provider, tracer = start(log_folder, SYNCED)
    for number in range(10):
        assert end(tracer, f"record {number}") < LONG
        assert names(log.directory)[-1] == f"record {number}"
        assert verify_directory(log.directory).verdict is Verdict.PASSED
    provider.shutdown()
    assert (log.unsynced, log.lost, log._problems) == (0, 0, {})


def test_synced_threads_share_rounds_of_the_sequencer(log_folder: Path) -> None:
    log, provider, tracer = start(log_folder, SYNCED)
    missing: list[str] = []

    def work(thread: int) -> None:
        for number in range(8):
            end(tracer, f"{thread}.{number}")
            if f"{thread}.{number}" not in names(log.directory):
                missing.append(f"{thread}.{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    checkpoints = len(list(reader.batches(log.directory.log)))
    provider.shutdown()
    assert missing == []
    assert sorted(names(log.directory)) == sorted(f"{t}.{n}" for t in range(12) for n in range(8))
    assert checkpoints < 12 * 8, "each record has had a round of its own"
    assert log.unsynced == 0


@pytest.mark.slow
def test_synced_where_another_process_signs(log_folder: Path) -> None:
    log, provider, tracer = start(log_folder, Modes())
    end(tracer, "first")
    assert log.flush(LONG) and log._sequencer is not None
    text = """
for number in range(20):
    begin = time.monotonic()
    end(f"{sys.argv[0]} {number}")
    assert there()[-1].endswith(str(number)), "not under a checkpoint yet"
    assert time.monotonic() - begin < 5
assert log._sequencer is None and log.unsynced == 0
def work():
    for number in range(5):
        end("x"); assert len(there()) > 20
threads = [threading.Thread(target=work) for _ in range(8)]
begin = time.monotonic()
[t.start() for t in threads]; [t.join() for t in threads]
assert log.unsynced == 0
"""
    finish(run(log_folder, text, AUDITSPAN_MODE="synced", AUDITSPAN_MAX_WAIT=str(LONG)))
    provider.shutdown()
    assert len(names(log.directory)) == 61
    assert verify_directory(log.directory).verdict is Verdict.PASSED


@pytest.mark.slow
def test_synced_goes_on_when_the_process_that_signs_is_killed(log_folder: Path) -> None:
    signing = run(log_folder, 'end("first"); provider.force_flush(); print("signs", flush=True); time.sleep(60)')
    assert signing.stdout is not None and signing.stdout.readline() == "signs\n"
    log, provider, tracer = start(log_folder, SYNCED)
    end(tracer, "before")
    assert names(log.directory)[-1] == "before" and log._sequencer is None
    signing.kill()
    signing.communicate()
    assert end(tracer, "after") < 10
    assert names(log.directory)[-1] == "after"
    provider.shutdown()
    assert log.unsynced == 0


def test_synced_while_nobody_signs_waits_once_and_not_for_ever(
    log_folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    holder = Sequencer.acquire(open_directory(log_folder, create=True))  # has the lock, and does nothing
    assert holder is not None
    log, provider, tracer = start(log_folder, Modes(modes.SYNCED, max_wait=0.5))
    assert 0.4 < end(tracer, "first") < 5
    took = [end(tracer, f"record {number}") for number in range(20)]
    assert max(took) < 0.3, "an application must not stand still at each of its records"
    assert (log.recorded, log.unsynced, log.lost) == (21, 21, 0)
    assert caplog.text.count("does not wait for a signed checkpoint now") == 1
    log.publish_status()
    assert main(["status", str(log_folder)]) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "21 records were not under a signed checkpoint yet when span.end() returned" in said
    # Somebody comes who signs: it is waited for again.
    driver = Driver(holder, lambda what, problem: None)
    ending = threading.Event()

    def drive() -> None:
        while not ending.is_set():
            driver.step()
            driver.wait(0.05)

    thread = threading.Thread(target=drive)
    thread.start()
    deadline = time.monotonic() + LONG
    while log.unsynced and log._problems and time.monotonic() < deadline:
        end(tracer, "again")
        time.sleep(0.02)
    assert log._problems == {}
    before = log.unsynced
    end(tracer, "last")
    assert names(log.directory)[-1] == "last"
    assert log.unsynced == before
    ending.set()
    thread.join()
    driver.close()
    provider.shutdown()


def test_synced_the_thread_that_signs_does_not_wait_for_itself(log_folder: Path) -> None:
    begun = threading.Event()

    def describe() -> dict[str, Any]:  # called by the sequencer's thread; a plugin may record just then
        if threading.current_thread().name == "auditspan" and not begun.is_set():
            begun.set()
            end(tracer, "by the sequencer")
        return {}

    log = AuditLog(log_folder, describe, modes=SYNCED)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("t")
    begin = time.monotonic()
    while not begun.is_set() and time.monotonic() < begin + LONG:
        end(tracer, "by the program")
        time.sleep(0.05)
    provider.shutdown()
    assert begun.is_set()
    assert time.monotonic() - begin < LONG
    assert "by the sequencer" in names(log.directory)
    assert log.unsynced == 1, "it is said that this one was not waited for"


@pytest.mark.slow
def test_synced_in_a_forked_child_beside_its_parent_and_after_it(log_folder: Path) -> None:
    text = """
end("parent 1")
child = os.fork()
if child == 0:
    begin = time.monotonic()
    end("child 1")
    assert "child 1" in there() and log.unsynced == 0, "beside its parent"
    os.kill(os.getppid(), 9)
    end("child 2")
    assert "child 2" in there() and log.unsynced == 0, "after its parent"
    assert time.monotonic() - begin < 10
    print("done", flush=True)
    provider.shutdown()
    os._exit(0)
end("parent 2")
time.sleep(60)
"""
    process = run(log_folder, text, AUDITSPAN_MODE="synced", AUDITSPAN_MAX_WAIT=str(LONG))
    assert process.stdout is not None
    assert process.stdout.readline() == "done\n", process.stderr and process.stderr.read()
    finish(process, -signal.SIGKILL)
    directory = sequence(log_folder)
    assert sorted(names(directory)) == ["child 1", "child 2", "parent 1", "parent 2"]


@pytest.mark.slow
def test_synced_in_signal_handlers(log_folder: Path) -> None:
    text = """
import signal
count = 0
def handler(*_):
    global count
    count += 1
    end(f"handler {count}")
    signal.setitimer(signal.ITIMER_REAL, 0.002)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.002)  # also in the middle of the first record, before anything signs
begin = time.monotonic()
for number in range(100):
    end(f"record {number}")
    assert f"record {number}" in there()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert time.monotonic() - begin < 15, "something has waited for itself"
provider.shutdown()
found = there()
assert len(found) == len(set(found)) == 100 + count and count > 10, (len(found), count)
assert log.lost == 0
"""
    finish(run(log_folder, text, AUDITSPAN_MODE="synced", AUDITSPAN_MAX_WAIT=str(LONG)))
    assert verify_directory(open_directory(log_folder)).verdict is Verdict.PASSED


@pytest.mark.slow
def test_synced_while_the_program_ends(log_folder: Path) -> None:
    text = """
def work(thread):
    number = 0
    while True:
        end(f"{thread}.{number}")
        number += 1
for thread in range(4):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
time.sleep(0.5)
print("said", flush=True)
sys.exit(7)
"""
    begin = time.monotonic()
    assert finish(run(log_folder, text, AUDITSPAN_MODE="synced", AUDITSPAN_MAX_WAIT="4"), 7) == "said\n"
    assert time.monotonic() - begin < 30
    directory = sequence(log_folder)
    found = names(directory)
    assert len(found) == len(set(found)) > 4
    assert {finding.code for finding in verify_directory(directory).findings} <= {Code.GAP_ENTRY}


# -- deferred --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_deferred_records_everything_by_flush_and_by_the_end(log_folder: Path) -> None:
    text = """
for number in range(3000):
    end(f"{number}")
assert provider.force_flush()
assert log.recorded == 3000, log.recorded
end("last")
"""
    finish(run(log_folder, text, AUDITSPAN_MODE="deferred"))
    directory = sequence(log_folder)
    assert sorted(names(directory), key=lambda name: (len(name), name)) == [*map(str, range(3000)), "last"]
    assert verify_directory(directory).verdict is Verdict.PASSED


def test_deferred_holds_no_more_than_it_says_and_then_whoever_ends_a_span_records_it(log_folder: Path) -> None:
    from auditspan_seal import deferred

    log, provider, tracer = start(log_folder, Modes(modes.DEFERRED))
    assert log._deferred is not None
    with log._deferred._recording:  # its thread stands still
        for number in range(deferred.LIMIT + 50):
            end(tracer, f"{number}")
        assert len(log._deferred._spans) <= deferred.LIMIT
        assert log.recorded >= 49
    provider.shutdown()
    assert len(set(names(log.directory))) == log.recorded == deferred.LIMIT + 50
    assert log.lost == 0
    end(tracer, "after the end")
    assert log.recorded == deferred.LIMIT + 51


@pytest.mark.slow
def test_deferred_loses_at_a_kill_no_more_than_it_says(log_folder: Path) -> None:
    text = """
sys.setswitchinterval(0.5)  # its thread hardly comes to work
for number in range(100_000):
    end(f"{number}")
    os.write(1, f"{number}\\n".encode())
"""
    process = run(log_folder, text, AUDITSPAN_MODE="deferred")
    assert process.stdout is not None
    ended = [process.stdout.readline()]
    killer = threading.Timer(0.7, process.kill)
    killer.start()
    ended += process.stdout.readlines()
    process.communicate()
    complete = {line.rstrip("\n") for line in ended if line.endswith("\n")}
    lost = complete - set(names(sequence(log_folder)))
    print(f"{len(lost)} of {len(complete)} lost")
    assert len(complete) > 600
    assert len(lost) <= 513


@pytest.mark.slow
def test_deferred_is_not_doubled_by_a_fork_nor_lost_at_the_end_of_a_child(log_folder: Path) -> None:
    text = """
import multiprocessing
def child(number):
    for each in range(20):
        end(f"child {number}.{each}")
sys.setswitchinterval(0.5)
children = [multiprocessing.get_context("fork").Process(target=child, args=(number,)) for number in range(3)]
for number in range(100):
    end(f"parent {number}")
    if number % 30 == 10:
        children[number // 30].start() if number < 90 else None
for each in children:
    each.join()
    assert each.exitcode == 0
"""
    finish(run(log_folder, text, AUDITSPAN_MODE="deferred"))
    found = names(sequence(log_folder))
    expected = {f"parent {n}" for n in range(100)} | {f"child {c}.{n}" for c in range(3) for n in range(20)}
    assert (len(found), set(found)) == (len(expected), expected)


# -- a full disk -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a file system of that size")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


@pytest.mark.slow
def test_a_full_disk_is_counted_and_told_as_soon_as_there_is_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        log, provider, tracer = start(disk / "log", Modes())
        end(tracer, "before")
        assert log.flush(LONG)
        filler = fill(disk)
        ended = 0
        slowest = 0.0
        while log.lost < 50:
            slowest = max(slowest, end(tracer, f"record {ended}"))
            ended += 1
        assert slowest < 1.0
        assert ended == log.recorded - 1 + log.lost
        assert caplog.text.count("a record was lost") == 1
        filler.unlink()
        end(tracer, "after")
        provider.shutdown()
        found = names(log.directory)
        assert found == ["before", *(name for name in found[1:-1]), "after"]
        assert len(found) == log.recorded
        (gap,) = [entry for entry in entries(log.directory) if entry["type"] == "gap"]
        assert (gap["records"], gap["reason"]) == (50, "No space left on device")
        report = verify_directory(log.directory)
        assert [finding.code for finding in report.findings] == [Code.GAP_ENTRY]
        log.publish_status()
        main(["status", str(log.directory.path), "--json"])
        state = json.loads(capsys.readouterr().out)
        assert state["lost"] == 50
        assert any("No space left" in item for item in state["attention"])


@pytest.mark.slow
@pytest.mark.parametrize("relief", [True, False], ids=["space-in-time", "no-space"])
def test_a_full_disk_is_waited_for_where_that_is_asked_for(tmp_path: Path, relief: bool) -> None:
    with small_disk(tmp_path / "disk") as disk:
        limit = LONG if relief else 0.6
        log, provider, tracer = start(disk / "log", Modes(when_full=modes.BLOCK, max_wait=limit))
        end(tracer, "before")
        assert log.flush(LONG)
        filler = fill(disk)
        timer = threading.Timer(1.0, filler.unlink)
        if relief:
            timer.start()
        ended, took = 0, 0.0
        while took < 0.4:
            took = end(tracer, f"record {ended}")
            ended += 1
        if relief:
            timer.join()
            end(tracer, "after")
            provider.shutdown()
            assert (log.lost, log.recorded, log._problems) == (0, ended + 2, {})
            assert len(names(log.directory)) == ended + 2
            assert verify_directory(log.directory).verdict is Verdict.PASSED
            return
        assert 0.4 < took < 5
        assert max(end(tracer, f"more {number}") for number in range(20)) < 0.4, "it has waited once, and in vain"
        assert log.lost == 21
        filler.unlink()
        end(tracer, "after")
        provider.shutdown()
        (gap,) = [entry for entry in entries(log.directory) if entry["type"] == "gap"]
        assert gap["records"] == 21
        assert len(names(log.directory)) == log.recorded == ended - 1 + 2
