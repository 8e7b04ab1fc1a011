# SPDX-License-Identifier: Apache-2.0
"""One reconciliation of a log directory with an Elasticsearch: compare, bring back, look again, keep the receipt.

What is new since the last receipt is read back and hashed. Of what was seen before, the documents are counted, and
only where the count is not right they are read again; `full` reads all of them. The receipt is only as good as that:
a deleted document whose place in the count was taken by another one is found by `full`, and by verification.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from auditspan_seal.delivery import Delivery
from auditspan_seal.errors import AuditspanError
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.pruned import Pruned
from auditspan_seal.log.receipt import MAX_OPEN, Open, Receipt
from auditspan_seal.reconcile.compare import (
    ALTERED,
    MISSING,
    Difference,
    again,
    compare,
    count,
    ranges,
    time_of,
    windows,
)
from auditspan_seal.reconcile.explain import explain
from auditspan_seal.reconcile.held import Held
from auditspan_seal.reconcile.outcome import Outcome, Settings
from auditspan_seal.reconcile.resend import Resend
from auditspan_seal.verify.elasticsearch import connect, without_password
from auditspan_seal.verify.progress import Progress

PORTION = 10_000  # differences that are dealt with at once: their statements are in memory
_SAVE_EVERY = 50  # windows
_PAUSE = 1.0  # seconds between two looks
_LONGEST = 20  # times as long it may go on, if a little comes again and again
_SHORT = 3.0  # seconds to wait in what is not the last part; it is on its way, too, if the Collector has a long queue


def reconcile(
    url: str,
    directory: Directory,
    resender: Callable[[], Resend],
    settings: Settings,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Reconcile an Elasticsearch with the log of a directory.

    Args:
        url: URL of the Elasticsearch; credentials as for verification.
        directory: the log directory; it may be in use.
        resender: makes what sends, when something is to be sent.
        settings: how.
        tell: is told what goes on.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
        DirectoryError: the log cannot be read, or is not as it was signed.
        OSError: the receipt cannot be written.
    """
    with closing(connect(url)) as client:
        run = _Run(client, without_password(url), directory, resender, settings, tell)
        try:
            return run.go()
        finally:
            run.close()


@dataclass
class _Count:
    """Documents of a part of the log, that ends at an index."""

    end: int
    documents: int
    checkpoints: int


