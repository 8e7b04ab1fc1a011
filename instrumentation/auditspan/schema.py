# SPDX-License-Identifier: Apache-2.0
"""Names and enumerations of the audit record. Pure data: no I/O, no imports of the rest of the project.

Names follow the OpenTelemetry semantic conventions where one exists; ``audit.*`` follows the draft OpenTelemetry
audit-logging data model (OTEP 0267, draft of 2026-06); what is ours lives under ``automation.*``.
"""

from __future__ import annotations

from collections.abc import Container
from enum import Enum
from typing import Final

SCHEMA_VERSION: Final = "0.1.0"

# -- the record ------------------------------------------------------------------------------------------------
RECORD_ID: Final = "audit.record.id"
"""What makes a span an audit span. A UUID, made once, stable over every retry of its delivery."""
PARENT_RECORD_ID: Final = "audit.parent.record.id"
"""The nearest audit ancestor: keeps the story connected when the spans in between were not sampled."""
RECORD_SCHEMA_VERSION: Final = "audit.schema.version"
EVENT_TYPE: Final = "audit.event.type"
ACTION: Final = "audit.action"
OUTCOME: Final = "audit.outcome"
MESSAGE: Final = "audit.message"
RATIONALE: Final = "audit.rationale"

# -- who, on what ----------------------------------------------------------------------------------------------
ACTOR_ID: Final = "audit.actor.id"
ACTOR_TYPE: Final = "audit.actor.type"
ACTOR_EVIDENCE: Final = "audit.actor.evidence"
TARGET_ID: Final = "audit.target.id"
TARGET_TYPE: Final = "audit.target.type"

# -- change ----------------------------------------------------------------------------------------------------
STATE_BEFORE_HASH: Final = "audit.state.before.hash"
STATE_AFTER_HASH: Final = "audit.state.after.hash"

# -- which run, which script, why ------------------------------------------------------------------------------
RUN_ID: Final = "automation.run.id"
RUN_ATTEMPT: Final = "automation.run.attempt"
PARENT_RUN_ID: Final = "automation.parent.run.id"
PARENT_RUN_CLAIMED: Final = "automation.parent.run.claimed"
"""True when the parent run was named by an untrusted sender (baggage of an incoming request)."""
WORKFLOW_NAME: Final = "automation.workflow.name"
TRIGGER_TYPE: Final = "automation.trigger.type"
TRIGGER_RULE: Final = "automation.trigger.rule"
SCRIPT_VERSION: Final = "automation.script.version"
SCRIPT_VERSION_SOURCE: Final = "automation.script.version.source"
SCRIPT_NAME: Final = "automation.script.name"

# -- workflow runners ------------------------------------------------------------------------------------------
TASK_NAME: Final = "automation.task.name"
TASK_RUN_ID: Final = "automation.task.run.id"
TASK_TRIGGER_RULE: Final = "automation.task.trigger.rule"
TASK_SCHEDULED_TIME: Final = "automation.task.scheduled_time"

# -- webhooks --------------------------------------------------------------------------------------------------
WEBHOOK_SOURCE: Final = "automation.webhook.source"
WEBHOOK_DELIVERY_ID: Final = "automation.webhook.delivery.id"
WEBHOOK_EVENT_TYPE: Final = "automation.webhook.event.type"
WEBHOOK_SIGNATURE_VERIFIED: Final = "automation.webhook.signature.verified"
WEBHOOK_SIGNATURE_VERIFIER: Final = "automation.webhook.signature.verifier"

# -- connectors ------------------------------------------------------------------------------------------------
CONNECTOR_NAME: Final = "automation.connector.name"
CONNECTOR_VERSION: Final = "automation.connector.version"
CONNECTOR_STREAM: Final = "automation.connector.stream"
CONNECTOR_ROWS_READ: Final = "automation.connector.rows_read"
CONNECTOR_ROWS_WRITTEN: Final = "automation.connector.rows_written"
CONNECTOR_BOOKMARK_BEFORE: Final = "automation.connector.bookmark.before"
CONNECTOR_BOOKMARK_AFTER: Final = "automation.connector.bookmark.after"

# -- from the semantic conventions -----------------------------------------------------------------------------
ENVIRONMENT: Final = "deployment.environment.name"
ERROR_TYPE: Final = "error.type"
CLIENT_ADDRESS: Final = "client.address"
USER_AGENT: Final = "user_agent.original"
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
CODE_FUNCTION: Final = "code.function.name"


class EventType(str, Enum):
    """What kind of thing happened (DESIGN: taxonomy)."""

    DATA_READ = "data.read"
    DATA_WRITE = "data.write"
    DATA_UPDATE = "data.update"
    DATA_DELETE = "data.delete"
    WORKFLOW_EXECUTION = "workflow.execution"
    CONFIGURATION_CHANGE = "configuration.change"
    PERMISSION_CHANGE = "permission.change"


class Outcome(str, Enum):
    """How it ended (OTEP 0267 R20)."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


class ActorType(str, Enum):
    """Who acted (OTEP 0267 R18)."""

    USER = "user"
    SERVICE = "service"
    SYSTEM = "system"


class TriggerType(str, Enum):
    """What set the run in motion."""

    SCHEDULE = "schedule"
    WEBHOOK = "webhook"
    INTEGRATION = "integration"
    MANUAL = "manual"
    EVENT = "event"
    API = "api"
    RETRY = "retry"
    PARENT_RUN = "parent_run"
    UNKNOWN = "unknown"


class Verified(str, Enum):
    """A signature check is three-valued: not having seen one does not mean that there was none."""

    TRUE = "true"
    FALSE = "false"
    NOT_OBSERVED = "not_observed"


REQUIRED: Final = (
    RECORD_ID, RECORD_SCHEMA_VERSION, EVENT_TYPE, ACTION, OUTCOME, ACTOR_ID, ACTOR_TYPE, TARGET_ID, TARGET_TYPE,
    RUN_ID, WORKFLOW_NAME, TRIGGER_TYPE, TRIGGER_RULE, SCRIPT_VERSION, SCRIPT_VERSION_SOURCE, MESSAGE,
)  # fmt: skip
"""Attributes that every audit span carries; what is not known is said (``unknown``), never left out."""

UNKNOWN: Final = "unknown"


def missing(attributes: Container[str]) -> list[str]:
    """Name the required attributes that `attributes` lacks, in the order of :data:`REQUIRED`."""
    return [name for name in REQUIRED if name not in attributes]
