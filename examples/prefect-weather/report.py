# SPDX-License-Identifier: Apache-2.0
"""A small Prefect automation: a weather report for each month of a year. It knows nothing of auditing.

``python report.py 2014`` makes the report of a year; ``python report.py serve`` one every first of a month.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from prefect import flow, task

WEATHER = Path(__file__).parents[1] / "weather-sync" / "input" / "seattle-weather.csv"
FOLDER = Path(os.environ.get("REPORTS", "reports"))

Days = list[dict[str, str]]


@task(retries=2, retry_delay_seconds=1)
def read_days(year: int) -> dict[str, Days]:
    """Read the days of a year, by month. The first attempt fails if the file server is said to be down."""
    if (FOLDER / "file-server-is-down").exists():
        (FOLDER / "file-server-is-down").unlink()
        raise ConnectionError("the file server does not answer")
    months: dict[str, Days] = defaultdict(list)
    with WEATHER.open(newline="") as file:
        for day in csv.DictReader(file):
            if day["date"].startswith(f"{year}-"):
                months[day["date"][:7]].append(day)
    if not months:
        raise LookupError(f"there is no weather of {year}")
    return dict(months)


@task
def summarise(month: str, days: Days) -> dict[str, Any]:
    """Sum up a month."""
    return {
        "month": month,
        "rain, mm": round(sum(float(day["precipitation"]) for day in days), 1),
        "warmest, °C": max(float(day["temp_max"]) for day in days),
        "days of sun": sum(day["weather"] == "sun" for day in days),
    }


@task
def write(path: Path, report: list[dict[str, Any]]) -> int:
    """Write a report."""
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return len(report)


@flow
def publish(year: int, months: list[dict[str, Any]]) -> str:
    """Put a report where its readers find it."""
    path = FOLDER / f"{year}.json"
    write(path, months)
    return str(path)


@flow(version="1.2.0")
def weather_report(year: int = 2015) -> str:
    """Make the report of a year."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    months = read_days(year)
    summaries = summarise.map(list(months), list(months.values())).result()
    return publish(year, summaries)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        weather_report.serve("monthly", cron="0 6 1 * *", version="2026.11")
    else:
        print(weather_report(int(sys.argv[1])))
