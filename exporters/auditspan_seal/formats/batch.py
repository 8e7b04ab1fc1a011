# SPDX-License-Identifier: Apache-2.0
"""A batch: the entries that one checkpoint adds, as lines of a log file and as a checkpoint document.

A log file is a sequence of batches; a batch is one line ``E <statement>`` for each entry (after a TAB its private part,
if it has one), then one line ``C <json>``
with the checkpoint that covers them. The JSON holds all that is needed to rebuild the tree from there: the signed
note, the index of the first entry of the batch, the frontier of the tree before it, and the leaf hashes.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

import orjson

from auditspan_seal.errors import MalformedLog
from auditspan_seal.formats import merkle
from auditspan_seal.formats.note import Checkpoint, Note

ENTRY = b"E "
CHECKPOINT = b"C "
MAX_LINE = 16 * 1024 * 1024  # bytes of a checkpoint line
MAX_LEAVES = 65_536  # leaf hashes of a batch
_MAX_BASE64 = 4 * ((MAX_LEAVES * merkle.HASH_SIZE + 2) // 3)  # characters
_MAX_POSITION = 2**63 - 1
PRIVATE_MARK = b"\t"
"""Between a statement and its private part: JSON as we write it has no raw TAB."""


@dataclass(frozen=True)
class Position:
    """How far a segment is in the log: bytes of its file, and its last running number."""

    offset: int
    number: int


@dataclass(frozen=True)
class Batch:
    """What one checkpoint adds.

    Attributes:
        note: the signed checkpoint, verbatim.
        first: index of the first entry of the batch.
        frontier: frontier hashes of the tree of `first` entries, 32 bytes each.
        leaves: leaf hashes of the entries of the batch, 32 bytes each.
        segments: how far each segment was read when the checkpoint was made. Local bookkeeping, not evidence.
    """

    note: str
    first: int
    frontier: tuple[bytes, ...]
    leaves: tuple[bytes, ...]
    segments: dict[str, Position] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Tree size after the batch."""
        return self.first + len(self.leaves)

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint in the note.

        Raises:
            MalformedNote: there is none.
        """
        return Checkpoint.parse(Note.parse(self.note).text)

    def tree(self) -> merkle.Frontier:
        """Return the tree after the batch, rebuilt from frontier and leaf hashes.

        Raises:
            MalformedTree: the frontier does not fit `first`.
        """
        tree = merkle.Frontier(self.first, self.frontier)
        tree.extend(self.leaves)
        return tree

    def line(self) -> bytes:
        """Return the line of the log file, without LF."""
        return CHECKPOINT + orjson.dumps(
            {
                "note": self.note,
                "first": self.first,
                "frontier": join(self.frontier),
                "leaves": join(self.leaves),
                "segments": {name: [at.offset, at.number] for name, at in self.segments.items()},
            }
        )

    @classmethod
    def parse(cls, line: bytes) -> Batch:
        """Read a ``C`` line.

        Raises:
            MalformedLog: it is not one.
            MalformedTree: hashes of a wrong length.
        """
        if len(line) > MAX_LINE:
            raise MalformedLog(f"A checkpoint line of the log is longer than {MAX_LINE} bytes.")
        try:
            fields = orjson.loads(line.removeprefix(CHECKPOINT))
        except orjson.JSONDecodeError:
            raise MalformedLog("A checkpoint line of the log is not JSON.") from None
        if not line.startswith(CHECKPOINT) or not isinstance(fields, dict):
            raise MalformedLog("A line of the log is not a checkpoint line.")
        segments = fields.get("segments")
        if not isinstance(segments, dict):
            raise MalformedLog("The segments of a checkpoint line are not an object.")
        return cls(
            note=_typed(fields, "note", str),
            first=_typed(fields, "first", int),
            frontier=split(_typed(fields, "frontier", str)),
            leaves=split(_typed(fields, "leaves", str)),
            segments={name: _position(at) for name, at in segments.items()},
        )


def split(text: str) -> tuple[bytes, ...]:
    """Read concatenated hashes from base64.

    Raises:
        MalformedLog: it is not base64, not in its one canonical form, or of more than :data:`MAX_LEAVES` hashes.
        MalformedTree: it is not a whole number of hashes.
    """
    if len(text) > _MAX_BASE64:
        raise MalformedLog(f"A checkpoint has more than {MAX_LEAVES} hashes.")
    try:
        joined = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedLog("Hashes of a checkpoint are not base64.") from None
    if base64.b64encode(joined).decode() != text:
        raise MalformedLog("The base64 of hashes of a checkpoint is not in its one canonical form.")
    return tuple(merkle.split_hashes(joined))


def join(hashes: tuple[bytes, ...]) -> str:
    return base64.b64encode(b"".join(hashes)).decode()


def _typed(fields: dict[str, Any], name: str, kind: type) -> Any:
    item = fields.get(name)
    if type(item) is not kind or (isinstance(item, int) and not 0 <= item <= merkle.MAX_SIZE):
        raise MalformedLog(f"The field {name!r} of a checkpoint line is not a {kind.__name__}.")
    return item


def _position(item: Any) -> Position:
    if (
        isinstance(item, list)
        and len(item) == 2
        and all(type(part) is int and 0 <= part <= _MAX_POSITION for part in item)
    ):
        return Position(*item)
    raise MalformedLog("A segment position of a checkpoint line is malformed.")
