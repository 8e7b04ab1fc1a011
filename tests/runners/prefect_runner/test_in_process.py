# SPDX-License-Identifier: Apache-2.0
"""Flows that are called in this process, with Prefect's own harness: each record against Prefect's own API."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import wrapt
from opentelemetry import context as otel_context
from prefect import flow, task, unmapped
from prefect.cache_policies import INPUTS
from prefect.flow_engine import FlowRunEngine
from prefect.states import Failed
from prefect.task_engine import SyncTaskRunEngine
from prefect.telemetry.run_telemetry import RunTelemetry

from auditspan import schema
from auditspan.capture import faults
from auditspan.capture import run as runs
from auditspan.capture.actor import os_actor
from auditspan.runners import prefect as plugin
from auditspan.runners.prefect import PrefectInstrumentor
from tests.plugins.conftest import Audited
from tests.runners.environments import RUNNERS
from tests.runners.prefect_runner.reported import Api, how

pytestmark = pytest.mark.usefixtures("harness")


class Watched:
    """Our records beside Prefect's API."""

    def __init__(self, audited: Audited) -> None:
        self.audited = audited
        self.api = Api()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [r for r in self.audited.records if str(r[schema.TARGET_TYPE]).startswith("prefect.")]

    def of(self, target: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record[schema.TARGET_ID] == target]

    def agreed(self) -> dict[tuple[str, str], int]:
        return dict(how(self.api.agrees(lambda: self.records)))


@pytest.fixture
def watched(audited: Audited, harness: None) -> Iterator[Watched]:
    audited.instrument(PrefectInstrumentor)
    watched = Watched(audited)
    yield watched
    watched.api.close()


# -- the automation --------------------------------------------------------------------------------------------------
@task
def double(number: int) -> int:
    return 2 * number


@task
async def triple(number: int) -> int:
    await asyncio.sleep(0)
    return 3 * number


@task
def broken() -> None:
    raise KeyError("a secret value")


def failing(times: int) -> Callable[[], int]:
    """Return a function that fails so many times."""
    calls: list[int] = []

    def function() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise LookupError("a secret value")
        return len(calls)

    return function


# -- what is installed -----------------------------------------------------------------------------------------------
def test_this_is_the_version_that_the_environment_is_for() -> None:
    pinned = {requirement for row in RUNNERS if row.name == "prefect" for requirement in row.requirements}
    assert f"prefect=={metadata.version('prefect')}" in pinned


# -- kinds of functions ----------------------------------------------------------------------------------------------
def test_a_flow_and_its_tasks(watched: Watched) -> None:
    @flow(version="7.1")
    def outer(number: int) -> int:
        return double(number) + double.submit(number).result()

    assert outer(2) == 8
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished success"): 2}
    (flow_run,) = watched.of("outer")
    assert flow_run[schema.RUN_ID] == flow_run[schema.TASK_RUN_ID]
    assert flow_run[schema.TRIGGER_TYPE] == "manual"
    assert flow_run[schema.TRIGGER_RULE] == "direct call"
    assert flow_run[schema.ACTOR_ID] == os_actor().id
    assert flow_run[schema.SCRIPT_VERSION] == "7.1"
    assert flow_run[schema.SCRIPT_VERSION_SOURCE] == "declared"
    assert flow_run[schema.RUN_ATTEMPT] == 1
    for record in watched.of("double"):
        assert record[schema.RUN_ID] == flow_run[schema.RUN_ID]
        assert record[schema.PARENT_RECORD_ID] == flow_run[schema.RECORD_ID]
        assert record[schema.WORKFLOW_NAME] == "outer"
        assert record[schema.SCRIPT_VERSION_SOURCE] != "unknown"
    assert "secret" not in repr(watched.records)


def test_asynchronous_flows_and_tasks(watched: Watched) -> None:
    @flow
    async def outer() -> int:
        return sum(await asyncio.gather(triple(1), triple(2)))

    assert asyncio.run(outer()) == 9
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished success"): 2}
    assert len({record[schema.RUN_ID] for record in watched.records}) == 1


def test_generators(watched: Watched) -> None:
    @task
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    @flow
    def outer() -> Iterator[int]:
        for number in numbers():
            yield double(number)

    assert list(outer()) == [2, 4]
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished success"): 3}


