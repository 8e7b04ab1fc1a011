# SPDX-License-Identifier: Apache-2.0
"""What is shown: add a panel by adding a few lines here, then run ``python -m auditspan.kibana``.

Fields are named as in the registry (`auditspan schema show`). The beginning of a run has a record of its own, so that a
run that dies is seen; views that count what was done leave it out.
"""

from __future__ import annotations

from typing import Final

from auditspan.kibana.panels import BARS, DONUT, LATEST, LINES, NUMBER, RUNS, TABLE, Metric, Panel
from auditspan.kibana.views import Dashboard, DataView, Search

RECORDS: Final = "auditspan-records"
LOG: Final = "auditspan-log"
ALL: Final = "auditspan-all"
DATA_VIEWS: Final = (
    DataView(RECORDS, "Audit: records", "traces-audit.otel-*"),
    DataView(LOG, "Audit: log entries and checkpoints", "auditspan-log*"),
    DataView(ALL, "Audit: records and log", "traces-audit.otel-*,auditspan-log*"),
)

DONE = "not audit.event.type : workflow.execution.started"
ENDED = "audit.event.type : workflow.execution.finished and not automation.workflow.name : auditspan.verify"
FAILED = "audit.outcome : failure"
CHANGES = (
    "audit.event.type : (permission.change or configuration.change or policy.change or template.deployment"
    " or package.install or component.wiring or key.change)"
)
VERIFIED = "automation.workflow.name : auditspan.verify and audit.event.type : workflow.execution.finished"
GAPS = "audit.event.type : log.gap"

FAILURES = Metric(label="Failures", where=FAILED)
ACTORS = Metric("distinct", "Actors", "audit.actor.id")
MEDIAN, P95 = Metric("median", "Median", "duration"), Metric("p95", "95 %", "duration")

_COLUMNS = (
    "audit.action", "audit.target.type", "audit.target.id", "audit.outcome", "audit.actor.id",
    "automation.workflow.name", "audit.message", "automation.run.id", "trace_id",
)  # fmt: skip
SEARCHES: Final = (
    Search(
        "auditspan-search-activity", "Audit: what was done", "What was done, newest first?", RECORDS, _COLUMNS, DONE,
    ),
    Search(
        "auditspan-search-failures", "Audit: failures", "What failed?", RECORDS, (*_COLUMNS, "error.type"), FAILED
    ),
    Search(
        "auditspan-search-changes", "Audit: changes of permissions and settings",
        "Who changed what decides how automations behave, and why?", RECORDS,
        (*_COLUMNS, "audit.permission.subject.id", "audit.configuration.key", "audit.rationale"), CHANGES,
    ),
    Search(
        "auditspan-search-log", "Audit: what the log says of itself", "What has the log to say, besides records?", LOG,
        ("audit.event.type", "audit.action", "audit.outcome", "audit.message", "audit.log.origin", "audit.log.index"),
        "audit.log.document : entry",
    ),
    Search(
        "auditspan-search-integrity", "Audit: records that want a look",
        "Which records are incomplete, interrupted or rest on what a stranger says?", RECORDS,
        (*_COLUMNS, "audit.nonconformant", "automation.run.reason"),
        "audit.nonconformant : * or automation.parent.run.claimed : true"
        " or audit.event.type : workflow.execution.interrupted",
    ),
)  # fmt: skip

