# SPDX-License-Identifier: Apache-2.0
"""What processes do to themselves: forks, exits, signals, clocks. The log is whole, and the application as without us.

Forks of a single process, and kills: test_log.py, test_crashes.py. What each mode makes of it: test_modes.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from auditspan_seal import driver as driving
from auditspan_seal.driver import Driver
from auditspan_seal.log import interrupted, segment
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.place import Place
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.log.window import Appender
from auditspan_seal.modes import Modes
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict
from tests.seal.test_modes import end, entries, finish, names, run, sequence, start

Instrumented = Callable[..., "subprocess.CompletedProcess[str]"]


def whole(folder: Path, *, torn: bool = False) -> list[str]:
    """Return the names of all records, each of which is there once, in a log that is right."""
    directory = sequence(folder)
    found = names(directory)
    assert [name for name, count in Counter(found).items() if count > 1] == []
    report = verify_directory(directory)
    assert {finding.code for finding in report.findings} <= ({Code.GAP_ENTRY} if torn else set()), report.findings
    assert segment.all_of(directory) == []
    return found


# -- forks -----------------------------------------------------------------------------------------------------------

SERVER = """
import signal
def serve(worker):
    def work(thread):
        for number in range(40):
            end(f"{worker}.{thread}.{number}")
    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
end("master begins")
threading.Thread(target=lambda: [end(f"beside.{n}") or time.sleep(0.001) for n in range(200)]).start()
workers = {}
for worker in range(6):
    child = os.fork()
    if child == 0:
        serve(worker)
        if worker == 0:
            os._exit(9)                       # a worker that is done with
        if worker == 1:
            os.kill(os.getpid(), 9)           # out of memory
        if worker == 2:
            sys.exit(5)                       # in good order
        os.execv("/bin/true", ["true"])       # becomes another program
    workers[child] = worker
codes = {}
while workers:
    child, status = os.wait()
    codes[workers.pop(child)] = os.waitstatus_to_exitcode(status)