def test_asynchronous_generators(watched: Watched) -> None:
    @task
    async def numbers() -> AsyncIterator[int]:
        yield 1
        yield 2

    @flow
    async def outer() -> AsyncIterator[int]:
        async for number in numbers():
            yield await triple(number)

    async def consume() -> list[int]:
        return [number async for number in outer()]

    assert asyncio.run(consume()) == [3, 6]
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished success"): 3}


def test_a_generator_that_is_left_early(watched: Watched) -> None:
    @flow
    def outer() -> Iterator[int]:
        yield 1
        yield 2

    before = otel_context.get_current()
    values = outer()
    assert next(values) == 1
    values.close()
    assert otel_context.get_current() == before
    assert watched.agreed() == {("flow", "finished success"): 1}  # so says Prefect


def test_mapped_tasks_in_threads(watched: Watched) -> None:
    @task
    def add(number: int, other: int) -> int:
        return number + other

    @flow
    def outer() -> int:
        return sum(add.map(range(10), unmapped(1)).result())

    assert outer() == 55
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished success"): 10}
    assert len({record[schema.RUN_ID] for record in watched.records}) == 1


# -- attempts --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("delay", [0, 1])
def test_a_task_that_is_tried_again(watched: Watched, delay: int) -> None:
    flaky = task(retries=3, retry_delay_seconds=delay, name="flaky")(failing(2))

    @flow
    def outer() -> int:
        return flaky()

    assert outer() == 3
    assert watched.agreed() == {
        ("flow", "finished success"): 1, ("task", "retried"): 2, ("task", "finished success"): 1,
    }  # fmt: skip
    first, second, last = watched.of("flaky")
    assert [r[schema.RUN_ATTEMPT] for r in (first, second, last)] == [1, 2, 3]
    assert [r[schema.OUTCOME] for r in (first, second, last)] == ["failure", "failure", "success"]
    assert first[schema.ERROR_TYPE] == "LookupError"
    assert schema.ERROR_TYPE not in last
    assert len({r[schema.PARENT_RECORD_ID] for r in (first, second, last)}) == 1


def test_an_asynchronous_task_that_is_tried_again_in_vain(watched: Watched) -> None:
    @task(retries=1)
    async def flaky() -> None:
        raise LookupError("a secret value")

    @flow
    async def outer() -> None:
        await flaky()

    with pytest.raises(LookupError):
        asyncio.run(outer())
    assert watched.agreed() == {
        ("flow", "finished failure"): 1, ("task", "retried"): 1, ("task", "finished failure"): 1,
    }  # fmt: skip
    assert {record[schema.ERROR_TYPE] for record in watched.records} == {"LookupError"}


@pytest.mark.parametrize("delay", [0, 1])
def test_a_flow_that_is_tried_again_and_then_completes_is_no_failure(watched: Watched, delay: int) -> None:
    outer = flow(retries=2, retry_delay_seconds=delay, name="outer")(failing(1))
    assert outer() == 2
    assert watched.agreed() == {("flow", "retried"): 1, ("flow", "finished success"): 1}
    first, last = watched.of("outer")
    assert (first[schema.RUN_ATTEMPT], last[schema.RUN_ATTEMPT]) == (1, 2)
    assert first[schema.ERROR_TYPE] == "LookupError"
    assert schema.ERROR_TYPE not in last  # the engine still holds the first attempt's exception
    assert first[schema.RUN_ID] == last[schema.RUN_ID]


def test_an_asynchronous_flow_that_is_tried_again(watched: Watched) -> None:
    calls: list[int] = []

    @flow(retries=1)
    async def outer() -> int:
        calls.append(await triple(1))
        if len(calls) == 1:
            raise LookupError
        return 5

    assert asyncio.run(outer()) == 5
    lines = watched.agreed()
    assert lines[("flow", "retried")] == lines[("flow", "finished success")] == 1
    first, last = watched.of("outer")
    inner = watched.of("triple")
    assert [record[schema.PARENT_RECORD_ID] for record in inner] == [first[schema.RECORD_ID], last[schema.RECORD_ID]][
        : len(inner)
    ]


