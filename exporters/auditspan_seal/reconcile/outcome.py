# SPDX-License-Identifier: Apache-2.0
"""What a reconciliation is asked to do, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from auditspan_seal.log.receipt import Open, Receipt
from auditspan_seal.reconcile.compare import ALTERED

WAIT = 15.0  # seconds for documents that are on their way
ARRIVAL = 30.0  # seconds for what was sent again; the Collector's queue is emptied every half second


@dataclass
class Outcome:
    """What a reconciliation came to.

    Attributes:
        receipt: the receipt, as it was written (with `dry_run`: as it would have been).
        sequenced: tree size of the log.
        delivered: how many entries the Collector has accepted; no more can be expected.
        delivery_error: why it is no more at present.
        begin: index from which on it was compared.
        counted: entries and checkpoints that were compared by counting.
        hashed: documents that were read back and hashed.
        copies: documents that say what another one says, among those that were read back.
        returned: what was missing, was sent again, and is there now.
        resent: how many entries and checkpoints were sent again.
        problem: why nothing could be sent again, in words.
        dry_run: nothing was sent, and no receipt was written.
    """

    receipt: Receipt
    sequenced: int = 0
    delivered: int = 0
    delivery_error: str | None = None
    begin: int = 0
    counted: int = 0
    hashed: int = 0
    copies: int = 0
    returned: list[Open] = field(default_factory=list)
    resent: int = 0
    problem: str | None = None
    dry_run: bool = False

    @property
    def pending(self) -> int:
        """Entries of the log that the Collector has not accepted yet."""
        return max(0, self.sequenced - self.delivered)

    @property
    def altered(self) -> bool:
        """Whether there are documents that sending again does not mend."""
        return any(item.state == ALTERED for item in self.receipt.open)

    @property
    def complete(self) -> bool:
        """Whether Elasticsearch holds everything that is in the log."""
        return not self.receipt.open and not self.pending


@dataclass(frozen=True)
class Settings:
    """How to reconcile.

    Attributes:
        full: read everything back, also what was seen before.
        dry_run: compare only.
        wait: seconds without a document that was on its way, after which what is missing counts as such.
        arrival: the same for what was sent again.
        retention: seconds after which Elasticsearch may have removed documents; None: it keeps all.
        resend_open: whether to send again what was missing already when it was last compared; what is newly missing
            is always sent.
    """

    full: bool = False
    dry_run: bool = False
    wait: float = WAIT
    arrival: float = ARRIVAL
    retention: float | None = None
    resend_open: bool = True
