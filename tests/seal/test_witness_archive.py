# SPDX-License-Identifier: Apache-2.0
"""Archives of checkpoints: what is written is read back, and what others do to them is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from auditspan_seal.errors import MalformedNote, SecondPlaceError, SourceError
from auditspan_seal.formats.growth import Growth
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import consistency
from auditspan_seal.formats.witness_policy import Policy
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from auditspan_seal.log.directory import Directory
from auditspan_seal.witness import store as stores
from auditspan_seal.witness.archive import Archive, Receipt
from auditspan_seal.witness.growing import Growing
from auditspan_seal.witness.store import FolderStore, Stored
from auditspan_seal.witness.trusted import MAX_MESSAGES, Trusted, load
from tests.seal.second_places import LOG, Cosigner, LogOnDisk

W1, W2 = Cosigner("witness.example/w1"), Cosigner("witness.example/w2")
BOTH = Policy.parse(f"witness w1 {W1.key}\nwitness w2 {W2.key}\ngroup both all w1 w2\nquorum both".encode())


@pytest.fixture
def log(tmp_path: Path) -> LogOnDisk:
    log = LogOnDisk(tmp_path / "log-directory")
    for count in (1, 4, 7, 2):
        log.add(count)
    return log


@pytest.fixture(params=["file", "folder", "URL"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Every kind of archive."""
    if request.param == "URL":
        stores.register("ours", lambda url: FolderStore(tmp_path / url.partition("://")[2]))
        yield "ours://bucket"
        del stores._schemes["ours"]
    else:
        yield str(tmp_path / "archive") + ("/" if request.param == "folder" else "")


def fill(place: str, log: LogOnDisk) -> Archive:
    archive = Archive(place)
    for batch in log.batches:
        archive.add(Note.parse(batch.note))
    return archive


def key_of(log: LogOnDisk) -> list[VerifierKey]:
    return [log.signer.verifier_key]


def sizes(found: Trusted) -> list[int]:
    return sorted(checkpoint.size for checkpoint in found.checkpoints)


# -- what is written is read back --------------------------------------------------------------------------------
def test_every_checkpoint_is_read_back(log: LogOnDisk, place: str) -> None:
    fill(place, log)
    found = load(place, None, key_of(log))
    assert found.rejected == []
    assert sizes(found) == [1, 5, 12, 14]
    for checkpoint in found.checkpoints:
        assert checkpoint.origin == LOG
        assert checkpoint.root == log.tree(checkpoint.size).root()
        assert checkpoint.time is None, "nobody but the writer vouches for a time"
        assert checkpoint.witnesses == ()
        assert Checkpoint.parse(Note.parse(checkpoint.note).text).size == checkpoint.size
    assert sizes(load(place, None, [])) == [1, 5, 12, 14]


def test_an_archive_is_continued_by_another_process(log: LogOnDisk, place: str) -> None:
    fill(place, log)
    log.add(3)
    Archive(place).add(log.note())
    found = load(place, None, key_of(log))
    assert (sizes(found), found.rejected) == ([1, 5, 12, 14, 17], [])


def test_adding_the_same_again_changes_nothing_that_is_read(log: LogOnDisk, place: str) -> None:
    archive = fill(place, log)
    archive.add(log.note())
    found = load(place, None, key_of(log))
    assert (sizes(found), found.rejected) == ([1, 5, 12, 14], [])


def test_logs_of_several_hosts_may_share_an_archive(log: LogOnDisk, tmp_path: Path, place: str) -> None:
    other = LogOnDisk(tmp_path / "other", "other.example/auditspan/1")
    first, second = Archive(place), Archive(place)
    for number in range(4):
        first.add(log.note(number))
        other.add(number + 1)
        second.add(other.note())
    found = load(place, None, [*key_of(log), *key_of(other)])
    assert found.rejected == []
    assert sorted((c.origin, c.size) for c in found.checkpoints) == sorted(
        [(LOG, size) for size in (1, 5, 12, 14)] + [("other.example/auditspan/1", size) for size in (1, 3, 6, 10)]
    )