end("master ends")
print(sorted(codes.items()), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["durable", "synced"])
def test_a_server_that_forks_its_workers_while_a_thread_records(log_folder: Path, mode: str) -> None:
    said = finish(run(log_folder, SERVER, AUDITSPAN_MODE=mode))
    assert said == "[(0, 9), (1, -9), (2, 5), (3, 0), (4, 0), (5, 0)]\n"
    expected = {f"{w}.{t}.{n}" for w in range(6) for t in range(3) for n in range(40)}
    assert set(whole(log_folder)) == {"master begins", "master ends", *(f"beside.{n}" for n in range(200)), *expected}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["durable", "deferred"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(instrumented: Instrumented, log_folder: Path, method: str, mode: str) -> None:
    program = f"""
import multiprocessing, os
import auditspan
def work(number):
    with auditspan.action("UPDATE", target=f"row {{number}}", target_type="test.row"):
        return number * number
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with auditspan.action("UPDATE", target="before", target_type="test.row"):
        pass
    with context.Pool(3) as pool:
        assert pool.map(work, range(30)) == [n * n for n in range(30)]
        pool.close()
        pool.join()
    children = [context.Process(target=work, args=(100 + n,)) for n in range(3)]
    [c.start() for c in children]
    [c.join() for c in children]
    print([c.exitcode for c in children])
"""
    done = instrumented(program, env={"AUDITSPAN_MODE": mode})
    assert (done.returncode, done.stdout) == (0, "[0, 0, 0]\n"), done.stderr
    directory = sequence(log_folder)
    found = Counter(
        entry["attributes"]["audit.target.id"]
        for entry in entries(directory)
        if entry["type"] == "span" and entry["attributes"]["audit.event.type"] == "data.update"
    )
    assert found == Counter([f"row {n}" for n in (*range(30), 100, 101, 102)] + ["before"])
    assert verify_directory(directory).verdict is Verdict.PASSED


@pytest.mark.slow
def test_a_fork_at_any_moment_of_recording(log_folder: Path) -> None:
    text = """
ending = False
def work(thread):
    number = 0
    while not ending:
        end(f"{thread}.{number}")
        number += 1
    counts.append((thread, number))
counts = []
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
[t.start() for t in threads]
for fork in range(40):
    child = os.fork()
    if child == 0:
        end(f"child.{fork}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
ending = True
[t.join() for t in threads]
assert log.lost == 0
print(counts)
"""
    counts = eval(finish(run(log_folder, text)))
    expected = {f"{thread}.{number}" for thread, count in counts for number in range(count)}
    assert set(whole(log_folder)) == expected | {f"child.{fork}" for fork in range(40)}


@pytest.mark.slow
@pytest.mark.parametrize("guarded", [True, False])
def test_no_child_is_forked_while_a_thread_of_ours_imports(tmp_path: Path, guarded: bool) -> None:
    """The child would wait for ever at its own import of that module; shown once without the guard."""
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(0.5)\n")
    text = f"""
import contextlib, os, signal, sys, threading, time
from auditspan_seal import forks
sys.path.insert(0, {str(tmp_path)!r})
def work():
    with forks.kept_out() if {guarded} else contextlib.nullcontext():
        import slow_to_import
threading.Thread(target=work).start()
time.sleep(0.1)
child = os.fork()
if child == 0:
    signal.alarm(3)
    import slow_to_import
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", text], timeout=30)
    assert done.returncode == (0 if guarded else 1)


# -- exits -----------------------------------------------------------------------------------------------------------

EXITS = {
    "os._exit in a thread": ("threading.Timer(0.3, os._exit, (6,)).start(); time.sleep(30)", 6),
    "sys.exit in a thread": ("t = threading.Thread(target=sys.exit, args=(6,)); t.start(); t.join(); sys.exit(0)", 0),
    "an error in a thread": ("t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join(); sys.exit(4)", 4),
    "an error": ("time.sleep(0.3); raise SystemError('mine')", 1),
    "a signal": ("threading.Timer(0.3, os.kill, (os.getpid(), 15)).start(); time.sleep(30)", -signal.SIGTERM),
    "Ctrl-C": ("threading.Timer(0.3, os.kill, (os.getpid(), 2)).start(); time.sleep(30)", -signal.SIGINT),
    "the end, with daemon threads": ("time.sleep(0.3)", 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", EXITS)
@pytest.mark.parametrize("mode", ["durable", "synced", "deferred"])
def test_an_exit_while_daemon_threads_record(log_folder: Path, how: str, mode: str) -> None:
    what, code = EXITS[how]
    text = f"""
count = [0, 0, 0]
def work(thread):
    while True:
        end(f"{{thread}}.{{count[thread]}}")
        os.write(1, f"{{thread}}.{{count[thread]}}\\n".encode())
        count[thread] += 1
        time.sleep(0.001)
for thread in range(3):
    threading.Thread(target=work, args=(thread,), daemon=True).start()
while min(count) < 1:
    time.sleep(0.01)
while not there():  # and what signs has done so: a thread that imports may make Python forget that it was Ctrl-C
    time.sleep(0.01)
{what}
"""
    process = run(log_folder, text, AUDITSPAN_MODE=mode, AUDITSPAN_MAX_WAIT="2")
    said, complained = process.communicate(timeout=60)
    assert process.returncode == code, complained
    assert "auditspan" not in complained.replace("tests/", ""), complained
    ended = set(said.split("\n")[:-1])
    found = set(whole(log_folder, torn=True))
    assert len(ended) >= 3
    if mode == "deferred" and code in (6, -signal.SIGTERM):  # nothing is told of these; see docs/durability.md
        assert len(ended - found) <= 513
    else:
        assert ended <= found


@pytest.mark.slow
def test_a_signal_handler_that_ends_the_program_while_a_record_is_written(log_folder: Path) -> None:
    text = """
import signal
def handler(*_):
    end("the last word")
    provider.shutdown()
    end("after it")
    sys.exit(3)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05 + float(sys.argv[2]))
number = 0
while True:
    end(f"{number}")
    number += 1
