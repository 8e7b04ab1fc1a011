# SPDX-License-Identifier: Apache-2.0
"""Why a task of Celery runs, and for whom: told by the sender in a header of the message, read by the worker.

Two kinds of headers, for two kinds of readers:

- ``traceparent``, ``tracestate``, ``baggage``: the context as everyone's instrumentation understands it. Another
  plugin may write them as well, then its span stands between ours.
- ``auditspan``: one JSON text with the trigger, its rule, the parent run and for whom it is. It is believed: who can
  write into the broker can have any task run in any way. A message without it comes from a sender that is not audited:
  a run that its baggage names is a claim, and the trigger is unknown unless the library itself says more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from auditspan import schema
from auditspan.capture import environ
from auditspan.capture import run as runs
from auditspan.capture.actor import Actor, os_actor, person_behind
from auditspan.schema import ActorEvidence, ActorType, TriggerType

HEADER = "auditspan"
CALL = "apply_async"
"""The rule of a task that a program sends by itself, neither in a run nor in a request: it calls the library."""

_LIMIT = 256  # characters of what a message says
_LONGEST = 8192  # characters of our header; ours is never longer
_W3C = ("traceparent", "tracestate", "baggage")


@dataclass(frozen=True)
class Cause:
    """Why a task runs.

    Attributes:
        trigger: what set it in motion.
        rule: the entry of the schedule, the route…
        parent_id: the run that sent it.
        claimed: the parent is named by a sender that is not audited, or is only a claim there.
        record: the record in which it was sent.
        person: for whom it is done; of a task that was sent by hand, who sent it.
    """

    trigger: TriggerType = TriggerType.UNKNOWN
    rule: str = schema.UNKNOWN
    parent_id: str | None = None
    claimed: bool = False
    record: str | None = None
    person: Actor | None = None

    def for_whom(self, actor: Actor) -> Actor:
        """Return the actor with the person for whom it acts."""
        same = self.person is None or (self.person.id, self.person.type) == (actor.id, actor.type)
        return actor if same else replace(actor, behalf=self.person)


def run_id(task_id: str) -> str:
    """Return the run ID of a task: Celery's own ID, as long as baggage can carry it."""
    return schema.bounded(task_id, _LIMIT) or schema.UNKNOWN


def timestamp(said: Any) -> str | None:
    """Return a time as records have it: of a request it is a text, of one that is run eagerly a time."""
    if isinstance(said, str):
        try:
            said = datetime.fromisoformat(said.replace("Z", "+00:00"))
        except ValueError:
            return None
    if not isinstance(said, datetime):
        return None
    return (said if said.tzinfo else said.replace(tzinfo=timezone.utc)).isoformat()


# -- where it is sent ------------------------------------------------------------------------------------------------
_due: ContextVar[str | None] = ContextVar("auditspan-celery-due", default=None)


@contextmanager
def due(entry: Any) -> Iterator[None]:
    """What is sent inside the ``with`` block is sent because an entry of beat's schedule is due."""
    schedule = repr(entry.schedule).strip("<>")  # the text of the schedule, as it writes itself: crontab, freq, solar
    token = _due.set(schema.bounded(f"{entry.name} · {schedule}", _LIMIT))
    try:
        yield
    finally:
        _due.reset(token)


_sending: ContextVar[Context | None] = ContextVar("auditspan-celery-sending", default=None)


@contextmanager
def sending() -> Iterator[None]:
    """Remember where a task is sent; until it is, another plugin may put a span of its own into the context."""
    token = _sending.set(environ.parent_context())
    try:
        yield
    finally:
        _sending.reset(token)


def here(task_id: str, context: Context) -> Cause:
    """Find out why a task is sent, or run at once, in a context."""
    rule = _due.get()
    if rule is not None:
        return Cause(TriggerType.SCHEDULE, rule)
    run = runs.current(context)
    record = runs.ancestor(context)
    person = person_behind(context)
    if run is not None and run.id == run_id(task_id):  # it is sent again by itself: to be retried, or replaced
        return Cause(run.trigger, run.rule, run.parent_id, run.claimed, record, person)
    if run is not None:
        return Cause(TriggerType.PARENT_RUN, run.workflow[:_LIMIT], run.id, run.is_claim, record, person)
    span: Any = trace.get_current_span(context)
    if getattr(span, "kind", None) is SpanKind.SERVER:
        return Cause(TriggerType.API, schema.bounded(str(span.name), _LIMIT) or schema.UNKNOWN, person=person)
    if getattr(getattr(span, "instrumentation_scope", None), "name", None) == "fastapi":  # inside of its server span
        endpoint = str((span.attributes or {}).get(schema.CODE_FUNCTION, span.name))
        return Cause(TriggerType.API, schema.bounded(endpoint, _LIMIT), person=person)
    if span.get_span_context().is_valid and getattr(span, "parent", span) is not None:
        return Cause(person=person)  # it is a part of something, and what that is cannot be seen from here
    return Cause(TriggerType.MANUAL, CALL, person=person or os_actor())


