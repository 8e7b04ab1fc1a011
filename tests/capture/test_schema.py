# SPDX-License-Identifier: Apache-2.0
"""The rules of the registry as code: what a record must say, and how what is wrong with it is told."""

from __future__ import annotations

from typing import Any

import pytest

from auditspan import schema
from auditspan.schema import EventType, events, rules
from auditspan_seal.formats import entry

GOOD: dict[str, Any] = {
    schema.RECORD_ID: "0b6f1f0e-6f0e-4b57-9d56-0f7f3f6d9c11",
    schema.RECORD_SCHEMA_VERSION: schema.SCHEMA_VERSION,
    schema.EVENT_TYPE: "data.read",
    schema.ACTION: "READ",
    schema.OUTCOME: "success",
    schema.ACTOR_ID: "alice",
    schema.ACTOR_TYPE: "user",
    schema.ACTOR_EVIDENCE: "declared",
    schema.TARGET_ID: "orders",
    schema.TARGET_TYPE: "table",
    schema.RUN_ID: "run",
    schema.WORKFLOW_NAME: "flow",
    schema.TRIGGER_TYPE: "schedule",
    schema.TRIGGER_RULE: "daily",
    schema.SCRIPT_VERSION: "1",
    schema.SCRIPT_VERSION_SOURCE: "declared",
    schema.MESSAGE: "read table 'orders'",
}


def test_a_good_record() -> None:
    assert schema.missing(GOOD) == schema.violations(GOOD) == []
    assert schema.violations(GOOD | {"http.route": "/x", "a.users.own": object()}) == []


@pytest.mark.parametrize("name", sorted(rules.REQUIRED["data.read"] - {schema.EVENT_TYPE}))
def test_each_required_attribute_is_missed(name: str) -> None:
    lacking = {key: value for key, value in GOOD.items() if key != name}
    assert schema.missing(lacking) == [name]
    assert schema.violations(lacking) == [f"{name}: required in data.read, missing"]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        (schema.RECORD_ID, "one", "not of the form uuid"),
        (schema.ACTION, "read", "not of the form verb"),
        (schema.OUTCOME, "maybe", "not one of outcome"),
        (schema.ACTOR_EVIDENCE, "header (claimed)", "not one of actor_evidence"),
        (schema.TARGET_ID, "", "empty"),
        (schema.TARGET_ID, 7, "not a string"),
        (schema.RUN_ATTEMPT, "1", "not an integer"),
        (schema.RUN_ATTEMPT, True, "not an integer"),
        (schema.PARENT_RUN_CLAIMED, 1, "not a boolean"),
        (schema.DECISION_PATH, "one", "not a list of strings"),
        (schema.STATE_AFTER_HASH, "sha256:12", "not of the form hash"),
        (schema.WEBHOOK_SOURCE, "github", "not part of data.read"),
        ("audit.actor.name", "alice", f"not in the registry {schema.SCHEMA_VERSION}"),
    ],
)
def test_what_is_wrong_is_named_and_the_value_is_not(name: str, value: Any, problem: str) -> None:
    assert schema.violations(GOOD | {name: value}) == [f"{name}: {problem}"]


def test_an_unknown_event_type_is_wrong() -> None:
    assert schema.missing(GOOD | {schema.EVENT_TYPE: "workflow.execution"}) == [schema.EVENT_TYPE]
    assert "not an event type" in schema.violations(GOOD | {schema.EVENT_TYPE: "workflow.execution"})[0]


@pytest.mark.parametrize("action", ["OVERRIDE", "RESCIND", "APPROVE", "REJECT"])
def test_who_decides_says_why(action: str) -> None:
    assert schema.missing(GOOD | {schema.ACTION: action}) == [schema.DECISION_PATH, schema.RATIONALE]
    assert schema.missing(GOOD | {schema.ACTION: action, schema.RATIONALE: "x", schema.DECISION_PATH: ["y"]}) == []


def test_an_erased_record_is_still_good() -> None:
    erased = {key: value for key, value in GOOD.items() if not schema.is_personal(key)}
    assert schema.ACTOR_ID not in erased
    assert schema.violations(erased, erasable=True) == []
    assert schema.violations(erased) != []


def test_messages_are_made_of_safe_fields_and_say_how_it_ended() -> None:
    assert schema.message_of(GOOD) == "read table 'orders'"
    assert schema.message_of(GOOD | {schema.CONNECTOR_ROWS_READ: 3}) == "read table 'orders', 3 rows"
    failed = GOOD | {schema.OUTCOME: "failure", schema.ERROR_TYPE: "KeyError"}
    assert schema.message_of(failed) == "read table 'orders' — failed: KeyError"
    assert schema.message_of(GOOD | {schema.OUTCOME: "unknown"}).endswith("its outcome is not known")
    forged = GOOD | {schema.TARGET_ID: "x'\n2026 root deleted all\u202e"}
    assert schema.message_of(forged).isprintable()
    long = GOOD | {schema.TARGET_ID: "x" * 10_000}
    assert len(schema.message_of(long)) < 400


@pytest.mark.parametrize("event", list(rules.MESSAGES))
def test_no_message_uses_a_personal_attribute(event: str) -> None:
    used = {name for _, items in rules.MESSAGES[event] for name in items[1::2]}
    assert {rules.PRIVACY[name] for name in used} <= {"public", "internal"}


def test_every_event_type_has_a_builder_that_fills_in_what_is_its_own() -> None:
    carried = {event for event in EventType if not event.value.startswith("log.")}
    assert set(events.BUILDERS) == carried
    for event, builder in events.BUILDERS.items():
        assert builder.TYPE is event
        assert set(builder.NAMES.values()) <= rules.KNOWN[event.value]
        every = frozenset.intersection(*(rules.REQUIRED[e.value] for e in carried))
        assert rules.REQUIRED[event.value] - every <= set(builder.NAMES.values())


def test_a_builder_says_what_it_is_given() -> None:
    details = events.WebhookDelivery(
        webhook_source="github",
        webhook_event_type="push",
        webhook_signature_verified=schema.Verified.TRUE,
        http_method="POST",
    )
    assert details.attributes() == {
        schema.EVENT_TYPE: "webhook.delivery", schema.ACTION: "RECEIVE", schema.WEBHOOK_SOURCE: "github",
        schema.WEBHOOK_EVENT_TYPE: "push", schema.WEBHOOK_SIGNATURE_VERIFIED: "true", schema.HTTP_METHOD: "POST",
    }  # fmt: skip
    with pytest.raises(TypeError):
        events.WebhookDelivery(webhook_source="github")  # type: ignore[call-arg]


def test_the_seal_speaks_of_the_same_schema() -> None:
    assert entry.SCHEMA_VERSION == schema.SCHEMA_VERSION


def test_a_builder_wants_what_is_required_and_knows_nothing_else() -> None:
    with pytest.raises(TypeError, match="missing required arguments: webhook_"):
        events.WebhookDelivery(webhook_source="shop")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected arguments: colour, weight"):
        events.DataRead(weight=1, colour="red")  # type: ignore[call-arg]


def test_a_builder_is_a_value_and_does_not_change() -> None:
    said = events.DataRead(data_count=3)
    with pytest.raises(AttributeError):
        said.data_count = 4  # type: ignore[misc]
    assert said == events.DataRead(data_count=3) != events.DataRead(data_count=4)
    assert said != events.DataWrite(data_count=3)
    assert repr(said).startswith("DataRead(action='READ', connector_name=None")
    assert events.DataRead().attributes() == {schema.EVENT_TYPE: "data.read", schema.ACTION: "READ"}
