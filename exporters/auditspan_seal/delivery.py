# SPDX-License-Identifier: Apache-2.0
"""How far delivery is: ``delivery.json`` of a log directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.log import reader

_RANGES = 100  # ranges of rejected entries that are told apart


@dataclass(frozen=True)
class Rejected:
    """Entries of which some were not taken.

    Attributes:
        first: index of the first of them.
        end: index after the last of them.
        spans: how many spans were not taken; which ones, OTLP does not tell.
        reason: why, in the words of the receiver.
    """

    first: int
    end: int
    spans: int
    reason: str


@dataclass(frozen=True)
class Delivery:
    """How far delivery is.

    Attributes:
        cursor: the place in the log up to which everything is accepted.
        size: number of entries accepted.
        since: when the present failure began, seconds since the epoch; None: there is none.
        error: the present failure in words.
        rejected: what was not taken of what is accepted, in the order of the log.
    """

    cursor: reader.Cursor = field(default_factory=reader.Cursor)
    size: int = 0
    since: float | None = None
    error: str | None = None
    rejected: tuple[Rejected, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Delivery:
        """Read the state; a missing or damaged file means: from the start (duplicates are refused downstream)."""
        try:
            fields: dict[str, Any] = orjson.loads(path.read_bytes())
            file, offset, size = fields["file"], fields["offset"], fields["size"]
            since, error = fields.get("since"), fields.get("error")
            rejected = tuple(_rejected(item) for item in fields.get("rejected", ()))
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            return cls()
        if not (_are_numbers(offset, size) and isinstance(file, str) and "/" not in file):
            return cls()
        return cls(
            reader.Cursor(file, offset),
            size,
            float(since) if isinstance(since, (int, float)) and not isinstance(since, bool) else None,
            error if isinstance(error, str) else None,
            rejected,
        )

    def save(self, path: Path) -> None:
        """Write the state, atomically."""
        draft = path.with_suffix(".new")
        draft.write_bytes(
            orjson.dumps(
                {
                    "file": self.cursor.file,
                    "offset": self.cursor.offset,
                    "size": self.size,
                    "since": self.since,
                    "error": self.error,
                    "rejected": [[item.first, item.end, item.spans, item.reason] for item in self.rejected],
                }
            )
        )
        os.replace(draft, path)

    def with_rejected(self, found: Sequence[Rejected]) -> Delivery:
        """Return the state after some more were not taken."""
        return replace(self, rejected=_joined((*self.rejected, *found)))

    def without(self, first: int, end: int) -> Delivery:
        """Return the state after entries that were rejected are known to have arrived.

        Args:
            first: index of the first of them.
            end: index after the last of them.
        """
        return replace(self, rejected=tuple(_cut(self.rejected, first, end)))


def _joined(found: Iterable[Rejected]) -> tuple[Rejected, ...]:
    """Put ranges together that follow each other for the same reason, and more if they are too many."""
    joined: list[Rejected] = []
    for item in sorted(found, key=lambda item: item.first):
        last = joined[-1] if joined else None
        if last is not None and (last.first, last.end, last.reason) == (item.first, item.end, item.reason):
            joined[-1] = item  # the same request again
        elif last is not None and ((last.end >= item.first and last.reason == item.reason) or len(joined) >= _RANGES):
            joined[-1] = Rejected(last.first, max(last.end, item.end), last.spans + item.spans, last.reason)
        else:
            joined.append(item)
    return tuple(joined)


def _cut(found: Iterable[Rejected], first: int, end: int) -> Iterator[Rejected]:
    for item in found:
        if item.end <= first or item.first >= end:
            yield item
            continue
        before = Rejected(item.first, first, item.spans, item.reason)
        after = Rejected(end, item.end, item.spans, item.reason)
        yield from (part for part in (before, after) if part.first < part.end)


def _rejected(item: Any) -> Rejected:
    first, end, spans, reason = item
    if not (_are_numbers(first, end, spans) and isinstance(reason, str)):
        raise ValueError
    return Rejected(first, end, spans, reason)


def _are_numbers(*found: Any) -> bool:
    return all(type(number) is int and 0 <= number < 2**63 for number in found)
