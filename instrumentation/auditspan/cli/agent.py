# SPDX-License-Identifier: Apache-2.0
"""``auditspan agent``: sequences and delivers a directory from a process of its own."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from pathlib import Path

from auditspan.cli import common, status
from auditspan_seal import ship
from auditspan_seal.errors import DirectoryError
from auditspan_seal.log.directory import default_path, open_directory
from auditspan_seal.log.sequencer import Sequencer

_UNDELIVERED = 3
_POLL = 0.2  # seconds


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "agent",
        run,
        "Sign and deliver what audited processes left in a directory, until stopped or, with --once, until it is done.",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 auditspan agent --once",
        "0 done, 2 wrong usage, directory in use or unreadable, 3 with --once: not all could be delivered",
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
    )
    parser.add_argument("--once", action="store_true", help="stop when everything is signed and delivered")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="with --once: give up after this (default: 60)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    directory = open_directory(options.directory or default_path(), create=not options.once)
    sequencer = Sequencer.acquire(directory)
    if sequencer is None:
        raise DirectoryError(
            f"Another process signs and delivers {directory.path} already.",
            "Nothing needs to be done: `auditspan status` shows how far it is.",
        )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    shipper = ship.Shipper(directory, ship.make_exporter()) if ship.endpoint() else None
    deadline = time.monotonic() + options.timeout
    failures, next_try, delivered = 0, 0.0, shipper is None
    try:
        while not stopping.is_set():
            added = sequencer.integrate()
            if added:
                delivered = shipper is None
                continue
            if shipper is not None and not delivered and time.monotonic() >= next_try:
                delivered = shipper.ship()
                failures = 0 if delivered else failures + 1
                next_try = time.monotonic() + (0.0 if delivered else ship.backoff(failures))
            if options.once and (delivered or time.monotonic() >= deadline):
                break
            stopping.wait(_POLL)
            if (
                not options.once
                and shipper is not None
                and sequencer.size != ship.Delivery.load(directory.delivery).size
            ):
                delivered = False
    finally:
        if shipper is not None:
            shipper.stop()
            shipper.close()
        sequencer.close()
    state = status.gather(directory)
    if options.json:
        common.print_json(state)
    else:
        sent = f"{state['delivered']} delivered" if ship.endpoint() else "nothing sent (no OTEL_EXPORTER_OTLP_ENDPOINT)"
        common.console().print(f"{state['sequenced']} entries signed, {sent}")
    return 0 if delivered or not options.once else _UNDELIVERED
