# SPDX-License-Identifier: Apache-2.0
"""Delivery: sends what is published to the Collector, in order, again and again until it is accepted.

The log on disk is the queue: the cursor in ``delivery.json`` moves only after the Collector accepted a batch. What is
sent twice (a crash between acceptance and the moved cursor) is refused as a duplicate by Elasticsearch, because the
Collector derives the document ID from origin, index and statement.

What a Collector accepted only in part (OTLP partial success) must not be sent again at once. It is remembered as
rejected, and ``auditspan status`` shows it until reconciliation has found it or sent it again.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from opentelemetry import context as otel_context

from auditspan_seal.delivery import Delivery, Rejected
from auditspan_seal.errors import AuditspanError
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.otlp import settings
from auditspan_seal.otlp.answer import Answer, Encoded, Kind, Sender
from auditspan_seal.otlp.parcel import Checkpoint, Entry, Item

logger = logging.getLogger("auditspan")

_LONGEST_PAUSE = 30.0  # seconds between attempts while the receiver is away or busy
_LONGEST_PAUSE_REFUSED = 300.0  # the same where somebody has to mend something first
_REQUEST = 1024 * 1024  # bytes of statements in a request, about; its body has about three times as much
_SMALLEST_REQUEST = 16 * 1024
_GROWS_AFTER = 100  # requests that were accepted since one broke
_BREAKS = 5  # times in a row that a large record breaks the connection before it is taken for too large
_LARGE = 64 * 1024  # bytes of a statement

endpoint = settings.endpoint


def load() -> None:
    """Import what sending by the protocol of the environment needs; nothing if nothing is sent."""
    if endpoint() is None:
        return
    with contextlib.suppress(AuditspanError):  # a protocol that is not known is said when it is to be used
        protocol = settings.protocol()
        if protocol == "grpc":
            import grpc  # noqa: F401

            import auditspan_seal.otlp.grpc
        else:
            import requests  # noqa: F401

            import auditspan_seal.otlp.http  # noqa: F401
        if protocol in ("grpc", "http/protobuf"):
            import opentelemetry.exporter.otlp.proto.common.trace_encoder  # noqa: F401


def make_sender() -> Sender:
    """Make what sends by the protocol that the environment names.

    Raises:
        AuditspanError: the protocol is not known.
    """
    chosen = settings.load()
    if chosen.protocol == "grpc":
        from auditspan_seal.otlp.grpc import GrpcSender

        return GrpcSender(chosen)
    from auditspan_seal.otlp.http import HttpSender

    return HttpSender(chosen)


def post(sender: Sender, origin: str, items: Sequence[Item], encoded: Encoded | None = None) -> Answer:
    """Send one request, see :meth:`Sender.send`. It is not the automation's: HTTP instrumentations leave it alone."""
    token = otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))
    try:
        return sender.send(origin, items, encoded)
    finally:
        otel_context.detach(token)


