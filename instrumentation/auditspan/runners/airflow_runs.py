# SPDX-License-Identifier: Apache-2.0
"""Who, why and which of a DAG run of Airflow 3: asked in the scheduler, handed to the task in its context carrier.

Airflow keeps a *context carrier* (W3C trace context, a dictionary) with each DAG run and each task instance. That of a
DAG run also keeps what caused the run, where that is audited; that of a task takes the run to the task's process,
whatever executor is between. So all processes say the same of a run, in one trace.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.context import Context

from auditspan import schema
from auditspan.capture import environ
from auditspan.capture import run as runs
from auditspan.capture.actor import Actor, os_actor
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.schema import ActorEvidence, ActorType, TriggerType

_CLAIMED = "auditspan"  # key in a DAG run's carrier: what caused it was said by a stranger
_LIMIT = 480  # characters of a rule
_NAMESPACE = uuid.UUID("5d0c3e1c-5a4f-4e0b-9c0f-0d5f6c0a7a11")
_KEPT = 1000  # DAG versions whose hash is remembered

# `triggered_by` of a DAG run (airflow.utils.types.DagRunTriggeredByType) → what set it in motion.
_TRIGGERS = {
    "timetable": TriggerType.SCHEDULE,
    "asset": TriggerType.EVENT,
    "rest_api": TriggerType.API,
    "operator": TriggerType.PARENT_RUN,
    "cli": TriggerType.MANUAL,
    "ui": TriggerType.MANUAL,
    "test": TriggerType.MANUAL,
    "backfill": TriggerType.MANUAL,
}
_NOBODY = ("timetable", "asset", "backfill")  # the scheduler made the run: not caused by what started the scheduler
# `run_type` of a DAG run, for a task that was told nothing else. "manual" may be anybody or another run.
_TYPES = {
    "scheduled": TriggerType.SCHEDULE,
    "asset_triggered": TriggerType.EVENT,
    "asset_materialization": TriggerType.MANUAL,
    "backfill": TriggerType.MANUAL,
}


@dataclass(frozen=True)
class Known:
    """What is known of a DAG run.

    Attributes:
        run: as every record of it says.
        attributes: version and bundle of the DAG, its own timetable.
        person: who asked for it; None: nobody, or not known.
    """

    run: Run
    attributes: Mapping[str, str | None]
    person: Actor | None = None


@dataclass(frozen=True)
class Asker:
    """Who is behind a request to the API server: a logged-in user, or a running task (its UUID)."""

    user: str | None = None
    task: str | None = None


asker: ContextVar[Asker | None] = ContextVar("auditspan-airflow-asker", default=None)
request: ContextVar[Mapping[str, str] | None] = ContextVar("auditspan-airflow-request", default=None)
"""Trace context and baggage of the request that the API server is answering."""


# -- identities, the same in every process ---------------------------------------------------------------------------
def run_id(dag_id: str, run: str) -> str:
    """Return the run ID: Airflow's own is unique within a DAG only."""
    return f"airflow/{dag_id}/{run}"


def record_id(*identity: object) -> str:
    """Return the record ID of a DAG run or of a task: another process may need it before the record is there."""
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, identity))))


def record_of_dag_run(dag_run: Any) -> str:
    """Return the ID of the record that is written at the end of a DAG run."""
    return record_id(dag_run.dag_id, dag_run.run_id, dag_run.clear_number or 0)


def context_of_dag_run(dag_run: Any) -> Context:
    """Return the context of a DAG run: its place in the trace, and what caused it."""
    carrier = dag_run.context_carrier or {}
    return _context(carrier, dag_run.dag_id, dag_run.run_id, dag_run.clear_number or 0)


def inside_dag_run(dag_run: Any) -> Context:
    """Return the context of what happens in a DAG run: its record is the parent of the records in it."""
    return runs.with_ancestor(record_of_dag_run(dag_run), context_of_dag_run(dag_run))


def _context(carrier: Mapping[str, str], *identity: object) -> Context:
    fields = {"TRACEPARENT": carrier.get("traceparent") or _derived(*identity)}
    for name in ("tracestate", "baggage"):
        if carrier.get(name):
            fields[name.upper()] = carrier[name]
    context = environ.extract(fields)
    return runs.from_outside(context) if carrier.get(_CLAIMED) else context


