# SPDX-License-Identifier: Apache-2.0
"""Notes, trees and proofs beside an implementation that shares nothing with ours: the Go checksum database's.

The program in ``interop/`` answers with golang.org/x/mod/sumdb/note and tlog. Each side checks what the other made, and
both must refuse what was altered.
"""

from __future__ import annotations

import base64
import functools
import json
import random
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.merkle import EMPTY_ROOT, Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import MAX_SIZE, consistency, inclusion, verify_consistency, verify_inclusion
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from tests.seal.go import build, go_command
from tests.seal.mutator import Mutator
from tests.seal.test_proof import uniform_path, uniform_root, uniform_subproof

pytestmark = pytest.mark.slow

SEED = 6962
TREES = 1200
ORIGIN = "go.sum database tree"  # the one origin that Go's own checkpoint reader takes
NAMES = ("host/auditspan/1", "example.com/log", "ключ", "a—b", "x")

Question = dict[str, Any]
Answer = dict[str, Any]
Ask = Callable[[Sequence[Question]], list[Answer]]


@pytest.fixture(scope="module")
def ask() -> Ask:
    program = build("interop")

    def ask(questions: Sequence[Question]) -> list[Answer]:
        lines = "".join(json.dumps(question) + "\n" for question in questions)
        done = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(questions)
        return answers

    return ask


@dataclass(frozen=True)
class Inclusion:
    """A claim that an entry is in a tree, right or wrong."""

    index: int
    size: int
    leaf: bytes
    root: bytes
    proof: tuple[bytes, ...]

    def holds(self) -> bool:
        try:
            return verify_inclusion(self.index, self.size, self.leaf, self.root, self.proof)
        except FormatError:
            return False

    def question(self) -> Question:
        return {
            "op": "check inclusion", "index": self.index, "size": self.size,
            "leaf": b64(self.leaf), "root": b64(self.root), "proof": [b64(item) for item in self.proof],
        }  # fmt: skip


@dataclass(frozen=True)
class Growth:
    """A claim that a tree begins another, right or wrong."""

    first: int
    size: int
    first_root: bytes
    root: bytes
    proof: tuple[bytes, ...]

    def holds(self) -> bool:
        try:
            return verify_consistency(self.first, self.size, self.first_root, self.root, self.proof)
        except FormatError:
            return False

    def question(self) -> Question:
        return {
            "op": "check consistency", "first": self.first, "size": self.size,
            "first_root": b64(self.first_root), "root": b64(self.root), "proof": [b64(item) for item in self.proof],
        }  # fmt: skip


@dataclass(frozen=True)
class Signed:
    """A claim that a note is signed by a key, right or wrong."""

    key: VerifierKey
    note: bytes

    def holds(self) -> bool:
        try:
            return Note.parse(self.note.decode()).signed_by(self.key) is True
        except (FormatError, UnicodeDecodeError):
            return False

    def question(self) -> Question:
        return {"op": "check note", "vkey": str(self.key), "note": b64(self.note)}


Claim = Inclusion | Growth | Signed


@dataclass(frozen=True)
class Tree:
    """A random tree with the checkpoint and the two proofs that we make of it; of the empty one there are none."""

    entries: tuple[bytes, ...]
    signed: Signed
    inclusion: Inclusion | None
    growth: Growth | None

    @property
    def root(self) -> bytes:
        return root_of([leaf_hash(entry) for entry in self.entries])

    def question(self) -> Question:
        return {
            "op": "prove", "entries": [b64(entry) for entry in self.entries],
            "index": self.inclusion.index if self.inclusion else -1,
            "first": self.growth.first if self.growth else -1,
        }  # fmt: skip

    def claims(self) -> list[Claim]:
        return [claim for claim in (self.signed, self.inclusion, self.growth) if claim is not None]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def root_of(leaves: Iterable[bytes]) -> bytes:
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def make_tree(size: int, chance: random.Random) -> Tree:
    # The number makes entries differ: of two that are the same, the proof of one is that of the other.
    entries = tuple(b"%d" % number + chance.randbytes(chance.randrange(40)) for number in range(size))
    leaves = [leaf_hash(entry) for entry in entries]
    root = root_of(leaves)
    signer = KeyFileSigner(Ed25519PrivateKey.from_private_bytes(chance.randbytes(32)), chance.choice(NAMES))
    note = str(sign_checkpoint(signer, Checkpoint(ORIGIN, size, root))).encode()
    signed = Signed(signer.verifier_key, note)
    if not size:
        return Tree(entries, signed, None, None)
    index, first = chance.randrange(size), chance.randint(1, size)
    return Tree(
        entries,
        signed,
        Inclusion(index, size, leaves[index], root, inclusion(leaves, index)),
        Growth(first, size, root_of(leaves[:first]), root, consistency(leaves, first)),
    )


