# SPDX-License-Identifier: Apache-2.0
"""Verifies ranges of a log directory in several processes, and joins what they found.

A range is only ever taken from a process if it is what it should be: its tree continues the one before it, and every
entry is there and in its place. In any other case it is walked along once more, here, with all that came before. So
what several processes say is what one would say, and only an honest log is fast.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TypeVar

from auditspan_seal.errors import AuditspanError
from auditspan_seal.formats.batch import CHECKPOINT
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.log import reader
from auditspan_seal.verify.account import Account, KeyEvent, Misfits
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.lines import blocks
from auditspan_seal.verify.source import Buffer, Feed
from auditspan_seal.verify.walk import Walk
from auditspan_seal.witness.trusted import TrustedCheckpoint

W = TypeVar("W")
R = TypeVar("R")
"""A piece of work."""
RANGE = 16 * 1024 * 1024  # bytes of log files to a range
WORTH_IT = 64 * 1024 * 1024  # bytes of a log from which on starting processes pays
_AHEAD = 3  # ranges under way for each process


@dataclass(frozen=True)
class Range:
    """A part of the log files, between two checkpoints."""

    start: reader.Cursor
    stop: reader.Cursor
    size: int


@dataclass(frozen=True)
class CheckedNote(Note):
    """A note whose signatures by some keys were verified elsewhere: public key → what :meth:`signed_by` says."""

    known: dict[bytes, bool | None] = field(default_factory=dict)

    def signed_by(self, key: VerifierKey) -> bool | None:
        """See :meth:`Note.signed_by`."""
        return self.known[key.public] if key.public in self.known else super().signed_by(key)


@dataclass(frozen=True)
class Part:
    """What a process found in a range.

    Attributes:
        begin: tree that the range begins with: size and hashes.
        end: tree that it ends with.
        read: how many checkpoints it has.
        anchor: tree size up to which a trusted checkpoint vouches for it.
        account: what is known of its entries.
        positions: segment → bytes of it that the last checkpoint covers.
    """

    begin: tuple[int, tuple[bytes, ...]]
    end: tuple[int, tuple[bytes, ...]]
    read: int
    anchor: int
    account: Account
    positions: dict[str, int]


def default_jobs(size: int) -> int:
    """Return how many processes to use for log files of so many bytes."""
    return 1 if size < WORTH_IT else processors()


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ranges(folder: Path, start: reader.Cursor, length: int | None = None) -> Iterator[Range]:
    """Cut the log files into ranges of about `length` bytes, each ending with a checkpoint or a file.

    Args:
        folder: the folder of the log files.
        start: the file to begin with.
        length: in bytes; None: :data:`RANGE`.
    """
    length = length or RANGE
    for name in reader.files(folder):
        if name < start.file:
            continue
        with contextlib.suppress(OSError), open(folder / name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin = 0
            while begin < size:
                end = size
                if begin + length < size:
                    file.seek(begin + length)
                    file.readline()
                    for line in file:
                        if line.startswith(CHECKPOINT) and line.endswith(b"\n"):
                            break
                    end = min(file.tell(), size)
                yield Range(reader.Cursor(name, begin), reader.Cursor(name, end), end - begin)
                begin = end


def walk_range(
    folder: Path, origin: str, part: Range, trusted: Sequence[TrustedCheckpoint], control: bool,
    keys: Sequence[VerifierKey],
) -> Part | None:  # fmt: skip
    """Walk along a range, in a process of its own.

    Returns:
        what was found; None if the range cannot be read as it should be.
    """
    buffer = Buffer()

    def steps() -> Iterator[tuple[CheckpointItem, Feed, dict[str, int]]]:
        for block in blocks(folder, origin, part.start, part.stop):
            if isinstance(block, reader.Tail):
                raise _Irregular
            buffer.put(block.entries)
            yield block.item(origin), buffer, {name: at.offset for name, at in block.batch.segments.items()}

    return summed(origin, steps(), buffer, trusted, control, keys)


class _Irregular(Exception):
    """A range is not as it should be: it is walked along once more, with all that came before."""


def summed(
    origin: str,
    steps: Iterable[tuple[CheckpointItem, Feed, dict[str, int]]],
    feed: Feed,
    trusted: Sequence[TrustedCheckpoint],
    control: bool,
    keys: Sequence[VerifierKey],
) -> Part | None:
    """Walk along a range and say what it comes down to.

    Args:
        origin: the log.
        steps: checkpoint, entries, and how far each segment is there.
        feed: the entries.
        trusted: what the tree must be at some sizes.
        control: what the log says of erasures (see :class:`.walk.Account`).
        keys: keys by which signatures are verified here already.

    Returns:
        None if anything is not as it should be, or cannot be read.
    """
    misfits = Misfits()
    walk = Walk(origin, trusted, misfits, adopt=True, compare=False)
    walk.account.control = control
    begin: tuple[int, tuple[bytes, ...]] | None = None
    positions: dict[str, int] = {}
    try:
        for item, entries, positions in steps:  # noqa: B007 (the last one is kept)
            if begin is None and item.batch is not None:
                begin = item.batch.first, tuple(item.batch.frontier)
            walk.step(item, entries)
        walk.rest(feed)
    except (AuditspanError, _Irregular):
        return None
    account, chain = walk.account, walk.chain
    account.events = [_checked(event, keys) for event in account.events]
    wrong = misfits.facts or misfits.more or misfits.foreign or account.missing or account.unproven or walk.irregular
    if begin is None or wrong:
        return None
    return Part(begin, (chain.size, chain.tree.hashes), chain.read, chain.anchor, account, positions)


def _checked(event: KeyEvent, keys: Sequence[VerifierKey]) -> KeyEvent:
    note = event.note
    if note is None or not keys:
        return event
    known = {key.public: note.signed_by(key) for key in keys}
    checked = CheckedNote(note.text, note.signatures, known)
    return KeyEvent(None, checked, event.index, event.size, event.latest, event.document_id)


def in_order(
    jobs: int, work: Sequence[W], submit: Callable[[ProcessPoolExecutor, W], Future[R]]
) -> Iterator[tuple[W, R | None]]:
    """Have pieces of work done by processes, and return what comes of each, in the order of the pieces.

    Args:
        jobs: how many processes.
        work: the pieces.
        submit: hands one to a process.

    Yields:
        each piece and its result; None where a process was killed: it is to be done by the caller.
    """
    waiting: deque[tuple[W, Future[R]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=_context()) as pool:
        todo = iter(work)
        try:
            for part in todo:
                waiting.append((part, submit(pool, part)))
                if len(waiting) >= jobs * _AHEAD:
                    part, future = waiting.popleft()
                    yield part, _result(future)
            while waiting:
                part, future = waiting.popleft()
                yield part, _result(future)
        except BrokenProcessPool:  # a process was killed: the rest is done here
            while waiting:
                yield waiting.popleft()[0], None
            for part in todo:
                yield part, None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _context() -> BaseContext:
    """Return how processes are started: by fork where that is safe, which saves each of them a start of Python."""
    alone = threading.active_count() == 1 and sys.platform == "linux"
    return multiprocessing.get_context("fork" if alone else "spawn")


def _result(future: Future[R]) -> R | None:
    try:
        return future.result()
    except BrokenProcessPool:
        return None
