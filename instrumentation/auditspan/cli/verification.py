# SPDX-License-Identifier: Apache-2.0
"""``auditspan verify --record DIR``: that and how a log was verified is a record, too (docs/decisions/0029)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from auditspan_seal.verify.report import VERDICT_OF, Report, Verdict

WORKFLOW = "auditspan.verify"
_WORST = (Verdict.FAILED, Verdict.UNVERIFIABLE, Verdict.INCOMPLETE)
_CODES = 10  # named at most


def record(report: Report, directory: Path, began: int) -> None:
    """Record a verification, once for each log: in a log directory, from where it is delivered like every record.

    The directory should be that of whoever verifies, and not the one that was verified.

    Args:
        report: what came of it.
        directory: the log directory to record into; made if absent.
        began: when verification began, nanoseconds since the epoch.

    Raises:
        AuditspanError: it cannot be recorded there.
    """
    from opentelemetry.sdk.trace import TracerProvider

    from auditspan import __version__, boot
    from auditspan.capture.actor import os_actor
    from auditspan.capture.recorder import Event, Recorder, Target
    from auditspan.capture.run import Run
    from auditspan.capture.version import ScriptVersion
    from auditspan.schema import Outcome, TriggerType
    from auditspan.schema.events import WorkflowFinished

    os.environ["AUDITSPAN_DIR"] = str(directory)
    provider = TracerProvider(shutdown_on_exit=False)
    boot.activate(provider)  # of this provider only: the user's own exporters have nothing to do with it
    recorder = Recorder(WORKFLOW, __version__, provider)
    script = ScriptVersion(__version__, "package", "auditspan")
    outcomes = {Verdict.PASSED: Outcome.SUCCESS, Verdict.FAILED: Outcome.FAILURE}
    run = Run(f"{WORKFLOW}/{uuid.uuid4()}", WORKFLOW, TriggerType.UNKNOWN, "auditspan verify", script)
    for origin, verdict, reason in _of_logs(report):
        details = WorkflowFinished(action="VERIFY", run_reason=reason)
        event = Event("verify auditspan.log", details, os_actor(), Target(origin, "auditspan.log"), began=began)
        outcome = outcomes.get(verdict, Outcome.UNKNOWN)
        recorder.start(event, opens=run).finish(outcome, verdict.value if outcome is Outcome.FAILURE else None)
    provider.shutdown()


def _of_logs(report: Report) -> Iterator[tuple[str, Verdict, str]]:
    """Tell of each log what its own findings, and those that are of no log, come to."""
    for origin in report.logs or {report.source: 0}:
        codes = sorted({f.code for f in report.findings if f.origin in (origin, None, "") or not report.logs})
        found = {VERDICT_OF[code] for code in codes}
        verdict = next((one for one in _WORST if one in found), None)
        if verdict is None:
            verdict = _without_findings(report)
        names = ", ".join(code.value for code in codes[:_CODES])
        yield origin, verdict, f"{verdict.value}: {names}" if names else verdict.value


def _without_findings(report: Report) -> Verdict:
    """Return the verdict for a log that nothing is said against; what is not told of which log may be about it."""
    told = {VERDICT_OF[finding.code] for finding in report.findings}
    if report.omitted or report.verdict not in told:
        return report.verdict
    is_open = any(verdict is not Verdict.PASSED for claim, verdict, _ in report.claims() if claim in report.required)
    return Verdict.UNVERIFIABLE if is_open else Verdict.PASSED
