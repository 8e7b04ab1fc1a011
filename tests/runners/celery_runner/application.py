# SPDX-License-Identifier: Apache-2.0
"""The application under test. Its tasks keep a ledger of their own, which the tests compare the records with."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from datetime import datetime, timezone
from typing import Any

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject
from celery.schedules import crontab

REDIS = os.environ["TEST_REDIS"]
QUEUE = os.environ["TEST_QUEUE"]
LEDGER = os.environ["TEST_LEDGER"]

app = Celery("application", broker=REDIS, backend=REDIS)
app.conf.update(
    task_default_queue=QUEUE,
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    timezone="UTC",
    beat_schedule={
        "every-second": {"task": "application.add", "schedule": 1.0, "args": (1, 2)},
        "nightly": {
            "task": "application.fail",
            "schedule": crontab(minute="0", hour="4"),
            "last_run_at": datetime(2026, 1, 1, tzinfo=timezone.utc),  # so it is due at once
        },
    }
    if os.environ.get("TEST_BEAT")
    else {},
)  # fmt: skip


def note(task: Task, what: str = "began") -> None:
    """Write into the ledger what this task itself knows."""
    request = task.request
    line = {"task": task.name, "id": request.id, "retries": request.retries, "what": what, "pid": os.getpid()}
    with open(LEDGER, "a", encoding="utf-8") as ledger:
        ledger.write(json.dumps(line) + "\n")


@app.task(name="application.add", bind=True)
def add(self: Task, x: int, y: int) -> int:
    note(self)
    return x + y


@app.task(name="application.total", bind=True)
def total(self: Task, numbers: list[int]) -> int:
    note(self)
    return sum(numbers)


@app.task(name="application.fail", bind=True)
def fail(self: Task) -> None:
    note(self)
    raise ValueError("the secret is 4711")


@app.task(name="application.retried", bind=True, max_retries=5)
def retried(self: Task, times: int) -> str:
    note(self)
    if self.request.retries < times:
        raise self.retry(exc=KeyError("the secret is 4711"), countdown=0.2)
    return "at last"


@app.task(name="application.exhausted", bind=True, autoretry_for=(OSError,), max_retries=2, default_retry_delay=0.3)
def exhausted(self: Task) -> None:
    note(self)
    raise OSError("the secret is 4711")


@app.task(name="application.sleep", bind=True)
def sleep(self: Task, seconds: float) -> None:
    note(self)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)


@app.task(name="application.die", bind=True)
def die(self: Task) -> None:
    note(self)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="application.leave", bind=True)
def leave(self: Task) -> None:
    note(self)
    sys.exit(3)


@app.task(name="application.limited", bind=True, time_limit=1)
def limited(self: Task) -> None:
    note(self)
    time.sleep(30)


@app.task(name="application.limited_softly", bind=True, soft_time_limit=1)
def limited_softly(self: Task) -> None:
    note(self)
    time.sleep(30)


@app.task(name="application.ignored", bind=True)
def ignored(self: Task) -> None:
    note(self)
    raise Ignore


@app.task(name="application.rejected", bind=True, acks_late=True)
def rejected(self: Task) -> None:
    note(self)
    raise Reject("the secret is 4711", requeue=False)


@app.task(name="application.parent", bind=True)
def parent(self: Task) -> str:
    note(self)
    return str(add.delay(1, 1).id)


@app.task(name="application.replaced", bind=True)
def replaced(self: Task) -> None:
    note(self)
    raise self.replace(add.s(2, 2))


def canvas() -> dict[str, Any]:
    """Send a chain, a group and a chord; return the IDs of their tasks."""
    chained = chain(add.s(1, 1), add.s(2), add.s(3)).apply_async()
    grouped = group(add.s(1, n) for n in range(3)).apply_async()
    joined = chord([add.s(1, n) for n in range(3)], total.s()).apply_async()
    return {
        "chain": [chained.parent.parent.id, chained.parent.id, chained.id],
        "group": [result.id for result in grouped.results],
        "chord": [*(result.id for result in joined.parent.results), joined.id],
    }
