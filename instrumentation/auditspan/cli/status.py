# SPDX-License-Identifier: Apache-2.0
"""``auditspan status``: is auditing active, how far behind is signing and delivery, what went wrong."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from pathlib import Path
from typing import Any

import orjson
from rich.markup import escape

from auditspan.cli import arrival, common
from auditspan_seal.log.budget import said
from auditspan_seal.log.directory import Directory
from auditspan_seal.standing import Standing, look

_TROUBLE = 3
_PATIENCE = 30.0  # seconds that something may wait for its turn before it is said


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "status",
        run,
        "Show whether auditing is active here, what is waiting, and what went wrong.",
        "auditspan status",
        "0 all is well, 2 wrong usage or unreadable directory, 3 something needs attention",
    )
    parser.add_argument(
        "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    directory = common.directory_of(options)
    state = gather(directory)
    if options.json:
        common.print_json(state)
    else:
        _show(state)
    return _TROUBLE if state["attention"] else 0


def gather(directory: Directory) -> dict[str, Any]:
    """Collect everything that the directory says about itself."""
    standing = look(directory)
    delivery = standing.delivery
    processes = _processes(directory)
    faults: dict[str, int] = {}
    for process in processes:
        for where, fault in process.get("faults", {}).items():
            faults[where] = faults.get(where, 0) + int(fault["count"])
    lost = sum(int(process.get("lost", 0)) for process in processes)
    attention = [
        f"{count} faults in '{where}' were contained; records of these events may be missing"
        for where, count in faults.items()
    ]
    for process in processes:
        for plugin, found in process.get("nonconformant", {}).items():
            attention.append(
                f"{found['count']} records of {plugin} do not follow the registry ({'; '.join(found['last'][:3])}); "
                "they are recorded and marked"
            )
    attention += [f"{lost} records could not be written and are lost"] if lost else []
    if unsynced := sum(int(process.get("unsynced", 0)) for process in processes):
        attention.append(
            f"{unsynced} records were not under a signed checkpoint yet when span.end() returned, though "
            "AUDITSPAN_MODE is synced; they were recorded, and are signed as soon as somebody signs"
        )
    attention += [f"process {p['pid']}: {p['problem']}" for p in processes if p.get("problem")]
    attention += _behind(directory, standing, any(process["alive"] for process in processes))
    attention += [
        f"{item.spans} records of the entries {item.first} to {item.end - 1} were not taken where they were delivered: "
        f"{item.reason}. They are in the log; reconciliation finds and sends them."
        for item in delivery.rejected
    ]
    attention += arrival.attention(directory, _ago)
    return {
        "directory": str(directory.path),
        "origin": directory.origin,
        "sequenced": standing.size,
        "waiting_to_be_signed": standing.waiting,
        "waiting_since": standing.waiting_since,
        "unreadable": {str(path): why for path, why in standing.unreadable.items()},
        "delivered": delivery.size,
        "pending": standing.pending,
        "pending_since": standing.pending_since,
        "disk": standing.disk,
        "delivery_error": delivery.error,
        "delivery_failing_since": delivery.since,
        "rejected": sum(item.spans for item in delivery.rejected),
        **arrival.gather(directory, delivery.size),
        "processes": processes,
        "faults": faults,
        "lost": lost,
        "unsynced": unsynced,
        "attention": attention,
    }


def _behind(directory: Directory, standing: Standing, alive: bool) -> list[str]:
    """Say what has been waiting for too long, and what to do."""
    found = []
    since = standing.waiting_since
    if since is not None and time.time() - since > _PATIENCE:
        doing = (
            "an audited process runs and has not signed them: see what it says, above or in its log"
            if alive
            else f"no audited process runs; sign them now with `auditspan agent --once {directory.path}`"
        )
        found.append(f"{standing.waiting} records wait to be signed, the oldest is from {_ago(since)}: {doing}")
    found += [
        f"{path} cannot be read ({why}): records may wait there; all else is signed. Check the disk, and run this as a "
        "user who may read the file"
        for path, why in standing.unreadable.items()
    ]
    delivery = standing.delivery
    if delivery.error and delivery.since:
        found.append(
            f"delivery stands still since {_ago(delivery.since)}, {standing.pending} entries are safe here and wait: "
            f"{delivery.error}"
        )
    elif delivery.size and standing.pending_since is not None and time.time() - standing.pending_since > _PATIENCE:
        how = "is behind" if alive else f"ended with its process; go on with `auditspan agent --once {directory.path}`"
        found.append(
            f"{standing.pending} entries wait to be delivered, the oldest is from {_ago(standing.pending_since)}: "
            f"delivery {how}"
        )
    return found


def _processes(directory: Directory) -> list[dict[str, Any]]:
    found = []
    with contextlib.suppress(FileNotFoundError):
        for item in sorted(os.listdir(directory.processes)):
            if not item.endswith(".json"):
                continue
            with contextlib.suppress(OSError, orjson.JSONDecodeError, KeyError, TypeError):
                fields = orjson.loads((directory.processes / item).read_bytes())
                fields["alive"] = _alive(int(fields["pid"]))
                found.append(fields)
    return sorted(found, key=lambda fields: float(fields["started"]))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _ago(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _from(moment: float | None) -> str:
    return f"; the oldest is from {_ago(moment)}" if moment is not None else ""


def _show(state: dict[str, Any]) -> None:
    console = common.console()
    alive = [process for process in state["processes"] if process["alive"]]
    console.print(f"[bold]auditspan[/] {escape(state['directory'])}  log {escape(state['origin'])}")
    console.print(f"  audited processes  {len(alive)} running, {len(state['processes']) - len(alive)} ended")
    console.print(
        f"  in the log         {state['sequenced']} entries, signed; the directory takes {said(state['disk'])}"
    )
    console.print(
        f"  waiting            {state['waiting_to_be_signed']} recorded, to be signed{_from(state['waiting_since'])}"
    )
    console.print(
        f"  delivered          {state['delivered']} of {state['sequenced']}"
        + (
            _from(state["pending_since"])
            if state["delivered"] or state["delivery_error"]
            else "  (no OTEL_EXPORTER_OTLP_ENDPOINT was set: nothing is sent)"
        )
    )
    for line in arrival.lines(state, _ago):
        console.print(escape(line))
    for process in alive:
        plugins = ", ".join(process.get("plugins", {})) or "none"
        console.print(
            f"  process {process['pid']}: {escape(' '.join(process['command']))}, {process['recorded']} records; "
            f"plugins: {plugins}",
            style="dim",
        )
    if not state["attention"]:
        console.print("[bold green]all is well[/]")
    for item in state["attention"]:
        console.print(f"[bold yellow]! {escape(item)}[/]")
