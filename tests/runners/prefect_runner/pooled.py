# SPDX-License-Identifier: Apache-2.0
"""A flow whose tasks run in a pool of processes. Nothing here knows of auditspan."""

from __future__ import annotations

import os

from prefect import flow, task
from prefect.task_runners import ProcessPoolTaskRunner


@task
def where(number: int) -> int:
    return os.getpid()


@flow(task_runner=ProcessPoolTaskRunner(max_workers=2))
def pooled() -> int:
    return len(set(where.map([1, 2, 3]).result()) - {os.getpid()})


if __name__ == "__main__":
    print("other processes:", pooled() > 0)