@functools.cache
def trees() -> list[Tree]:
    chance = random.Random(SEED)
    sizes = sorted({0, *range(34), *(2**k + more for k in range(1, 12) for more in (-1, 0, 1))})
    sizes += [int(2 ** chance.uniform(0, 10)) for _ in range(TREES - len(sizes))]
    return [make_tree(size, chance) for size in sizes]


def flip(data: bytes, chance: random.Random, avoid: int | None = None) -> bytes:
    """Alter one bit, not in the byte at `avoid`."""
    at = chance.choice([place for place in range(len(data)) if place != avoid])
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def alter(claim: Claim, chance: random.Random) -> Claim:
    """Alter one bit of all that the claim consists of, except of its numbers."""
    if isinstance(claim, Signed):
        # The last digit before "=" has bits that mean nothing: Go ignores them, test_go_is_looser_about_base64.
        return replace(claim, note=flip(claim.note, chance, avoid=len(claim.note) - 3))
    at = chance.randrange(len(claim.proof) + 2)
    if at < len(claim.proof):
        return replace(claim, proof=(*claim.proof[:at], flip(claim.proof[at], chance), *claim.proof[at + 1 :]))
    if at == len(claim.proof):
        return replace(claim, root=flip(claim.root, chance))
    if isinstance(claim, Inclusion):
        return replace(claim, leaf=flip(claim.leaf, chance))
    return replace(claim, first_root=flip(claim.first_root, chance))


def assert_both(ask: Ask, claims: Sequence[Claim], expected: bool) -> None:
    for claim, answer in zip(claims, ask([claim.question() for claim in claims]), strict=True):
        assert answer["ok"] is expected, (claim, answer)
        assert claim.holds() is expected, claim


def test_there_are_enough_trees_of_all_shapes() -> None:
    sizes = [len(tree.entries) for tree in trees()]
    ragged = {0, 1, *(2**k + more for k in range(12) for more in (-1, 0, 1))}
    assert ragged <= set(sizes)
    assert len(sizes) - len(set(sizes) & ragged) >= 1000, "trees of random sizes"
    claims = [type(claim) for tree in trees() for claim in tree.claims()]
    counts = {kind.__name__: claims.count(kind) for kind in (Signed, Inclusion, Growth)}
    assert counts == {"Signed": TREES, "Inclusion": TREES - 1, "Growth": TREES - 1}  # of the empty tree no proofs


def test_go_builds_the_same_trees_and_makes_the_same_proofs(ask: Ask) -> None:
    for tree, answer in zip(trees(), ask([tree.question() for tree in trees()]), strict=True):
        assert answer["ok"], answer
        root = base64.b64decode(answer["root"])
        assert root == tree.root
        if tree.inclusion is None or tree.growth is None:
            assert root == EMPTY_ROOT
            continue
        by_go = replace(tree.inclusion, root=root, proof=tuple(map(base64.b64decode, answer["inclusion"])))
        assert by_go.holds()
        assert by_go == tree.inclusion
        grown = replace(tree.growth, root=root, proof=tuple(map(base64.b64decode, answer["consistency"])))
        assert grown.holds()
        assert grown == tree.growth


def test_go_accepts_our_notes_and_proofs(ask: Ask) -> None:
    assert_both(ask, [claim for tree in trees() for claim in tree.claims()], True)


