# SPDX-License-Identifier: Apache-2.0
# Generated from registry.yaml by `python -m auditspan.registry`. Do not edit.
# fmt: off
# ruff: noqa
"""One typed builder for each event type: what a record says beyond what every record says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from auditspan.schema import names
from auditspan.schema.details import Details
from auditspan.schema.names import EventType



class DataRead(Details):
    """Data were read from a stream, a table, a file or a service.

    Attributes:
        action: READ.
        connector_name: (recommended) The connector.
        connector_version: (recommended) Its version.
        connector_stream: (recommended) The stream or table.
        connector_rows_read: (recommended) Rows read.
        connector_bookmark_before: (optional) How far the connector had read.
        connector_bookmark_after: (optional) How far it has read.
        state_before_hash: (optional) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (optional) Hash of the target's state after.
        data_count: (optional) How many rows, objects or files.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_READ
    NAMES: ClassVar[dict[str, str]] = {"connector_name": names.CONNECTOR_NAME, "connector_version": names.CONNECTOR_VERSION, "connector_stream": names.CONNECTOR_STREAM, "connector_rows_read": names.CONNECTOR_ROWS_READ, "connector_bookmark_before": names.CONNECTOR_BOOKMARK_BEFORE, "connector_bookmark_after": names.CONNECTOR_BOOKMARK_AFTER, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "data_count": names.DATA_COUNT}

    action: str = "READ"
    connector_name: str | None = None
    connector_version: str | None = None
    connector_stream: str | None = None
    connector_rows_read: int | None = None
    connector_bookmark_before: str | None = None
    connector_bookmark_after: str | None = None
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    data_count: int | None = None


class DataWrite(Details):
    """Data were written; whether they were new or replaced others is not known.

    Attributes:
        action: WRITE.
        connector_name: (recommended) The connector.
        connector_version: (recommended) Its version.
        connector_stream: (recommended) The stream or table.
        connector_rows_written: (recommended) Rows written.
        state_before_hash: (optional) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (optional) Hash of the target's state after.
        change_fields: (optional) Names of the fields whose values differ between the state before and the state
            after. Personal, because the keys of a state may be people.
        data_count: (optional) How many rows, objects or files.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_WRITE
    NAMES: ClassVar[dict[str, str]] = {"connector_name": names.CONNECTOR_NAME, "connector_version": names.CONNECTOR_VERSION, "connector_stream": names.CONNECTOR_STREAM, "connector_rows_written": names.CONNECTOR_ROWS_WRITTEN, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "change_fields": names.CHANGE_FIELDS, "data_count": names.DATA_COUNT}

    action: str = "WRITE"
    connector_name: str | None = None
    connector_version: str | None = None
    connector_stream: str | None = None
    connector_rows_written: int | None = None
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    change_fields: Sequence[str] | None = None
    data_count: int | None = None


class DataCreate(Details):
    """Something new was created.

    Attributes:
        action: CREATE.
        state_after_hash: (recommended) Hash of the target's state after.
        connector_name: (optional) The connector.
        data_count: (optional) How many rows, objects or files.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_CREATE
    NAMES: ClassVar[dict[str, str]] = {"state_after_hash": names.STATE_AFTER_HASH, "connector_name": names.CONNECTOR_NAME, "data_count": names.DATA_COUNT}

    action: str = "CREATE"
    state_after_hash: str | None = None
    connector_name: str | None = None
    data_count: int | None = None


