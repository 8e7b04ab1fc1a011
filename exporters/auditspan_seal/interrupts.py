# SPDX-License-Identifier: Apache-2.0
"""Exceptions that are not ours to contain: those that a signal handler of the application raises while we work."""

from __future__ import annotations

import signal
from types import CodeType, TracebackType
from typing import Any


def let_through(error: BaseException) -> None:
    """Raise an exception on if it comes out of a signal handler that is set now, such as a time limit for a task.

    It may arise between any two instructions of the main thread. Contained like a fault of ours it would be gone, and
    the task would go on over its limit. Only to be called when something was raised: it is not fast.

    Raises:
        BaseException: that one; also if another one followed from it.
    """
    handlers = {code for number in signal.valid_signals() if (code := _code(signal.getsignal(number))) is not None}
    follows: BaseException | None = error
    while follows is not None and handlers:
        traceback: TracebackType | None = follows.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code in handlers:
                raise follows
            traceback = traceback.tb_next
        follows = follows.__context__


def _code(handler: Any) -> CodeType | None:
    function = getattr(handler, "__func__", handler)
    found = getattr(function, "__code__", None)
    if found is None:
        found = getattr(vars(type(handler)).get("__call__"), "__code__", None)
    return found if isinstance(found, CodeType) else None
