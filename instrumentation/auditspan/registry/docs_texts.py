# SPDX-License-Identifier: Apache-2.0
"""What the reference page says beyond the registry: how attributes belong together, when one meets what."""

from __future__ import annotations

from typing import Final

GROUPS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "Who": (
        "Nobody is never an answer: an actor that is not known is `unknown`, and the evidence says how far a name can "
        "be trusted.",
        (
            "audit.actor.id", "audit.actor.type", "audit.actor.evidence", "audit.actor.behalf.id",
            "audit.actor.behalf.type",
        ),
    ),
    "What": (
        "The event type says what kind of thing happened, the action is the verb, the target is what it was done to. "
        "When it happened is the time of the span: its start and end, to the nanosecond.",
        (
            "audit.event.type", "audit.action", "audit.outcome", "audit.target.type", "audit.target.id", "error.type",
            "audit.message",
        ),
    ),
    "Change": (
        "How a target was and how it is come as hashes, never as data. [state-hash.md](../state-hash.md) says how to "
        "compute them.",
        ("audit.state.before.hash", "audit.state.after.hash", "audit.change.fields"),
    ),
    "Where": (
        "Where the request came from, if there was one, and where it was handled. What a policy does not allow is not "
        "there: see [privacy.md](../privacy.md).",
        (
            "client.address", "user_agent.original", "session.id", "audit.client.fingerprint",
            "deployment.environment.name", "code.function.name",
        ),
    ),
    "Why": (
        "What set the run in motion, and, where somebody decided, for what reason.",
        ("automation.trigger.type", "automation.trigger.rule", "audit.rationale", "audit.decision.path"),
    ),
    "Which": (
        "Which run of which automation, and which version of which script. All records of one run share its ID, in "
        "whatever process they were made.",
        (
            "automation.run.id", "automation.run.attempt", "automation.parent.run.id", "automation.parent.run.claimed",
            "automation.workflow.name", "automation.script.name", "automation.script.version",
            "automation.script.version.source",
            "automation.workflow.version", "automation.workflow.bundle",
            "automation.script.version.source", "automation.deployment.name", "automation.deployment.version",
        ),
    ),
    "Tags": (
        "What the policy of the installation says about the target, for sorting and for alerts.",
        ("audit.module", "audit.feature", "audit.risk.level"),
    ),
    "The record itself": (
        "What makes it a record, ties it to the one that caused it, and says what is wrong with it, if anything is.",
        (
            "audit.record.id", "audit.parent.record.id", "audit.schema.version", "audit.redacted",
            "audit.nonconformant",
        ),
    ),
}  # fmt: skip
"""Heading → sentence and attributes. Together they are all attributes that every record can have."""

MEET: Final[dict[str, str]] = {
    "data.read": "when a tap has read a stream, or a program says that it read something.",
    "data.write": "when a target has written a stream, or a program that cannot tell new from old says that it wrote.",
    "data.create": "when a program says that it made something: a contact, a file, a ticket.",
    "data.update": "when a program says that it changed something, mostly with the states before and after.",
    "data.delete": "when a program says that it deleted something.",
    "data.export": "when data go to a partner, a bucket or a browser, outside of what you control.",
    "data.import": "when data come from a partner, a file or a form.",
    "workflow.execution.started": "at the beginning of every run. One without a later record of the same run died.",
    "workflow.execution.finished": "at the end of every run, job or task, and for every step that a program names "
    "with a verb of its own.",
    "workflow.execution.interrupted": "when the process of a run was killed or its machine was lost; written "
    "afterwards, by whoever finds out.",
    "workflow.execution.retried": "between two attempts. The next attempt has the same run ID and a higher "
    "`automation.run.attempt`.",
    "workflow.execution.skipped": "when a scheduler passes over a run: it was too late, or the one before was still "
    "running.",
    "workflow.execution.cancelled": "when a person or a program stopped a run, or removed it before its time.",
    "webhook.delivery": "for every delivery that a web application receives on a webhook route, also the refused ones.",
    "permission.change": "when somebody gives or takes rights, roles or shares.",
    "configuration.change": "when somebody changes a setting of an automation. The value is not in the record; its "
    "hash is.",
    "template.deployment": "when a template becomes a running automation, or an earlier version of it does again.",
    "package.install": "when a connector, plugin or library is installed, updated or removed.",
    "component.wiring": "when somebody connects two steps, or takes a connection away.",
    "policy.evaluation": "when a rule lets something through or stops it, and when a person approves, rejects or sets "
    "a decision aside.",
    "policy.change": "when a policy gets a new version.",
    "key.change": "when a signing key is made, replaced or withdrawn.",
    "log.started": "once in each log, as its first entry.",
    "log.gap": "when the log itself finds that a record is torn, unreadable or was never written.",
    "log.erasure": "after `auditspan erase`.",
    "log.heartbeat": "every ten minutes (`AUDITSPAN_HEARTBEAT`) as long as something signs the log.",
    "log.closed": "when the process that signs ends in good order and heartbeats were promised.",
    "log.key.change": "after `auditspan keys rotate` and `auditspan keys revoke`.",
}
"""Event type → "You meet it …"."""

PRIVACY: Final = {
    "public": ("safe for anybody", "in the signed statement, in messages, alerts and dashboards"),
    "internal": ("of the organisation's own making: names of streams, routes, jobs and rules", "as public"),
    "personal": (
        "about a person, or may be",
        "beside the statement, which has only a salted commitment of it; never in messages; can be erased",
    ),
    "secret": ("a key to something", "nowhere: it is never recorded"),
}
"""Privacy class → what it is, where its values are."""

FORMATS: Final = {
    "uuid": "32 hexadecimal digits in five groups, lower-case",
    "verb": "upper-case letters and `_`",
    "hash": "`sha256:` and 64 hexadecimal digits",
    "timestamp": "ISO 8601",
    "version": "three numbers with dots",
}

PICTURE: Final = """```
run  webhook/github/72d3162e-cc78-…             automation.run.id, the same in all its records
 │
 ├── webhook.delivery                github delivered "push", the signature was verified
 ├── workflow.execution.started      an import began
 ├── data.read                       it read 1096 rows of daily_weather
 └── workflow.execution.finished     it ended well
      │
      │  who    github, known by its signature           audit.actor.id, audit.actor.evidence
      │  what   EXECUTE, success                         audit.action, audit.outcome
      │  where  from 203.0.113.0/24, in production       client.address, deployment.environment.name
      │  why    a webhook, on the route /hooks/github    automation.trigger.type, automation.trigger.rule
      │  which  service.receive at git:8f3c1de…          automation.script.name, automation.script.version
      ▼
     statement, signed ──► log ──► Elasticsearch         audit.statement
```"""
