# SPDX-License-Identifier: Apache-2.0
# Generated from registry.yaml by `python -m auditspan.registry`. Do not edit.
# fmt: off
# ruff: noqa
"""Names and enumerations of the audit record."""

from __future__ import annotations

from enum import Enum
from typing import Final

SCHEMA_VERSION: Final = "0.3.0"

RECORD_ID: Final = "audit.record.id"
"""Identity of the record, made once and stable over every retry of its delivery. What makes a span an audit span."""
PARENT_RECORD_ID: Final = "audit.parent.record.id"
"""The record that caused this one. Keeps the story connected when the spans in between were not sampled."""
RECORD_SCHEMA_VERSION: Final = "audit.schema.version"
"""Version of this registry that the record follows."""
EVENT_TYPE: Final = "audit.event.type"
"""What kind of thing happened: the event type, stable over releases."""
ACTION: Final = "audit.action"
"""What was done, as a stable upper-case verb."""
OUTCOME: Final = "audit.outcome"
"""How it ended."""
MESSAGE: Final = "audit.message"
"""One line for people, made of public and internal attributes only."""
REDACTED: Final = "audit.redacted"
"""Names of what was removed from this record because it was a secret. The values are nowhere."""
NONCONFORMANT: Final = "audit.nonconformant"
"""Why this record does not follow the registry. It is recorded all the same; an honest, conformant record has no such attribute."""
ACTOR_ID: Final = "audit.actor.id"
"""Who or what acted; `unknown` is said, never left out."""
ACTOR_TYPE: Final = "audit.actor.type"
"""What kind of actor acted."""
ACTOR_EVIDENCE: Final = "audit.actor.evidence"
"""Where the identity is known from."""
BEHALF_ID: Final = "audit.actor.behalf.id"
"""The person for whom the actor acted, where an agent or a service stood in between."""
BEHALF_TYPE: Final = "audit.actor.behalf.type"
"""What kind of actor was behind it."""
SESSION_ID: Final = "session.id"
"""The session, as a keyed hash unless the policy says otherwise: a session identifier is a key to the session."""
CLIENT_ADDRESS: Final = "client.address"
"""Address of the caller, by default only its network."""
USER_AGENT: Final = "user_agent.original"
"""What the caller calls itself."""
CLIENT_FINGERPRINT: Final = "audit.client.fingerprint"
"""Keyed hash of the browser fingerprint that the header named by the policy carries. The fingerprint itself is never recorded."""
ENVIRONMENT: Final = "deployment.environment.name"
"""Where it is deployed."""
TARGET_ID: Final = "audit.target.id"
"""What was acted on. Where targets are people, the policy makes it personal: see docs/privacy.md."""
TARGET_TYPE: Final = "audit.target.type"
"""What kind of thing the target is."""
STATE_BEFORE_HASH: Final = "audit.state.before.hash"
"""Hash of the target's state before (docs/state-hash.md). Personal, because a hash of little data can be guessed."""
STATE_AFTER_HASH: Final = "audit.state.after.hash"
"""Hash of the target's state after."""
CHANGE_FIELDS: Final = "audit.change.fields"
"""Names of the fields whose values differ between the state before and the state after. Personal, because the keys of a state may be people."""
DATA_COUNT: Final = "audit.data.count"
"""How many rows, objects or files."""
DATA_SOURCE: Final = "audit.data.source"
"""Where imported data came from."""
DATA_DESTINATION: Final = "audit.data.destination"
"""Where exported data went."""
RATIONALE: Final = "audit.rationale"
"""Why, in the words of whoever decided."""
DECISION: Final = "audit.decision"
"""What was decided."""
DECISION_PATH: Final = "audit.decision.path"
"""The steps that led to the decision, in order."""
POLICY_NAME: Final = "audit.policy.name"
"""The policy that was evaluated or changed."""
POLICY_VERSION: Final = "audit.policy.version"
"""Its version."""
POLICY_RULE: Final = "audit.policy.rule"
"""The rule that decided."""
REMEDIATION: Final = "audit.remediation"
"""What can be done about a decision."""
MODULE: Final = "audit.module"
"""The part of the business that it belongs to, as the policy says."""
FEATURE: Final = "audit.feature"
"""The feature, as the policy says."""
RISK_LEVEL: Final = "audit.risk.level"
"""How much is at stake."""
RUN_ID: Final = "automation.run.id"
"""The run: one causal story, shared by everything it causes in any process."""
RUN_ATTEMPT: Final = "automation.run.attempt"
"""Which attempt, from 1."""
RUN_REASON: Final = "automation.run.reason"
"""Why it was skipped, retried, cancelled or interrupted."""
PARENT_RUN_ID: Final = "automation.parent.run.id"
"""The run that caused this one."""
PARENT_RUN_CLAIMED: Final = "automation.parent.run.claimed"
"""True when the parent run was named by an untrusted sender (baggage of an incoming request)."""
WORKFLOW_NAME: Final = "automation.workflow.name"
"""The automation."""
TRIGGER_TYPE: Final = "automation.trigger.type"
"""What set the run in motion."""
TRIGGER_RULE: Final = "automation.trigger.rule"
"""The rule behind it: the cron text, the event filter, the route."""
SCRIPT_NAME: Final = "automation.script.name"
"""The script: a dotted function name, a package or a file."""
SCRIPT_VERSION: Final = "automation.script.version"
"""Its version; `unknown` is said, never guessed."""
SCRIPT_VERSION_SOURCE: Final = "automation.script.version.source"
"""Where the version is known from."""
TASK_NAME: Final = "automation.task.name"
"""The task or job."""
TASK_RUN_ID: Final = "automation.task.run.id"
"""This run of it."""
TASK_TRIGGER_RULE: Final = "automation.task.trigger.rule"
"""The task's own rule, where another rule started the run."""
TASK_SCHEDULED_TIME: Final = "automation.task.scheduled_time"
"""When it was due."""
WORKFLOW_VERSION: Final = "automation.workflow.version"
"""The version of the automation, as its runner numbers it."""
WORKFLOW_BUNDLE: Final = "automation.workflow.bundle"
"""Where the runner has the automation from: the name of the bundle, and its version where it has one."""
DEPLOYMENT_NAME: Final = "automation.deployment.name"
"""The deployment of the automation that was run, where the runner knows several."""
DEPLOYMENT_VERSION: Final = "automation.deployment.version"
"""Version of the deployment, as the runner has it: what was released, beside which script ran."""
WEBHOOK_SOURCE: Final = "automation.webhook.source"
"""The kind of sender."""
WEBHOOK_DELIVERY_ID: Final = "automation.webhook.delivery.id"
"""The sender's identity of the delivery."""
WEBHOOK_EVENT_TYPE: Final = "automation.webhook.event.type"
"""What the sender says happened."""
WEBHOOK_SIGNATURE_VERIFIED: Final = "automation.webhook.signature.verified"
"""Whether the signature of the delivery was checked."""
WEBHOOK_SIGNATURE_VERIFIER: Final = "automation.webhook.signature.verifier"
"""What checked it."""
CONNECTOR_NAME: Final = "automation.connector.name"
"""The connector."""
CONNECTOR_VERSION: Final = "automation.connector.version"
"""Its version."""
CONNECTOR_STREAM: Final = "automation.connector.stream"
"""The stream or table."""
CONNECTOR_ROWS_READ: Final = "automation.connector.rows_read"
"""Rows read."""
CONNECTOR_ROWS_WRITTEN: Final = "automation.connector.rows_written"
"""Rows written."""
CONNECTOR_BOOKMARK_BEFORE: Final = "automation.connector.bookmark.before"
"""How far the connector had read."""
CONNECTOR_BOOKMARK_AFTER: Final = "automation.connector.bookmark.after"
"""How far it has read."""
PERMISSION_SUBJECT_ID: Final = "audit.permission.subject.id"
"""Whose permissions changed."""
PERMISSION_GRANTED: Final = "audit.permission.granted"
"""What was granted."""
PERMISSION_REVOKED: Final = "audit.permission.revoked"
"""What was taken away."""
CONFIGURATION_KEY: Final = "audit.configuration.key"
"""Which setting. Its value is never recorded; a hash of it is."""
TEMPLATE_NAME: Final = "audit.template.name"
"""The template."""
TEMPLATE_VERSION: Final = "audit.template.version"
"""Its version."""
PACKAGE_NAME: Final = "audit.package.name"
"""The package."""
PACKAGE_VERSION: Final = "audit.package.version"
"""Its version."""
PACKAGE_PREVIOUS_VERSION: Final = "audit.package.previous_version"
"""The version before."""
PACKAGE_CHECKSUM: Final = "audit.package.checksum"
"""Hash of what was installed."""
WIRING_FROM: Final = "audit.wiring.from"
"""The component whose output is connected."""
WIRING_TO: Final = "audit.wiring.to"
"""The component whose input it is connected to."""
KEY_ID: Final = "audit.key.id"
"""Which signing key (key ID of C2SP signed-note)."""
KEY_SUCCESSOR_ID: Final = "audit.key.successor.id"
"""The key that takes over."""
ERROR_TYPE: Final = "error.type"
"""What failed: the type of an exception or a status. Never its text, which may hold the data."""
HTTP_METHOD: Final = "http.request.method"
"""HTTP method."""
HTTP_ROUTE: Final = "http.route"
"""Template of the route."""
HTTP_STATUS: Final = "http.response.status_code"
"""HTTP status of the answer."""
CODE_FUNCTION: Final = "code.function.name"
"""The function that did it."""


