# SPDX-License-Identifier: Apache-2.0
"""Wherever the sequencer dies: one consistent tree afterwards, every recorded entry in it once, and never a fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.merkle import Frontier
from auditspan_seal.log import interrupted, reader, segment, sequencer
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Code, Verdict
from tests.seal.crashing import counted, forked, visible_checkpoints

ENTRIES = 24
KILLS = int(os.environ.get("AUDITSPAN_KILLS", "150"))  # read here: settings of the environment are taken from tests


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and files so small that a little log has many of them."""
    monkeypatch.setattr(sequencer, "BATCH_SIZE", 5)
    monkeypatch.setattr(sequencer, "ROLL_SIZE", 1500)


def record(directory: Directory, first: int, count: int) -> None:
    """Write entries as a process does, and go."""
    writer = SegmentWriter(directory.segments)
    for number in range(first, first + count):
        fields = {"v": 2, "type": "span", "origin": directory.origin, "name": f"entry {number}", "end": "1"}
        writer.append(lambda name, at, f=fields: statements.encode({**f, "segment": name, "number": at}))  # type: ignore[misc]
    writer.close()


def sequence(path: Path) -> None:
    """Sequence everything, with all that a sequencer does."""
    one = Sequencer.acquire(open_directory(path, create=True))
    assert one is not None
    one.promise(600)
    while one.integrate():
        pass
    one.end_promise()
    one.close()


def names(directory: Directory, kind: str = "") -> list[str]:
    """Return the names of the spans in the log whose type of event is `kind`; the default: of those that have none."""
    entries = [statements.decode(item) for block in reader.batches(directory.log) for item in block.statements]
    spans = [entry for entry in entries if entry["type"] == "span"]
    return [str(e["name"]) for e in spans if e.get("attributes", {}).get("audit.event.type", "") == kind]


def roots(directory: Directory) -> dict[int, bytes]:
    """Return the root of the tree of every size, from the leaf hashes."""
    tree = Frontier()
    found = {0: tree.root()}
    for block in reader.batches(directory.log):
        for leaf in block.batch.leaves:
            tree.append(leaf)
            found[tree.size] = tree.root()
    return found


def check(directory: Directory, seen: Collection[tuple[str, int, bytes]], expected: Collection[str]) -> None:
    """Hold the log against what was recorded, and against every checkpoint that was ever to be seen."""
    found = Counter(names(directory))
    assert [name for name, count in found.items() if count > 1] == []
    assert set(found) >= set(expected)
    all_roots = roots(directory)
    for origin, size, root in seen:
        assert origin == directory.origin
        assert all_roots.get(size) == root, f"a checkpoint of size {size} was published and is not of this history"
    report = verify_directory(directory)
    assert {finding.code for finding in report.findings} <= {Code.GAP_ENTRY}, report.findings


