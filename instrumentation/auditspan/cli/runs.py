# SPDX-License-Identifier: Apache-2.0
"""``auditspan runs`` and ``auditspan show RUN``."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from rich.markup import escape
from rich.table import Table

from auditspan import schema
from auditspan.cli import common, links, story
from auditspan_seal.errors import SourceError


def register(verbs: common.Verbs) -> None:
    """Add the verbs."""
    listing = common.add_verb(
        verbs, "runs", list_runs, "List the recorded runs.", "auditspan runs", "0 done, 2 unreadable source"
    )
    common.add_source(listing)
    show = common.add_verb(
        verbs,
        "show",
        show_run,
        "Show one run as a timeline: who did what, when, where and why.",
        "auditspan show webhook/github/72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "0 done, 2 no such run or unreadable source",
    )
    show.add_argument("run_id", metavar="RUN", help="run ID, or its beginning; `auditspan runs` lists them")
    common.add_source(show)


def _runs(options: argparse.Namespace) -> dict[str, list[story.Record]]:
    if options.elasticsearch:
        return story.by_run(story.from_elasticsearch(options.elasticsearch))
    directory = common.directory_of(options)
    common.say_pruned(directory)
    return story.by_run(story.from_directory(directory))


def list_runs(options: argparse.Namespace) -> int:
    """Run ``auditspan runs``."""
    runs = _runs(options)
    if options.json:
        common.print_json({"runs": [_summary(run_id, records) for run_id, records in runs.items()]})
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("began (UTC)", "run", "workflow", "trigger", "records", "outcome"):
        # A run ID is there to be copied: folded if need be, never cut.
        table.add_column(name, overflow="fold", no_wrap=name in ("began (UTC)", "records", "outcome"))
    for run_id, records in runs.items():
        first = records[0]
        began = dt.datetime.fromtimestamp(first.start / 1e9, tz=dt.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        rule = f"{first.get(schema.TRIGGER_TYPE)}: {first.get(schema.TRIGGER_RULE)}"
        table.add_row(
            began, escape(run_id), escape(first.get(schema.WORKFLOW_NAME)), escape(rule), str(len(records)),
            story.outcome_of(records),
        )  # fmt: skip
    common.console().print(table if runs else "No runs are recorded yet.")
    if runs and (page := links.of_dashboard("auditspan-automation")) is not None:
        common.console().print(f"in Kibana: {page}", style="dim", markup=False, soft_wrap=True)
    return 0


def show_run(options: argparse.Namespace) -> int:
    """Run ``auditspan show RUN``."""
    runs = _runs(options)
    matching = [run_id for run_id in runs if run_id == options.run_id] or [
        run_id for run_id in runs if run_id.startswith(options.run_id)
    ]
    if len(matching) != 1:
        found = f"{len(matching)} runs begin with" if matching else "There is no run"
        raise SourceError(
            f"{found} {options.run_id!r}.", "List the runs with `auditspan runs` and give one whole run ID."
        )
    records = runs[matching[0]]
    if options.json:
        common.print_json(
            _summary(matching[0], records)
            | {"timeline": [record.fields | {"attributes": record.attributes} for record in records]}
        )
    else:
        story.show_run(matching[0], records, common.console())
    return 0


def _summary(run_id: str, records: list[story.Record]) -> dict[str, Any]:
    first = records[0]
    return {
        "run": run_id,
        "workflow": first.get(schema.WORKFLOW_NAME),
        "trigger": first.get(schema.TRIGGER_TYPE),
        "rule": first.get(schema.TRIGGER_RULE),
        "began": str(first.start),
        "ended": str(max(record.end for record in records)),
        "records": len(records),
        "outcome": story.outcome_of(records),
        "trace_ids": sorted({str(record.fields["trace_id"]) for record in records}),
        **({"links": found} if (found := story.links_of(records)) else {}),
    }
