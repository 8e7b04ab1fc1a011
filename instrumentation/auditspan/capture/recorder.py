# SPDX-License-Identifier: Apache-2.0
"""The recorder: turns what a plugin saw into an audit span of the user's own tracer provider."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from auditspan import schema
from auditspan.capture import conformance, environ, faults, privacy
from auditspan.capture import run as runs
from auditspan.capture.actor import Actor, person_behind, with_person
from auditspan.capture.policy import policy
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.schema import Details, rules
from auditspan.schema.events import WorkflowFinished, WorkflowStarted

Value = Any  # what OpenTelemetry accepts as an attribute value

Begun = Callable[[trace.Span, Mapping[str, Value]], None]
_begun: list[Begun] = []


def on_begin(call: Begun) -> None:
    """Have `call` called at the beginning of each run and of each part of one: what dies in the middle was begun.

    Args:
        call: gets the span and the attributes of a record of type ``workflow.execution.started``.
    """
    _begun.append(call)


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
        details: what happens, by the builder of its event type.
        actor: who or what acts.
        target: what is acted on.
        script: the script behind this very record; None: that of the run.
        attributes: what is known at the start and no builder has a place for.
        kind: span kind.
        links: causes that are not the parent.
        person: finds the person behind it later than now; None: whoever `actor` says, or who was behind the cause.
        began: when it began, in nanoseconds since the epoch; None: now.
    """

    name: str
    details: Details
    actor: Actor
    target: Target
    script: ScriptVersion | None = None
    attributes: Mapping[str, Value] = field(default_factory=dict)
    kind: SpanKind = SpanKind.INTERNAL
    links: tuple[Link, ...] = ()
    person: Callable[[], Actor | None] | None = None
    began: int | None = None


class Record:
    """One audit record that has begun. Finish it exactly once; finishing twice is ignored."""

    def __init__(self, span: trace.Span, attributes: dict[str, Value], context: Context, plugin: str) -> None:
        self.id: str = attributes[schema.RECORD_ID]
        self.context = context
        """The context inside this record: enter it around what the record covers."""
        self._span = span
        self._attributes = attributes  # what the span has, to judge it and to make its message
        self._plugin = plugin
        self._finished = False

    def set(self, name: str, value: Value) -> None:
        """Set one attribute; a value of None is left out, and so is what comes after the end of the record."""
        if value is not None:
            self.update({name: value})

    def update(self, attributes: Mapping[str, Value]) -> None:
        """Set several attributes; values of None are left out."""
        if not self._finished:
            self._span.set_attributes(self._take(attributes))

    def _take(self, attributes: Mapping[str, Value]) -> dict[str, Value]:
        """Return attributes as they may be recorded, and remember them."""
        found = {name: value for name, value in attributes.items() if value is not None}
        found = privacy.minimise(found, self._attributes[schema.TARGET_TYPE])
        if schema.REDACTED in found:
            found[schema.REDACTED] = sorted({*found[schema.REDACTED], *self._attributes.get(schema.REDACTED, ())})
        self._attributes |= found
        return found

    def become(self, details: Details) -> None:
        """Change the event type: what began as one thing turned out to be another, for example skipped."""
        self.update(details.attributes())

    def finish(self, outcome: schema.Outcome, error: BaseException | str | None = None) -> None:
        """End the record.

        Args:
            outcome: how it ended.
            error: what failed. Of an exception only the type is kept: its text may hold the data.
        """
        if self._finished:
            return
        last: dict[str, Value] = {schema.OUTCOME: outcome._value_}
        if error is not None:
            kind = error if isinstance(error, str) else f"{type(error).__module__}.{type(error).__qualname__}"
            last[schema.ERROR_TYPE] = kind.removeprefix("builtins.")
        last = self._take(last)
        self._finished = True
        message = schema.message_of(self._shown())
        self._attributes[schema.MESSAGE] = last[schema.MESSAGE] = message
        if (lacking := conformance.judge(self._attributes, self._plugin)) is not None:
            last[schema.NONCONFORMANT] = lacking
        self._span.set_attributes(last)
        if outcome is schema.Outcome.FAILURE:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()

    def _shown(self) -> Mapping[str, Value]:
        """Return the attributes with what the policy holds to be personal withheld."""
        hidden = policy().personal & self._attributes.keys()
        return self._attributes | dict.fromkeys(hidden, schema.WITHHELD) if hidden else self._attributes


