# SPDX-License-Identifier: Apache-2.0
"""``python -m auditspan.devstack up|down|status``: a stack that stays, on the usual ports."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from auditspan.devstack import docker, system
from auditspan.devstack.errors import DevStackError
from auditspan.devstack.stack import Stack


def main() -> int:
    """Run one command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m auditspan.devstack",
        description="Collector and Elasticsearch for development, on ports 4317, 4318 and 9200 of this machine.",
    )
    parser.add_argument(
        "command", choices=("up", "down", "status"),
        help="up: start and leave running; down: stop and delete the data; status: is it running (exit code 0 or 1)",
    )  # fmt: skip
    command = parser.parse_args().command
    try:
        return {"up": _up, "down": _down, "status": _status}[command]()
    except DevStackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _up() -> int:
    if _state() is None:
        folder = _folder()
        shutil.rmtree(folder, ignore_errors=True)
        # Registered to nobody: the parts are to outlive this process.
        stack = Stack.start(folder, fixed_ports=True, detached=True)
        _state_file().write_text(json.dumps({"urls": stack.urls, "parts": stack.parts, "processes": stack.state()}))
    return _status()


def _down() -> int:
    state = _state()
    if state is None:
        print("No stack is running.")
        return 0
    for name in reversed(state["processes"]):
        _end(name, state["processes"][name])
    _state_file().unlink()
    folder = _folder()
    with contextlib.suppress(OSError):
        shutil.rmtree((folder / "elasticsearch").resolve())
    shutil.rmtree(folder, ignore_errors=True)
    print("The stack is stopped, its data deleted.")
    return 0


def _status() -> int:
    state = _state()
    if state is None:
        print("No stack is running. Start one with `python -m auditspan.devstack up`.")
        return 1
    for name, description in state["parts"].items():
        process = state["processes"][name]
        ended = "pid" in process and not _alive(process)
        print(f"{name}: {description}{' - NOT RUNNING ANY MORE' if ended else ''}")
    urls = state["urls"]
    print(f"\n  Elasticsearch  {urls['elasticsearch']}\n  OTLP/HTTP      {urls['otlp_http']}")
    print(f"  OTLP/gRPC      {urls['otlp_grpc']}\n  logs           {_folder()}/*.log\n\nTo send there:\n")
    print(f"export OTEL_EXPORTER_OTLP_ENDPOINT={urls['otlp_http']}")
    print("export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
    print("\nTo have `auditspan demo --stack` and the tests use it, and not one of their own:\n")
    print(f"export AUDITSPAN_ELASTICSEARCH_URL={urls['elasticsearch']}")
    print(f"export AUDITSPAN_COLLECTOR_ENDPOINT={urls['otlp_http']}")
    return 0


def _end(name: str, process: dict[str, Any]) -> None:
    if "container" in process:
        docker.remove(process["container"])
    if not _alive(process):
        return
    system.say(f"stopping the {name} …")
    os.kill(process["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _alive(process) and time.monotonic() < deadline:
        time.sleep(0.1)
    if _alive(process):
        os.killpg(process["pid"], signal.SIGKILL)


def _alive(process: dict[str, Any]) -> bool:
    # The number alone may belong to somebody else by now.
    return "pid" in process and system.started_at(process["pid"]) == process["started"] != ""


def _state() -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = json.loads(_state_file().read_bytes())
    except (OSError, ValueError):
        return None
    processes = [process for process in state["processes"].values() if "pid" in process]
    return state if not processes or any(map(_alive, processes)) else None


def _state_file() -> Path:
    return system.cache_folder() / "up.json"


def _folder() -> Path:
    return system.cache_folder() / "up"


if __name__ == "__main__":
    sys.exit(main())
