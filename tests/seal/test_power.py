# SPDX-License-Identifier: Apache-2.0
"""What a power cut and a disk that fails do to a log: each case by itself. Many at random: test_crashes.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditspan_seal.errors import DirectoryError
from auditspan_seal.log import reader, segment, sequencer
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import Sequencer
from tests.seal import powerloss
from tests.seal.crashing import visible_checkpoints
from tests.seal.powerloss import Disk
from tests.seal.test_crashes import check, names, record, sequence


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


class Failing:
    """Lets one fsync fail: the next one of a file or folder of that name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = 0

    def __call__(self, path: Path) -> bool:
        if self.name in path.name and not self.failed:
            self.failed += 1
            return True
        return False


@pytest.fixture
def acquired() -> Iterator[list[Sequencer]]:
    held: list[Sequencer] = []
    yield held
    for one in held:
        one.close()


def acquire(path: Path, held: list[Sequencer]) -> Sequencer:
    one = Sequencer.acquire(open_directory(path, create=True))
    assert one is not None
    held.append(one)
    return one


def after_cut(disk: Disk, target: Path) -> Directory:
    """Cut the power; start again."""
    disk.cut(target)
    sequence(target / "log")
    return open_directory(target / "log")


def test_what_is_published_survives_from_the_first_entry_on(home: Path, tmp_path: Path) -> None:
    disk = Disk(home, tmp_path / "store")
    with disk.installed():
        directory = open_directory(home / "new" / "log", create=True)
        record(directory, 0, 3)
        sequence(directory.path)
        seen = visible_checkpoints(directory)
    disk.cut(tmp_path / "after")
    after = open_directory(tmp_path / "after" / "new" / "log")
    sequence(after.path)
    check(after, seen, {"entry 0", "entry 1", "entry 2"})


