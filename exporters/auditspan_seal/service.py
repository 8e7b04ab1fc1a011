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
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace import ReadableSpan

from auditspan_seal import forks, late
from auditspan_seal import modes as modes_
from auditspan_seal.beginning import beginning_of
from auditspan_seal.deferred import Deferred
from auditspan_seal.errors import AuditspanError
from auditspan_seal.guard import OPEN, Careful, Guard
from auditspan_seal.interrupts import let_through
from auditspan_seal.log import processes
from auditspan_seal.log.directory import open_directory
from auditspan_seal.log.segment import Make, Ready, SegmentWriter
from auditspan_seal.losses import Losses
from auditspan_seal.modes import Modes
from auditspan_seal.native import NATIVE
from auditspan_seal.patience import PatientWriter
from auditspan_seal.recording import StatementMaker
from auditspan_seal.synced import OWN_THREADS, Checkpoints

if TYPE_CHECKING:
    # Imported with the first record: what signs takes long to import, and many processes record nothing.
    from auditspan_seal.driver import Driver
    from auditspan_seal.log.sequencer import Sequencer

logger = logging.getLogger("auditspan")

BATCH = 512  # records after which the sequencer is woken: a batch of it
INTERVAL = 0.2  # seconds between batches at most
TAKEOVER = 0.5  # seconds between attempts to become the sequencer


