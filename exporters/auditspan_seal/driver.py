# SPDX-License-Identifier: Apache-2.0
"""Everything that whoever holds a directory's lock does: sequence, keep the promise of heartbeats, deliver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from auditspan_seal import ship
from auditspan_seal.errors import AuditspanError
from auditspan_seal.log.sequencer import Sequencer

HEARTBEAT = 600.0  # seconds, if AUDITSPAN_HEARTBEAT does not say otherwise
DRAIN = 5.0  # seconds that closing waits for the Collector; what is left is delivered by the next process
DRAIN_WHEN_AWAY = 0.5  # the same, when the last attempt has failed

Report = Callable[[str], None]


class Driver:
    """Drives one log. :meth:`step` is to be called again and again, from one thread.

    Args:
        sequencer: holds the directory's lock; closed by :meth:`close`.
        report: is told each problem, for people.
    """

    def __init__(self, sequencer: Sequencer, report: Report) -> None:
        self._sequencer = sequencer
        self._report = report
        self._interval = _heartbeat(report)
        # A promise that is open was made by a process that died: it is kept from now on.
        self._next = time.monotonic() + (0.0 if sequencer.open else self._interval)
        self._shipping = _Shipping(sequencer, report)

    def step(self) -> int | None:
        """Put one batch of what is recorded into the log; never raises.

        Returns:
            how many entries were added; None: it could not be done, which is reported, and is to be tried again.
        """
        try:
            added = self._sequencer.integrate()
            self._change_key()
            if self._interval and time.monotonic() >= self._next:
                self._next = time.monotonic() + self._interval
                self._sequencer.promise(int(self._interval))
                self._shipping.wake()
        except AuditspanError as error:
            self._report(str(error))
            return None
        except Exception as error:
            self._report(f"records are kept but not signed: {type(error).__name__}: {error}")
            return None
        if added:
            self._shipping.wake()
        return added

    def _change_key(self) -> None:
        try:
            if self._sequencer.change_key():
                self._shipping.wake()
        except AuditspanError as error:
            self._report(f"the key is not changed yet: {error}")  # the current one goes on

    @property
    def delivered(self) -> bool:
        """Whether everything that is in the log is delivered, or nothing is to be."""
        return self._shipping.delivered

    def close(self, timeout: float | None = None) -> None:
        """End the promise of heartbeats, deliver as far as the Collector answers in time, and give the lock back.

        Args:
            timeout: seconds to wait for the Collector; None: a few, and less if it is known to be away.
        """
        try:
            self._sequencer.end_promise()
            self._shipping.drain(timeout)
        except AuditspanError as error:
            self._report(str(error))
        finally:
            self._sequencer.close()


class _Shipping:
    """The thread that sends; the network must not hold up the sequencer."""

    def __init__(self, sequencer: Sequencer, report: Report) -> None:
        self._sequencer = sequencer
        self._report = report
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._failures = 0
        self._sent = -1  # tree size up to which everything is delivered
        self._shipper: ship.Shipper | None = None
        self._thread: threading.Thread | None = None
        if ship.endpoint() is None:
            return
        try:
            self._shipper = ship.Shipper(sequencer.directory, ship.make_exporter())
        except AuditspanError as error:
            report(str(error))
            return
        except Exception as error:  # a setting that OpenTelemetry's exporter does not take
            report(f"nothing is delivered: {type(error).__name__}: {error}. Check OTEL_EXPORTER_OTLP_*.")
            return
        self._thread = threading.Thread(target=self._work, name="auditspan-ship", daemon=True)
        self._thread.start()

    @property
    def delivered(self) -> bool:
        return ship.endpoint() is None or self._sent == self._sequencer.size

    def wake(self) -> None:
        self._wake.set()

    def drain(self, timeout: float | None) -> None:
        if self._thread is None or self._shipper is None:
            return
        self._ending.set()
        self._wake.set()
        if timeout is None:
            # A Collector that is known to be away is not waited for: the log keeps what is not delivered.
            timeout = DRAIN_WHEN_AWAY if self._failures else DRAIN
        self._thread.join(timeout)
        self._shipper.stop()
        self._shipper.close()
        self._thread.join(1.0)

    def _work(self) -> None:
        assert self._shipper is not None
        while True:
            ending, size = self._ending.is_set(), self._sequencer.size
            try:
                done = self._shipper.ship()
            except Exception as error:
                done = False
                self._report(f"delivery is held up: {error}")
            self._failures = 0 if done else self._failures + 1
            if done:
                self._sent = size
            if ending:
                return
            if done:
                self._wake.wait()
            else:
                self._ending.wait(ship.backoff(self._failures))
            self._wake.clear()


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
        f"AUDITSPAN_HEARTBEAT is {text!r}, not 0 (none) or a number of seconds from 1 on; it is {HEARTBEAT:.0f} now."
    )
    return HEARTBEAT
