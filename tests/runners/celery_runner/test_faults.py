# SPDX-License-Identifier: Apache-2.0
"""What must not happen: a fault of ours in the application, a header that is believed too much, a hook left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.task import Context as Request

from auditspan import schema
from auditspan.capture import faults
from auditspan.capture.actor import Actor
from auditspan.runners import celery as plugin
from auditspan.runners import celery_causes as causes
from tests.plugins.conftest import Audited
from tests.plugins.conftest import audited as audited_fixture

audited = audited_fixture
NAMES = ("before_task_publish", "task_prerun", "task_postrun", "task_revoked", "task_unknown")


@pytest.fixture
def app() -> Iterator[Celery]:
    made = Celery("here", broker="memory://", backend="cache+memory://", set_as_current=False)

    @made.task(name="here.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    yield made
    made.close()


def receivers() -> list[int]:
    return [len(getattr(signals, name).receivers) for name in NAMES]


def test_a_fault_of_ours_does_not_reach_the_task(
    app: Celery, audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    audited.instrument(plugin.CeleryInstrumentor)
    add = app.tasks["here.add"]
    for name in ("_begin", "_end"):
        with monkeypatch.context() as broken:
            broken.setattr(plugin, name, lambda *args: 1 / 0)
            assert add.apply((1, 2)).get() == 3
    with monkeypatch.context() as broken:
        broken.setattr(causes, "here", lambda *args: 1 / 0)
        assert add.delay(1, 2).id
    assert {where: fault.count for where, fault in faults.snapshot().items()} == {
        "celery: task_prerun": 1, "celery: task_postrun": 1, "celery: before_task_publish": 1,
    }  # fmt: skip
    faults.forget()
    assert add.apply((1, 2)).get() == 3
    assert [record[schema.OUTCOME] for record in audited.records] == ["success"]


def test_nothing_is_left_behind(app: Celery) -> None:
    from celery.app.base import Celery as Application

    before, send_task = receivers(), Application.__dict__["send_task"]
    harness = Audited()
    harness.instrument(plugin.CeleryInstrumentor)
    assert app.tasks["here.add"].apply((1, 2)).get() == 3
    assert receivers() == [count + 1 for count in before]
    harness.close()
    assert receivers() == before
    assert Application.__dict__["send_task"] is send_task
    assert app.tasks["here.add"].apply((1, 2)).get() == 3
    assert len(harness.records) == 1


def test_ours_is_the_last_to_be_called_when_an_attempt_begins(app: Celery, audited: Audited) -> None:
    from opentelemetry import context as otel_context

    key = otel_context.create_key("another-plugin")
    seen: list[Any] = []
    tokens: list[Any] = []

    def attach(**said: Any) -> None:
        tokens.append(otel_context.attach(otel_context.set_value(key, "theirs", otel_context.Context())))

    def detach(**said: Any) -> None:
        otel_context.detach(tokens.pop())

    @app.task(name="here.look", shared=False)
    def look() -> None:
        from auditspan.capture import run as runs

        run = runs.current()
        seen.append((otel_context.get_value(key), run.id if run else None))

    audited.instrument(plugin.CeleryInstrumentor)
    signals.task_prerun.connect(attach, weak=False)  # after ours
    signals.task_postrun.connect(detach, weak=False)
    try:
        results = [app.tasks["here.look"].apply() for _ in range(2)]
        assert [run for _, run in seen] == [result.id for result in results]
        assert otel_context.get_current() == {}  # nothing stays attached
    finally:
        signals.task_prerun.disconnect(attach)
        signals.task_postrun.disconnect(detach)


@pytest.mark.parametrize(
    "header",
    [
        None, "", "x", "[]", "null", "1", 7, b"{}", {"trigger": "manual"}, '{"trigger": "no such"}', '{"rule": "x"}',
        '{"trigger": ["manual"]}', '{"trigger": 1e999}', "[" * 100_000,
    ],
    ids=lambda header: repr(header)[:24],
)  # fmt: skip
def test_a_header_that_is_none_says_nothing(header: Any) -> None:
    cause, _ = causes.told(Request({"id": "one", "auditspan": header}))
    assert cause == causes.Cause()


def test_what_a_header_says_is_bounded() -> None:
    said = {
        "trigger": "schedule", "rule": "r" * 1000 + "\n", "parent": "p\u202e" * 200, "claimed": "yes",
        "record": "no uuid", "person": ["x" * 1000, "user"],
    }  # fmt: skip
    cause, _ = causes.told(Request({"id": "one", "auditspan": json.dumps(said)}))
    assert len(cause.rule) == 256
    assert cause.parent_id is not None and len(cause.parent_id) == 256 and "\u202e" not in cause.parent_id
    assert cause.claimed is False and cause.record is None
    assert cause.person is not None and len(cause.person.id) == 256
    for person in (["x"], ["x", "no such type"], [1, "user"], "x", {}):
        cause, _ = causes.told(Request({"id": "one", "auditspan": json.dumps(said | {"person": person})}))
        assert cause.person is None


def test_for_whom_a_task_is_done() -> None:
    worker = Actor("celery", schema.ActorType.SYSTEM, schema.ActorEvidence.OS_USER)
    for said, behalf in ((["alice", "user"], "alice"), (["deploy", "system"], "deploy"), (["celery", "system"], None)):
        header = json.dumps({"trigger": "manual", "rule": causes.CALL, "person": said})
        cause, _ = causes.told(Request({"id": "one", "auditspan": header}))
        actor = cause.for_whom(worker)
        assert (actor.id, actor.behalf.id if actor.behalf else None) == ("celery", behalf)
