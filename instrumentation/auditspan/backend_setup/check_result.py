# SPDX-License-Identifier: Apache-2.0
"""What a check comes to."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Result(str, enum.Enum):
    """How a check ended."""

    OK = "OK"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Check:
    """One promise, and what was found.

    Attributes:
        name: stable name, for scripts.
        result: how it ended.
        found: what was found.
        advice: what to do.
    """

    name: str
    result: Result
    found: str
    advice: str = ""


def ok(name: str, found: str) -> Check:
    """Return a check that is fulfilled."""
    return Check(name, Result.OK, found)


def failed(name: str, found: str, advice: str) -> Check:
    """Return a check that is not fulfilled."""
    return Check(name, Result.FAILED, found, advice)


def unknown(name: str, found: str, advice: str) -> Check:
    """Return a check that could not be made."""
    return Check(name, Result.UNKNOWN, found, advice)
