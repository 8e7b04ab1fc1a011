# SPDX-License-Identifier: Apache-2.0
"""A week with an incident in it, recorded as it goes, with a ledger beside it that says what was done.

Run under ``opentelemetry-instrument``. The recorder, the seal and the delivery are the real ones; only the clock is the
story's (Monday the 16th to Friday the 20th of November 2026, UTC). The ledger is written by the story itself, by hand
and before anything of it can be asked of Elasticsearch.

    opentelemetry-instrument python incident.py week|staging|dying LEDGER
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import opentelemetry.sdk.trace as sdk
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link

import auditspan
from auditspan.capture import run as runs
from auditspan.capture.actor import Actor
from auditspan.capture.recorder import Event, Recorder, Target, inside
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.schema import ActorEvidence, ActorType, Decision, Details, Outcome, TriggerType, Verified
from auditspan.schema import events as of

OF_EVERY_RECORD = (
    "client.address", "audit.rationale", "automation.parent.run.id", "automation.parent.run.claimed",
)  # fmt: skip
"""What the record of a beginning says, too; the rest is of the event that it is the beginning of."""
MINUTE = 60 * 10**9
MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY = range(16, 21)

ALICE, BOB, CAROL, DAVE, MALLORY = (
    Actor(f"{name}@example.com", ActorType.USER, ActorEvidence.FRAMEWORK_LOGIN)
    for name in ("alice", "bob", "carol", "dave", "mallory")
)
SCHEDULER = Actor("scheduler", ActorType.SYSTEM, ActorEvidence.LIBRARY)
GITHUB = Actor("github", ActorType.SERVICE, ActorEvidence.SIGNATURE)
STRANGER = Actor("github", ActorType.SERVICE, ActorEvidence.CLAIMED)
AGENT = Actor("agent-7", ActorType.SERVICE, ActorEvidence.DECLARED, behalf=BOB)

SYNC = ScriptVersion("1.4.0", "declared", "sync.run")
PAY = ScriptVersion("3.1.0", "package", "payroll.run")
PAY_UNKNOWN = ScriptVersion("unknown", "unknown", "payroll.run")
BILLING = ScriptVersion("2.0.0", "declared", "billing.export")


class Story:
    """Time, the ledger, and what is done."""

    def __init__(self, ledger: Path, environment: str) -> None:
        self.now = 0
        self._ledger = ledger
        self._environment = environment
        self._recorder = Recorder("story", "1.0")
        self._run: dict[str, Any] = {}
        vars(sdk)["time_ns"] = lambda: self.now

    def at(self, day: int, clock: str) -> None:
        """Set the clock."""
        hours, minutes = map(int, clock.split(":"))
        when = dt.datetime(2026, 11, day, hours, minutes, tzinfo=dt.timezone.utc)
        self.now = int(when.timestamp()) * 10**9

    def _note(self, **facts: Any) -> None:
        with self._ledger.open("a") as file:
            file.write(json.dumps({"deployment.environment.name": self._environment, **self._run, **facts}) + "\n")

    @contextlib.contextmanager
    def done(
        self,
        kind: str,
        verb: str,
        details: Details,
        actor: Actor,
        target: str,
        target_type: str,
        *,
        minutes: float = 1,
        outcome: str = "success",
        error: str | None = None,
        opens: Run | None = None,
        context: Context | None = None,
        links: tuple[Link, ...] = (),
        attributes: dict[str, Any] | None = None,
        **facts: Any,
    ) -> Iterator[trace.SpanContext]:
        """Record one thing that is done, and note it: what is said of it in `facts`, in the words of the registry."""
        began, outer = self.now, trace.get_current_span(context).get_span_context()
        before, script = self._run, opens.script if opens else None
        if opens is not None:
            self._run = {
                "automation.run.id": opens.id,
                "automation.workflow.name": opens.workflow,
                "automation.trigger.type": opens.trigger.value,
                "automation.trigger.rule": opens.rule,
                "automation.script.name": script.name,
                "automation.script.version": script.version,
                "automation.run.attempt": opens.attempt,
            }
        who = {
            "audit.actor.id": actor.id,
            "audit.actor.type": actor.type.value,
            "audit.actor.evidence": actor.evidence.value,
            **({"audit.actor.behalf.id": actor.behalf.id} if actor.behalf else {}),
            "audit.target.id": target,
            "audit.target.type": target_type,
        }
        event = Event(
            f"{verb.lower()} {target_type}", details, actor, Target(target, target_type), links=links,
            attributes=attributes or {},
        )  # fmt: skip
        record = self._recorder.start(event, opens=opens, context=context)
        own = trace.get_current_span(record.context).get_span_context()
        place = {
            "trace_id": f"{own.trace_id:032x}",
            "span_id": f"{own.span_id:016x}",
            "parent_span_id": f"{outer.span_id:016x}" if outer.is_valid else None,
            "name": f"{verb.lower()} {target_type}",
        }
        if opens is not None or kind == "workflow.execution.finished":
            started = {"audit.event.type": "workflow.execution.started", "audit.action": "START", "@timestamp": began}
            known = {name: value for name, value in facts.items() if name in OF_EVERY_RECORD}
            self._note(**who, trace_id=place["trace_id"], **started, **{"audit.outcome": "success"}, **known)
        with inside(record):
            yield own
        self.now = began + int(minutes * MINUTE) if self.now == began else self.now
        record.finish(Outcome(outcome), error)
        self._note(
            **who, **place, **{"audit.event.type": kind, "audit.action": verb, "audit.outcome": outcome},
            **({"error.type": error} if error else {}), **{"@timestamp": began, "duration": self.now - began}, **facts,
        )  # fmt: skip
        self._run = before

    @contextlib.contextmanager
    def run(
        self,
        run_id: str,
        workflow: str,
        trigger: TriggerType,
        rule: str,
        script: ScriptVersion,
        actor: Actor,
        *,
        attempt: int = 1,
        **more: Any,
    ) -> Iterator[trace.SpanContext]:
        """One attempt of a run, as a runner's plugin records it."""
        details = of.WorkflowFinished(task_name=workflow, task_run_id=run_id)
        opens = Run(run_id, workflow, trigger, rule, script, attempt=attempt)
        with self.done(
            "workflow.execution.finished", "EXECUTE", details, actor, workflow, "story.job", opens=opens, **more
        ) as own:
            yield own

    def brief(self, *arguments: Any, **more: Any) -> None:
        """Something in which nothing else is done."""
        with self.done(*arguments, **more):
            pass


