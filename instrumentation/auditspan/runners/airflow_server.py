# SPDX-License-Identifier: Apache-2.0
"""Airflow 3, scheduler and API server: how DAG runs end, what is never run, and what people do by hand."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from opentelemetry.context import Context

from auditspan import schema
from auditspan.capture import faults
from auditspan.capture.actor import Actor
from auditspan.capture.hooks import Call, Hook
from auditspan.capture.recorder import Event, Record, Recorder, Target
from auditspan.runners import airflow_runs as known
from auditspan.runners.airflow_runs import Asker, Known
from auditspan.schema import ActorEvidence, ActorType, Decision, Outcome
from auditspan.schema.details import Details
from auditspan.schema.events import (
    PolicyEvaluation,
    WorkflowCancelled,
    WorkflowFinished,
    WorkflowInterrupted,
    WorkflowRetried,
    WorkflowSkipped,
)

DAG_RUN = "airflow.dag_run"
TASK = "airflow.task"

_ENDED = ("success", "failed")
_NOT_RUN = {
    "skipped": (Outcome.SUCCESS, "skipped by a trigger rule, a branch, or with its run"),
    "upstream_failed": (Outcome.FAILURE, "a task before it failed"),
    "removed": (Outcome.FAILURE, "it is no longer part of the DAG"),
}

_before: ContextVar[str | None] = ContextVar("auditspan-airflow-before", default=None)
_clearing: ContextVar[bool] = ContextVar("auditspan-airflow-clearing", default=False)
_causes: ContextVar[dict[tuple[str, str], dict[str, str]] | None] = ContextVar("auditspan-airflow-causes", default=None)


class Server:
    """Makes the records of the scheduler and of the API server."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._replaced: dict[str, str] = {}  # UUID of the next try → of the one that the scheduler is giving up

    # -- a DAG run: in the scheduler, or in the API server when a user marks it --------------------------------------
    def dag_run_ended(self, dag_run: Any) -> None:
        """Record the end of a DAG run, and the tasks that never ran in it."""
        found = known.of_dag_run(dag_run)
        state = known.value(dag_run.state)
        user = _user()
        before = _before.get()
        ends = user is None or before not in _ENDED  # else a user has marked what was over already
        details = WorkflowFinished() if user is None else _by_hand(state, before, "a DAG run", ends=ends)
        event = Event(
            name=f"dag {dag_run.dag_id}",
            details=details,
            actor=user or found.person or known.actor_of_process(None),
            target=Target(dag_run.dag_id, DAG_RUN),
            began=int(dag_run.start_date.timestamp() * 1e9) if dag_run.start_date and ends else None,
            attributes={
                **_fitting(found, details),
                **({schema.RECORD_ID: known.record_of_dag_run(dag_run)} if ends else {}),
            },
        )
        record = self._recorder.start(event, opens=found.run, context=known.context_of_dag_run(dag_run))
        _when_committed(dag_run, record, Outcome.SUCCESS if state == "success" else Outcome.FAILURE)
        with faults.contained("airflow: tasks that never ran"):
            self._tasks_not_run(dag_run, found)

    def _tasks_not_run(self, dag_run: Any, found: Known) -> None:
        """Record what the scheduler or a user decided not to run: no listener is told of it."""
        from sqlalchemy.orm import object_session

        session = object_session(dag_run)
        if session is None:  # under dag.test()
            task_instances = dag_run.get_task_instances()
        else:
            with session.no_autoflush:
                task_instances = dag_run.get_task_instances(session=session)
        began = dag_run.start_date
        context = known.inside_dag_run(dag_run)
        for ti in task_instances:
            state = known.value(ti.state)
            # What a process has run has that one's number. What ended before the run began is of a time before it
            # was cleared, and recorded already.
            if state not in _NOT_RUN or ti.pid or (began and ti.end_date and ti.end_date < began):
                continue
            outcome, reason = _NOT_RUN[state]
            actor = _user() or known.actor_of_process(found.person)
            details = WorkflowSkipped(run_reason=reason, **task(ti))
            more = {schema.RECORD_ID: known.record_id(ti.id, "not run")}
            _when_committed(dag_run, self.start(ti, found, details, actor, context, more), outcome)

    # -- a task ------------------------------------------------------------------------------------------------------
    def task_changed(self, ti: Any, state: str) -> None:
        """Record that a user has marked a task, or that the scheduler has lost one before it ran."""
        user = _user()
        found = known.of_dag_run(ti.dag_run)
        details: Details
        if user is not None:
            details = _by_hand(state, None, "a task", ends=True, **task(ti))
        else:
            # What has run has a record of its own: by its process, or by the log, that it was interrupted. This one
            # says what the scheduler holds true.
            reason = _GIVEN_UP if ti.pid else _LOST
            said = {**task(ti), "task_run_id": self._replaced.pop(str(ti.id), str(ti.id))}
            if known.value(ti.state) == "up_for_retry":
                details = WorkflowRetried(run_attempt=ti.try_number or 1, run_reason=reason, **said)
            else:
                details = (WorkflowInterrupted if ti.pid else WorkflowFinished)(run_reason=reason, **said)
        record = self.start(ti, found, details, user or known.actor_of_process(found.person))
        _when_committed(ti, record, Outcome.FAILURE if state == "failed" else Outcome.SUCCESS)

    def start(
        self,
        ti: Any,
        found: Known,
        details: Details,
        actor: Actor,
        context: Context | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> Record:
        """Begin a record of a task."""
        event = Event(
            name=f"task {ti.dag_id}.{ti.task_id}",
            details=details,
            actor=actor,
            target=target(ti),
            attributes={**_fitting(found, details), schema.RUN_ATTEMPT: ti.try_number or 1, **(more or {})},
        )
        context = known.inside_dag_run(ti.dag_run) if context is None else context
        return self._recorder.start(event, opens=found.run, context=context)

    def next_try(self, call: Call) -> Hook:
        """Record that a task was cleared (TaskInstance.prepare_db_for_next_try); a retry comes here, too."""
        ti = call.instance
        user = _user()
        if user is None and not _clearing.get():
            key = str(ti.id)
            yield
            self._replaced = {str(ti.id): key}
            return
        dag_run = ti.dag_run
        carrier = dag_run.context_carrier or {}
        cause = {name: text for name, text in carrier.items() if name not in ("traceparent", "tracestate")}
        if cause:
            _causes.set({**(_causes.get() or {}), (dag_run.dag_id, dag_run.run_id): cause})
        details = WorkflowRetried(run_attempt=ti.try_number or 1, run_reason="cleared by hand", **task(ti))
        actor = user or known.actor_of_process(None)
        record = self.start(ti, known.of_dag_run(dag_run), details, actor)
        yield
        _when_committed(ti, record, Outcome.SUCCESS)


_LOST = "the scheduler found it lost before it ran"
_GIVEN_UP = "the scheduler gave it up: it was not heard of, or its executor said something else"


def _when_committed(changed: Any, record: Record, outcome: Outcome) -> None:
    """End a record when the change that it tells of is committed: listeners are called before that.

    A scheduler does a transaction again that failed, and calls its listeners again.

    Args:
        changed: a DAG run or a task instance.
        record: its beginning is in the log: whatever happens to this process until the commit, is seen.
        outcome: how the change went.
    """
    from sqlalchemy import event
    from sqlalchemy.orm import object_session

    session = object_session(changed)
    if session is None:  # under dag.test(): committed already
        record.finish(outcome)
        return

    def committed(session: Any) -> None:
        with faults.contained("airflow: a change is committed"):
            record.finish(outcome)
        event.remove(session, "after_rollback", rolled_back)

    def rolled_back(session: Any) -> None:
        with faults.contained("airflow: a change is taken back"):
            record.update({schema.RECORD_ID: str(uuid.uuid4()), schema.RUN_REASON: "Airflow has taken it back"})
            record.finish(Outcome.UNKNOWN)

    event.listen(session, "after_commit", committed, once=True)
    event.listen(session, "after_rollback", rolled_back, once=True)


def task(ti: Any) -> dict[str, Any]:
    """Return what every record of a task says; each try has a UUID of its own."""
    return {"task_name": ti.task_id, "task_run_id": str(ti.id)}


def target(ti: Any) -> Target:
    """Return what is acted on: the task, and which of the mapped ones."""
    index = f"[{ti.map_index}]" if ti.map_index is not None and ti.map_index >= 0 else ""
    return Target(f"{ti.dag_id}.{ti.task_id}{index}", TASK)


def _fitting(found: Known, details: Details) -> dict[str, str | None]:
    """Return what is known of the run and has a place in a record of this type."""
    if not isinstance(details, PolicyEvaluation):
        return dict(found.attributes)
    return {name: text for name, text in found.attributes.items() if name.startswith("automation.workflow.")}


def _by_hand(state: str, before: str | None, what: str, *, ends: bool, **said: Any) -> Details:
    """Return what a user did who marked something: he called it off, or set aside how it was or would have been."""
    if ends and state == "failed":
        return WorkflowCancelled(run_reason="marked failed by hand", **said)
    if state == "skipped":
        return WorkflowSkipped(run_reason="marked skipped by hand", **said)
    return PolicyEvaluation(
        action="OVERRIDE",
        policy_name=f"the state of {what}",
        policy_rule=f"marked {state} by hand",
        decision=Decision.OVERRIDE,
        rationale=schema.UNKNOWN,
        decision_path=[f"it was {before or schema.UNKNOWN}", f"marked {state} by hand"],
    )


# -- hooks that record nothing by themselves -------------------------------------------------------------------------
def new_run(call: Call) -> Hook:
    """DagRun.verify_integrity: a DAG run has been made."""
    dag_run = call.instance
    if not dag_run.clear_number and "baggage" not in (dag_run.context_carrier or {}):
        known.join_cause(dag_run)
    yield


def mark_run(call: Call) -> Hook:
    """_set_dag_run_state: remember what state a DAG run was in before a user changes it."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    dag_id, run_id, session = call.argument(0, "dag_id"), call.argument(1, "run_id"), call.argument(3, "session")
    wanted = select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
    with session.no_autoflush:
        _before.set(known.value(session.scalar(wanted)))
    yield


def clear(call: Call) -> Hook:
    """Clear tasks by the command line, or by a task that triggers a run anew."""
    token = _clearing.set(True)
    try:
        yield
    finally:
        _clearing.reset(token)


def new_carrier(call: Call) -> Hook:
    """new_dagrun_trace_carrier: a cleared run gets a new place in the traces; what caused it stays known."""
    carrier = yield
    run = call.kwargs.get("attributes") or {}
    kept = _causes.get() or {}
    cause = kept.get((run.get("airflow.dag_id", ""), run.get("airflow.dag_run.run_id", "")))
    if cause is None and not run and len(kept) == 1:  # Airflow 3.2 does not say which run it is for
        cause = next(iter(kept.values()))
    if cause:
        carrier.update(cause)


def hand_over(call: Call) -> Hook:
    """ExecuteTask.make: the task is told of its run."""
    workload = yield
    told = known.hand_over(call.argument(0, "ti"))
    workload.ti.context_carrier = {**(workload.ti.context_carrier or {}), **told}


# -- who is behind a request to the API server -----------------------------------------------------------------------
def _user() -> Actor | None:
    who = known.asker.get()
    return Actor(who.user, ActorType.USER, ActorEvidence.FRAMEWORK_LOGIN) if who and who.user else None


def login(call: Call) -> Hook:
    """BaseAuthManager.get_user_from_token: a user is logged in."""
    user = yield
    known.asker.set(Asker(user=str(user.get_name())))


def task_token(call: Call) -> Hook:
    """JWTBearer.__call__: a running task asks for something."""
    token = yield
    if token is not None:
        known.asker.set(Asker(task=str(token.id)))


def answer(call: Call) -> Hook:
    """Starlette.__call__: remember the trace context and baggage of a request, for the DAG run that it may make."""
    scope = call.argument(0, "scope")
    if scope["type"] != "http" or known.request.get() is not None:
        return
    names = (b"traceparent", b"tracestate", b"baggage")
    headers = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"] if name in names}
    token = known.request.set(headers)
    try:
        yield
    finally:
        known.request.reset(token)