class Outcome(str, Enum):
    """How it ended."""

    FAILURE = "failure"
    SUCCESS = "success"
    UNKNOWN = "unknown"


class ActorType(str, Enum):
    """What kind of actor acted."""

    SERVICE = "service"
    SYSTEM = "system"
    USER = "user"


class ActorEvidence(str, Enum):
    """Where the identity of the actor is known from."""

    CLAIMED = "claimed"
    DECLARED = "declared"
    FRAMEWORK_LOGIN = "framework_login"
    HEADER = "header"
    LIBRARY = "library"
    OS_USER = "os_user"
    SELF = "self"
    SIGNATURE = "signature"
    UNKNOWN = "unknown"


class TriggerType(str, Enum):
    """What set the run in motion."""

    API = "api"
    EVENT = "event"
    INTEGRATION = "integration"
    MANUAL = "manual"
    PARENT_RUN = "parent_run"
    RETRY = "retry"
    SCHEDULE = "schedule"
    UNKNOWN = "unknown"
    WEBHOOK = "webhook"


class ScriptVersionSource(str, Enum):
    """Where the version of the script is known from."""

    DECLARED = "declared"
    PACKAGE = "package"
    SOURCE_HASH = "source_hash"
    UNKNOWN = "unknown"
    VCS = "vcs"


