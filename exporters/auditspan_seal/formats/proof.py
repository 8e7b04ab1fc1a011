# SPDX-License-Identifier: Apache-2.0
"""Proofs: that a log has an entry, that a log still has all it once had, and the text form to hand one over in.

Proofs are those of RFC 6962 §2.1.1 and §2.1.2, checked as RFC 9162 §2.1.3.2 and §2.1.4.2 say; the text form is
https://c2sp.org/tlog-proof.

A proof ties hashes to a root, no more. The tree size is not bound by it: the proof for entry 0 of 3 also verifies
for entry 0 of 4 under the same root. Take size and root from one checkpoint whose signature was verified.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from auditspan_seal.errors import MalformedTree
from auditspan_seal.formats.merkle import HASH_SIZE, MAX_SIZE, node_hash
from auditspan_seal.formats.note import Checkpoint, Note

MAX_PROOF = 63
"""Hashes in a proof; also the limit of https://c2sp.org/tlog-witness."""

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_EXTRA = 1_000_000  # bytes
_MAX_TEXT = 3_000_000  # characters: the longest note, the longest extra data as base64, and room for the hashes


def inclusion(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Prove that a tree has an entry: PATH(index, D[n]) of RFC 6962 §2.1.1.

    Args:
        leaves: leaf hashes of the whole tree, 32 bytes each.
        index: of the entry, from 0.

    Returns:
        the hashes beside the path from the leaf up; none for a tree of one entry.

    Raises:
        MalformedTree: there is no such entry, or a leaf hash is not 32 bytes long.
    """
    _check_index(index, len(leaves))
    return tuple(_siblings(_levels(leaves), index))


def verify_inclusion(index: int, size: int, leaf: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether a tree has an entry at a place (RFC 9162 §2.1.3.2).

    Args:
        index: of the entry, from 0.
        size: of the tree; like `root` from a verified checkpoint.
        leaf: leaf hash of the entry, 32 bytes.
        root: root hash of the tree, 32 bytes.
        proof: what :func:`inclusion` returns.

    Raises:
        MalformedTree: a tree of that size has no such entry, is too large, or something is no hash or no proof.
    """
    _check_index(index, size)
    _check_proof((leaf, root), proof)
    node, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False  # more hashes than the tree is high
        if node & 1 or node == last:
            found = node_hash(sibling, found)
            node, last = _rise(node, last, 0)  # the levels that a node without sibling rose through
        else:
            found = node_hash(found, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and found == root


def consistency(leaves: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """Prove that a tree begins with all of a smaller one: PROOF(first, D[n]) of RFC 6962 §2.1.2.

    Args:
        leaves: leaf hashes of the larger tree, 32 bytes each.
        first: size of the smaller tree, from 1.

    Returns:
        the hashes; none for trees of one size.

    Raises:
        MalformedTree: `first` is 0 or larger than the tree, or a leaf hash is not 32 bytes long.
    """
    _check_sizes(first, len(leaves))
    levels = _levels(leaves)
    if first == len(leaves):
        return ()
    # The largest perfect subtree that ends where the smaller tree ends is where the two roots part.
    node, height = first - 1, 0
    while node & 1:
        node, height = node >> 1, height + 1
    start = [levels[height][node]] if node else []  # else it is the whole smaller tree, whose root is known
    return tuple(start + _siblings(levels[height:], node))


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether a tree begins with all of a smaller one, in the same order (RFC 9162 §2.1.4.2).

    Args:
        first: size of the smaller tree, from 1: the empty tree begins every tree, there is nothing to prove.
        second: size of the larger tree, `first` or more; like the roots from verified checkpoints.
        first_root: root hash of the smaller tree, 32 bytes.
        second_root: root hash of the larger tree, 32 bytes.
        proof: what :func:`consistency` returns.

    Raises:
        MalformedTree: there are no trees of such sizes, or something is no hash or no proof.
    """
    _check_sizes(first, second)
    _check_proof((first_root, second_root), proof)
    if first == second:
        return not proof and first_root == second_root
    if not proof:
        return False
    node, last = _rise(first - 1, second - 1, 1)
    # Where the roots part: in the proof, unless it is the whole smaller tree.
    old = new = proof[0] if node else first_root
    for sibling in proof[1:] if node else proof:
        if last == 0:
            return False  # more hashes than the tree is high
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            node, last = _rise(node, last, 0)
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


@dataclass(frozen=True)
class TlogProof:
    """All that shows offline that a log has an entry: https://c2sp.org/tlog-proof.

    Attributes:
        index: of the entry, from 0.
        hashes: its inclusion proof in the tree of the checkpoint.
        note: the signed checkpoint, verbatim.
        extra: data for the application, not authenticated: nothing here vouches for it.

    Raises:
        MalformedNote: `note` is not a signed checkpoint.
        MalformedTree: the tree of the checkpoint has no such entry, or hashes or extra data are out of bounds.
    """

    index: int
    hashes: tuple[bytes, ...]
    note: str
    extra: bytes = b""

    def __post_init__(self) -> None:
        _check_index(self.index, self.checkpoint().size)
        _check_proof((), self.hashes)
        if len(self.extra) > _MAX_EXTRA:
            raise MalformedTree(f"The extra data of the proof is longer than {_MAX_EXTRA} bytes.")

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint in the note. Its signature is not verified: see :meth:`Note.signed_by`."""
        return Checkpoint.parse(Note.parse(self.note).text)

    def includes(self, leaf: bytes) -> bool:
        """Tell whether the tree of the checkpoint has the entry of this leaf hash (32 bytes) at the index.

        Only half of the evidence: that the checkpoint is the log's, its signature must show.

        Raises:
            MalformedTree: the leaf hash is not 32 bytes long.
        """
        checkpoint = self.checkpoint()
        return verify_inclusion(self.index, checkpoint.size, leaf, checkpoint.root, self.hashes)

    def __str__(self) -> str:
        extra = [f"extra {_encode(self.extra)}"] if self.extra else []
        lines = [_HEADER, *extra, f"index {self.index}", *map(_encode, self.hashes)]
        return "\n".join(lines) + "\n\n" + self.note

    @classmethod
    def parse(cls, text: str) -> TlogProof:
        """Read a proof. Only the one spelling that ``str()`` writes is taken.

        Raises:
            MalformedTree: it is not one.
            MalformedNote: it does not end in a signed checkpoint.
        """
        if len(text) > _MAX_TEXT:
            raise MalformedTree(f"The proof is longer than {_MAX_TEXT} characters.")
        # No line before the checkpoint is empty, so the first empty line is where it begins.
        head, separator, note = text.partition("\n\n")
        header, *lines = head.split("\n")
        if header != _HEADER or not separator:
            raise MalformedTree(f"A proof must begin with the line {_HEADER!r} and have a checkpoint.")
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = _decode(lines.pop(0).removeprefix("extra "))
            if not extra:
                raise MalformedTree("The proof has a line for extra data, and none in it.")
        if not lines or not lines[0].startswith("index "):
            raise MalformedTree("The proof does not say the index of its entry.")
        if len(lines) - 1 > MAX_PROOF:
            raise MalformedTree(f"The proof has {len(lines) - 1} hashes, at most {MAX_PROOF} are possible.")
        return cls(_index(lines[0].removeprefix("index ")), tuple(map(_decode, lines[1:])), note, extra)


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """Return the nodes of the tree, level by level, leaves first; a node without sibling rises as it is."""
    _check_hashes(leaves)
    levels = [list(leaves)]
    while len(below := levels[-1]) > 1:
        pairs = [node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)]
        levels.append(pairs + below[-1:] if len(below) & 1 else pairs)
    return levels


def _siblings(levels: Sequence[Sequence[bytes]], node: int) -> list[bytes]:
    """Return the hashes beside the path from a node of the lowest level up to the root."""
    hashes = []
    for level in levels:
        if node ^ 1 < len(level):  # else the node has none on this level
            hashes.append(level[node ^ 1])
        node >>= 1
    return hashes


def _rise(node: int, last: int, bit: int) -> tuple[int, int]:
    """Go up while `node` is a left child (`bit` 0) or a right child (`bit` 1), not past the root."""
    while node and node & 1 == bit:
        node, last = node >> 1, last >> 1
    return node, last


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size <= MAX_SIZE:
        raise MalformedTree(f"A tree of {size} entries (at most {MAX_SIZE}) has no entry {index}.")


def _check_sizes(first: int, second: int) -> None:
    if not 1 <= first <= second <= MAX_SIZE:
        raise MalformedTree(f"There is no proof from {first} to {second} entries (1 to {MAX_SIZE}, not falling).")


def _check_proof(hashes: Iterable[bytes], proof: Sequence[bytes]) -> None:
    if len(proof) > MAX_PROOF:
        raise MalformedTree(f"The proof has {len(proof)} hashes, at most {MAX_PROOF} are possible.")
    _check_hashes((*hashes, *proof))


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(item) != HASH_SIZE for item in hashes):
        raise MalformedTree(f"A hash of the tree is not {HASH_SIZE} bytes long.")


def _index(text: str) -> int:
    # isdecimal alone would let other scripts' digits through; int() alone signs, spaces and underscores
    if not (text.isascii() and text.isdecimal()) or (len(text) > 1 and text[0] == "0") or len(text) > 19:
        raise MalformedTree("The index of the proof is not a decimal number.")
    return int(text)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedTree("The base64 of the proof is malformed.") from None
    if _encode(data) != text:
        raise MalformedTree("The base64 of the proof is not in its one canonical form.")
    return data