class AuditLog:
    """Records spans of this process into a directory.

    Args:
        path: the log directory; made if it is not there.
        describe: returns what else this process has to say about itself (plugins, faults), JSON-like; it is shown
            by ``auditspan status``.
        guard: what is asked about privacy just before a record is sealed.
        modes: what recording waits for; None: what the environment says.

    Raises:
        DirectoryError: the directory cannot be used.
    """

    def __init__(
        self,
        path: Path,
        describe: Callable[[], Mapping[str, Any]] = dict,
        guard: Guard = OPEN,
        modes: Modes | None = None,
    ) -> None:
        self.modes = modes if modes is not None else Modes.of()
        self.directory = open_directory(path, create=True)
        self._writer = SegmentWriter(self.directory.segments)
        self._maker = StatementMaker(
            self.directory.origin,
            Careful(guard, lambda problem: self._report("privacy", problem)),
            self._writer.place,
        )
        self._patient = PatientWriter(self._writer, self.modes, lambda problem: self._report("recording", problem))
        self._describe = describe
        self._pid = os.getpid()
        self._started = time.time()
        self._closing = threading.Event()
        self._start_lock = threading.RLock()  # a signal handler may record, too
        self._starting: int | None = None  # the thread that starts ours; a signal handler in it must not wait for that
        self._thread: threading.Thread | None = None
        self._sequencer: Sequencer | None = None  # while this process is the one that sequences
        self._driver: Driver | None = None
        self._tried = threading.Event()  # to become the one that sequences
        self._checkpoints: Checkpoints | None = None
        self._deferred: Deferred | None = None
        if self.modes.mode == modes_.SYNCED:
            self._checkpoints = Checkpoints(self.directory, self.modes.max_wait, lambda: self._driver is not None)
        elif self.modes.mode == modes_.DEFERRED:
            self._deferred = Deferred(self._record_span)
        self._recorded = 0  # not in C
        self._woken = 0  # recorded, when the sequencer was woken last
        self._published = 0  # of these, how many the status last written knows of
        self._losses = Losses(self.directory.origin)
        self.unsynced = 0  # recorded, but not in a checkpoint when their end() returned, though the mode is synced
        self._problems: dict[str, str] = {}  # with what → what is wrong
        self._shown = time.monotonic()  # when the status was written
        self.publish_status()
        self._report("mode", self.modes.problem)
        reference = weakref.ref(self)
        # After a fork the child has none of the parent's threads and must not touch the parent's files.
        os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    @property
    def quick(self) -> Callable[[ReadableSpan], bool] | None:
        """What records the usual span at once, and tells whether nothing is left to do; it may raise. None: nothing.

        It hands back every 16th, for :meth:`record` to look after the rest; and all while anything is unusual.
        """
        waits = self._checkpoints is not None or self._deferred is not None
        return None if waits or self._maker.quick is None else self._maker.quick.end

    @property
    def recorded(self) -> int:
        """Records that were made by this process."""
        return self._recorded + self._maker.recorded

    @property
    def lost(self) -> int:
        """Records of this process that could not be written."""
        return self._losses.count

    def record(self, span: ReadableSpan) -> None:
        """Record a finished span. When this returns it survives what the mode says (docs/durability.md).

        Never raises: a record that cannot be written is counted as lost, logged and shown by ``auditspan status``.
        """
        if self._deferred is None or self._pid != os.getpid() or not self._deferred.put(span):
            self._record_span(span)

    def _record_span(self, span: ReadableSpan, waits: bool = True) -> None:
        if self.quick is not None and self._recorded_at_once(span):
            return
        # Made before the writer is locked: with the lock, a thread that loses the GIL would hold up all the others.
        maker, segment = self._maker, self._writer.segment
        parts = maker.parts(span, segment)
        recorded = self._record(
            lambda segment, number: maker.line(span, segment, number), None if parts is None else (segment, *parts)
        )
        if waits and self._checkpoints is not None and recorded is not None:
            self._wait_for_checkpoint(self._checkpoints, *recorded)

    def _recorded_at_once(self, span: ReadableSpan) -> bool:
        """Record without a lock, if that can be; who waits for one, and then for the GIL, holds up all the others."""
        try:
            self._writer.check()
            if not self._maker.record(span):
                return False
        except Exception as error:
            let_through(error)
            return False
        self._look_after()
        return True

    def begin(self, span: Any, attributes: Mapping[str, Any]) -> None:
        """Record that what a span covers has begun: if the process dies before its end, the log says so.

        Args:
            span: the span, just started.
            attributes: what the record says.
        """
        if isinstance(span, ReadableSpan):  # else it is one of another SDK, of which nothing is recorded either
            try:
                self._record_span(beginning_of(span, attributes), waits=False)
            except Exception as error:
                let_through(error)
                self._lose(error)

    def _record(self, make: Make, ready: Ready | None = None) -> tuple[str, int] | None:
        """Record; returns segment and running number, or None: lost, or put off (see :meth:`SegmentWriter.append`)."""
        if self._pid != os.getpid():
            # By something that does not call Python's fork hooks: what is recorded is safe, but no thread can be
            # relied upon here, so another process has to sign it.
            self._forked()
            self._closing.set()
        try:
            recorded = self._patient.append(make, ready)
        except Exception as error:
            let_through(error)
            self._lose(error)
            if self._thread is None:
                self._start()  # what stands in the way may be for this process to mend: it may be the one that signs
            return None
        self._recorded += 1
        self._look_after()
        return recorded

    def _look_after(self) -> None:
        """Do what there is to do beside recording, now that something was recorded."""
        self._patient.full = False
        while self._writer.failed:
            self._lose(self._writer.failed.pop())
        self._losses.tell(self._writer)
        if self._thread is None:
            self._start()
        count = self.recorded
        if count - self._woken >= BATCH:
            self._woken = count
            self._wake()

    def _lose(self, error: Exception) -> None:
        self._losses.add(error)
        self._report("recording", f"a record was lost: {error}")

    def _wait_for_checkpoint(self, checkpoints: Checkpoints, segment: str, number: int) -> None:
        if self._starting != threading.get_ident() and checkpoints.wait(segment, number, self._wake):
            self._report("synced", None)
            return
        self.unsynced += 1
        if self._closing.is_set() or self._starting == threading.get_ident():
            return  # by a thread that goes on while the program ends, or before it has begun: nobody signs here now
        self._report(
            "synced",
            f"span.end() does not wait for a signed checkpoint now: there was none within {self.modes.max_wait:g} s "
            "(AUDITSPAN_MAX_WAIT), or nobody signs here. What is recorded survives the death of its process, and is "
            "signed later.",
        )

    def _wake(self) -> None:
        driver = self._driver
        if driver is not None:
            driver.wake()

    @property
    def sequencing(self) -> bool:
        """Whether this process is the one that sequences and ships for the directory."""
        return self._sequencer is not None

    def close(self, timeout: float = 5.0) -> None:
        """Sequence and, as far as the Collector answers in time, deliver what is recorded. Idempotent."""
        if self._deferred is not None:
            self._deferred.close()
        with self._start_lock:
            thread, self._thread = self._thread, None
        self._losses.tell(self._writer)
        self._writer.close()  # first, so that the sequencer sees this segment as finished
        self._closing.set()
        self._wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout + 5.0)
        if self._checkpoints is not None:
            self._checkpoints.close()
        self.publish_status()

    def flush(self, timeout: float) -> bool:
        """Wait until everything recorded here is sequenced.

        Args:
            timeout: seconds to wait at most.

        Returns:
            Whether it is; also True where another process is the sequencer: recorded is safe, and it will do it.
        """
        if self._deferred is not None:
            self._deferred.drain()
        segment, number = self._writer.last
        deadline = time.monotonic() + timeout
        if self._thread is not None:
            self._tried.wait(timeout)
        self._wake()
        while (sequencer := self._sequencer) is not None and not sequencer.has(segment, number):
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
            "mode": self.modes.mode,
            "unsynced": self.unsynced,
            "native": NATIVE is not None,
            "problem": "; ".join(self._problems.values()) or None,
        }
        self._shown = time.monotonic()
        try:
            fields |= self._describe()
            processes.write(self.directory, self._started, fields)
            self._published = fields["recorded"]
        except Exception:
            logger.debug("auditspan: the status of this process could not be written", exc_info=True)

    # -- background --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and not self._closing.is_set() and self._starting is None:
                thread = threading.Thread(target=self._work, name=OWN_THREADS, daemon=True)
                self._starting = threading.get_ident()
                try:
                    thread.start()
                except Exception as error:
                    let_through(error)
                    # No more threads, or the interpreter is ending: what is recorded waits for the next process.
                    self._report("signing", f"records are kept but not signed by this process: {error}")
                    return
                finally:
                    self._starting = None
                self._thread = thread

    def _work(self) -> None:
        """Wait to become the sequencer, then sequence and ship until closing."""
        loaded = False
        while True:
            try:
                if not loaded:
                    late.load()
                    loaded = True
                from auditspan_seal.log.sequencer import Sequencer

                sequencer = Sequencer.acquire(self.directory)
                if sequencer is not None:
                    self._report("signing", None)
                    self._serve(sequencer)
                    return
            except AuditspanError as error:
                self._report("signing", f"records are kept but not signed: {error}")
            except Exception as error:
                self._report("signing", f"records are kept but not signed: {type(error).__name__}: {error}")
            self._tried.set()
            if self._closing.is_set():
                return  # the other process, or the next one, does it
            if self.recorded != self._published:
                self.publish_status()
            self._closing.wait(TAKEOVER)

    def _serve(self, sequencer: Sequencer) -> None:
        with forks.kept_out():  # it imports what it needs, too
            from auditspan_seal.driver import Driver

            driver = Driver(sequencer, self._report)
        self._sequencer, self._driver = sequencer, driver
        self._tried.set()
        processes.remove_old(self.directory)
        try:
            while True:
                closing = self._closing.is_set()
                added = driver.step()
                if self._checkpoints is not None:
                    self._checkpoints.tell(sequencer.positions)
                due = time.monotonic() - self._shown >= INTERVAL
                if due and added is not None and self.recorded != self._published:
                    self.publish_status()
                if closing and not added:
                    break
                if (added or 0) < BATCH and not closing:
                    driver.wait(INTERVAL)
        finally:
            driver.close()
            self._driver = None

    def _report(self, what: str, problem: str | None) -> None:
        """Keep, log and show a problem with something, once; None: there is none any more."""
        if problem == self._problems.get(what):
            return
        if problem is None:
            self._problems.pop(what, None)
        else:
            self._problems[what] = problem
            with contextlib.suppress(Exception):  # a handler of the application's may fail
                logger.error("auditspan: %s", problem)
        self.publish_status()

    def _forked(self) -> None:
        self._pid = os.getpid()
        self._writer.forked()
        if self._sequencer is not None:
            # The lock belongs to the open file, which the child shares: it would keep it after the parent's death.
            self._sequencer.close()
            self._sequencer = None
        self._thread = self._driver = self._starting = None
        self._start_lock = threading.RLock()
        self._closing = threading.Event()
        self._tried = threading.Event()
        for part in (self._checkpoints, self._deferred):
            if part is not None:
                part.forked()
        self._recorded = self._woken = self.unsynced = self._published = 0
        self._maker.forked()
        self._losses, self._patient.full = Losses(self.directory.origin), False
        self._started = time.time()
        self._problems = {}


def _after_fork(reference: weakref.ref[AuditLog]) -> None:
    log = reference()
    if log is not None:
        log._forked()