class Verified(str, Enum):
    """The result of a check that may not have been seen."""

    FALSE = "false"
    NOT_OBSERVED = "not_observed"
    TRUE = "true"


class Decision(str, Enum):
    """What a policy or a person decided."""

    ALLOW = "allow"
    APPROVE = "approve"
    DENY = "deny"
    OVERRIDE = "override"
    REJECT = "reject"
    RESCIND = "rescind"


class RiskLevel(str, Enum):
    """How much is at stake, as the policy says."""

    CRITICAL = "critical"
    HIGH = "high"
    LOW = "low"
    MEDIUM = "medium"


class EventType(str, Enum):
    """What kind of thing happened."""

    COMPONENT_WIRING = "component.wiring"
    CONFIGURATION_CHANGE = "configuration.change"
    DATA_CREATE = "data.create"
    DATA_DELETE = "data.delete"
    DATA_EXPORT = "data.export"
    DATA_IMPORT = "data.import"
    DATA_READ = "data.read"
    DATA_UPDATE = "data.update"
    DATA_WRITE = "data.write"
    KEY_CHANGE = "key.change"
    LOG_CLOSED = "log.closed"
    LOG_ERASURE = "log.erasure"
    LOG_GAP = "log.gap"
    LOG_HEARTBEAT = "log.heartbeat"
    LOG_KEY_CHANGE = "log.key.change"
    LOG_STARTED = "log.started"
    PACKAGE_INSTALL = "package.install"
    PERMISSION_CHANGE = "permission.change"
    POLICY_CHANGE = "policy.change"
    POLICY_EVALUATION = "policy.evaluation"
    TEMPLATE_DEPLOYMENT = "template.deployment"
    WEBHOOK_DELIVERY = "webhook.delivery"
    WORKFLOW_CANCELLED = "workflow.execution.cancelled"
    WORKFLOW_FINISHED = "workflow.execution.finished"
    WORKFLOW_INTERRUPTED = "workflow.execution.interrupted"
    WORKFLOW_RETRIED = "workflow.execution.retried"
    WORKFLOW_SKIPPED = "workflow.execution.skipped"
    WORKFLOW_STARTED = "workflow.execution.started"


