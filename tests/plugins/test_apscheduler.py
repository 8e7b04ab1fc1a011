# SPDX-License-Identifier: Apache-2.0
"""The plugin on the real APScheduler: schedulers, executors and pools are the library's own."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from apscheduler.events import (
    EVENT_ALL,
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
)
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.executors.base import BaseExecutor, MaxInstancesReachedError
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import BasePoolExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.interval import IntervalTrigger

from auditspan import schema
from auditspan.capture import environ, faults
from auditspan.capture import run as runs
from auditspan.capture.recorder import Recorder
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.runners import apscheduler as plugin
from auditspan.runners import apscheduler_causes
from auditspan.runners.apscheduler import APSchedulerInstrumentor

UTC = timezone.utc
ENDED = EVENT_JOB_EXECUTED | EVENT_JOB_ERROR | EVENT_JOB_MISSED


# -- jobs (at module level: process pools and job stores refer to them by name) --------------------------------------
def work(value: Any = "done") -> Any:
    return value


def fail() -> None:
    raise KeyError("a secret value")


def die() -> None:
    os._exit(9)


def unpicklable() -> Any:
    return threading.Lock()


async def coroutine(seen: list[Any]) -> str:
    await asyncio.sleep(0.01)
    seen.append(runs.current())
    return "awaited"


# -- harness ---------------------------------------------------------------------------------------------------------
class Watched:
    """A started scheduler and everything that its listeners were told."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.events: list[Any] = []
        self._changed = threading.Condition()
        scheduler.add_listener(self._listen, EVENT_ALL)

    def _listen(self, event: Any) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def of(self, mask: int) -> list[Any]:
        return [event for event in self.events if event.code & mask]

    def wait(self, count: int = 1, mask: int = ENDED) -> list[Any]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(mask)) >= count, 30), self.events
        return self.of(mask)


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    started: list[Any] = []

    def start(executor: Any = None, **options: Any) -> Watched:
        executors = {} if executor is None else {"default": executor}
        scheduler = BackgroundScheduler(timezone=UTC, executors=executors, **options)
        result = Watched(scheduler)
        scheduler.start()
        started.append(scheduler)
        return result

    yield start
    for scheduler in started:
        if scheduler.running:
            scheduler.shutdown()


def jobs(audited: Any) -> list[dict[str, Any]]:
    return [record for record in audited.records if record[schema.TARGET_TYPE] == "apscheduler.job"]


def spans(audited: Any) -> list[Any]:
    return [s for s in audited.spans if (s.attributes or {}).get(schema.TARGET_TYPE) == "apscheduler.job"]


def soon(seconds: float = 0.05) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


# -- what a record says ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("trigger", "options", "rule"),
    [
        ("cron", {"second": "*"}, "cron[second='*']"),
        ("interval", {"seconds": 1, "start_date": "2026-01-01"}, "interval[0:00:01]"),
    ],
)
def test_a_recurring_job_opens_a_run_by_schedule(
    audited: Any, watched: Any, trigger: str, options: dict[str, Any], rule: str
) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    w.scheduler.add_job(work, trigger, id="refresh", name="refresh orders", **options)
    event = w.wait()[0]
    record = jobs(audited)[0]
    scheduled = event.scheduled_run_time.astimezone(UTC).isoformat()
    expected = {
        schema.EVENT_TYPE: "workflow.execution.finished",
        schema.ACTION: "EXECUTE",
        schema.OUTCOME: "success",
        schema.TARGET_ID: "refresh",
        schema.TRIGGER_TYPE: "schedule",
        schema.TRIGGER_RULE: rule,
        schema.TASK_TRIGGER_RULE: rule,
        schema.TASK_NAME: "refresh orders",
        schema.WORKFLOW_NAME: "refresh orders",
        schema.RUN_ID: f"apscheduler/refresh/{scheduled}",
        schema.TASK_RUN_ID: f"apscheduler/refresh/{scheduled}",
        schema.TASK_SCHEDULED_TIME: scheduled,
        schema.CODE_FUNCTION: f"{__name__}:work",
        schema.SCRIPT_NAME: f"{__name__}.work",
        schema.MESSAGE: "apscheduler.job 'refresh' ran",
    }
    assert {name: record.get(name) for name in expected} == expected
    assert spans(audited)[0].parent is None


