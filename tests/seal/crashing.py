# SPDX-License-Identifier: Apache-2.0
"""Lets a process die at a given step of its input and output, and says what was published by then."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.batch import CHECKPOINT, Batch
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.log.directory import Directory

STEPS = ("write", "fsync", "rename", "replace", "link", "unlink", "ftruncate", "mkdir", "fchmod", "open")
"""The calls of :mod:`os` after which a crash leaves something else on disk than before."""


@contextmanager
def counted(limit: int, *, torn: bool = False) -> Iterator[list[str]]:
    """Count the steps of what happens inside; at the one with the number `limit`, kill this process.

    Args:
        limit: 1 for the first step; more than there are: nothing is killed.
        torn: of a write, do the first half before.

    Yields:
        the steps, by name, as they happen.
    """
    seen: list[str] = []
    real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in STEPS}

    def make(name: str) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real[name](*args, **kwargs)
            seen.append(name)
            if len(seen) == limit:
                if torn and name == "write":
                    real[name](args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, make(name))
    try:
        yield seen
    finally:
        for name, function in real.items():
            setattr(os, name, function)


def forked(work: Callable[[], None]) -> int:
    """Do something in a child process.

    Returns:
        the signal that killed it; 0: it came to its end.
    """
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(99)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise AssertionError("the child failed; see its traceback")
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def visible_checkpoints(directory: Directory) -> set[tuple[str, int, bytes]]:
    """Return origin, size and root of every checkpoint that somebody who looks now can see."""
    notes = []
    for path in sorted(directory.log.glob("*.log")) if directory.log.exists() else []:
        for line in path.read_bytes().split(b"\n")[:-1]:
            if line.startswith(CHECKPOINT):
                notes.append(Batch.parse(line).note)
    if directory.checkpoint.exists():
        notes.append(directory.checkpoint.read_text())
    found = set()
    for note in notes:
        try:
            checkpoint = Checkpoint.parse(Note.parse(note).text)
        except FormatError:
            continue  # the copy was being written
        found.add((checkpoint.origin, checkpoint.size, checkpoint.root))
    return found
