# SPDX-License-Identifier: Apache-2.0
"""Everything that whoever holds a directory's lock does: sequence, keep the promise of heartbeats, deliver, and bring
checkpoints to their second places."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from auditspan_seal import ship
from auditspan_seal.errors import AuditspanError
from auditspan_seal.log.budget import Keeper
from auditspan_seal.log.doorbell import Doorbell, answer
from auditspan_seal.log.sequencer import Sequencer

HEARTBEAT = 600.0  # seconds, if AUDITSPAN_HEARTBEAT does not say otherwise
DRAIN = 5.0  # seconds that closing waits for the network; what is left is done by the next process
DRAIN_WHEN_AWAY = 0.5  # the same, when the last attempt has failed
CLOCK_JUMP = 5.0  # seconds that the clock of the machine may be set in one step before the log says the time anew

Report = Callable[[str, "str | None"], None]
"""Is told what is wrong, for people: with what, and how; None: nothing any more."""


class Driver:
    """Drives one log. :meth:`step` is to be called again and again, from one thread.

    Args:
        sequencer: holds the directory's lock; closed by :meth:`close`.
        report: is told each problem.
    """

    def __init__(self, sequencer: Sequencer, report: Report) -> None:
        self._sequencer = sequencer
        self._report = report
        self._interval = _heartbeat(report)
        # A promise that is open was made by a process that died: it is kept from now on.
        self._next = time.monotonic() + (0.0 if sequencer.open else self._interval)
        self._shipping = _Shipping(sequencer, report)
        self._places = _Places(sequencer, report)
        self._keeper = Keeper(sequencer.directory, report)
        self._bell = Doorbell(sequencer.directory)
        self._answering = self._unanswered = False
        self._offset = _offset()

    def wake(self) -> None:
        """End the waiting in :meth:`wait`. To be called from any thread of this process."""
        self._bell.wake()

    def wait(self, timeout: float) -> None:
        """Wait until there may be something to do: this process or another one rings.

        Args:
            timeout: seconds at most.
        """
        if self._bell.wait(timeout):
            self._answering = self._unanswered = True

    def step(self) -> int | None:
        """Put one batch of what is recorded into the log; never raises.

        Returns:
            how many entries were added; None: it could not be done, which is reported, and is to be tried again.
        """
        self._keeper.step()
        try:
            before = self._sequencer.size
            added = self._sequencer.integrate()
            self._change_key()
            if self._unanswered or (self._answering and self._sequencer.size != before):
                answer(self._sequencer.directory, self._sequencer.positions)
                self._unanswered = False
            if self._sequencer.open and abs(_offset() - self._offset) > CLOCK_JUMP:
                self._next = 0.0  # the clock has jumped: what it said in the last heartbeat says nothing any more
            self._offset = _offset()
            if self._interval and time.monotonic() >= self._next:
                self._next = time.monotonic() + self._interval
                self._sequencer.promise(int(self._interval))
            self._report("signing", None)
            self._report("reading", _said(self._sequencer.unreadable))
        except AuditspanError as error:
            self._report("signing", f"records are kept but not signed: {error}")
            return None
        except Exception as error:
            self._report("signing", f"records are kept but not signed: {type(error).__name__}: {error}")
            return None
        if self._sequencer.size != before:
            self._shipping.wake()
            self._places.wake()
        return added

    def _change_key(self) -> None:
        try:
            self._sequencer.change_key()
            self._report("key", None)
        except AuditspanError as error:
            self._report("key", f"the key is not changed yet: {error}")  # the current one goes on

    @property
    def delivered(self) -> bool:
        """Whether everything that is in the log is delivered and at its second places, as far as there are any."""
        return self._shipping.done and self._places.done

    def close(self, timeout: float | None = None) -> None:
        """End the promise of heartbeats, deliver as far as others answer in time, and give the lock back.

        Args:
            timeout: seconds to wait for the network; None: a few, and less if it is known to be away.
        """
        try:
            self._sequencer.end_promise()
        except AuditspanError as error:
            self._report("signing", str(error))
        finally:
            for worker in (self._shipping, self._places):
                worker.end()
            for worker in (self._shipping, self._places):
                worker.drain(timeout)
            self._sequencer.close()


class _Worker:
    """A thread that brings the newest of the log somewhere; the network must not hold up the sequencer."""

    LINGER = 1.0  # seconds that it gets to end after it was stopped

    def __init__(self, sequencer: Sequencer, report: Report, name: str, active: bool) -> None:
        self._sequencer = sequencer
        self._report = report
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._failures = 0
        self._brought = -1  # tree size up to which it is done
        self._thread: threading.Thread | None = None
        self._active = active
        if active:
            self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        if self._thread is not None:
            self._thread.start()

    @property
    def done(self) -> bool:
        return not self._active or self._brought == self._sequencer.size

    def wake(self) -> None:
        self._wake.set()

    def end(self) -> None:
        self._ending.set()
        self._wake.set()

    def drain(self, timeout: float | None) -> None:
        if self._thread is None:
            return
        if timeout is None:
            # Who is known to be away is not waited for: the log keeps what is not delivered.
            timeout = DRAIN_WHEN_AWAY if self._failures else DRAIN
        self._thread.join(timeout)
        self.stop()
        self._thread.join(self.LINGER)

    def stop(self) -> None:
        """Make :meth:`bring` return soon."""

    def bring(self) -> bool:
        """Bring all there is; tell whether it worked."""
        raise NotImplementedError

    def pause(self) -> float:
        """Return the seconds to wait after a failure."""
        return ship.backoff(self._failures)

    def _loop(self) -> None:
        while True:
            ending, size = self._ending.is_set(), self._sequencer.size
            done = self.bring()
            self._failures = 0 if done else self._failures + 1
            if done:
                self._brought = size
            if ending:
                return
            if done:
                self._wake.wait()
            else:
                self._ending.wait(self.pause())
            self._wake.clear()


class _Shipping(_Worker):
    """Sends the documents of the log to the Collector."""

    LINGER = 0.1  # once stopped it writes nothing any more, so a request that is not answered may end by itself

    def __init__(self, sequencer: Sequencer, report: Report) -> None:
        self._shipper: ship.Shipper | None = None
        try:
            if ship.endpoint() is not None:
                self._shipper = ship.Shipper(sequencer.directory, ship.make_sender())
        except AuditspanError as error:
            report("delivery", str(error))
        except Exception as error:  # a setting that OpenTelemetry's exporter does not take
            report("delivery", f"nothing is delivered: {type(error).__name__}: {error}. Check OTEL_EXPORTER_OTLP_*.")
        super().__init__(sequencer, report, "auditspan-ship", ship.endpoint() is not None)
        if self._shipper is None:
            self._thread = None
        elif self._shipper.delivery.error is not None:
            self._failures = 1  # it stood still in the process before this one
        self.start()

    def bring(self) -> bool:
        assert self._shipper is not None
        try:
            done = self._shipper.ship()
        except Exception as error:
            self._report("delivery", f"delivery is held up: {error}")
            return False
        self._report("delivery", None)
        return done

    def pause(self) -> float:
        assert self._shipper is not None
        return self._shipper.pause(self._failures)

    def stop(self) -> None:
        if self._shipper is not None:
            self._shipper.stop()
            self._shipper.close()


class _Places(_Worker):
    """Brings the newest checkpoint to its second places."""

    def __init__(self, sequencer: Sequencer, report: Report) -> None:
        active = any(os.environ.get(name) for name in ("AUDITSPAN_ARCHIVE", "AUDITSPAN_WITNESS_POLICY"))
        if active:
            from auditspan_seal.witness.publisher import Publisher  # only where it is asked for

            self._publisher = Publisher(sequencer.directory, sequencer.directory.origin)
            report("second place", self._publisher.problem)
        super().__init__(sequencer, report, "auditspan-places", active)
        self.start()

    def bring(self) -> bool:
        newest = self._sequencer.newest
        if newest is not None:
            self._publisher.publish(newest)
        self._report("second place", self._publisher.problem)
        return self._publisher.problem is None

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self._publisher.close()


def _said(unreadable: Mapping[Path, str]) -> str | None:
    if not unreadable:
        return None
    path, why = next(iter(unreadable.items()))
    others = f", and of {len(unreadable) - 1} others" if len(unreadable) > 1 else ""
    return (
        f"the records in {path} cannot be read ({why}){others}: they wait there, all else is signed. Check the disk, "
        "and that its owner is a user whose files this one may read."
    )


def _offset() -> float:
    """Return by how much the clock of the machine is ahead of one that nobody sets."""
    return time.time() - time.monotonic()


def _heartbeat(report: Report) -> float:
    text = os.environ.get("AUDITSPAN_HEARTBEAT", "").strip()
    if not text:
        return HEARTBEAT
    try:
        seconds = float(text)
        if seconds == 0 or 1 <= seconds <= 86400 * 365:
            return seconds
    except ValueError:
        pass
    report(
        "setting",
        f"AUDITSPAN_HEARTBEAT is {text!r}, not 0 (none) or a number of seconds from 1 on; it is {HEARTBEAT:.0f} now.",
    )
    return HEARTBEAT