@pytest.mark.parametrize("page", [1, 4096])
def test_an_fsync_that_failed_is_not_made_good_by_a_second_one(
    home: Path, tmp_path: Path, acquired: list[Sequencer], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(powerloss, "PAGE", page)  # of one byte: nothing is saved by what happens to lie beside it
    failing = Failing(".log")
    failing.failed = 1
    disk = Disk(home, tmp_path / "store", failing)
    with disk.installed():
        one = acquire(home / "log", acquired)
        record(one.directory, 0, 3)
        failing.failed = 0
        with pytest.raises(DirectoryError, match="could not be written: Input/output error"):
            one.integrate()
        assert one.integrate() == 3
        seen = visible_checkpoints(one.directory)
    check(after_cut(disk, tmp_path / "after"), seen, {"entry 0", "entry 1", "entry 2"})


@pytest.mark.parametrize("page", [1, 4096])
def test_nor_by_the_fsync_of_whoever_comes_next(
    home: Path, tmp_path: Path, acquired: list[Sequencer], monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """A batch whose fsync failed can be read as if it were on disk; a successor must not sign on top of that."""
    monkeypatch.setattr(powerloss, "PAGE", page)
    failing = Failing(".log")
    failing.failed = 1
    disk = Disk(home, tmp_path / "store", failing)
    with disk.installed():
        one = acquire(home / "log", acquired)
        record(one.directory, 0, 3)
        failing.failed = 0
        with pytest.raises(DirectoryError):
            one.integrate()
        one.close()  # dies here
        another = acquire(home / "log", acquired)
        record(one.directory, 3, 1)
        assert another.integrate() == 1
        seen = visible_checkpoints(another.directory)
    check(after_cut(disk, tmp_path / "after"), seen, {f"entry {number}" for number in range(4)})


def test_nothing_is_to_be_seen_before_it_is_on_disk(home: Path, tmp_path: Path, acquired: list[Sequencer]) -> None:
    """A shipper, or whoever verifies, reads while the sequencer writes: what it sees has to be there after a cut."""
    seen: set[tuple[str, int, bytes]] = set()
    directory = open_directory(home / "log", create=True)

    class PowerCut(Exception):
        pass

    def look(path: Path) -> bool:
        seen.update(visible_checkpoints(directory))
        if path.suffix == ".log" and list(directory.segments.iterdir()):
            raise PowerCut
        return False

    disk = Disk(home, tmp_path / "store", look)
    with disk.installed():
        one = acquire(home / "log", acquired)
        record(one.directory, 0, 3)
        with pytest.raises(PowerCut):
            one.integrate()
    disk.cut(tmp_path / "after")
    after = open_directory(tmp_path / "after" / "log")
    record(after, 9, 1)
    sequence(after.path)
    assert len(seen) == 1
    check(after, seen, {"entry 9"})


@pytest.mark.parametrize("after", [bytes(9), bytes(200) + b'":1}\nE {"v":2}\nE {"v', bytes(4096), b"\0\nC {}\n"])
def test_nor_is_it_lost_if_more_was_written_after_the_lf_that_a_power_cut_has_taken(home: Path, after: bytes) -> None:
    """Of the page with the LF the version before is on disk, of the pages after it the new one."""
    directory = open_directory(home / "log", create=True)
    record(directory, 0, 2)
    sequence(directory.path)
    seen = visible_checkpoints(directory)
    path = directory.log / reader.files(directory.log)[-1]
    path.write_bytes(path.read_bytes()[:-1] + after)
    record(directory, 2, 1)
    sequence(directory.path)
    check(directory, seen, {"entry 0", "entry 1", "entry 2"})


@pytest.mark.parametrize("left", [1, 2, 40])
def test_a_batch_that_lacks_only_its_last_lf_is_whole(home: Path, left: int) -> None:
    directory = open_directory(home / "log", create=True)
    record(directory, 0, 2)
    sequence(directory.path)
    seen = visible_checkpoints(directory)
    path = directory.log / reader.files(directory.log)[-1]
    os.truncate(path, path.stat().st_size - left)
    if left > 1:
        directory.checkpoint.unlink()  # it was never published
    sequence(directory.path)
    if left == 1:
        check(directory, seen, {"entry 0", "entry 1"})
    assert path.read_bytes().endswith(b"\n")


def test_the_name_of_a_new_file_is_on_disk_before_what_is_in_it_counts(
    home: Path, tmp_path: Path, acquired: list[Sequencer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencer, "ROLL_SIZE", 500)
    failing = Failing("log")
    failing.failed = 1
    disk = Disk(home, tmp_path / "store", lambda path: path.is_dir() and failing(path))
    with disk.installed():
        one = acquire(home / "log", acquired)
        record(one.directory, 0, 3)
        failing.failed = 0
        with pytest.raises(DirectoryError, match="Input/output error"):
            one.integrate()
        assert one.integrate() == 3
        assert len(reader.files(one.directory.log)) == 2
        seen = visible_checkpoints(one.directory)
    check(after_cut(disk, tmp_path / "after"), seen, {"entry 0", "entry 1", "entry 2"})


def test_a_segment_that_comes_back_is_not_put_into_the_log_again(
    home: Path, tmp_path: Path, acquired: list[Sequencer]
) -> None:
    """It was removed, but its name was still on disk when the power was cut."""
    disk = Disk(home, tmp_path / "store")
    with disk.installed():
        one = acquire(home / "log", acquired)
        record(one.directory, 0, 3)
        for path in (*one.directory.segments.iterdir(), one.directory.segments):
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)  # as the kernel does it sooner or later
            os.close(descriptor)
        assert one.integrate() == 3
        assert segment.names(one.directory.segments) == []
        record(one.directory, 3, 1)
        assert one.integrate() == 1
        seen = visible_checkpoints(one.directory)
    after = after_cut(disk, tmp_path / "after")
    check(after, seen, {f"entry {number}" for number in range(4)})
    assert len(names(after)) == 4