class DataUpdate(Details):
    """Something that was there was changed.

    Attributes:
        action: UPDATE.
        state_before_hash: (recommended) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (recommended) Hash of the target's state after.
        change_fields: (recommended) Names of the fields whose values differ between the state before and the state
            after. Personal, because the keys of a state may be people.
        connector_name: (optional) The connector.
        data_count: (optional) How many rows, objects or files.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_UPDATE
    NAMES: ClassVar[dict[str, str]] = {"state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "change_fields": names.CHANGE_FIELDS, "connector_name": names.CONNECTOR_NAME, "data_count": names.DATA_COUNT}

    action: str = "UPDATE"
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    change_fields: Sequence[str] | None = None
    connector_name: str | None = None
    data_count: int | None = None


class DataDelete(Details):
    """Something was deleted.

    Attributes:
        action: DELETE.
        state_before_hash: (recommended) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        connector_name: (optional) The connector.
        data_count: (optional) How many rows, objects or files.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_DELETE
    NAMES: ClassVar[dict[str, str]] = {"state_before_hash": names.STATE_BEFORE_HASH, "connector_name": names.CONNECTOR_NAME, "data_count": names.DATA_COUNT}

    action: str = "DELETE"
    state_before_hash: str | None = None
    connector_name: str | None = None
    data_count: int | None = None