def tell(headers: dict[str, Any]) -> None:
    """Put the cause of a task into the headers of its message."""
    context = environ.parent_context()
    cause = here(headers["id"], _sending.get() or context)
    said: dict[str, Any] = {"trigger": cause.trigger.value, "rule": cause.rule}
    if cause.parent_id is not None:
        said |= {"parent": cause.parent_id, "claimed": cause.claimed}
    if cause.record is not None:
        said["record"] = cause.record
    if cause.person is not None:
        said["person"] = [cause.person.id, cause.person.type.value]
    headers[HEADER] = json.dumps(said, separators=(",", ":"))
    for name in _W3C:
        headers.pop(name, None)  # of a retry they are those of the attempt before
    headers |= {name.lower(): value for name, value in environ.carrier(context).items()}


# -- where it arrives ------------------------------------------------------------------------------------------------
class Message:
    """The headers of a message that has not become a request, as attributes like those of one."""

    def __init__(self, headers: Mapping[str, Any]) -> None:
        self.__dict__.update(headers)

    def __getattr__(self, name: str) -> None:
        return None


def told(request: Any) -> tuple[Cause, Context]:
    """Return why a task is run, and the context in which it was sent."""
    if request.is_eager:
        context = environ.parent_context()
        return here(str(request.id), context), context
    # What started this worker does not cause its tasks, whatever its environment says.
    context = runs.from_outside(environ.extract(_carrier(request)))
    cause = _read(getattr(request, HEADER, None))
    if cause is None:
        cause = _of_stranger(request, context)
    if cause.record is not None:
        context = runs.with_ancestor(cause.record, context)
    span = trace.get_current_span()  # that of another plugin, made for this message
    if span.get_span_context().trace_id == trace.get_current_span(context).get_span_context().trace_id:
        context = trace.set_span_in_context(span, context)
    return cause, context


def _carrier(request: Any) -> dict[str, str]:
    found = {name.upper(): getattr(request, name, None) for name in _W3C}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _read(header: object) -> Cause | None:
    """Read our header; None: there is none, or it is not ours."""
    if not isinstance(header, str) or len(header) > _LONGEST:
        return None
    try:
        said: Any = json.loads(header)
        trigger = TriggerType(said["trigger"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    record = _text(said.get("record"))
    return Cause(
        trigger=trigger,
        rule=_text(said.get("rule")) or schema.UNKNOWN,
        parent_id=_text(said.get("parent")),
        claimed=said.get("claimed") is True,
        record=record if record is not None and schema.has_form("uuid", record) else None,
        person=_person(said.get("person")),
    )


def _person(said: object) -> Actor | None:
    if not isinstance(said, list) or len(said) != 2 or _text(said[0]) is None:
        return None
    try:
        return Actor(_text(said[0]) or schema.UNKNOWN, ActorType(said[1]), ActorEvidence.CLAIMED)
    except ValueError:
        return None


def _text(said: object) -> str | None:
    return schema.bounded(said, _LIMIT) if isinstance(said, str) and said else None


def _of_stranger(request: Any, context: Context) -> Cause:
    """Say what can be said of a task that no audited program has sent."""
    if getattr(request, "celery_beat_task", None) is True or (request.headers or {}).get("celery_beat_task") is True:
        return Cause(TriggerType.SCHEDULE)  # of Celery 5.7 and later; which entry it was, it does not say
    run = runs.current(context)
    if run is not None and run.id != run_id(str(request.id)):
        return Cause(TriggerType.PARENT_RUN, run.workflow[:_LIMIT], run.id, claimed=True)
    parent = request.parent_id
    if isinstance(parent, str) and parent and parent != request.id:  # a retry names itself
        return Cause(TriggerType.PARENT_RUN, parent_id=run_id(parent), claimed=True)
    return Cause()
