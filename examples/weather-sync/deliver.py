# SPDX-License-Identifier: Apache-2.0
"""The sender outside: signs a webhook delivery, posts it, and waits until the service has done the work."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

HERE = Path(__file__).resolve().parent
DEMO_SECRET = "whsec_d2VhdGhlci1zeW5jLWRlbW8tc2VjcmV0"  # the same as in service.py
TIMEOUT = 60.0  # seconds to wait for a job


def send(url: str, body: str, *, tampered: bool) -> tuple[int, dict[str, Any]]:
    """Post one signed delivery; with `tampered`, change the body after it was signed."""
    delivery_id = f"msg_{uuid.uuid4().hex}"
    now = datetime.datetime.now(datetime.timezone.utc)
    signature = Webhook(os.environ.get("WEBHOOK_SECRET", DEMO_SECRET)).sign(delivery_id, now, body)
    if tampered:
        body = body.replace("dataset.updated", "dataset.deleted")
    headers = {
        "content-type": "application/json",
        "user-agent": "weather-office/1.0",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    return call(urllib.request.Request(f"{url}/hooks/dataset", body.encode(), headers, method="POST"))


def call(request: urllib.request.Request) -> tuple[int, dict[str, Any]]:
    """Return status and body of the answer, whatever the status."""
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def wait(url: str, delivery_id: str) -> str:
    """Ask until the job of a delivery has ended."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        _, answer = call(urllib.request.Request(f"{url}/jobs/{delivery_id}"))
        if answer["status"] != "pending":
            return str(answer["status"])
        time.sleep(0.1)
    return "still pending"


def main() -> int:
    """Run from the command line: exit code 0 if all went as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--times", type=int, default=1, help="how many deliveries, one after the other")
    parser.add_argument("--through", metavar="DATE", help="deliver the data up to this day instead of all of it")
    parser.add_argument("--tampered", action="store_true", help="change the body after signing: must be refused")
    options = parser.parse_args()

    event = json.loads((HERE / "input" / "delivery.json").read_text(encoding="utf-8"))
    if options.through:
        event["data"]["through"] = options.through
    good = True
    for _ in range(options.times):
        status, answer = send(options.url.rstrip("/"), json.dumps(event), tampered=options.tampered)
        print(f"POST /hooks/dataset → {status} {json.dumps(answer)}", flush=True)
        if options.tampered:
            good &= status == 401
        elif status == 202:
            ended = wait(options.url.rstrip("/"), answer["delivery"])
            print(f"job refresh-weather: {ended}", flush=True)
            good &= ended == "done"
        else:
            good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
