# SPDX-License-Identifier: Apache-2.0
"""A web service that sends tasks: for a webhook, which opens a run, and for a plain request, which does not."""

from __future__ import annotations

from fastapi import FastAPI

from tests.runners.celery_runner.application import add

service = FastAPI()


@service.post("/hooks/report")
def hook() -> str:
    return str(add.delay(1, 2).id)


@service.post("/reports")
def reports() -> str:
    return str(add.delay(3, 4).id)
