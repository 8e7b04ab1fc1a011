# SPDX-License-Identifier: Apache-2.0
"""What ``span.end()`` waits for, as `AUDITSPAN_MODE` and its companions say; see docs/durability.md."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

DURABLE = "durable"
SYNCED = "synced"
DEFERRED = "deferred"
COUNT = "count"
BLOCK = "block"
MAX_WAIT = 5.0  # seconds, if AUDITSPAN_MAX_WAIT does not say otherwise
_LONGEST = 3600.0


@dataclass(frozen=True)
class Modes:
    """Settings of recording.

    Attributes:
        mode: :data:`DURABLE`: a record survives the death of the process; :data:`SYNCED`: it is in a signed checkpoint
            on disk; :data:`DEFERRED`: it is in a bounded queue in memory.
        when_full: what is done with a record that cannot be written: :data:`COUNT` it at once, or :data:`BLOCK` and try
            again for a while.
        max_wait: seconds that one record waits at most, for the one and for the other.
        problem: what of the settings is wrong, for people; None: nothing.
    """

    mode: str = DURABLE
    when_full: str = COUNT
    max_wait: float = MAX_WAIT
    problem: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Modes:
        """Read the settings; what cannot be understood is as if it were not set, and told in `problem`."""
        problems: list[str] = []

        def choice(name: str, default: str, *others: str) -> str:
            text = environment.get(name, "").strip().lower()
            if text in ("", default, *others):
                return text or default
            allowed = " or ".join((default, *others))
            problems.append(f"{name} is {environment[name]!r}, not {allowed}; it is {default} now.")
            return default

        mode = choice("AUDITSPAN_MODE", DURABLE, SYNCED, DEFERRED)
        when_full = choice("AUDITSPAN_WHEN_FULL", COUNT, BLOCK)
        text = environment.get("AUDITSPAN_MAX_WAIT", "").strip()
        try:
            max_wait = float(text or MAX_WAIT)
        except ValueError:
            max_wait = -1.0
        if not 0 <= max_wait <= _LONGEST:
            problems.append(
                f"AUDITSPAN_MAX_WAIT is {text!r}, not a number of seconds up to {_LONGEST:.0f}; "
                f"it is {MAX_WAIT:.0f} now."
            )
            max_wait = MAX_WAIT
        return cls(mode, when_full, max_wait, " ".join(problems) or None)
