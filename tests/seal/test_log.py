# SPDX-License-Identifier: Apache-2.0
"""The log on disk: restarts, crashes, forks, several writers, one sequencer."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from auditspan.cli import main
from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict
from tests.records import audit_attributes

Make = Callable[..., Directory]


def blocks(directory: Directory) -> list[reader.Block]:
    return [block for block in reader.blocks(directory.log) if isinstance(block, reader.Block)]


def names(directory: Directory) -> list[str]:
    entries = [statements.decode(item) for block in blocks(directory) for item in block.statements]
    return [entry["name"] for entry in entries if entry["type"] == "span"]


def recover(directory: Directory) -> None:
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    while sequencer.integrate():
        pass
    sequencer.close()


def test_a_restart_appends_to_the_same_log(make_records: Make) -> None:
    first = make_records(3)
    again = make_records(2)
    assert again.origin == first.origin
    assert names(again) == ["record 0", "record 1", "record 2", "record 0", "record 1"]
    report = verify_directory(again)
    assert (report.verdict, report.records, report.logs) == (Verdict.PASSED, 5, {first.origin: 6})


def test_the_key_is_made_once_and_private(make_records: Make) -> None:
    directory = make_records(1)
    assert stat.S_IMODE(directory.key.stat().st_mode) == 0o600
    key = VerifierKey.parse(directory.verifier_key.read_text())
    before = directory.key.read_bytes()
    make_records(1)
    assert directory.key.read_bytes() == before
    assert all(Note.parse(block.batch.note).signed_by(key) for block in blocks(directory))


def test_a_key_that_others_can_read_is_refused_and_nothing_is_lost(
    make_records: Make, caplog: pytest.LogCaptureFixture
) -> None:
    directory = make_records(1)
    directory.key.chmod(0o644)
    make_records(2)
    assert "chmod 600" in caplog.text
    assert len(names(directory)) == 1
    assert verify_directory(directory).findings[0].code is Code.RECORDED_NOT_SEQUENCED
    directory.key.chmod(0o600)
    recover(directory)
    assert len(names(directory)) == 3
    assert verify_directory(directory).verdict is Verdict.PASSED


def test_a_protocol_that_cannot_be_used_holds_up_delivery_and_nothing_else(
    make_records: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier/pigeon")
    directory = make_records(2)
    assert verify_directory(directory).verdict is Verdict.PASSED
    assert main(["status", str(directory.path)]) == 3
    assert "Set it to http/json, http/protobuf or grpc" in capsys.readouterr().out


def test_finished_segments_are_removed(make_records: Make) -> None:
    directory = make_records(3)
    assert segment.names(directory.segments) == []


def test_only_one_sequencer_and_the_next_one_takes_over(log_folder: Path) -> None:
    directory = open_directory(log_folder, create=True)
    first = Sequencer.acquire(directory)
    assert first is not None
    assert Sequencer.acquire(directory) is None
    first.close()
    second = Sequencer.acquire(directory)
    assert second is not None
    second.close()


def test_threads_record_every_span_once(log_folder: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("test")

    def work(thread: int) -> None:
        for number in range(500):
            tracer.start_span(f"{thread}-{number}", attributes=audit_attributes()).end()

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.force_flush(10_000)
    provider.shutdown()
    assert sorted(names(log.directory)) == sorted(f"{t}-{n}" for t in range(4) for n in range(500))
    assert verify_directory(log.directory).verdict is Verdict.PASSED


def test_spans_that_are_not_audit_spans_are_left_alone(log_folder: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    provider.get_tracer("test").start_span("plain").end()
    provider.shutdown()
    assert log.recorded == 0
    assert names(log.directory) == []


WORKER = f"""
import sys, threading
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
provider = TracerProvider()
provider.add_span_processor(AuditSpanProcessor(AuditLog(Path(sys.argv[1]))))
tracer = provider.get_tracer("worker")
def work(thread):
    number = 0
    while True:
        tracer.start_span(f"{{thread}}-{{number}}", attributes={audit_attributes()!r}).end()
        # The parent counts what has ended, by what it reads here: written only after end() returned.
        sys.stdout.write(f"{{thread}}-{{number}}\\n"); sys.stdout.flush()
        number += 1