def test_go_reads_our_checkpoints(ask: Ask) -> None:
    for tree, answer in zip(trees(), ask([tree.signed.question() for tree in trees()]), strict=True):
        assert answer["ok"], answer
        assert (answer.get("size", 0), answer["root"]) == (len(tree.entries), b64(tree.root))
        assert answer["text"] == f"{ORIGIN}\n{len(tree.entries)}\n{b64(tree.root)}\n"


def test_notes_and_checkpoints_of_go_verify_here(ask: Ask) -> None:
    chance = random.Random(SEED + 1)
    questions: list[Question] = [
        {"op": "sign", "name": chance.choice(NAMES), "size": len(tree.entries), "root": b64(tree.root)}
        for tree in trees()
    ]
    claims = []
    for tree, answer in zip(trees(), ask(questions), strict=True):
        assert answer["ok"], answer
        key, note = VerifierKey.parse(answer["vkey"]), base64.b64decode(answer["note"])
        assert str(key) == answer["vkey"]
        assert str(Note.parse(note.decode())).encode() == note
        assert Checkpoint.parse(Note.parse(note.decode()).text) == Checkpoint(ORIGIN, len(tree.entries), tree.root)
        claims.append(Signed(key, note))
    assert_both(ask, claims, True)
    assert_both(ask, [alter(claim, chance) for claim in claims], False)


@pytest.mark.parametrize(
    "text", ["one line\n", "a\n\nb\n", "a\n\n\n", "\n\n\n", "ünïcode — \U0001f40d\n", "— x y\n", "\n", "\x7f\u2028\n"]
)
def test_notes_of_any_text_go_both_ways(ask: Ask, text: str) -> None:
    (answer,) = ask([{"op": "sign", "name": "example.com/log", "text": text}])
    assert answer["ok"], answer
    note = Note.parse(base64.b64decode(answer["note"]).decode())
    assert note.text == text
    assert note.signed_by(VerifierKey.parse(answer["vkey"])) is True
    signer = KeyFileSigner(Ed25519PrivateKey.generate(), "example.com/log")
    key = signer.verifier_key
    ours = Note(text, ((key.name, key.key_id, signer.sign(text.encode())),))
    assert_both(ask, [Signed(key, str(ours).encode())], True)


def test_a_note_with_signatures_of_others_verifies_by_each_key(ask: Ask) -> None:
    signers = [KeyFileSigner(Ed25519PrivateKey.generate(), name) for name in NAMES]
    text = Checkpoint(ORIGIN, 1, EMPTY_ROOT).text()
    keys = [signer.verifier_key for signer in signers]
    signatures = [(key.name, key.key_id, signer.sign(text.encode())) for key, signer in zip(keys, signers, strict=True)]
    note = str(Note(text, tuple(signatures))).encode()
    stranger = KeyFileSigner(Ed25519PrivateKey.generate(), NAMES[0]).verifier_key
    assert_both(ask, [Signed(key, note) for key in keys], True)
    assert_both(ask, [Signed(stranger, note)], False)


def test_neither_accepts_anything_with_one_bit_altered(ask: Ask) -> None:
    chance = random.Random(SEED + 2)
    claims = [alter(claim, chance) for tree in trees() for claim in tree.claims() for _ in range(4)]
    assert_both(ask, claims, False)


def test_neither_accepts_a_proof_of_another_length_or_order(ask: Ask) -> None:
    claims: list[Claim] = []
    for tree in trees():
        for claim in (tree.inclusion, tree.growth):
            if claim is None:
                continue
            claims.append(replace(claim, proof=(*claim.proof, claim.root)))
            if claim.proof:
                claims.append(replace(claim, proof=claim.proof[1:]))
                claims.append(replace(claim, proof=claim.proof[:-1]))
            if len(claim.proof) > 1:
                claims.append(replace(claim, proof=claim.proof[::-1]))
    assert_both(ask, claims, False)


