# SPDX-License-Identifier: Apache-2.0
"""How the last attempt to reconcile ended, so that ``auditspan status`` can say that nobody gets through."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import orjson

from auditspan_seal.keys import safe
from auditspan_seal.log.directory import Directory

NAME = "reconciliation.json"


@dataclass(frozen=True)
class Attempt:
    """The last attempt to reconcile.

    Attributes:
        time: when it ended, in seconds since the epoch.
        error: why it failed, in words; None: it did not.
        since: when the first of the attempts that failed in a row ended; None: the last one did not fail.
        every: seconds between attempts where an agent makes them; None: somebody did it by hand.
    """

    time: float
    error: str | None = None
    since: float | None = None
    every: float | None = None

    @classmethod
    def load(cls, directory: Directory) -> Attempt | None:
        """Read the last attempt; None: there was none, or it is not known."""
        try:
            found = cls(**orjson.loads((directory.path / NAME).read_bytes()))
            for number in (found.time, found.since or 0.0, found.every or 0.0):
                float(number)
        except (OSError, orjson.JSONDecodeError, TypeError, ValueError):
            return None
        return found if found.error is None or isinstance(found.error, str) else None

    @classmethod
    def ended(cls, directory: Directory, error: str | None, every: float | None = None) -> None:
        """Write how an attempt ended just now.

        Raises:
            OSError: it cannot be written.
        """
        now = time.time()
        before = cls.load(directory)
        since = (before.since if before is not None and before.since else now) if error is not None else None
        safe.replace(directory.path / NAME, orjson.dumps(asdict(cls(now, error, since, every))), 0o640)
