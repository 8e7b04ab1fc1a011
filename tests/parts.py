# SPDX-License-Identifier: Apache-2.0
"""Runs all tests in parts, several of them at once: much of their time they wait for servers and for other processes.

``python -m tests.parts`` is what ``make test`` runs. First three at once: the tests with the real backend; those that
have servers of their own, and the rows of the runners that are in no hurry; all others. Then two: the tests of
Airflow's scheduler and what has one too, and those of the newest Celery and Prefect (what their schedulers do is
timed by themselves: on a busy machine they give up tasks). Beside them the environments are built that they will want
(``tests/ahead.py``). Each part has temporary folders of its own, and looks at every record that it left on disk
(tests/test_every_record.py). What they write is shown line by line as it comes; of a part that failed, all of it is
shown once more at the end. Red if one is red. Ctrl-C and SIGTERM end all.

``python -m tests.parts backend others`` runs some of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.runners.environments import RUNNERS

ROOT = Path(__file__).parent.parent
LAST = "tests/test_every_record.py"
STORY = "tests/backend/test_story.py"  # it has a scheduler, too
OWN_SERVERS = tuple(
    f"tests/backend/test_{name}.py"
    for name in (
        "backend_setup",
        "roles",
        "secured_snapshots",
        "runbooks",
        "no_false_alarm",
        "elasticsearch_faults",
        "random_kills",
    )
)
"""They do nothing with the servers of the others of the backend: their own are secured, or killed."""
APART = {"backend": "tests/backend", "runners": "tests/runners"}


def _rows(part: str) -> tuple[str, ...]:
    test = f"{APART['runners']}/test_in_environments.py::test_the_runner_in_its_own_environment"
    return tuple(f"{test}[{row}]" for row in RUNNERS if row.part == part)


PARTS: dict[str, tuple[str, ...]] = {
    "backend": (APART["backend"], *(f"--ignore={path}" for path in (STORY, *OWN_SERVERS)), LAST),
    "beside": (*OWN_SERVERS, *_rows("beside"), LAST),
    "others": ("tests", *(f"--ignore={folder}" for folder in APART.values())),
    "airflow": (*_rows("airflow"), STORY, LAST),
    "runners": (*_rows("runners"), LAST),
}
LATER = ("airflow", "runners")
"""They run when the others have ended."""
INTERRUPTED = 130
_DURATIONS = ("--durations=15", "--durations-min=5")
_PATIENCE = 60.0  # seconds that a part has to stop its servers when it is told to end


def _pytest(name: str) -> tuple[str, ...]:
    return sys.executable, "-u", "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{name}", *_DURATIONS


class Part:
    """One part: a pytest in a process group of its own.

    Args:
        name: of it.
        arguments: of pytest.
        out: where its lines go, with the name before each.
        program: what is run instead of pytest.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], out: IO[str] = sys.stdout, program: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.lines: list[str] = []
        self._out = out
        self._begin = self._end = time.monotonic()
        self._process = subprocess.Popen(
            [*(program or _pytest(name)), *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line)
                self._end = time.monotonic()
                print(f"{self.name:>7} | {line}", end="", file=self._out, flush=True)

    @property
    def code(self) -> int | None:
        """The exit code of pytest; None: it still runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the part and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def interrupt(self) -> None:
        """Tell pytest to end as Ctrl-C does: it stops its servers itself."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end, and for its last line.

        Raises:
            TimeoutExpired: it still runs.
        """
        code = self._process.wait(seconds)
        self._reader.join(5)  # a process that it has left behind may hold the pipe
        return code

    def told(self) -> str:
        """Say how it went, in one line."""
        summary = next((line.strip().strip("= ") for line in reversed(self.lines) if line.strip()), "it said nothing")
        word = "passed" if self.code == 0 else f"FAILED (exit code {self.code})"
        return f"{self.name:>7} | {word} after {self._end - self._begin:.0f} s: {summary}"


def run(parts: Mapping[str, Sequence[str]], out: IO[str] = sys.stdout) -> int:
    """Run all of them at once.

    Args:
        parts: arguments of pytest, by name.
        out: where everything is shown.

    Returns:
        the worst exit code.
    """
    running: list[Part] = []
    told: list[str] = []
    try:
        running += [Part(name, arguments, out) for name, arguments in parts.items()]
        for part in running:
            part.wait()
            told.append(part.told())
    except KeyboardInterrupt:
        end(running)
        print("interrupted: all parts were ended", file=out)
        return INTERRUPTED
    failed = [part for part in running if part.code != 0]
    for part in failed:
        print(f"\n{'=' * 20} all that the part {part.name!r} said {'=' * 20}\n{''.join(part.lines)}", file=out)
    print("\n" + "\n".join(told), file=out, flush=True)
    return max((abs(part.code or 0) for part in failed), default=0)


def end(running: Sequence[Part]) -> None:
    """End what runs: first as Ctrl-C does, then without asking."""
    for part in running:
        part.interrupt()
    deadline = time.monotonic() + _PATIENCE
    for part in running:
        try:
            part.wait(max(0.1, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            pass
        finally:
            part.send(signal.SIGKILL)  # and whatever of its group is left


def main() -> int:
    """Run what the command line names, or all."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = sys.argv[1:] or list(PARTS)
    ahead = Part("ahead", wanted, program=("nice", sys.executable, "-m", "tests.ahead"))
    try:
        code = 0
        for turn in (False, True):
            at_once = {name: PARTS[name] for name in wanted if (name in LATER) is turn}
            if at_once and code != INTERRUPTED:
                code = max(code, run(at_once))
        return code
    finally:
        end([ahead])


if __name__ == "__main__":
    sys.exit(main())
