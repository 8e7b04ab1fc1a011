# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints count: after any number of changes of the key, after theft, after expiry."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditspan_seal.errors import KeyFileError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.keychange import Revocation
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.keys import Signer
from auditspan_seal.verify.trust import KeyRing, coverage, read_revocation
from tests.seal.keylogs import ORIGIN, Forge, codes, feed, new_signer, rotating_log

A, B, C, X = (new_signer() for _ in range(4))
KEYS = [signer.verifier_key for signer in (A, B, C)]
NOBODY = VerifierKey("", new_signer().verifier_key.public)


# -- rotations -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 50), st.data())
def test_any_number_of_rotations_of_a_real_log(rotations: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory, keys = rotating_log(Path(folder) / "log", rotations)
        pinned = data.draw(st.sampled_from(keys))
        for given_keys, trust in (
            ((), "first_use"),
            ((pinned,), "pinned"),
            ((VerifierKey("", pinned.public),), "pinned"),
        ):
            ring = KeyRing(directory.origin, given_keys)
            assert feed(ring, directory) == []
            assert ring.trust == trust
            assert [key for _, key in ring.chain] == keys
            assert ring.verified > rotations
        foreign = KeyRing(directory.origin, (NOBODY,))
        assert codes(feed(foreign, directory)) == ["wrong_key"]
        assert (foreign.trust, foreign.verified) == ("none", 0)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_oldest_the_middle_and_the_newest_key_vouch_for_all(which: int) -> None:
    ring = KeyRing(ORIGIN, [KEYS[which]])
    assert Forge(A).span(A).rotate(A, B).span(B).rotate(B, C).span(C).show(ring) == []
    assert (ring.trust, ring.verified) == ("pinned", 6)


def test_a_key_of_another_log_is_no_key_for_this_one() -> None:
    ring = KeyRing(ORIGIN, [new_signer("other").verifier_key])
    assert codes(Forge(A).span(A).show(ring)) == ["no_key"]
    assert ring.trust == "none"


def test_two_rotations_under_one_checkpoint() -> None:
    log = Forge(A)
    entries = [log.rotation(A, B), log.rotation(B, C, index=log.size + 1)]
    assert log.batch(entries, A, B, C).span(C).show(KeyRing(ORIGIN, [KEYS[0]])) == []
    log = Forge(A)
    assert codes(log.batch(entries, A, C).span(C).show(KeyRing(ORIGIN, [KEYS[0]]))) == ["key_change_invalid"]


@pytest.mark.parametrize("signers", [(A,), (B,)])
def test_a_rotation_signed_by_one_key_only(signers: tuple[Signer, ...]) -> None:
    log = Forge(A)
    said = log.batch([log.rotation(A, B)], *signers).span(B).show(KeyRing(ORIGIN, [KEYS[0]]))
    assert codes(said) == ["key_change_invalid"]
    absent = B if signers == (A,) else A
    assert f"{absent.verifier_key.key_id.hex()} has not signed it" in said[0][1]


def test_the_old_key_signs_no_more_after_the_rotation() -> None:
    said = Forge(A).rotate(A, B).span(A).span(B).show(KeyRing(ORIGIN, [KEYS[0]]))
    assert codes(said) == ["wrong_key"]
    assert f"{A.verifier_key.key_id.hex()} was replaced before" in said[0][1]


def test_a_stranger_and_a_bad_signature() -> None:
    assert codes(Forge(A).span(X).show(KeyRing(ORIGIN, [KEYS[0]]))) == ["wrong_key"]
    log = Forge(A).span(A)
    entries, note, *rest = log.batches[-1]
    name, key_id, signature = note.signatures[0]
    bad = Note(note.text, ((name, key_id, signature[::-1]),))
    log.batches[-1] = (entries, bad, *rest)  # type: ignore[assignment]
    assert codes(log.show(KeyRing(ORIGIN))) == ["checkpoint_invalid"]


def test_a_bad_signature_by_one_of_two_keys() -> None:
    log = Forge(A).rotate(A, B)
    entries, note, *rest = log.batches[-1]
    name, key_id, signature = note.signatures[1]
    bad = Note(note.text, (note.signatures[0], (name, key_id, signature[::-1])))
    log.batches[-1] = (entries, bad, *rest)  # type: ignore[assignment]
    assert codes(log.show(KeyRing(ORIGIN))) == ["checkpoint_invalid"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda log: log.rotation(A, B, index=5), "made for the index 5"),
        (lambda log: log.rotation(X, B), "but"),
        (lambda log: log.rotation(A, B) | {"certificates": log.rotation(X, B)["certificates"]}, "by the old key"),
        (lambda log: log.rotation(A, B) | {"certificates": log.rotation(A, C)["certificates"]}, "by the old key"),
        (lambda log: log.rotation(A, B) | {"not_after": "9"}, "by the old key"),
        (lambda log: log.rotation(A, B) | {"origin": "other"}, "another log"),
    ],
)
def test_each_rotation_that_is_none(make: Any, said: str) -> None:
    log = Forge(A).span(A)
    found = log.batch([make(log)], A, B).span(B).show(KeyRing(ORIGIN, [KEYS[0]]))
    # The checkpoint with both signatures still is one by A; the next one is by nobody.
    assert codes(found) == ["key_change_invalid", "wrong_key"]
    assert said in found[0][1]