for thread in (1, 2):
    threading.Thread(target=work, args=(f"{{sys.argv[2]}}/{{thread}}",), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.slow
def test_what_ended_before_kill_9_is_in_the_log(log_folder: Path) -> None:
    ended: list[str] = []
    for round_ in range(6):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(log_folder), f"{round_}.{w}"], stdout=subprocess.PIPE, text=True
            )
            for w in range(2)
        ]
        for worker in workers:
            assert worker.stdout is not None
            ended.append(worker.stdout.readline().rstrip("\n"))  # however long the machine takes to start it
        time.sleep(0.3 + round_ * 0.07)
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        for worker in workers:
            lines = worker.communicate()[0].split("\n")
            ended += lines[:-1]  # a torn last line says nothing
    directory = open_directory(log_folder)
    recover(directory)
    found = names(directory)
    assert len(ended) > 1000
    assert len(found) == len(set(found))
    assert set(ended) <= set(found)
    report = verify_directory(directory)
    assert {finding.code for finding in report.findings} <= {Code.GAP_ENTRY}  # a record torn by the kill is said so


def test_a_forked_child_writes_to_a_segment_of_its_own(log_folder: Path) -> None:
    program = f"""
import os
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
provider = TracerProvider()
log = AuditLog(Path({str(log_folder)!r}))
provider.add_span_processor(AuditSpanProcessor(log))
tracer = provider.get_tracer("t")
tracer.start_span("before", attributes={audit_attributes()!r}).end()
child = os.fork()
tracer.start_span("child" if child == 0 else "parent", attributes={audit_attributes()!r}).end()
if child == 0:
    os._exit(0)
os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=30)
    directory = open_directory(log_folder)
    recover(directory)
    assert sorted(names(directory)) == ["before", "child", "parent"]
    entries = [statements.decode(item) for block in blocks(directory) for item in block.statements]
    segments = {entry["name"]: entry["segment"] for entry in entries if entry["type"] == "span"}
    assert segments["before"] == segments["parent"] != segments["child"]
    assert verify_directory(directory).verdict is Verdict.PASSED


@pytest.mark.slow
def test_a_child_that_outlives_its_parent_does_not_keep_the_log(log_folder: Path) -> None:
    program = f"""
import os, signal, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
provider = TracerProvider()
provider.add_span_processor(AuditSpanProcessor(AuditLog(Path({str(log_folder)!r}))))
provider.get_tracer("t").start_span("before", attributes={audit_attributes()!r}).end()
assert provider.force_flush(10_000)
time.sleep(0.5)
if os.fork() == 0:
    print("ready", flush=True)  # by the child: it has let go of what is its parent's
    os.close(1)
    time.sleep(20)
    os._exit(0)