def nightly(story: Story, day: int, *, clock: str = "02:00", attempt: int = 1, error: str | None = None) -> None:
    story.at(day, clock)
    outcome = "failure" if error else "success"
    with story.run(
        f"sync-{day}", "crm-sync", TriggerType.SCHEDULE, "cron[hour='2']", SYNC, SCHEDULER, attempt=attempt,
        outcome=outcome, error=error,
    ):  # fmt: skip
        story.brief("data.read", "READ", of.DataRead(), SCHEDULER, "contacts", "crm.contact", minutes=2)
        if error is None:
            story.brief("data.write", "WRITE", of.DataWrite(), SCHEDULER, "contacts", "warehouse.table", minutes=3)
    if error:
        details = of.WorkflowRetried(run_attempt=attempt, run_reason="it failed")
        opens = Run(f"sync-{day}", "crm-sync", TriggerType.SCHEDULE, "cron[hour='2']", SYNC, attempt=attempt)
        story.brief(
            "workflow.execution.retried", "RETRY", details, SCHEDULER, "crm-sync", "story.job", opens=opens, minutes=0,
            outcome="failure",
        )  # fmt: skip


def delivery(story: Story, day: int, verified: str, actor: Actor, *, outcome: str = "success") -> None:
    story.at(day, "09:00")
    details = of.WebhookDelivery(
        webhook_source="github", webhook_event_type="push", webhook_signature_verified=Verified(verified),
        http_method="POST", webhook_delivery_id=f"d-{day}", http_route="/hooks/code", http_status=202,
    )  # fmt: skip
    script = ScriptVersion("0.9.0", "declared", "intake.receive")
    opens = Run(f"webhook/github/d-{day}", "code-intake", TriggerType.WEBHOOK, "POST /hooks/code", script)
    story.brief(
        "webhook.delivery", "RECEIVE", details, actor, "/hooks/code", "http.route", opens=opens, minutes=0.1,
        outcome=outcome, attributes={"client.address": "203.0.113.7"},
        **{
            "client.address": "203.0.113.0/24",  # of an address only the network is recorded, unless the policy says so
            "automation.webhook.signature.verified": verified,
            "automation.webhook.source": "github",
        },
    )  # fmt: skip