class DataExport(Details):
    """Data left the organisation's own systems.

    Attributes:
        action: EXPORT.
        data_destination: (required) Where exported data went.
        data_count: (recommended) How many rows, objects or files.
        connector_name: (optional) The connector.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_EXPORT
    NAMES: ClassVar[dict[str, str]] = {"data_destination": names.DATA_DESTINATION, "data_count": names.DATA_COUNT, "connector_name": names.CONNECTOR_NAME}

    data_destination: str
    action: str = "EXPORT"
    data_count: int | None = None
    connector_name: str | None = None


class DataImport(Details):
    """Data came in from outside.

    Attributes:
        action: IMPORT.
        data_source: (required) Where imported data came from.
        data_count: (recommended) How many rows, objects or files.
        connector_name: (optional) The connector.
        state_before_hash: (optional) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (optional) Hash of the target's state after.
    """

    TYPE: ClassVar[EventType] = EventType.DATA_IMPORT
    NAMES: ClassVar[dict[str, str]] = {"data_source": names.DATA_SOURCE, "data_count": names.DATA_COUNT, "connector_name": names.CONNECTOR_NAME, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH}

    data_source: str
    action: str = "IMPORT"
    data_count: int | None = None
    connector_name: str | None = None
    state_before_hash: str | None = None
    state_after_hash: str | None = None


class WorkflowStarted(Details):
    """A run has begun. Written at its beginning, so that a run that dies is seen.

    Attributes:
        action: START.
        task_name: (recommended) The task or job.
        task_run_id: (recommended) This run of it.
        task_trigger_rule: (optional) The task's own rule, where another rule started the run.
        task_scheduled_time: (optional) When it was due.
        connector_name: (optional) The connector.
        connector_version: (optional) Its version.
    """

    TYPE: ClassVar[EventType] = EventType.WORKFLOW_STARTED
    NAMES: ClassVar[dict[str, str]] = {"task_name": names.TASK_NAME, "task_run_id": names.TASK_RUN_ID, "task_trigger_rule": names.TASK_TRIGGER_RULE, "task_scheduled_time": names.TASK_SCHEDULED_TIME, "connector_name": names.CONNECTOR_NAME, "connector_version": names.CONNECTOR_VERSION}

    action: str = "START"
    task_name: str | None = None
    task_run_id: str | None = None
    task_trigger_rule: str | None = None
    task_scheduled_time: str | None = None
    connector_name: str | None = None
    connector_version: str | None = None


class WorkflowFinished(Details):
    """A run, or a part of one, has come to its end; the outcome says which.

    Attributes:
        action: EXECUTE, TEST.
        task_name: (recommended) The task or job.
        task_run_id: (recommended) This run of it.
        task_trigger_rule: (optional) The task's own rule, where another rule started the run.
        task_scheduled_time: (optional) When it was due.
        connector_name: (optional) The connector.
        connector_version: (optional) Its version.
        connector_rows_read: (optional) Rows read.
        connector_rows_written: (optional) Rows written.
        state_before_hash: (optional) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (optional) Hash of the target's state after.
        run_reason: (optional) Why it was skipped, retried, cancelled or interrupted.
    """

    TYPE: ClassVar[EventType] = EventType.WORKFLOW_FINISHED
    NAMES: ClassVar[dict[str, str]] = {"task_name": names.TASK_NAME, "task_run_id": names.TASK_RUN_ID, "task_trigger_rule": names.TASK_TRIGGER_RULE, "task_scheduled_time": names.TASK_SCHEDULED_TIME, "connector_name": names.CONNECTOR_NAME, "connector_version": names.CONNECTOR_VERSION, "connector_rows_read": names.CONNECTOR_ROWS_READ, "connector_rows_written": names.CONNECTOR_ROWS_WRITTEN, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "run_reason": names.RUN_REASON}

    action: str = "EXECUTE"
    task_name: str | None = None
    task_run_id: str | None = None
    task_trigger_rule: str | None = None
    task_scheduled_time: str | None = None
    connector_name: str | None = None
    connector_version: str | None = None
    connector_rows_read: int | None = None
    connector_rows_written: int | None = None
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    run_reason: str | None = None


class WorkflowInterrupted(Details):
    """A run ended without an end of its own; its process died or was lost.

    Attributes:
        action: INTERRUPT.
        run_reason: (required) Why it was skipped, retried, cancelled or interrupted.
        task_name: (recommended) The task or job.
        task_run_id: (recommended) This run of it.
        task_trigger_rule: (optional) The task's own rule, where another rule started the run.
        task_scheduled_time: (optional) When it was due.
        connector_name: (optional) The connector.
        connector_version: (optional) Its version.
    """

    TYPE: ClassVar[EventType] = EventType.WORKFLOW_INTERRUPTED
    NAMES: ClassVar[dict[str, str]] = {"run_reason": names.RUN_REASON, "task_name": names.TASK_NAME, "task_run_id": names.TASK_RUN_ID, "task_trigger_rule": names.TASK_TRIGGER_RULE, "task_scheduled_time": names.TASK_SCHEDULED_TIME, "connector_name": names.CONNECTOR_NAME, "connector_version": names.CONNECTOR_VERSION}

    run_reason: str
    action: str = "INTERRUPT"
    task_name: str | None = None
    task_run_id: str | None = None
    task_trigger_rule: str | None = None
    task_scheduled_time: str | None = None
    connector_name: str | None = None
    connector_version: str | None = None


class WorkflowRetried(Details):
    """A failed attempt will be made again.

    Attributes:
        action: RETRY.
        run_attempt: (required) Which attempt, from 1.
        run_reason: (required) Why it was skipped, retried, cancelled or interrupted.
        task_name: (recommended) The task or job.
        task_run_id: (recommended) This run of it.
        task_trigger_rule: (optional) The task's own rule, where another rule started the run.
        task_scheduled_time: (optional) When it was due.
    """

    TYPE: ClassVar[EventType] = EventType.WORKFLOW_RETRIED
    NAMES: ClassVar[dict[str, str]] = {"run_attempt": names.RUN_ATTEMPT, "run_reason": names.RUN_REASON, "task_name": names.TASK_NAME, "task_run_id": names.TASK_RUN_ID, "task_trigger_rule": names.TASK_TRIGGER_RULE, "task_scheduled_time": names.TASK_SCHEDULED_TIME}

    run_attempt: int
    run_reason: str
    action: str = "RETRY"
    task_name: str | None = None
    task_run_id: str | None = None
    task_trigger_rule: str | None = None
    task_scheduled_time: str | None = None


class WorkflowSkipped(Details):
    """A run that was due did not take place.

    Attributes:
        action: SKIP.
        run_reason: (required) Why it was skipped, retried, cancelled or interrupted.
        task_name: (recommended) The task or job.
        task_run_id: (recommended) This run of it.
        task_trigger_rule: (optional) The task's own rule, where another rule started the run.
        task_scheduled_time: (optional) When it was due.
    """

    TYPE: ClassVar[EventType] = EventType.WORKFLOW_SKIPPED
    NAMES: ClassVar[dict[str, str]] = {"run_reason": names.RUN_REASON, "task_name": names.TASK_NAME, "task_run_id": names.TASK_RUN_ID, "task_trigger_rule": names.TASK_TRIGGER_RULE, "task_scheduled_time": names.TASK_SCHEDULED_TIME}

    run_reason: str
    action: str = "SKIP"
    task_name: str | None = None
    task_run_id: str | None = None
    task_trigger_rule: str | None = None
    task_scheduled_time: str | None = None


class WorkflowCancelled(Details):
    """A run was called off, before or after it began.

    Attributes:
        action: CANCEL.
        run_reason: (required) Why it was skipped, retried, cancelled or interrupted.
        task_name: (recommended) The task or job.
        task_run_id: (recommended) This run of it.
        task_trigger_rule: (optional) The task's own rule, where another rule started the run.
        task_scheduled_time: (optional) When it was due.
    """

    TYPE: ClassVar[EventType] = EventType.WORKFLOW_CANCELLED
    NAMES: ClassVar[dict[str, str]] = {"run_reason": names.RUN_REASON, "task_name": names.TASK_NAME, "task_run_id": names.TASK_RUN_ID, "task_trigger_rule": names.TASK_TRIGGER_RULE, "task_scheduled_time": names.TASK_SCHEDULED_TIME}

    run_reason: str
    action: str = "CANCEL"
    task_name: str | None = None
    task_run_id: str | None = None
    task_trigger_rule: str | None = None
    task_scheduled_time: str | None = None


class WebhookDelivery(Details):
    """A delivery from another service was received and handled.

    Attributes:
        action: RECEIVE.
        webhook_source: (required) The kind of sender.
        webhook_event_type: (required) What the sender says happened.
        webhook_signature_verified: (required) Whether the signature of the delivery was checked.
        http_method: (required) HTTP method.
        webhook_delivery_id: (recommended) The sender's identity of the delivery.
        http_route: (recommended) Template of the route.
        http_status: (recommended) HTTP status of the answer.
        webhook_signature_verifier: (optional) What checked it.
    """

    TYPE: ClassVar[EventType] = EventType.WEBHOOK_DELIVERY
    NAMES: ClassVar[dict[str, str]] = {"webhook_source": names.WEBHOOK_SOURCE, "webhook_event_type": names.WEBHOOK_EVENT_TYPE, "webhook_signature_verified": names.WEBHOOK_SIGNATURE_VERIFIED, "http_method": names.HTTP_METHOD, "webhook_delivery_id": names.WEBHOOK_DELIVERY_ID, "http_route": names.HTTP_ROUTE, "http_status": names.HTTP_STATUS, "webhook_signature_verifier": names.WEBHOOK_SIGNATURE_VERIFIER}

    webhook_source: str
    webhook_event_type: str
    webhook_signature_verified: names.Verified
    http_method: str
    action: str = "RECEIVE"
    webhook_delivery_id: str | None = None
    http_route: str | None = None
    http_status: int | None = None
    webhook_signature_verifier: str | None = None


class PermissionChange(Details):
    """Somebody may do more or less than before.

    Attributes:
        action: GRANT, REVOKE.
        permission_subject_id: (required) Whose permissions changed.
        permission_granted: (recommended) What was granted.
        permission_revoked: (recommended) What was taken away.
        state_before_hash: (recommended) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (recommended) Hash of the target's state after.
    """

    TYPE: ClassVar[EventType] = EventType.PERMISSION_CHANGE
    NAMES: ClassVar[dict[str, str]] = {"permission_subject_id": names.PERMISSION_SUBJECT_ID, "permission_granted": names.PERMISSION_GRANTED, "permission_revoked": names.PERMISSION_REVOKED, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH}

    permission_subject_id: str
    action: str = "GRANT"
    permission_granted: Sequence[str] | None = None
    permission_revoked: Sequence[str] | None = None
    state_before_hash: str | None = None
    state_after_hash: str | None = None


class ConfigurationChange(Details):
    """A setting was changed.

    Attributes:
        action: UPDATE, CREATE, DELETE.
        configuration_key: (required) Which setting. Its value is never recorded; a hash of it is.
        state_before_hash: (recommended) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (recommended) Hash of the target's state after.
        change_fields: (optional) Names of the fields whose values differ between the state before and the state
            after. Personal, because the keys of a state may be people.
    """

    TYPE: ClassVar[EventType] = EventType.CONFIGURATION_CHANGE
    NAMES: ClassVar[dict[str, str]] = {"configuration_key": names.CONFIGURATION_KEY, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "change_fields": names.CHANGE_FIELDS}

    configuration_key: str
    action: str = "UPDATE"
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    change_fields: Sequence[str] | None = None


class TemplateDeployment(Details):
    """A template of an automation was put to work.

    Attributes:
        action: DEPLOY, ROLLBACK.
        template_name: (required) The template.
        template_version: (required) Its version.
        state_before_hash: (recommended) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (recommended) Hash of the target's state after.
        change_fields: (optional) Names of the fields whose values differ between the state before and the state
            after. Personal, because the keys of a state may be people.
    """

    TYPE: ClassVar[EventType] = EventType.TEMPLATE_DEPLOYMENT
    NAMES: ClassVar[dict[str, str]] = {"template_name": names.TEMPLATE_NAME, "template_version": names.TEMPLATE_VERSION, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "change_fields": names.CHANGE_FIELDS}

    template_name: str
    template_version: str
    action: str = "DEPLOY"
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    change_fields: Sequence[str] | None = None


class PackageInstall(Details):
    """A package, connector or plugin was installed, updated or removed.

    Attributes:
        action: INSTALL, UPDATE, UNINSTALL.
        package_name: (required) The package.
        package_version: (required) Its version.
        package_previous_version: (recommended) The version before.
        package_checksum: (recommended) Hash of what was installed.
    """

    TYPE: ClassVar[EventType] = EventType.PACKAGE_INSTALL
    NAMES: ClassVar[dict[str, str]] = {"package_name": names.PACKAGE_NAME, "package_version": names.PACKAGE_VERSION, "package_previous_version": names.PACKAGE_PREVIOUS_VERSION, "package_checksum": names.PACKAGE_CHECKSUM}

    package_name: str
    package_version: str
    action: str = "INSTALL"
    package_previous_version: str | None = None
    package_checksum: str | None = None


class ComponentWiring(Details):
    """Components were connected or disconnected.

    Attributes:
        action: CONNECT, DISCONNECT.
        wiring_from: (required) The component whose output is connected.
        wiring_to: (required) The component whose input it is connected to.
        state_before_hash: (optional) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (optional) Hash of the target's state after.
    """

    TYPE: ClassVar[EventType] = EventType.COMPONENT_WIRING
    NAMES: ClassVar[dict[str, str]] = {"wiring_from": names.WIRING_FROM, "wiring_to": names.WIRING_TO, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH}

    wiring_from: str
    wiring_to: str
    action: str = "CONNECT"
    state_before_hash: str | None = None
    state_after_hash: str | None = None


class PolicyEvaluation(Details):
    """A rule or a person decided whether something may go on.

    Attributes:
        action: EVALUATE, APPROVE, REJECT, OVERRIDE, RESCIND.
        policy_name: (required) The policy that was evaluated or changed.
        policy_rule: (required) The rule that decided.
        decision: (required) What was decided.
        rationale: (required) Why, in the words of whoever decided.
        policy_version: (recommended) Its version.
        decision_path: (recommended) The steps that led to the decision, in order.
        remediation: (recommended) What can be done about a decision.
    """

    TYPE: ClassVar[EventType] = EventType.POLICY_EVALUATION
    NAMES: ClassVar[dict[str, str]] = {"policy_name": names.POLICY_NAME, "policy_rule": names.POLICY_RULE, "decision": names.DECISION, "rationale": names.RATIONALE, "policy_version": names.POLICY_VERSION, "decision_path": names.DECISION_PATH, "remediation": names.REMEDIATION}

    policy_name: str
    policy_rule: str
    decision: names.Decision
    rationale: str
    action: str = "EVALUATE"
    policy_version: str | None = None
    decision_path: Sequence[str] | None = None
    remediation: str | None = None


class PolicyChange(Details):
    """A policy was changed.

    Attributes:
        action: CREATE, UPDATE, DELETE.
        policy_name: (required) The policy that was evaluated or changed.
        rationale: (required) Why, in the words of whoever decided.
        policy_version: (recommended) Its version.
        state_before_hash: (recommended) Hash of the target's state before (docs/state-hash.md). Personal, because a
            hash of little data can be guessed.
        state_after_hash: (recommended) Hash of the target's state after.
        change_fields: (optional) Names of the fields whose values differ between the state before and the state
            after. Personal, because the keys of a state may be people.
        policy_rule: (optional) The rule that decided.
    """

    TYPE: ClassVar[EventType] = EventType.POLICY_CHANGE
    NAMES: ClassVar[dict[str, str]] = {"policy_name": names.POLICY_NAME, "rationale": names.RATIONALE, "policy_version": names.POLICY_VERSION, "state_before_hash": names.STATE_BEFORE_HASH, "state_after_hash": names.STATE_AFTER_HASH, "change_fields": names.CHANGE_FIELDS, "policy_rule": names.POLICY_RULE}

    policy_name: str
    rationale: str
    action: str = "CREATE"
    policy_version: str | None = None
    state_before_hash: str | None = None
    state_after_hash: str | None = None
    change_fields: Sequence[str] | None = None
    policy_rule: str | None = None


class KeyChange(Details):
    """A signing key was made, replaced or withdrawn.

    Attributes:
        action: CREATE, ROTATE, REVOKE.
        key_id: (required) Which signing key (key ID of C2SP signed-note).
        key_successor_id: (recommended) The key that takes over.
        rationale: (recommended) Why, in the words of whoever decided.
    """

    TYPE: ClassVar[EventType] = EventType.KEY_CHANGE
    NAMES: ClassVar[dict[str, str]] = {"key_id": names.KEY_ID, "key_successor_id": names.KEY_SUCCESSOR_ID, "rationale": names.RATIONALE}

    key_id: str
    action: str = "CREATE"
    key_successor_id: str | None = None
    rationale: str | None = None


BUILDERS: Final[dict[EventType, type[Details]]] = {
    EventType.DATA_READ: DataRead,
    EventType.DATA_WRITE: DataWrite,
    EventType.DATA_CREATE: DataCreate,
    EventType.DATA_UPDATE: DataUpdate,
    EventType.DATA_DELETE: DataDelete,
    EventType.DATA_EXPORT: DataExport,
    EventType.DATA_IMPORT: DataImport,
    EventType.WORKFLOW_STARTED: WorkflowStarted,
    EventType.WORKFLOW_FINISHED: WorkflowFinished,
    EventType.WORKFLOW_INTERRUPTED: WorkflowInterrupted,
    EventType.WORKFLOW_RETRIED: WorkflowRetried,
    EventType.WORKFLOW_SKIPPED: WorkflowSkipped,
    EventType.WORKFLOW_CANCELLED: WorkflowCancelled,
    EventType.WEBHOOK_DELIVERY: WebhookDelivery,
    EventType.PERMISSION_CHANGE: PermissionChange,
    EventType.CONFIGURATION_CHANGE: ConfigurationChange,
    EventType.TEMPLATE_DEPLOYMENT: TemplateDeployment,
    EventType.PACKAGE_INSTALL: PackageInstall,
    EventType.COMPONENT_WIRING: ComponentWiring,
    EventType.POLICY_EVALUATION: PolicyEvaluation,
    EventType.POLICY_CHANGE: PolicyChange,
    EventType.KEY_CHANGE: KeyChange,
}

__all__ = [
    "BUILDERS",
    "DataRead",
    "DataWrite",
    "DataCreate",
    "DataUpdate",
    "DataDelete",
    "DataExport",
    "DataImport",
    "WorkflowStarted",
    "WorkflowFinished",
    "WorkflowInterrupted",
    "WorkflowRetried",
    "WorkflowSkipped",
    "WorkflowCancelled",
    "WebhookDelivery",
    "PermissionChange",
    "ConfigurationChange",
    "TemplateDeployment",
    "PackageInstall",
    "ComponentWiring",
    "PolicyEvaluation",
    "PolicyChange",
    "KeyChange",
]