ACTIVITY: Final = Dashboard(
    "auditspan-activity", "Audit: activity", "For everybody: what happened, when, by whom, and how did it end?",
    RECORDS,
    (
        Panel("Records", "How much was done?", NUMBER, where=DONE),
        Panel("Runs", "How many runs?", NUMBER, metrics=(RUNS,), where=DONE),
        Panel("Actors", "How many acted?", NUMBER, metrics=(ACTORS,), where=DONE),
        Panel("Failed", "How much failed?", NUMBER, where=f"{DONE} and {FAILED}"),
        Panel("Hosts", "From how many hosts?", NUMBER, metrics=(Metric("distinct", "Hosts", "audit.log.origin"),)),
        Panel("Last record", "When was anything recorded last?", NUMBER, metrics=(LATEST,)),
        Panel(
            "What happened when", "What kind of thing, and when?", BARS, ("@timestamp", "audit.event.type"),
            where=DONE,
        ),
        Panel("How it ended", "When do things fail?", BARS, ("@timestamp", "audit.outcome"), where=DONE),
        Panel("Where", "In which environment?", DONUT, ("deployment.environment.name",), where=DONE),
        Panel("Actions", "What was done?", DONUT, ("audit.action",), where=DONE, top=20),
        Panel("Who", "Who acted?", DONUT, ("audit.actor.type", "audit.actor.id"), where=DONE),
        Panel("On what", "What was acted on?", TABLE, ("audit.target.type", "audit.target.id"), where=DONE, top=20),
        Panel(
            "By automation", "Which automations are at work?", TABLE, ("automation.workflow.name",),
            (RUNS, FAILURES, LATEST), DONE, top=20,
        ),
    ),
    ("auditspan-search-activity",),
)  # fmt: skip

USERS: Final = Dashboard(
    "auditspan-users", "Audit: user behaviour", "For reviewers: who did what, from where, and how sure is that?",
    RECORDS,
    (
        Panel(
            "Who acts", "Who acted, how much, and when last?", TABLE, ("audit.actor.id", "audit.actor.type"),
            (Metric(), RUNS, FAILURES, LATEST), DONE, top=50, width=48,
        ),
        Panel("Actors over time", "When does who act?", BARS, ("@timestamp", "audit.actor.id"), where=DONE),
        Panel(
            "Who runs what", "Which automations does who touch?", TABLE, ("audit.actor.id", "automation.workflow.name"),
            (Metric(), LATEST), DONE, top=20,
        ),
        Panel("How sure", "Where is the identity known from?", DONUT, ("audit.actor.evidence",), where=DONE),
        Panel(
            "On whose behalf", "For which people do services act?", TABLE, ("audit.actor.behalf.id", "audit.actor.id"),
            where=DONE,
        ),
        Panel("From where", "From which networks?", TABLE, ("client.address", "audit.actor.id"), where=DONE),
        Panel(
            "What was read or exported", "Who took which data?", TABLE, ("audit.actor.id", "audit.target.id"),
            where="audit.event.type : (data.read or data.export)", top=20,
        ),
        Panel(
            "Decisions", "Who let pass, refused or set aside what?", TABLE, ("audit.actor.id", "audit.decision"),
            where="audit.decision : *",
        ),
    ),
    ("auditspan-search-activity",),
)  # fmt: skip