def test_neither_accepts_another_index_or_smaller_tree(ask: Ask) -> None:
    claims: list[Claim] = []
    for tree in trees():
        if tree.inclusion is None or tree.growth is None:
            continue
        size, index, first = len(tree.entries), tree.inclusion.index, tree.growth.first
        others = {-1, 0, index - 1, index + 1, index ^ 1, size - 1, size} - {index}
        claims += [replace(tree.inclusion, index=other) for other in others]
        others = {-1, 0, 1, first - 1, first + 1, size, size + 1} - {first}
        claims += [replace(tree.growth, first=other) for other in others]
    assert_both(ask, claims, False)


def test_both_judge_other_sizes_alike(ask: Ask) -> None:
    """A proof does not bind the size (formats/proof.py): there are sizes that both accept, and no other ones."""
    claims: list[Claim] = []
    for tree in trees():
        size = len(tree.entries)
        others = {0, 1, size - 1, size + 1, size * 2, 1 << size.bit_length(), MAX_SIZE} - {size}
        for claim in (tree.inclusion, tree.growth):
            if claim is not None:
                claims += [replace(claim, size=other) for other in others]
    verdicts = [answer["ok"] for answer in ask([claim.question() for claim in claims])]
    assert verdicts == [claim.holds() for claim in claims]
    assert {True, False} == set(verdicts)


def test_neither_proves_anything_of_the_empty_tree(ask: Ask) -> None:
    assert_both(
        ask,
        [
            Inclusion(0, 0, EMPTY_ROOT, EMPTY_ROOT, ()),
            Growth(0, 0, EMPTY_ROOT, EMPTY_ROOT, ()),
            Growth(0, 1, EMPTY_ROOT, leaf_hash(b""), ()),
        ],
        False,
    )
    for answer in ask([{"op": "prove", "index": 0, "first": -1}, {"op": "prove", "index": -1, "first": 0}]):
        assert answer["ok"] is False


def test_both_accept_proofs_of_the_largest_trees(ask: Ask) -> None:
    chance = random.Random(SEED + 3)
    sizes = [MAX_SIZE, MAX_SIZE - 1, *(chance.randrange(2**32, MAX_SIZE) for _ in range(50))]
    claims: list[Claim] = []
    for size in sizes:
        for number in (0, size - 2, chance.randrange(size - 1)):
            first, root = number + 1, uniform_root(size)
            claims.append(Inclusion(number, size, uniform_root(1), root, uniform_path(number, size)))
            claims.append(Growth(first, size, uniform_root(first), root, uniform_subproof(first, size)))
    assert_both(ask, claims, True)
    assert_both(ask, [alter(claim, chance) for claim in claims], False)


def test_no_note_is_taken_here_that_go_refuses(ask: Ask) -> None:
    """Notes altered in any way. Go takes a few more, for the two reasons that are known, and no other."""
    seeds = [tree.signed for tree in trees()[:20]]
    claims = []
    for number, seed in enumerate(seeds):
        mutator = Mutator(SEED + number, [seed.note, seeds[number - 1].note], limit=5000)
        claims += [replace(seed, note=mutator.next()) for _ in range(500)]
    taken = 0
    for claim, answer in zip(claims, ask([claim.question() for claim in claims]), strict=True):
        if claim.holds():
            assert answer["ok"], claim
            taken += 1
        elif answer["ok"]:
            lines = claim.note.decode().rpartition("\n\n")[2].splitlines()
            encoded = [line.rpartition(" ")[2] for line in lines]
            loose = any(b64(base64.b64decode(item)) != item for item in encoded)
            assert loose or len(set(lines)) > 1, claim  # base64 (next test), or a second signature that is not valid
    assert taken


def test_go_is_looser_about_base64(ask: Ask) -> None:
    """A known difference: bits of the last base64 digit that mean nothing. We take one spelling only."""
    signed = trees()[0].signed
    at = len(signed.note) - 3
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = bytes([digits[digits.index(signed.note[at]) | 1]])
    loose = replace(signed, note=signed.note[:at] + other + signed.note[at + 1 :])
    assert loose != signed
    (answer,) = ask([loose.question()])
    assert answer["ok"] is True
    assert not loose.holds()


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_go_it_is_said(monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="Install Go"):
        go_command()
