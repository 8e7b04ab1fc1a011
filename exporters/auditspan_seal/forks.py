# SPDX-License-Identifier: Apache-2.0
"""Keeps forks out of the moments in which one of our threads imports something.

A child that is forked while a thread imports a module finds its lock taken for ever: the first ``import`` of it, by the
application perhaps, never returns. Servers that fork their workers do so just when auditing begins to work.
"""

from __future__ import annotations

import contextlib
import os
import threading
from contextlib import AbstractContextManager

_LONGEST = 2.0  # seconds that a fork waits at most
_lock = threading.RLock()


def kept_out() -> AbstractContextManager[object]:
    """Return what keeps forks out while it is entered; it is for imports, not for anything that can take long."""
    return _lock


def _before() -> None:
    _lock.acquire(timeout=_LONGEST)


def _in_parent() -> None:
    with contextlib.suppress(RuntimeError):  # it could not be had in time
        _lock.release()


def _in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