# -- other ends ------------------------------------------------------------------------------------------------------
def test_what_fails_says_the_type_and_no_word_of_the_exception(watched: Watched) -> None:
    @flow
    def outer() -> None:
        broken()

    with pytest.raises(KeyError) as raised:
        outer()
    assert raised.value.args == ("a secret value",)
    assert watched.agreed() == {("flow", "finished failure"): 1, ("task", "finished failure"): 1}
    assert {record[schema.ERROR_TYPE] for record in watched.records} == {"KeyError"}
    assert "secret" not in repr(watched.records)


def test_a_failure_that_is_returned(watched: Watched) -> None:
    @flow
    def outer() -> Any:
        return Failed(message="a secret value")

    outer(return_state=True)
    assert watched.agreed() == {("flow", "finished failure"): 1}
    assert watched.records[0][schema.ERROR_TYPE] == "prefect.state.Failed"
    assert "secret" not in repr(watched.records)


def test_parameters_that_are_not_valid(watched: Watched) -> None:
    @flow
    def outer(number: int) -> int:
        return number

    outer("a secret value", return_state=True)  # type: ignore[arg-type]
    assert watched.agreed() == {("flow", "finished failure"): 1}
    assert watched.records[0][schema.ERROR_TYPE].endswith("ParameterTypeError")
    assert "secret" not in repr(watched.records)


def test_what_takes_too_long(watched: Watched) -> None:
    @task(timeout_seconds=0.2)
    async def slow() -> None:
        await asyncio.sleep(20)

    @flow
    async def outer() -> None:
        await slow(return_state=True)

    asyncio.run(outer())
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished failure"): 1}
    assert watched.of("slow")[0][schema.ERROR_TYPE] == "prefect.state.TimedOut"


def test_what_waits_for_a_failure_is_skipped(watched: Watched) -> None:
    @flow
    def outer() -> None:
        failed = broken.submit()
        double.submit(1, wait_for=[failed]).wait()

    outer(return_state=True)
    lines = watched.agreed()
    assert lines[("task", "finished failure")] == 1
    assert lines[("task", "skipped failure")] == 1
    assert watched.of("double")[0][schema.RUN_REASON] == "what it waits for has failed"


