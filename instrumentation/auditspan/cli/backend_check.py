# SPDX-License-Identifier: Apache-2.0
"""``auditspan backend check``: proves on the live Elasticsearch that the promises hold."""

from __future__ import annotations

import argparse
import os
from typing import Any

from rich.markup import escape

from auditspan.cli import common

_FAILED = 1
_UNKNOWN = 3
_STYLES = {"OK": "green", "FAILED": "bold red", "UNKNOWN": "yellow"}


def register(commands: common.Verbs, url: str) -> None:
    """Add the command."""
    parser = common.add_verb(
        commands,
        "check",
        run,
        "Ask the live Elasticsearch whether the promises hold: our templates in effect, documents kept as sent, none "
        "refused, changed or deleted, the Collector's account able to add and nothing else. Changes nothing.",
        "auditspan backend check --elasticsearch https://auditor:secret@es.example:9200 --probe http://127.0.0.1:4318",
        "0 all OK; 1 something FAILED; 2 wrong usage or unreachable; 3 nothing failed, but something is UNKNOWN",
        inner=True,
    )
    parser.add_argument("--elasticsearch", metavar="URL", help=f"the Elasticsearch (default: {url})")
    parser.add_argument(
        "--probe", metavar="ENDPOINT",
        help="also send one record through the Collector at this OTLP/HTTP endpoint and verify it; it stays, as a log "
        "of its own",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=float, default=30.0, metavar="SECONDS",
        help="with --probe: how long to wait for its delivery, and for its documents (default: 30)",
    )  # fmt: skip
    parser.epilog = (
        f"{parser.epilog}\n\nenvironment:\n"
        "  ELASTIC_API_KEY                          who asks, if the URL has no user: the roles auditspan_auditor and\n"
        "                                           auditspan_administrator together see everything\n"
        "  AUDITSPAN_ELASTICSEARCH_API_KEY, or      the Collector's account, as its configuration has it; without\n"
        "  AUDITSPAN_ELASTICSEARCH_USER, …_PASSWORD it, what it may do is UNKNOWN\n"
        "  AUDITSPAN_ELASTICSEARCH_CA_FILE          a private certificate authority"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from auditspan.backend_setup import check, probe, writer
    from auditspan.backend_setup.artefacts import Wanted, load
    from auditspan.backend_setup.check_result import Check, unknown
    from auditspan.backend_setup.server import Server
    from auditspan.cli.backend import url_of
    from auditspan.devstack.system import configuration_folder

    url = url_of(options)
    artefacts = load(configuration_folder() / "elasticsearch", Wanted())
    found: list[Check] = []

    def add(item: Check) -> None:
        found.append(item)
        if not options.json:
            _show(item)

    with Server.of_environment(url) as server:
        for item in check.checks(server, artefacts):
            add(item)
        account = _account()
        if account is None:
            add(
                unknown(
                    "writer",
                    "the Collector's account was not given",
                    "Run this with the environment of the Collector: AUDITSPAN_ELASTICSEARCH_API_KEY, or …_USER and "
                    "…_PASSWORD.",
                )
            )
        else:
            with Server(url, **account) as collector:
                for item in writer.checks(server, collector):
                    add(item)
    if options.probe:
        common.progress("sending a probe record …")
        add(probe.check(url, options.probe, max(0.0, options.wait)))
    results = [item.result.value for item in found]
    state = next((value for value in ("FAILED", "UNKNOWN") if value in results), "OK")
    if options.json:
        checks = [
            {"name": item.name, "result": item.result.value, "found": item.found, "advice": item.advice}
            for item in found
        ]
        common.print_json({"state": state, "checks": checks})
    else:
        count = ", ".join(f"{results.count(value)} {value}" for value in _STYLES if value in results)
        common.console().print(f"[{_STYLES[state]}]{state}[/]  {count}")
    return {"FAILED": _FAILED, "UNKNOWN": _UNKNOWN}.get(state, 0)


def _account() -> dict[str, Any] | None:
    """Return the account of the Collector, as its configuration reads it."""
    if key := os.environ.get("AUDITSPAN_ELASTICSEARCH_API_KEY"):
        return {"api_key": key}
    if user := os.environ.get("AUDITSPAN_ELASTICSEARCH_USER"):
        return {"login": (user, os.environ.get("AUDITSPAN_ELASTICSEARCH_PASSWORD", ""))}
    return None


def _show(item: Any) -> None:
    console = common.console()
    style = _STYLES[item.result.value]
    console.print(f"  [{style}]{item.result.value:<8}[/] [bold]{escape(item.name)}[/]: {escape(item.found)}")
    if item.advice:
        console.print(f"             What to do: {escape(item.advice)}", style="dim")
