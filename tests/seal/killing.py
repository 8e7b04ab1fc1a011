# SPDX-License-Identifier: Apache-2.0
"""Four processes that record, one of which sequences; killed at random, again and again. A program of its own.

    python killing.py FOLDER KILLS [MODE [CUTS]]

KILLS are spread over CUTS lives of a machine, each of which ends by a power cut: all processes are gone, and the next
life goes on with what was on disk, every other time with a part of what was not synced.

Each process says what has ended in the file ``ended``, and which runs have begun in the file ``begun``, each only after
the call has returned. Prints what was killed and each checkpoint that was seen.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from opentelemetry.sdk.trace import TracerProvider

from auditspan_seal import driver, service
from auditspan_seal.errors import FormatError
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.log import sequencer
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.interrupted import STARTED
from auditspan_seal.modes import Modes
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.records import ON_PURPOSE
from tests.seal.powerloss import Disk

WRITERS = 4
RUN = 5  # every so many records one is a run, whose beginning is recorded, too
assert driver  # imported here: what a process imports with its first record takes longer than its life
service.TAKEOVER = 0.01  # so that within a life of a tenth of a second a process comes to be the sequencer, and to sign
service.INTERVAL = 0.01


def write(folder: Path, log_folder: Path, name: int, mode: str) -> None:
    """Record from two threads until killed."""
    said = os.open(folder / "ended", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    opened = os.open(folder / "begun", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    log = AuditLog(log_folder, modes=Modes(mode))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("worker")

    def work(thread: int) -> None:
        number = 0
        while True:
            label = f"{name}.{thread}.{number}"
            span = tracer.start_span(label, attributes={"audit.record.id": label})
            if number % RUN == 0:
                log.begin(span, {"audit.record.id": f"{label}/begin", "audit.event.type": STARTED})
                os.write(opened, f"{label}\n".encode())
                time.sleep(0.004)  # what it does; many are killed here
            span.end()
            if log.unsynced:
                os.write(2, f"not waited for: {log._problems}\n".encode())
            os.write(said, f"{label}\n".encode())  # only after end() has returned
            number += 1
            time.sleep(0.002)

    threading.Thread(target=work, args=(1,), daemon=True).start()
    work(0)


def main(folder: Path, kills: int, mode: str = "durable", cuts: int = 0) -> None:
    """Kill."""
    chance = random.Random(20261124)
    told = Told()
    path = folder / "disk-0"
    path.mkdir()
    if not cuts:
        kill(folder, path / "log", kills, mode, chance, told)
    for cut in range(cuts):
        sequencer.ROLL_SIZE = 20_000  # each fsync copies a whole file here
        disk = Disk(path, folder / f"store-{cut}")
        with disk.installed():
            kill(folder, path / "log", max(1, kills // cuts), mode, chance, told)
        after = folder / f"disk-{cut + 1}"
        disk.cut(after, chance if cut % 2 else None)
        shutil.rmtree(folder / f"store-{cut}")
        path = after
    for marked in folder.glob("disk-*/log"):
        (marked / ON_PURPOSE).touch()  # these records say no more than is needed here
    print(json.dumps({**vars(told), "checkpoints": sorted(told.checkpoints), "log": str(path / "log")}))


class Told:
    """What happened."""

    def __init__(self) -> None:
        self.kills = self.sequencers = self.writers = 0
        self.checkpoints: set[tuple[str, int, str]] = set()


def kill(folder: Path, log_folder: Path, kills: int, mode: str, chance: random.Random, told: Told) -> None:
    """Start processes and kill some of them, and in the end all of them."""
    directory = open_directory(log_folder, create=True)
    alive: dict[int, float] = {}
    count = 0
    while count < kills:
        while len(alive) < WRITERS:
            told.writers += 1
            child = os.fork()
            if child == 0:
                try:
                    write(folder, log_folder, told.writers, mode)
                finally:
                    os._exit(1)
            alive[child] = time.monotonic()
        time.sleep(chance.random() * (0.06 if mode == "durable" else 0.15))  # an fsync takes its time
        see(directory, told)
        sequencers = [child for child in alive if sequences(child)]
        victim = chance.choice(sequencers if sequencers and chance.random() < 0.4 else list(alive))
        told.sequencers += victim in sequencers
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        del alive[victim]
        count += 1
    for child in alive:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    see(directory, told)
    told.kills += count


def see(directory: Directory, told: Told) -> None:
    """Look at the newest checkpoint, as somebody outside does."""
    try:
        checkpoint = Checkpoint.parse(Note.parse(directory.checkpoint.read_text()).text)
        told.checkpoints.add((checkpoint.origin, checkpoint.size, checkpoint.root.hex()))
    except (OSError, FormatError):
        pass


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
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:4], *map(int, sys.argv[4:5]))