def test_objects_are_the_notes_themselves_and_cannot_be_written_again(log: LogOnDisk, tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive/", log)
    objects = sorted((tmp_path / "archive").rglob("*.note"))
    assert [path.read_text() for path in objects] == [batch.note for batch in log.batches]
    assert all(path.stat().st_mode & 0o222 == 0 for path in objects)
    store = FolderStore(tmp_path / "archive")
    name = objects[0].relative_to(tmp_path / "archive").as_posix()
    assert store.put(name, b"something else") is False
    assert objects[0].read_text() == log.batches[0].note
    assert len(list((tmp_path / "archive").rglob("*"))) == 5, "no drafts are left"


def test_writers_at_the_same_time_do_not_disturb_each_other(log: LogOnDisk, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    program = (
        "import sys\nfrom auditspan_seal.witness.archive import Archive\nfrom auditspan_seal.formats.note import Note\n"
        "archive, note = Archive(sys.argv[1]), Note.parse(sys.argv[2])\nfor _ in range(50): archive.add(note)\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, place, log.batches[n].note]) for n in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    found = load(str(place), None, key_of(log))
    assert (sizes(found), found.rejected) == ([1, 5, 12], [])
    assert len(place.read_text().splitlines()) == 150


# -- what others do to it ----------------------------------------------------------------------------------------
def test_a_line_removed_from_a_file_is_missed_by_the_next(log: LogOnDisk, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    fill(str(place), log)
    lines = place.read_bytes().splitlines(keepends=True)
    for gone in range(3):
        place.write_bytes(b"".join(lines[:gone] + lines[gone + 1 :]))
        found = load(str(place), None, key_of(log))
        assert len(found.checkpoints) == 3
        (message,) = found.rejected
        assert ("the beginning of the archive is missing" if gone == 0 else "was removed or altered") in message
        assert f"line {gone + 1}" in message


def test_an_altered_line_does_not_count_and_is_said(log: LogOnDisk, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    fill(str(place), log)
    lines = place.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"\\n5\\n", b"\\n6\\n")
    place.write_bytes(b"".join(lines))
    found = load(str(place), None, key_of(log))
    assert sizes(found) == [1, 12, 14]
    assert len(found.rejected) == 2
    assert "does not verify" in found.rejected[0]
    assert "line 3: a line before it was removed or altered" in found.rejected[1]


def test_a_line_that_a_crash_cut_short_is_said_and_the_archive_goes_on(log: LogOnDisk, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    archive = fill(str(place), log)
    whole = place.read_bytes()
    for cut in (1, 2, 50, 300):
        place.write_bytes(whole[:-cut])
        archive.add(log.note())
        found = load(str(place), None, key_of(log))
        assert sizes(found) == [1, 5, 12, 14]
        if cut == 1:
            assert found.rejected == [], "only the LF was missing"
        else:
            (message,) = found.rejected
            assert "line 4 is not a line of an archive" in message


def test_an_object_removed_from_a_folder_is_missed_by_the_next(log: LogOnDisk, tmp_path: Path) -> None:
    place = f"{tmp_path}/archive/"
    fill(place, log)
    objects = sorted((tmp_path / "archive").rglob("*.note"))
    for gone in range(3):
        content = objects[gone].read_bytes()
        objects[gone].unlink()
        found = load(place, None, key_of(log))
        assert len(found.checkpoints) == 3
        (message,) = found.rejected
        assert "which was removed" in message
        objects[gone].write_bytes(content)
    assert load(place, None, key_of(log)).rejected == []


def test_an_altered_object_is_said(log: LogOnDisk, tmp_path: Path) -> None:
    place = f"{tmp_path}/archive/"
    fill(place, log)
    target = sorted((tmp_path / "archive").rglob("*.note"))[2]
    target.chmod(0o600)
    target.write_text(log.batches[1].note)  # a real checkpoint, at the wrong place
    found = load(place, None, key_of(log))
    assert sizes(found) == [1, 5, 14]
    (message,) = found.rejected
    assert "was altered" in message
    target.write_bytes(b"\xff")
    assert any("is not text" in message for message in load(place, None, key_of(log)).rejected)


def test_whoever_wrote_last_sees_that_the_end_is_gone(log: LogOnDisk, place: str, tmp_path: Path) -> None:
    """The archive itself cannot show that; what the writer remembers can."""
    archive = Archive(place)
    archive.add(log.note(0))
    receipt = archive.add(log.note(1))
    assert archive.holds(receipt)
    receipt.save(tmp_path / "archive.json")
    assert Receipt.load(tmp_path / "archive.json") == receipt
    if (tmp_path / "archive").is_file():
        lines = (tmp_path / "archive").read_bytes().splitlines(keepends=True)
        (tmp_path / "archive").write_bytes(lines[0])
    else:
        next(path for path in tmp_path.rglob("*.note") if path.name in receipt.name).unlink()
    assert load(place, None, key_of(log)).rejected == []
    assert not archive.holds(receipt)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"place":1,"name":"","digest":"","size":1}', b"\xff"])
def test_a_damaged_receipt_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "archive.json").write_bytes(content)
    assert Receipt.load(tmp_path / "archive.json") is None


# -- what counts -------------------------------------------------------------------------------------------------
def test_a_checkpoint_by_another_key_does_not_count(log: LogOnDisk, place: str) -> None:
    thief = KeyFileSigner(Ed25519PrivateKey.generate(), LOG)
    archive = fill(place, log)
    archive.add(sign_checkpoint(thief, Checkpoint(LOG, 20, bytes(32))))
    found = load(place, None, key_of(log))
    assert sizes(found) == [1, 5, 12, 14]
    (message,) = found.rejected
    assert "not signed by a key that was given" in message
    assert thief.verifier_key.key_id.hex() in message
    assert sizes(load(place, None, [*key_of(log), thief.verifier_key])) == [1, 5, 12, 14, 20]
    nameless = VerifierKey("", log.signer.verifier_key.public)
    assert sizes(load(place, None, [nameless])) == [1, 5, 12, 14]


def test_a_log_without_any_key_counts_for_being_there(log: LogOnDisk, tmp_path: Path) -> None:
    other = LogOnDisk(tmp_path / "other", "other.example/auditspan/1")
    other.add(3)
    fill(f"{tmp_path}/archive/", log)
    Archive(f"{tmp_path}/archive/").add(other.note())
    assert len(load(f"{tmp_path}/archive/", None, key_of(log)).checkpoints) == 5
    unsigned = Note(other.note().text, W1.on(other.note()).signatures[-1:])
    (tmp_path / "note").write_text(str(unsigned))
    (message,) = load(str(tmp_path / "note"), None, []).rejected
    assert "no signature in the name of its log" in message


def test_a_split_view_in_one_archive_is_kept_whole(log: LogOnDisk, tmp_path: Path, place: str) -> None:
    """Both checkpoints count: a log can agree with one of them only."""
    fork = log.other_copy(tmp_path / "fork", 3)
    fork.add(2, "forged")
    archive = fill(place, log)
    archive.add(fork.note())
    found = load(place, None, key_of(log))
    assert sizes(found) == [1, 5, 12, 14, 14]
    assert len({c.root for c in found.checkpoints if c.size == 14}) == 2


def test_with_a_policy_only_what_the_quorum_cosigned_counts(log: LogOnDisk, place: str) -> None:
    archive = Archive(place)
    archive.add(log.note(0))
    archive.add(W1.on(log.note(1), 1000))
    archive.add(W2.on(W1.on(log.note(2), 3000), 2000))
    found = load(place, BOTH, key_of(log))
    (checkpoint,) = found.checkpoints
    assert (checkpoint.size, checkpoint.witnesses) == (12, ("w1", "w2"))
    assert checkpoint.time == 3000 * 10**9, "the latest: it takes more than one liar to make it older"
    assert len(found.rejected) == 2
    assert "cosigned by none of its witnesses" in found.rejected[0]
    assert "cosigned by w1, which is not the quorum" in found.rejected[1]
    assert sizes(load(place, None, key_of(log))) == [1, 5, 12]


def test_the_logs_of_a_policy_are_the_only_ones(log: LogOnDisk, tmp_path: Path) -> None:
    other = LogOnDisk(tmp_path / "other", "other.example/auditspan/1")
    other.add(3)
    place = str(tmp_path / "archive")
    fill(place, log)
    Archive(place).add(other.note())
    policy = Policy.parse(f"log {log.signer.verifier_key}\nquorum none".encode())
    found = load(place, policy, [])
    assert sizes(found) == [1, 5, 12, 14]
    (message,) = found.rejected
    assert "not one of the policy" in message


def test_a_single_cosigned_note_is_a_second_place(log: LogOnDisk, tmp_path: Path) -> None:
    (tmp_path / "cosigned.note").write_text(str(W2.on(W1.on(log.note()))))
    found = load(str(tmp_path / "cosigned.note"), BOTH, key_of(log))
    assert [(c.size, c.witnesses) for c in found.checkpoints] == [(14, ("w1", "w2"))]


def test_a_store_with_a_clock_vouches_for_a_time(log: LogOnDisk, tmp_path: Path) -> None:
    class Clocked(FolderStore):
        def list(self, prefix: str) -> Iterator[Stored]:
            return (Stored(item.name, 42) for item in super().list(prefix))

    stores.register("clocked", lambda url: Clocked(tmp_path / "bucket"))
    fill("clocked://bucket", log)
    assert {c.time for c in load("clocked://bucket", None, []).checkpoints} == {42}
    del stores._schemes["clocked"]


def test_messages_are_bounded(log: LogOnDisk, tmp_path: Path) -> None:
    place = tmp_path / "archive"
    fill(str(place), log)
    with open(place, "ab") as file:
        file.write(b"nonsense\n" * 5000)
    found = load(str(place), None, key_of(log))
    assert len(found.rejected) == MAX_MESSAGES + 1
    assert found.rejected[-1] == f"… and {5000 - MAX_MESSAGES} more"


# -- places that cannot be used ----------------------------------------------------------------------------------
def test_places_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    for place in (str(tmp_path / "absent"), f"{tmp_path}/absent/"):
        with pytest.raises(SourceError, match="cannot be read"):
            load(place, None, [])
    with pytest.raises(SourceError, match="no archive store for the addresses s3://"):
        load("s3://bucket", None, [])
    with pytest.raises(SourceError, match="no archive store"):
        Archive("s3://bucket")
    with pytest.raises(SourceError, match="Without the key of a log"):
        load("http://127.0.0.1:1/", None, [])
    with pytest.raises(SourceError, match="cannot be asked"):
        load("http://127.0.0.1:1/", None, [VerifierKey(LOG, bytes(32))])


def test_places_that_cannot_be_written_say_so(log: LogOnDisk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (str(tmp_path / "absent" / "archive"), f"{tmp_path}/file/x/", "/dev/full"):
        with pytest.raises(SecondPlaceError, match="could not be archived"):
            Archive(place).add(log.note())
    with pytest.raises(MalformedNote):
        Archive(str(tmp_path / "archive")).add(Note("no checkpoint\n", log.note().signatures))
    with pytest.raises(SecondPlaceError, match="cannot be read"):
        Archive(str(tmp_path)).holds(Receipt(str(tmp_path), ".", "", 0))


def test_stores_of_others_are_found_by_their_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site" / "theirs-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[auditspan_archive_store]\ntheirs = their_store:open_store\n")
    (tmp_path / "site" / "their_store.py").write_text(
        "from pathlib import Path\nfrom auditspan_seal.witness.store import FolderStore\n"
        "def open_store(url):\n    if url == 'theirs://bad': raise ValueError('no bucket')\n"
        "    return FolderStore(Path(url.removeprefix('theirs://')))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    log = LogOnDisk(tmp_path / "log")
    log.add(2)
    Archive(f"theirs://{tmp_path}/bucket").add(log.note())
    assert sizes(load(f"{tmp_path}/bucket", None, [])) == [2]
    with pytest.raises(SourceError, match="no bucket"):
        Archive("theirs://bad")


@given(content=st.binary(max_size=400) | st.builds(lambda x: json.dumps(x).encode(), st.recursive(
    st.none() | st.integers() | st.text(max_size=20),
    lambda inner: st.dictionaries(st.sampled_from(["note", "previous", "x"]), inner) | st.lists(inner), max_leaves=5,
)))  # fmt: skip
def test_whatever_is_in_an_archive_only_messages_come_of_it(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "file").write_bytes(content)
    (folder / "line").write_bytes(b"{" + content + b"\n" + content)
    (folder / "object.note").write_bytes(content)
    for place in ("file", "line", "."):
        found = load(str(folder / place), BOTH, [])
        assert found.checkpoints == []
        assert found.rejected or not content


# -- proofs of growth from the log files -------------------------------------------------------------------------
def test_growth_is_proven_from_any_size_in_the_log_files(tmp_path: Path) -> None:
    log = LogOnDisk(tmp_path / "log")
    for number, count in enumerate((1, 3, 8, 5, 1, 2, 20, 4)):
        log.add(count, new_file=number in (0, 3, 4, 6))
    leaves = list(log.batches[0].leaves)
    for batch in log.batches[1:]:
        leaves += batch.leaves
    growing = Growing(log.directory.log)
    growing.follow(log.batches[-1])
    for first in range(1, 44):
        assert growing.proof(first) == (consistency(leaves, first) if first < 44 else ())


@pytest.mark.parametrize("skipped", [(), (2, 3), (1, 2, 3, 4, 5), (6,), (3, 5)])
def test_growth_is_followed_over_batches_that_were_not_shown(tmp_path: Path, skipped: tuple[int, ...]) -> None:
    log = LogOnDisk(tmp_path / "log")
    growing = Growing(log.directory.log)
    leaves: list[bytes] = []
    for number, count in enumerate((1, 3, 8, 5, 1, 2, 20, 4)):
        batch = log.add(count, new_file=number in (0, 3, 4, 6))
        leaves += batch.leaves
        if number in skipped:
            continue
        growing.follow(batch)
        for first in (1, 4, 12):
            if first <= batch.size:
                assert growing.proof(first) == consistency(leaves, first)
    growing.forget_all_but({12})
    assert sorted(growing._since) == [12, len(leaves)]


def test_a_real_log_proves_its_growth(make_records: Callable[..., Directory]) -> None:
    from auditspan_seal.log import reader

    for _ in range(3):
        directory = make_records(700)
    batches = [block.batch for block in reader.batches(directory.log)]
    assert len(batches) > 5
    leaves = [leaf for batch in batches for leaf in batch.leaves]
    growing = Growing(directory.log)
    for at, batch in enumerate(batches):
        if at % 2:
            continue
        growing.follow(batch)
        for before in batches[:at]:
            assert growing.proof(before.size) == consistency(leaves[: batch.size], before.size)


def test_log_files_that_do_not_lead_there_are_named(tmp_path: Path) -> None:
    from auditspan_seal.errors import DirectoryError

    log = LogOnDisk(tmp_path / "log")
    for count in (2, 3, 4):
        log.add(count, new_file=True)
    newest = log.batches[-1]
    growing = Growing(log.directory.log)
    growing.follow(newest)
    (log.directory.log / f"{2:020d}.log").unlink()
    with pytest.raises(DirectoryError, match="do not lead from 2 entries"):
        growing.proof(2)
    growing = Growing(log.directory.log)
    growing.follow(log.batches[0])
    with pytest.raises(DirectoryError, match="do not lead from 2 entries"):
        growing.follow(newest)
    other = LogOnDisk(tmp_path / "other")
    for count in (2, 3, 4):
        other.add(count, "other")
    growing = Growing(other.directory.log)
    growing.follow(newest)
    with pytest.raises(DirectoryError, match="do not lead"):
        growing.proof(2)


def test_a_log_that_was_set_back_is_followed_from_there(tmp_path: Path) -> None:
    log = LogOnDisk(tmp_path / "log")
    for count in (2, 3, 4):
        log.add(count)
    growing = Growing(log.directory.log)
    growing.follow(log.batches[2])
    growing.follow(log.batches[1])
    assert growing.proof(2) == growth_proof(log, 2, 5)


def growth_proof(log: LogOnDisk, first: int, size: int) -> tuple[bytes, ...]:
    from auditspan_seal.formats.merkle import leaf_hash

    growth = Growth(log.tree(first))
    for entry in log.entries[first:size]:
        growth.append(leaf_hash(entry))
    return growth.proof()


def test_an_archive_leaves_no_file_open(log: LogOnDisk, tmp_path: Path) -> None:
    archive = fill(str(tmp_path / "archive"), log)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(20):
        archive.add(log.note())
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
