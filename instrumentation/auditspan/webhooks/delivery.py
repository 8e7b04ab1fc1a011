# SPDX-License-Identifier: Apache-2.0
"""What a webhook delivery is, whatever the web framework: who sends it, how it is recognised, what is recorded.

A plugin for a framework does five things with it::

    found = delivery.recognise(method, path, headers)         # None: not a webhook, not recorded
    event, run = delivery.opening(found, request)             # what is known before the handler runs
    record = recorder.start(event, opens=run, context=delivery.caused_by(headers))
    with delivery.carried(found): ...                         # the handler runs; verifiers report to `found`
    delivery.close(record, found, status, error)              # what is known afterwards

Headers are what the sender says: they are bounded, and recorded as claims unless a verified signature backs them.
The body, the query and the signature itself are never recorded.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import DefaultGetter
from opentelemetry.trace import SpanKind

from auditspan import schema
from auditspan.capture import run as runs
from auditspan.capture.actor import Actor, caller_of
from auditspan.capture.recorder import Event, Record, Target
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion, script_version
from auditspan.schema import ActorEvidence, ActorType, Outcome, TriggerType, Verified
from auditspan.schema.events import WebhookDelivery

LIMIT = 256
"""Characters kept of anything that a sender chose."""

# -- who sends webhooks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sender:
    """The headers of one sender. Of several names for one thing, the first that is present counts.

    Attributes:
        name: how the sender is called in records.
        marks: any one of these headers tells that the request is from this sender, or says it is.
        delivery_id: the header that identifies the delivery, and stays the same when it is tried again.
        event_type: the header that says what happened; many senders say it only in the body.
        signature: the headers that carry signatures.
        token: the headers that carry a shared secret as it is, instead of a signature.
    """

    name: str
    marks: tuple[str, ...]
    delivery_id: tuple[str, ...] = ()
    event_type: tuple[str, ...] = ()
    signature: tuple[str, ...] = ()
    token: tuple[str, ...] = ()


SENDERS = (
    Sender(
        "github",
        marks=("x-github-event", "x-github-delivery"),
        delivery_id=("x-github-delivery",),
        event_type=("x-github-event",),
        signature=("x-hub-signature-256", "x-hub-signature"),
    ),
    Sender(
        "gitlab",
        marks=("x-gitlab-event", "x-gitlab-token"),
        # X-Gitlab-Webhook-UUID names the webhook's configuration, not the delivery.
        delivery_id=("idempotency-key", "x-gitlab-event-uuid"),
        event_type=("x-gitlab-event",),
        signature=("webhook-signature",),
        token=("x-gitlab-token",),
    ),
    Sender("stripe", marks=("stripe-signature",), signature=("stripe-signature",)),
    Sender("slack", marks=("x-slack-signature",), signature=("x-slack-signature",)),
    Sender(
        "shopify",
        marks=("x-shopify-topic", "x-shopify-webhook-id", "shopify-topic", "shopify-webhook-id"),
        delivery_id=("x-shopify-webhook-id", "shopify-webhook-id"),
        event_type=("x-shopify-topic", "shopify-topic"),
        signature=("x-shopify-hmac-sha256", "shopify-hmac-sha256"),
    ),
    Sender(
        "twilio",
        marks=("x-twilio-signature",),
        delivery_id=("i-twilio-idempotency-token",),
        signature=("x-twilio-signature",),
    ),
    Sender("svix", marks=("svix-id", "svix-signature"), delivery_id=("svix-id",), signature=("svix-signature",)),
    Sender(
        "standard_webhooks",
        marks=("webhook-id", "webhook-signature"),
        delivery_id=("webhook-id",),
        signature=("webhook-signature",),
    ),
    Sender("cloudevents", marks=("ce-id", "ce-type"), delivery_id=("ce-id",), event_type=("ce-type",)),
)
"""Known senders; the first whose mark is present counts. To add one, add a row."""

UNKNOWN_SENDER = Sender(schema.UNKNOWN, marks=())

_PATH = re.compile(r"/(?:web[-_]?)?hook", re.IGNORECASE)
"""Where unknown senders deliver: a path segment that begins with ``hook`` or ``webhook``."""

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_SIGNATURE_NAME = re.compile(r"signature|hmac", re.IGNORECASE)
"""What an unknown sender may call the header with its signature."""


MARKS = frozenset(mark for sender in SENDERS for mark in sender.marks)
"""For frameworks where reading all headers is work: without one of these, only the path can tell."""


def is_webhook_path(method: str, path: str) -> bool:
    """Tell whether a request goes where unknown senders deliver."""
    return method.upper() in _CHANGING and _PATH.search(path) is not None


def recognise(method: str, path: str, headers: Mapping[str, str]) -> Delivery | None:
    """Return the delivery that a request is, or None: it is not a webhook.

    Args:
        method: HTTP method.
        path: path without query.
        headers: headers of the request, in any case.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    for sender in SENDERS:
        if any(mark in lowered for mark in sender.marks):
            return Delivery(sender, lowered)
    if is_webhook_path(method, path):
        return Delivery(UNKNOWN_SENDER, lowered)
    return None