def test_a_cached_result_is_told(watched: Watched, tmp_path: Path) -> None:
    calls: list[int] = []

    @task(cache_policy=INPUTS, persist_result=True, result_storage_key=None)
    def costly(text: str) -> str:
        calls.append(1)
        return text

    @flow
    def outer() -> list[str]:
        return [costly(str(tmp_path)), costly(str(tmp_path))]

    outer()
    assert calls == [1]
    assert watched.agreed() == {
        ("flow", "finished success"): 1, ("task", "finished success"): 1, ("task", "skipped success"): 1,
    }  # fmt: skip
    assert watched.of("costly")[1][schema.RUN_REASON] == "cached: an earlier result was used"


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_crashes(watched: Watched, error: type[BaseException]) -> None:
    @task
    def leave() -> None:
        raise error

    @flow
    def outer() -> None:
        leave()

    with pytest.raises(error):
        outer()
    assert watched.agreed() == {("flow", "interrupted"): 1, ("task", "interrupted"): 1}
    assert {(r[schema.OUTCOME], r[schema.ERROR_TYPE]) for r in watched.records} == {("failure", error.__name__)}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_run_that_its_server_does_not_let_begin(watched: Watched, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    @flow
    def outer() -> None: ...

    @flow(name="outer")
    async def outer_later() -> None: ...

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("a secret value")

    async def refuse_later(*_: Any, **__: Any) -> Any:
        refuse()

    # Where Prefect asks the server once more, after the run exists there.
    monkeypatch.setattr(RunTelemetry, "start_span", refuse)
    monkeypatch.setattr(RunTelemetry, "async_start_span", refuse_later)
    with pytest.raises(ConnectionError):
        outer() if kind == "sync" else asyncio.run(outer_later())
    (record,) = watched.of("outer")
    assert record[schema.EVENT_TYPE] == "workflow.execution.interrupted"
    assert (record[schema.OUTCOME], record[schema.ERROR_TYPE]) == ("failure", "ConnectionError")


def test_an_asynchronous_flow_that_is_cancelled_by_its_loop(watched: Watched) -> None:
    @flow
    async def outer() -> None:
        await asyncio.sleep(30)

    async def main() -> None:
        await asyncio.wait_for(outer(), 3)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(main())
    assert watched.agreed() == {("flow", "interrupted"): 1}


# -- causes ----------------------------------------------------------------------------------------------------------
def test_a_subflow_is_caused_by_its_parent(watched: Watched) -> None:
    @flow
    def inner() -> int:
        return double(1)

    @flow
    def outer() -> int:
        return inner()

    assert outer() == 2
    assert watched.agreed() == {("flow", "finished success"): 2, ("task", "finished success"): 1}
    (parent,), (child,), (leaf,) = watched.of("outer"), watched.of("inner"), watched.of("double")
    assert child[schema.PARENT_RUN_ID] == parent[schema.RUN_ID]
    assert schema.PARENT_RUN_CLAIMED not in child
    assert (child[schema.TRIGGER_TYPE], child[schema.TRIGGER_RULE]) == ("parent_run", "outer")
    assert leaf[schema.RUN_ID] == child[schema.RUN_ID]
    assert leaf[schema.PARENT_RECORD_ID] == child[schema.RECORD_ID]


def test_a_flow_inside_another_audited_run(
    watched: Watched, in_run: Callable[..., AbstractContextManager[Any]]
) -> None:
    @flow
    def outer() -> int:
        return double(1)

    with in_run("webhook-run"):
        outer()
    (record,) = watched.of("outer")
    assert record[schema.PARENT_RUN_ID] == "webhook-run"
    assert record[schema.TRIGGER_TYPE] == "parent_run"
    spans = [span for span in watched.audited.spans if schema.RECORD_ID in (span.attributes or {})]
    assert len({span.context.trace_id for span in spans}) == 1


def test_a_task_outside_of_any_flow_opens_a_run(watched: Watched) -> None:
    assert double(4) == 8
    assert watched.agreed() == {("task", "finished success"): 1}
    (record,) = watched.records
    assert record[schema.RUN_ID] == record[schema.TASK_RUN_ID]
    assert record[schema.TRIGGER_TYPE] == "manual"


def test_a_task_inside_a_task(watched: Watched) -> None:
    @task
    def outer_task() -> int:
        return double(2)

    @flow
    def outer() -> int:
        return outer_task()

    assert outer() == 4
    assert watched.agreed() == {("flow", "finished success"): 1, ("task", "finished success"): 2}
    assert watched.of("double")[0][schema.PARENT_RECORD_ID] == watched.of("outer_task")[0][schema.RECORD_ID]


# -- the application comes first -------------------------------------------------------------------------------------
def test_the_context_is_left_as_it_was(watched: Watched) -> None:
    @flow
    def outer() -> Any:
        return runs.current()

    before = otel_context.get_current()
    assert outer().workflow == "outer"
    assert otel_context.get_current() == before


def test_a_fault_of_ours_stays_with_us(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(plugin, "actor_of", fault)
    monkeypatch.setattr(plugin, "script_version", fault)

    @flow
    def outer() -> int:
        return double(3)

    assert outer() == 6
    with pytest.raises(KeyError):
        broken()
    counted = faults.snapshot()
    faults.forget()
    assert watched.records == []
    assert {fault.last for fault in counted.values()} == {"ZeroDivisionError"}
    assert sum(fault.count for fault in counted.values()) == 3


def test_taken_off_nothing_of_ours_is_left(audited: Audited) -> None:
    methods = [(FlowRunEngine, "initialize_run"), (FlowRunEngine, "set_state"), (SyncTaskRunEngine, "run_context")]

    def patched() -> list[bool]:
        return [isinstance(inspect.getattr_static(*method), wrapt.FunctionWrapper) for method in methods]

    assert patched() == [False, False, False]
    audited.instrument(PrefectInstrumentor)
    assert patched() == [True, True, True]
    PrefectInstrumentor().uninstrument()
    assert patched() == [False, False, False]


def test_what_the_tests_count_is_not_what_the_plugin_counts(watched: Watched) -> None:
    """A record that is missing is found: the comparison with the API can fail."""

    @flow
    def outer() -> int:
        return double(3)

    outer()
    watched.api.agrees(lambda: watched.records)
    with pytest.raises(AssertionError, match="only Prefect's"):
        watched.api.agrees(lambda: watched.records[1:], seconds=1)
