# SPDX-License-Identifier: Apache-2.0
"""Sends chosen entries and checkpoints through the Collector once more, as the shipper sends them.

The one place of reconciliation that knows how documents are made and sent.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from auditspan_seal import ship
from auditspan_seal.errors import AuditspanError
from auditspan_seal.log import reader
from auditspan_seal.otlp.answer import Kind
from auditspan_seal.otlp.parcel import Entry, Item


class Resend(Protocol):
    """Sends parts of a batch again."""

    def send(self, block: reader.Block, offsets: Collection[int], checkpoint: bool) -> dict[int, str]:
        """Send some entries of a batch, and its checkpoint if that is wanted; returns when they were accepted.

        Args:
            block: the batch.
            offsets: which of its entries.
            checkpoint: whether to send its checkpoint, too.

        Returns:
            indexes of entries that were not taken, or may not have been, with the reason.

        Raises:
            AuditspanError: they were not accepted.
        """

    def close(self) -> None:
        """Let go of the connection."""


class Collector:
    """Sends to the Collector that OTEL_EXPORTER_OTLP_* name.

    Args:
        origin: the log.

    Raises:
        AuditspanError: the settings name none, or cannot be used.
    """

    def __init__(self, origin: str) -> None:
        self._origin = origin
        if ship.endpoint() is None:
            raise AuditspanError(
                "No Collector is named, so what is missing cannot be sent again.",
                "Set OTEL_EXPORTER_OTLP_ENDPOINT as it is for the audited process, or use --dry-run to compare only.",
            )
        self._sender = ship.make_sender()

    def send(self, block: reader.Block, offsets: Collection[int], checkpoint: bool) -> dict[int, str]:
        """See :class:`Resend`."""
        *entries, last = ship.items_of(block)
        return self._send([entries[offset] for offset in sorted(offsets)] + ([last] if checkpoint else []))

    def _send(self, items: Sequence[Item]) -> dict[int, str]:
        answer = ship.post(self._sender, self._origin, items)
        if answer.kind is Kind.TOO_LARGE and len(items) > 1:
            half = len(items) // 2
            return self._send(items[:half]) | self._send(items[half:])
        if answer.kind is not Kind.ACCEPTED:
            raise _not_accepted(f": {answer.problem}" if answer.problem else "")
        why = {index: f"it cannot be sent: {reason}" for index, reason in answer.left_out}
        if answer.rejected:
            # Which of them, OTLP does not tell. Those that arrive are not asked for the reason.
            said = f"of the records sent with it the Collector did not take {answer.rejected}: {answer.reason}"
            why = {item.place: said for item in items if isinstance(item, Entry)} | why
        return why

    def close(self) -> None:
        """See :class:`Resend`."""
        self._sender.close()


def _not_accepted(why: str) -> AuditspanError:
    return AuditspanError(
        f"The Collector at {ship.endpoint()} did not accept what is missing in Elasticsearch{why}.",
        "See that it runs and can be reached, and reconcile again; what is missing stays on record in the receipt.",
    )
