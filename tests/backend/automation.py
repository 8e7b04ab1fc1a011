# SPDX-License-Identifier: Apache-2.0
"""Many records in little time: a webhook, a job and a connector in one process, each by its real library.

Run under ``opentelemetry-instrument``; every delivery is a signed request over a socket that has a job run a Singer
tap and a Singer target, and the program says a little of what only it can know. Some deliveries are forged, some jobs
fail. Nothing here knows of the seal.

    opentelemetry-instrument python automation.py DELIVERIES SEED
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import random
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpx
import uvicorn
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from fastapi import FastAPI, HTTPException, Request
from opentelemetry import trace
from singer_sdk import BatchSink, Stream, Tap, Target
from singer_sdk import typing as th
from standardwebhooks import Webhook, WebhookVerificationError

import auditspan

__version__ = "2.1.0"

PEOPLE = [f"person-{number}@example.com" for number in range(12)]
SIGNER = Webhook("whsec_bXV0YXRpb25zLXNlY3JldC1mb3ItdGVzdHM=")
scheduler = BackgroundScheduler(timezone="UTC", executors={"default": ThreadPoolExecutor(1)})
ended: dict[str, threading.Event] = {}


class Orders(Stream):
    name = "orders"
    primary_keys = ("id",)
    replication_key = "id"
    is_sorted = True
    schema = th.PropertiesList(th.Property("id", th.IntegerType), th.Property("text", th.StringType)).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        yield from ({"id": number, "text": "a row"} for number in range(self.config["rows"]))


class TapOrders(Tap):
    name = "tap-orders"
    config_jsonschema = th.PropertiesList(th.Property("rows", th.IntegerType, required=True)).to_dict()

    def discover_streams(self) -> list[Stream]:
        return [Orders(self)]


class Nowhere(BatchSink):
    max_size = 2

    def process_batch(self, context: dict[str, Any]) -> None:
        pass


class TargetNowhere(Target):
    name = "target-nowhere"
    default_sink_class = Nowhere
    config_jsonschema = th.PropertiesList(th.Property("path", th.StringType)).to_dict()


def copy_orders(key: str, rows: int) -> None:
    """The job."""
    try:
        with contextlib.redirect_stdout(io.StringIO()) as messages:
            TapOrders(config={"rows": rows}).sync_all()
        messages.seek(0)
        with contextlib.redirect_stdout(io.StringIO()):
            TargetNowhere(config={}).listen(messages)
        if rows == 4:
            raise LookupError("four is a number that this job does not like")
    finally:
        ended[key].set()


def tidy() -> None:
    """Another job."""


app = FastAPI()


@app.post("/hooks/orders", status_code=202)
async def orders(request: Request) -> dict[str, str]:
    try:
        event: dict[str, Any] = SIGNER.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError:
        raise HTTPException(401) from None
    key = request.headers["webhook-id"]
    when = datetime.datetime.now(datetime.timezone.utc)
    if event["rows"] == 6:  # a schedule that a run has added: its records link to that run
        soon = when + datetime.timedelta(seconds=0.2)
        scheduler.add_job(
            tidy,
            IntervalTrigger(seconds=60, start_date=soon, timezone="UTC"),
            id=f"tidy-{key}",
            misfire_grace_time=None,
        )
    scheduler.add_job(
        copy_orders, DateTrigger(when), id=key, name="copy orders", args=(key, event["rows"]), misfire_grace_time=None
    )
    return {"delivery": key}


def deliver(client: httpx.Client, seed: int, number: int, chance: random.Random) -> None:
    key = f"msg_{seed}_{number}"
    ended[key] = threading.Event()
    body = json.dumps({"rows": chance.randint(3, 6)})
    now = datetime.datetime.now(datetime.timezone.utc)
    forged = chance.random() < 0.06
    headers = {
        "content-type": "application/json",
        "user-agent": f"order-desk/{chance.randint(1, 9)}.0",
        "webhook-id": key,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": SIGNER.sign(key, now, "something else" if forged else body),
    }
    if chance.random() < 0.3:
        headers["traceparent"] = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-01"
        headers["tracestate"] = "desk=7,other=x"
    answer = client.post("/hooks/orders", content=body, headers=headers)
    assert answer.status_code == (401 if forged else 202), answer.text
    if not forged:
        assert ended[key].wait(30)


def edit(number: int, chance: random.Random) -> None:
    """What only the program can say, with people in it."""
    row = {"id": number, "stage": "new", "owner": "nobody"}
    with auditspan.action(
        "UPDATE", target=f"row-{number}", target_type="crm.contact", actor=chance.choice(PEOPLE), before=row,
        rationale=f"ticket {number}",
    ) as done:  # fmt: skip
        done.after(row | {"stage": "won"} | ({"owner": chance.choice(PEOPLE)} if number % 2 else {}))
        # What any application may add to the span it finds: values of all kinds, and an event.
        span = trace.get_current_span()
        span.set_attributes(
            {
                "app.weight": number / 7,
                "app.labels": ["zulu", "alpha", "zulu"][: number % 4],
                "app.sizes": [9007199254740993, 3, 1],
                "app.urgent": number % 2 == 0,
                "app.note": "ünïcödé \u2028 <&> 'quoted'",
            }
        )
        span.add_event("accepted", {"app.rows": number, "app.kind": "orders"})
        span.add_event("scheduled")
    with auditspan.action(
        "EVALUATE", target=f"payout-{number}", target_type="payout", policy_name="payouts", policy_version="3",
        policy_rule="amount <= 1000", rationale="the rule of the finance department",
        decision_path=["amount is within the limit", "nobody objected"], decision="allow",
    ):  # fmt: skip
        pass


def main(deliveries: int, seed: int) -> None:
    chance = random.Random(seed)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        scheduler.start()
        while not server.started:
            time.sleep(0.02)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            for number in range(deliveries):
                deliver(client, seed, number, chance)
                edit(number, chance)
        time.sleep(0.5)
        scheduler.shutdown()
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
