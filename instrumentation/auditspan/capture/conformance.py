# SPDX-License-Identifier: Apache-2.0
"""Records that do not follow the registry: kept, marked, counted. Losing them would be worse than their fault.

In production one comparison of sets tells what is missing (:func:`auditspan.schema.missing`). With
``AUDITSPAN_VALIDATE=true``, as in the tests, every value is looked at.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditspan import schema

logger = logging.getLogger("auditspan")


@dataclass(frozen=True)
class NonConformant:
    """All such records of one plugin: how many, and what was wrong with the last one."""

    count: int
    last: tuple[str, ...]


_lock = threading.Lock()
_counted: dict[str, NonConformant] = {}
_whole = os.environ.get("AUDITSPAN_VALIDATE", "").strip().lower() == "true"


def validate_whole(on: bool) -> None:
    """Look at every value from now on, or only at what is missing (the default, without AUDITSPAN_VALIDATE=true)."""
    global _whole
    _whole = on


def judge(attributes: Mapping[str, Any], plugin: str) -> list[str] | None:
    """Judge a finished record.

    Args:
        attributes: all that it says.
        plugin: who made it; the fault is counted there.

    Returns:
        What is wrong, for the record itself; None: nothing.
    """
    if _whole:
        reasons = schema.violations(attributes)
    else:
        reasons = [f"{name}: required, missing" for name in schema.missing(attributes)]
    if not reasons:
        return None
    with _lock:
        known = _counted.get(plugin)
        _counted[plugin] = NonConformant((known.count if known else 0) + 1, tuple(reasons))
    if known is None:
        logger.error(
            "auditspan: a record of %s does not follow the registry (%s). It is recorded and marked as "
            "non-conformant. Further ones are only counted: see `auditspan status`.",
            plugin,
            "; ".join(reasons[:5]),
        )
    return reasons


def snapshot() -> dict[str, NonConformant]:
    """Return a copy of what was counted in this process, by plugin."""
    with _lock:
        return dict(_counted)


def forget() -> None:
    """Forget the counts: a forked child starts with none of its parent's."""
    global _lock
    _lock = threading.Lock()  # the one of the parent may be held by a thread that the child does not have
    _counted.clear()
