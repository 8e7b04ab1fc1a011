# SPDX-License-Identifier: Apache-2.0
"""The recorder: turns what a plugin saw into an audit span of the user's own tracer provider."""

from __future__ import annotations

import getpass
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from auditspan import schema
from auditspan.capture import environ, faults
from auditspan.capture import run as runs
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion

Value = Any  # what OpenTelemetry accepts as an attribute value


@dataclass(frozen=True)
class Actor:
    """Who or what acted.

    Attributes:
        id: stable identity; ``unknown`` if there is none to be had.
        type: user, service or system.
        evidence: where the identity is known from, for example ``os_user`` or ``signature``.
    """

    id: str
    type: schema.ActorType
    evidence: str


@dataclass(frozen=True)
class Target:
    """What was acted on: an identity and a type, for example ``orders`` and ``singer.stream``."""

    id: str
    type: str


@dataclass(frozen=True)
class Event:
    """What a plugin knows when something begins.

    Attributes:
        name: span name, low in cardinality.
        type: kind of event.
        action: stable upper-case verb.
        actor: who or what acts.
        target: what is acted on.
        message: one line for people, made of safe fields only.
        script: the script behind this very record; None: that of the run.
        attributes: everything else that is known at the start.
        kind: span kind.
        links: causes that are not the parent.
    """

    name: str
    type: schema.EventType
    action: str
    actor: Actor
    target: Target
    message: str
    script: ScriptVersion | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    kind: SpanKind = SpanKind.INTERNAL
    links: tuple[Link, ...] = ()


def os_actor() -> Actor:
    """Return the operating-system user that this process runs as."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = f"uid:{os.getuid()}" if hasattr(os, "getuid") else schema.UNKNOWN
    return Actor(name, schema.ActorType.SYSTEM, "os_user")


class Record:
    """One audit record that has begun. Finish it exactly once; finishing twice is ignored."""

    def __init__(self, span: trace.Span, record_id: str, context: Context) -> None:
        self.id = record_id
        self.context = context
        """The context inside this record: enter it around what the record covers."""
        self._span = span
        self._finished = False

    def set(self, name: str, value: Value) -> None:
        """Set one attribute; a value of None is left out, and so is what comes after the end of the record."""
        if value is not None and not self._finished:
            self._span.set_attribute(name, value)

    def finish(self, outcome: schema.Outcome, error: BaseException | str | None = None) -> None:
        """End the record.

        Args:
            outcome: how it ended.
            error: what failed. Of an exception only the type is kept: its text may hold the data.
        """
        if self._finished:
            return
        self._finished = True
        self._span.set_attribute(schema.OUTCOME, outcome.value)
        if error is not None:
            kind = error if isinstance(error, str) else f"{type(error).__module__}.{type(error).__qualname__}"
            self._span.set_attribute(schema.ERROR_TYPE, kind.removeprefix("builtins."))
        if outcome is schema.Outcome.FAILURE:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Recorder:
    """Makes audit records for one plugin."""

    def __init__(self, plugin: str, version: str, provider: trace.TracerProvider | None = None) -> None:
        """Make a recorder.

        Args:
            plugin: dotted name of the plugin; the instrumentation scope of its spans.
            version: the plugin's version.
            provider: whose spans they are; default: the global provider.
        """
        self._tracer = trace.get_tracer(plugin, version, provider)

    def start(self, event: Event, *, opens: Run | None = None, context: Context | None = None) -> Record:
        """Begin a record.

        Args:
            event: what is known now.
            opens: the run that this record opens. None: it belongs to the current run; if there is none, it opens
                one of its own with an unknown trigger.
            context: parent context; default: the current one, or what the parent process handed over.
        """
        context = environ.parent_context(context)
        parent = runs.current(context)
        run = runs.child_of(parent, opens) if opens is not None else (parent or _orphan_run(event))
        record_id = str(uuid.uuid4())
        script = event.script or run.script
        attributes: dict[str, Value] = {
            schema.RECORD_ID: record_id,
            schema.RECORD_SCHEMA_VERSION: schema.SCHEMA_VERSION,
            schema.EVENT_TYPE: event.type.value,
            schema.ACTION: event.action,
            schema.ACTOR_ID: event.actor.id,
            schema.ACTOR_TYPE: event.actor.type.value,
            schema.ACTOR_EVIDENCE: event.actor.evidence,
            schema.TARGET_ID: event.target.id,
            schema.TARGET_TYPE: event.target.type,
            schema.MESSAGE: event.message,
            schema.RUN_ID: run.id,
            schema.RUN_ATTEMPT: run.attempt,
            schema.WORKFLOW_NAME: run.workflow,
            schema.TRIGGER_TYPE: run.trigger.value,
            schema.TRIGGER_RULE: run.rule,
            schema.SCRIPT_VERSION: script.version,
            schema.SCRIPT_VERSION_SOURCE: script.source,
            schema.SCRIPT_NAME: script.name,
            **{name: value for name, value in event.attributes.items() if value is not None},
        }
        if run.parent_id is not None:
            attributes[schema.PARENT_RUN_ID] = run.parent_id
        if run.claimed:
            attributes[schema.PARENT_RUN_CLAIMED] = True
        ancestor = runs.ancestor(context)
        if ancestor is not None:
            attributes[schema.PARENT_RECORD_ID] = ancestor
        span = self._tracer.start_span(
            event.name, context=context, kind=event.kind, attributes=attributes, links=list(event.links)
        )
        inside = runs.with_ancestor(record_id, trace.set_span_in_context(span, runs.enter(run, context)))
        return Record(span, record_id, inside)

    @contextmanager
    def record(self, event: Event, *, opens: Run | None = None, context: Context | None = None) -> Iterator[Record]:
        """Record what happens inside the ``with`` block: success, or failure if an exception passes through."""
        record = self.start(event, opens=opens, context=context)
        with inside(record):
            try:
                yield record
            except BaseException as error:
                record.finish(schema.Outcome.FAILURE, error)
                raise
        record.finish(schema.Outcome.SUCCESS)


@contextmanager
def inside(record: Record) -> Iterator[None]:
    """Make a record's context the current one, without ending the record."""
    token = otel_context.attach(record.context)
    try:
        yield
    finally:
        with faults.contained("recorder: leave the record's context"):
            otel_context.detach(token)


def _orphan_run(event: Event) -> Run:
    """Return a run for something that nothing is seen to have triggered: said as unknown, not guessed."""
    script = event.script or ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, schema.UNKNOWN)
    return Run(str(uuid.uuid4()), event.target.id, schema.TriggerType.UNKNOWN, schema.UNKNOWN, script)
