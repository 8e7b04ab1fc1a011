# SPDX-License-Identifier: Apache-2.0
"""Processes of a Celery installation, and what they leave: audit records, the ledger of the tasks, results."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import pools

from auditspan import schema
from tests.conftest import BIN, OURS, QUIET
from tests.environments import ROOT
from tests.records import recorded
from tests.runners.redis_broker import redis

MODULE = "tests.runners.celery_runner.application"
LONG = 90.0  # seconds that are waited for anything; the machine is busy


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


class Installation:
    """One application with a queue, a log directory and a ledger of its own."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.log = folder / "audit"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.ours = {
            "TEST_REDIS": redis_url,
            "TEST_QUEUE": f"test-{uuid.uuid4().hex[:12]}",
            "TEST_LEDGER": str(folder / "ledger"),
        }

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith((*OURS, "TEST_"))}
        return {
            **kept, **QUIET, **self.ours, "PYTHONPATH": str(ROOT), "AUDITSPAN_DIR": str(self.log),
            "AUDITSPAN_VALIDATE": "true", "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "celery,redis", **more,
        }  # fmt: skip

    # -- processes -----------------------------------------------------------------------------------------------
    def start(self, *command: str, name: str, audited: bool = True, **environment: str) -> subprocess.Popen[str]:
        instrument = [str(BIN / "opentelemetry-instrument")] if audited else []
        with open(self.folder / f"{name}.out", "a") as out:
            process = subprocess.Popen(
                [*instrument, *command], cwd=ROOT, env=self.environment(**environment), stdout=out, stderr=out,
                text=True, start_new_session=True,
            )  # fmt: skip
        self.processes[name] = process
        return process

    def worker(self, pool: str = "prefork", concurrency: int = 2, **environment: str) -> subprocess.Popen[str]:
        """Start a worker and wait until it is ready."""
        name = f"worker{len(self.processes)}"
        process = self.start(
            str(BIN / "celery"), "-A", MODULE, "worker", "-P", pool, "-c", str(concurrency), "-n", f"{name}@localhost",
            "--loglevel", "INFO", "--without-gossip", "--without-mingle", name=name, **environment,
        )  # fmt: skip
        self.wait(lambda: "ready." in self.output(name) or process.poll() is not None, f"{name} to be ready")
        assert process.poll() is None, self.output(name)
        return process

    def run(self, program: str, **environment: str) -> str:
        """Run a program under audit and return what it prints."""
        script = self.folder / f"program-{uuid.uuid4().hex[:6]}.py"
        script.write_text(program)
        done = subprocess.run(
            [str(BIN / "opentelemetry-instrument"), sys.executable, str(script)], cwd=ROOT, capture_output=True,
            text=True, env=self.environment(**environment), timeout=LONG,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def send(self, expression: str, **environment: str) -> str:
        """Send a task from a script of its own and return its ID."""
        return self.run(f"from {MODULE} import *\nprint(({expression}).id)\n", **environment)

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Stop a worker as an operator does: what it has begun it brings to an end."""
        process.send_signal(signal.SIGTERM)
        process.wait(LONG)

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(LONG)
        if "app" in vars(self):
            self.app.backend.result_consumer.stop()
            self.app.backend.client.connection_pool.disconnect()
            self.app.close()
            pools.reset()

    def output(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def wait(self, done: Callable[[], Any], what: str, seconds: float = LONG) -> None:
        until = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < until, f"waited in vain for {what}\n{self._outputs()}"
            time.sleep(0.1)

    def _outputs(self) -> str:
        return "\n".join(f"{file.name}:\n{file.read_text()[-3000:]}" for file in self.folder.glob("*.out"))

    # -- what it says --------------------------------------------------------------------------------------------
    @functools.cached_property
    def app(self) -> Any:
        """The application as a program sees it that has none of its tasks, and is not audited."""
        app = Celery("tests", broker=self.ours["TEST_REDIS"], backend=self.ours["TEST_REDIS"], set_as_current=False)
        app.conf.task_default_queue = self.ours["TEST_QUEUE"]
        return app

    def states(self, *ids: str) -> dict[str, str]:
        """Wait for the end of tasks and return the states that the result backend has."""
        app = self.app
        try:
            self.wait(lambda: all(app.AsyncResult(one).ready() for one in ids), "the end of some tasks")
        except AssertionError as error:
            open_ = {one: app.AsyncResult(one).state for one in ids if not app.AsyncResult(one).ready()}
            raise AssertionError(f"no end of {open_}: {error}") from None
        return {one: app.AsyncResult(one).state for one in ids}

    def ledger(self) -> list[dict[str, Any]]:
        file = Path(self.ours["TEST_LEDGER"])
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def attempts(self, *ids: str) -> list[tuple[str, int]]:
        """What the tasks themselves say: each attempt that has begun."""
        return sorted((line["id"], line["retries"] + 1) for line in self.ledger() if line["id"] in ids)

    def records(self, *ids: str) -> list[dict[str, Any]]:
        """The records of the runs of some tasks (default: of all), without those of their beginnings.

        By attempt, and by when that began: both are causal. When it ended is not: another child may have done the
        next attempt, or what a task sent, before the one that sent it has said that it is done.
        """
        unique = {(span["segment"], span["number"]): span for span in recorded(self.log)}  # of a log or still to come
        found = [
            span["attributes"] | {"span": span}
            for span in unique.values()
            if span["attributes"][schema.EVENT_TYPE] != "workflow.execution.started"
        ]
        assert all(schema.NONCONFORMANT not in record for record in found)
        return sorted(
            (record for record in found if not ids or record[schema.RUN_ID] in ids),
            key=lambda record: (int(record.get(schema.RUN_ATTEMPT, 1)), int(record["span"]["start"])),
        )

    def faults(self) -> str:
        """What the processes say of faults of ours; empty: there were none."""
        lines = self._outputs().splitlines()
        return "\n".join(line for line in lines if "auditspan: a fault" in line or "Signal handler" in line)

    def verified(self) -> str:
        """The verdict on the log."""
        done = subprocess.run(
            [str(BIN / "auditspan"), "verify", str(self.log), "--json"], capture_output=True, text=True, timeout=LONG,
            env=self.environment(),
        )  # fmt: skip
        return str(json.loads(done.stdout)["verdict"])


@pytest.fixture
def installation(tmp_path: Path, redis_url: str) -> Iterator[Installation]:
    made = Installation(tmp_path, redis_url)
    yield made
    made.close()
    assert made.faults() == ""


def told(record: dict[str, Any]) -> tuple[str, str]:
    """What kind of record it is, and its outcome."""
    return record[schema.EVENT_TYPE].removeprefix("workflow.execution."), record[schema.OUTCOME]
