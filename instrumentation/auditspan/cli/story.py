# SPDX-License-Identifier: Apache-2.0
"""Records as stories: what happened in a run, as a timeline that a person can read."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from auditspan import schema
from auditspan.cli import links
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.commitment import Private
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.proof import entries_of

ERASED = "(erased)"
_OUTCOME = {"success": "[green]✓ success[/]", "failure": "[red]✗ failure[/]"}
_DETAILS = (
    (schema.WEBHOOK_DELIVERY_ID, "delivery"),
    (schema.WEBHOOK_SIGNATURE_VERIFIED, "signature verified"),
    (schema.WEBHOOK_EVENT_TYPE, "event"),
    (schema.HTTP_STATUS, "answered"),
    (schema.TASK_TRIGGER_RULE, "job trigger"),
    (schema.CONNECTOR_STREAM, "stream"),
    (schema.CONNECTOR_ROWS_READ, "rows read"),
    (schema.CONNECTOR_ROWS_WRITTEN, "rows written"),
    (schema.CONNECTOR_BOOKMARK_BEFORE, "bookmark before"),
    (schema.CONNECTOR_BOOKMARK_AFTER, "bookmark after"),
    (schema.ERROR_TYPE, "error"),
    (schema.RATIONALE, "rationale"),
)


@dataclass(frozen=True)
class Record:
    """One audit record, read from its statement."""

    fields: dict[str, Any]
    attributes: dict[str, Any]

    def get(self, name: str) -> str:
        """Return an attribute as text; empty if it is not there."""
        item = self.attributes.get(name)
        return "" if item is None else str(item)

    @property
    def start(self) -> int:
        """Begin, nanoseconds since the epoch."""
        return int(self.fields["start"])

    @property
    def end(self) -> int:
        """End, nanoseconds since the epoch."""
        return int(self.fields["end"])


def record_of(statement: bytes, private: Private | None = None) -> Record | None:
    """Read a statement; None if it is no audit span.

    Args:
        statement: the statement.
        private: the personal values beside it; those that are not there were erased.
    """
    try:
        fields = statements.decode(statement)
        if fields["type"] != "span":
            return None
        said = {name: statements.plain(item) for name, item in fields["attributes"].items()}
        for name, value in said.items():
            if isinstance(value, statements.Commitment):
                opening = (private or {}).get(name)
                said[name] = statements.plain(opening[1]) if opening is not None else ERASED
        return Record(fields, said)
    except (FormatError, KeyError):
        return None


def from_directory(directory: Directory) -> Iterator[Record]:
    """Read the records of a log directory."""
    return filter(None, (record_of(*entry) for entry in entries_of(directory)))


def from_elasticsearch(url: str, origin: str | None = None) -> Iterator[Record]:
    """Read the records in Elasticsearch, all or those of one log."""
    from auditspan_seal.verify import elasticsearch

    return filter(None, (record_of(*entry) for entry in elasticsearch.entries_of(url, origin)))


def by_run(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group records by run, each run in the order of begin, runs in the order of their first record."""
    runs: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        runs[record.get(schema.RUN_ID)].append(record)
    for run_id, found in runs.items():
        # The beginning of what has come to its end says nothing new.
        ended = {record.get(schema.RECORD_ID) for record in found}
        left = [
            record
            for record in found
            if record.get(schema.EVENT_TYPE) != schema.EventType.WORKFLOW_STARTED.value
            or record.get(schema.PARENT_RECORD_ID) not in ended
        ]
        runs[run_id] = sorted(left, key=lambda record: (record.start, -record.end))
    return dict(sorted(runs.items(), key=lambda item: item[1][0].start))