class Recorder:
    """Makes audit records for one plugin."""

    def __init__(self, plugin: str, version: str, provider: trace.TracerProvider | None = None) -> None:
        """Make a recorder.

        Args:
            plugin: dotted name of the plugin; the instrumentation scope of its spans.
            version: the plugin's version.
            provider: whose spans they are; default: the global provider.
        """
        self._plugin = plugin
        self._tracer = trace.get_tracer(plugin, version, provider)
        self._said_environment: tuple[object, object] = (None, None)

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
        script = event.script or run.script
        target_type = event.target.type
        actor = _with_person_behind(event, context)
        attributes: dict[str, Value] = {
            schema.RECORD_ID: _new_id(),
            schema.RECORD_SCHEMA_VERSION: schema.SCHEMA_VERSION,
            **actor.attributes(),
            schema.TARGET_ID: event.target.id or schema.UNKNOWN,
            schema.TARGET_TYPE: target_type,
            schema.RUN_ID: run.id,
            schema.RUN_ATTEMPT: run.attempt,
            schema.WORKFLOW_NAME: run.workflow,
            schema.TRIGGER_TYPE: run.trigger._value_,
            schema.TRIGGER_RULE: run.rule,
            schema.SCRIPT_VERSION: script.version,
            schema.SCRIPT_VERSION_SOURCE: script.source,
            schema.SCRIPT_NAME: script.name,
            **event.details.attributes(),
            **{name: value for name, value in event.attributes.items() if value is not None},
        }
        if run.parent_id is not None:
            attributes[schema.PARENT_RUN_ID] = run.parent_id
        if run.claimed:
            attributes[schema.PARENT_RUN_CLAIMED] = True
        ancestor = runs.ancestor(context)
        if ancestor is not None:
            attributes[schema.PARENT_RECORD_ID] = ancestor
        environment = self._environment()
        if environment is not None:
            attributes[schema.ENVIRONMENT] = environment
        attributes = privacy.minimise(attributes, target_type)
        # Names often carry the target's identity.
        name = target_type if privacy.hides(schema.TARGET_ID, target_type) else event.name
        links = list(event.links)
        span = self._tracer.start_span(name, context, event.kind, attributes, links, start_time=event.began)
        if _begun and (opens is not None or isinstance(event.details, WorkflowFinished)):
            with faults.contained("recorder: the beginning of a run"):
                said = _beginning(attributes)
                for call in _begun:
                    call(span, said)
        record_id = attributes[schema.RECORD_ID]  # a plugin may have chosen it, so that other processes know it, too
        inside = runs.with_ancestor(record_id, trace.set_span_in_context(span, runs.enter(run, context)))
        person = actor if actor.type is schema.ActorType.USER else actor.behalf
        if event.person is not None or person is not None:
            inside = with_person(event.person or (lambda: person), inside)
        return Record(span, attributes, inside, self._plugin)

    def _environment(self) -> str | None:
        """Return the deployment environment: as the resource of the spans says, else the policy."""
        resource = getattr(self._tracer, "resource", None)
        known, said = self._said_environment
        if known is not resource:  # it never changes, and a provider has one
            said = resource.attributes.get(schema.ENVIRONMENT) if resource is not None else None
            self._said_environment = (resource, said)
        return str(said) if said else policy().environment

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


def _beginning(attributes: Mapping[str, Value]) -> dict[str, Value]:
    """Return what a record says that a run has begun, from what is known of it then."""
    known = rules.KNOWN[WorkflowStarted.TYPE.value]
    found = {name: value for name, value in attributes.items() if name in known or name not in rules.TYPES}
    found |= {
        schema.RECORD_ID: str(uuid.uuid4()),
        schema.PARENT_RECORD_ID: attributes[schema.RECORD_ID],
        schema.OUTCOME: schema.Outcome.SUCCESS.value,
        **WorkflowStarted().attributes(),
    }
    hidden = policy().personal & found.keys()
    found[schema.MESSAGE] = schema.message_of(found | dict.fromkeys(hidden, schema.WITHHELD) if hidden else found)
    return found


class inside:
    """Make a record's context the current one, without ending the record."""

    __slots__ = ("_context", "_token")

    def __init__(self, record: Record) -> None:
        self._context = record.context

    def __enter__(self) -> None:
        """Enter it."""
        self._token = otel_context.attach(self._context)

    def __exit__(self, *ended: object) -> None:
        """Leave it; an exception goes on."""
        with faults.contained("recorder: leave the record's context"):
            otel_context.detach(self._token)


def _new_id() -> str:
    """Return a random UUID (version 4), as :func:`uuid.uuid4` makes it, for half of its cost."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _orphan_run(event: Event) -> Run:
    """Return a run for something that nothing is seen to have triggered: said as unknown, not guessed."""
    script = event.script or ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, schema.UNKNOWN)
    hidden = privacy.hides(schema.TARGET_ID, event.target.type)
    workflow = event.target.type if hidden else event.target.id or schema.UNKNOWN
    return Run(str(uuid.uuid4()), workflow, schema.TriggerType.UNKNOWN, schema.UNKNOWN, script)


def _with_person_behind(event: Event, context: Context) -> Actor:
    """Return the actor of an event, with the person for whom the cause of it was done."""
    actor = event.actor
    if actor.type is schema.ActorType.USER or actor.behalf is not None or event.person is not None:
        return actor
    with faults.contained("recorder: the person behind an actor"):
        person = person_behind(context)
        return actor if person is None else replace(actor, behalf=person)
    return actor
