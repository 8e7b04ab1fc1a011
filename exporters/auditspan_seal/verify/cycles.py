# SPDX-License-Identifier: Apache-2.0
"""Reading without Python's search for cycles.

So many objects are made of what is read that the search takes a quarter to a third of the time, and there are hardly
any cycles.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_RARELY = 32


@contextmanager
def left_alone() -> Iterator[None]:
    """Seek no cycles meanwhile."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@contextmanager
def sought_rarely() -> Iterator[Callable[[], None]]:
    """Seek cycles only with every 32nd call of what is handed out: for what reads on and on."""
    count = 0

    def seek() -> None:
        nonlocal count
        count += 1
        if count % _RARELY == 0:
            gc.collect()

    with left_alone():
        yield seek