def payroll(story: Story, day: int, clock: str, actor: Actor, script: ScriptVersion = PAY) -> trace.SpanContext:
    story.at(day, clock)
    with story.run(f"payroll-{day}-{clock}", "payroll", TriggerType.MANUAL, "by hand", script, actor) as own:
        if actor is not MALLORY:
            story.brief("data.read", "READ", of.DataRead(), actor, "timesheets", "hr.timesheet", minutes=5)
            story.brief("data.write", "WRITE", of.DataWrite(), actor, "account-17", "bank.transfer", minutes=20)
        else:
            story.brief("data.read", "READ", of.DataRead(), actor, "salaries", "hr.salary", minutes=4)
            details = of.DataExport(data_destination="sftp://elsewhere.example")
            story.brief("data.export", "EXPORT", details, actor, "salaries", "hr.salary", minutes=3)
    return own


def change(story: Story, kind: str, verb: str, details: Details, actor: Actor, target: str, **facts: Any) -> None:
    """Something that decides how automations behave, done in the console."""
    script = ScriptVersion("5.0", "package", "console")
    opens = Run(f"console-{story.now}", "console", TriggerType.MANUAL, "console", script)
    story.brief(kind, verb, details, actor, target, "story.setting", opens=opens, minutes=0.5, **facts)


def permission(story: Story, verb: str, actor: Actor, subject: Actor, what: str) -> None:
    word = "granted" if verb == "GRANT" else "revoked"
    details = of.PermissionChange(permission_subject_id=subject.id, action=verb, **{f"permission_{word}": [what]})
    facts = {"audit.permission.subject.id": subject.id, f"audit.permission.{word}": what}
    change(story, "permission.change", verb, details, actor, "payroll", **facts)


