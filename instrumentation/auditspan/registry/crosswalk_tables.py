# SPDX-License-Identifier: Apache-2.0
"""What the crosswalk knows beyond the registry. Every name was looked up in the specifications named here.

``tests/registry/specifications.json`` has the names that were found there; one that is not in it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ECS_VERSION: Final = "9.4.0"
ECS_COMMIT: Final = "354fd8d0ca99faa15405d1ea1d3bb396724d3e5a"
OCSF_VERSION: Final = "1.9.0-dev"
OCSF_COMMIT: Final = "a5cfc68e3ca6d5b4468c33f8d7ebb76da967975f"

ANY: Final = "*"
"""Every verb that is not named."""

ECS_EVENTS: Final[dict[str, tuple[str | None, dict[str, str]]]] = {
    "data.read": ("database", {ANY: "access"}),
    "data.write": ("database", {ANY: "change"}),
    "data.create": ("database", {ANY: "change"}),
    "data.update": ("database", {ANY: "change"}),
    "data.delete": ("database", {ANY: "change"}),
    "data.export": ("database", {ANY: "access"}),
    "data.import": ("database", {ANY: "change"}),
    "workflow.execution.started": ("process", {ANY: "start"}),
    "workflow.execution.finished": ("process", {ANY: "end"}),
    "workflow.execution.interrupted": ("process", {ANY: "end"}),
    "workflow.execution.retried": ("process", {ANY: "info"}),
    "workflow.execution.skipped": ("process", {ANY: "info"}),
    "workflow.execution.cancelled": ("process", {ANY: "end"}),
    "webhook.delivery": ("web", {ANY: "access"}),
    "permission.change": ("iam", {ANY: "change"}),
    "configuration.change": ("configuration", {"CREATE": "creation", "DELETE": "deletion", ANY: "change"}),
    "template.deployment": ("configuration", {ANY: "change"}),
    "package.install": ("package", {"INSTALL": "installation", "UNINSTALL": "deletion", ANY: "change"}),
    "component.wiring": ("configuration", {ANY: "change"}),
    "policy.evaluation": (None, {"APPROVE": "allowed", "REJECT": "denied", ANY: "info"}),
    "policy.change": ("configuration", {"CREATE": "creation", "DELETE": "deletion", ANY: "change"}),
    "key.change": ("configuration", {"CREATE": "creation", "REVOKE": "deletion", ANY: "change"}),
    "log.started": (None, {ANY: "info"}),
    "log.gap": (None, {ANY: "info"}),
    "log.erasure": (None, {ANY: "info"}),
    "log.heartbeat": (None, {ANY: "info"}),
    "log.closed": (None, {ANY: "end"}),
    "log.key.change": ("configuration", {ANY: "change"}),
}
"""Event type → ECS ``event.category``, and verb → ``event.type``. ``event.kind`` is ``event`` for all of them."""

OCSF_ACTIVITIES: Final[dict[int, dict[str, int]]] = {
    1006: {"Start": 6},
    1008: {"Start": 6, "Stop": 7},
    3004: {"Create": 1, "Update": 3, "Delete": 4},
    3007: {"Assign Privileges": 14, "Remove Privileges": 15},
    6001: {"Import": 6, "Export": 7},
    6002: {"Install": 1, "Remove": 2, "Update": 8},
    6003: {},
    6005: {"Read": 1, "Update": 2, "Write": 5, "Create": 6, "Delete": 7},
}
"""OCSF class → activity → ``activity_id``, of those that are used. ``Other`` is 99 everywhere."""

OCSF_PROFILES: Final = {
    "actor": "host",
    "authorizations": "security_control",
    "risk_level_id": "security_control",
    "attestation_list": "record_integrity",
}
"""First part of an OCSF attribute → the profile that brings it into every class."""

VALUES: Final[dict[str, dict[str, dict[str, str | int]]]] = {
    "audit.outcome": {
        "event.outcome (ECS)": {"success": "success", "failure": "failure", "unknown": "unknown"},
        "status_id (OCSF)": {"success": 1, "failure": 2, "unknown": 0},
    },
    "audit.actor.type": {"actor.user.type_id (OCSF)": {"user": 1, "system": 3, "service": 4}},
    "audit.risk.level": {"risk_level_id (OCSF)": {"low": 1, "medium": 2, "high": 3, "critical": 4}},
    "automation.trigger.type": {
        "job.job_triggers.type_id (OCSF)": {
            "schedule": 2, "event": 3, "webhook": 99, "integration": 99, "manual": 99, "api": 99, "retry": 99,
            "parent_run": 99, "unknown": 0,
        },
    },
}  # fmt: skip
"""Attribute → field → our value → theirs."""

NOTES: Final = {
    "audit.event.type": "ECS leaves the values of `event.action` to us.",
    "audit.action": "ECS `event.type` has fixed values: see [Event types](#event-types).",
    "audit.actor.id": "Where `audit.actor.behalf.id` is there, OCSF wants the person in `actor.user` and the service "
    "or agent in `actor.app_uid`.",
    "client.address": "`src_endpoint.ip` takes whole addresses only, not the network that is recorded by default.",
    "audit.target.id": "OCSF classes with an object of their own for it take it there: `table`, `job`, `entity`, "
    "`app`, `web_resources`.",
    "audit.rationale": "Of the OCSF classes used here only Entity Management has `comment`.",
    "audit.module": "As key and value.",
    "audit.feature": "ECS: as key and value.",
    "audit.risk.level": "ECS: as key and value; `event.risk_score` is a number. OCSF: see [Values](#values).",
    "audit.outcome": "OCSF: see [Values](#values).",
    "audit.actor.type": "OCSF: see [Values](#values).",
    "automation.trigger.type": "OCSF: see [Values](#values); `type` has our word.",
    "automation.run.id": "OCSF does not say what it is the identity of.",
    "automation.workflow.name": "OCSF: where the record has no task.",
    "automation.task.name": "OCSF: it goes before the workflow.",
    "audit.permission.granted": "OCSF: with the activity Assign Privileges.",
    "audit.permission.revoked": "OCSF: with the activity Remove Privileges.",
    "audit.policy.version": "ECS `rule.version` is that of a rule.",
    "code.function.name": "ECS: named for the code that logs; here it is the code that acted.",
    "automation.webhook.delivery.id": "A delivery that is sent again keeps it.",
}


@dataclass(frozen=True)
class Reason:
    """Why some attributes have no place, or only a poor one."""

    title: str
    attributes: tuple[str, ...]
    ecs: str
    ocsf: str


REASONS: Final = (
    Reason(
        "Which run, and what caused it",
        (
            "automation.run.id", "automation.run.attempt", "automation.parent.run.id", "automation.parent.run.claimed",
            "automation.task.run.id", "audit.parent.record.id",
        ),
        "`trace.id` is one trace, and a run can have several. `faas.execution` is for serverless functions.",
        "`metadata.correlation_uid` ties events together, but does not say by what. Attempt, parent run, parent record "
        "and whether the parent is only claimed have no place.",
    ),
    Reason(
        "Which rule set it in motion",
        (
            "automation.trigger.type", "automation.trigger.rule", "automation.task.trigger.rule",
            "automation.task.scheduled_time",
        ),
        "`rule.*` is the detection rule that raised an alert. `faas.trigger.type` knows http, pubsub, datasource, "
        "timer and other, for serverless functions.",
        "A job trigger is Boot, Schedule or Event; a person, a retry or a parent run is Other. The text of the rule "
        "fits only into free `properties`. When a run was due is not `next_run_time`.",
    ),
    Reason(
        "Which script, and how its version is known",
        ("automation.script.name", "automation.script.version", "automation.script.version.source"),
        "`service.version` is the version of the service that the script runs in.",
        "The object `script` has a name and hashes, no version, and belongs to Script Activity alone. Where a version "
        "is known from has no place.",
    ),
    Reason(
        "How far an identity can be trusted",
        ("audit.actor.evidence", "audit.actor.type", "audit.actor.behalf.type"),
        "A user is a user: nothing tells a person from a service, or a login from a claim in a header.",
        "`actor.idp` and `actor.session` describe a login. Nothing says that an identity was only claimed.",
    ),
    Reason(
        "A check that nobody may have seen",
        ("automation.webhook.signature.verified", "automation.webhook.signature.verifier"),
        "There is nothing for the signature of a request.",
        "`digital_signature.state_id` has ten states of a file's signature, and none for \"no check was seen\".",
    ),
    Reason(
        "What changed, without the data",
        ("audit.state.before.hash", "audit.state.after.hash", "audit.change.fields"),
        "Hashes are those of files and processes; `user.changes.*` holds the new values themselves.",
        "`updated_entity` and `updated_user` hold the data themselves. A hash of a state has no place.",
    ),
    Reason(
        "How much, how far, from where and to where",
        (
            "audit.data.count", "audit.data.source", "audit.data.destination", "automation.connector.name",
            "automation.connector.version", "automation.connector.rows_read", "automation.connector.rows_written",
            "automation.connector.bookmark.before", "automation.connector.bookmark.after",
        ),
        "There are bytes and packets, no rows, and no progress of a connector.",
        "`count` is the number of events that one event stands for. `query_info.bytes` counts bytes. Endpoints are "
        "hosts, not places of data.",
    ),
    Reason(
        "How a decision came about",
        ("audit.decision", "audit.decision.path", "audit.policy.rule", "audit.policy.version", "audit.remediation"),
        "`event.type` has `allowed` and `denied`; approval, override and what can be done about it have no place.",
        "`authorizations` has the decision and the policy, not the steps. `firewall_rule` is for firewalls. "
        "`remediation` is part of findings only.",
    ),
    Reason(
        "Automations as things that are built",
        (
            "audit.wiring.from", "audit.wiring.to", "audit.configuration.key", "audit.template.name",
            "audit.template.version", "audit.package.previous_version", "audit.package.checksum",
            "automation.workflow.name", "automation.task.name", "automation.deployment.name",
            "automation.deployment.version", "automation.workflow.version", "automation.workflow.bundle",
        ),
        "There are packages, but no templates, settings, workflows, or components that are connected.",
        "`app` has a name and a version; the version before and the checksum have no place. Nor have wiring and the "
        "name of a setting.",
    ),
    Reason(
        "Webhooks",
        ("automation.webhook.source", "automation.webhook.event.type", "http.route"),
        "`url.path` is the path of one request, not the route it matched. What the sender says happened has no place.",
        "`http_request.url.path` likewise.",
    ),
    Reason(
        "What was taken out, and what is wrong with the record",
        ("audit.redacted", "audit.nonconformant"),
        "There is no place for either.",
        "`metadata.is_truncated` and `metadata.debug` tell of the conversion, not of the record.",
    ),
    Reason(
        "Values that are signed and can be erased",
        ("audit.private",),
        "There is no field for a commitment or its salt.",
        "An attestation covers the whole event: take one value away and it no longer holds.",
    ),
    Reason(
        "One signature for many records",
        (
            "audit.log.document", "audit.log.origin", "audit.sequence.stream_id", "audit.sequence.number",
            "audit.checkpoint.note", "audit.checkpoint.first_index", "audit.checkpoint.tree_size",
            "audit.checkpoint.frontier", "audit.checkpoint.leaf_hashes", "audit.key.id", "audit.key.successor.id",
        ),
        "`event.original`, `event.hash` and `event.sequence` show that a text was not changed, not that none is "
        "missing.",
        "The profile `record_integrity` signs each event and points to the one before. A tree over all of them, with "
        "proofs for one, has no place; nor have keys that replace each other.",
    ),
    Reason(
        "Who called, kept private; and where from",
        ("session.id", "audit.client.fingerprint", "deployment.environment.name", "code.function.name"),
        "There is no web session, and no fingerprint of a browser.",
        "There is no environment (production, test), and no function in the code.",
    ),
)  # fmt: skip
