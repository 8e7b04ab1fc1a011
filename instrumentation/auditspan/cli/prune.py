# SPDX-License-Identifier: Apache-2.0
"""``auditspan prune``: removes log files from the directory whose every entry Elasticsearch was seen to hold."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.markup import escape

from auditspan.cli import common
from auditspan_seal.errors import DirectoryError
from auditspan_seal.log.budget import RETENTION, Limits, said, used
from auditspan_seal.log.pruned import Candidate, Pruned, candidates, prune

_KEPT = 3


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "prune",
        run,
        "Remove log files from the directory that Elasticsearch was seen to hold and that are old enough.",
        "auditspan prune --older-than 30",
        "0 what is old enough is gone, 2 wrong usage or unreadable directory, 3 something old enough must stay",
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
    )
    parser.add_argument(
        "--older-than",
        type=float,
        metavar="DAYS",
        help=f"log files to which nothing was added for so long (default: {RETENTION})",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed")


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    directory = common.directory_of(options)
    older = _older_than(options)
    found = candidates(directory, older)
    removed = [item for item in found if not item.kept] if options.dry_run else prune(directory, older)
    # What is old enough by itself, and must stay nevertheless.
    kept = [item for item in candidates(directory, 0.0) if item.kept and item.end is not None]
    kept = [item for item in kept if item.path not in {other.path for other in removed} and item.age >= older]
    state: dict[str, Any] = {
        "dry_run": options.dry_run,
        "removed": [_file(item) for item in removed],
        "kept": [{**_file(item), "why": item.kept} for item in kept],
        "used": used(directory),
        "begin": (pruned := Pruned.load(directory)) and pruned.size,
    }
    if options.json:
        common.print_json(state)
    else:
        _show(state)
    return _KEPT if kept else 0


def _older_than(options: argparse.Namespace) -> float:
    if options.older_than is not None:
        if not options.older_than >= 0:
            raise DirectoryError("--older-than must be 0 days or more.", "Give a number of days.")
        return float(options.older_than) * 86400
    retention = Limits.from_environment().retention
    if retention is None:
        raise DirectoryError(
            "It is not said what is old enough, so nothing is removed.", f"Give --older-than DAYS, or set {RETENTION}."
        )
    return retention


def _file(item: Candidate) -> dict[str, Any]:
    return {"file": item.path.name, "first": item.first, "end": item.end, "bytes": item.size}


def _show(state: dict[str, Any]) -> None:
    console = common.console()
    verb = "would be removed" if state["dry_run"] else "removed"
    for item in state["removed"]:
        console.print(f"  {item['file']}: entries {item['first']} to {item['end'] - 1}, {said(item['bytes'])} {verb}")
    if not state["removed"]:
        console.print("Nothing to remove.")
    for item in state["kept"]:
        console.print(f"[bold yellow]! {item['file']} is old enough and stays: {escape(item['why'])}[/]")
    console.print(f"  the directory uses {said(state['used'])}", style="dim")
    if state["begin"]:
        console.print(
            f"  its log begins at index {state['begin']}; `auditspan verify --elasticsearch` verifies what was removed",
            style="dim",
        )
