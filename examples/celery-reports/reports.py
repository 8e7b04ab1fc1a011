# SPDX-License-Identifier: Apache-2.0
"""Reports on the weather: a task for each month, in parallel, and one that puts them together.

Nothing in it knows of auditing. `python reports.py 2014` asks for the report of a year; beat asks for one every night.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import Any

from celery import Celery, Task, chord
from celery.schedules import crontab

INPUT = Path(__file__).parent.parent / "weather-sync" / "input" / "seattle-weather.csv"
REDIS = os.environ.get("REPORTS_REDIS", "redis://127.0.0.1:6379/0")
OUTPUT = Path(os.environ.get("REPORTS_OUTPUT", "."))

app = Celery("reports", broker=REDIS, backend=REDIS)
app.conf.task_default_queue = os.environ.get("REPORTS_QUEUE", "reports")
app.conf.broker_connection_retry_on_startup = True
app.conf.beat_schedule = {
    "nightly": {"task": "reports.year", "schedule": crontab(hour="4", minute="0"), "args": (2014,)}
}


@app.task(name="reports.month", bind=True, autoretry_for=(BlockingIOError,), retry_backoff=True, max_retries=3)
def month(self: Task, year: int, number: int) -> dict[str, Any]:
    """Sum up one month. The file is on a share that is not always there: then it is tried again."""
    if self.request.retries == 0 and number == 2:
        raise BlockingIOError("the share does not answer")
    with open(INPUT, encoding="utf-8") as file:
        days = [day for day in csv.DictReader(file) if day["date"].startswith(f"{year}-{number:02}-")]
    if not days:
        raise LookupError(f"there are no days of {year}-{number:02}")
    warmest = max(days, key=lambda day: float(day["temp_max"]))
    return {
        "month": number,
        "rain": round(sum(float(day["precipitation"]) for day in days), 1),
        "warmest": warmest["date"],
    }


@app.task(name="reports.publish")
def publish(months: list[dict[str, Any]], year: int) -> str:
    """Write the report."""
    lines = [f"{one['month']:>2}  rain {one['rain']:>6} mm  warmest day {one['warmest']}" for one in months]
    (OUTPUT / f"{year}.txt").write_text("\n".join([f"Seattle, {year}", *lines, ""]))
    return f"{year}.txt"


@app.task(name="reports.year")
def year(number: int) -> str:
    """Ask for all months and for the report on them."""
    return str(chord([month.s(number, one) for one in range(1, 13)], publish.s(number)).apply_async().id)


if __name__ == "__main__":
    asked = year.delay(int(sys.argv[1]))
    print(f"asked for {sys.argv[1]}: {asked.id}")
    report = app.AsyncResult(asked.get(timeout=60))
    print(f"written: {report.get(timeout=60)}")
