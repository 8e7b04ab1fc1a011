# SPDX-License-Identifier: Apache-2.0
"""What a request carries: entries of the log, and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from auditspan_seal.formats.batch import Batch


class Entry(NamedTuple):
    """An entry of the log.

    Attributes:
        place: its index.
        statement: its statement.
        private: the private part beside it; empty if there is none.
    """

    place: int
    statement: bytes
    private: bytes


class Checkpoint(NamedTuple):
    """A checkpoint of the log.

    Attributes:
        batch: the checkpoint and its hashes.
        time: when it is sent, in nanoseconds since the epoch.
    """

    batch: Batch
    time: int


Item: TypeAlias = "Entry | Checkpoint"


@dataclass(frozen=True)
class Request:
    """The body of a request.

    Attributes:
        body: its bytes.
        spans: how many spans are in it.
        left_out: entries that no span can be made of (of a later version, or a damaged line): index, and why.
    """

    body: bytes
    spans: int
    left_out: list[tuple[int, str]] = field(default_factory=list)


Encode: TypeAlias = Callable[[str, Sequence[Item]], Request]
"""Makes a request of the origin of a log and of items."""
