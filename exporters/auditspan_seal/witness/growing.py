# SPDX-License-Identifier: Apache-2.0
"""Consistency proofs of the log in a directory: from what a witness saw last to the newest checkpoint.

Nothing but hashes of a few trees is kept. As long as a witness keeps up, each batch is seen once, in passing. What was
not seen, because there was no witness yet, or it was away before this process began, is read from the log files.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from pathlib import Path

from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.growth import Growth
from auditspan_seal.formats.merkle import Frontier
from auditspan_seal.log import reader


class Growing:
    """The growth of a log since the sizes that somebody asked for. Threads may share one.

    Args:
        folder: of the log files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._since: dict[int, Growth] = {}  # all of them reach to the newest batch
        self._newest: Batch | None = None
        self._cursor, self._cursor_size = (
            reader.Cursor(),
            0,
        )  # a place in the log files, and how many entries are before it

    def follow(self, batch: Batch) -> None:
        """Go on to the newest batch.

        Raises:
            DirectoryError: the log files cannot be read, or do not lead to the checkpoint of the batch.
        """
        with self._lock:
            before = self._newest
            if before is not None and batch.size < before.size:
                self._since.clear()  # the log was set back: nothing that was kept is of use
            elif before is not None and self._since and batch.size > before.size:
                try:
                    for leaf in self._leaves(before.size, batch):
                        for growth in self._since.values():
                            growth.append(leaf)
                except BaseException:
                    self._since.clear()
                    raise
            self._newest = batch
            self._since[batch.size] = Growth(batch.tree())

    def forget_all_but(self, sizes: Collection[int]) -> None:
        """Forget the growth since other sizes than these (and the newest)."""
        with self._lock:
            newest = self._newest.size if self._newest else 0
            self._since = {size: growth for size, growth in self._since.items() if size in sizes or size == newest}

    def proof(self, first: int) -> tuple[bytes, ...]:
        """Prove that the newest tree begins with the one of `first` entries.

        Raises:
            DirectoryError: the log files cannot be read, or do not lead to the newest checkpoint.
        """
        with self._lock:
            if first not in self._since:
                self._since[first] = self._read(first)
            return self._since[first].proof()

    def _read(self, first: int) -> Growth:
        assert self._newest is not None
        growth: Growth | None = None
        for block in self._blocks(first):
            batch = block.batch
            if growth is None and batch.first <= first <= batch.size:
                growth = Growth(_tree(batch, first))
            if growth is not None:
                for leaf in batch.leaves[max(0, growth.size - batch.first) :]:
                    growth.append(leaf)
            if batch.size >= self._newest.size:
                break
        if growth is None or growth.size != self._newest.size or growth.root() != self._newest.checkpoint().root:
            raise self._unproven(first)
        return growth

    def _leaves(self, first: int, batch: Batch) -> Iterator[bytes]:
        """Return the leaf hashes from one size to a batch's."""
        at = first
        if batch.first != first:
            for block in self._blocks(first):
                if block.batch.size > at:
                    if block.batch.first != at:
                        break
                    yield from block.batch.leaves
                    at = block.batch.size
                    self._cursor, self._cursor_size = block.after, at
                if at >= batch.first:
                    break
        if at != batch.first:
            raise self._unproven(first)
        yield from batch.leaves

    def _blocks(self, first: int) -> Iterator[reader.Block]:
        """Read the batches from the one that has the entry `first` on, or from not far before it."""
        # A file is named by the index of its first entry.
        start = max((name for name in reader.files(self.folder) if _index(name) <= first), default="")
        near = self._cursor.file == start and self._cursor_size <= first
        cursor = self._cursor if near else reader.Cursor(start)
        for block in reader.blocks(self.folder, cursor):
            if isinstance(block, reader.Block):
                yield block

    def _unproven(self, first: int) -> DirectoryError:
        return DirectoryError(
            f"The log files in {self.folder} do not lead from {first} entries to the newest checkpoint; its growth "
            "cannot be proven to a witness.",
            "Run `auditspan verify` on the directory to see what is missing or changed.",
        )


def _tree(batch: Batch, size: int) -> Frontier:
    tree = Frontier(batch.first, batch.frontier)
    for leaf in batch.leaves[: size - batch.first]:
        tree.append(leaf)
    return tree


def _index(name: str) -> int:
    digits = name.removesuffix(reader.SUFFIX)
    return int(digits) if digits.isdecimal() else 2**63