def prepare(path: Path) -> Directory:
    directory = open_directory(path, create=True)
    for writer in range(3):
        record(directory, writer * ENTRIES // 3, ENTRIES // 3)
    return directory


def steps_of(path: Path, work: Callable[[], None]) -> list[str]:
    """Count the steps of the work when nothing is killed."""
    result = path.parent / "steps.json"

    def count() -> None:
        with counted(1_000_000) as seen:
            work()
        result.write_text(json.dumps(seen))

    assert forked(count) == 0
    return list(json.loads(result.read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["before", "torn"])
def test_death_at_every_step_of_a_log(tmp_path: Path, torn: bool) -> None:
    prepare(tmp_path / "count")
    steps = steps_of(tmp_path / "count", lambda: sequence(tmp_path / "count"))
    assert {"write", "fsync", "rename", "ftruncate", "unlink", "link"} <= set(steps) | {"link"}
    assert len(steps) > 60
    expected = {f"entry {number}" for number in range(ENTRIES)}
    killed = 0
    for limit in range(1, len(steps) + 1):
        if torn and steps[limit - 1] != "write":
            continue
        path = tmp_path / f"at-{limit}"
        directory = prepare(path)

        def die(path: Path = path, limit: int = limit) -> None:
            with counted(limit, torn=torn):
                sequence(path)

        killed += forked(die) != 0
        seen = visible_checkpoints(directory)
        # Somebody records on, another one dies once more on the way, and a third comes to the end.
        record(open_directory(path), 1000, 3)
        forked(die)
        seen |= visible_checkpoints(directory)
        sequence(path)
        check(open_directory(path), seen, expected | {"entry 1000", "entry 1001", "entry 1002"})
        assert segment.all_of(directory) == []
    assert killed >= (len(steps) if not torn else steps.count("write")) - 1


@pytest.mark.slow
def test_death_at_every_step_of_a_directorys_beginning(tmp_path: Path) -> None:
    def begin(path: Path, first: int = 0) -> None:
        record(open_directory(path, create=True), first, 2)
        sequence(path)

    steps = steps_of(tmp_path / "count", lambda: begin(tmp_path / "count"))
    for limit in range(1, len(steps) + 1):
        path = tmp_path / f"at-{limit}"

        def die(path: Path = path, limit: int = limit) -> None:
            with counted(limit):
                begin(path)

        assert forked(die) != 0
        seen = visible_checkpoints(Directory(path, ""))
        begin(path, 10)
        check(open_directory(path), seen, {"entry 10", "entry 11"} | ({"entry 0", "entry 1"} if seen else set()))


@pytest.mark.slow
def test_death_at_every_step_of_replacing_a_lost_log(tmp_path: Path) -> None:
    def lose(path: Path) -> Directory:
        directory = prepare(path)
        sequence(path)
        for file in directory.log.iterdir():
            file.unlink()
        record(directory, 2000, 2)  # by a process that knows the old name only
        return directory

    lose(tmp_path / "count")
    steps = steps_of(tmp_path / "count", lambda: sequence(tmp_path / "count"))
    for limit in range(1, len(steps) + 1):
        path = tmp_path / f"at-{limit}"
        before = lose(path)
        lost = visible_checkpoints(before)
        assert len(lost) == 1

        def die(path: Path = path, limit: int = limit) -> None:
            with counted(limit):
                sequence(path)

        assert forked(die) != 0
        seen = visible_checkpoints(before) - lost
        sequence(path)
        after = open_directory(path)
        assert after.origin != before.origin
        check(after, seen, {"entry 2000", "entry 2001"})
        genesis = statements.decode(next(reader.batches(after.log)).statements[0])
        ((origin, size, root),) = lost
        assert (genesis["predecessor"]["origin"], genesis["predecessor"]["size"]) == (origin, size)
        assert statements.plain({"bytes": genesis["predecessor"]["root"]}) == root


@pytest.mark.parametrize("cut", [1, 2])
def test_a_log_whose_end_is_gone_is_not_continued(tmp_path: Path, cut: int) -> None:
    directory = prepare(tmp_path / "log")
    sequence(tmp_path / "log")
    files = reader.files(directory.log)
    for name in files[-cut:]:
        (directory.log / name).unlink()
    record(directory, 3000, 1)
    with pytest.raises(sequencer.DirectoryError, match="was cut off"):
        Sequencer.acquire(directory)
    # The advice is followed: the rest is moved away, and a new log names the one that was cut.
    directory.log.rename(tmp_path / "evidence")
    sequence(tmp_path / "log")
    after = open_directory(tmp_path / "log")
    assert names(after) == ["entry 3000"]
    assert verify_directory(after).verdict is Verdict.PASSED
    assert after.origin != directory.origin


def test_a_failed_write_leaves_nothing_between_two_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = prepare(tmp_path / "log")
    one = Sequencer.acquire(directory)
    assert one is not None
    real = os.write
    state = {"left": 3}

    def full(descriptor: int, data: bytes) -> int:
        if state["left"]:
            state["left"] -= 1
            if state["left"] == 0:
                raise OSError(28, "No space left on device")
            return real(descriptor, data[:10])
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(sequencer.DirectoryError, match="No space left"):
        one.integrate()
    while one.integrate():
        pass
    one.close()
    check(directory, visible_checkpoints(directory), {f"entry {number}" for number in range(ENTRIES)})


def killed(folder: Path, *arguments: object) -> tuple[dict[str, Any], Directory, list[str], list[str]]:
    """Run killing.py; return what it told, the directory, what ended, and what began."""
    program, root = Path(__file__).with_name("killing.py"), Path(__file__).parents[2]
    sources = os.pathsep.join(f"{root}/{part}" for part in ("", "exporters", "instrumentation"))
    done = subprocess.run(
        [sys.executable, str(program), str(folder), *map(str, arguments)],
        capture_output=True, text=True, timeout=550, check=False, env={**os.environ, "PYTHONPATH": sources},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    told["checkpoints"] = {(str(origin), int(size), bytes.fromhex(root)) for origin, size, root in told["checkpoints"]}
    directory = open_directory(Path(told["log"]))
    Path(directory.path / "nonconformant-on-purpose").touch()
    ended, begun = ((folder / name).read_text().split("\n")[:-1] for name in ("ended", "begun"))
    print(f"{told['kills']} kills, {told['sequencers']} of them of the sequencer; {told['writers']} processes;")
    print(f"{len(ended)} records had ended, {len(told['checkpoints'])} checkpoints were seen from outside")
    assert told["sequencers"] > told["kills"] / 20
    assert "not waited for" not in done.stderr, "a record that was not in a checkpoint in time proves nothing here"
    return told, directory, ended, begun


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["durable", "synced"])
def test_hundreds_of_kills_of_four_writing_processes(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AUDITSPAN_KILLS=1000 python -m pytest tests/seal/test_crashes.py -k hundreds -s"""
    monkeypatch.undo()  # no small batches: there are many records
    kills = KILLS if mode == "durable" else KILLS // 3
    told, directory, ended, begun = killed(tmp_path, kills, mode)
    sequence(directory.path)
    assert told["kills"] >= kills
    assert len(ended) > (kills if mode == "durable" else kills / 10)
    assert len(told["checkpoints"]) > 5
    check(directory, told["checkpoints"], set(ended))
    assert len(begun) == len(set(begun)) > kills / 10
    assert set(names(directory, interrupted.STARTED)) >= set(begun)
    cut = Counter(names(directory, interrupted.INTERRUPTED))
    finished = set(names(directory))
    assert set(cut) == set(names(directory, interrupted.STARTED)) - finished, "each run has ended or was cut"
    assert set(cut.values()) == {1}
    assert len(cut) > kills / 50
    print(f"{len(begun)} runs begun, {len(cut)} of them cut by a kill, each shown as interrupted once")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["synced", "durable"])
def test_power_cuts(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is not synced is gone. AUDITSPAN_KILLS=1000 python -m pytest tests/seal/test_crashes.py -k power -s"""
    monkeypatch.undo()
    told, directory, ended, _ = killed(tmp_path, KILLS, mode, max(4, KILLS // 25))
    sequence(directory.path)
    # Whatever the mode: one history, that of every checkpoint that was ever seen; and no record twice.
    check(directory, told["checkpoints"], set(ended) if mode == "synced" else set())
    assert len(told["checkpoints"]) > 5
    assert len(ended) > KILLS / 10
    there = set(names(directory))
    print(f"{len(set(ended) - there)} of {len(ended)} records that had ended are gone")
    if mode == "durable":
        assert len(there & set(ended)) > len(ended) / 2
        assert set(ended) - there, "a disk that forgets nothing tests nothing"
    assert set(Counter(names(directory, interrupted.INTERRUPTED)).values()) == {1}
