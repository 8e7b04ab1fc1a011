# SPDX-License-Identifier: Apache-2.0
"""A bounded queue between ``span.end()`` and recording, for spans so hot that a copy of a kilobyte is too much."""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable

from opentelemetry.sdk.trace import ReadableSpan

from auditspan_seal.interrupts import let_through

LIMIT = 512
"""Spans in the queue at most: so many, and the one that is being recorded, are lost when the process is killed."""


class Deferred:
    """Finished spans on their way to be recorded.

    Args:
        record: records a span; never raises.
    """

    def __init__(self, record: Callable[[ReadableSpan], None]) -> None:
        self._record = record
        self.forked()

    def forked(self) -> None:
        """Leave what is in the queue to the parent process: called in the child after a fork."""
        self._spans: deque[ReadableSpan] = deque()
        self._recording = threading.RLock()
        # Not an event: its lock cannot be entered twice, and a signal handler may end a span, too.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, span: ReadableSpan) -> bool:
        """Take a span.

        Returns:
            False: the queue is full, or nobody would record what is in it; the caller has to record it.
        """
        if self._closed or len(self._spans) >= LIMIT or (self._thread is None and not self._start()):
            return False
        self._spans.append(span)
        if not self._woken:
            self._woken = True
            self._wake.put(None)
        if self._closed:
            self.drain()  # it was closed meanwhile
        return True

    def drain(self) -> None:
        """Record everything that is in the queue; when this returns, so is what another thread has begun to record."""
        while True:
            with self._recording:
                try:
                    span = self._spans.popleft()
                except IndexError:
                    return
                self._record(span)

    def close(self) -> None:
        """Record everything, and take nothing more."""
        self._closed = True
        self._wake.put(None)
        self.drain()

    def _start(self) -> bool:
        thread = threading.Thread(target=self._work, name="auditspan-record", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except Exception as error:  # no more threads, or the interpreter is ending
            self._thread = None
            let_through(error)
            return False
        multiprocessing = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:
            # A child that multiprocessing forks ends by os._exit, after these only.
            multiprocessing.Finalize(None, self.drain, exitpriority=1)
        return True

    def _work(self) -> None:
        while not self._closed:
            self._wake.get()
            self._woken = False
            self.drain()
