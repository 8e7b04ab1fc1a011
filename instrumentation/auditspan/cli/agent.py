# SPDX-License-Identifier: Apache-2.0
"""``auditspan agent``: sequences and delivers a directory from a process of its own."""

from __future__ import annotations

import argparse
import grp
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from auditspan import metrics
from auditspan.cli import backend, common, status
from auditspan_seal import ship
from auditspan_seal.driver import Driver
from auditspan_seal.errors import DirectoryError, SourceError
from auditspan_seal.log.directory import default_path, open_directory, share
from auditspan_seal.log.sequencer import Sequencer

if TYPE_CHECKING:
    from auditspan_seal.reconcile.periodic import Periodic

_UNDONE = 3
_POLL = 0.2  # seconds


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "agent",
        run,
        "Sign and deliver what audited processes left in a directory, until stopped or, with --once, until it is done.",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 auditspan agent --once",
        "0 done, 2 wrong usage, directory in use or unreadable, 3 with --once: not all could be read or delivered",
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
    )
    parser.add_argument(
        "--group",
        metavar="NAME",
        help="let the processes of this group record into the directory, but neither read the key nor sign nor erase",
    )
    parser.add_argument(
        "--reconcile",
        type=float,
        metavar="SECONDS",
        help="compare Elasticsearch with the log that often, and send what is missing there again",
    )
    backend.add_elasticsearch(parser)
    parser.add_argument("--once", action="store_true", help="stop when everything is signed and delivered")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="with --once: give up after this (default: 60)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    directory = open_directory(options.directory or default_path(), create=not options.once)
    reconciling = _reconciling(options)
    if options.group:
        share(directory, _group(options.group))
    sequencer = Sequencer.acquire(directory)
    if sequencer is None:
        raise DirectoryError(
            f"Another process signs and delivers {directory.path} already.",
            "Nothing needs to be done: `auditspan status` shows how far it is.",
        )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    driver = Driver(sequencer, _Telling())
    metrics.watch_directory(sequencer.directory)
    if reconciling is not None:
        reconciling.start(sequencer.directory)
    deadline = time.monotonic() + options.timeout
    try:
        while not stopping.is_set():
            if driver.step():
                continue
            if options.once and (driver.delivered or time.monotonic() >= deadline):
                break
            driver.wait(_POLL)
    finally:
        if reconciling is not None:
            reconciling.close()
        driver.close(max(0.0, deadline - time.monotonic()) if options.once else None)
    done = driver.delivered and not sequencer.unreadable
    state = status.gather(directory)
    if options.json:
        common.print_json(state)
    else:
        sent = f"{state['delivered']} delivered" if ship.endpoint() else "nothing sent (no OTEL_EXPORTER_OTLP_ENDPOINT)"
        common.console().print(f"{state['sequenced']} entries signed, {sent}")
    return 0 if done or not options.once else _UNDONE


def _reconciling(options: argparse.Namespace) -> Periodic | None:
    if options.reconcile is None:
        return None
    if not options.reconcile > 0:
        raise SourceError("--reconcile must be more than 0 seconds.", "Leave it out to compare by hand.")
    from auditspan_seal.reconcile.outcome import ARRIVAL, WAIT, Settings  # only where it is asked for
    from auditspan_seal.reconcile.periodic import Periodic

    every = float(options.reconcile)
    # What is on its way is there at the next round: a round need not wait for it longer than that.
    settings = Settings(wait=min(WAIT, every), arrival=min(ARRIVAL, 2 * every), retention=backend.retention_of(options))
    return Periodic(backend.url_of(options), every, settings, _Telling())


class _Telling:
    """Tells each problem once."""

    def __init__(self) -> None:
        self._told: dict[str, str | None] = {}

    def __call__(self, what: str, problem: str | None) -> None:
        if problem is not None and self._told.get(what) != problem:
            common.progress(problem)
        self._told[what] = problem


def _group(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise DirectoryError(f"There is no group {name!r} on this machine.", "Make it, or give another one.") from None
