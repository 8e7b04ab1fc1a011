# SPDX-License-Identifier: Apache-2.0
"""``auditspan verify``."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from auditspan.cli import common, links, verification
from auditspan_seal.errors import AuditspanError, SourceError
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.keys import read_verifier_keys
from auditspan_seal.log.directory import default_path, open_directory
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.journey import Journey, Since
from auditspan_seal.verify.progress import Progress
from auditspan_seal.verify.proof import PROOF_SUFFIX, verify_proof
from auditspan_seal.verify.report import VERDICT_OF, Claim, Report, Verdict
from auditspan_seal.verify.state import StateFile
from auditspan_seal.verify.trust import read_revocation
from auditspan_seal.witness.trusted import TrustedCheckpoint

COLOURS = {
    Verdict.PASSED: "bold green",
    Verdict.FAILED: "bold red",
    Verdict.INCOMPLETE: "bold yellow",
    Verdict.UNVERIFIABLE: "bold magenta",
}
_MARKS = {Verdict.PASSED: "✓", Verdict.FAILED: "✗", Verdict.INCOMPLETE: "…", Verdict.UNVERIFIABLE: "?"}
_NOT_RECORDED = 2
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
    parser.add_argument(
        "place",
        nargs="*",
        type=Path,
        metavar="DIR | FILE",
        help="log directory (default: AUDITSPAN_DIR, else the state directory); or OTLP/JSON files with sealed spans "
        "(.gz and .zst too), all together; or one proof",
    )
    parser.add_argument("--elasticsearch", metavar="URL", help="read the documents in this Elasticsearch instead")
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="public key to trust: the log.vkey of a log, or PEM; once for each log",
    )
    parser.add_argument(
        "--revoked",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="revocation of a key, as `auditspan keys revoke` writes it; may be repeated",
    )
    parser.add_argument(
        "--checkpoints",
        metavar="PLACE",
        action="append",
        default=[],
        help="second place to compare with: archive of checkpoints, cosigned note, or witness; may be repeated",
    )
    parser.add_argument(
        "--policy", type=Path, metavar="FILE", help="with --checkpoints: which witnesses must have cosigned"
    )
    parser.add_argument(
        "--require",
        choices=[*(claim.value for claim in Claim), "all"],
        metavar="CLAIM",
        action="append",
        default=[],
        help="UNVERIFIABLE if this claim cannot be shown: " + ", ".join(claim.value for claim in Claim) + "; or all",
    )
    parser.add_argument("--origin", metavar="ORIGIN", help="with --elasticsearch: verify only this log")
    scope = parser.add_mutually_exclusive_group()
    scope.add_argument("--since", metavar="T", help="begin at the checkpoint that covers this index or time (ISO 8601)")
    scope.add_argument("--run", metavar="ID", dest="run_id", help="prove the records of one run, and nothing else")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="remember how far verification came, and go on there next time; keep it where the log's writers cannot "
        "write",
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes to use (default: one for each processor if the log is large)"
    )
    parser.add_argument(
        "--record",
        type=Path,
        metavar="DIR",
        help="record in this log directory, one of your own, that and how it was verified; delivered like every record",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=15.0,
        metavar="SECONDS",
        help="with --elasticsearch: how long to wait for documents still on their way (default: 15)",
    )


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    trust = _trust(options)
    began = time.time_ns()
    report = _verify(options, trust)
    code = report.exit_code if options.record is None else _recorded(report, options.record, began)
    if options.json:
        found = {origin: link for origin in report.logs if (link := links.of_origin(origin))}
        common.print_json(report.as_json() | ({"links": found} if found else {}))
    else:
        show(report, common.console())
    return code


def _recorded(report: Report, directory: Path, began: int) -> int:
    try:
        verification.record(report, directory, began)
    except AuditspanError as error:  # the verdict stands; but whoever relies on the record must know
        common.progress(f"this verification was not recorded: {error}")
        return report.exit_code or _NOT_RECORDED
    return report.exit_code


def _trust(options: argparse.Namespace) -> Trust:
    keys = [key for path in options.key for key in read_verifier_keys(path)]
    checkpoints: list[TrustedCheckpoint] = []
    if options.checkpoints:
        from auditspan_seal.formats.witness_policy import Policy
        from auditspan_seal.witness.trusted import load

        policy = Policy.parse(_read(options.policy)) if options.policy is not None else None
        for place in options.checkpoints:
            # By whom of the log's keys a checkpoint there must be signed is not asked: after a change of the key there
            # are others than those given, and the place itself is what is trusted. Only a witness is asked by log.
            found = load(place, policy, keys if place.startswith(("http://", "https://")) else [])
            for item in found.checkpoints:
                if any(_altered(item.note, item.origin, key) for key in keys):
                    found.reject(f"{item.source}: its signature does not verify; it was altered or forged.")
                else:
                    checkpoints.append(item)
            for message in found.rejected:
                common.progress(f"not taken from {place}: {message}")
    elif options.policy is not None:
        raise SourceError("--policy says which witnesses count, but no checkpoints were given.", "Give --checkpoints.")
    wanted = set(Claim) if "all" in options.require else {Claim(name) for name in options.require}
    return Trust(keys, [read_revocation(path) for path in options.revoked], checkpoints, sorted(wanted))


def _altered(note: str, origin: str, key: VerifierKey) -> bool:
    return key.name in (origin, "") and Note.parse(note).signed_by(VerifierKey(origin, key.public)) is False


def _verify(options: argparse.Namespace, trust: Trust) -> Report:
    places: list[Path] = options.place
    scoped = options.since is not None or options.run_id is not None or options.state is not None
    if len(places) == 1 and places[0].name.endswith(PROOF_SUFFIX):
        if scoped:
            raise SourceError(
                "A proof is of one record: there is no scope to it.", "Leave out --since, --run, --state."
            )
        return verify_proof(places[0], *trust.keys)
    journey = Journey(
        Since.parse(options.since) if options.since is not None else None,
        options.run_id,
        StateFile(options.state) if options.state is not None else None,
    )
    if options.jobs is not None and options.jobs < 1:
        raise SourceError("--jobs must be at least 1.", "Leave it out to have it chosen.")
    if options.elasticsearch:
        from auditspan_seal.verify.elasticsearch import verify_elasticsearch

        return verify_elasticsearch(
            options.elasticsearch, origin=options.origin, wait=options.wait, progress=common.progress, trust=trust,
            jobs=options.jobs, journey=journey,
        )  # fmt: skip
    progress = Progress(common.progress)
    if places and all(path.is_file() for path in places):
        from auditspan_seal.verify.files import verify_files

        return verify_files(places, trust=trust, jobs=options.jobs, progress=progress, journey=journey)
    if len(places) > 1:
        raise SourceError("Several places were given that are not all files.", "Give one directory, or files only.")
    from auditspan_seal.verify.directory import verify_directory

    directory = open_directory(places[0] if places else default_path())
    return verify_directory(directory, trust=trust, jobs=options.jobs, progress=progress, journey=journey)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the path given to --policy.") from None


def show(report: Report, console: Console) -> None:
    """Print a report for people."""
    verdict = report.verdict
    console.print(
        f"[{COLOURS[verdict]}]{verdict.value}[/]  {report.records} audit records, {report.checkpoints} signed "
        f"checkpoints in {escape(report.source)}"
    )
    for origin, size in report.logs.items():
        console.print(f"  log {escape(origin)}: {size} entries", style="dim")
        if (link := links.of_origin(origin)) is not None:
            console.print(f"    {link}", style="dim", markup=False, soft_wrap=True)
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
    more = len(report.findings) - _SHOWN + sum(report.omitted.values())
    if more > 0:
        console.print(f"  … and {more} more; --json has {'them all' if not report.omitted else 'most of them'}")
    console.print("  what that shows:")
    for claim, outcome, because in report.claims():
        console.print(f"    [{COLOURS[outcome]}]{_MARKS[outcome]} {claim.value}[/]: {escape(because)}")
    for note in report.notes:
        console.print(f"  note: {escape(note)}", style="dim")
