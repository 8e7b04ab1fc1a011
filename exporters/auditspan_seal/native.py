# SPDX-License-Identifier: Apache-2.0
"""What costs most of every record, in C: :mod:`auditspan_seal._native`, made from ``exporters/native``.

It is optional. Python's code says what is right and is there for everything; the C code does the usual case, byte for
byte the same (a test holds the two against each other), and hands back what is not usual. Without a compiler when the
package is built, or with ``AUDITSPAN_NATIVE=off``, all is done in Python. See docs/decisions/0026.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol, cast


class Recorder(Protocol):
    """Makes the lines of usual spans, and records them (``exporters/native/recorder.h``).

    Attributes:
        state: a trace state, and how it is written; a span of another one is not usual.
        count: how many it has recorded.
    """

    state: Any
    count: int

    def parts(self, span: Any, segment: str, /) -> tuple[bytes, bytes] | None:
        """Return what stands before and after the running number in the line of a span; None: it is not usual."""

    def record(self, span: Any, /) -> bool:
        """Record a finished span; tell whether that is done."""

    def end(self, span: Any, /) -> bool:
        """Record a finished span if it is an audit span; tell whether there is nothing more to do about it.

        Every 16th is not recorded, so that there is time to look after what else has to be done.
        """

    def learn(self, *usual: Any) -> None:
        """Say what a guard need not be asked (:class:`auditspan_seal.guard.Usual`); nothing: it must be asked all."""


class Native(Protocol):
    """What the module has."""

    Recorder: Callable[..., Recorder]
    Place: Callable[[], Any]

    def spans(self, entries: list[Any], begin: int, most: int, origin: bytes, /) -> tuple[bytes, bytes, bytes, int]:
        """Return resource, scope and spans of entries up to the first that is not usual, and where that is."""

    def plain(
        self, lines: list[bytes], begin: int, origin: bytes, /
    ) -> tuple[list[bytes], list[str], list[int], list[int], list[tuple[int, tuple[str, ...], str]]]:
        """Return what the verifier is to know of lines that are plain spans, up to the first that is not."""

    def usual(
        self, lines: list[bytes], segment: bytes, number: int, origin: bytes, marks: tuple[bytes, ...], /
    ) -> tuple[int, bytes]:
        """Count the lines from the first on that are spans in canonical form and at their place; and their span IDs."""


VERSION = 2
"""Of what the code here expects; a module that was built of older sources is not used."""


def _load() -> Native | None:
    if os.environ.get("AUDITSPAN_NATIVE", "").strip().lower() in ("off", "false", "no", "0"):
        return None
    try:
        from auditspan_seal import _native  # type: ignore[attr-defined]
    except ImportError:
        return None
    return cast(Native, _native) if getattr(_native, "VERSION", None) == VERSION else None


NATIVE: Native | None = _load()
"""The module; None: it is not there, or not wanted."""