def outcome_of(records: list[Record]) -> str:
    """Return how a run ended: failure if any of its records failed; interrupted, or running, if it has no end."""
    kinds = {record.get(schema.EVENT_TYPE) for record in records}
    if schema.EventType.WORKFLOW_INTERRUPTED.value in kinds:
        return "interrupted"
    if schema.EventType.WORKFLOW_STARTED.value in kinds:
        return "running"
    # What was tried again is told by the attempt that followed.
    tried_again = schema.EventType.WORKFLOW_RETRIED.value
    outcomes = {record.get(schema.OUTCOME) for record in records if record.get(schema.EVENT_TYPE) != tried_again}
    return next((name for name in ("failure", "unknown") if name in outcomes), "success")


def links_of(records: list[Record]) -> list[dict[str, str]]:
    """Return the links to the traces of a run in Kibana; nothing if no Kibana is named."""
    traces = sorted({str(record.fields["trace_id"]) for record in records})
    return links.of_traces(traces, min(record.start for record in records), max(record.end for record in records))


def clock(nanoseconds: int) -> str:
    """Return a time of day, UTC, with milliseconds."""
    return dt.datetime.fromtimestamp(nanoseconds / 1e9, tz=dt.timezone.utc).strftime("%H:%M:%S.%f")[:-3]


def show_run(run_id: str, records: list[Record], console: Console) -> None:
    """Print one run as a timeline."""
    first = records[0]
    processes = {(r.fields["resource"]["attributes"].get("service.instance.id"), r.fields["segment"]) for r in records}
    day = dt.datetime.fromtimestamp(first.start / 1e9, tz=dt.timezone.utc).strftime("%Y-%m-%d")
    console.print(f"[bold]Run {escape(run_id)}[/]")
    console.print(
        f"  workflow {escape(first.get(schema.WORKFLOW_NAME))} · "
        f"triggered by {escape(first.get(schema.TRIGGER_TYPE))}: "
        f"[bold]{escape(first.get(schema.TRIGGER_RULE))}[/]"
    )
    seconds = (max(record.end for record in records) - first.start) / 1e9
    traces = ", ".join(sorted({str(r.fields["trace_id"]) for r in records}))
    console.print(
        f"  {len(records)} records in {len(processes)} processes · {seconds:.2f} s · {day} UTC · trace {traces}",
        style="dim",
    )
    for line in links.lines(links_of(records)):
        console.print(f"  {line}", style="dim", markup=False, soft_wrap=True)
    rows = [_row(record, level) for record, level in _levels(records)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for record, cells in zip(records, rows, strict=True):
        when, what, who, version, took = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        outcome = _OUTCOME.get(record.get(schema.OUTCOME), escape(record.get(schema.OUTCOME)))
        console.print(f"  [dim]{when}[/]  {escape(what)}  [dim]{escape(who)}  {escape(version)}  {took}[/]  {outcome}")
        details = [f"{label} {escape(record.get(name))}" for name, label in _DETAILS if record.get(name)]
        indent = len(cells[1]) - len(cells[1].lstrip(" └─"))
        if details:
            console.print(f"  {' ' * (widths[0] + 2 + indent)}[dim]{' · '.join(details)}[/]")


def _levels(records: list[Record]) -> Iterator[tuple[Record, int]]:
    """Say how deep each record is in the story: one deeper than the record that caused it."""
    depth: dict[str, int] = {}
    for record in records:
        level = depth.get(record.get(schema.PARENT_RECORD_ID), -1) + 1
        depth[record.get(schema.RECORD_ID)] = level
        yield record, level


def _row(record: Record, level: int) -> tuple[str, ...]:
    version = record.get(schema.SCRIPT_VERSION)
    indent = "   " * max(0, level - 1) + ("└─ " if level else "")
    return (
        clock(record.start),
        f"{indent}{record.get(schema.ACTION)} {record.get(schema.TARGET_TYPE)} {record.get(schema.TARGET_ID)}",
        f"{record.get(schema.ACTOR_TYPE)} {record.get(schema.ACTOR_ID)}",
        version if len(version) <= 20 else f"{version[:19]}…",
        f"{(record.end - record.start) / 1e6:.0f} ms".rjust(8),
    )
