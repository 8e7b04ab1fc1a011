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

import orjson
from opentelemetry.sdk.trace import ReadableSpan

from auditspan_seal.errors import AuditspanError
from auditspan_seal.formats import entry
from auditspan_seal.guard import OPEN, Careful, Guard
from auditspan_seal.log.directory import mode_of, open_directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.recording import StatementMaker

if TYPE_CHECKING:
    # Imported with the first record: what signs takes long to import, and many processes record nothing.
    from auditspan_seal.log.sequencer import Sequencer

logger = logging.getLogger("auditspan")

# A child that is forked while another thread imports could never import the same: a fork waits until that is done.
_loading = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)

BATCH = 512  # records after which the sequencer is woken: a batch of it
INTERVAL = 0.2  # seconds between batches at most
TAKEOVER = 0.5  # seconds between attempts to become the sequencer
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
        self._maker = StatementMaker(
            self.directory.origin, Careful(guard, lambda problem: self._report("privacy", problem))
        )
        self._describe = describe
        self._writer = SegmentWriter(self.directory.segments)
        self._pid = os.getpid()
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
        self._untold: list[str] = []  # of the lost ones, those that the log does not know of: why each was lost
        self._problems: dict[str, str] = {}  # with what → what is wrong
        self.publish_status()
        reference = weakref.ref(self)
        # After a fork the child has none of the parent's threads and must not touch the parent's files.
        os.register_at_fork(after_in_child=lambda: _after_fork(reference))

    def record(self, span: ReadableSpan) -> None:
        """Record a finished span. When this returns it survives the death of the process.

        Never raises: a record that cannot be written is counted as lost, logged and shown by ``auditspan status``.
        """
        maker = self._maker
        self._record(lambda segment, number: maker.line(span, segment, number))

    def begin(self, span: Any, attributes: Mapping[str, Any]) -> None:
        """Record that what a span covers has begun: if the process dies before its end, the log says so.

        Args:
            span: the span, just started.
            attributes: what the record says.
        """
        maker = self._maker
        if isinstance(span, ReadableSpan):  # else it is one of another SDK, of which nothing is recorded either
            self._record(lambda segment, number: maker.beginning(span, attributes, segment, number))

    def _record(self, make: Callable[[str, int], bytes]) -> None:
        if self._pid != os.getpid():
            # By something that does not call Python's fork hooks: what is recorded is safe, but no thread can be
            # relied upon here, so another process has to sign it.
            self._forked()
            self._closing.set()
        try:
            self._writer.append(make)
        except Exception as error:
            self.lost += 1
            self._untold.append(type(error.__cause__ or error).__name__)
            self._report("recording", f"a record was lost: {error}")
            return
        if self._untold:
            self._tell_of_lost()
        self.recorded += 1
        if self._thread is None:
            self._start()
        if self.recorded % BATCH == 0:
            self._wake.set()

    def close(self, timeout: float = 5.0) -> None:
        """Sequence and, as far as the Collector answers in time, deliver what is recorded. Idempotent."""
        with self._start_lock:
            thread, self._thread = self._thread, None
        if self._untold:
            self._tell_of_lost()
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

    def _tell_of_lost(self) -> None:
        """Have the log say what could not be recorded, now that it can be."""
        reasons, self._untold = self._untold, []
        why = ", ".join(sorted(set(reasons)))
        try:
            self._writer.append(
                lambda segment, number: entry.lost(
                    self.directory.origin, segment, number, len(reasons), why, time.time_ns()
                )
            )
        except Exception:  # it cannot be yet
            self._untold = reasons + self._untold

    def publish_status(self) -> None:
        """Write what this process says about itself; never raises."""
        fields: dict[str, Any] = {
            "pid": os.getpid(),
            "command": sys.argv[:1] or [sys.executable],
            "started": self._started,
            "updated": time.time(),
            "recorded": self.recorded,
            "lost": self.lost,
            "problem": "; ".join(self._problems.values()) or None,
        }
        try:
            fields |= self._describe()
            path = self.directory.processes / f"{os.getpid()}-{int(self._started * 1000):x}.json"
            draft = path.with_suffix(f".{threading.get_ident()}")
            draft.write_bytes(orjson.dumps(fields))
            draft.chmod(mode_of(self.directory.processes))  # where an agent signs, it must be able to read
            os.replace(draft, path)
            self._published = fields["recorded"]
        except Exception:
            logger.debug("auditspan: the status of this process could not be written", exc_info=True)

    # -- background --------------------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._start_lock:
            if self._thread is None and not self._closing.is_set():
                with _loading:
                    import auditspan_seal.driver  # noqa: F401

                self._thread = threading.Thread(target=self._work, name="auditspan", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """Wait to become the sequencer, then sequence and ship until closing."""
        while True:
            try:
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
            if self._closing.is_set():
                return  # the other process, or the next one, does it
            if self.recorded != self._published:
                self.publish_status()
            self._closing.wait(TAKEOVER)

    def _serve(self, sequencer: Sequencer) -> None:
        from auditspan_seal.driver import Driver

        driver = Driver(sequencer, self._report)
        self._sequencer = sequencer
        _remove_old_statuses(self.directory.processes)
        try:
            while True:
                closing, recorded = self._closing.is_set(), self.recorded
                added = driver.step()
                if added == 0:
                    self._sequenced = recorded
                elif added is not None:
                    self.publish_status()
                if closing and not added:
                    break
                if (added or 0) < BATCH and not closing:
                    self._wake.wait(INTERVAL)
                    self._wake.clear()
        finally:
            driver.close()

    def _report(self, what: str, problem: str | None) -> None:
        """Keep, log and show a problem with something, once; None: there is none any more."""
        if problem == self._problems.get(what):
            return
        if problem is None:
            del self._problems[what]
        else:
            logger.error("auditspan: %s", problem)
            self._problems[what] = problem
        self.publish_status()

    def _forked(self) -> None:
        self._pid = os.getpid()
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
        self._untold = []
        self._started = time.time()
        self._problems = {}


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
