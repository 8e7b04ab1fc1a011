# SPDX-License-Identifier: Apache-2.0
"""How much it rained in Seattle: one mapped task for each year, a report, and a DAG that waits for the report.

Nothing in here knows of auditspan or OpenTelemetry.
"""

import csv
import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, task

INPUT = Path(os.environ.get("RAIN_INPUT", Path(__file__).parents[2] / "weather-sync" / "input" / "seattle-weather.csv"))
OUTPUT = Path(os.environ.get("RAIN_OUTPUT", "/tmp/rain.csv"))
REPORT = Asset("file:///rain/report")


def measured():
    with open(INPUT, newline="") as file:
        yield from csv.DictReader(file)


with DAG("rain", schedule=None, tags=["example"]) as rain:

    @task
    def years():
        return sorted({row["date"][:4] for row in measured()})

    @task(retries=2, retry_delay=timedelta(seconds=1))
    def total(year, ti=None):
        if ti.map_index == 0 and ti.try_number == 1:
            raise ConnectionError("the station did not answer")  # as stations do
        return [year, round(sum(float(row["precipitation"]) for row in measured() if row["date"].startswith(year)), 1)]

    @task(outlets=[REPORT])
    def report(totals):
        with open(OUTPUT, "w", newline="") as file:
            csv.writer(file).writerows([["year", "rain_mm"], *totals])

    report(total.expand(year=years()))


with DAG("publish", schedule=[REPORT], tags=["example"]):

    @task
    def publish():
        print(OUTPUT.read_text())

    publish()


if __name__ == "__main__":
    rain.test()
