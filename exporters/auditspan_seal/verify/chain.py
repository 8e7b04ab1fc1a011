# SPDX-License-Identifier: Apache-2.0
"""The checkpoints of a log, chained into one tree; no more of it is kept than its frontier."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import Frontier
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.report import Code, Finding
from auditspan_seal.witness.trusted import TrustedCheckpoint


class Step(Enum):
    """What a checkpoint is for the chain."""

    NEXT = 1
    """It adds the entries of its batch."""
    KNOWN = 2
    """It adds nothing: what it covers is known, or it cannot be used."""
    GAP = 3
    """Entries before its batch are not covered by any checkpoint that was seen."""


class Chain:
    """One tree, growing.

    Args:
        origin: the log.
        trusted: what the tree must be at some sizes, of this log.
    """

    def __init__(self, origin: str, trusted: Sequence[TrustedCheckpoint] = ()) -> None:
        self.origin = origin
        self.tree = Frontier()
        self.root = self.tree.root()
        self.anchor = 0
        """Tree size up to which a trusted checkpoint vouches for the log."""
        self.findings: list[Finding] = []
        self.read = 0
        """How many checkpoints were chained."""
        self._next, self._next_root = self.tree, self.root
        self._trusted = sorted((item for item in trusted if item.origin == origin), key=lambda item: item.size)
        self._sizes = [item.size for item in self._trusted]

    @property
    def size(self) -> int:
        """Tree size of the last good checkpoint."""
        return self.tree.size

    def meet(self, item: CheckpointItem) -> tuple[Step, Note | None]:
        """Hold a checkpoint against the tree; nothing is added yet.

        Returns:
            what it is, and its note. None: it cannot be used.
        """
        if item.batch is None:
            self._find(Code.CHECKPOINT_INVALID, f"A checkpoint cannot be read: {item.problem}", item)
            return Step.KNOWN, None
        try:
            return self._meet(item, item.batch)
        except FormatError as error:
            self._find(Code.CHECKPOINT_INVALID, f"A checkpoint cannot be used: {error.what}", item)
            return Step.KNOWN, None

    def _meet(self, item: CheckpointItem, batch: Batch) -> tuple[Step, Note | None]:
        note = Note.parse(batch.note)
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.origin != self.origin:
            self._find(Code.CHECKPOINT_INVALID, f"A checkpoint is of another log, {checkpoint.origin}.", item)
            return Step.KNOWN, None
        tree = Frontier(batch.first, batch.frontier)
        self._next = grow(tree, batch.leaves)
        self._next_root = self._next.root()
        if checkpoint.size != batch.size or checkpoint.root != self._next_root:
            self._find(
                Code.CHECKPOINT_INVALID,
                f"The hashes beside the checkpoint of size {checkpoint.size} do not lead to the root that is signed.",
                item,
            )
            return Step.KNOWN, None
        if batch.first < self.size:
            if checkpoint.size == self.size and checkpoint.root == self.root:
                return Step.KNOWN, note
            self._find(
                Code.CHECKPOINT_CONFLICT,
                f"The checkpoint of size {checkpoint.size} contradicts what comes before it, the checkpoint of size "
                f"{self.size}: this log has two histories, or its files were put in another order.",
                item,
            )
            return Step.KNOWN, None
        if batch.first > self.size:
            return Step.GAP, note
        if tuple(batch.frontier) != self.tree.hashes:
            self._find(
                Code.CHECKPOINT_CONFLICT,
                f"The checkpoint of size {checkpoint.size} does not continue the history before index {batch.first}.",
                item,
            )
            return Step.KNOWN, None
        return Step.NEXT, note

    def advance(self, batch: Batch) -> None:
        """Add the batch of the checkpoint that was just met."""
        self._compare(Frontier(batch.first, batch.frontier), batch.leaves, batch.first + 1)
        self.tree, self.root = self._next, self._next_root
        self.read += 1

    def adopt(self, batch: Batch, *, compare: bool = True) -> None:
        """Take the beginning of a batch as given: what comes before it is not looked at.

        Args:
            batch: the batch.
            compare: whether to hold trusted checkpoints of that size against it.
        """
        self.tree = Frontier(batch.first, batch.frontier)
        self.root = self.tree.root()
        if compare:
            self._compare(self.tree, (), batch.first)

    def go_on(self, size: int, hashes: Sequence[bytes], checkpoints: int, anchor: int) -> None:
        """Go on with a tree that was grown from this one elsewhere."""
        self.tree = Frontier(size, hashes)
        self.root = self.tree.root()
        self.read += checkpoints
        self.anchor = max(self.anchor, anchor)

    def bridge(self, leaves: Iterable[bytes], batch: Batch) -> bool:
        """Tell whether leaf hashes lead from the tree to the beginning of a batch. If so, they are added."""
        tree = self.tree.copy()
        for leaf in leaves:
            tree.append(leaf)
            if tree.size > batch.first:
                return False
        if tree.size != batch.first or tree.hashes != tuple(batch.frontier):
            return False
        self.adopt(batch)
        return True

    def _compare(self, tree: Frontier, leaves: Sequence[bytes], low: int) -> None:
        """Hold trusted checkpoints against the tree, those of a size from `low` on that these leaves lead through."""
        start, end = tree.size, tree.size + len(leaves)
        for at in range(bisect_left(self._sizes, max(low, 1)), bisect_right(self._sizes, end)):
            item = self._trusted[at]
            tree = grow(tree, leaves[tree.size - start : item.size - start])
            if tree.root() == item.root:
                self.anchor = max(self.anchor, item.size)
                continue
            self.findings.append(
                Finding(
                    Code.HISTORY_REWRITTEN,
                    f"At size {item.size} the log is not the one that {item.source} has seen: its history was "
                    "rewritten, or it showed another one there. Keep both; the checkpoint kept elsewhere is evidence.",
                    self.origin,
                    item.size,
                )
            )

    def beyond(self) -> Iterator[TrustedCheckpoint]:
        """Return the trusted checkpoints that the log does not reach."""
        return (item for item in self._trusted if item.size > self.size)

    def drain(self) -> Iterator[Finding]:
        """Hand over what was found since the last call."""
        found, self.findings = self.findings, []
        return iter(found)

    def _find(self, code: Code, message: str, item: CheckpointItem) -> None:
        index = item.batch.first if item.batch is not None else None
        self.findings.append(Finding(code, message, self.origin, index, None, item.document_id))


def grow(tree: Frontier, leaves: Sequence[bytes]) -> Frontier:
    """Return a tree with leaf hashes appended."""
    grown = tree.copy()
    grown.extend(leaves)
    return grown
