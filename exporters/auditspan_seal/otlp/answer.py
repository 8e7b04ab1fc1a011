# SPDX-License-Identifier: Apache-2.0
"""What a receiver answers, and what that means for the log (https://opentelemetry.io/docs/specs/otlp/#otlphttp-response)."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from auditspan_seal.otlp.parcel import Item

LONGEST_WAIT = 3600.0  # seconds; who asks for more is asked again after this


class Kind(enum.Enum):
    """What is to be done."""

    ACCEPTED = "accepted"
    LATER = "later"  # the receiver is away or busy: again, soon
    REFUSED = "refused"  # somebody has to mend something: again, slowly
    TOO_LARGE = "too large"  # again, in parts
    BROKEN = "broken"  # the connection broke on the way: as LATER, but it may have been too large (see http.py)


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        kind: what is to be done.
        problem: what is wrong, for people; None: nothing.
        wait: seconds that the receiver asks to wait; None: it does not say.
        rejected: spans that it rejected of a request that it accepted.
        reason: why it rejected them, in its words.
        left_out: entries that no span can be made of: index, and why.
    """

    kind: Kind
    problem: str | None = None
    wait: float | None = None
    rejected: int = 0
    reason: str = ""
    left_out: Sequence[tuple[int, str]] = field(default=())


@dataclass(frozen=True)
class Encoded:
    """A request that is made before it can be sent.

    Attributes:
        items: what it carries.
        encoding: how it is written.
        content: what is to be sent.
        spans: how many spans are in it.
        left_out: entries that no span can be made of: index, and why.
    """

    items: Sequence[Item]
    encoding: object
    content: Any
    spans: int
    left_out: Sequence[tuple[int, str]]


class Sender(Protocol):
    """Sends one request at a time. The next one may be made in another thread meanwhile."""

    def encode(self, origin: str, items: Sequence[Item]) -> Encoded:
        """Make a request of items of the log with this origin."""

    def send(self, origin: str, items: Sequence[Item], encoded: Encoded | None = None) -> Answer:
        """Send items; never raises for what the network or the receiver does.

        Args:
            origin: name of the log.
            items: what to send.
            encoded: the same, made before; None: it is made now.
        """

    def close(self) -> None:
        """Give connections back."""


def seconds_of(retry_after: str | None) -> float | None:
    """Read a ``Retry-After`` header (RFC 9110 10.2.3): seconds, or a date; None: there is none, or it is neither."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            date = parsedate_to_datetime(retry_after)
        except (TypeError, ValueError):
            return None
        seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - time.time()
    return min(LONGEST_WAIT, max(0.0, seconds)) if math.isfinite(seconds) else None