def test_a_failing_job(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    w.scheduler.add_job(fail)
    event = w.wait()[0]
    assert isinstance(event.exception, KeyError)
    assert "auditspan" not in event.traceback  # no frame of ours
    (record,) = jobs(audited)
    assert (record[schema.OUTCOME], record[schema.ERROR_TYPE]) == ("failure", "KeyError")
    assert "secret" not in json.dumps(record)


def test_a_misfire(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    w.scheduler.add_job(work, "date", run_date=datetime.now(UTC) - timedelta(seconds=90), misfire_grace_time=1)
    assert w.wait()[0].code == EVENT_JOB_MISSED
    (record,) = jobs(audited)
    assert [record[n] for n in (schema.ACTION, schema.OUTCOME, schema.ERROR_TYPE)] == [
        "SKIP",
        "failure",
        "apscheduler.misfire",
    ]
    assert record[schema.TRIGGER_RULE].startswith("date[")


def test_too_many_instances(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    release = threading.Event()
    w.scheduler.add_job(release.wait, "interval", seconds=0.1, id="slow", args=(30,))
    w.wait(mask=EVENT_JOB_MAX_INSTANCES)
    skipped = jobs(audited)
    release.set()
    w.wait()
    assert skipped[0][schema.ACTION] == "SKIP"
    assert skipped[0][schema.ERROR_TYPE] == "apscheduler.max_instances"
    assert skipped[0][schema.TASK_RUN_ID].startswith("apscheduler/slow/")


def test_a_job_that_the_executor_refuses(audited: Any, watched: Any, caplog: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    executor = ThreadPoolExecutor(1)
    w = watched(executor)
    executor._pool.shutdown()
    w.scheduler.add_job(work, id="refused")
    while "Error submitting job" not in caplog.text:
        time.sleep(0.01)
    (record,) = jobs(audited)
    assert (record[schema.ACTION], record[schema.ERROR_TYPE]) == ("SKIP", "RuntimeError")


def test_a_job_that_is_cancelled_before_it_begins(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    executor = ThreadPoolExecutor(1)
    w = watched(executor)
    busy = threading.Event()
    release = threading.Event()
    w.scheduler.add_job(lambda: (busy.set(), release.wait(30)), id="busy")
    assert busy.wait(30)
    w.scheduler.add_job(work, id="waiting")
    while executor._pool._work_queue.qsize() == 0:
        time.sleep(0.01)
    executor._pool.shutdown(wait=False, cancel_futures=True)
    release.set()
    w.wait()
    assert {r[schema.TARGET_ID]: (r[schema.ACTION], r.get(schema.ERROR_TYPE)) for r in jobs(audited)} == {
        "waiting": ("SKIP", "concurrent.futures.CancelledError"),
        "busy": ("EXECUTE", None),
    }


def test_each_run_time_of_one_submission_is_run_and_recorded_once(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    ran: list[str] = []
    ended = datetime.now(UTC)
    w.scheduler.add_job(
        lambda: ran.append(str(runs.current().id)),  # type: ignore[union-attr]
        IntervalTrigger(seconds=1, start_date=ended - timedelta(seconds=4), end_date=ended, timezone=UTC),
        id="many",
        coalesce=False,
        misfire_grace_time=60,
        next_run_time=ended - timedelta(seconds=4),
    )
    events = w.wait(5)
    time.sleep(0.05)
    assert len(w.of(ENDED)) == len(ran) == len(set(ran)) == 5
    assert [r[schema.RUN_ID] for r in jobs(audited)] == ran
    assert [e.scheduled_run_time.isoformat() for e in events] == [r[schema.TASK_SCHEDULED_TIME] for r in jobs(audited)]


def test_a_lambda_and_a_partial_have_a_name_too(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    w.scheduler.add_job(functools.partial(work, 1), name="partial")
    w.wait()
    assert jobs(audited)[0][schema.CODE_FUNCTION] == f"{__name__}.work"


# -- why it ran ------------------------------------------------------------------------------------------------------
def test_a_one_shot_job_joins_the_run_that_added_it(audited: Any, watched: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    seen: list[Any] = []
    with in_run():
        w.scheduler.add_job(lambda: seen.append(runs.current()), id="once")
    w.wait()
    outer = next(s for s in audited.spans if s.name == "outer")
    (span,) = spans(audited)
    record = jobs(audited)[0]
    assert span.parent.span_id == outer.context.span_id
    assert not span.parent.is_remote  # in a thread the context is handed over as it is
    assert span.context.trace_id == outer.context.trace_id
    assert record[schema.RUN_ID] == seen[0].id == "outer-run"
    assert (record[schema.TRIGGER_TYPE], record[schema.TRIGGER_RULE]) == ("webhook", "delivery")
    assert record[schema.TASK_TRIGGER_RULE].startswith("date[")
    assert record[schema.TASK_RUN_ID].startswith("apscheduler/once/")
    assert record[schema.SCRIPT_NAME].startswith(__name__)
    assert record[schema.PARENT_RECORD_ID] == outer.attributes[schema.RECORD_ID]


def test_a_job_added_before_the_start_joins_where_it_was_added(audited: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    scheduler = BackgroundScheduler(timezone=UTC)
    w = Watched(scheduler)
    with in_run():
        scheduler.add_job(work, id="early")
    with in_run("the-run-that-starts-the-scheduler"):
        scheduler.start()
    w.wait()
    scheduler.shutdown()
    assert [r[schema.RUN_ID] for r in jobs(audited)] == ["outer-run"]


def test_a_recurring_job_is_linked_to_where_it_was_added_and_not_part_of_it(
    audited: Any, watched: Any, in_run: Any
) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    with in_run():
        w.scheduler.add_job(work, "interval", seconds=0.1, id="tick")
    w.wait(2)
    w.scheduler.remove_job("tick")
    outer = next(s for s in audited.spans if s.name == "outer")
    first, second = spans(audited)[:2]
    assert first.parent is None and second.parent is None
    assert [link.context.span_id for link in first.links] == [outer.context.span_id]
    assert first.context.trace_id != second.context.trace_id != outer.context.trace_id
    ids = [r[schema.RUN_ID] for r in jobs(audited)[:2]]
    assert ids[0] != ids[1] and all(i.startswith("apscheduler/tick/") for i in ids)
    assert schema.PARENT_RUN_ID not in jobs(audited)[0]


def test_in_a_process_that_a_run_started(audited: Any, watched: Any, in_run: Any, monkeypatch: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    with in_run():
        handed = environ.carrier()
    for name, value in handed.items():
        monkeypatch.setenv(name, value)
    environ.forget()
    try:
        w = watched()
        w.scheduler.add_job(work, id="once")
        w.wait()
        w.scheduler.add_job(work, "interval", seconds=0.1, id="tick")
        w.wait(2)
        w.scheduler.shutdown()
    finally:
        monkeypatch.undo()
        environ.forget()
    outer = next(s for s in audited.spans if s.name == "outer")
    assert [r[schema.RUN_ID] == "outer-run" for r in jobs(audited)[:2]] == [True, False]
    once, tick = spans(audited)[:2]
    assert once.parent.span_id == outer.context.span_id
    assert tick.parent is None and [link.context.span_id for link in tick.links] == [outer.context.span_id]


def test_a_run_asked_for_by_a_run_joins_it_and_only_that_one(audited: Any, watched: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    w.scheduler.add_job(work, "interval", seconds=0.3, id="tick", next_run_time=soon(60))
    with in_run():
        w.scheduler.modify_job("tick", next_run_time=datetime.now(UTC))
    w.wait(2)
    w.scheduler.remove_job("tick")
    first, second = jobs(audited)[:2]
    assert (first[schema.RUN_ID], first[schema.TRIGGER_TYPE]) == ("outer-run", "webhook")
    assert first[schema.TASK_TRIGGER_RULE] == second[schema.TRIGGER_RULE] == "interval[0:00:00.300000]"
    assert (second[schema.RUN_ID], second[schema.TRIGGER_TYPE]) == (second[schema.TASK_RUN_ID], "schedule")


def test_a_run_asked_for_outside_of_any_run_is_manual(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    job = w.scheduler.add_job(work, "interval", hours=1, id="tick")
    job.modify(next_run_time=datetime.now(UTC))
    w.wait()
    record = jobs(audited)[0]
    assert (record[schema.TRIGGER_TYPE], record[schema.TRIGGER_RULE]) == ("manual", "next_run_time")
    assert record[schema.TASK_TRIGGER_RULE] == "interval[1:00:00]"


def test_pausing_resuming_and_rescheduling_ask_for_no_run(audited: Any, watched: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    job = w.scheduler.add_job(work, "interval", hours=1, id="tick")
    with in_run():
        job.pause()
        job.reschedule("interval", seconds=0.1)
        job.pause()
        job.resume()
    w.wait()
    assert jobs(audited)[0][schema.TRIGGER_TYPE] == "schedule"
    assert jobs(audited)[0][schema.TRIGGER_RULE] == "interval[0:00:00.100000]"


def test_rescheduling_to_a_date_asks_for_that_run(audited: Any, watched: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    job = w.scheduler.add_job(work, "interval", hours=1, id="tick")
    with in_run():
        job.reschedule("date", run_date=soon())
    w.wait()
    assert jobs(audited)[0][schema.RUN_ID] == "outer-run"


def test_a_refused_change_asks_for_no_run(audited: Any, watched: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    job = w.scheduler.add_job(work, "interval", seconds=0.3, id="tick")
    with in_run():
        with pytest.raises(AttributeError):
            job.modify(next_run_time=soon(0), nonsense=1)
        with pytest.raises(LookupError):
            w.scheduler.modify_job("unknown", next_run_time=soon(0))
    w.wait()
    assert jobs(audited)[0][schema.TRIGGER_TYPE] == "schedule"


def test_nothing_is_remembered_of_jobs_that_are_gone(audited: Any, watched: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    with in_run():
        w.scheduler.add_job(work)
        for number in range(3):
            w.scheduler.add_job(work, "date", run_date=soon(60), id=f"later-{number}")
    causes = APSchedulerInstrumentor()._causes
    w.wait()
    assert len(causes._of(w.scheduler)) == 3
    w.scheduler.remove_job("later-0")
    assert len(causes._of(w.scheduler)) == 2
    w.scheduler.remove_all_jobs()
    assert len(causes._of(w.scheduler)) == 0


def test_what_is_remembered_is_bounded_and_an_overflow_is_counted(
    audited: Any, watched: Any, in_run: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(apscheduler_causes, "_JOBS_REMEMBERED", 2)
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    with in_run():
        for number in range(3):
            w.scheduler.add_job(work, "date", run_date=soon(60), id=f"later-{number}")
    assert list(APSchedulerInstrumentor()._causes._of(w.scheduler)) == ["later-1", "later-2"]
    assert list(faults.snapshot()) == ["apscheduler: more jobs than can be remembered"]
    faults.forget()


# -- other executors -------------------------------------------------------------------------------------------------
def test_asyncio_coroutines_and_functions(audited: Any, in_run: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    seen: list[Any] = []
    w: Any = None

    async def main() -> None:
        nonlocal w
        scheduler = AsyncIOScheduler(timezone=UTC)
        w = Watched(scheduler)
        scheduler.start()
        with in_run():
            scheduler.add_job(coroutine, id="once", args=(seen,))
            scheduler.add_job(lambda: seen.append(runs.current()), id="sync")
            scheduler.add_job(coroutine, "interval", seconds=0.1, id="tick", args=([],))
            scheduler.add_job(fail, id="fails")
        while len(w.of(ENDED)) < 4:
            await asyncio.sleep(0.01)
        assert runs.current() is None
        scheduler.shutdown()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    by_id = {r[schema.TARGET_ID]: r for r in jobs(audited)}
    assert by_id["once"][schema.RUN_ID] == by_id["sync"][schema.RUN_ID] == "outer-run"
    assert [run.id for run in seen] == ["outer-run", "outer-run"]
    # The loop's timers carry a copy of the run's context: the recurring job must not slip into the run by that.
    assert by_id["tick"][schema.TRIGGER_TYPE] == "schedule"
    assert by_id["fails"][schema.ERROR_TYPE] == "KeyError"
    assert {e.job_id: e.retval for e in w.of(EVENT_JOB_EXECUTED)}["once"] == "awaited"


def test_asyncio_several_run_times_and_a_task_that_is_cancelled_before_it_begins(audited: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    seen: list[Any] = []

    async def main() -> None:
        scheduler = AsyncIOScheduler(timezone=UTC)
        w = Watched(scheduler)
        scheduler.start(paused=True)
        start = datetime.now(UTC) - timedelta(seconds=2)
        many = IntervalTrigger(seconds=1, start_date=start, end_date=start + timedelta(seconds=2), timezone=UTC)
        scheduler.add_job(
            coroutine, many, (seen,), id="many", coalesce=False, misfire_grace_time=60, next_run_time=start
        )
        scheduler.resume()
        while len(w.of(ENDED)) < 3:
            await asyncio.sleep(0.01)
        scheduler.add_job(coroutine, args=(seen,), id="cancelled")
        scheduler._process_jobs()
        for future in list(scheduler._executors["default"]._pending_futures):
            future.cancel()
        await asyncio.sleep(0.05)
        scheduler.shutdown()
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert len(seen) == len({run.id for run in seen}) == 3
    assert [(r[schema.TARGET_ID], r[schema.ACTION]) for r in jobs(audited)] == [
        *([("many", "EXECUTE")] * 3),
        ("cancelled", "SKIP"),
    ]


def test_the_debug_executor(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched(DebugExecutor())
    w.scheduler.add_job(work)
    w.scheduler.add_job(fail)
    w.wait(2)
    assert sorted(r[schema.OUTCOME] for r in jobs(audited)) == ["failure", "success"]


@pytest.mark.slow
def test_process_pool_whose_workers_are_not_audited(audited: Any, watched: Any, in_run: Any, caplog: Any) -> None:
    """Spawned from here the workers have no provider: the parent records what they report, or what became of them."""
    audited.instrument(APSchedulerInstrumentor)
    w = watched(ProcessPoolExecutor(1))
    with in_run():
        w.scheduler.add_job(work, args=(21,), id="good", misfire_grace_time=60)
    assert w.wait()[0].retval == 21
    w.scheduler.add_job(fail, id="bad", misfire_grace_time=60)
    assert isinstance(w.wait(2)[1].exception, KeyError)
    assert [(r[schema.TARGET_ID], r[schema.OUTCOME]) for r in jobs(audited)] == [
        ("good", "success"),
        ("bad", "failure"),
    ]
    assert jobs(audited)[0][schema.RUN_ID] == "outer-run"

    def lost(job: Any, job_id: str) -> dict[str, Any]:
        w.scheduler.add_job(job, id=job_id, misfire_grace_time=60)
        deadline = time.monotonic() + 30
        while f"Error running job {job_id}" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return jobs(audited)[-1]

    record = lost(unpicklable, "unpicklable")
    assert (record[schema.TARGET_ID], record[schema.ERROR_TYPE]) == ("unpicklable", "TypeError")
    record = lost(die, "dies")
    assert (record[schema.TARGET_ID], record[schema.OUTCOME]) == ("dies", "failure")
    assert record[schema.ERROR_TYPE] == "concurrent.futures.process.BrokenProcessPool"
    # The library replaces the broken pool by one of the same class and submits again.
    w.scheduler.add_job(work, id="after", misfire_grace_time=60)
    w.wait(3)
    assert jobs(audited)[-1][schema.TARGET_ID] == "after"
    assert len(jobs(audited)) == 5


APPLICATION = """
import os, sys, threading
from datetime import datetime, timezone

def job():
    return os.getpid()

def main():
    from apscheduler.events import EVENT_JOB_EXECUTED
    from apscheduler.executors.pool import ProcessPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    executed = threading.Event()
    pids = []
    scheduler = BackgroundScheduler(executors={"default": ProcessPoolExecutor(1)}, timezone=timezone.utc)
    scheduler.add_listener(lambda event: (pids.append(event.retval), executed.set()), EVENT_JOB_EXECUTED)
    scheduler.start()
    scheduler.add_job(job, id="in-the-worker", misfire_grace_time=60)
    assert executed.wait(60)
    scheduler.shutdown()
    assert pids and pids[0] != os.getpid()
    print("PIDS", os.getpid(), pids[0], file=sys.stderr)

if __name__ == "__main__":
    main()
"""


def instrumented(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "app.py"
    script.write_text(APPLICATION)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "AUDITSPAN_"))}
    env |= {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none", **environment}
    command = [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, str(script)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_process_pool_under_opentelemetry_instrument(tmp_path: Path) -> None:
    """The worker is instrumented by itself and makes the record: seen by the console exporter's resource."""
    environment = {"OTEL_TRACES_EXPORTER": "console", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "process"}
    done = instrumented(tmp_path, AUDITSPAN_DIR=str(tmp_path / "log"), **environment)
    assert done.returncode == 0, done.stderr
    assert "PIDS" in done.stderr
    parent, worker = done.stderr.split("PIDS ")[1].split()[:2]
    decoder = json.JSONDecoder()
    found, rest = [], done.stdout.strip()
    while rest:
        span, end = decoder.raw_decode(rest)
        found.append(span)
        rest = rest[end:].strip()
    (span,) = [s for s in found if s["attributes"].get(schema.TARGET_ID) == "in-the-worker"]
    assert span["attributes"][schema.OUTCOME] == "success"
    assert span["attributes"][schema.SCRIPT_VERSION_SOURCE] == "source_hash"
    assert span["attributes"][schema.MESSAGE] == "apscheduler.job 'in-the-worker' ran"
    assert str(span["resource"]["attributes"]["process.pid"]) == worker != parent


@pytest.mark.slow
def test_the_record_of_a_worker_process_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = instrumented(tmp_path, OTEL_TRACES_EXPORTER="none", AUDITSPAN_DIR=str(log))
    assert done.returncode == 0, done.stderr

    def auditspan(*arguments: str) -> Any:
        command = [sys.executable, "-m", "auditspan.cli", *arguments, "--json"]
        environment = {**os.environ, "AUDITSPAN_DIR": str(log)}
        return json.loads(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)

    assert auditspan("verify")["verdict"] == "PASSED"
    (run,) = auditspan("runs")["runs"]
    assert run["run"].startswith("apscheduler/in-the-worker/")
    assert (run["records"], run["outcome"], run["trigger"]) == (1, "success", "schedule")


# -- the application comes first -------------------------------------------------------------------------------------
def told(w: Watched) -> list[Any]:
    w.scheduler.add_job(work, id="good", args=(object,))
    w.wait(1)
    w.scheduler.add_job(fail, id="bad")
    w.wait(2)
    w.scheduler.add_job(work, "date", run_date="2026-01-01", id="missed")
    w.wait(3)
    w.scheduler.shutdown()
    return [
        (
            type(e),
            e.code,
            getattr(e, "job_id", None),
            getattr(e, "retval", None),
            type(getattr(e, "exception", None)),
            getattr(e, "traceback", None),
        )
        for e in w.events
        if getattr(e, "job_id", None) and e.code != EVENT_ALL
    ]


@pytest.mark.parametrize("executor", [lambda: ThreadPoolExecutor(1), DebugExecutor])
def test_listeners_and_the_log_are_told_the_same_as_without_us(
    audited: Any, watched: Any, caplog: Any, executor: Callable[[], Any]
) -> None:
    def observe() -> tuple[list[Any], list[Any]]:
        caplog.clear()
        with caplog.at_level(logging.INFO, "apscheduler"):
            events = told(watched(executor()))
        # A thread's events and the scheduler's own come in no fixed order.
        return sorted(events, key=str), sorted((r.name, r.levelname, r.msg, len(r.args or ())) for r in caplog.records)

    without = observe()
    audited.instrument(APSchedulerInstrumentor)
    assert observe() == without
    assert len(jobs(audited)) == 3


def test_the_very_exception_object_reaches_the_listener(audited: Any, watched: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    error = SystemExit("even this one")

    def raises() -> None:
        raise error

    w = watched()
    w.scheduler.add_job(raises)
    assert w.wait()[0].exception is error
    assert jobs(audited)[0][schema.ERROR_TYPE] == "SystemExit"


def test_uninstrument_restores(audited: Any, watched: Any) -> None:
    from apscheduler.executors import asyncio as asyncio_executor
    from apscheduler.executors import debug, pool, twisted

    places = [
        (BaseScheduler, "add_job"),
        (BaseScheduler, "_real_add_job"),
        (BaseScheduler, "modify_job"),
        (BaseScheduler, "resume_job"),
        (BaseExecutor, "submit_job"),
        (BasePoolExecutor, "_do_submit_job"),
        (AsyncIOExecutor, "_do_submit_job"),
        (debug, "run_job"),
        (asyncio_executor, "run_job"),
        (asyncio_executor, "run_coroutine_job"),
        (twisted, "run_job"),
    ]
    never = [(pool, "run_job"), (sys.modules["apscheduler.executors.base"], "run_job")]  # they are pickled by name
    before = [vars(owner)[name] for owner, name in places + never]
    audited.instrument(APSchedulerInstrumentor)
    during = [vars(owner)[name] for owner, name in places + never]
    assert [a is b for a, b in zip(before, during, strict=True)] == [False] * len(places) + [True] * len(never)
    executor = ThreadPoolExecutor(1)
    w = watched(executor)
    w.scheduler.add_job(work, "interval", seconds=0.1, id="tick")
    listeners = len(w.scheduler._listeners)
    w.scheduler.modify_job("tick", next_run_time=soon(0))
    w.wait()
    assert len(w.scheduler._listeners) == listeners + 1
    APSchedulerInstrumentor().uninstrument()
    recorded = len(audited.spans)
    assert [vars(owner)[name] for owner, name in places + never] == before
    assert len(w.scheduler._listeners) == listeners
    assert type(executor._pool).__module__ == "concurrent.futures.thread"
    w.wait(len(w.of(ENDED)) + 2)
    assert len(audited.spans) <= recorded + 1  # one may have been under way


def test_due_is_a_list_and_survives_pickling(audited: Any) -> None:
    times = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)]
    due = plugin.Due(times, None, {times[1]: context_of_a_run()}, Recorder("test", "1", audited.provider))
    copy = pickle.loads(pickle.dumps(due))
    assert copy == times and isinstance(copy, list)
    run = runs.current(copy.asked[times[1]])
    assert run == RUN  # whole: parent run, claim and attempt included


RUN = Run("r", "w", schema.TriggerType.WEBHOOK, "x" * 400, ScriptVersion("1", "declared", "s"), "parent", True, 3)


def context_of_a_run() -> Any:
    from opentelemetry.context import Context

    return runs.enter(RUN, Context())


# -- our own faults --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("broken", ["_begin", "_finish", "script_version", "inside", "Due", "_AuditedPool", "partial"])
@pytest.mark.parametrize("kind", ["thread", "debug"])
def test_a_fault_of_ours_never_costs_or_doubles_a_run(
    audited: Any, watched: Any, monkeypatch: Any, broken: str, kind: str
) -> None:
    if kind == "debug" and broken in ("_AuditedPool", "partial"):
        pytest.skip("not used by this executor")
    audited.instrument(APSchedulerInstrumentor)
    w = watched(ThreadPoolExecutor(1) if kind == "thread" else DebugExecutor())
    ran: list[int] = []

    class Broken:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError

    monkeypatch.setattr(plugin, broken, Broken)
    ended = datetime.now(UTC)
    w.scheduler.add_job(
        lambda: ran.append(1) or "result",
        IntervalTrigger(seconds=1, start_date=ended - timedelta(seconds=1), end_date=ended, timezone=UTC),
        coalesce=False,
        misfire_grace_time=60,
        next_run_time=ended - timedelta(seconds=1),
    )
    events = w.wait(2)
    assert [e.retval for e in events] == ["result", "result"]
    time.sleep(0.05)
    assert ran == [1, 1]
    assert sum(fault.count for fault in faults.snapshot().values()) >= 1
    faults.forget()


def test_a_record_that_failed_in_the_worker_is_made_by_the_parent(audited: Any, watched: Any, monkeypatch: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    w = watched()
    begin, calls = plugin._begin, []

    def once(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return begin(*args)

    monkeypatch.setattr(plugin, "_begin", once)
    w.scheduler.add_job(work)
    w.wait()
    assert [r[schema.OUTCOME] for r in jobs(audited)] == ["success"]
    assert faults.snapshot()["apscheduler: run_job"].count == 1
    faults.forget()


def test_max_instances_is_still_raised(audited: Any) -> None:
    audited.instrument(APSchedulerInstrumentor)
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start(paused=True)
    job = scheduler.add_job(work, "interval", hours=1)
    executor = scheduler._executors["default"]
    executor._instances[job.id] = 1
    with pytest.raises(MaxInstancesReachedError):
        executor.submit_job(job, [datetime.now(UTC)])
    scheduler.shutdown()
    assert len(jobs(audited)) == 1


@pytest.mark.slow
def test_an_application_without_apscheduler_does_not_import_it() -> None:
    code = (
        "import sys; from auditspan.runners.apscheduler import APSchedulerInstrumentor as I; I().instrument();"
        "assert not [m for m in sys.modules if m.split('.')[0] == 'apscheduler'];"
        "import apscheduler.schedulers.base as b; assert hasattr(b.BaseScheduler.add_job, '__wrapped__');"
        "import apscheduler.executors.debug as d; assert hasattr(d.run_job, '__wrapped__');"
        "I().uninstrument(); assert not hasattr(b.BaseScheduler.add_job, '__wrapped__');"
        "import apscheduler.executors.asyncio as a; assert not hasattr(a.run_job, '__wrapped__')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
