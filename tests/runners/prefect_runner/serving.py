# SPDX-License-Identifier: Apache-2.0
"""A real server, and audited processes beside it, each in folders of the test's own; everything is ended again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from auditspan import schema
from auditspan.cli.story import from_directory
from auditspan_seal.log.directory import open_directory
from tests.conftest import BIN, OURS, QUIET

HERE = Path(__file__).parent
INSTRUMENTED = (str(BIN / "opentelemetry-instrument"), sys.executable)

T = TypeVar("T")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of everything that is Prefect's here."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith((*OURS, "PREFECT_")) and k != "PYTHONPATH"}
    return inherited | {
        "PREFECT_HOME": str(folder / "prefect-home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "15",
        # Less to write at a time: the server's SQLite has one writer, and others give up after a minute.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "TEST_FOLDER": str(folder),
        **more,
    }


def audited(folder: Path, url: str, **more: str) -> dict[str, str]:
    """Return the environment of a process that is audited into ``log`` in `folder`."""
    ours = {"AUDITSPAN_DIR": str(folder / "log"), "AUDITSPAN_VALIDATE": "true", **QUIET}
    return environment(folder, PREFECT_API_URL=url, PYTHONPATH=str(folder), **ours, **more)


@contextmanager
def process(command: Sequence[str], env: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process as long as the ``with`` block; what it prints comes into ``printed.log``."""
    with (folder / "printed.log").open("ab") as log:
        started = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGINT)
        try:
            started.wait(30)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


@contextmanager
def server(folder: Path, programs: Path = BIN) -> Iterator[str]:
    """Run a server, which is not audited; its address. `programs` is the ``bin`` folder that Prefect is in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(programs / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}/api"
    # In memory where that is to be had: on a busy disk its writers wait for each other until they give up.
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as fast, ExitStack() as stack:
        database = f"sqlite+aiosqlite:///{fast}/prefect.db"
        env = environment(folder, PREFECT_API_DATABASE_CONNECTION_URL=database)
        started = stack.enter_context(process(command, env, folder))

        def healthy() -> bool:
            assert started.poll() is None, printed(folder)
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until(healthy, 120, "the server starts")
        yield address


def printed(folder: Path) -> str:
    return (folder / "printed.log").read_text(errors="replace")[-4000:]


def until(found: Callable[[], T], seconds: float, what: str) -> T:
    """Wait until `found()` is something, and return it."""
    end = time.monotonic() + seconds
    while True:
        result = found()
        if result:
            return result
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.3)


def read(directory: Path) -> list[dict[str, Any]]:
    """Read the records of a log that say how something ended, with personal values, and with the trace each is in."""
    if not (directory / "segments").is_dir():
        return []
    return [
        {**record.attributes, "trace": record.fields["trace_id"], "parent span": record.fields.get("parent_span_id")}
        for record in from_directory(open_directory(directory))
        if record.attributes[schema.EVENT_TYPE] != "workflow.execution.started"
    ]
