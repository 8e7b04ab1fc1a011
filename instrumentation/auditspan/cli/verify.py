# SPDX-License-Identifier: Apache-2.0
"""``auditspan verify``."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from auditspan.cli import common
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.verify.proof import PROOF_SUFFIX, verify_proof
from auditspan_seal.verify.report import VERDICT_OF, Report, Verdict

COLOURS = {
    Verdict.PASSED: "bold green",
    Verdict.FAILED: "bold red",
    Verdict.INCOMPLETE: "bold yellow",
    Verdict.UNVERIFIABLE: "bold magenta",
}
_SHOWN = 20  # findings printed for people; --json has all


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "verify",
        run,
        "Check that no audit record was altered, deleted, inserted or reordered; or one proof (a .tlog-proof file).",
        "auditspan verify --elasticsearch http://127.0.0.1:9200 --key log.vkey",
        "0 PASSED, 1 FAILED, 2 wrong usage or unreachable source, 3 INCOMPLETE, 4 UNVERIFIABLE",
    )
    common.add_source(parser)
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="public key to trust: the log.vkey of a log, or PEM; once for each log",
    )
    parser.add_argument("--origin", metavar="ORIGIN", help="with --elasticsearch: verify only this log")
    parser.add_argument(
        "--wait",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="with --elasticsearch: how long to wait for documents still on their way (default: 15)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    keys = [read_verifier_key(path) for path in options.key]
    if options.directory is not None and options.directory.name.endswith(PROOF_SUFFIX):
        report = verify_proof(options.directory, *keys)
    elif options.elasticsearch:
        from auditspan_seal.verify.elasticsearch import verify_elasticsearch

        report = verify_elasticsearch(
            options.elasticsearch, *keys, origin=options.origin, wait=options.wait, progress=common.progress
        )
    else:
        from auditspan_seal.verify.directory import verify_directory

        report = verify_directory(common.directory_of(options), *keys)
    if options.json:
        common.print_json(report.as_json())
    else:
        show(report, common.console())
    return report.exit_code


def show(report: Report, console: Console) -> None:
    """Print a report for people."""
    verdict = report.verdict
    console.print(
        f"[{COLOURS[verdict]}]{verdict.value}[/]  {report.records} audit records, {report.checkpoints} signed "
        f"checkpoints in {escape(report.source)}"
    )
    for origin, size in report.logs.items():
        console.print(f"  log {escape(origin)}: {size} entries", style="dim")
    trust = {"pinned": "the key that was given", "first_use": "the key that the log names itself (first use)"}
    console.print(f"  trust: {trust.get(report.trust, report.trust)}", style="dim")
    for origin, indexes in report.erasures.items():
        at = ", ".join(map(str, indexes))
        console.print(
            f"  personal values erased on request: {report.erased}, on record at index {at} of {escape(origin)}"
        )
    for finding in report.findings[:_SHOWN]:
        colour = COLOURS[VERDICT_OF[finding.code]]
        where = [f"index {finding.index}" if finding.index is not None else ""]
        where += [
            f"{name} {value}" for name, value in (("span", finding.span_id), ("document", finding.document_id)) if value
        ]
        where += [f"field {finding.field}"] if finding.field else []
        console.print(f"  [{colour}]✗ {finding.code.value}[/]  {escape(' · '.join(part for part in where if part))}")
        console.print(f"      {escape(finding.message)}")
    if len(report.findings) > _SHOWN:
        console.print(f"  … and {len(report.findings) - _SHOWN} more; --json has them all")
    if verdict is Verdict.PASSED:
        console.print(
            "  every record is the one that was signed, in its place, none missing"
            + (", and every visible document says what its signed statement says" if report.compared else "")
        )
    for limit in report.not_proven():
        console.print(f"  not proven: {limit}", style="dim")