time.sleep(20)
"""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        parent.wait()
        try:
            recover(open_directory(log_folder))  # fails if the child still holds the lock
            assert segment.names(log_folder / "segments") == [], "the child still holds its parent's segment"
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def test_a_segment_that_cannot_be_removed_is_not_called_unreadable(
    make_records: Make, log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_records(2)
    (directory.segments / "00000000deadbeef.seg").write_bytes(b'{"torn')
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None

    def read_only(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        with pytest.raises(OSError, match="Read-only"):
            while sequencer.integrate():
                pass
        assert not sequencer.unreadable
    sequencer.integrate()
    sequencer.close()
    assert segment.names(directory.segments) == []


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_an_unfinished_batch_is_completed_from_the_segments(make_records: Make, log_folder: Path, cut: int) -> None:
    directory = make_records(2)
    log_file = directory.log / reader.files(directory.log)[0]
    published, checkpoint = log_file.read_bytes(), directory.checkpoint.read_bytes()
    writer = segment.SegmentWriter(directory.segments)
    writer.append(lambda name, number: _statement(directory, name, number))
    recover_after = log_file.read_bytes()
    assert recover_after == published
    recover(directory)
    whole = log_file.read_bytes()
    # The crash: a part of the last batch is on disk, its checkpoint is not; nobody saw it.
    log_file.write_bytes(whole[:-cut])
    directory.checkpoint.write_bytes(checkpoint)
    (directory.segments / f"{writer.segment}.seg").touch()
    report = verify_directory(directory)
    assert report.verdict is Verdict.INCOMPLETE
    recover(directory)
    assert names(directory) == ["record 0", "record 1", "again"]
    assert verify_directory(directory).verdict is Verdict.PASSED
    writer.close()


def _statement(directory: Directory, name: str, number: int) -> bytes:
    return statements.encode(
        {
            "v": 1,
            "type": "span",
            "origin": directory.origin,
            "segment": name,
            "number": number,
            "name": "again",
            "end": "1",
        }
    )


def test_damage_before_the_last_checkpoint_is_never_signed_over(make_records: Make) -> None:
    make_records(2)
    directory = make_records(2)
    log_file = directory.log / reader.files(directory.log)[0]
    content = log_file.read_bytes()
    log_file.write_bytes(content.replace(b'"name":"record 0"', b'"name":"record 9"', 1))
    with pytest.raises(DirectoryError, match="altered before its last checkpoint"):
        Sequencer.acquire(directory)
    assert log_file.stat().st_size == len(content)


def test_a_record_torn_by_death_becomes_a_gap_entry(make_records: Make) -> None:
    directory = make_records(1)
    (directory.segments / "00000000deadbeef.seg").write_bytes(b'{"attributes":{"audit.rec')
    recover(directory)
    report = verify_directory(directory)
    assert report.verdict is Verdict.INCOMPLETE
    assert [finding.code for finding in report.findings] == [Code.GAP_ENTRY]
    assert segment.names(directory.segments) == []


def test_a_full_disk_loses_nothing_that_was_recorded(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = open_directory(log_folder, create=True)
    writer = segment.SegmentWriter(directory.segments)
    write = os.pwrite

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def nearly_full(descriptor: int, data: bytes, offset: int) -> int:
        if len(data) > 4:
            return write(descriptor, data[:4], offset)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    writer.append(lambda name, number: b"first")
    path = segment.path_of(directory.segments, writer.segment)
    monkeypatch.setattr(os, "pwrite", nearly_full)
    with pytest.raises(DirectoryError, match="No space left"):
        writer.append(lambda name, number: b"second")
    monkeypatch.undo()
    assert path.read_bytes() == b"first\n"
    writer.append(lambda name, number: b"third %d" % number)
    assert path.read_bytes() == b"first\nthird 2\n"
    writer.close()


@pytest.mark.slow
def test_a_disk_that_really_is_full(tmp_path: Path) -> None:
    """A file system of 600 kB: records that do not fit are refused, the process lives, all others are there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("only root can mount a file system of that size")
    try:
        writer = segment.SegmentWriter(disk)
        kept = refused = 0
        for number in range(900):
            try:
                writer.append(lambda name, at, number=number: b"%d " % number + b"x" * 1000)  # type: ignore[misc]
                kept += 1
            except DirectoryError as error:
                assert "No space left" in str(error)
                refused += 1
        lines = segment.read_lines(segment.path_of(disk, writer.segment), 0, 1000)[0]
        assert (len(lines), writer.number, kept + refused) == (kept, kept, 900)
        assert kept > 500
        assert refused > 100
        writer.close()
        assert segment.read_lines(segment.path_of(disk, writer.segment), 0, 1000)[0] == lines
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_record_made_while_another_is_appended_is_put_off_not_lost(tmp_path: Path) -> None:
    writer = segment.SegmentWriter(tmp_path)

    def outer(name: str, number: int) -> bytes:
        writer.append(lambda name, number: b"inner %d" % number)  # as a finaliser or signal handler may do
        return b"outer %d" % number

    writer.append(outer)
    assert segment.read_lines(segment.path_of(tmp_path, writer.segment), 0, 9)[0] == [b"outer 1", b"inner 2"]
    writer.close()


def test_lines_after_a_hole_that_a_power_cut_left_are_still_read(tmp_path: Path) -> None:
    path = tmp_path / "0123456789abcdef.seg"
    path.write_bytes(b"one\n" + bytes(50) + b"two\nthree\n" + bytes(100))
    assert segment.read_lines(path, 0, 9) == ([b"one"], 4), "its writer may still be at it"
    lines, offset = segment.read_lines(path, 4, 9, ended=True)
    assert lines == [bytes(50) + b"two", b"three"]
    assert segment.rest(path, offset, 1000) == b""