"""
    for delay in ("0", "0.0123", "0.0311"):
        process = subprocess.Popen(
            [*run_command(text), str(log_folder), delay], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        _, complained = process.communicate(timeout=60)
        assert process.returncode == 3, complained
    found = names(sequence(log_folder))
    assert (found.count("the last word"), found.count("after it"), found.count("0")) == (3, 3, 3)
    assert verify_directory(open_directory(log_folder)).verdict is Verdict.PASSED


def run_command(text: str) -> list[str]:
    from tests.seal.test_modes import PROGRAM

    return [sys.executable, "-W", "ignore", "-c", PROGRAM + text]


# -- exceptions out of nowhere ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signal_handler_that_raises_at_any_moment(log_folder: Path) -> None:
    """As Ctrl-C does, or the time limit of a task. What has ended is there once; what was cut, at most once."""
    text = """
import signal
class Limit(Exception): pass
def handler(*_):
    raise Limit
signal.signal(signal.SIGALRM, handler)
ended, cut, number = [], [], 0
begin = time.monotonic()
while time.monotonic() - begin < 6 and len(cut) < 1500:
    name = f"record {number}"
    number += 1
    span = tracer.start_span(name, attributes=audit_attributes())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.000_010 + number % 150 * 0.000_002)
        try:
            span.end()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        ended.append(name)
    except Limit:
        cut.append(name)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
end("last")
provider.shutdown()
print(len(cut), log.lost)
print("\\n".join([*ended, "last"]))
"""
    first, *ended = finish(run(log_folder, text)).split("\n")[:-1]
    cut, lost = map(int, first.split())
    found = whole(log_folder)
    print(f"{cut} of {len(ended) + cut} were cut by an exception; {len(found) - len(ended)} of these were recorded")
    assert cut > 100 and len(ended) > 1, "the timer of this test does not suit this machine"
    assert lost == 0
    assert set(ended) <= set(found)
    assert len(found) <= len(ended) + cut


@pytest.mark.parametrize("mapped", [True, False])
def test_an_append_that_was_cut_short_is_settled(tmp_path: Path, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not mapped:
        monkeypatch.delattr(os, "posix_fallocate")
    path = tmp_path / "x.seg"
    place = Place()  # the one in Python: in C a line is never written in part
    file = Appender(os.open(path, os.O_RDWR | os.O_CREAT), place)
    file.append(b"one\n")
    assert place.mapped == mapped
    for cut in (b"two", b"two\n"):
        # As an exception at this point leaves it.
        if place._map is not None:
            place._map[4 : 4 + len(cut)] = cut
            place._pending = 8
        else:
            os.pwrite(file.descriptor, cut, 4)
            file._pending = 8
        file.settle()
        assert (file.size, file.lines) == ((8, 2) if cut.endswith(b"\n") else (4, 1))
        assert path.read_bytes().rstrip(b"\0") == (b"one\ntwo\n" if cut.endswith(b"\n") else b"one\n")
    file.append(b"three\n")
    file.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.slow
def test_recording_where_objects_are_collected(log_folder: Path) -> None:
    text = """
import gc
class Resource:
    def __init__(self, number): self.number, self.me = number, self
    def __del__(self):
        end(f"collected {self.number}")
        raise ValueError("of the application")
gc.set_threshold(5)
for number in range(300):
    Resource(number)
    end(f"{number}")
gc.collect()
assert log.lost == 0
kept = Resource("at the very end")
print("said")
"""
    process = run(log_folder, text)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "said\n"), complained
    assert complained.count("ValueError: of the application") >= 300
    found = set(whole(log_folder))
    assert found >= {f"{n}" for n in range(300)} | {f"collected {n}" for n in range(300)}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["durable", "synced"])
def test_asyncio_tasks_that_are_cancelled(log_folder: Path, mode: str) -> None:
    text = """
import asyncio
async def task(number):
    with tracer.start_as_current_span(f"task {number}", attributes=audit_attributes()):
        await asyncio.sleep(10)
