# SPDX-License-Identifier: Apache-2.0
"""Four processes that record, one of which sequences; killed at random, again and again. A program of its own.

    python killing.py FOLDER KILLS

Each process says what has ended in the file ``ended``. Prints what was killed and each checkpoint that was seen.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from auditspan_seal import service
from auditspan_seal.errors import FormatError
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.log.directory import open_directory
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog

WRITERS = 4
service.TAKEOVER = 0.01  # so that within a life of a tenth of a second a process comes to be the sequencer, and to sign
service.INTERVAL = 0.01


def write(folder: Path, name: int) -> None:
    """Record from two threads until killed."""
    said = os.open(folder / "ended", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = AuditLog(folder / "log")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("worker")

    def work(thread: int) -> None:
        number = 0
        while True:
            label = f"{name}.{thread}.{number}"
            tracer.start_span(label, attributes={"audit.record.id": label}).end()
            os.write(said, f"{label}\n".encode())  # only after end() has returned
            number += 1
            time.sleep(0.002)

    threading.Thread(target=work, args=(1,), daemon=True).start()
    work(0)


def main(folder: Path, kills: int) -> None:
    """Kill."""
    chance = random.Random(20261124)
    directory = open_directory(folder / "log", create=True)
    checkpoints: set[tuple[str, int, str]] = set()
    alive: dict[int, float] = {}
    count = made = of_sequencer = 0
    while count < kills:
        while len(alive) < WRITERS:
            made += 1
            child = os.fork()
            if child == 0:
                try:
                    write(folder, made)
                finally:
                    os._exit(1)
            alive[child] = time.monotonic()
        time.sleep(chance.random() * 0.06)
        try:
            checkpoint = Checkpoint.parse(Note.parse(directory.checkpoint.read_text()).text)
            checkpoints.add((checkpoint.origin, checkpoint.size, checkpoint.root.hex()))
        except (OSError, FormatError):
            pass
        sequencers = [child for child in alive if sequences(child)]
        victim = chance.choice(sequencers if sequencers and chance.random() < 0.4 else list(alive))
        of_sequencer += victim in sequencers
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        del alive[victim]
        count += 1
    for child in alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print(json.dumps({"kills": count, "sequencers": of_sequencer, "checkpoints": sorted(checkpoints)}))


def sequences(process: int) -> bool:
    """Tell whether a process is the sequencer: it is the one whose log file is open (Linux)."""
    try:
        return any(
            os.path.realpath(f"/proc/{process}/fd/{item}").endswith(".log")
            for item in os.listdir(f"/proc/{process}/fd")
        )
    except OSError:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
