# SPDX-License-Identifier: Apache-2.0
"""The running log of one process: records, and, if nobody else does it, sequences and ships for the directory."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan

from auditspan_seal import ship, spans
from auditspan_seal.errors import AuditspanError
from auditspan_seal.guard import OPEN, Careful, Guard
from auditspan_seal.log.directory import open_directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.log.sequencer import BATCH_SIZE, Sequencer

logger = logging.getLogger("auditspan")

INTERVAL = 0.2  # seconds between batches at most
TAKEOVER = 0.5  # seconds between attempts to become the sequencer
DRAIN_ON_CLOSE = 5.0  # seconds that closing waits for the Collector; what is left is delivered by the next process
DRAIN_WHEN_AWAY = 0.5  # the same, when the last attempt has failed
STATUS_KEPT = 7 * 24 * 3600.0  # seconds after which the status of a process is removed


class AuditLog:
    """Records spans of this process into a directory.

    Args:
        path: the log directory; made if it is not there.
        describe: returns what else this process has to say about itself (plugins, faults), JSON-like; it is shown
            by ``auditspan status``.
        guard: what is asked about privacy just before a record is sealed.

    Raises:
        DirectoryError: the directory cannot be used.
    """

    def __init__(self, path: Path, describe: Callable[[], Mapping[str, Any]] = dict, guard: Guard = OPEN) -> None:
        self.directory = open_directory(path, create=True)
        self._maker = spans.StatementMaker(self.directory.origin, Careful(guard, self._report))
        self._describe = describe
        self._writer = SegmentWriter(self.directory.segments)
        self._started = time.time()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sequencer: Sequencer | None = None  # while this process is the one that sequences
        self._sequenced = 0
        self.recorded = 0
        self._published = 0  # of these, how many the status last written knows of
        self.lost = 0
        self._problem: str | None = None
        self.publish_status()
        reference = weakref.ref(self)
        # After a fork the child has none of the parent's threads and must not touch the parent's files.
        os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    def record(self, span: ReadableSpan) -> None:
        """Record a finished span. When this returns it survives the death of the process.

        Never raises: a record that cannot be written is counted as lost, logged and shown by ``auditspan status``.
        """
        maker = self._maker
        try:
            self._writer.append(lambda segment, number: maker.line(span, segment, number))
        except Exception as error:
            self.lost += 1
            self._report(f"a record was lost: {error}")
            return
        self.recorded += 1
        if self._thread is None:
            self._start()
        if self.recorded % BATCH_SIZE == 0:
            self._wake.set()

    def close(self, timeout: float = DRAIN_ON_CLOSE) -> None:
        """Sequence and, as far as the Collector answers in time, deliver what is recorded. Idempotent."""
        with self._start_lock:
            thread, self._thread = self._thread, None
        self._writer.close()  # first, so that the sequencer sees this segment as finished
        self._closing.set()
        self._wake.set()
        if thread is not None:
            thread.join(timeout + 5.0)
        self.publish_status()

    def flush(self, timeout: float) -> bool:
        """Wait until everything recorded here is sequenced.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether it is; also True where another process is the sequencer: recorded is safe, and it will do it.
        """
        recorded = self.recorded
        deadline = time.monotonic() + timeout
        self._wake.set()
        while self._sequencer is not None and self._sequenced < recorded:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def publish_status(self) -> None:
        """Write what this process says about itself; never raises."""
        fields: dict[str, Any] = {
            "pid": os.getpid(),
            "command": sys.argv[:1] or [sys.executable],
            "started": self._started,
            "updated": time.time(),
            "recorded": self.recorded,
            "lost": self.lost,
            "problem": self._problem,
        }
        try:
            fields |= self._describe()
            path = self.directory.processes / f"{os.getpid()}-{int(self._started * 1000):x}.json"
            draft = path.with_suffix(f".{threading.get_ident()}")
            draft.write_bytes(orjson.dumps(fields))
            os.replace(draft, path)
            self._published = fields["recorded"]
        except Exception:
            logger.debug("auditspan: the status of this process could not be written", exc_info=True)

    # -- background --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._work, name="auditspan", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """Wait to become the sequencer, then sequence and ship until closing."""
        while True:
            try:
                sequencer = Sequencer.acquire(self.directory)
                if sequencer is not None:
                    self._problem = None
                    self._serve(sequencer)
                    return
            except AuditspanError as error:
                self._report(f"records are kept but not signed: {error}")
            except Exception as error:
                self._report(f"records are kept but not signed: {type(error).__name__}: {error}")
            if self._closing.is_set():
                return  # the other process, or the next one, does it
            if self.recorded != self._published:
                self.publish_status()
            self._closing.wait(TAKEOVER)

    def _serve(self, sequencer: Sequencer) -> None:
        shipping = _Shipping(self)
        self._sequencer = sequencer
        _remove_old_statuses(self.directory.processes)
        try:
            while True:
                closing, recorded = self._closing.is_set(), self.recorded
                added = self._integrate(sequencer)
                if added == 0:
                    self._sequenced = recorded
                if added:
                    shipping.wake()
                    self.publish_status()
                if closing and added == 0:
                    break
                if added < BATCH_SIZE and not closing:
                    self._wake.wait(INTERVAL)
                    self._wake.clear()
        finally:
            self._sequencer = None
            shipping.drain()
            sequencer.close()

    def _integrate(self, sequencer: Sequencer) -> int:
        try:
            added = sequencer.integrate()
        except AuditspanError as error:
            self._report(str(error))
            return 0
        except Exception as error:
            self._report(f"records are kept but not signed: {type(error).__name__}: {error}")
            return 0
        return added

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            logger.error("auditspan: %s", problem)
        self._problem = problem
        self.publish_status()

    def _forked(self) -> None:
        self._writer.forked()
        if self._sequencer is not None:
            # The lock belongs to the open file, which the child shares: it would keep it after the parent's death.
            self._sequencer.close()
            self._sequencer = None
        self._thread = None
        self._start_lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self.recorded = self.lost = self._sequenced = self._published = 0
        self._started = time.time()
        self._problem = None


class _Shipping:
    """The thread that sends; the network must not hold up the sequencer."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._failures = 0
        self._shipper: ship.Shipper | None = None
        self._thread: threading.Thread | None = None
        if ship.endpoint() is None:
            return
        try:
            self._shipper = ship.Shipper(log.directory, ship.make_exporter())
        except AuditspanError as error:
            log._report(str(error))
            return
        except Exception as error:  # a setting that OpenTelemetry's exporter does not take
            log._report(f"nothing is delivered: {type(error).__name__}: {error}. Check OTEL_EXPORTER_OTLP_*.")
            return
        self._thread = threading.Thread(target=self._work, name="auditspan-ship", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def drain(self) -> None:
        if self._thread is None or self._shipper is None:
            return
        self._ending.set()
        self._wake.set()
        # A Collector that is known to be away is not waited for: the log keeps what is not delivered.
        self._thread.join(DRAIN_WHEN_AWAY if self._failures else DRAIN_ON_CLOSE)
        self._shipper.stop()
        self._shipper.close()
        self._thread.join(1.0)

    def _work(self) -> None:
        assert self._shipper is not None
        while True:
            ending = self._ending.is_set()
            try:
                done = self._shipper.ship()
            except Exception as error:
                done = False
                self._log._report(f"delivery is held up: {error}")
            self._failures = 0 if done else self._failures + 1
            if ending:
                return
            if done:
                self._wake.wait()
            else:
                self._ending.wait(ship.backoff(self._failures))
            self._wake.clear()


def _remove_old_statuses(folder: Path) -> None:
    """Remove what processes said about themselves long ago; thousands of short-lived ones leave thousands of files."""
    oldest = time.time() - STATUS_KEPT
    with contextlib.suppress(OSError):
        for item in os.scandir(folder):
            with contextlib.suppress(OSError):
                if item.stat().st_mtime < oldest:
                    os.unlink(item.path)


def _after_fork(reference: weakref.ref[AuditLog]) -> None:
    log = reference()
    if log is not None:
        log._forked()
