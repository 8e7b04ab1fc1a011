# SPDX-License-Identifier: Apache-2.0
"""Starlette and FastAPI: every webhook delivery that reaches an application.

Where we look::

    Starlette.__call__                the entry of every application, FastAPI's too      -> _serve
      server span inside of it        contrib's OpenTelemetryMiddleware                  -> _after_server_span
      server span outside of it       FastAPI's own, or contrib's around the application
    the routes                        which handler it will be: asked before it runs     -> _find
    `send`                            status, and the end of the response                -> _Receiving.watch

`Starlette.__call__` is inside of FastAPI's own server span and outside of all of the user's middlewares, so a
rejection by one of them is recorded as well. Contrib puts its server span inside of it: then the record begins there,
or, if a middleware answers earlier, when that has answered.

WebSockets and lifespan are left alone. Applications that are mounted in others see the same request: recorded once.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from auditspan.capture import faults
from auditspan.capture.actor import Actor
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Record, Recorder, inside
from auditspan.capture.version import script_version
from auditspan.schema import CODE_FUNCTION, HTTP_ROUTE, TARGET_ID, ActorEvidence, ActorType
from auditspan.webhooks import delivery
from auditspan.webhooks.delivery import Delivery, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_KEY = "auditspan.delivery"
"""Our entry in the scope, as ASGI provides for: it stays with the request where middlewares copy the scope."""

_MARKS = frozenset(mark.encode("ascii") for mark in delivery.MARKS)

_CONTRIB = "opentelemetry.instrumentation.asgi"


class StarletteInstrumentor(AuditInstrumentor):
    """Audits webhook deliveries to Starlette and FastAPI."""

    name = "starlette"
    dependencies = ("starlette >= 0.41",)

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        return (
            Patch("starlette.applications", "Starlette.__call__", partial(_serve, recorder), lazy=True),
            Patch(_CONTRIB, "OpenTelemetryMiddleware.__init__", _after_server_span, lazy=True),
        )


# -- one request -----------------------------------------------------------------------------------------------


def _serve(recorder: Recorder, call: Call) -> Hook:
    scope: Scope = call.argument(0, "scope")
    if scope["type"] != "http" or _KEY in scope:
        return
    # Most requests are no webhooks and must not pay for it. ASGI header names are in lower case.
    if _MARKS.isdisjoint([name for name, _ in scope["headers"]]) and not delivery.is_webhook_path(
        scope["method"], scope["path"]
    ):
        return
    headers = _headers(scope)
    found = delivery.recognise(scope["method"], scope["path"], headers)
    if found is None:
        return
    receiving = _Receiving(recorder, call.instance, scope, found, headers)
    with receiving.known_in(scope), ExitStack() as around:
        if not _has_contrib(call.instance):
            around.enter_context(receiving.begun())
        send = receiving.watch(call.argument(2, "send"))
        call.args, call.kwargs = (scope, call.argument(1, "receive"), send), {}
        try:
            yield
        except BaseException as error:
            receiving.end(error)
            raise
        receiving.end()


class _Receiving:
    """One delivery on its way through the application."""

    def __init__(self, recorder: Recorder, app: Any, scope: Scope, found: Delivery, headers: dict[str, str]) -> None:
        self._recorder = recorder
        self._app = app
        self._scope = scope
        self._delivery = found
        found.login = lambda: _logged_in(scope)
        self._headers = headers
        self._found = _Found()
        self._record: Record | None = None
        self._status: int | None = None
        self._trailers = False
        self._complete = False
        self._ended = False

    @contextmanager
    def known_in(self, scope: Scope) -> Iterator[None]:
        scope[_KEY] = self
        try:
            yield
        finally:
            scope.pop(_KEY, None)

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Begin the record here, in the current context, and be inside of it."""
        record = self._begin()
        with inside(record), delivery.carried(self._delivery):
            yield

    def _begin(self) -> Record:
        scope = self._scope
        with faults.contained("starlette: find the route"):  # without it there is less to say, but not nothing
            self._found = _find(self._app, scope)
        found = self._found
        client = scope.get("client")
        event, run = delivery.opening(
            self._delivery,
            Request(
                method=scope["method"],
                path=scope["path"],
                route=found.route,
                handler=_function(found.endpoint, scope["method"]) if found.called else None,
                client=client[0] if client else None,
                headers=self._headers,
            ),
        )
        record = self._recorder.start(event, opens=run, context=delivery.caused_by(self._headers))
        self._record = record
        return record

    def watch(self, send: Send) -> Send:
        """Return `send`, watched for the status and the end of the response."""

        async def watched(message: Message) -> None:
            # Before it is sent: a delivery that was acknowledged is in the record, whatever happens next.
            with faults.contained("starlette: Starlette.__call__: send"):
                self._sending(message)
            await send(message)

        return watched

    def _sending(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
            self._trailers = message.get("trailers", False)
        elif kind == "http.response.body":
            self._complete = not message.get("more_body", False) and not self._trailers
        elif kind == "http.response.trailers":
            self._complete = not message.get("more_trailers", False)
        elif kind == "http.response.pathsend":
            self._complete = True
        # The sender has its answer: the record ends before the background tasks, which can run for hours. They keep
        # the run. After a server error the exception is still to come, and says more than the status.
        if self._complete and self._status is not None and self._status < 500:
            self.end()

    def end(self, error: BaseException | None = None) -> None:
        """End the record, once."""
        if self._ended:
            return
        self._ended = True
        record = self._record or self._begin()  # a middleware has answered before contrib's server span began
        with faults.contained("starlette: correct the route"):
            _correct(record, self._scope, self._found)
        incomplete = None if self._complete or error is not None else "incomplete_response"
        delivery.close(record, self._delivery, self._status, error or incomplete)


def _logged_in(scope: Scope) -> Actor | None:
    """Return the user that Starlette's AuthenticationMiddleware has logged in: known only after it has run."""
    user = scope.get("user")
    if user is None or getattr(user, "is_authenticated", False) is not True:
        return None
    for attribute in ("identity", "display_name"):  # `identity` is abstract in Starlette's own SimpleUser
        try:
            name = getattr(user, attribute, None)
        except NotImplementedError:
            continue
        if isinstance(name, str) and name:
            return Actor(delivery.bounded(name), ActorType.USER, ActorEvidence.FRAMEWORK_LOGIN)
    return None


def _headers(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    return headers


# -- contrib's server span -------------------------------------------------------------------------------------


def _after_server_span(call: Call) -> Hook:
    yield
    call.instance.app = _AfterServerSpan(call.instance.app)


class _AfterServerSpan:
    """Begins the record of a delivery as a child of contrib's server span."""

    def __init__(self, app: Any) -> None:
        self.app = app  # the name by which FastAPI walks through the stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        receiving = scope.get(_KEY)
        with ExitStack() as around:
            # Around the whole application there is no delivery yet; inside a mounted one it has begun.
            if isinstance(receiving, _Receiving) and receiving._record is None:
                with faults.contained("starlette: OpenTelemetryMiddleware"):
                    around.enter_context(receiving.begun())
            await self.app(scope, receive, send)


def _has_contrib(app: Any) -> bool:
    """Tell whether contrib's middleware is in the stack of an application, and is one that tells us when it starts."""
    if _CONTRIB not in sys.modules:
        return False
    if app.middleware_stack is None:
        app.middleware_stack = app.build_middleware_stack()  # what `__call__` does next, so FastAPI does it, too
    layer = app.middleware_stack
    for _ in range(100):
        if layer is None or isinstance(layer, _AfterServerSpan):
            break
        layer = getattr(layer, "app", None)
    return isinstance(layer, _AfterServerSpan)


# -- which handler it will be ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A route; its handler is called unless only the path matches, but not the method (405)."""

    route: str | None = None
    endpoint: Any = None
    called: bool = True


def _find(app: Any, scope: Scope) -> _Found:
    """Find the route as the router will, before it does, and without a trace in the scope.

    Only the `matches` of Starlette and FastAPI are asked: that of a user's own route may have effects, or cost, that
    must not come twice. Where such a route comes first, or where anything is unclear, nothing is found.
    """
    return _select(app.routes, scope, "")[1] or _Found()


def _select(routes: Sequence[Any], scope: Scope, prefix: str) -> tuple[str, _Found | None]:
    """Select one of `routes` by the rule of all routers: the first full match, else the first partial one."""
    second_best: tuple[str, _Found | None] = ("NONE", None)
    for route in routes:
        # In FastAPI's included routers: a route in the context of its inclusion, if need be copied with its full path.
        if not _is_library(type(getattr(route, "original_route", route))):
            return "FULL", None
        match, found = _match(getattr(route, "starlette_route", None) or route, scope, prefix)
        if match == "FULL":
            return match, found
        if match == "PARTIAL" and second_best[0] == "NONE":
            second_best = (match, found and replace(found, called=False))
    return second_best


def _match(route: Any, scope: Scope, prefix: str) -> tuple[str, _Found | None]:
    included = getattr(route, "effective_candidates", None)
    if included is not None:
        # A router included in another: newer versions of FastAPI keep it as one route, and resolve it when called.
        return _select(included(), scope, prefix)
    # FastAPI writes into its part of the scope while it matches.
    probe = {**scope, "fastapi": dict(scope["fastapi"])} if "fastapi" in scope else dict(scope)
    match, child = route.matches(probe)
    template = _template(route)
    if match.name == "NONE" or template is None:
        return match.name, None
    inner = getattr(route, "routes", None)
    if inner:
        # Mounted: whatever is in there, no other route of ours is tried any more.
        return match.name, _select(inner, {**probe, **child}, prefix + template.removesuffix("/{path}"))[1]
    return match.name, _Found(prefix + template, child.get("endpoint"))


def _template(route: Any) -> str | None:
    """Return a route's path with its parameters' names in it; that of a host is empty."""
    if hasattr(route, "host"):
        return ""
    template = getattr(route, "path_format", None)
    return template if isinstance(template, str) else None


def _is_library(kind: type) -> bool:
    matches = getattr(kind, "matches", None)
    return getattr(matches, "__module__", "").partition(".")[0] in ("starlette", "fastapi")


def _function(endpoint: Any, method: str) -> Callable[..., Any] | None:
    """Return the function behind an endpoint: of a class, the method that answers the HTTP method."""
    if isinstance(endpoint, type):
        endpoint = getattr(endpoint, method.lower(), None) or getattr(endpoint, "dispatch", None)
    return endpoint if callable(endpoint) else None


def _correct(record: Record, scope: Scope, expected: _Found) -> None:
    """Put right what the router decided otherwise than expected: after a change of the path, or by a user's own route.

    The run keeps the name under which it was opened: other records carry it already.
    """
    endpoint, route = scope.get("endpoint"), scope.get("route")
    if endpoint is None or endpoint is expected.endpoint or hasattr(route, "routes"):
        return
    in_context = scope.get("fastapi", {}).get("effective_route_context")
    template = _template(in_context if getattr(in_context, "original_route", None) is route else route)
    if template is None:
        return
    template = delivery.bounded(scope.get("root_path", "").removeprefix(scope.get("app_root_path", "")) + template)
    record.set(HTTP_ROUTE, template)
    record.set(TARGET_ID, template)
    function = _function(endpoint, scope["method"])
    record.set(CODE_FUNCTION, script_version(function).name if function is not None else None)
