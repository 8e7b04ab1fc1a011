# SPDX-License-Identifier: Apache-2.0
"""Faults of our own code: never raised into the audited application, never silent.

A fault is counted, logged once per place with its traceback, and shown by ``auditspan status``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger("auditspan")

_CONTAINED = (
    "auditspan: a fault in '%s' was contained; the application goes on, the record of this event may be missing. "
    "Further faults here are only counted: see `auditspan status`."
)
_CUT_SHORT = (
    "auditspan: '%s' was cut short by an exception of a signal handler of the application, which gets it; the record "
    "of this event may be missing. Further ones here are only counted: see `auditspan status`."
)


@dataclass(frozen=True)
class Fault:
    """All faults of one place: how often, and the last one in words (type and message, no values)."""

    count: int
    last: str


_lock = threading.Lock()
_faults: dict[str, Fault] = {}
_listeners: list[Callable[[], None]] = []
_let_through: Callable[[BaseException], None] | None = None


def count(where: str, error: BaseException) -> None:
    """Count one fault of our own code.

    Args:
        where: the hook or part at fault, for example ``apscheduler: BaseExecutor.submit_job``.
        error: what was raised. Only its type is kept: its text may hold the application's data.

    Raises:
        BaseException: that one, if it is not ours to contain: see :func:`let_through_by`.
    """
    passing: BaseException | None = None
    if _let_through is not None:
        try:
            _let_through(error)
        except BaseException as found:
            passing = found
    with _lock:
        known = _faults.get(where)
        _faults[where] = Fault((known.count if known else 0) + 1, type(error).__name__)
    if known is None:
        logger.error(_CONTAINED if passing is None else _CUT_SHORT, where, exc_info=error if passing is None else None)
    for listener in tuple(_listeners):
        try:
            listener()
        except Exception:
            logger.exception("auditspan: a fault could not be reported")
    if passing is not None:
        raise passing


def let_through_by(call: Callable[[BaseException], None]) -> None:
    """Have `call` look at what was raised in our code; it raises on what comes out of the application's own handlers.

    A time limit may strike between any two instructions, in ours as well. Contained, it would be gone, and the
    application would go on over its limit.
    """
    global _let_through
    _let_through = call


def snapshot() -> dict[str, Fault]:
    """Return a copy of all faults counted in this process, by place."""
    with _lock:
        return dict(_faults)


def on_fault(listener: Callable[[], None]) -> None:
    """Call `listener` after each counted fault (the boot uses it to publish the counts at once)."""
    _listeners.append(listener)


def forget() -> None:
    """Forget the counts: a forked child starts with none of its parent's."""
    global _lock
    _lock = threading.Lock()  # the one of the parent may be held by a thread that the child does not have
    _faults.clear()


class contained:
    """Run our own code so that no :class:`Exception` of it gets out; see :func:`count`.

    Args:
        where: see :func:`count`.
    """

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        """Count an exception."""
        if not isinstance(error, Exception):
            return False
        count(self._where, error)
        return True