def test_a_replaced_key_does_not_come_back() -> None:
    log = Forge(A).rotate(A, B)
    found = log.batch([log.rotation(B, A)], B, A).show(KeyRing(ORIGIN))
    assert codes(found) == ["key_change_invalid"]
    assert "brings back" in found[0][1]


def test_a_second_genesis_changes_nothing() -> None:
    log = Forge(A)
    genesis = {"v": 2, "type": "genesis", "origin": ORIGIN, "key": str(X.verifier_key), "time": "1"}
    assert codes(log.batch([genesis], A).span(X).show(KeyRing(ORIGIN))) == ["key_change_invalid", "wrong_key"]


@pytest.mark.parametrize("change", [{"key": "x"}, {"key": None}, {"time": 1}, {"not_after": "x"}])
def test_a_genesis_that_names_no_key(change: dict[str, Any]) -> None:
    log = Forge(A)
    log.batches[0][0][0].update(change)
    assert codes(log.span(A).show(KeyRing(ORIGIN))) == ["key_change_invalid", "no_key"]


# -- parts of a log --------------------------------------------------------------------------------------------------
def without(log: Forge, *numbers: int) -> Forge:
    log.batches = [batch for number, batch in enumerate(log.batches) if number not in numbers]
    return log


def test_without_its_beginning_a_pinned_key_or_the_next_rotation_names_the_key() -> None:
    def log() -> Forge:
        return without(Forge(A).span(A).span(A).rotate(A, B).span(B), 0)

    for pinned in ([KEYS[0]], [KEYS[1]]):
        ring = KeyRing(ORIGIN, pinned)
        assert log().show(ring) == []
        assert (ring.trust, ring.verified) == ("pinned", 4)
    assert log().show(KeyRing(ORIGIN)) == []
    assert codes(log().show(KeyRing(ORIGIN, [NOBODY]))) == ["wrong_key"]
    assert codes(without(Forge(A).span(A), 0).show(KeyRing(ORIGIN))) == ["no_key"]
    assert codes(without(Forge(A).span(A), 0).show(KeyRing(ORIGIN, [NOBODY]))) == ["wrong_key"]


def test_a_key_that_was_replaced_in_a_part_that_is_gone() -> None:
    said = without(Forge(A).rotate(A, B).span(B).rotate(B, C), 0, 1).show(KeyRing(ORIGIN, [KEYS[0]]))
    assert codes(said) == ["wrong_key"]
    assert "a part of the log that is not there" in said[0][1]


def test_a_missing_checkpoint_of_a_rotation_is_not_said_twice() -> None:
    """Its document is gone, which is a finding of its own; the entry is proven by the next one, and certified."""
    log = Forge(A).rotate(A, B).span(B)
    (entries, *_), following = log.batches[1], log.batches[2]
    ring = KeyRing(ORIGIN, [KEYS[0]])
    said = [*ring.entry(0, log.batches[0][0][0]), *ring.checkpoint(log.batches[0][1], 0, 1, None)]
    said += [*ring.entry(1, entries[0]), *ring.checkpoint(following[1], 2, 3, None), *ring.finish()]
    assert said == []


def test_a_missing_rotation_leaves_checkpoints_by_a_stranger() -> None:
    assert codes(without(Forge(A).rotate(A, B).span(B), 1).show(KeyRing(ORIGIN, [KEYS[0]]))) == ["wrong_key"]


# -- theft -----------------------------------------------------------------------------------------------------------
def stolen(*, revoke: bool = True) -> Forge:
    """A is stolen at 2000; the change to B is at 3000, the revocation at 4000. A signs the sizes 1 to 4."""
    log = Forge(A).span(A)
    log.time = 2_000
    log.span(A)
    log.time = 3_000
    log.rotate(A, B)
    log.time = 4_000
    if revoke:
        log.batch([log.revocation(A, B, since=2_000)], B)
    return log.span(B)


def test_without_a_second_place_nothing_that_a_stolen_key_signed_stands() -> None:
    for pinned in ([KEYS[1]], KEYS[:2], []):
        said = stolen().show(KeyRing(ORIGIN, pinned))
        assert codes(said) == ["key_revoked"], pinned
        assert "tree sizes 1 to 4" in said[0][1]


