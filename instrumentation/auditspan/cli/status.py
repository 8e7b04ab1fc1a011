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
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.ship import Delivery

_TROUBLE = 3


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
    sequenced, checkpoints, positions = 0, 0, {}
    for block in reader.batches(directory.log):
        sequenced, checkpoints, positions = block.batch.size, checkpoints + 1, block.batch.segments
    waiting = 0
    for name, path in segment.all_of(directory):
        at = positions.get(name)
        waiting += segment.waiting(path, at.offset if at else 0)
    delivery = Delivery.load(directory.delivery)
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
    attention += [f"process {p['pid']}: {p['problem']}" for p in processes if p.get("problem")]
    if delivery.error and delivery.since:
        attention.append(f"delivery stands still since {_ago(delivery.since)}: {delivery.error}")
    attention += arrival.attention(directory, _ago)
    return {
        "directory": str(directory.path),
        "origin": directory.origin,
        "sequenced": sequenced,
        "checkpoints": checkpoints,
        "waiting_to_be_signed": waiting,
        "delivered": delivery.size,
        "delivery_error": delivery.error,
        "delivery_failing_since": delivery.since,
        **arrival.gather(directory, delivery.size),
        "processes": processes,
        "faults": faults,
        "lost": lost,
        "attention": attention,
    }


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
    return (
        f"{seconds} s ago"
        if seconds < 120
        else f"{seconds // 60} min ago"
        if seconds < 7200
        else f"{seconds // 3600} h ago"
    )


def _show(state: dict[str, Any]) -> None:
    console = common.console()
    alive = [process for process in state["processes"] if process["alive"]]
    console.print(f"[bold]auditspan[/] {escape(state['directory'])}  log {escape(state['origin'])}")
    console.print(f"  audited processes  {len(alive)} running, {len(state['processes']) - len(alive)} ended")
    console.print(f"  in the log         {state['sequenced']} entries under {state['checkpoints']} signed checkpoints")
    console.print(f"  waiting            {state['waiting_to_be_signed']} recorded, to be signed")
    console.print(
        f"  delivered          {state['delivered']} of {state['sequenced']}"
        + (
            ""
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
