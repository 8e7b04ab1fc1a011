# SPDX-License-Identifier: Apache-2.0
"""Who asked for a job of APScheduler 3: what has to be remembered from the asking until the job runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext

from auditspan.capture import environ, faults
from auditspan.capture import run as runs

_JOBS_REMEMBERED = 10_000  # per scheduler; a job that is done or removed is forgotten at once


@dataclass(frozen=True)
class Cause:
    """Who asked for the next run of a job.

    Attributes:
        context: where it was asked for.
        at: the run that was asked for is the first one that is due at this time or later; None: the next one.
    """

    context: Context
    at: datetime | None = None


@dataclass
class Remembered:
    """What is known of one job until it runs: where it was added, and who asked for its next run."""

    added_by: SpanContext | None = None
    cause: Cause | None = None


class Causes:
    """What is known of the jobs of each scheduler until they run.

    A one-shot job, and a run that is asked for by name (``modify_job(next_run_time=…)``), is caused by the run that
    asked. A recurring job is not: its schedule causes its runs, the place that added it is only linked.
    """

    def __init__(self) -> None:
        self._jobs: WeakKeyDictionary[Any, _Jobs] = WeakKeyDictionary()
        self._thread = threading.local()

    def added(self, scheduler: Any, job: Any) -> None:
        """Remember who added a job."""
        context = environ.parent_context()
        cause = Cause(context) if _is_one_shot(job.trigger) and runs.current(context) is not None else None
        self._remember(scheduler, job.id, Remembered(span_of(context), cause))

    def changed(self, scheduler: Any, job_id: str, changes: Mapping[str, Any]) -> Remembered | None:
        """Remember who asks for a run now; return what was known before."""
        from apscheduler.util import convert_to_datetime

        before = self._of(scheduler).get(job_id)
        time = changes.get("next_run_time")
        if time is None or getattr(self._thread, "nobody_asks", False):
            return before  # something else of the job is changed, or the job is paused or resumed
        if "trigger" in changes and not _is_one_shot(changes["trigger"]):
            cause = None  # rescheduled: from now on the new schedule causes its runs
        else:
            at = convert_to_datetime(time, scheduler.timezone, "next_run_time")
            cause = Cause(environ.parent_context(), at)
        self._remember(scheduler, job_id, Remembered(before.added_by if before else None, cause))
        return before

    def restore(self, scheduler: Any, job_id: str, before: Remembered | None) -> None:
        """Take back a change that the library refused."""
        self._remember(scheduler, job_id, before or Remembered())

    @contextmanager
    def nobody_asks(self) -> Iterator[None]:
        """Changes inside the ``with`` block ask for no run.

        Kept by thread and not in the context: an asyncio scheduler copies the context of its callers into its timers.
        """
        self._thread.nobody_asks = True
        try:
            yield
        finally:
            self._thread.nobody_asks = False

    def take(self, job: Any, run_times: Iterable[datetime]) -> tuple[SpanContext | None, dict[datetime, Context]]:
        """Return who added a job that is due, and which of its run times somebody asked for; that is told only once."""
        known = self._of(job._scheduler).get(job.id)
        if known is None:
            return None, {}
        if known.cause is not None:
            for run_time in run_times:
                if known.cause.at is None or run_time >= known.cause.at:
                    asked = {run_time: known.cause.context}
                    known.cause = None
                    return known.added_by, asked
        return known.added_by, {}

    def forget_all(self) -> None:
        """Forget everything and leave the schedulers as they were."""
        for scheduler, jobs in list(self._jobs.items()):
            scheduler.remove_listener(jobs.forget)
        self._jobs.clear()

    def _of(self, scheduler: Any) -> Mapping[str, Remembered]:
        return self._jobs.get(scheduler, {})

    def _remember(self, scheduler: Any, job_id: str, remembered: Remembered) -> None:
        from apscheduler.events import EVENT_ALL_JOBS_REMOVED, EVENT_JOB_REMOVED

        jobs = self._jobs.get(scheduler)
        if jobs is None:
            if remembered == Remembered():
                return
            jobs = self._jobs[scheduler] = _Jobs()
            scheduler.add_listener(jobs.forget, EVENT_JOB_REMOVED | EVENT_ALL_JOBS_REMOVED)
        jobs.pop(job_id, None)
        if remembered != Remembered():
            jobs[job_id] = remembered
        if len(jobs) > _JOBS_REMEMBERED:
            jobs.popitem(last=False)
            # Its run will say that its schedule caused it. Counted, so that nobody has to find that out.
            faults.count("apscheduler: more jobs than can be remembered", OverflowError())


class _Jobs(OrderedDict[str, Remembered]):
    def forget(self, event: Any) -> None:
        """Forget a job that is done or removed (a listener)."""
        if hasattr(event, "job_id"):
            self.pop(event.job_id, None)
        elif event.alias is None:
            self.clear()


def _is_one_shot(trigger: Any) -> bool:
    from apscheduler.triggers.date import DateTrigger

    return isinstance(trigger, DateTrigger)


def span_of(context: Context) -> SpanContext | None:
    """Return the span of a context, if there is one."""
    span = trace.get_current_span(context).get_span_context()
    return span if span.is_valid else None
