# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were kept elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrustedCheckpoint:
    """What a log was at a time, as a second place has it.

    Attributes:
        origin: the log.
        size: its tree size.
        root: its root hash, 32 bytes.
        source: where it was kept.
        time: when, in nanoseconds since the epoch; None: not known.
        witnesses: names of those who cosigned it.
    """

    origin: str
    size: int
    root: bytes
    source: str
    time: int | None = None
    witnesses: tuple[str, ...] = ()


@dataclass
class Trusted:
    """What was found in a second place."""

    checkpoints: list[TrustedCheckpoint] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
