# SPDX-License-Identifier: Apache-2.0
"""What the tests deploy: ``python deployed.py`` serves it. Nothing here knows of auditspan."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from prefect import flow, serve, task
from prefect.deployments import run_deployment

FOLDER = Path(os.environ.get("TEST_FOLDER", "."))


@task
def step(number: int) -> int:
    return number + 1


@task(retries=2)
def flaky(name: str) -> int:
    calls = FOLDER / f"calls-{name}"
    with calls.open("a") as file:
        file.write("x")
    if len(calls.read_text()) < 2:
        raise LookupError("a secret value")
    return 1


@task
def long(name: str) -> None:
    # Renamed, so that a reader never finds half of it.
    (FOLDER / f"{name}.tmp").write_text(str(os.getpid()))
    (FOLDER / f"{name}.tmp").rename(FOLDER / f"{name}.pid")
    time.sleep(300)


@flow
def tick() -> int:
    return step(1)


@flow(version="2.3.1")
def leaf(number: int = 1) -> int:
    return step(number)


@flow
def inner() -> int:
    return step(10)


@flow
def outer() -> int:
    inner()
    run_deployment("leaf/on-request", timeout=120, poll_interval=1)
    return 1


@flow(retries=1, retry_delay_seconds=1)
def retried(name: str = "retried") -> int:
    flaky(name)
    again = FOLDER / f"again-{name}"
    if not again.exists():
        again.touch()
        raise LookupError("a secret value")
    return 1


@flow
def failing() -> None:
    raise LookupError("a secret value")


@flow
def sleeper(name: str) -> None:
    long(name)


@flow
async def reacting() -> int:
    return step(3)


if __name__ == "__main__":
    serve(
        tick.to_deployment("every-ten-seconds", interval=timedelta(seconds=10), version="2026.11"),
        leaf.to_deployment("on-request", version="2026.12"),
        outer.to_deployment("on-request"),
        retried.to_deployment("on-request"),
        failing.to_deployment("on-request"),
        sleeper.to_deployment("on-request"),
        reacting.to_deployment("on-event"),
        limit=4,
    )