def _derived(*identity: object) -> str:
    """Return a trace context for a run that Airflow gave none (before 3.2): every process makes the same."""
    digest = hashlib.sha256("/".join(map(str, identity)).encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-00"


# -- in the scheduler and the API server: the DAG run is at hand -----------------------------------------------------
def of_dag_run(dag_run: Any) -> Known:
    """Find out all about a DAG run (models.DagRun)."""
    triggered_by = value(dag_run.triggered_by)
    cause = runs.current(context_of_dag_run(dag_run))
    timetable = _timetable(dag_run)
    trigger = _TRIGGERS.get(triggered_by, TriggerType.UNKNOWN)
    rule = triggered_by
    if trigger is TriggerType.SCHEDULE:
        rule = timetable or schema.UNKNOWN
    elif trigger is TriggerType.EVENT:
        rule = _assets(event.asset for event in dag_run.consumed_asset_events)
    elif trigger is TriggerType.PARENT_RUN and cause is not None:
        rule = f"operator: {cause.workflow}"
    script, number, bundle = _version(dag_run, dag_run.created_dag_version)
    return Known(
        Run(run_id(dag_run.dag_id, dag_run.run_id), dag_run.dag_id, trigger, rule[:_LIMIT], script),
        {
            schema.WORKFLOW_VERSION: number,
            schema.WORKFLOW_BUNDLE: bundle,
            schema.TASK_TRIGGER_RULE: timetable,
            schema.TASK_SCHEDULED_TIME: _time(dag_run.logical_date),
        },
        _person(getattr(dag_run, "triggering_user_name", None), triggered_by),
    )


def hand_over(task_instance: Any) -> dict[str, str]:
    """Return the context carrier that tells a task of its run.

    Args:
        task_instance: models.TaskInstance, about to be given to an executor.
    """
    dag_run = task_instance.dag_run
    context = _inside_run(dag_run, task_instance)
    context = runs.with_ancestor(record_of_dag_run(dag_run), context)
    return {name.lower(): value for name, value in environ.carrier(context).items()}


def _inside_run(dag_run: Any, task_instance: Any) -> Context:
    known = of_dag_run(dag_run)
    cause = runs.current(context_of_dag_run(dag_run))
    carrier = task_instance.context_carrier or dag_run.context_carrier or {}
    bare = {name: value for name, value in carrier.items() if name in ("traceparent", "tracestate")}
    context = runs.enter(known.run, _context(bare, dag_run.dag_id, dag_run.run_id, dag_run.clear_number or 0))
    said = {**known.attributes, schema.TASK_SCHEDULED_TIME: None}
    if cause is not None:
        said[schema.PARENT_RUN_ID] = cause.id
        said[schema.PARENT_RUN_CLAIMED] = "true" if cause.claimed else None
    for name, text in said.items():
        if text:
            context = baggage.set_baggage(name, text, context)
    return context


def join_cause(dag_run: Any) -> None:
    """Keep in the carrier of a new DAG run what caused it, if that is audited: its trace goes on in the run."""
    if value(dag_run.triggered_by) in _NOBODY:
        return
    cause = _cause(dag_run)
    if cause is None:
        return
    own = trace.get_current_span(context_of_dag_run(dag_run)).get_span_context()
    theirs = trace.get_current_span(cause).get_span_context()
    carrier = dict(dag_run.context_carrier or {})
    if theirs.is_valid:
        carrier["traceparent"] = f"00-{theirs.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
    carrier["baggage"] = environ.carrier(cause).get("BAGGAGE", "")
    found = runs.current(cause)
    if found is not None and found.is_claim:
        carrier[_CLAIMED] = "claimed"
    dag_run.context_carrier = carrier


def _cause(dag_run: Any) -> Context | None:
    who = asker.get()
    if who is not None and who.task is not None:
        return _asking_task(dag_run, who.task)
    headers = request.get()
    if headers is not None:
        context = environ.extract({name.upper(): value for name, value in headers.items()})
        context = runs.from_outside(context)
    else:
        context = environ.parent_context()
    return context if runs.current(context) is not None else None


def _asking_task(dag_run: Any, task: str) -> Context | None:
    """Return the context of a running task that asks for a DAG run."""
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    found = session.get(TaskInstance, uuid.UUID(task)) or session.get(TaskInstance, task) if session else None
    if found is None:
        return None
    return runs.with_ancestor(record_id(found.id), _inside_run(found.dag_run, found))


def _version(dag_run: Any, version: Any) -> tuple[ScriptVersion, str | None, str | None]:
    """Return the version of the script, the number of the DAG version, and the bundle."""
    if version is None:
        return ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, dag_run.dag_id), None, None
    bundle_version = dag_run.bundle_version or version.bundle_version
    bundle = "@".join(part for part in (version.bundle_name, bundle_version) if part) or None
    if bundle_version and re.fullmatch(r"[0-9a-f]{40}", bundle_version):
        script = ScriptVersion(f"git:{bundle_version}", "vcs", dag_run.dag_id)
    elif bundle_version:
        script = ScriptVersion(bundle_version, "declared", dag_run.dag_id)
    else:
        found = _dag_hash(version)
        script = ScriptVersion(f"dag:{found}" if found else schema.UNKNOWN, "source_hash", dag_run.dag_id)
        if not found:
            script = ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, dag_run.dag_id)
    return script, str(version.version_number), bundle


_hashes: OrderedDict[str, str] = OrderedDict()