@pytest.mark.parametrize(
    ("checkpoints", "left"),
    [
        ([(2, 1_500)], "tree sizes 3 to 4"),
        ([(1, 1_500), (2, 1_999)], "tree sizes 3 to 4"),
        ([(4, 2_000)], "tree sizes 1 to 4"),  # seen when it was stolen already
        ([(4, None)], "tree sizes 1 to 4"),  # nobody knows when
        ([(4, 1_999)], None),
        ([(100, 1_999)], None),
    ],
)
def test_what_was_seen_elsewhere_before_the_theft_stands(
    checkpoints: list[tuple[int, int | None]], left: str | None
) -> None:
    said = stolen().show(KeyRing(ORIGIN, [KEYS[1]], covered=coverage(checkpoints)))
    assert codes(said) == (["key_revoked"] if left else [])
    assert left is None or left in said[0][1]


def test_who_trusts_only_the_stolen_key_is_told_to_get_the_new_one() -> None:
    said = stolen().show(KeyRing(ORIGIN, [KEYS[0]]))
    assert codes(said) == ["key_revoked", "key_revoked"]
    assert "Give the key that is used now" in said[1][1]
    said = stolen().show(KeyRing(ORIGIN, [KEYS[0]], covered=coverage([(4, 1_999)])))
    assert said == []
    # Everything before the change was seen elsewhere, but not the change itself.
    said = stolen().show(KeyRing(ORIGIN, [KEYS[0]], covered=coverage([(3, 1_999)])))
    assert codes(said) == ["key_revoked", "key_revoked"]


def test_a_revocation_after_the_change_leaves_what_the_new_key_took_over() -> None:
    """The old key leaks from a backup long after it was replaced: its owner had closed that part before."""

    def log() -> Forge:
        log = Forge(A).span(A).rotate(A, B)
        log.time = 5_000
        return log.batch([log.revocation(A, B, since=4_000)], B).span(B)

    for pinned in ([KEYS[1]], KEYS[:2], []):
        assert log().show(KeyRing(ORIGIN, pinned)) == []
    # Only the leaked key is trusted: with it, all of this can be made up, unless the revocation came by another way.
    assert codes(log().show(KeyRing(ORIGIN, [KEYS[0]]))) == ["key_revoked", "key_revoked"]
    given_file = [Revocation.parse(log().batches[3][0][0])]
    assert log().show(KeyRing(ORIGIN, [KEYS[0]], given_file)) == []


def test_a_pinned_key_that_is_revoked_itself_vouches_for_nobody() -> None:
    log = Forge(A).rotate(A, B).rotate(B, C)
    log.time = 5_000
    entries = [log.revocation(A, C, since=4_000), log.revocation(C, C, since=4_000, index=log.size)]
    said = log.batch(entries, C).show(KeyRing(ORIGIN, [KEYS[2]]))
    assert codes(said) == ["key_revoked"] * 3
    assert "tree sizes 1 to 2" in said[0][1]


def test_a_thief_cannot_talk_a_revocation_away() -> None:
    """The thief shows a log without the owner's change of the key: only A is in it, or a key of the thief's."""
    given_file = [Revocation.parse(stolen().batches[4][0][0])]
    assert given_file[0].key == KEYS[0]
    for forged in (Forge(A).span(A).span(A), Forge(A).span(A).rotate(A, X).span(X)):
        assert set(codes(forged.show(KeyRing(ORIGIN, [KEYS[0]], given_file)))) == {"key_revoked"}
        assert codes(forged.show(KeyRing(ORIGIN, [], given_file))) == ["key_revoked"]
        assert "wrong_key" in codes(forged.show(KeyRing(ORIGIN, [KEYS[1]], given_file)))


def test_a_revocation_file_counts_without_the_entry_and_only_for_its_log() -> None:
    revocation = Revocation.parse(stolen().batches[4][0][0])
    assert codes(stolen(revoke=False).show(KeyRing(ORIGIN, [KEYS[1]], [revocation]))) == ["key_revoked"]
    assert stolen(revoke=False).show(KeyRing(ORIGIN, [KEYS[1]])) == []
    other = Revocation("other", 1, revocation.key, 0, "", revocation.certificate, 0)
    assert stolen(revoke=False).show(KeyRing(ORIGIN, [KEYS[1]], [other])) == []