# -- one delivery ----------------------------------------------------------------------------------------------


class Delivery:
    """One delivery, while it is handled. Collects what verifiers say about its signature."""

    def __init__(self, sender: Sender, headers: Mapping[str, str]) -> None:
        """Take what is recorded from lower-cased `headers`; nothing else of them is recorded."""
        self.source = sender.name
        self.id = _first(sender.delivery_id, headers)
        self.event_type = _first(sender.event_type, headers)
        self.user_agent = _first(("user-agent",), headers)
        self.verified = Verified.NOT_OBSERVED
        self.verifier: str | None = None
        self.login: Callable[[], Actor | None] = lambda: None  # who is logged in, as the web framework knows later
        self.named: Actor | None = None  # who is logged in, as a trusted proxy says
        names = sender.signature
        if sender is UNKNOWN_SENDER:
            names = tuple(name for name in headers if _SIGNATURE_NAME.search(name))
        self._signatures = [headers[name] for name in names if name in headers]
        self._tokens = [headers[name] for name in sender.token if headers.get(name)]
        self._presented: tuple[frozenset[str], frozenset[bytes]] | None = None

    def person(self) -> Actor | None:
        """Return the person behind the delivery, as far as it is known by now."""
        return self.login() or self.named

    def observe(self, verified: bool, verifier: str) -> None:
        """Note what a verifier found.

        One success is enough (senders sign with the old and the new key while a key is changed); failures count
        only as long as nothing succeeded. Without any observation it stays *not observed*: that is no failure.
        """
        if self.verified is not Verified.TRUE:
            self.verified = Verified.TRUE if verified else Verified.FALSE
            self.verifier = verifier

    def name_event(self, event_type: object) -> None:
        """Note the type of the event where a verifier read it from the body; only if it looks like a type."""
        if self.event_type is None and isinstance(event_type, str) and _EVENT_TYPE.fullmatch(event_type):
            self.event_type = event_type

    @property
    def presented(self) -> tuple[frozenset[str], frozenset[bytes]]:
        """The signatures that the sender presented, in every form that a verifier may compare: as text, as bytes."""
        if self._presented is None:
            self._presented = _forms(self._signatures, self._tokens)
        return self._presented

    def __repr__(self) -> str:
        """Show no header values: a token may be among them."""
        return f"<Delivery from {self.source}, signature verified: {self.verified.value}>"


_current: ContextVar[Delivery | None] = ContextVar("auditspan-delivery", default=None)

current = _current.get
"""Return the delivery that is being handled here, or None."""


@contextmanager
def carried(delivery: Delivery | None) -> Iterator[None]:
    """Make `delivery` the current one. None: what happens inside says nothing about the delivery by itself."""
    token = _current.set(delivery)
    try:
        yield
    finally:
        _current.reset(token)


_EVENT_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
_DIGEST_CHARACTERS = 16  # shorter parts are labels and times (`sha256`, `v1`, `1700000000`), not digests
_HEADER_CHARACTERS = 8192  # a sender cannot make us split and compare without end
_PARTS = 64


def _forms(signatures: list[str], tokens: list[str]) -> tuple[frozenset[str], frozenset[bytes]]:
    parts: dict[str, None] = {}
    for value in signatures:
        value = value[:_HEADER_CHARACTERS].strip()
        parts[value] = None
        for word in re.split(r"[,;\s]+", value):
            parts[word] = None
            parts[word.partition("=")[2].strip("\"'")] = None  # `sha256=…`, `v1=…`, `signature="…"`
    digests = [part for part in parts if len(part) >= _DIGEST_CHARACTERS][:_PARTS]
    texts = set(digests) | {token[:_HEADER_CHARACTERS] for token in tokens}
    raw = {text.encode("utf-8", "replace") for text in texts}
    for digest in digests:
        for decode in (bytes.fromhex, _base64):
            try:
                raw.add(decode(digest))
            except ValueError:
                continue
    return frozenset(texts), frozenset(raw)


def _base64(text: str) -> bytes:
    decoded = base64.b64decode(text, validate=True)
    if len(decoded) < _DIGEST_CHARACTERS // 2:
        raise binascii.Error("too short for a digest")
    return decoded