def _dag_hash(version: Any) -> str | None:
    """Return Airflow's hash of the DAG as it is in a version: asked once, without loading the whole DAG."""
    key = str(version.id)
    if key not in _hashes:
        from airflow.models.serialized_dag import SerializedDagModel
        from sqlalchemy import select
        from sqlalchemy.orm import object_session

        session = object_session(version)
        if session is None:
            return None
        wanted = select(SerializedDagModel.dag_hash).where(SerializedDagModel.dag_version_id == version.id)
        with session.no_autoflush:
            found = session.scalar(wanted)
        if found is None:
            return None
        _hashes[key] = found
        while len(_hashes) > _KEPT:
            _hashes.popitem(last=False)
    return _hashes[key]


def _timetable(dag_run: Any) -> str | None:
    """Return the DAG's own timetable in words; None: it has none."""
    model = dag_run.dag_model
    if model is not None:
        found = model.timetable_summary or model.timetable_description
    else:  # under dag.test() of Airflow 3.0
        found = getattr(getattr(dag_run.dag, "timetable", None), "summary", None)
    return found if found and found != "None" else None


# -- in the task's process -------------------------------------------------------------------------------------------
def of_task(
    task_instance: Any, carrier: Mapping[str, str] | None = None, from_server: Any = None
) -> tuple[Known, Context]:
    """Find out about the run of a task, in the task's own process.

    Args:
        task_instance: the task (sdk RuntimeTaskInstance).
        carrier: what was handed over; None: the task's own context carrier.
        from_server: what the API server says of the run; None: it is with the task.
    """
    told = carrier or task_instance.context_carrier or {}
    context = _context(told, task_instance.dag_id, task_instance.run_id, 0)
    span = trace.get_current_span()
    if span.get_span_context().is_valid:  # Airflow's own span around the task, in the same trace
        context = trace.set_span_in_context(span, context)
    from_server = from_server or getattr(task_instance, "_ti_context_from_server", None)
    dag_run = getattr(from_server, "dag_run", None)
    person = _person(getattr(dag_run, "triggering_user_name", None), schema.UNKNOWN)
    handed = runs.current(context)
    if handed is None:
        return Known(_guessless(task_instance, dag_run), _own_bundle(task_instance), person), context

    def said(name: str) -> str | None:
        found = baggage.get_baggage(name, context)
        return found if isinstance(found, str) else None

    run = Run(
        handed.id, handed.workflow, handed.trigger, handed.rule, handed.script,
        parent_id=said(schema.PARENT_RUN_ID), claimed=said(schema.PARENT_RUN_CLAIMED) == "true",
    )  # fmt: skip
    names = (schema.WORKFLOW_VERSION, schema.WORKFLOW_BUNDLE, schema.TASK_TRIGGER_RULE)
    return Known(run, {name: said(name) for name in names}, person), context


def _guessless(task_instance: Any, dag_run: Any) -> Run:
    """Return what the task itself knows of its run, where the scheduler is not audited."""
    run_type = value(getattr(dag_run, "run_type", None))
    trigger = _TYPES.get(run_type, TriggerType.UNKNOWN)
    rule = schema.UNKNOWN
    if trigger is TriggerType.SCHEDULE:
        timetable = getattr(getattr(getattr(task_instance, "task", None), "dag", None), "timetable", None)
        rule = getattr(timetable, "expression", None) or schema.UNKNOWN
    elif trigger is TriggerType.EVENT:
        rule = _assets(event.asset for event in dag_run.consumed_asset_events)
    elif trigger is TriggerType.MANUAL:
        rule = run_type
    unknown = ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, task_instance.dag_id)
    return Run(
        run_id(task_instance.dag_id, task_instance.run_id), task_instance.dag_id, trigger, rule[:_LIMIT], unknown
    )


def _own_bundle(task_instance: Any) -> dict[str, str | None]:
    bundle = getattr(task_instance, "bundle_instance", None)
    parts = (getattr(bundle, "name", None), getattr(bundle, "version", None))
    return {schema.WORKFLOW_BUNDLE: "@".join(part for part in parts if part) or None}


# -- words -----------------------------------------------------------------------------------------------------------
def _assets(assets: Any) -> str:
    names = sorted({getattr(asset, "uri", None) or asset.name for asset in assets})
    return ("asset: " + ", ".join(names)) if names else schema.UNKNOWN


def _person(name: str | None, triggered_by: str) -> Actor | None:
    """Return the person who asked for a run; under ``dag.test()`` Airflow puts in a name that is nobody's."""
    if not name or triggered_by == "test" or name == "dag_test":
        return None
    evidence = ActorEvidence.OS_USER if triggered_by == "cli" else ActorEvidence.LIBRARY
    return Actor(name, ActorType.USER, evidence)


def actor_of_process(person: Actor | None) -> Actor:
    """Return who runs this process, for a person if there is one behind it."""
    own = os_actor()
    return own if person is None else Actor(own.id, own.type, own.evidence, behalf=person)


def value(enumerated: Any) -> str:
    """Return the text of a state, a type…: an enumeration in some places, a text in others."""
    return str(getattr(enumerated, "value", enumerated) or schema.UNKNOWN).lower()


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment is not None else None
