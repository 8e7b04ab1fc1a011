# SPDX-License-Identifier: Apache-2.0
"""``auditspan backend lint``: does a Collector configuration keep every audit record?"""

from __future__ import annotations

import argparse
import os
from typing import Any

from rich.markup import escape

from auditspan.cli import common

_REFUSED = 1
_COLOURS = {"error": "bold red", "warning": "bold yellow", "hint": "cyan"}


def register(commands: common.Verbs) -> None:
    """Add the command ``lint`` to ``auditspan backend``."""
    parser = common.add_verb(
        commands,
        "lint",
        run,
        "Read a Collector configuration; refuse it if it can lose, hide, re-route or alter audit records.",
        "auditspan backend lint collector.yaml receiver-tls.yaml",
        "0 nothing is refused (there may be warnings and hints), 1 refused, 2 wrong usage or an unreadable file",
        inner=True,
    )
    parser.add_argument(
        "configuration", nargs="*", metavar="CONFIG",
        help="the Collector's configuration; of several, the later ones are merged over the earlier, as with --config. "
        "${env:X} is taken from the environment of this command",
    )  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="refuse for warnings, too")
    parser.add_argument("--rules", action="store_true", help="list the rules and end")


def run(options: argparse.Namespace) -> int:
    """Run it."""
    from auditspan.collector_lint import RULES, Level, lint
    from auditspan_seal.errors import SourceError

    if options.rules:
        _rules(options.json)
        return 0
    if not options.configuration:
        raise SourceError("No configuration is named.", "Name the file or files that the Collector gets by --config.")
    report = lint(options.configuration, os.environ)
    strict = options.strict and any(item.level is Level.WARNING for item in report.findings)
    refused = report.refused or strict
    if options.json:
        common.print_json(
            {
                "verdict": "refused" if refused else "accepted",
                "files": report.files,
                "pipelines": report.pipelines,
                "sinks": report.sinks,
                "findings": [
                    {
                        "rule": item.rule, "level": item.level.value, "component": item.component, "file": item.file,
                        "line": item.line, "what": item.what, "means": RULES[item.rule].means,
                        "todo": RULES[item.rule].todo,
                    }
                    for item in report.findings
                ],
            }
        )  # fmt: skip
    else:
        _show(report, refused)
    return _REFUSED if refused else 0


def _show(report: Any, refused: bool) -> None:
    from auditspan.collector_lint import RULES

    console = common.console()
    console.print("[bold red]REFUSED[/]" if refused else "[bold green]ACCEPTED[/]", " ".join(report.files))
    console.print(f"  audit records pass: {', '.join(report.pipelines) or 'nothing'}", style="dim")
    console.print(f"  and are kept by:    {', '.join(report.sinks) or 'nobody'}", style="dim")
    for item in report.findings:
        place = f"{item.file}:{item.line}" if item.file else "not there"
        level = item.level.value
        console.print(
            f"\n[{_COLOURS[level]}]{level}[/] [bold]{item.rule}[/]  {escape(place)}  {escape(item.component)}"
        )
        console.print(f"  {escape(item.what)}")
        console.print(f"  What it means: {escape(RULES[item.rule].means)}")
        console.print(f"  What to do: {escape(RULES[item.rule].todo)}")


def _rules(as_json: bool) -> None:
    from auditspan.collector_lint import RULES

    if as_json:
        common.print_json(
            {name: {"level": rule.level.value, "means": rule.means, "todo": rule.todo} for name, rule in RULES.items()}
        )
        return
    console = common.console()
    for name, rule in RULES.items():
        console.print(f"[{_COLOURS[rule.level.value]}]{rule.level.value:<8}[/] [bold]{name}[/]")
        console.print(f"  {escape(rule.means)}\n  What to do: {escape(rule.todo)}")
