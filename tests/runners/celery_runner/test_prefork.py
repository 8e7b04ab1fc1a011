# SPDX-License-Identifier: Apache-2.0
"""A worker with pool children: every way in which an attempt can end, compared with what Celery itself says."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from auditspan import schema
from tests.runners.celery_runner.conftest import Installation, told

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_every_way_to_end(installation: Installation) -> None:
    worker = installation.worker(concurrency=2)
    program = """
from tests.runners.celery_runner.application import *
for sent in (
    add.delay(1, 2), fail.delay(), retried.delay(2), exhausted.delay(), limited.delay(), limited_softly.delay(),
    die.delay(), leave.delay(), ignored.delay(), rejected.delay(),
    add.apply_async((5, 6), expires=-1), add.apply_async((7, 8), countdown=1),
):
    print(sent.id)
"""
    names = (
        "added", "failed", "retried", "exhausted", "limited", "limited_softly", "died", "left", "ignored", "rejected",
        "expired", "delayed",
    )  # fmt: skip
    ids = dict(zip(names, installation.run(program).split(), strict=True))
    lasting = installation.send("sleep.delay(60)")
    app = installation.app
    installation.wait(lambda: installation.attempts(lasting), "the task to begin")
    app.control.revoke(lasting, terminate=True)
    kept = [one for name, one in ids.items() if name not in ("ignored", "rejected")]
    states = installation.states(*kept, lasting)
    installation.wait(lambda: len(installation.attempts(ids["ignored"], ids["rejected"])) == 2, "the last two")
    installation.stop(worker)  # what has begun ends

    expected = {
        "added": ("SUCCESS", [("finished", "success")]),
        "delayed": ("SUCCESS", [("finished", "success")]),
        "failed": ("FAILURE", [("finished", "failure")]),
        "retried": ("SUCCESS", [("retried", "failure"), ("retried", "failure"), ("finished", "success")]),
        "exhausted": ("FAILURE", [("retried", "failure"), ("retried", "failure"), ("finished", "failure")]),
        "limited": ("FAILURE", [("interrupted", "failure")]),
        "limited_softly": ("FAILURE", [("finished", "failure")]),
        "died": ("FAILURE", [("interrupted", "unknown")]),
        "left": ("FAILURE", [("interrupted", "failure")]),
        "expired": ("REVOKED", [("skipped", "failure")]),
    }
    for name, (state, kinds) in expected.items():
        records = installation.records(ids[name])
        assert states[ids[name]] == state, name
        assert [told(record) for record in records] == kinds, name
        assert [record[schema.RUN_ATTEMPT] for record in records] == list(range(1, len(kinds) + 1)), name
        begun = installation.attempts(ids[name])
        assert len(begun) == (0 if name == "expired" else len(kinds)), name
    assert states[lasting] == "REVOKED"
    assert [told(record) for record in installation.records(lasting)] == [("cancelled", "failure")]
    assert [told(record) for record in installation.records(ids["ignored"])] == [("finished", "unknown")]
    assert [told(record) for record in installation.records(ids["rejected"])] == [("finished", "failure")]

    everything = installation.records()
    # Every attempt that the tasks themselves have noted has one record; one more has the task that expired.
    assert len(everything) == len(installation.ledger()) + 1
    assert Counter(record[schema.TRIGGER_TYPE] for record in everything) == {"manual": len(everything)}
    errors = {name: installation.records(ids[name])[-1].get(schema.ERROR_TYPE) for name in ids}
    assert errors["failed"] == "ValueError"
    assert errors["retried"] is None
    assert errors["exhausted"] == "OSError"
    assert errors["limited"] == "billiard.exceptions.TimeLimitExceeded"
    assert errors["limited_softly"] == "billiard.exceptions.SoftTimeLimitExceeded"
    assert errors["left"] == "SystemExit"
    assert "the secret is" not in str(everything)  # of the texts of exceptions; digits alone are in many an ID
    assert installation.verified() == "PASSED"
    for record in everything:
        assert record[schema.SCRIPT_VERSION_SOURCE] != "unknown"
        assert record[schema.TASK_RUN_ID] == record[schema.RUN_ID]


def test_a_child_killed_from_outside_leaves_one_record(installation: Installation) -> None:
    worker = installation.worker(concurrency=1)
    first = installation.send("sleep.delay(60)")
    installation.wait(lambda: installation.attempts(first), "the task to begin")
    os.kill(installation.ledger()[0]["pid"], 9)
    assert installation.states(first) == {first: "FAILURE"}
    second = installation.send("add.delay(1, 2)")  # the pool has a new child
    assert installation.states(second) == {second: "SUCCESS"}
    installation.stop(worker)
    assert [told(record) for record in installation.records(first)] == [("interrupted", "unknown")]
    assert [told(record) for record in installation.records(second)] == [("finished", "success")]


def test_a_worker_killed_with_all_its_children_leaves_what_had_begun(installation: Installation) -> None:
    worker = installation.worker(concurrency=2)
    ids = [installation.send("sleep.delay(60)") for _ in range(2)]
    installation.wait(lambda: len(installation.attempts(*ids)) == 2, "both tasks to begin")
    os.killpg(worker.pid, 9)
    worker.wait()
    again = installation.worker(concurrency=1)  # whoever uses the log afterwards says what became of them
    last = installation.send("add.delay(1, 2)")
    assert installation.states(last) == {last: "SUCCESS"}
    installation.stop(again)
    assert installation.verified() == "PASSED"
    for one in ids:
        assert [told(record) for record in installation.records(one)] == [("interrupted", "unknown")]