class _Run:
    """One reconciliation."""

    def __init__(
        self,
        client: Any,
        place: str,
        directory: Directory,
        resender: Callable[[], Resend],
        settings: Settings,
        tell: Callable[[str], None],
    ) -> None:
        self._client = client
        self._directory = directory
        self._resender = resender
        self._settings = settings
        self._tell = tell
        self._progress = Progress(tell)
        self._held = Held(client, directory.origin)
        self._resend: Resend | None = None
        self._standing = False
        self._left: list[Difference] = []
        self._counts: list[_Count] = []  # in order
        self._before = Receipt.load(directory)
        self._known_open: dict[str, list[Open]] = {}
        for item in sorted(self._before.open if self._before is not None else (), key=lambda item: item.first):
            self._known_open.setdefault(item.kind, []).append(item)
        self._receipt = Receipt(directory.origin, place=place, cluster=_cluster(client))
        self._outcome = Outcome(self._receipt, dry_run=settings.dry_run)

    def close(self) -> None:
        self._held.close()
        if self._resend is not None:
            self._resend.close()

    def go(self) -> Outcome:
        outcome, directory = self._outcome, self._directory
        delivery = Delivery.load(directory.delivery)
        names = reader.files(directory.log)
        begin = reader.first_of(names[0]) if names else 0
        newest = reader.newest(directory.log)
        outcome.sequenced = newest[0].size if newest is not None else 0
        outcome.delivered = min(delivery.size, outcome.sequenced)
        outcome.delivery_error = delivery.error
        self._held.look()
        self._receipt = replace(self._receipt, begin=begin, seen=begin)
        known = self._known(begin)
        outcome.begin = self._base(begin) if known > begin else begin
        self._go_through(outcome.begin, outcome.delivered, known)
        self._finish()
        return outcome

    # -- comparing ---------------------------------------------------------------------------------------------

    def _known(self, begin: int) -> int:
        """Return the size up to which it was compared before, with this Elasticsearch."""
        before = self._before
        if before is None or self._settings.full:
            return begin
        if (before.place, before.cluster) != (self._receipt.place, self._receipt.cluster):
            self._tell("the last receipt is of another Elasticsearch: everything is compared")
            return begin
        return max(begin, min(before.seen, self._outcome.delivered))

    def _base(self, begin: int) -> int:
        """Return the size up to which Elasticsearch has as many documents as last time: that need not be read again."""
        before = self._before
        if before is None or before.begin != begin or before.base <= begin:
            return begin
        if before.expired and before.base != before.seen:
            return begin  # of what is expired, it is not known what came before
        if self._held.count(begin, before.base) != (before.documents, before.checkpoints):
            self._tell("Elasticsearch has not as many documents as at the last reconciliation: looking closer")
            return begin
        self._counts.append(_Count(before.base, before.documents, before.checkpoints))
        self._receipt = replace(self._receipt, seen=before.base, expired=before.expired)
        self._outcome.counted += before.documents + before.checkpoints
        return before.base

    def _go_through(self, begin: int, end: int, known: int) -> None:
        portion: list[Difference] = []
        for number, window in enumerate(windows(self._directory, begin, end, known), 1):
            part = count(self._held, window) if window[-1].batch.size <= known else None
            if part is not None:
                self._outcome.counted += part.documents + part.checkpoints
            else:
                part = compare(self._held, window)
                self._outcome.hashed += part.hashed
                self._outcome.copies += part.copies
            portion += part.differences
            self._receipt = replace(self._receipt, seen=part.end)
            self._counts.append(_Count(part.end, part.documents, part.checkpoints))
            self._progress.at(part.end - begin, (part.end - begin) / max(1, end - begin))
            if len(portion) >= PORTION:
                self._settle(portion, last=False)
                portion = []
            if number % _SAVE_EVERY == 0 and not portion and part.end > known and not self._settings.dry_run:
                self._keep()
        self._settle(portion, last=True)

    # -- bringing back -----------------------------------------------------------------------------------------

    def _settle(self, differences: list[Difference], *, last: bool) -> None:
        """Bring back what is missing, as far as that is possible; the rest is kept.

        Args:
            differences: what is different in a part of the log.
            last: it is the last part, of which documents are most likely to be on their way still.
        """
        differences = self._without_expired(differences)
        if any(item.state == MISSING for item in differences) and (last or not self._standing):
            seconds = self._settings.wait if last else min(_SHORT, self._settings.wait)
            before = len(differences)
            differences = self._wait(differences, seconds, "waiting in case they are on their way")
            self._standing = len(differences) == before
        differences = [self._as_known(item) for item in differences]
        missing = [
            item for item in differences if item.state != ALTERED and (self._settings.resend_open or not item.why)
        ]
        if missing and not self._settings.dry_run and self._outcome.problem is None:
            self._tell(f"{len(missing)} documents are missing in Elasticsearch: sending them again")
            why = self._send(missing)
            differences = [item if item.state == ALTERED else item.with_state(MISSING) for item in differences]
            left = self._wait(differences, self._settings.arrival, "waiting for what was sent again")
            ids = {item.document_id for item in left}
            self._outcome.returned += ranges(item for item in missing if item.document_id not in ids)
            del self._outcome.returned[MAX_OPEN:]
            differences = [
                item.with_state(item.state, why[item.document_id]) if item.document_id in why else item for item in left
            ]
            unexplained = [item for item in differences if item.state == MISSING and not item.why]
            explained = {item.document_id: item for item in explain(self._held, self._client, unexplained)}
            differences = [explained.get(item.document_id, item) for item in differences]
        self._left += differences

    def _as_known(self, item: Difference) -> Difference:
        """Return what is missing with what the last receipt says of it: it may not be sent and explained this time."""
        known = self._known_open.get("checkpoint" if item.offset is None else "entry", [])
        at = bisect_right(known, item.index, key=lambda other: other.first) - 1
        if item.state != MISSING or at < 0 or known[at].last < item.index or known[at].state == ALTERED:
            return item
        return item.with_state(known[at].state, known[at].why)

    def _without_expired(self, differences: list[Difference]) -> list[Difference]:
        retention = self._settings.retention
        if retention is None or not differences:
            return differences
        oldest = time.time_ns() - int(retention * 1e9)
        blocks = {item.block.batch.first: item.block for item in differences}
        old = {first for first, block in blocks.items() if time_of(block) < oldest}
        left = [item for item in differences if item.state != MISSING or item.block.batch.first not in old]
        self._receipt = replace(self._receipt, expired=self._receipt.expired + len(differences) - len(left))
        return left

    def _wait(self, differences: list[Difference], seconds: float, what: str) -> list[Difference]:
        """Look again until nothing is missing any more, or nothing has come for so many seconds."""
        begin = time.monotonic()
        deadline = begin + seconds
        while True:
            missing = sum(item.state == MISSING for item in differences)
            pause = min(_PAUSE, deadline - time.monotonic())
            if not missing or pause <= 0:
                return differences
            self._progress.say(f"{missing} documents are not there; {what} …")
            time.sleep(pause)
            self._held.look()
            left = again(self._held, differences)
            self._count(differences, left)
            if len(left) < len(differences):
                deadline = min(time.monotonic(), begin + _LONGEST * seconds) + seconds
            differences = left

    def _count(self, before: list[Difference], after: list[Difference]) -> None:
        """Count the documents that came in the meantime."""
        left = {item.document_id for item in after if item.state == MISSING}
        came = [item for item in before if item.state == MISSING and item.document_id not in left]
        self._outcome.hashed += len(came)
        for item in came:
            count = self._counts[bisect_right(self._counts, item.index, key=lambda other: other.end)]
            if item.offset is None:
                count.checkpoints += 1
            else:
                count.documents += 1

    def _send(self, missing: list[Difference]) -> dict[str, str]:
        """Send what is missing, batch by batch; returns why what could not be sent was not: document ID → reason."""
        why: dict[str, str] = {}
        blocks: dict[int, list[Difference]] = {}
        for item in missing:
            blocks.setdefault(item.block.batch.first, []).append(item)
        for _, items in sorted(blocks.items()):
            offsets = [item.offset for item in items if item.offset is not None]
            try:
                self._resend = self._resend or self._resender()
                refused = self._resend.send(items[0].block, offsets, any(item.offset is None for item in items))
                entries = [item for item in items if item.offset is not None]
                why.update((item.document_id, refused[item.index]) for item in entries if item.index in refused)
                self._outcome.resent += len(items)
            except AuditspanError as error:
                self._outcome.problem = str(error)
                break
        return why

    # -- receipt -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        if not self._settings.dry_run:
            self._keep()
        else:
            self._conclude()

    def _keep(self) -> None:
        self._conclude()
        self._outcome.receipt.save(self._directory)

    def _conclude(self) -> None:
        """Work out how far Elasticsearch holds everything."""
        found, seen = ranges(self._left), self._receipt.seen
        if len(found) > MAX_OPEN:
            seen = min(item.block.batch.first for item in self._left if item.index >= found[MAX_OPEN].first)
            found = ranges(item for item in self._left if item.block.batch.first < seen)
        size = min((item.block.batch.first for item in self._left), default=seen)
        note = self._note_of(size)
        counted = [item for item in self._counts if item.end <= size]
        self._outcome.receipt = replace(
            self._receipt,
            seen=seen,
            size=size if note else 0,
            note=note,
            base=counted[-1].end if counted else self._receipt.begin,
            documents=sum(item.documents for item in counted),
            checkpoints=sum(item.checkpoints for item in counted),
            open=tuple(found),
            time=time.time(),
        )

    def _note_of(self, size: int) -> str:
        """Return the checkpoint of a size; empty: the directory has none."""
        for known in (self._before, Pruned.load(self._directory)):
            if known is not None and known.size == size:
                return known.note
        folder = self._directory.log
        for block in reader.blocks(folder, reader.cursor_of(folder, size - 1)):
            if isinstance(block, reader.Block) and block.batch.size >= size:
                return block.batch.note if block.batch.size == size else ""
        return ""


def _cluster(client: Any) -> str:
    """Return name and ID of the cluster; empty if that may not be known."""
    from elasticsearch import ApiError, TransportError

    try:
        found = client.perform_request("GET", "/_cluster/state/version", headers={"accept": "application/json"}).body
        return f"{found['cluster_name']} ({found['cluster_uuid']})"
    except (ApiError, TransportError, KeyError, TypeError):
        return ""
