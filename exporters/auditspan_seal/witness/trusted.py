# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that were kept elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.witness_policy import Policy


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
    note: str = ""


@dataclass
class Trusted:
    """What was found in a second place."""

    checkpoints: list[TrustedCheckpoint] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)


def load(place: str, policy: Policy | None, log_keys: Sequence[VerifierKey]) -> Trusted:
    """Read the checkpoints in a second place: here a file with one note."""
    try:
        note = Note.parse(Path(place).read_text(encoding="utf-8"))
        checkpoint = Checkpoint.parse(note.text)
    except (OSError, FormatError, UnicodeDecodeError) as error:
        raise SourceError(f"{place} cannot be read: {error}.", "Check --checkpoints.") from None
    found = TrustedCheckpoint(checkpoint.origin, checkpoint.size, checkpoint.root, place)
    return Trusted([found], [])