# -- what is recorded of it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """What a framework knows about a request before its handler runs.

    Attributes:
        method: HTTP method.
        path: path without query.
        route: template of the route; None: no route matches.
        handler: the user's function; None: none will be called, or it is not known.
        client: address of the caller, as the server says.
        headers: names in lower case; only those that the policy names are looked at.
    """

    method: str
    path: str
    route: str | None = None
    handler: Callable[..., Any] | None = field(default=None, repr=False)
    client: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def opening(delivery: Delivery, request: Request) -> tuple[Event, Run]:
    """Return the record and the run that a delivery opens."""
    method = bounded(request.method)
    route = bounded(request.route or request.path)
    what = f"{method} {route}"
    script = ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, schema.UNKNOWN)
    if request.handler is not None:
        script = script_version(request.handler)
    caller = caller_of(request.headers, request.client)
    delivery.named = caller.person
    event = Event(
        name=f"receive {delivery.source}",
        details=WebhookDelivery(
            webhook_source=delivery.source,
            webhook_event_type=delivery.event_type or schema.UNKNOWN,
            webhook_signature_verified=delivery.verified,
            webhook_delivery_id=delivery.id,
            http_method=method,
            http_route=bounded(request.route) if request.route else None,
        ),
        actor=actor_of(delivery),
        target=Target(route, "http.route"),
        person=delivery.person,
        attributes={
            schema.USER_AGENT: delivery.user_agent,
            schema.CLIENT_ADDRESS: bounded(request.client) if request.client else None,
            schema.SESSION_ID: caller.session,
            schema.CLIENT_FINGERPRINT: caller.fingerprint,
            schema.CODE_FUNCTION: script.name if request.handler is not None else None,
        },
    )
    run = Run(
        # Baggage carries as many characters of a run ID: it must be the same here and there.
        id=f"webhook/{delivery.source}/{delivery.id or uuid.uuid4()}"[:LIMIT],
        workflow=script.name if request.handler is not None else route,
        trigger=TriggerType.WEBHOOK,
        rule=(f"{what} · {delivery.event_type}" if delivery.event_type else what)[:LIMIT],
        script=script,
    )
    return event, run


def close(record: Record, delivery: Delivery, status: int | None, error: BaseException | str | None = None) -> None:
    """End the record of a delivery.

    Args:
        record: what :func:`opening` opened.
        delivery: with what was observed in the meantime.
        status: HTTP status of the response; None: there was none.
        error: the exception that went through to the server, or why the response is not complete.
    """
    record.update(
        {
            schema.HTTP_STATUS: status,
            schema.WEBHOOK_EVENT_TYPE: delivery.event_type,
            schema.WEBHOOK_SIGNATURE_VERIFIED: delivery.verified.value,
            schema.WEBHOOK_SIGNATURE_VERIFIER: delivery.verifier,
            **actor_of(delivery).attributes(),
        }
    )
    if error is None and status is not None and status < 400:
        record.finish(Outcome.SUCCESS)
    elif isinstance(error, str) and status is not None and status < 400:
        record.finish(Outcome.UNKNOWN, error)  # the handler was content, but the sender did not get all of its answer
    else:
        record.finish(Outcome.FAILURE, error if error is not None else str(status or schema.UNKNOWN))


def caused_by(headers: Mapping[str, str]) -> Context:
    """Return the context that a request continues: that of its server span if there is one, else the sender's."""
    here = otel_context.get_current()
    sent = propagate.extract(headers, here, _HEADERS)
    span = trace.get_current_span(here)
    known = span.get_span_context()
    if known.is_valid:
        # The server's own instrumentation has already continued the sender's trace, or has decided not to. (The
        # span of an unsampled trace does not say its kind.) Any other span here is a caller in this very process.
        is_server = getattr(span, "kind", None) is SpanKind.SERVER
        if is_server or known.trace_id == trace.get_current_span(sent).get_span_context().trace_id:
            sent = here
    return runs.from_outside(sent)


def bounded(text: str) -> str:
    """Return what a sender chose as it may stand in a record; see :func:`auditspan.schema.bounded`."""
    return schema.bounded(text, LIMIT)


def _first(names: tuple[str, ...], headers: Mapping[str, str]) -> str | None:
    return next((bounded(headers[name]) for name in names if headers.get(name)), None)


def actor_of(delivery: Delivery) -> Actor:
    """Return who acts: the sender, and the person behind it; of an unknown sender the person alone, if there is one."""
    person = delivery.person()
    if delivery.source == schema.UNKNOWN and person is not None:
        return person
    if delivery.verified is Verified.TRUE:
        evidence = ActorEvidence.SIGNATURE
    else:
        evidence = ActorEvidence.UNKNOWN if delivery.source == schema.UNKNOWN else ActorEvidence.CLAIMED
    return Actor(delivery.source, ActorType.SERVICE, evidence, behalf=person)


class _Headers(DefaultGetter):
    """Propagators ask for their headers in any case; ours are in lower case."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        return super().get(carrier, key.lower())


_HEADERS = _Headers()
