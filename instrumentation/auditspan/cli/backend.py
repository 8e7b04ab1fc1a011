# SPDX-License-Identifier: Apache-2.0
"""``auditspan backend``: the log and the Elasticsearch that holds its documents."""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any

from rich.markup import escape

from auditspan.cli import backend_check, backend_kibana, backend_lint, backend_setup, common
from auditspan.cli.arrival import describe, range_as_json
from auditspan_seal.errors import AuditspanError, DirectoryError, SourceError
from auditspan_seal.log.attempt import Attempt

_ALTERED = 1
_INCOMPLETE = 3
_SHOWN = 20
URL = "AUDITSPAN_ELASTICSEARCH_URL"


def register(verbs: common.Verbs) -> None:
    """Add the verb with its commands."""
    parser = common.add_verb(
        verbs,
        "backend",
        run,
        "Set Elasticsearch up, prove that it keeps its promises, and bring back what is missing there.",
        "auditspan backend setup --elasticsearch http://127.0.0.1:9200 --dry-run",
        "see `auditspan backend COMMAND --help`",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    backend_setup.register(commands, URL)
    backend_check.register(commands, URL)
    backend_lint.register(commands)
    reconcile = common.add_verb(
        commands,
        "reconcile",
        run,
        "Compare Elasticsearch with the log, send what is missing there again, and keep a receipt of what it holds.",
        "auditspan backend reconcile --elasticsearch http://127.0.0.1:9200",
        "0 Elasticsearch holds everything, 1 documents were altered, 2 wrong usage or unreachable source, 3 something "
        "is missing or not delivered yet",
        inner=True,
    )
    reconcile.add_argument(
        "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
    )
    backend_kibana.register(commands)
    add_elasticsearch(reconcile)
    reconcile.add_argument(
        "--full",
        action="store_true",
        help="read everything back, also what the last receipt covers (else it is counted)",
    )
    reconcile.add_argument("--dry-run", action="store_true", help="only compare: send nothing, write no receipt")
    reconcile.add_argument(
        "--wait",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="give documents up for missing when none has come for so long; twice that for what was sent again "
        "(default: 15)",
    )


def add_elasticsearch(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which Elasticsearch holds the documents, and for how long."""
    parser.add_argument("--elasticsearch", metavar="URL", help=f"the Elasticsearch (default: {URL})")
    parser.add_argument(
        "--retention",
        type=float,
        metavar="DAYS",
        help="Elasticsearch may have removed documents of records older than this (default: it keeps all)",
    )


def url_of(options: argparse.Namespace) -> str:
    """Return the URL of the Elasticsearch.

    Raises:
        SourceError: none is given.
    """
    url = options.elasticsearch or os.environ.get(URL)
    if not url:
        raise SourceError(
            "No Elasticsearch is named.", f"Give --elasticsearch http://host:9200, or set {URL}; an API key as "
            "ELASTIC_API_KEY.",
        )  # fmt: skip
    return str(url)


def retention_of(options: argparse.Namespace) -> float | None:
    """Return the retention of Elasticsearch in seconds; None: it keeps all.

    Raises:
        SourceError: it is none.
    """
    if options.retention is None:
        return None
    if not options.retention > 0:
        raise SourceError("--retention must be more than 0 days.", "Leave it out if Elasticsearch keeps all.")
    return float(options.retention) * 86400


def run(options: argparse.Namespace) -> int:
    """Run the command ``reconcile``."""
    from auditspan_seal.reconcile.outcome import Settings
    from auditspan_seal.reconcile.resend import Collector
    from auditspan_seal.reconcile.run import reconcile

    directory = common.directory_of(options)
    settings = Settings(
        full=options.full,
        dry_run=options.dry_run,
        wait=max(0.0, options.wait),
        arrival=2 * max(0.0, options.wait),
        retention=retention_of(options),
    )
    url = url_of(options)
    problem: str | None = None
    try:
        outcome = reconcile(url, directory, lambda: Collector(directory.origin), settings, common.progress)
        problem = outcome.problem
    except OSError as error:
        raise DirectoryError(
            f"The receipt in {directory.path} could not be written: {error.strerror}.",
            "Run the command as the user who owns the directory, and see that its disk is not full.",
        ) from error
    except AuditspanError as error:
        problem = str(error)
        raise
    finally:
        if not options.dry_run:
            with contextlib.suppress(OSError):
                Attempt.ended(directory, problem)
    code = _ALTERED if outcome.altered else 0 if outcome.complete else _INCOMPLETE
    if options.json:
        common.print_json(as_json(outcome))
    else:
        _show(outcome)
    return code


def as_json(outcome: Any) -> dict[str, Any]:
    """Return what a reconciliation came to, as ``--json`` prints it."""
    receipt = outcome.receipt
    return {
        "state": "altered" if outcome.altered else "complete" if outcome.complete else "incomplete",
        "origin": receipt.origin,
        "elasticsearch": receipt.place,
        "cluster": receipt.cluster,
        "sequenced": outcome.sequenced,
        "delivered": outcome.delivered,
        "pending": outcome.pending,
        "delivery_error": outcome.delivery_error,
        "hashed": outcome.hashed,
        "counted": outcome.counted,
        "copies": outcome.copies,
        "returned": [range_as_json(item) for item in outcome.returned],
        "resent": outcome.resent,
        "open": [range_as_json(item) for item in receipt.open],
        "missing": receipt.missing,
        "expired": receipt.expired,
        "problem": outcome.problem,
        "dry_run": outcome.dry_run,
        "receipt": {"size": receipt.size, "root": receipt.root, "seen": receipt.seen, "time": receipt.time},
    }


def _show(outcome: Any) -> None:
    console, receipt = common.console(), outcome.receipt
    if outcome.complete:
        state = "[bold green]COMPLETE[/]  Elasticsearch holds the whole log"
    elif outcome.altered:
        state = "[bold red]ALTERED[/]  documents in Elasticsearch are not what the log has; see `auditspan verify`"
    else:
        state = "[bold yellow]INCOMPLETE[/]  Elasticsearch does not hold the whole log yet"
    console.print(state)
    console.print(f"  log {escape(receipt.origin)} in {escape(receipt.place)} {escape(receipt.cluster)}", style="dim")
    console.print(
        f"  {receipt.seen} of {outcome.sequenced} entries compared: {outcome.hashed} documents read back and hashed, "
        f"{outcome.counted} counted"
    )
    for item in outcome.returned[:_SHOWN]:
        console.print(f"  [bold]↺ {describe(item)}[/]: missing; sent again, there now")
    if len(outcome.returned) > _SHOWN:
        console.print(f"  … and {len(outcome.returned) - _SHOWN} more ranges; --json has them")
    if outcome.copies:
        console.print(
            f"  {outcome.copies} documents say what another one says: delivered again after the data stream rolled "
            "over; verification takes them for copies"
        )
    if receipt.expired:
        console.print(f"  {receipt.expired} documents are past the retention of Elasticsearch and gone from it")
    if outcome.pending:
        why = f": {outcome.delivery_error}" if outcome.delivery_error else ""
        console.print(f"[bold yellow]! {outcome.pending} entries are not delivered yet{escape(why)}[/]")
    for item in receipt.open[:_SHOWN]:
        why = f": {item.why}" if item.why else ""
        console.print(f"[bold yellow]! {describe(item)}: {item.state}{escape(why)}[/]")
    if len(receipt.open) > _SHOWN:
        console.print(f"[bold yellow]! … and {len(receipt.open) - _SHOWN} more ranges; --json has them[/]")
    if outcome.problem:
        console.print(f"[bold yellow]! {escape(outcome.problem)}[/]")
    if outcome.dry_run:
        console.print("  nothing was sent and no receipt was written (--dry-run)", style="dim")
    else:
        console.print(
            f"  receipt: Elasticsearch holds everything below index {receipt.size}"
            + (f", root hash {receipt.root}" if receipt.root else ""),
            style="dim",
        )
