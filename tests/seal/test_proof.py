# SPDX-License-Identifier: Apache-2.0
"""Proofs: against the recursive definitions of RFC 6962 and published answers, and against everything altered."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from auditspan_seal.errors import FormatError, MalformedNote, MalformedTree
from auditspan_seal.formats.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.formats.proof import (
    MAX_PROOF,
    MAX_SIZE,
    TlogProof,
    consistency,
    inclusion,
    verify_consistency,
    verify_inclusion,
)
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from tests.seal.test_formats import recursive_root

EXHAUSTIVE = range(71)
Hashes = tuple[bytes, ...]

SIGNER = KeyFileSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "example.com/log")


def leaves(size: int) -> list[bytes]:
    return [leaf_hash(b"entry %d" % number) for number in range(size)]


def root_of(hashes: Sequence[bytes]) -> bytes:
    tree = Frontier()
    for leaf in hashes:
        tree.append(leaf)
    return tree.root()


def split(size: int) -> int:
    """The largest power of two smaller than `size`, RFC 6962 §2.1."""
    return 1 << ((size - 1).bit_length() - 1)


def path(index: int, hashes: list[bytes]) -> Hashes:
    """The definition, RFC 6962 §2.1.1, word for word."""
    if len(hashes) == 1:
        return ()
    k = split(len(hashes))
    if index < k:
        return (*path(index, hashes[:k]), recursive_root(hashes[k:]))
    return (*path(index - k, hashes[k:]), recursive_root(hashes[:k]))


def subproof(first: int, hashes: list[bytes], whole: bool = True) -> Hashes:
    """The definition, RFC 6962 §2.1.2, word for word."""
    if first == len(hashes):
        return () if whole else (recursive_root(hashes),)
    k = split(len(hashes))
    if first <= k:
        return (*subproof(first, hashes[:k], whole), recursive_root(hashes[k:]))
    return (*subproof(first - k, hashes[k:], False), recursive_root(hashes[:k]))


def turns(index: int, size: int) -> str:
    """The way down to a leaf: all that an inclusion proof depends on."""
    if size == 1:
        return ""
    k = split(size)
    return "L" + turns(index, k) if index < k else "R" + turns(index - k, size - k)


def flips(item: bytes, step: int = 37) -> Iterator[bytes]:
    """The item with one bit altered, for some of its bits."""
    for bit in range(0, len(item) * 8, step):
        yield bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(item))


def altered(proof: Hashes) -> Iterator[Hashes]:
    """The proof with a bit altered, a hash added, left out, doubled, or two in the other order."""
    for at, item in enumerate(proof):
        yield from ((*proof[:at], other, *proof[at + 1 :]) for other in flips(item))
        yield proof[:at] + proof[at + 1 :]
        yield (*proof[: at + 1], item, *proof[at + 1 :])
    yield (*proof, bytes(32))
    yield (bytes(32), *proof)
    for at in range(len(proof) - 1):
        yield (*proof[:at], proof[at + 1], proof[at], *proof[at + 2 :])


def test_every_entry_of_every_small_tree_is_proven_as_defined() -> None:
    for size in EXHAUSTIVE:
        tree = leaves(size)
        root = root_of(tree)
        for index in range(size):
            proof = inclusion(tree, index)
            assert proof == path(index, tree)
            assert verify_inclusion(index, size, tree[index], root, proof)


def test_every_small_tree_begins_every_larger_one_as_defined() -> None:
    roots = [root_of(leaves(size)) for size in EXHAUSTIVE]
    for second in EXHAUSTIVE:
        tree = leaves(second)
        for first in range(1, second + 1):
            proof = consistency(tree, first)
            assert proof == subproof(first, tree)
            assert verify_consistency(first, second, roots[first], roots[second], proof)


def test_nothing_altered_proves_an_entry() -> None:
    for size in range(1, 20):
        tree = leaves(size)
        root = root_of(tree)
        for index, leaf in enumerate(tree):
            proof = inclusion(tree, index)
            for wrong in altered(proof):
                assert not verify_inclusion(index, size, leaf, root, wrong)
            for wrong_hash in (*flips(leaf), *flips(root), bytes(32), EMPTY_ROOT):
                assert not verify_inclusion(index, size, wrong_hash, root, proof)
                assert not verify_inclusion(index, size, leaf, wrong_hash, proof)
            for other in set(range(size)) - {index}:
                assert not verify_inclusion(other, size, leaf, root, proof)
                assert not verify_inclusion(index, size, tree[other], root, proof)


def test_nothing_altered_proves_that_a_tree_begins_another() -> None:
    roots = [root_of(leaves(size)) for size in range(20)]
    for second in range(1, 20):
        for first in range(1, second + 1):
            proof, old, new = consistency(leaves(second), first), roots[first], roots[second]
            for wrong in altered(proof):
                assert not verify_consistency(first, second, old, new, wrong)
            for wrong_hash in (*flips(old), *flips(new), bytes(32), EMPTY_ROOT):
                assert not verify_consistency(first, second, wrong_hash, new, proof)
                assert not verify_consistency(first, second, old, wrong_hash, proof)


def test_a_size_other_than_that_of_the_checkpoint_does_not_fit_its_root() -> None:
    roots = [root_of(leaves(size)) for size in range(34)]
    for size, other in itertools.product(range(1, 34), repeat=2):
        tree = leaves(size)
        for index in range(min(size, other)):
            verified = verify_inclusion(index, other, tree[index], roots[other], inclusion(tree, index))
            assert verified is (size == other)
        for first in range(1, min(size, other) + 1):
            if first == size:
                continue  # its proof is empty, and true of that size only
            verified = verify_consistency(first, other, roots[first], roots[other], consistency(tree, first))
            assert verified is (size == other)


def test_a_proof_holds_for_another_place_only_if_the_way_there_is_the_same() -> None:
    """Known and documented: the size is not bound. Nothing else gets by, whatever index and size are claimed."""
    for size in range(1, 18):
        tree = leaves(size)
        root = root_of(tree)
        for index, (other_size, other) in itertools.product(range(size), itertools.product(range(1, 18), range(17))):
            if other < other_size:
                verified = verify_inclusion(other, other_size, tree[index], root, inclusion(tree, index))
                assert verified is (turns(other, other_size) == turns(index, size))
    assert turns(0, 3) == turns(0, 4)


def roots_by(proof: Hashes, first: int, size: int, old: bytes, whole: bool = True) -> tuple[bytes, bytes] | None:
    """What a consistency proof makes of both roots, by the recursive definition; None if it is of a wrong length."""
    if first == size:
        known = (old,) if whole else proof
        return (known[0], known[0]) if len(proof) == (0 if whole else 1) else None
    if not proof:
        return None
    k = split(size)
    if first <= k:
        below = roots_by(proof[:-1], first, k, old, whole)
        return below and (below[0], node_hash(below[1], proof[-1]))
    below = roots_by(proof[:-1], first - k, size - k, old, False)
    return below and (node_hash(proof[-1], below[0]), node_hash(proof[-1], below[1]))


def test_growth_between_other_sizes_is_judged_as_defined() -> None:
    roots = [root_of(leaves(size)) for size in range(14)]
    sizes = [(first, second) for second in range(1, 14) for first in range(1, second + 1)]
    for first, second in sizes:
        proof = consistency(leaves(second), first)
        for other_first, other_second in sizes:
            verified = verify_consistency(other_first, other_second, roots[first], roots[second], proof)
            expected = roots_by(proof, other_first, other_second, roots[first])
            assert verified is (expected == (roots[first], roots[second]))


def test_an_entry_cannot_lie_deeper_than_the_tree_is_high() -> None:
    one, two = leaves(2)
    assert not verify_inclusion(0, 1, two, root_of([one, two]), [one])
    assert not verify_consistency(1, 2, one, node_hash(two, root_of([one, two])), [two, two])


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_larger_trees(data: st.DataObject) -> None:
    size = data.draw(st.integers(71, 3000))
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size))
    tree = leaves(size)
    root, old = root_of(tree), root_of(tree[:first])
    proof, growth = inclusion(tree, index), consistency(tree, first)
    assert proof == path(index, tree)
    assert growth == subproof(first, tree)
    assert verify_inclusion(index, size, tree[index], root, proof)
    assert verify_consistency(first, size, old, root, growth)
    other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index))
    assert not verify_inclusion(other, size, tree[index], root, proof)
    other = data.draw(st.integers(1, size).filter(lambda number: number != first))
    assert not verify_consistency(other, size, old, root, growth)
    assert not verify_inclusion(index, size, tree[index], root, data.draw(st.sampled_from([*altered(proof)])))
    assert not verify_consistency(first, size, old, root, data.draw(st.sampled_from([*altered(growth)])))


@settings(deadline=None)
@given(st.integers(2, 300), st.data())
def test_a_rewritten_history_is_not_consistent(size: int, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, size))
    changed = data.draw(st.integers(0, first - 1))
    tree = leaves(size)
    old = root_of(tree[:first])
    tree[changed] = leaf_hash(b"rewritten")
    assert not verify_consistency(first, size, old, root_of(tree), consistency(tree, first))


@functools.cache
def uniform_root(size: int) -> bytes:
    """Root of a tree whose entries are all the same: can be computed for any size."""
    return leaf_hash(b"same") if size == 1 else node_hash(uniform_root(split(size)), uniform_root(size - split(size)))


def uniform_path(index: int, size: int) -> Hashes:
    if size == 1:
        return ()
    k = split(size)
    if index < k:
        return (*uniform_path(index, k), uniform_root(size - k))
    return (*uniform_path(index - k, size - k), uniform_root(k))


def uniform_subproof(first: int, size: int, whole: bool = True) -> Hashes:
    if first == size:
        return () if whole else (uniform_root(size),)
    k = split(size)
    if first <= k:
        return (*uniform_subproof(first, k, whole), uniform_root(size - k))
    return (*uniform_subproof(first - k, size - k, False), uniform_root(k))


@given(st.integers(2**40, MAX_SIZE) | st.integers(MAX_SIZE - 3, MAX_SIZE), st.data())
def test_the_largest_trees_keep_the_bound(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    first = data.draw(st.integers(1, size) | st.just(size - 1))
    root, proof, growth = uniform_root(size), uniform_path(index, size), uniform_subproof(first, size)
    assert len(proof) <= MAX_PROOF
    assert len(growth) <= MAX_PROOF
    assert verify_inclusion(index, size, uniform_root(1), root, proof)
    assert verify_consistency(first, size, uniform_root(first), root, growth)
    for wrong in altered(proof):
        assert wrong == proof or not verify_inclusion(index, size, uniform_root(1), root, wrong)


def test_the_bound_is_reached() -> None:
    assert len(uniform_subproof(MAX_SIZE - 1, MAX_SIZE)) == MAX_PROOF
    assert len(uniform_subproof(MAX_SIZE + 1, MAX_SIZE + 2)) < len(uniform_subproof(MAX_SIZE - 1, MAX_SIZE + 1))
    assert len(uniform_subproof(MAX_SIZE - 1, MAX_SIZE + 1)) > MAX_PROOF


def test_the_example_of_rfc_6962() -> None:
    # §2.1.3: a tree of 7 entries, a to j its leaves, the rest as drawn there.
    a, b, c, d, e, f, j = tree = leaves(7)
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, m = node_hash(g, h), node_hash(i, j)
    assert root_of(tree) == node_hash(k, m)
    assert inclusion(tree, 0) == (b, h, m)
    assert inclusion(tree, 3) == (c, g, m)
    assert inclusion(tree, 4) == (f, j, k)
    assert inclusion(tree, 6) == (i, k)
    assert consistency(tree, 3) == (c, d, g, m)
    assert consistency(tree, 4) == (m,)
    assert consistency(tree, 6) == (i, j, k)


def test_known_answers_of_certificate_transparency() -> None:
    # Test vectors of the reference implementation of RFC 6962 (merkle tree tests, 8 inputs), leaves counted from 0.
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = [leaf_hash(bytes.fromhex(item)) for item in inputs]
    assert [item.hex() for item in inclusion(tree, 0)] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ]
    assert [item.hex() for item in inclusion(tree, 5)] == [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [item.hex() for item in inclusion(tree[:3], 2)] == [
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    ]
    assert [item.hex() for item in consistency(tree, 6)] == [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ]
    assert [item.hex() for item in consistency(tree[:5], 2)] == [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ]


HASH = bytes(32)
TOO_LONG = [HASH] * (MAX_PROOF + 1)


def test_what_cannot_be_a_tree_or_a_proof_is_refused() -> None:
    for index, size in [(0, 0), (-1, 1), (1, 1), (5, 3), (0, -1), (0, MAX_SIZE + 1), (MAX_SIZE, MAX_SIZE + 1)]:
        with pytest.raises(MalformedTree):
            verify_inclusion(index, size, HASH, HASH, [])
    for first, second in [(0, 0), (0, 5), (-1, 5), (6, 5), (1, MAX_SIZE + 1)]:
        with pytest.raises(MalformedTree):
            verify_consistency(first, second, HASH, HASH, [])
    for tree, index in [([], 0), (leaves(3), 3), (leaves(3), -1), ([HASH, b"short"], 0), ([HASH + b"x"], 0)]:
        with pytest.raises(MalformedTree):
            inclusion(tree, index)
    for tree, first in [([], 0), (leaves(3), 0), (leaves(3), 4), ([HASH, b"short"], 1), ([HASH, b""], 2)]:
        with pytest.raises(MalformedTree):
            consistency(tree, first)


@pytest.mark.parametrize("proof", [TOO_LONG, [HASH, b""], [HASH[:31]], [HASH + b"x"]])
def test_what_cannot_be_hashes_is_refused(proof: list[bytes]) -> None:
    with pytest.raises(MalformedTree):
        verify_inclusion(0, MAX_SIZE, HASH, HASH, proof)
    with pytest.raises(MalformedTree):
        verify_consistency(1, MAX_SIZE, HASH, HASH, proof)


@pytest.mark.parametrize("wrong", [b"", HASH[:31], HASH + b"x"])
def test_leaves_and_roots_that_are_no_hashes_are_refused(wrong: bytes) -> None:
    for leaf, root in [(wrong, HASH), (HASH, wrong)]:
        with pytest.raises(MalformedTree):
            verify_inclusion(0, 1, leaf, root, [])
        with pytest.raises(MalformedTree):
            verify_consistency(1, 1, leaf, root, [])


@given(st.integers(), st.integers(), st.binary() | st.just(HASH), st.lists(st.binary() | st.just(HASH)))
def test_only_typed_errors_leave_the_proofs(one: int, other: int, root: bytes, hashes: list[bytes]) -> None:
    with contextlib.suppress(MalformedTree):
        assert verify_inclusion(one, other, HASH, root, hashes) in (True, False)
    with contextlib.suppress(MalformedTree):
        assert verify_consistency(one, other, HASH, root, hashes) in (True, False)
    with contextlib.suppress(MalformedTree):
        inclusion(hashes, one)
    with contextlib.suppress(MalformedTree):
        consistency(hashes, one)


def signed(size: int, root: bytes) -> str:
    return str(sign_checkpoint(SIGNER, Checkpoint("example.com/log", size, root)))


def tlog_proof(size: int, index: int, extra: bytes = b"") -> TlogProof:
    tree = leaves(size)
    return TlogProof(index, inclusion(tree, index), signed(size, root_of(tree)), extra)


ONE = str(tlog_proof(1, 0))
NOTE = tlog_proof(1, 0).note
B64 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@given(st.integers(1, 70), st.binary(max_size=100), st.data())
def test_a_proof_comes_back_as_text_and_verifies(size: int, extra: bytes, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = tlog_proof(size, index, extra)
    again = TlogProof.parse(str(proof))
    assert again == proof
    assert str(again) == str(proof)
    assert Note.parse(again.note).signed_by(SIGNER.verifier_key) is True
    assert again.includes(leaves(size)[index])
    assert not again.includes(leaf_hash(b"another"))


def test_the_text_is_that_of_c2sp() -> None:
    note = signed(3, root_of([HASH, HASH, HASH]))
    proof = TlogProof(0, (HASH, b"\xff" * 32), note, b"age")
    assert str(proof) == (
        f"c2sp.org/tlog-proof@v1\nextra YWdl\nindex 0\n{B64}\n//////////////////////////////////////////8=\n\n{note}"
    )
    assert f"c2sp.org/tlog-proof@v1\nindex 0\n\n{NOTE}" == ONE


def test_cosignatures_and_extension_lines_stay_as_they_are() -> None:
    proof = tlog_proof(5, 2)
    cosigned = str(proof) + "— witness.example AAAAAAAA\n"
    assert str(TlogProof.parse(cosigned)) == cosigned
    extended = Note(Note.parse(proof.note).text + "extension\n", Note.parse(proof.note).signatures)
    assert TlogProof(2, proof.hashes, str(extended)).checkpoint().size == 5


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "\n\n", NOTE, "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v1\n\n", ONE.replace("@v1", "@v2"),
        ONE.replace("\n", "\r\n"), " " + ONE, "\ufeff" + ONE, ONE[:-1], ONE + "\n", ONE + "x",
        ONE.replace("@v1\n", "@v1 \n"), ONE.replace("index 0\n", ""), ONE.replace("index 0\n", "\nindex 0\n"),
        ONE.replace("index 0", "index  0"), ONE.replace("index 0", "index 00"), ONE.replace("index 0", "index -0"),
        ONE.replace("index 0", "index +0"), ONE.replace("index 0", "index \u0660"), ONE.replace("index 0", "index "),
        ONE.replace("index 0", "index 0_0"), ONE.replace("index 0", "index 0 "), ONE.replace("index 0", "index\t0"),
        ONE.replace("index 0", "index 1"), ONE.replace("index 0", "index " + "9" * 5000), ONE.replace("index", "Index"),
        ONE.replace("index 0", "extra \nindex 0"), ONE.replace("index 0", "extra YQ\nindex 0"),
        ONE.replace("index 0", "extra\nindex 0"), ONE.replace("index 0", "extra YR==\nindex 0"),
        ONE.replace("index 0", "extra YQ==\nextra YQ==\nindex 0"), ONE.replace("index 0", "index 0\nextra YQ=="),
        ONE.replace("index 0", "extra YW Fh\nindex 0"),
        ONE.replace("index 0", "extra " + "AAAA" * 400_000 + "\nindex 0"),
        ONE.replace("index 0", f"index 0\n{B64[:-2]}B="), ONE.replace("index 0", f"index 0\n{B64[:-1]}"),
        ONE.replace("index 0", "index 0\nAAAA"), ONE.replace("index 0", f"index 0\n{B64} "),
        ONE.replace("index 0", "index 0" + f"\n{B64}" * (MAX_PROOF + 1)),
        ONE.replace("index 0", f"index 0\n{B64[:-1]}\u0661"),
        ONE.replace("example.com/log\n1\n", "example.com/log\n01\n"),
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_malformed_proof_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        TlogProof.parse(text)


def test_a_text_that_is_far_too_long_is_refused_before_it_is_looked_at() -> None:
    with pytest.raises(MalformedTree, match="longer than"):
        TlogProof.parse(ONE + "A" * 3_000_000)


def test_as_many_hashes_as_possible_are_read() -> None:
    assert len(TlogProof.parse(ONE.replace("index 0", "index 0" + f"\n{B64}" * MAX_PROOF)).hashes) == MAX_PROOF


def test_a_proof_that_could_not_be_read_back_is_not_made() -> None:
    with pytest.raises(MalformedTree):
        TlogProof(1, (), NOTE)
    with pytest.raises(MalformedTree):
        TlogProof(0, (b"short",), NOTE)
    with pytest.raises(MalformedTree):
        TlogProof(0, tuple(TOO_LONG), NOTE)
    with pytest.raises(MalformedTree):
        TlogProof(0, (), NOTE, bytes(1_000_001))
    with pytest.raises(MalformedNote):
        TlogProof(0, (), "no note\n")


PIECES = st.sampled_from([
    "c2sp.org/tlog-proof@v1\n", "extra ", "extra YQ==\n", "index ", "index 0\n", "0\n", "\n", "\n\n", B64 + "\n",
    NOTE, "example.com/log\n", "1\n", "— ", "AAAAAAAA\n", "\u2028", "\ud800", "\x00",
])  # fmt: skip


@given(st.text() | st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join))
def test_only_typed_errors_leave_the_text_parser(text: str) -> None:
    for candidate in (text, "c2sp.org/tlog-proof@v1\nindex 0\n" + text, ONE.removesuffix(NOTE) + text):
        try:
            proof = TlogProof.parse(candidate)
        except FormatError:
            continue
        assert str(proof) == candidate


@given(st.data())
def test_a_changed_character_is_refused_or_seen(data: st.DataObject) -> None:
    text = str(tlog_proof(6, 3, b"extra"))
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("\n 0Aa=—+/é") | st.characters(codec="utf-8"))
    changed = text[:at] + other + text[at + 1 :]
    try:
        proof = TlogProof.parse(changed)
        signed = Note.parse(proof.note).signed_by(SIGNER.verifier_key) is True
    except FormatError:
        return
    unchanged = changed == text or proof.extra != b"extra"  # extra data is not authenticated
    assert (signed and proof.includes(leaves(6)[3])) is unchanged
