# SPDX-License-Identifier: Apache-2.0
"""``auditspan.action``: what a program says itself. It changes nothing of what the program does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import auditspan
from auditspan import api, schema
from auditspan.capture import conformance, faults
from auditspan.capture.recorder import Recorder
from auditspan.capture.state import state_hash
from tests.plugins.conftest import Audited


@pytest.fixture
def audited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Audited]:
    faults.forget()
    conformance.forget()
    harness = Audited()
    recorder = Recorder("auditspan.api", "1", harness.provider)
    monkeypatch.setattr(api, "_recorder", lambda: recorder)
    yield harness
    harness.close()
    faults.forget()
    conformance.forget()


def only(audited: Audited) -> dict[str, Any]:
    (record,) = audited.records
    return record


def test_a_few_lines_say_who_did_what_why_and_what_changed(audited: Audited) -> None:
    before = {"stage": "open", "owner": "alice", "amount": 10}
    with auditspan.action(
        "UPDATE", target="row-1", target_type="crm.contact", actor="alice", on_behalf_of="bob", before=before,
        rationale="customer asked", audit_feature=None,
    ) as done:  # fmt: skip
        done.after({**before, "stage": "won", "amount": 10.0, "note": ""})
    record = only(audited)
    expected = {
        schema.EVENT_TYPE: "data.update", schema.ACTION: "UPDATE", schema.OUTCOME: "success",
        schema.TARGET_ID: "row-1", schema.TARGET_TYPE: "crm.contact",
        schema.ACTOR_ID: "alice", schema.ACTOR_TYPE: "user", schema.ACTOR_EVIDENCE: "declared",
        schema.BEHALF_ID: "bob", schema.BEHALF_TYPE: "user", schema.RATIONALE: "customer asked",
        schema.STATE_BEFORE_HASH: state_hash(before),
        schema.STATE_AFTER_HASH: state_hash({**before, "stage": "won", "note": ""}),
        schema.CHANGE_FIELDS: ("note", "stage"), schema.MESSAGE: "updated crm.contact 'row-1'",
    }  # fmt: skip
    assert {name: record.get(name) for name in expected} == expected
    assert "won" not in str(record), "of states only hashes are kept"
    assert record[schema.SCRIPT_NAME].startswith(__name__)
    assert record[schema.SCRIPT_VERSION] != schema.UNKNOWN


def test_the_error_goes_through_and_only_its_type_is_kept(audited: Audited) -> None:
    error = KeyError("alice@example.com")
    with pytest.raises(KeyError) as caught, auditspan.action("DELETE", target="1", target_type="row"):
        raise error
    assert caught.value is error
    record = only(audited)
    assert (record[schema.OUTCOME], record[schema.ERROR_TYPE]) == ("failure", "KeyError")
    assert "alice" not in str(record)


def test_a_decorated_function_is_the_same_function(audited: Audited) -> None:
    @auditspan.action("DELETE", target=lambda contact, *, hard=False: contact, target_type="crm.contact")
    def forget(contact: str, *, hard: bool = False) -> str:
        """Forget it."""
        return f"{contact} {hard}"

    assert forget("c-1", hard=True) == "c-1 True"
    assert forget("c-2") == "c-2 False"
    assert (forget.__name__, forget.__doc__) == ("forget", "Forget it.")
    assert [record[schema.TARGET_ID] for record in audited.records] == ["c-1", "c-2"]
    assert audited.records[0][schema.SCRIPT_NAME].endswith("forget")


def test_coroutines_and_threads(audited: Audited) -> None:
    @auditspan.action("EXPORT", target="report", target_type="file", data_destination="sftp://partner", data_count=2)
    async def export() -> int:
        await asyncio.sleep(0)
        return 7

    async def both() -> list[int]:
        return await asyncio.gather(export(), export())

    assert asyncio.run(both()) == [7, 7]
    thread = threading.Thread(target=lambda: asyncio.run(export()))
    thread.start()
    thread.join()
    assert {record[schema.EVENT_TYPE] for record in audited.records} == {"data.export"}
    assert len({record[schema.RUN_ID] for record in audited.records}) == 3
    assert audited.records[0][schema.MESSAGE] == "exported file 'report' to sftp://partner, 2 items"


def test_generators_are_refused_when_they_are_decorated() -> None:
    with pytest.raises(TypeError, match="generator function"):

        @auditspan.action("READ", target="x", target_type="y")
        def rows() -> Iterator[int]:
            yield 1


def test_nested_actions_are_one_story(audited: Audited) -> None:
    with (
        auditspan.action("EXECUTE", target="nightly", target_type="job") as outer,
        auditspan.action("READ", target="orders", target_type="table"),
    ):
        pass
    inner, around = audited.records
    assert inner[schema.PARENT_RECORD_ID] == around[schema.RECORD_ID]
    assert inner[schema.RUN_ID] == around[schema.RUN_ID]
    assert outer is not None


def test_a_person_stands_behind_all_that_is_done_for_them(audited: Audited) -> None:
    with (
        auditspan.action("EXECUTE", target="cleanup", target_type="job", actor="alice"),
        auditspan.action("DELETE", target="1", target_type="row"),
    ):
        pass
    inner = audited.records[0]
    assert inner[schema.ACTOR_EVIDENCE] == "os_user"
    assert (inner[schema.BEHALF_ID], inner[schema.BEHALF_TYPE]) == ("alice", "user")


def test_a_decision(audited: Audited) -> None:
    with auditspan.action(
        "OVERRIDE", target="payout-7", target_type="payout", policy_name="payouts", policy_rule="amount <= 1000",
        rationale="goodwill, agreed with finance", decision_path=["rule: deny", "finance: override"],
        remediation="raise the limit",
    ):  # fmt: skip
        pass
    record = only(audited)
    assert (record[schema.EVENT_TYPE], record[schema.DECISION]) == ("policy.evaluation", "override")
    assert record[schema.MESSAGE] == (
        "policy payouts: override by rule 'amount <= 1000' on payout 'payout-7'; to do: raise the limit"
    )


def test_a_decision_without_a_reason_is_recorded_marked_and_counted(audited: Audited) -> None:
    with auditspan.action("APPROVE", target="1", target_type="payout", policy_name="p", policy_rule="r"):
        pass
    (span,) = audited.spans
    assert span.attributes is not None
    assert span.attributes[schema.ACTION] == "APPROVE"
    marks = span.attributes[schema.NONCONFORMANT]
    assert [mark.partition(":")[0] for mark in marks] == [schema.DECISION_PATH, schema.RATIONALE]  # type: ignore[union-attr]
    (counted,) = conformance.snapshot().values()
    assert counted.count == 1


def test_a_reason_given_inside_counts(audited: Audited) -> None:
    with auditspan.action("REJECT", target="1", target_type="payout", policy_name="p", policy_rule="r") as done:
        done.rationale("over the limit", "rule: deny")
    assert only(audited)[schema.DECISION_PATH] == ("rule: deny",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "no.such.type"},
        {"before": object.__new__(type("Odd", (), {"__slots__": (), "__reduce__": None}))},
        {"before": lambda: 1 / 0},
        {"target": lambda: 1 / 0},
        {"actor_type": "martian", "actor": "x"},
        {"rows": 3},
        {"attributes": {"": object()}},
        {"data_count": "many"},
    ],
    ids=str,
)
def test_what_is_said_wrongly_never_reaches_the_program(audited: Audited, wrong: dict[str, Any]) -> None:
    said: dict[str, Any] = {"target": "x", "target_type": "y", **wrong}

    @auditspan.action("UPDATE", **said)
    def work() -> int:
        return 42

    assert work() == 42


def test_outcomes_that_are_no_exceptions(audited: Audited) -> None:
    with auditspan.action("IMPORT", target="f", target_type="file", data_source="ftp://x") as done:
        done.failed("checksum")
    with auditspan.action("IMPORT", target="f", target_type="file", data_source="ftp://x") as done:
        done.unknown()
    first, second = audited.records
    assert (first[schema.OUTCOME], first[schema.ERROR_TYPE]) == ("failure", "checksum")
    assert second[schema.OUTCOME] == "unknown"
