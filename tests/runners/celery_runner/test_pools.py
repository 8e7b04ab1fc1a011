# SPDX-License-Identifier: Apache-2.0
"""The other pools, eager mode, and OpenTelemetry's own plugin for Celery beside ours."""

from __future__ import annotations

import json

import pytest

from auditspan import schema
from tests.runners.celery_runner.conftest import MODULE, Installation, told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAM = f"""
import json
from {MODULE} import *
print(json.dumps({{
    "added": [add.delay(n, 1).id for n in range(10)],
    "failed": [fail.delay().id], "retried": [retried.delay(1).id], "parent": [parent.delay().id],
    "expired": [add.apply_async((5, 6), expires=-1).id],
}}))
"""


@pytest.mark.parametrize("pool", ["threads", "solo", pytest.param("gevent", id="gevent-newest")])
def test_every_pool(installation: Installation, pool: str) -> None:
    worker = installation.worker(pool=pool, concurrency=4)
    ids = json.loads(installation.run(PROGRAM))
    states = installation.states(*(one for some in ids.values() for one in some))
    child = installation.app.AsyncResult(ids["parent"][0]).result
    installation.states(child)
    if pool == "gevent":
        lasting = installation.send("sleep.delay(60)")
        installation.wait(lambda: installation.attempts(lasting), "the task to begin")
        installation.app.control.revoke(lasting, terminate=True)
        assert installation.states(lasting) == {lasting: "REVOKED"}
    installation.stop(worker)
    kinds = {
        "added": [("finished", "success")],
        "failed": [("finished", "failure")],
        "retried": [("retried", "failure"), ("finished", "success")],
        "parent": [("finished", "success")],
        "expired": [("skipped", "failure")],
    }
    for name, expected in kinds.items():
        for one in ids[name]:
            assert [told(record) for record in installation.records(one)] == expected, name
            assert states[one] == {"failed": "FAILURE", "expired": "REVOKED"}.get(name, "SUCCESS")
    assert len(installation.records()) == len(installation.ledger()) + 1
    (record,) = installation.records(child)
    assert record[schema.PARENT_RUN_ID] == ids["parent"][0]
    # Nothing of one task is left in the thread when the next one comes.
    assert all(schema.PARENT_RUN_ID not in installation.records(one)[0] for one in ids["added"])
    if pool == "gevent":
        assert [told(record) for record in installation.records(lasting)] == [("cancelled", "failure")]


def test_a_worker_in_one_process_that_is_killed(installation: Installation) -> None:
    worker = installation.worker(pool="solo")
    lasting = installation.send("sleep.delay(60)")
    installation.wait(lambda: installation.attempts(lasting), "the task to begin")
    worker.kill()
    worker.wait()
    again = installation.worker(pool="solo")
    last = installation.send("add.delay(1, 2)")
    installation.states(last)
    installation.stop(again)
    assert [told(record) for record in installation.records(lasting)] == [("interrupted", "unknown")]


def test_eager(installation: Installation) -> None:
    program = f"""
import json
from {MODULE} import *
app.conf.task_always_eager = True
ids = {{"applied": add.apply((1, 2)).id, "parent": parent.delay().id, "retried": retried.apply((2,)).id}}
ids["failed"] = fail.apply().id
try:
    fail.apply(throw=True)
except ValueError:
    ids["handled"] = add.apply((1, 2)).id
ids["chained"] = chain(add.s(1, 1), add.s(2)).apply_async().id
add(1, 2)  # a plain call of a function: no task is run
print(json.dumps(ids))
"""
    ids = json.loads(installation.run(program))
    ledger = [line for line in installation.ledger() if line["id"] is not None]
    assert len(installation.ledger()) == len(ledger) + 1  # the plain call
    records = installation.records()
    assert len(records) == len(ledger) == 11
    assert sorted(told(record) for record in installation.records(ids["retried"])) == [
        ("finished", "success"), ("retried", "failure"), ("retried", "failure"),
    ]  # fmt: skip
    assert sorted(record[schema.RUN_ATTEMPT] for record in installation.records(ids["retried"])) == [1, 2, 3]
    assert [told(record) for record in installation.records(ids["handled"])] == [("finished", "success")]
    failed = [record for record in records if record[schema.TASK_NAME] == "application.fail"]
    assert [(*told(record), record[schema.ERROR_TYPE]) for record in failed] == 2 * [
        ("finished", "failure", "ValueError")
    ]
    (child,) = (record for record in records if record.get(schema.PARENT_RUN_ID) == ids["parent"])
    assert child[schema.TRIGGER_TYPE] == "parent_run"


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_newest_contrib_plugin_beside_ours(installation: Installation, pool: str) -> None:
    both = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis", "OTEL_TRACES_EXPORTER": "console"}
    both["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    worker = installation.worker(pool=pool, concurrency=1, **both)
    one = installation.run(f"from {MODULE} import *\nprint('ID', parent.delay().id)", **both)
    one = next(line.split()[1] for line in one.splitlines() if line.startswith("ID "))
    installation.states(one)
    child = installation.app.AsyncResult(one).result
    installation.states(child)
    retrying = installation.run(f"from {MODULE} import *\nprint('ID', retried.delay(1).id)", **both)
    retrying = next(line.split()[1] for line in retrying.splitlines() if line.startswith("ID "))
    installation.states(retrying)
    installation.stop(worker)
    output = installation.output("worker0")
    spans = {(span["name"], span["context"]["span_id"].removeprefix("0x")): span for span in json_objects(output)}
    theirs = {span_id for name, span_id in spans if name.startswith("run/")}
    assert len(theirs) == 4
    parent, made = installation.records(one)[0], installation.records(child)[0]
    assert made[schema.PARENT_RUN_ID] == one
    assert made[schema.PARENT_RECORD_ID] == parent[schema.RECORD_ID]
    assert schema.PARENT_RUN_ID not in parent and parent[schema.TRIGGER_TYPE] == "manual"
    assert made["span"]["trace_id"] == parent["span"]["trace_id"]
    # Our record is inside of their span.
    assert {record["span"]["parent_span_id"] for record in installation.records()} == theirs
    assert [told(record) for record in installation.records(retrying)] == [
        ("retried", "failure"),
        ("finished", "success"),
    ]
    assert "no existing span found" not in output and "Failed to detach" not in output


def json_objects(text: str) -> list[dict[str, object]]:
    found, decoder, at = [], json.JSONDecoder(), 0
    while (at := text.find('{\n    "name"', at)) >= 0:
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    return found
