# SPDX-License-Identifier: Apache-2.0
"""Reconciles again and again, beside the agent: in a thread of its own, so that nothing waits for Elasticsearch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace

from auditspan_seal.errors import AuditspanError
from auditspan_seal.log.attempt import Attempt
from auditspan_seal.log.directory import Directory
from auditspan_seal.reconcile.outcome import Outcome, Settings
from auditspan_seal.reconcile.resend import Collector
from auditspan_seal.reconcile.run import reconcile

MAX_ROUNDS = 64  # rounds between two attempts to send the same again
_JOIN = 2.0  # seconds

Report = Callable[[str, "str | None"], None]


class Periodic:
    """Reconciles a directory every so many seconds, until closed.

    What Elasticsearch still does not hold after it was sent again is sent once more after 1, 2, 4 … rounds only: while
    it takes no writes, what was sent waits in the Collector's queue, which would only grow.

    Args:
        url: URL of the Elasticsearch.
        every: seconds between the end of one round and the next.
        settings: how.
        report: is told what is wrong, for people; None: nothing any more.
    """

    def __init__(self, url: str, every: float, settings: Settings, report: Report) -> None:
        self._url = url
        self._directory: Directory
        self._every = every
        self._settings = settings
        self._report = report
        self._pause = 0  # rounds in which nothing is sent again
        self._last_pause = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="auditspan-reconcile", daemon=True)

    def start(self, directory: Directory) -> None:
        """Begin with a directory."""
        self._directory = directory
        self._thread.start()

    def close(self) -> None:
        """End; a round that is going on is left behind: it writes nothing but its receipt, as a whole."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN)

    def round(self) -> Outcome | None:
        """Reconcile once; never raises. Returns None if it could not be done, which is reported."""
        settings = replace(self._settings, resend_open=self._pause <= 0)
        try:
            outcome = reconcile(self._url, self._directory, lambda: Collector(self._directory.origin), settings)
        except AuditspanError as error:
            self._failed(str(error))
            return None
        except Exception as error:  # a round must not be the last one
            self._failed(f"{type(error).__name__}: {error}")
            return None
        if not outcome.receipt.open:
            self._pause = self._last_pause = 0
        elif self._pause > 0:
            self._pause -= 1
        else:
            self._pause = self._last_pause = min(MAX_ROUNDS, max(1, 2 * self._last_pause))
        self._ended(outcome.problem)
        self._report("reconciliation", outcome.problem or _said(outcome))
        return outcome

    def _failed(self, problem: str) -> None:
        self._ended(problem)
        self._report("reconciliation", f"Elasticsearch could not be compared with the log: {problem}")

    def _ended(self, problem: str | None) -> None:
        with contextlib.suppress(OSError):
            Attempt.ended(self._directory, problem, self._every)

    def _loop(self) -> None:
        while not self._ending.wait(self._every):
            self.round()


def _said(outcome: Outcome) -> str | None:
    if not outcome.receipt.open:
        return None
    first = outcome.receipt.open[0]
    why = f": {first.why}" if first.why else ""
    return (
        f"{outcome.receipt.missing} documents of the log are not in Elasticsearch as they should be, the first at "
        f"index {first.first} ({first.state}{why}); `auditspan status` shows more"
    )
