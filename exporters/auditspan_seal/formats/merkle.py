# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of RFC 6962 §2.1, as a frontier that is appended to.

The frontier of a tree of n entries is the list of the roots of its perfect subtrees, one for each 1 bit of n, largest
(leftmost) first. It is all that is needed to append entries and to compute the root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from auditspan_seal.errors import MalformedTree

HASH_SIZE = 32
MAX_SIZE = 2**62
"""Entries of a tree: the largest whose every proof has at most 63 hashes (consistency: ⌈log2 size⌉ + 1)."""
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ entry), the leaf hash of RFC 6962 §2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right), the inner hash of RFC 6962 §2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that can only grow.

    Args:
        size: number of entries, 0 to :data:`MAX_SIZE`.
        hashes: roots of the perfect subtrees, largest first; one per 1 bit of `size`, 32 bytes each.

    Raises:
        MalformedTree: the hashes do not fit the size.
    """

    __slots__ = ("_hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self._hashes = list(hashes)
        self.size = size
        if not 0 <= size <= MAX_SIZE:
            raise MalformedTree(f"A tree has 0 to {MAX_SIZE} entries, not {size.bit_length()} bits of them.")
        if len(self._hashes) != bin(size).count("1"):
            raise MalformedTree(f"A tree of {size} entries does not have a frontier of {len(self._hashes)} hashes.")
        if any(len(item) != HASH_SIZE for item in self._hashes):
            raise MalformedTree(f"A hash of the frontier is not {HASH_SIZE} bytes long.")

    @property
    def hashes(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, largest first."""
        return tuple(self._hashes)

    def copy(self) -> Frontier:
        """Return an independent copy."""
        return Frontier(self.size, self._hashes)

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash (32 bytes)."""
        self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Append leaf hashes (32 bytes each)."""
        sha256, hashes, size = hashlib.sha256, self._hashes, self.size
        for node in leaves:
            full = size
            while full & 1:
                node = sha256(b"\x01" + hashes.pop() + node).digest()
                full >>= 1
            hashes.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """Return the root hash (32 bytes); of the empty tree SHA-256 of nothing."""
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root


def split_hashes(joined: bytes) -> list[bytes]:
    """Cut concatenated hashes apart.

    Raises:
        MalformedTree: the length is not a multiple of 32 bytes.
    """
    if len(joined) % HASH_SIZE:
        raise MalformedTree(f"{len(joined)} bytes are not a whole number of hashes of {HASH_SIZE} bytes.")
    return [joined[i : i + HASH_SIZE] for i in range(0, len(joined), HASH_SIZE)]
