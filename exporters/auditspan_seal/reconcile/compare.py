# SPDX-License-Identifier: Apache-2.0
"""Holds a part of the log against what Elasticsearch has of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from auditspan_seal.errors import DirectoryError, FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.log import reader, recovery
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.receipt import Open
from auditspan_seal.reconcile.held import Entry, Held, checkpoint_id, entry_id

WINDOW = 4096  # entries that are asked for at once, about
_BLOCKS = 256  # batches of them: each has a checkpoint with all of its hashes

MISSING = "missing"
ALTERED = "altered"
REFUSED = "refused"


@dataclass(frozen=True)
class Difference:
    """One entry or checkpoint that Elasticsearch does not hold as the log has it.

    Attributes:
        block: the batch in the log.
        offset: which entry of the batch; None: its checkpoint.
        document_id: the ID that its document has, or would have.
        state: see :class:`~auditspan_seal.log.receipt.Open`.
        why: what is known about the reason.
    """

    block: reader.Block
    offset: int | None
    document_id: str
    state: str = MISSING
    why: str = ""

    @property
    def index(self) -> int:
        """Index of the entry, or of the first one that the checkpoint adds."""
        return self.block.batch.first + (self.offset or 0)

    @property
    def statement(self) -> bytes:
        """The statement of the entry; empty for a checkpoint."""
        return b"" if self.offset is None else self.block.statements[self.offset]

    def with_state(self, state: str, why: str = "") -> Difference:
        """Return the same in another state."""
        return replace(self, state=state, why=why)


@dataclass
class Part:
    """What comparing a part of the log came to.

    Attributes:
        begin: index of its first entry.
        end: index after its last one.
        differences: what is not as it should be.
        hashed: documents that were read back and hashed.
        documents: documents of entries in it.
        checkpoints: documents of checkpoints in it.
        copies: documents of entries that say what another one says.
    """

    begin: int
    end: int
    differences: list[Difference] = field(default_factory=list)
    hashed: int = 0
    documents: int = 0
    checkpoints: int = 0
    copies: int = 0


def windows(directory: Directory, begin: int, end: int, known: int) -> Iterator[list[reader.Block]]:
    """Read the log in portions that can be asked for at once, none of which crosses `known`.

    Args:
        directory: the log directory; it may be in use.
        begin: leave out batches that end at or before this index.
        end: and those that end after this one.
        known: a tree size.

    Raises:
        DirectoryError: a batch is not as it was signed: what it says is not brought to Elasticsearch.
    """
    window: list[reader.Block] = []
    for block in reader.blocks(directory.log, reader.cursor_of(directory.log, begin)):
        if not isinstance(block, reader.Block) or block.batch.size > end:
            break
        if block.batch.size <= begin:
            continue
        if not recovery.is_whole(block):
            raise DirectoryError(
                f"The log is not as it was signed from index {block.batch.first} on; nothing of that is sent.",
                f"Run `auditspan verify {directory.path}` to see what changed, and restore the log from a copy.",
            )
        window.append(block)
        size = block.batch.size
        if size == known or size - window[0].batch.first >= WINDOW or len(window) >= _BLOCKS:
            yield window
            window = []
    if window:
        yield window


def count(held: Held, window: Sequence[reader.Block]) -> Part | None:
    """Compare by counting alone; None: the counts are not right, and it has to be read."""
    begin, end = window[0].batch.first, window[-1].batch.size
    documents, checkpoints = held.count(begin, end)
    if (documents, checkpoints) != (end - begin, len(window)):
        return None
    return Part(begin, end, documents=documents, checkpoints=checkpoints)


def compare(held: Held, window: Sequence[reader.Block]) -> Part:
    """Read everything back and hash it.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
    """
    part = Part(window[0].batch.first, window[-1].batch.size)
    batches: list[Batch] = []
    present = _leaves(_counted(held.entries(part.begin, part.end), part))
    for batch in held.batches(part.begin, part.end):
        batches.append(batch)
        part.checkpoints += 1
    part.hashed = part.documents + part.checkpoints
    part.differences = list(_differences(held, window, present, batches))
    return part


def again(held: Held, differences: Sequence[Difference]) -> list[Difference]:
    """Look once more at what was different; returns what still is."""
    blocks = {item.block.batch.first: item.block for item in differences}
    present = _leaves(held.entries_at([item.index for item in differences if item.offset is not None]))
    batches = held.batches_at([item.index for item in differences if item.offset is None])
    wanted = {(item.index, item.offset is None) for item in differences}
    found = _differences(held, [blocks[first] for first in sorted(blocks)], present, list(batches), wanted)
    before = {item.document_id: item for item in differences}
    return [
        replace(item, why=item.why or before[item.document_id].why) if item.document_id in before else item
        for item in found
    ]


def time_of(block: reader.Block) -> int:
    """Return the latest time that a batch states, in nanoseconds since the epoch; 0 if it states none."""
    times = [0]
    for statement in block.statements:
        try:
            fields = statements.decode(statement)
            times.append(int(fields.get("end") or fields.get("time") or 0))
        except (FormatError, TypeError, ValueError):
            continue
    return max(times)


def ranges(differences: Iterable[Difference]) -> list[Open]:
    """Return differences as ranges, in order; neighbours of one kind and state become one."""
    found: dict[str, list[Open]] = {"entry": [], "checkpoint": []}
    for item in sorted(differences, key=lambda item: item.index):
        kind, last = ("checkpoint", item.block.batch.size - 1) if item.offset is None else ("entry", item.index)
        before = found[kind][-1] if found[kind] else None
        if before is not None and (before.last + 1, before.state, before.why) == (item.index, item.state, item.why):
            found[kind][-1] = replace(before, last=last, count=before.count + 1)
        else:
            found[kind].append(Open(kind, item.index, last, item.state, item.why))
    return sorted(found["entry"] + found["checkpoint"], key=lambda item: (item.first, item.last))


def _counted(entries: Iterable[Entry], part: Part) -> Iterator[Entry]:
    last: tuple[int, bytes | None] | None = None
    for entry in entries:  # in order of their indexes
        part.documents += 1
        part.copies += (entry.index, entry.leaf) == last
        last = entry.index, entry.leaf
        yield entry


def _leaves(entries: Iterable[Entry]) -> dict[int, set[bytes]]:
    found: dict[int, set[bytes]] = {}
    for entry in entries:
        if entry.leaf is not None:
            found.setdefault(entry.index, set()).add(entry.leaf)
    return found


def _differences(
    held: Held,
    blocks: Sequence[reader.Block],
    present: dict[int, set[bytes]],
    batches: Sequence[Batch],
    wanted: set[tuple[int, bool]] | None = None,
) -> Iterator[Difference]:
    """Return what is not there: entries without their leaf hash, checkpoints without their hashes and note."""
    whole = {_proof(batch) for batch in batches}
    found: list[Difference] = []
    for block in blocks:
        batch = block.batch
        for offset, leaf in enumerate(batch.leaves):
            index = batch.first + offset
            if (wanted is None or (index, False) in wanted) and leaf not in present.get(index, ()):
                found.append(Difference(block, offset, entry_id(held.origin, index, block.statements[offset])))
        if (wanted is None or (batch.first, True) in wanted) and _proof(batch) not in whole:
            found.append(Difference(block, None, checkpoint_id(batch, held.origin)))
    # Its place is taken by a document that says something else: sending it again would be refused as a repeat.
    taken = held.taken([item.document_id for item in found])
    for item in found:
        yield item.with_state(ALTERED, "another document has its ID") if item.document_id in taken else item


def _proof(batch: Batch) -> tuple[Any, ...]:
    return batch.note, batch.first, batch.frontier, batch.leaves
