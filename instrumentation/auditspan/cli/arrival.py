# SPDX-License-Identifier: Apache-2.0
"""What ``auditspan status`` says of what comes after delivery: what Elasticsearch holds, and what was pruned here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from auditspan_seal.log.attempt import Attempt
from auditspan_seal.log.budget import Over
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.pruned import Pruned
from auditspan_seal.log.receipt import Open, Receipt


def gather(directory: Directory, delivered: int) -> dict[str, Any]:
    """Collect what the directory knows of what Elasticsearch holds.

    Args:
        directory: the log directory.
        delivered: how many entries the Collector has accepted.
    """
    receipt, attempt, pruned = Receipt.load(directory), Attempt.load(directory), Pruned.load(directory)
    over = Over.load(directory)
    return {
        "receipt": None
        if receipt is None
        else {
            "size": receipt.size,
            "root": receipt.root,
            "time": receipt.time,
            "elasticsearch": receipt.place,
            "seen": receipt.seen,
            "not_compared": max(0, delivered - receipt.seen),
            "missing": receipt.missing,
            "open": [range_as_json(item) for item in receipt.open[:100]],
        },
        "reconciliation_error": attempt.error if attempt is not None else None,
        "reconciliation_failing_since": attempt.since if attempt is not None else None,
        "over_budget": None if over is None else {"used": over.used, "budget": over.budget, "refusing": over.refuse},
        "pruned": None if pruned is None else {"size": pruned.size, "files": pruned.files, "time": pruned.time},
    }


def attention(directory: Directory, ago: Any) -> Iterator[str]:
    """Say what needs attention.

    Args:
        directory: the log directory.
        ago: says of a moment how long ago it was.
    """
    over, receipt, attempt = Over.load(directory), Receipt.load(directory), Attempt.load(directory)
    if over is not None:
        yield f"since {ago(over.since)} {over}"
    if receipt is not None:
        for item in receipt.open[:5]:
            why = f": {item.why}" if item.why else ""
            yield f"Elasticsearch: {describe(item)} {item.state} when last compared, {ago(receipt.time)}{why}"
        if len(receipt.open) > 5:
            yield f"Elasticsearch: {len(receipt.open) - 5} more ranges are open; --json names them"
    if attempt is not None and attempt.error is not None:
        since = ago(attempt.since or attempt.time)
        yield f"nobody could compare Elasticsearch with the log since {since}: {attempt.error}"
    elif attempt is not None and attempt.every and time.time() - attempt.time > 3 * attempt.every + 60:
        yield (
            f"the agent should compare Elasticsearch with the log every {attempt.every:g} s; it did so last "
            f"{ago(attempt.time)}: see whether it runs"
        )


def lines(state: dict[str, Any], ago: Any) -> Iterator[str]:
    """Return the lines for people."""
    receipt, pruned = state["receipt"], state["pruned"]
    if receipt is not None:
        since = f", {receipt['not_compared']} delivered since" if receipt["not_compared"] else ""
        seen = f"read back and hashed {ago(receipt['time'])}"
        yield f"  in Elasticsearch   everything below index {receipt['size']}, {seen}{since}"
    elif state["delivered"]:
        yield "  in Elasticsearch   not known: nobody has compared (`auditspan backend reconcile`)"
    if pruned is not None:
        yield f"  pruned here        everything below index {pruned['size']} ({pruned['files']} log files)"


def describe(item: Open) -> str:
    """Say of a range what it is, for people."""
    if item.kind == "checkpoint" and item.count == 1:
        return f"checkpoint of tree size {item.last + 1}"
    if item.kind == "checkpoint":
        return f"{item.count} checkpoints of the entries {item.first} to {item.last}"
    return f"entry {item.first}" if item.first == item.last else f"entries {item.first} to {item.last}"


def range_as_json(item: Open) -> dict[str, Any]:
    """Return a range as ``--json`` prints it."""
    return {
        "kind": item.kind,
        "first": item.first,
        "last": item.last,
        "count": item.count,
        "state": item.state,
        "why": item.why,
    }