async def main():
    tasks = [asyncio.create_task(task(n)) for n in range(50)]
    await asyncio.sleep(0.05)
    for each in tasks[:25]:
        each.cancel()
    results = await asyncio.gather(*tasks[:25], return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) for r in results)
    try:
        async with asyncio.timeout(0.1):
            await asyncio.gather(*tasks[25:])
    except TimeoutError:
        print("timed out")
asyncio.run(main())
""".replace(
        "async with asyncio.timeout(0.1):\n            await asyncio.gather(*tasks[25:])",
        "await asyncio.wait_for(asyncio.gather(*tasks[25:]), 0.1)",
    ).replace("TimeoutError", "asyncio.TimeoutError")
    assert finish(run(log_folder, text, AUDITSPAN_MODE=mode)) == "timed out\n"
    assert set(whole(log_folder)) == {f"task {number}" for number in range(50)}


def test_where_no_thread_can_be_started_records_wait_for_the_next_process(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import threading

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for mode in ("durable", "deferred", "synced"):
        with monkeypatch.context() as limited:
            log, provider, tracer = start(log_folder, Modes(mode, max_wait=0.2))
            limited.setattr(threading.Thread, "start", refuse)
            for number in range(3):
                end(tracer, f"{mode} {number}")
            provider.shutdown()
            assert (log.recorded, log.lost) == (3, 0)
    assert caplog.text.count("records are kept but not signed by this process: can't start new thread") == 3
    assert len(whole(log_folder)) == 9


# -- clocks ----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_nothing_that_is_recorded(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, real_ns = time.time, time.time_ns
    log, provider, tracer = start(log_folder, Modes("synced", max_wait=20))
    monkeypatch.setenv("AUDITSPAN_HEARTBEAT", "1")
    for jump in (0, -86_400, 86_400 * 30, -3600, 0):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: real_ns() + jump * 1_000_000_000)
        for number in range(5):
            assert end(tracer, f"{jump} {number}") < 5
    provider.shutdown()
    assert (log.unsynced, log.lost, log._problems) == (0, 0, {})
    assert len(names(log.directory)) == 25
    assert verify_directory(log.directory).verdict is Verdict.PASSED


def test_a_heartbeat_tells_the_time_anew_when_the_clock_has_jumped(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a log would look silent after a machine has slept, or go on promising for a time that is far ahead."""
    monkeypatch.setattr(driving, "HEARTBEAT", 600.0)
    sequencer = Sequencer.acquire(open_directory(log_folder, create=True))
    assert sequencer is not None
    driver = Driver(sequencer, lambda what, problem: None)
    driver._next = 0.0
    driver.step()
    real, real_ns = time.time, time.time_ns

    def beats(directory: Directory) -> int:
        return [entry["type"] for entry in entries(directory)].count("heartbeat")

    assert beats(sequencer.directory) == 1
    for number, jump in enumerate((7200, -7200), 2):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: real_ns() + jump * 1_000_000_000)
        driver.step()
        driver.step()
        assert beats(sequencer.directory) == number
        assert verify_directory(sequencer.directory).findings == []
    monkeypatch.undo()
    driver.close()


def test_a_run_over_two_segments_is_not_cut_by_a_clock_that_went_back(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "ROLL_SIZE", 1)
    holder = Sequencer.acquire(open_directory(log_folder, create=True))
    assert holder is not None
    log, provider, tracer = start(log_folder, Modes())
    span = tracer.start_span("a run", attributes={"audit.record.id": "1"})
    log.begin(span, {"audit.record.id": "0", "audit.event.type": interrupted.STARTED})
    span.end()
    provider.shutdown()
    folder = log.directory.segments
    second = sorted(folder.iterdir(), key=lambda path: len(path.name))[-1]
    assert second.name.endswith("-1.seg")
    os.utime(second, (1, 1))  # the second was written at an earlier time than the first
    while holder.integrate():
        pass
    holder.close()
    said = [entry["attributes"].get("audit.event.type") for entry in entries(log.directory) if entry["type"] == "span"]
    assert said == [interrupted.STARTED, None]
    Path(log_folder / "nonconformant-on-purpose").touch()
