# SPDX-License-Identifier: Apache-2.0
"""Copy the weather of Seattle from a CSV file into SQLite, incrementally: a Singer tap and a Singer target.

The tap goes on where the last run ended (its bookmark is in the state file) and the target upserts by date.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from singer_sdk import BatchSink, Stream, Tap, Target
from singer_sdk import typing as th

__version__ = "1.0.0"

STREAM = "seattle_weather"
NUMBERS = ("precipitation", "temp_max", "temp_min", "wind")


class WeatherStream(Stream):
    """One row per day, sorted by date."""

    name = STREAM
    primary_keys = ("date",)
    replication_key = "date"
    is_sorted = True
    schema = th.PropertiesList(
        th.Property("date", th.DateType, required=True),
        *(th.Property(name, th.NumberType) for name in NUMBERS),
        th.Property("weather", th.StringType),
    ).to_dict()

    def get_records(self, context: Any) -> Iterable[dict[str, Any]]:
        """Read the days after the bookmark, up to the day that the data set is complete through."""
        bookmark = self.get_starting_replication_key_value(context) or ""
        with open(self.config["csv"], newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if bookmark < row["date"] <= self.config["through"]:
                    yield {**row, **{name: float(row[name]) for name in NUMBERS}}


class TapWeatherCsv(Tap):
    """Reads the CSV file."""

    name = "tap-weather-csv"
    config_jsonschema = th.PropertiesList(
        th.Property("csv", th.StringType, required=True), th.Property("through", th.DateType, required=True)
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        """Return the only stream."""
        return [WeatherStream(self)]


class SqliteSink(BatchSink):
    """Writes batches of rows into a table of the stream's name."""

    max_size = 500
    written = 0
    """Rows written by all sinks of this process."""

    def process_batch(self, context: dict[str, Any]) -> None:
        """Upsert one batch in one transaction."""
        columns = list(self.schema["properties"])
        names, values = ", ".join(columns), ", ".join(f":{column}" for column in columns)
        rows = [{column: _storable(row.get(column)) for column in columns} for row in context["records"]]
        with contextlib.closing(sqlite3.connect(self.config["database"])) as database, database:
            database.execute(f"CREATE TABLE IF NOT EXISTS {self.stream_name} ({names}, PRIMARY KEY (date))")
            database.executemany(f"INSERT OR REPLACE INTO {self.stream_name} ({names}) VALUES ({values})", rows)
        SqliteSink.written += len(rows)


class TargetSqlite(Target):
    """Writes into SQLite."""

    name = "target-sqlite"
    default_sink_class = SqliteSink
    config_jsonschema = th.PropertiesList(th.Property("database", th.StringType, required=True)).to_dict()


def _storable(value: Any) -> Any:
    """Return a value as a type that SQLite knows: the SDK parses numbers into Decimal and days into date."""
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date) else value


def _bookmark(state: dict[str, Any]) -> str:
    return str(state.get("bookmarks", {}).get(STREAM, {}).get("replication_key_value", "none"))


def sync(source: Path, database: Path, state_file: Path, through: str) -> str:
    """Run the tap, then the target; keep the state that the target has confirmed.

    Returns:
        One line that says what was done.
    """
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    before = _bookmark(state)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as messages, tempfile.TemporaryFile("w+") as confirmed:
        with contextlib.redirect_stdout(messages):
            TapWeatherCsv(config={"csv": str(source), "through": through}, state=state).sync_all()
        messages.seek(0)
        with contextlib.redirect_stdout(confirmed):
            TargetSqlite(config={"database": str(database)}).listen(messages)
        messages.seek(0)
        read = sum(json.loads(line)["type"] == "RECORD" for line in messages)
        confirmed.seek(0)
        for line in confirmed:
            state = json.loads(line)
    part = state_file.with_suffix(".part")
    part.write_text(json.dumps(state))
    os.replace(part, state_file)
    return f"read {read}, wrote {SqliteSink.written}, bookmark {before} → {_bookmark(state)}"


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--through", default="9999-12-31", metavar="DATE", help="the last day to read")
    options = parser.parse_args()
    print(sync(options.csv, options.database, options.state, options.through))
    return 0


if __name__ == "__main__":
    sys.exit(main())
