# SPDX-License-Identifier: Apache-2.0
"""Why a task runs: beat, a script, another task, a canvas, a sender that is not audited."""

from __future__ import annotations

import functools
import json

import pytest

from auditspan import schema
from tests.conftest import BIN
from tests.runners.celery_runner.conftest import MODULE, Installation, told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def beat(installation: Installation, audited: bool = True) -> None:
    schedule = installation.folder / "schedule"
    installation.start(
        str(BIN / "celery"), "-A", MODULE, "beat", "--schedule", str(schedule), "--pidfile", "", "--loglevel", "INFO",
        name="beat", audited=audited, TEST_BEAT="yes",
    )  # fmt: skip


def test_a_schedule_is_the_trigger_and_its_entry_the_rule(installation: Installation) -> None:
    worker = installation.worker()
    beat(installation)
    installation.wait(
        lambda: len({line["task"] for line in installation.ledger()}) == 2 and len(installation.ledger()) >= 4,
        "both entries to be due",
    )
    installation.processes["beat"].terminate()
    installation.processes["beat"].wait(30)
    installation.states(*[line["id"] for line in installation.ledger()])
    installation.stop(worker)
    records = installation.records()
    assert len(records) == len(installation.ledger())
    assert {record[schema.TRIGGER_TYPE] for record in records} == {"schedule"}
    rules = {(record[schema.TASK_NAME], record[schema.TRIGGER_RULE]) for record in records}
    assert rules == {
        ("application.add", "every-second · freq: 1.00 second"),
        ("application.fail", "nightly · crontab: 0 4 * * * (m/h/dM/MY/d)"),
    }
    assert all(schema.PARENT_RUN_ID not in record for record in records)


def test_what_a_task_sends_belongs_to_it(installation: Installation) -> None:
    worker = installation.worker()
    program = f"""
import json
from {MODULE} import *
sent = canvas()
sent["parent"] = [parent.delay().id]
sent["replaced"] = [replaced.delay().id]
print(json.dumps(sent))
"""
    ids = json.loads(installation.run(program))
    installation.states(*(one for some in ids.values() for one in some))
    child = installation.app.AsyncResult(ids["parent"][0]).result
    installation.states(child)
    installation.wait(lambda: len(installation.attempts(ids["replaced"][0])) == 2, "the replacing task")
    installation.stop(worker)
    records = {record[schema.RUN_ID]: record for record in installation.records()}

    def parent_of(task_id: str) -> object:
        record = records[task_id]
        parent = record.get(schema.PARENT_RUN_ID)
        assert record[schema.TRIGGER_TYPE] == ("manual" if parent is None else "parent_run")
        if isinstance(parent, str):
            assert record[schema.TRIGGER_RULE] == records[parent][schema.WORKFLOW_NAME]
            assert record[schema.PARENT_RECORD_ID] == records[parent][schema.RECORD_ID]
            assert record["span"]["trace_id"] == records[parent]["span"]["trace_id"]
            assert schema.PARENT_RUN_CLAIMED not in record
        return parent

    assert parent_of(child) == ids["parent"][0]
    assert parent_of(ids["parent"][0]) is None
    assert [parent_of(one) for one in ids["chain"]] == [None, *ids["chain"][:-1]]
    assert [parent_of(one) for one in ids["group"]] == [None, None, None]
    *header, body = ids["chord"]
    assert [parent_of(one) for one in header] == [None, None, None]
    assert parent_of(body) in header
    # A task that is replaced says so, and the other one goes on under its ID: it may end before the first does.
    found = installation.records(ids["replaced"][0])
    assert [(record[schema.TASK_NAME], *told(record)) for record in found] == [
        ("application.replaced", "finished", "unknown"),
        ("application.add", "finished", "success"),
    ]
    assert {record[schema.TRIGGER_TYPE] for record in found} == {"manual"}