def test_the_earliest_of_several_revocations_counts() -> None:
    log = stolen()
    log.batch([log.revocation(A, B, since=1_200)], B)
    log.batch([log.revocation(A, B, since=9_000)], B)
    assert codes(log.show(KeyRing(ORIGIN, [KEYS[1]], covered=coverage([(4, 1_500)])))) == ["key_revoked"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda log: log.revocation(A, A, since=1), "not certified by the key that was current"),
        (lambda log: log.revocation(A, X, since=1), "not certified by the key that was current"),
        (lambda log: log.revocation(A, B, since=1, index=50), "for the index 50 or later"),
        (lambda log: log.revocation(A, B, since=1) | {"since": "2"}, "not certified"),
        (lambda log: log.revocation(A, B, since=1) | {"since": 2}, "'since'"),
        (lambda log: log.revocation(A, B, since=1) | {"origin": "other"}, "another log"),
    ],
)
def test_a_revocation_that_is_none_changes_nothing_but_is_said(make: Any, said: str) -> None:
    log = stolen(revoke=False)
    found = log.batch([make(log)], B).show(KeyRing(ORIGIN, [KEYS[1]]))
    assert codes(found) == ["key_change_invalid"]
    assert said in found[0][1]


def test_a_revocation_made_before_another_change_is_certified_by_the_key_of_then() -> None:
    log = stolen(revoke=False)
    entry = log.revocation(A, B, since=2_000)
    log.rotate(B, C)  # the sequencer was faster
    assert codes(log.batch([entry], C).show(KeyRing(ORIGIN, [KEYS[2]]))) == ["key_revoked"]


def test_a_middle_key_that_was_stolen() -> None:
    log = Forge(A).rotate(A, B)
    log.time = 2_000
    log.span(B)
    log.time = 3_000
    log.rotate(B, C)
    log.batch([log.revocation(B, C, since=2_000)], C)
    said = log.show(KeyRing(ORIGIN, [KEYS[2]]))
    assert codes(said) == ["key_revoked"]
    assert "tree sizes 2 to 4" in said[0][1]
    assert codes(log.show(KeyRing(ORIGIN, [KEYS[0]]))) == ["key_revoked", "key_revoked"]
    assert log.show(KeyRing(ORIGIN, [KEYS[0]], covered=coverage([(4, 1_999)]))) == []


def test_a_real_revocation_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "revoked.json"
    path.write_bytes(statements.encode(stolen().batches[4][0][0]) + b"\n")
    assert read_revocation(path).since == 2_000
    for content in (b"", b"{}", b"\xff", b'{"type":"rotation","v":2}', path.read_bytes().replace(b'"2000"', b'"x"')):
        path.write_bytes(content)
        with pytest.raises(KeyFileError, match="is no revocation"):
            read_revocation(path)
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_revocation(tmp_path)


# -- expiry ----------------------------------------------------------------------------------------------------------
def test_an_expired_key_signs_no_later_times() -> None:
    log = Forge(A, not_after=2_000)
    log.time = 1_999
    log.span(A)
    assert log.show(KeyRing(ORIGIN, [KEYS[0]])) == []
    log.time = 2_000
    said = log.span(A).span(A).show(KeyRing(ORIGIN, [KEYS[0]]))
    assert codes(said) == ["key_expired"]
    assert "tree sizes 3 to 4" in said[0][1]


def test_the_expiry_of_a_rotation_counts_and_a_change_in_time_is_green() -> None:
    log = Forge(A).rotate(A, B, not_after=2_000)
    log.time = 1_500
    log.rotate(B, C, not_after=9_000)
    log.time = 5_000
    assert log.span(C).show(KeyRing(ORIGIN, [KEYS[0]])) == []
    late = Forge(A).rotate(A, B, not_after=2_000)
    late.time = 2_001
    assert codes(late.rotate(B, C).span(C).show(KeyRing(ORIGIN, [KEYS[0]]))) == ["key_expired"]


# -- the ring itself -------------------------------------------------------------------------------------------------
def test_the_work_is_done_even_if_nobody_looks_at_what_is_said() -> None:
    log = Forge(A).rotate(A, B).span(B)
    ring = KeyRing(ORIGIN, [KEYS[0]])
    for entries, note, first, size, latest in log.batches:
        for offset, fields in enumerate(entries):
            ring.entry(first + offset, fields)
        ring.checkpoint(note, first, size, latest)
    assert ring.verified == 3


def test_many_checkpoints_by_a_stranger_are_one_finding() -> None:
    log = Forge(A)
    for _ in range(300):
        log.span(X)
    said = log.show(KeyRing(ORIGIN, [KEYS[0]]))
    assert codes(said) == ["wrong_key"]
    assert said[0][1].startswith("300 checkpoints, of the tree sizes 2 to 301")


def test_nothing_at_all_says_nothing() -> None:
    ring = KeyRing(ORIGIN, [KEYS[0]])
    assert list(ring.finish()) == []
    assert ring.trust == "none"