AUTOMATION: Final = Dashboard(
    "auditspan-automation", "Audit: automation health", "For operators: do automations run as they should?", RECORDS,
    (
        Panel("Runs", "How many runs ended?", NUMBER, metrics=(RUNS,), where=ENDED),
        Panel("Failed runs", "How many of them failed?", NUMBER, metrics=(RUNS,), where=f"{ENDED} and {FAILED}"),
        Panel(
            "Retries", "How often was something tried again?", NUMBER,
            where="audit.event.type : workflow.execution.retried",
        ),
        Panel(
            "Skipped", "How often was a run left out?", NUMBER, where="audit.event.type : workflow.execution.skipped",
        ),
        Panel(
            "Interrupted", "How often did one die?", NUMBER,
            where="audit.event.type : workflow.execution.interrupted",
        ),
        Panel("Slowest 5 %", "How long do the slowest take?", NUMBER, metrics=(P95,), where=ENDED),
        Panel("Ends over time", "When do runs fail?", BARS, ("@timestamp", "audit.outcome"), where=ENDED),
        Panel("Duration", "Do runs get slower?", LINES, ("@timestamp",), (MEDIAN, P95), ENDED),
        Panel("Triggers", "What sets runs in motion?", DONUT, ("automation.trigger.type",), (RUNS,), ENDED),
        Panel(
            "What did not end well", "What was tried again, skipped, cancelled, interrupted?", BARS,
            ("@timestamp", "audit.event.type"),
            where="audit.event.type : (workflow.execution.retried or workflow.execution.skipped"
            " or workflow.execution.cancelled or workflow.execution.interrupted)", width=32,
        ),
        Panel(
            "By automation", "Which automation is unwell?", TABLE, ("automation.workflow.name",),
            (RUNS, FAILURES, MEDIAN, P95, LATEST), ENDED, top=50, width=48,
        ),
        Panel(
            "Retries by automation", "What is tried again, and how often at most?", TABLE,
            ("automation.workflow.name",),
            (Metric(label="Retries"), Metric("highest", "Attempts", "automation.run.attempt")),
            "audit.event.type : workflow.execution.retried",
        ),
        Panel(
            "Rules", "Which rules start runs?", TABLE, ("automation.trigger.rule", "automation.workflow.name"),
            (RUNS, LATEST), ENDED, top=20,
        ),
        Panel(
            "Errors", "What goes wrong?", TABLE, ("error.type", "automation.workflow.name"),
            where=f"{ENDED} and {FAILED}",
        ),
        Panel(
            "Versions", "Which version of which script ran?", TABLE,
            ("automation.script.name", "automation.script.version"), (RUNS, LATEST), ENDED, top=20,
        ),
    ),
    ("auditspan-search-failures",),
)  # fmt: skip

INTEGRITY: Final = Dashboard(
    "auditspan-integrity", "Audit: integrity", "For auditors: is the log whole, and who has looked? "
    "The proof is `auditspan verify`; nothing in Elasticsearch can stand for it.", ALL,
    (
        Panel(
            "Last passed", "When was the log verified last, with success?", NUMBER, metrics=(LATEST,),
            where=f"{VERIFIED} and audit.outcome : success",
        ),
        Panel("Failed checks", "How often did verification fail?", NUMBER, where=f"{VERIFIED} and {FAILED}"),
        Panel("Gaps", "How often was something lost?", NUMBER, where=GAPS),
        Panel("Not conformant", "How many records are not as they should be?", NUMBER, where="audit.nonconformant : *"),
        Panel("Interrupted", "How many runs died?", NUMBER, where="audit.event.type : workflow.execution.interrupted"),
        Panel(
            "Claims", "How many records rest on the word of a stranger?", NUMBER,
            where="automation.parent.run.claimed : true",
        ),
        Panel(
            "Checks", "Who verified what, and how did it end?", TABLE,
            ("audit.target.id", "audit.outcome", "automation.run.reason"), (Metric(), LATEST), VERIFIED,
        ),
        Panel(
            "Logs", "Which logs are there, how far are they, and when were they heard of last?", TABLE,
            ("audit.log.origin",), (LATEST, Metric("highest", "Entries", "audit.checkpoint.tree_size")), of=LOG, top=50,
        ),
        Panel(
            "Checkpoints", "Are logs sealed all the time?", BARS, ("@timestamp", "audit.log.origin"),
            where="audit.log.document : checkpoint", of=LOG,
        ),
        Panel(
            "What logs say of themselves", "Beginnings, ends, gaps, erasures, keys", BARS,
            ("@timestamp", "audit.event.type"), where="audit.log.document : entry", of=LOG,
        ),
        Panel(
            "Gaps, one by one", "What was lost, and why?", TABLE, ("audit.log.origin", "audit.message"),
            (Metric(), LATEST), GAPS, of=LOG,
        ),
        Panel(
            "Why not conformant", "What is wrong with these records?", TABLE,
            ("audit.nonconformant", "automation.workflow.name"), where="audit.nonconformant : *",
        ),
        Panel(
            "Interrupted runs", "Which runs died?", TABLE, ("automation.workflow.name", "automation.run.id"),
            (LATEST,), "audit.event.type : workflow.execution.interrupted",
        ),
        Panel(
            "Claims by automation", "Which runs name a cause that nobody vouches for?", TABLE,
            ("automation.workflow.name", "automation.parent.run.id"), where="automation.parent.run.claimed : true",
        ),
        Panel(
            "Signatures of deliveries", "Was the signature of webhooks checked?", DONUT,
            ("automation.webhook.signature.verified", "automation.webhook.source"),
            where="audit.event.type : webhook.delivery",
        ),
        Panel(
            "Erasures", "What was erased, and why?", TABLE, ("audit.rationale",), (Metric(), LATEST),
            "audit.event.type : log.erasure", of=LOG, width=32,
        ),
    ),
    ("auditspan-search-log", "auditspan-search-integrity"),
)  # fmt: skip

