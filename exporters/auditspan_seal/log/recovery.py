# SPDX-License-Identifier: Apache-2.0
"""What a sequencer finds when it takes a directory over: where the log ends, or that it is lost.

The rule: nothing that may have been published is ever signed a second time in another way. What a crash can leave is
repaired; anything else stops the signing, and records wait in their segments until somebody has looked.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from auditspan_seal.errors import AuditspanError, DirectoryError, FormatError
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.log import pruned, reader
from auditspan_seal.log.directory import Directory


@dataclass(frozen=True)
class Found:
    """What is in a directory.

    Attributes:
        last: the last whole batch; None: there is none.
        open: the log promises heartbeats and has not been closed.
        predecessor: what the genesis entry is to say of the log that this one replaces; None: nothing.
        origins: origins that statements may name.
    """

    last: reader.Block | None = None
    open: bool = False
    predecessor: dict[str, Any] | None = None
    origins: frozenset[str] = field(default_factory=frozenset)


def look(directory: Directory) -> Found:
    """Find the end of the log.

    Raises:
        DirectoryError: the log was altered, or its end was cut off.
    """
    last, is_open = _last_block(directory)
    if last is None:
        return Found(None, False, _predecessor(directory), frozenset([directory.origin]))
    published = published_checkpoint(directory)
    if published is not None and published[1].origin == directory.origin and published[1].size > last.batch.size:
        raise DirectoryError(
            f"The end of the log in {directory.log} was cut off: {published[1].size} entries were signed, "
            f"{last.batch.size} are there.",
            f"Restore the files. {_start_anew(directory)}",
        )
    first = last if last.batch.first == 0 else None
    return Found(last, is_open, None, frozenset([directory.origin, *pruned.replaced(directory, first)]))


def published_checkpoint(directory: Directory) -> tuple[str, Checkpoint] | None:
    """Return the newest checkpoint that was published, as the directory remembers it; None: it does not."""
    return _note(directory.checkpoint)


def _predecessor(directory: Directory) -> dict[str, Any] | None:
    """Return the log that a new one replaces: that of which only the checkpoint is left, or one that people name."""
    found = published_checkpoint(directory)
    if found is None or found[1].origin != directory.origin:
        found = _note(directory.predecessor)  # named by people, or a replacement that was cut short
    if found is None:
        return None
    note, checkpoint = found
    return {
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": base64.b64encode(checkpoint.root).decode(),
        "note": note,
    }


def _note(path: Any) -> tuple[str, Checkpoint] | None:
    try:
        text = path.read_text(encoding="utf-8")
        return text, Checkpoint.parse(Note.parse(text).text)
    except (OSError, UnicodeDecodeError, FormatError):
        return None


def _last_block(directory: Directory) -> tuple[reader.Block | None, bool]:
    """Return the last whole batch, and whether heartbeats are promised after it.

    Only the very last batch may be incomplete: it was being written when a process or the machine died, was
    never published, and its entries are still in their segments. Damage before it is no crash, and going on
    from there would sign a second history.
    """
    names = reader.files(directory.log)
    for name in reversed(names):
        last: reader.Block | None = None
        damaged: reader.Block | None = None
        is_open, newest = False, name == names[-1]
        for item in reader.blocks(directory.log, reader.Cursor(name)):
            block = item if isinstance(item, reader.Block) else _signed_tail(directory, item) if newest else None
            if block is None or block.after.file != name:
                break
            whole = is_whole(block)
            if damaged is not None or (not newest and not whole):
                raise _altered(directory, name)
            if whole:
                last = block
                is_open = _opens(block, is_open)
            else:
                damaged = block
        if last is not None:
            return last, is_open
        if damaged is not None and (len(names) > 1 or published_checkpoint(directory) is not None):
            raise _altered(directory, name)
    return None, False


def _signed_tail(directory: Directory, tail: reader.Tail) -> reader.Block | None:
    """Return a batch that is on disk but for its last LF, which is written when all the rest was synced.

    Perhaps it was published, and a power cut has taken the LF.
    """
    try:
        block = reader.unfinished(directory.log, tail)
    except OSError:
        return None
    return block if block is not None and is_whole(block) else None


def _altered(directory: Directory, name: str) -> DirectoryError:
    return DirectoryError(
        f"The log file {directory.log / name} was altered before its last checkpoint.",
        f"Run `auditspan verify {directory.path}` to see what changed. Restore the file. {_start_anew(directory)}",
    )


def _start_anew(directory: Directory) -> str:
    return (
        f"Or move {directory.log} away (keep it: it is evidence): a new log begins that names this one as its "
        "predecessor. Until then records stay in the segments, unsigned."
    )


def _opens(block: reader.Block, is_open: bool) -> bool:
    for statement in block.statements:
        if b'"type":"heartbeat"' in statement:
            is_open = True
        elif b'"type":"close"' in statement:
            is_open = False
    return is_open


def is_whole(block: reader.Block) -> bool:
    """Tell whether a batch is on disk as it was signed (a power cut may write the end and lose the middle)."""
    try:
        checkpoint = block.batch.checkpoint()
        return (
            tuple(leaf_hash(entry) for entry in block.statements) == block.batch.leaves
            and checkpoint.size == block.batch.size
            and checkpoint.root == block.batch.tree().root()
        )
    except AuditspanError:
        return False
