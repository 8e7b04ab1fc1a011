# SPDX-License-Identifier: Apache-2.0
"""Acts as another user of the machine. A program of its own, to be started as root.

    python as_user.py UID GID agent|record|synced|cli FOLDER ARGUMENT…

Everything is done once as root before, in another folder, so that each module is loaded: the other user need not be
able to read the interpreter.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from auditspan.capture.privacy import Guard
from auditspan.cli import main as cli
from auditspan_seal.errors import AuditspanError
from auditspan_seal.formats import statement as statements
from auditspan_seal.log import segment
from auditspan_seal.log.directory import open_directory
from auditspan_seal.modes import Modes
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.records import audit_attributes


def record(folder: Path, count: int) -> None:
    """Record as an audited process does, and say what happened."""
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(folder)
    provider.add_span_processor(AuditSpanProcessor(log))
    for number in range(count):
        provider.get_tracer("t").start_span(f"record {number}", attributes=audit_attributes()).end()
    provider.shutdown()
    print(f"recorded {log.recorded}, lost {log.lost}, problems {log._problems}", flush=True)


def live(folder: Path, address: str) -> None:
    """Record a personal value, and go on living."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(AuditLog(folder, guard=Guard())))
    attributes = audit_attributes(**{"client.address": address})
    provider.get_tracer("t").start_span("record", attributes=attributes).end()
    print("recorded", flush=True)
    time.sleep(60)


def synced(folder: Path, count: int) -> None:
    """Record in synced mode; say after each what has ended, and go on when told to."""
    log = AuditLog(folder, modes=Modes("synced", max_wait=20))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    for number in range(count):
        begin = time.monotonic()
        provider.get_tracer("t").start_span(f"record {number}", attributes=audit_attributes()).end()
        print(f"record {number} {log.unsynced} {time.monotonic() - begin:.4f}", flush=True)
        sys.stdin.readline()
    provider.shutdown()


def forge(folder: Path) -> None:
    """Try everything that a process that may record could want to do beyond that; say what it could."""
    directory = open_directory(folder)
    for path in (directory.key, directory.log, directory.control, directory.lock, directory.path / "new"):
        for what, flags in (("read", os.O_RDONLY), ("write", os.O_WRONLY), ("create", os.O_WRONLY | os.O_CREAT)):
            try:
                os.close(os.open(path if what != "create" else path / "x" if path.is_dir() else path, flags))
                print(f"could {what} {path.name}", flush=True)
            except OSError:
                pass
    for item in os.scandir(directory.segments):
        if item.stat().st_uid != os.geteuid():
            try:
                os.unlink(item.path)
                print("could remove a segment of another", flush=True)
            except OSError:
                pass
    for prefix in ("", segment.CONTROL):
        writer = segment.SegmentWriter(directory.segments, prefix)
        fields = {
            "v": 2,
            "type": "erasure",
            "origin": directory.origin,
            "erased": [[1, "client.address"]],
            "reason": "-",
        }
        writer.append(lambda name, number, f=fields: statements.encode({**f, "segment": name, "number": number}))  # type: ignore[misc]
        writer.close()


def main() -> int:
    """Do it."""
    uid, gid, what, folder, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as warm:
        record(Path(warm) / "log", 2)
        out = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        for verb in (["agent", "--once"], ["status"], ["verify"], ["erase", "--value", "nobody", "--reason", "none"]):
            cli([verb[0], str(Path(warm) / "log"), *verb[1:]])
        os.dup2(out, 1)
    os.setgroups([int(gid)])
    os.setgid(int(gid))
    os.setuid(int(uid))
    os.umask(0o077)  # the strictest that a service may have
    print("ready", flush=True)
    try:
        if what == "record":
            record(Path(folder), int(arguments[0]))
        elif what == "synced":
            synced(Path(folder), int(arguments[0]))
        elif what == "live":
            live(Path(folder), arguments[0])
        elif what == "forge":
            forge(Path(folder))
        else:
            return cli([what, folder, *arguments])
    except AuditspanError as error:
        print(error, flush=True)
        return 9
    return 0


if __name__ == "__main__":
    sys.exit(main())