class Shipper:
    """Sends the log of a directory. Only the sequencer of the directory may have one.

    Args:
        directory: the directory.
        sender: how to send; closed by :meth:`close`.
    """

    def __init__(self, directory: Directory, sender: Sender) -> None:
        self._directory = directory
        self._sender = sender
        self._delivery = Delivery.load(directory.delivery)
        self._lock = threading.Lock()  # of the state: stop() is called from another thread
        self._stopped = False
        self._request = _REQUEST  # bytes of statements in a request at present
        self._limit = _REQUEST  # the same, at most: less where a receiver has said that it was too large
        self._accepted = 0  # requests since one broke
        self._settled = 0  # items after the cursor that are accepted already
        self._breaks: Counter[int] = Counter()  # entry that was sent alone → times that it broke the connection
        self._refused = False
        self._asked: float | None = None  # when a request was sent that is not answered yet
        self._not_before = 0.0  # the receiver asked not to be asked again before this moment

    @property
    def delivery(self) -> Delivery:
        """How far delivery is."""
        return self._delivery

    def stop(self) -> None:
        """Make :meth:`ship` return soon, and have nothing written any more: the directory may have another owner."""
        with self._lock:
            if not self._stopped and self._asked is not None:
                waited = time.monotonic() - self._asked
                self._note(
                    f"{settings.shown(endpoint() or '')} did not answer within {waited:.1f} s; then the process ended"
                )
            self._stopped = True

    def ship(self) -> bool:
        """Send everything that is published.

        Returns:
            Whether all of it was accepted; False: try again after :meth:`pause`.
        """
        if time.monotonic() < self._not_before:
            return False
        shipments = self._shipments()
        shipment, ahead = next(shipments, None), None
        while shipment is not None:
            following = next(shipments, None)
            encoded = ahead.result() if ahead is not None else None
            # While the network is waited for, the next request is made.
            ahead = self._encode_ahead(following.items) if following is not None else None
            # What was accepted of it last time, before something went wrong, is not sent again.
            self._settled = self._send_from(shipment.items, self._settled, encoded)
            if self._settled < len(shipment.items) or not self._moved(shipment.after, shipment.size):
                return False
            shipment = following
        return True

    def send(self, items: Sequence[Item]) -> bool:
        """Send some items of the log, whatever was sent before; the cursor stays where it is.

        Returns:
            Whether all of it was accepted.
        """
        return self._send_from(items, 0) == len(items)

    def settled(self, first: int, end: int) -> None:
        """Forget that entries were rejected: they are known to have arrived.

        Args:
            first: index of the first of them.
            end: index after the last of them.
        """
        with self._lock:
            self._delivery = self._delivery.without(first, end)
            self._save()

    def pause(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row, in seconds; there is no last try."""
        asked_for = self._not_before - time.monotonic()
        return max(asked_for, backoff(failures, _LONGEST_PAUSE_REFUSED if self._refused else _LONGEST_PAUSE))

    def close(self) -> None:
        """Close the sender."""
        with contextlib.suppress(Exception):
            self._sender.close()

    # -- what is sent ------------------------------------------------------------------------------------------

    def _shipments(self) -> Iterator[_Shipment]:
        """Put small batches of the log together."""
        pending: list[Item] = []
        size = 0
        last: reader.Block | None = None
        for block in reader.blocks(self._directory.log, self._delivery.cursor):
            if not isinstance(block, reader.Block):
                break  # a batch that is being written
            items = items_of(block)
            weight = sum(map(_weight, items))
            if last is not None and size + weight > _REQUEST:
                yield _Shipment(pending, last.after, last.batch.size)
                pending, size = [], 0
            pending += items
            size += weight
            last = block
        if last is not None:
            yield _Shipment(pending, last.after, last.batch.size)

    def _encode_ahead(self, items: Sequence[Item]) -> _Ahead:
        first = items[: self._end_of_request(items, 0)]
        return _Ahead(lambda: self._sender.encode(self._directory.origin, first))

    def _send_from(self, items: Sequence[Item], start: int, encoded: Encoded | None = None) -> int:
        """Send items in requests of the present size; return up to where there is nothing more to do."""
        while start < len(items) and not self._stopped:
            end = self._end_of_request(items, start)
            fits = encoded is not None and (start, end) == (0, len(encoded.items))
            done = self._send(items[start:end], encoded if fits else None)
            if done:
                start = end
            elif done is not None:
                break
        return start

    def _end_of_request(self, items: Sequence[Item], start: int) -> int:
        size = 0
        for end in range(start, len(items)):
            size += _weight(items[end])
            if end > start and size > self._request:
                return end
        return len(items)

    def _send(self, items: Sequence[Item], encoded: Encoded | None) -> bool | None:
        """Send one request; return whether it was accepted. None: it is to be sent again in parts."""
        self._asked = time.monotonic()
        try:
            answer = post(self._sender, self._directory.origin, items, encoded)
        except Exception as error:
            answer = Answer(Kind.REFUSED, f"{type(error).__name__} while sending to {endpoint()}: {error}")
        finally:
            self._asked = None
        self._refused = answer.kind is Kind.REFUSED
        if answer.kind is Kind.ACCEPTED:
            self._grow()
            self._reject(items, answer)
            return True
        if answer.kind is Kind.TOO_LARGE and len(items) > 1:
            self._limit = self._request = max(1, sum(map(_weight, items)) // 2)
            return None
        if answer.kind is Kind.BROKEN:
            self._request, self._accepted = max(_SMALLEST_REQUEST, self._request // 2), 0
        if answer.kind is Kind.TOO_LARGE or (answer.kind is Kind.BROKEN and self._is_too_large(items)):
            # Alone it is still too large: nothing that comes after it must wait for it for ever.
            self._reject(items, Answer(Kind.ACCEPTED, rejected=1, reason=f"too large: {answer.problem}"))
            return True
        if answer.wait is not None:
            self._not_before = time.monotonic() + answer.wait
        with self._lock:
            self._note(answer.problem or "the records were not accepted")
        return False

    def _grow(self) -> None:
        """Go back to larger requests after small ones have got through for a while."""
        self._accepted += 1
        if self._request < self._limit and self._accepted >= _GROWS_AFTER:
            self._request, self._accepted = min(self._limit, self._request * 2), 0

    def _is_too_large(self, items: Sequence[Item]) -> bool:
        """Tell whether it is a large record itself, and not the network, that breaks the connection again and again."""
        item = items[0]
        if len(items) > 1 or not isinstance(item, Entry) or len(item.statement) < _LARGE:
            return False
        self._breaks[item.place] += 1
        if self._breaks[item.place] < _BREAKS:
            return False
        small = next(reader.batches(self._directory.log))
        probe = post(self._sender, self._directory.origin, [Checkpoint(small.batch, time.time_ns())])
        return probe.kind is Kind.ACCEPTED

    # -- what is remembered ------------------------------------------------------------------------------------

    def _moved(self, after: reader.Cursor, size: int) -> bool:
        with self._lock:
            if self._delivery.error is not None:
                logger.warning("auditspan: delivery goes on.")
            self._settled = 0
            self._breaks.clear()
            self._delivery = replace(self._delivery, cursor=after, size=size, since=None, error=None)
            return self._save()

    def _reject(self, items: Sequence[Item], answer: Answer) -> None:
        found = [Rejected(index, index + 1, 1, f"cannot be shipped: {why}") for index, why in answer.left_out]
        if answer.rejected:
            first, end = _range(items)
            found.append(Rejected(first, end, answer.rejected, answer.reason or "the receiver does not say why"))
        if not found:
            if self._delivery.rejected and len({*range(*_range(items))} - {*_places(items)}) == 0:
                self.settled(*_range(items))  # sent again, and taken this time
            return
        with self._lock:
            for item in found:
                logger.error(
                    "auditspan: of the entries %d to %d, %d were not taken: %s",
                    item.first,
                    item.end - 1,
                    item.spans,
                    item.reason,
                )
            self._delivery = self._delivery.with_rejected(found)
            self._save()

    def _note(self, problem: str) -> None:
        """Remember what holds delivery up, and say so once; the lock is held."""
        if self._stopped:
            return
        if self._delivery.error is None:
            logger.warning("auditspan: delivery stands still, and is tried again until it works: %s", problem)
        self._delivery = replace(self._delivery, since=self._delivery.since or time.time(), error=problem)
        with contextlib.suppress(OSError):
            self._save()

    def _save(self) -> bool:
        if self._stopped:
            return False
        self._delivery.save(self._directory.delivery)
        return True


class _Ahead:
    """Does something in another thread."""

    def __init__(self, work: Callable[[], Encoded]) -> None:
        self._work = work
        self._found: Encoded | None = None
        self._thread = threading.Thread(target=self._run, name="auditspan-encode", daemon=True)
        self._thread.start()

    def result(self) -> Encoded | None:
        """Return what came of it; None: it failed, and is to be done again where that can be told."""
        self._thread.join()
        return self._found

    def _run(self) -> None:
        with contextlib.suppress(Exception):
            self._found = self._work()


@dataclass(frozen=True)
class _Shipment:
    """What is sent before the cursor moves, and where the cursor is then."""

    items: list[Item]
    after: reader.Cursor
    size: int


def items_of(block: reader.Block) -> list[Item]:
    """Return what is sent of a batch of the log: its entries, then its checkpoint."""
    first = block.batch.first
    found: list[Item] = [
        Entry(index, statement, private)
        for index, (statement, private) in enumerate(zip(block.statements, block.private, strict=True), first)
    ]
    found.append(Checkpoint(block.batch, time.time_ns()))
    return found


def backoff(failures: int, longest: float = _LONGEST_PAUSE) -> float:
    """Return how long to wait after so many failures in a row: 0.5 s, 1, 2 … give or take a fifth.

    Args:
        failures: from 1 on.
        longest: seconds.
    """
    seconds = min(longest, 0.5 * 2 ** min(failures - 1, 10))
    return float(seconds * random.uniform(0.8, 1.2))  # noqa: S311 - so that not all processes come at the same moment


def _weight(item: Item) -> int:
    """Return about how many bytes of the log an item is of."""
    if isinstance(item, Entry):
        return len(item.statement) + len(item.private)
    return 64 * len(item.batch.leaves)


def _range(items: Sequence[Item]) -> tuple[int, int]:
    """Return the indexes that items are about: from, and up to before."""
    places = _places(items)
    if places:
        return places[0], places[-1] + 1
    batches = [item.batch for item in items if isinstance(item, Checkpoint)]
    return batches[0].first, batches[-1].size


def _places(items: Sequence[Item]) -> list[int]:
    return [item.place for item in items if isinstance(item, Entry)]