__all__ = [
    "ACTION",
    "ACTOR_EVIDENCE",
    "ACTOR_ID",
    "ACTOR_TYPE",
    "ActorEvidence",
    "ActorType",
    "BEHALF_ID",
    "BEHALF_TYPE",
    "CHANGE_FIELDS",
    "CLIENT_ADDRESS",
    "CLIENT_FINGERPRINT",
    "CODE_FUNCTION",
    "CONFIGURATION_KEY",
    "CONNECTOR_BOOKMARK_AFTER",
    "CONNECTOR_BOOKMARK_BEFORE",
    "CONNECTOR_NAME",
    "CONNECTOR_ROWS_READ",
    "CONNECTOR_ROWS_WRITTEN",
    "CONNECTOR_STREAM",
    "CONNECTOR_VERSION",
    "DATA_COUNT",
    "DATA_DESTINATION",
    "DATA_SOURCE",
    "DECISION",
    "DECISION_PATH",
    "DEPLOYMENT_NAME",
    "DEPLOYMENT_VERSION",
    "Decision",
    "ENVIRONMENT",
    "ERROR_TYPE",
    "EVENT_TYPE",
    "EventType",
    "FEATURE",
    "HTTP_METHOD",
    "HTTP_ROUTE",
    "HTTP_STATUS",
    "KEY_ID",
    "KEY_SUCCESSOR_ID",
    "MESSAGE",
    "MODULE",
    "NONCONFORMANT",
    "OUTCOME",
    "Outcome",
    "PACKAGE_CHECKSUM",
    "PACKAGE_NAME",
    "PACKAGE_PREVIOUS_VERSION",
    "PACKAGE_VERSION",
    "PARENT_RECORD_ID",
    "PARENT_RUN_CLAIMED",
    "PARENT_RUN_ID",
    "PERMISSION_GRANTED",
    "PERMISSION_REVOKED",
    "PERMISSION_SUBJECT_ID",
    "POLICY_NAME",
    "POLICY_RULE",
    "POLICY_VERSION",
    "RATIONALE",
    "RECORD_ID",
    "RECORD_SCHEMA_VERSION",
    "REDACTED",
    "REMEDIATION",
    "RISK_LEVEL",
    "RUN_ATTEMPT",
    "RUN_ID",
    "RUN_REASON",
    "RiskLevel",
    "SCHEMA_VERSION",
    "SCRIPT_NAME",
    "SCRIPT_VERSION",
    "SCRIPT_VERSION_SOURCE",
    "SESSION_ID",
    "STATE_AFTER_HASH",
    "STATE_BEFORE_HASH",
    "ScriptVersionSource",
    "TARGET_ID",
    "TARGET_TYPE",
    "TASK_NAME",
    "TASK_RUN_ID",
    "TASK_SCHEDULED_TIME",
    "TASK_TRIGGER_RULE",
    "TEMPLATE_NAME",
    "TEMPLATE_VERSION",
    "TRIGGER_RULE",
    "TRIGGER_TYPE",
    "TriggerType",
    "USER_AGENT",
    "Verified",
    "WEBHOOK_DELIVERY_ID",
    "WEBHOOK_EVENT_TYPE",
    "WEBHOOK_SIGNATURE_VERIFIED",
    "WEBHOOK_SIGNATURE_VERIFIER",
    "WEBHOOK_SOURCE",
    "WIRING_FROM",
    "WIRING_TO",
    "WORKFLOW_BUNDLE",
    "WORKFLOW_NAME",
    "WORKFLOW_VERSION",
]