def test_a_record_that_cannot_be_written_never_raises_and_is_counted(
    log_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    for item in sorted(log_folder.rglob("*"), reverse=True):
        item.rmdir() if item.is_dir() else item.unlink()
    provider.get_tracer("t").start_span("lost", attributes=audit_attributes()).end()
    assert (log.recorded, log.lost) == (0, 1)
    assert "a record was lost" in caplog.text
    log.begin(ReadableSpan("a beginning without a context"), audit_attributes())
    assert (log.recorded, log.lost) == (0, 2)
    provider.shutdown()


def test_what_could_not_be_recorded_is_told_as_soon_as_it_can_be(
    log_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("t")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "posix_fallocate", full)
        broken.setattr(os, "pwrite", full)
        for number in range(3):
            tracer.start_span(f"lost {number}", attributes=audit_attributes()).end()
    tracer.start_span("kept", attributes=audit_attributes()).end()
    provider.shutdown()
    assert (log.recorded, log.lost) == (1, 3)
    assert names(log.directory) == ["kept"]
    (gap,) = [
        fields
        for block in blocks(log.directory)
        for item in block.statements
        if (fields := statements.decode(item))["type"] == "gap"
    ]
    assert (gap["records"], gap["number"], gap["reason"]) == (3, 2, "No space left on device")
    assert gap["attributes"]["audit.message"] == "3 records could not be written: No space left on device"
    report = verify_directory(log.directory)
    assert [finding.code for finding in report.findings] == [Code.GAP_ENTRY]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="calls fork of the C library")
def test_a_child_forked_behind_pythons_back_leaves_its_parents_segment_alone(log_folder: Path) -> None:
    program = f"""
import ctypes, os, time
from pathlib import Path
from opentelemetry.sdk.trace import TracerProvider
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
provider = TracerProvider(shutdown_on_exit=False)
log = AuditLog(Path({str(log_folder)!r}))
provider.add_span_processor(AuditSpanProcessor(log))
tracer = provider.get_tracer("t")
tracer.start_span("before", attributes={audit_attributes()!r}).end()
provider.force_flush(10_000)
child = ctypes.PyDLL(None).fork()  # no fork hooks are called
tracer.start_span("child" if child == 0 else "parent", attributes={audit_attributes()!r}).end()
if child == 0:
    assert log.flush(5)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
provider.shutdown()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=30)
    directory = open_directory(log_folder)
    recover(directory)
    assert sorted(names(directory)) == ["before", "child", "parent"]
    entries = [statements.decode(item) for block in blocks(directory) for item in block.statements]
    segments = {entry["name"]: entry["segment"] for entry in entries if entry["type"] == "span"}
    assert segments["before"] == segments["parent"] != segments["child"]
    assert verify_directory(directory).verdict is Verdict.PASSED


@pytest.mark.slow
def test_a_log_that_is_open_says_so_from_time_to_time_and_at_its_end(
    log_folder: Path, make_records: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITSPAN_HEARTBEAT", "1")
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    provider.get_tracer("t").start_span("one", attributes=audit_attributes()).end()
    time.sleep(3.5)
    provider.shutdown()

    def kinds() -> list[str]:
        return [statements.decode(item)["type"] for block in blocks(log.directory) for item in block.statements]

    assert kinds()[:2] == ["genesis", "span"]
    assert kinds()[-1] == "close"
    beats = kinds().count("heartbeat")
    assert 2 <= beats <= 4
    assert verify_directory(log.directory).verdict is Verdict.PASSED
    make_records(1)  # too short-lived to promise anything
    assert kinds()[-1] == "span"
    monkeypatch.setenv("AUDITSPAN_HEARTBEAT", "soon")
    assert log._problems == {}
    make_records(1)
    assert kinds().count("heartbeat") == beats


@pytest.mark.parametrize("tail", [1, 100, 1_000_000])
def test_the_newest_batch_is_found_without_reading_the_log(
    log_folder: Path, make_records: Make, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    monkeypatch.setattr(reader, "_TAIL", tail)
    assert reader.newest(log_folder / "log") is None
    for _ in range(3):
        directory = make_records(2)
        last = blocks(directory)[-1]
        assert reader.newest(directory.log) == (last.batch, last.after)
    with open(directory.log / reader.files(directory.log)[-1], "ab") as file:
        file.write(b'E {"a batch that":"is being written"}\nC {"note":"not whol')
    assert reader.newest(directory.log) == (last.batch, last.after)
    (directory.log / f"{10**19}.log").write_bytes(b"E {")
    assert reader.newest(directory.log) == (last.batch, last.after)


def test_a_process_that_waits_to_sign_does_not_read_its_settings_again_and_again(
    log_folder: Path, make_records: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
    monkeypatch.setattr("auditspan_seal.service.TAKEOVER", 0.01)
    holder = Sequencer.acquire(open_directory(log_folder, create=True))
    assert holder is not None
    log = AuditLog(log_folder)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    provider.get_tracer("t").start_span("record", attributes=audit_attributes()).end()
    time.sleep(1.0)
    assert caplog.text.count("brotli") <= 1
    holder.close()
    provider.shutdown()
