# SPDX-License-Identifier: Apache-2.0
"""Consistency proofs of a tree that grows, without its leaf hashes in memory.

:func:`auditspan_seal.formats.proof.consistency` needs the leaf hashes of the whole tree. A log that proves its growth
after every batch has the frontier of the smaller tree and sees each new leaf hash once; that is enough, because the
proof PROOF(m, D[n]) of RFC 6962 §2.1.2 consists of hashes of the frontier of m and of subtrees of the entries m to n.
What is kept is at most 2·log2(n) hashes.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditspan_seal.errors import MalformedTree
from auditspan_seal.formats.merkle import HASH_SIZE, Frontier, node_hash


class Growth:
    """A tree of fixed size, and the entries that were appended to it since.

    Args:
        start: the smaller tree.
    """

    __slots__ = ("_nodes", "_start", "size")

    def __init__(self, start: Frontier) -> None:
        self._start = start.copy()
        # Perfect subtrees of the entries from start.size on, left to right, as (height, hash).
        self._nodes: list[tuple[int, bytes]] = []
        self.size = start.size

    @property
    def first(self) -> int:
        """Size of the smaller tree."""
        return self._start.size

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash (32 bytes).

        Raises:
            MalformedTree: it is not 32 bytes long.
        """
        if len(leaf) != HASH_SIZE:
            raise MalformedTree(f"A leaf hash is not {HASH_SIZE} bytes long.")
        height, node, place = 0, leaf, self.size
        # A right child joins its sibling, unless that reaches into the smaller tree.
        while place & 1 and self._nodes and self._nodes[-1][0] == height:
            node = node_hash(self._nodes.pop()[1], node)
            height, place = height + 1, place >> 1
        self._nodes.append((height, node))
        self.size += 1

    def root(self) -> bytes:
        """Return the root hash of the larger tree (32 bytes)."""
        tree = [*((height, node) for height, node in zip(_heights(self.first), self._start.hashes, strict=True))]
        for height, node in self._nodes:
            while tree and tree[-1][0] == height:
                node, height = node_hash(tree.pop()[1], node), height + 1
            tree.append((height, node))
        return _fold([node for _, node in tree]) if tree else self._start.root()

    def proof(self) -> tuple[bytes, ...]:
        """Return the consistency proof from the smaller to the larger tree; none for the empty tree or equal sizes."""
        if self.first in (0, self.size):
            return ()
        left, right = list(self._start.hashes), list(self._nodes)
        node, last, height = self.first - 1, self.size - 1, 0
        while node & 1:
            node, last, height = node >> 1, last >> 1, height + 1
        smallest = left.pop()
        hashes = [smallest] if node else []  # else it is the whole smaller tree, whose root is known
        while last:
            if node & 1:
                hashes.append(left.pop())
            elif node < last:
                whole = right[0][0] == height
                hashes.append(right.pop(0)[1] if whole else _fold([hash_ for _, hash_ in right]))
            node, last, height = node >> 1, last >> 1, height + 1
        return tuple(hashes)


def _heights(size: int) -> list[int]:
    return [bit for bit in reversed(range(size.bit_length())) if size >> bit & 1]


def _fold(nodes: Sequence[bytes]) -> bytes:
    """Return the root of perfect subtrees side by side, of which each is smaller than the one before it."""
    root = nodes[-1]
    for left in reversed(nodes[:-1]):
        root = node_hash(left, root)
    return root
