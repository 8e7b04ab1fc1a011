# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry metrics of auditing itself, with whatever meter provider the process has; none, no cost.

What belongs to the directory and not to a process (how far the log is, what waits, the disk) is reported by the one
process that sequences it, so that a sum over processes is not too high. docs/metrics.md lists all of them.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from auditspan.capture import faults
from auditspan_seal.errors import AuditspanError
from auditspan_seal.log.directory import Directory
from auditspan_seal.service import AuditLog

if TYPE_CHECKING:
    from auditspan_seal.standing import Standing  # imported when it is first asked: most processes measure nothing

ORIGIN = "audit.log.origin"
FAULT = "auditspan.fault.location"

_FRESH = 1.0  # seconds for which what was found about a directory is used again: one collection asks for all of it
_logs: weakref.WeakSet[AuditLog] = weakref.WeakSet()
_agents: list[Directory] = []
_found: dict[str, tuple[float, Standing]] = {}
_made = False


def watch(log: AuditLog) -> None:
    """Report what a log of this process does."""
    _logs.add(log)
    _make()


def watch_directory(directory: Directory) -> None:
    """Report how far a log is that this process sequences for others."""
    _agents.append(directory)
    _make()


def _make() -> None:
    """Make the instruments, once. A meter provider that is set later takes them over."""
    global _made
    if _made:
        return
    _made = True
    meter = metrics.get_meter("auditspan")
    of_process: Mapping[str, tuple[str, str, Callable[[AuditLog], int]]] = {
        "auditspan.record.recorded": ("{record}", "Records made by this process that survive its death.", _recorded),
        "auditspan.record.lost": ("{record}", "Records that could not be written; a gap entry tells of them.", _lost),
    }
    for name, (unit, what, of_log) in of_process.items():
        meter.create_observable_counter(name, [_for_logs(of_log)], unit, what)
    meter.create_observable_counter(
        "auditspan.fault.contained", [_faults], "{fault}", "Faults of ours that did not reach the application."
    )
    counters: Mapping[str, tuple[str, Callable[[Standing], float]]] = {
        "auditspan.entry.sequenced": ("Entries that are in the log, signed (tree size).", lambda at: at.size),
        "auditspan.entry.delivered": ("Entries that the Collector has accepted.", lambda at: at.delivery.size),
        "auditspan.entry.reconciled": ("Entries that Elasticsearch was seen to hold.", lambda at: at.reconciled),
    }
    for name, (what, of_standing) in counters.items():
        meter.create_observable_counter(name, [_for_directories(of_standing)], "{entry}", what)
    gauges: Mapping[str, tuple[str, str, Callable[[Standing], float]]] = {
        "auditspan.entry.waiting": ("{record}", "Records that are not in the log yet.", lambda at: at.waiting),
        "auditspan.entry.pending": ("{entry}", "Entries in the log that are not delivered yet.", lambda at: at.pending),
        "auditspan.entry.rejected": (
            "{span}",
            "Spans that were rejected and not seen to have arrived since.",
            _rejected,
        ),
        "auditspan.delivery.age": ("s", "Age of the oldest entry that is not delivered.", _age),
        "auditspan.disk.usage": ("By", "What the records of the log directory take.", lambda at: at.disk),
    }
    for name, (unit, what, of_standing) in gauges.items():
        meter.create_observable_gauge(name, [_for_directories(of_standing)], unit, what)


def _recorded(log: AuditLog) -> int:
    return log.recorded


def _lost(log: AuditLog) -> int:
    return log.lost


def _rejected(standing: Standing) -> int:
    return sum(item.spans for item in standing.delivery.rejected)


def _age(standing: Standing) -> float:
    return max(0.0, time.time() - standing.pending_since) if standing.pending_since is not None else 0.0


def _faults(options: CallbackOptions) -> Iterator[Observation]:
    for where, fault in faults.snapshot().items():
        yield Observation(fault.count, {FAULT: where})


def _for_logs(number: Callable[[AuditLog], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        for log in list(_logs):
            yield Observation(number(log), {ORIGIN: log.directory.origin})

    return observe


def _for_directories(number: Callable[[Standing], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterator[Observation]:
        for directory in [*(log.directory for log in list(_logs) if log.sequencing), *_agents]:
            with faults.contained("metrics"):
                standing = _standing(directory)
                if standing is not None:
                    yield Observation(number(standing), {ORIGIN: directory.origin})

    return observe


def _standing(directory: Directory) -> Standing | None:
    from auditspan_seal.standing import look

    moment, standing = _found.get(directory.origin, (0.0, None))
    if standing is None or time.monotonic() - moment > _FRESH:
        try:
            standing = look(directory)
        except AuditspanError:
            return None  # `auditspan status` says what is wrong with it
        _found[directory.origin] = (time.monotonic(), standing)
    return standing