def week(story: Story) -> None:
    nightly(story, MONDAY)
    delivery(story, MONDAY, "true", GITHUB)
    story.at(MONDAY, "10:00")
    details: Details = of.TemplateDeployment(template_name="invoice-to-crm", template_version="3")
    facts = {"audit.template.name": "invoice-to-crm", "audit.template.version": "3"}
    change(story, "template.deployment", "DEPLOY", details, ALICE, "crm-sync", **facts)
    facts = {"audit.package.name": "tap-postgres", "audit.package.version": "0.4.1"}
    details = of.PackageInstall(package_name="tap-postgres", package_version="0.4.1")
    change(story, "package.install", "INSTALL", details, ALICE, "tap", **facts)
    facts = {"audit.wiring.from": "tap-postgres", "audit.wiring.to": "warehouse"}
    details = of.ComponentWiring(wiring_from="tap-postgres", wiring_to="warehouse")
    change(story, "component.wiring", "CONNECT", details, ALICE, "crm", **facts)

    nightly(story, TUESDAY)
    delivery(story, TUESDAY, "false", STRANGER, outcome="failure")
    first = payroll(story, TUESDAY, "10:00", ALICE)
    story.at(TUESDAY, "15:00")
    claimed = baggage.set_baggage("automation.run.id", "partner/run-77", context=runs.from_outside(Context()))
    with story.run(
        "partner-sync-1", "partner-sync", TriggerType.API, "POST /runs", SYNC, BOB, context=claimed, minutes=2,
        links=(Link(first),),
        **{"automation.parent.run.id": "partner/run-77", "automation.parent.run.claimed": True},
    ):  # fmt: skip
        pass

    nightly(story, WEDNESDAY, error="ConnectionError")
    nightly(story, WEDNESDAY, clock="02:10", attempt=2, error="ConnectionError")
    nightly(story, WEDNESDAY, clock="02:20", attempt=3)
    delivery(story, WEDNESDAY, "not_observed", STRANGER)
    story.at(WEDNESDAY, "16:00")
    lacking = [
        f"audit.{name}: required, missing" for name in ("decision.path", "policy.name", "policy.rule", "rationale")
    ]
    story._note(
        **{
            "audit.event.type": "policy.evaluation", "audit.action": "APPROVE", "audit.outcome": "success",
            "audit.actor.id": CAROL.id, "audit.actor.type": "user", "audit.actor.evidence": "declared",
            "audit.target.id": "payout-1", "audit.target.type": "payout", "audit.decision": "approve",
            "automation.workflow.name": "payout-1", "automation.trigger.type": "unknown",
            "automation.run.id": "the run of payout-1", "audit.nonconformant": lacking, "@timestamp": story.now,
        }
    )  # fmt: skip
    with auditspan.action("APPROVE", target="payout-1", target_type="payout", actor=CAROL.id):  # and says not why
        pass

    story.at(THURSDAY, "02:00")
    opens = Run(f"sync-{THURSDAY}", "crm-sync", TriggerType.SCHEDULE, "cron[hour='2']", SYNC)
    skipped = of.WorkflowSkipped(run_reason="it was due too long ago")
    story.brief("workflow.execution.skipped", "SKIP", skipped, SCHEDULER, "crm-sync", "story.job", opens=opens)
    delivery(story, THURSDAY, "true", GITHUB)
    payroll(story, THURSDAY, "11:00", AGENT)
    # The incident: at night, by somebody who has no business there.
    story.at(THURSDAY, "23:20")
    permission(story, "GRANT", MALLORY, MALLORY, "payroll.run")
    facts = {"audit.configuration.key": "export.limit"}
    change(
        story,
        "configuration.change",
        "UPDATE",
        of.ConfigurationChange(configuration_key="export.limit"),
        MALLORY,
        "payroll",
        **facts,
    )
    override = of.PolicyEvaluation(
        policy_name="payout-limits",
        policy_rule="amount <= 1000",
        decision=Decision.OVERRIDE,
        rationale="urgent",
        action="OVERRIDE",
        decision_path=["said so"],
    )
    facts = {"audit.policy.name": "payout-limits", "audit.decision": "override", "audit.rationale": "urgent"}
    change(story, "policy.evaluation", "OVERRIDE", override, MALLORY, "payout-2", **facts)
    payroll(story, THURSDAY, "23:30", MALLORY, PAY_UNKNOWN)

    delivery(story, FRIDAY, "true", GITHUB)
    story.at(FRIDAY, "09:30")
    permission(story, "REVOKE", ALICE, MALLORY, "payroll.run")
    facts = {"audit.policy.name": "payout-limits", "audit.rationale": "after the incident"}
    policy = of.PolicyChange(policy_name="payout-limits", rationale="after the incident", action="UPDATE")
    change(story, "policy.change", "UPDATE", policy, ALICE, "payout-limits", **facts)
    opens = Run(f"sync-{FRIDAY}", "crm-sync", TriggerType.SCHEDULE, "cron[hour='2']", SYNC)
    cancelled = of.WorkflowCancelled(run_reason="called off by alice")
    story.brief("workflow.execution.cancelled", "CANCEL", cancelled, ALICE, "crm-sync", "story.job", opens=opens)
    for minute in range(6):
        story.at(FRIDAY, f"14:{2 * minute:02}")
        with story.run(
            f"billing-{minute}", "billing-export", TriggerType.EVENT, "queue: invoices", BILLING, SCHEDULER,
            outcome="failure", error="TimeoutError", minutes=1,
        ):  # fmt: skip
            pass


def staging(story: Story) -> None:
    nightly(story, MONDAY, clock="03:00")
    story.at(WEDNESDAY, "11:00")
    with story.run("cleanup-1", "cleanup", TriggerType.MANUAL, "by hand", SYNC, DAVE):
        story.brief("data.delete", "DELETE", of.DataDelete(), DAVE, "old", "crm.contact", minutes=6)


def dying(story: Story) -> None:
    story.at(FRIDAY, "16:00")
    with story.run("import-1", "long-import", TriggerType.MANUAL, "by hand", SYNC, BOB):
        # What the next process that signs will say of it, in its own time.
        story._note(
            **{
                "audit.event.type": "workflow.execution.interrupted", "audit.action": "INTERRUPT",
                "audit.outcome": "unknown", "audit.actor.id": BOB.id, "audit.actor.type": "user",
                "audit.actor.evidence": "framework_login", "audit.target.id": "long-import",
                "audit.target.type": "story.job", "@timestamp": time.time_ns(), "duration": 0,
            }
        )  # fmt: skip
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    part, file = sys.argv[1:]
    {"week": week, "staging": staging, "dying": dying}[part](
        Story(Path(file), "staging" if part == "staging" else "production")
    )