PERMISSIONS: Final = Dashboard(
    "auditspan-changes", "Audit: permission and configuration changes",
    "For whoever answers for the automations: who changed what decides how they behave?", RECORDS,
    (
        Panel(
            "Permissions", "How often were permissions changed?", NUMBER,
            where="audit.event.type : permission.change",
        ),
        Panel("Settings", "How often were settings changed?", NUMBER, where="audit.event.type : configuration.change"),
        Panel("Policies", "How often were policies changed?", NUMBER, where="audit.event.type : policy.change"),
        Panel(
            "Deployed", "How often was something deployed or installed?", NUMBER,
            where="audit.event.type : (template.deployment or package.install)",
        ),
        Panel(
            "Overrides", "How often was a decision set aside?", NUMBER,
            where="audit.decision : (override or rescind)",
        ),
        Panel(
            "Keys", "How often were signing keys changed?", NUMBER,
            where="audit.event.type : (key.change or log.key.change)", of=ALL,
        ),
        Panel("Changes over time", "When was what changed?", BARS, ("@timestamp", "audit.event.type"), where=CHANGES),
        Panel("Who changes", "Who changed what?", BARS, ("@timestamp", "audit.actor.id"), where=CHANGES),
        Panel(
            "Granted", "Who gave whom which permission?", TABLE,
            ("audit.actor.id", "audit.permission.subject.id", "audit.permission.granted"), (Metric(), LATEST),
            "audit.permission.granted : *",
        ),
        Panel(
            "Revoked", "Who took which permission from whom?", TABLE,
            ("audit.actor.id", "audit.permission.subject.id", "audit.permission.revoked"), (Metric(), LATEST),
            "audit.permission.revoked : *",
        ),
        Panel(
            "Settings, one by one", "Who changed which setting?", TABLE,
            ("audit.configuration.key", "audit.target.id", "audit.actor.id"), (Metric(), LATEST),
            "audit.event.type : configuration.change",
        ),
        Panel(
            "Policies, one by one", "Who changed which policy, and why?", TABLE,
            ("audit.policy.name", "audit.actor.id", "audit.rationale"), (Metric(), LATEST),
            "audit.event.type : policy.change",
        ),
        Panel(
            "Templates", "Which templates were put to work?", TABLE,
            ("audit.template.name", "audit.template.version", "audit.actor.id"), (Metric(), LATEST),
            "audit.event.type : template.deployment",
        ),
        Panel(
            "Packages", "What was installed?", TABLE,
            ("audit.package.name", "audit.package.version", "audit.actor.id"), (Metric(), LATEST),
            "audit.event.type : package.install",
        ),
        Panel(
            "Set aside", "Who set which decision aside, and why?", TABLE,
            ("audit.actor.id", "audit.policy.name", "audit.rationale"), (Metric(), LATEST),
            "audit.decision : (override or rescind)",
        ),
        Panel(
            "Wiring", "What was connected to what?", TABLE, ("audit.wiring.from", "audit.wiring.to", "audit.action"),
            (Metric(), LATEST), "audit.event.type : component.wiring",
        ),
    ),
    ("auditspan-search-changes",),
)  # fmt: skip

DASHBOARDS: Final = (ACTIVITY, USERS, AUTOMATION, INTEGRITY, PERMISSIONS)
