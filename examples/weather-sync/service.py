# SPDX-License-Identifier: Apache-2.0
"""A small automation: a webhook says that the weather data was updated, a job then refreshes the database."""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from fastapi import FastAPI, HTTPException, Request
from standardwebhooks import Webhook, WebhookVerificationError

__version__ = "1.0.0"

HERE = Path(__file__).resolve().parent
DEMO_SECRET = "whsec_d2VhdGhlci1zeW5jLWRlbW8tc2VjcmV0"  # for trying it out; a real service sets WEBHOOK_SECRET
LAST_DAY = "9999-12-31"

webhook = Webhook(os.environ.get("WEBHOOK_SECRET", DEMO_SECRET))
# One worker: two refreshes at the same time would start from the same bookmark.
scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
jobs: dict[str, str] = {}
data = Path("data")


def refresh(through: str = LAST_DAY, delivery_id: str | None = None) -> None:
    """Run the connector; remember how it ended for the delivery that asked for it."""
    status = "failed"
    try:
        done = subprocess.run(
            [
                sys.executable, str(HERE / "connector.py"),
                "--csv", str(HERE / "input" / "seattle-weather.csv"),
                "--database", str(data / "weather.sqlite"),
                "--state", str(data / "state.json"),
                "--through", through,
            ],
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )  # fmt: skip
        print(f"refresh-weather: {done.stdout.strip()}", flush=True)
        status = "done"
    finally:
        if delivery_id is not None:
            jobs[delivery_id] = status


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the scheduler as long as the service runs."""
    scheduler.add_job(refresh, CronTrigger.from_crontab("0 3 * * *"), id="nightly-refresh", name="nightly-refresh")
    scheduler.start()
    print(f"listening on {app.state.url}", flush=True)
    yield
    scheduler.shutdown()


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that the service is up."""
    return {"status": "ok"}


@app.post("/hooks/dataset", status_code=202)
async def dataset_updated(request: Request) -> dict[str, str]:
    """Take a delivery: check its signature, then have the database refreshed in the background."""
    try:
        event: dict[str, Any] = webhook.verify(await request.body(), dict(request.headers))
        through = str(event["data"]["through"])
    except WebhookVerificationError:
        raise HTTPException(401, "the signature does not match") from None
    except (ValueError, LookupError, TypeError):
        raise HTTPException(400, "this is not a delivery of ours") from None
    delivery_id = request.headers["webhook-id"]
    if delivery_id not in jobs:  # a delivery may come twice
        jobs[delivery_id] = "pending"
        scheduler.add_job(
            refresh,
            DateTrigger(datetime.datetime.now(datetime.timezone.utc)),
            id=delivery_id,
            name="refresh-weather",
            kwargs={"through": through, "delivery_id": delivery_id},
            misfire_grace_time=None,
        )
    return {"delivery": delivery_id}


@app.get("/jobs/{delivery_id}")
def job(delivery_id: str) -> dict[str, str]:
    """Say how far the refresh that a delivery asked for has come: pending, done or failed."""
    if delivery_id not in jobs:
        raise HTTPException(404, "no such delivery")
    return {"delivery": delivery_id, "status": jobs[delivery_id]}


def main() -> None:
    """Run from the command line."""
    global data
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="0: any free port")
    parser.add_argument(
        "--data", type=Path, default=Path("weather-sync-data"), help="folder of the database and the state file"
    )
    options = parser.parse_args()
    data = options.data.resolve()
    data.mkdir(parents=True, exist_ok=True)

    # uvicorn stops in good order on both signals, and then raises them again for whoever listened before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        listener.listen()
        app.state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