def test_what_retries_keeps_its_cause(installation: Installation) -> None:
    worker = installation.worker()
    program = f"""
from {MODULE} import *
from auditspan.capture.actor import os_actor
from auditspan.capture.recorder import Event, Recorder, Target
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.schema import TriggerType
from auditspan.schema.events import WorkflowFinished
event = Event("outer", WorkflowFinished(), os_actor(), Target("outer", "test.outer"))
run = Run("the-outer-run", "outer", TriggerType.API, "POST /reports", ScriptVersion("1", "declared", "outer"))
with Recorder("test", "1").record(event, opens=run):
    print(retried.delay(2).id)
"""
    one = installation.run(program, OTEL_TRACES_SAMPLER="always_off")
    assert installation.states(one) == {one: "SUCCESS"}
    installation.stop(worker)
    records = installation.records(one)
    assert [told(record)[0] for record in records] == ["retried", "retried", "finished"]
    for record in records:
        assert (record[schema.TRIGGER_TYPE], record[schema.TRIGGER_RULE]) == ("parent_run", "outer")
        assert record[schema.PARENT_RUN_ID] == "the-outer-run"
        assert schema.PARENT_RUN_CLAIMED not in record
    (outer,) = installation.records("the-outer-run")
    # The sender's sampler has dropped its trace: nothing is lost, and the trace goes on.
    assert {record["span"]["trace_id"] for record in [outer, *records]} == {outer["span"]["trace_id"]}
    assert [record[schema.PARENT_RECORD_ID] for record in records] == [
        one[schema.RECORD_ID] for one in [outer, *records[:2]]
    ]


def test_a_sender_that_is_not_audited_is_not_believed(installation: Installation) -> None:
    worker = installation.worker()
    app = installation.app
    send = functools.partial(app.send_task, "application.add", (1, 2))
    plain = send().id
    claimed = send(headers={"baggage": "automation.run.id=invented,automation.workflow.name=w"}).id
    forged = send(headers={"auditspan": '{"trigger": "no such"'}).id
    missing = app.send_task("application.no_such_task").id
    installation.states(plain, claimed, forged)
    installation.stop(worker)
    for one in (plain, forged):
        (record,) = installation.records(one)
        assert (record[schema.TRIGGER_TYPE], record[schema.TRIGGER_RULE]) == ("unknown", "unknown")
        assert schema.PARENT_RUN_ID not in record
    (record,) = installation.records(claimed)
    assert (record[schema.TRIGGER_TYPE], record[schema.PARENT_RUN_ID]) == ("parent_run", "invented")
    assert record[schema.PARENT_RUN_CLAIMED] is True
    (record,) = installation.records(missing)
    assert told(record) == ("skipped", "failure")
    assert record[schema.ERROR_TYPE] == "celery.exceptions.NotRegistered"


def test_beat_of_newest_celery_that_is_not_audited(installation: Installation) -> None:
    worker = installation.worker()
    beat(installation, audited=False)
    installation.wait(lambda: len(installation.ledger()) >= 2, "an entry to be due")
    installation.processes["beat"].terminate()
    installation.processes["beat"].wait(30)
    installation.states(*[line["id"] for line in installation.ledger()])
    installation.stop(worker)
    for record in installation.records():
        assert (record[schema.TRIGGER_TYPE], record[schema.TRIGGER_RULE]) == ("schedule", "unknown")


def test_what_is_revoked_before_it_begins(installation: Installation) -> None:
    worker = installation.worker(concurrency=1)
    later = installation.send("add.apply_async((1, 2), countdown=4)")
    installation.wait(lambda: later in installation.output("worker0"), "the task to be received")
    installation.app.control.revoke(later)
    # The result says so at once; the worker throws the task away when its turn comes.
    installation.wait(lambda: "Discarding revoked task" in installation.output("worker0"), "it to be thrown away")
    assert installation.states(later) == {later: "REVOKED"}
    installation.stop(worker)
    (record,) = installation.records(later)
    assert told(record) == ("cancelled", "failure")
    assert record[schema.TRIGGER_TYPE] == "manual"
    assert record[schema.TASK_SCHEDULED_TIME]
    assert installation.attempts(later) == []
