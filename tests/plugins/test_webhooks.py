# SPDX-License-Identifier: Apache-2.0
"""Webhook deliveries to real FastAPI and Starlette applications, in memory and over a real server's socket."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from opentelemetry.trace import SpanKind

from auditspan import schema
from auditspan.capture import environ, faults
from auditspan.capture import policy as policies
from auditspan.capture import run as runs
from auditspan.capture.actor import os_actor
from auditspan.capture.recorder import Event, Recorder, Target
from auditspan.schema.events import DataDelete
from auditspan.webhooks import delivery
from auditspan.webhooks import starlette as plugin
from auditspan.webhooks.signatures import SignatureInstrumentor
from auditspan.webhooks.starlette import StarletteInstrumentor
from tests.plugins.conftest import Audited

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, WebSocket  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.endpoints import HTTPEndpoint  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse  # noqa: E402
from starlette.routing import BaseRoute, Host, Match, Mount, Route, Router  # noqa: E402

SECRET = "s3cr3t-never-recorded"
GITHUB = {
    "X-GitHub-Event": "issues",
    "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
    "User-Agent": "GitHub-Hookshot/044aadd",
}
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def webhooks(audited: Audited) -> Audited:
    audited.instrument(StarletteInstrumentor, SignatureInstrumentor)
    return audited


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("AUDITSPAN_POLICY", raising=False)
    policies.forget()
    environ.forget()
    yield
    policies.forget()
    environ.forget()


def send(
    app: Any,
    path: str = "/hooks/github",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    content: bytes = b"{}",
    client: tuple[str, int] = ("203.0.113.77", 4711),
    raises: bool = True,
) -> Any:
    async def go() -> Any:
        transport = httpx.ASGITransport(app=app, client=client, raise_app_exceptions=raises)
        async with httpx.AsyncClient(transport=transport, base_url="http://hooks.example") as http:
            return await http.request(method, path, headers=GITHUB if headers is None else headers, content=content)

    return asyncio.run(go())


def only(audited: Audited) -> dict[str, Any]:
    (record,) = audited.records
    return record


def audit_span(audited: Audited) -> Any:
    (span,) = [span for span in audited.spans if schema.RECORD_ID in (span.attributes or {})]
    return span


# -- applications ----------------------------------------------------------------------------------------------

seen: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def forget_seen() -> None:
    seen.clear()


def note_run(where: str) -> None:
    run = runs.current()
    seen[where] = run.id if run else None


async def on_issue(request: Request) -> dict[str, str]:
    note_run("endpoint")
    body = await request.body()
    expected = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    given = request.headers.get("x-hub-signature-256")
    if given is not None and not hmac.compare_digest(expected, given):
        raise HTTPException(401)
    return {"got": "it"}


def on_issue_sync() -> dict[str, str]:
    note_run("endpoint")
    return {"got": "it"}


def fastapi(**kwargs: Any) -> FastAPI:
    app = FastAPI(**kwargs)
    app.post("/hooks/github")(on_issue)
    app.post("/hooks/sync")(on_issue_sync)
    app.post("/orders/{order}")(on_issue_sync)
    return app


async def starlette_endpoint(request: Any) -> JSONResponse:
    note_run("endpoint")
    await request.body()
    return JSONResponse({"got": "it"})


def starlette_sync_endpoint(request: Any) -> JSONResponse:
    note_run("endpoint")
    return JSONResponse({"got": "it"})


def starlette(**kwargs: Any) -> Starlette:
    return Starlette(
        routes=[
            Route("/hooks/github", starlette_endpoint, methods=["POST"]),
            Route("/hooks/sync", starlette_sync_endpoint, methods=["POST"]),
        ],
        **kwargs,
    )


BOTH = pytest.mark.parametrize("make", [fastapi, starlette], ids=["fastapi", "starlette"])


# -- what a record says ----------------------------------------------------------------------------------------


@BOTH
def test_a_delivery_is_recorded_with_everything_known(webhooks: Audited, make: Callable[[], Any]) -> None:
    response = send(make())
    assert response.json() == {"got": "it"}
    record = only(webhooks)
    function = on_issue if make is fastapi else starlette_endpoint
    name = f"{__name__}.{function.__name__}"
    expected = {
        schema.EVENT_TYPE: "webhook.delivery",
        schema.ACTION: "RECEIVE",
        schema.OUTCOME: "success",
        schema.ACTOR_ID: "github",
        schema.ACTOR_TYPE: "service",
        schema.ACTOR_EVIDENCE: "claimed",
        schema.TARGET_TYPE: "http.route",
        schema.TARGET_ID: "/hooks/github",
        schema.RUN_ID: "webhook/github/72d3162e-cc78-11e3-81ab-4c9367dc0958",
        schema.WORKFLOW_NAME: name,
        schema.TRIGGER_TYPE: "webhook",
        schema.TRIGGER_RULE: "POST /hooks/github · issues",
        schema.SCRIPT_NAME: name,
        schema.CODE_FUNCTION: name,
        schema.WEBHOOK_SOURCE: "github",
        schema.WEBHOOK_DELIVERY_ID: "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        schema.WEBHOOK_EVENT_TYPE: "issues",
        schema.WEBHOOK_SIGNATURE_VERIFIED: "not_observed",
        schema.HTTP_METHOD: "POST",
        schema.HTTP_ROUTE: "/hooks/github",
        schema.HTTP_STATUS: 200,
        schema.USER_AGENT: "GitHub-Hookshot/044aadd",
        schema.CLIENT_ADDRESS: "203.0.113.0/24",
    }
    assert {key: record.get(key) for key in expected} == expected
    assert record[schema.SCRIPT_VERSION] != "unknown"
    assert schema.PARENT_RUN_ID not in record
    assert seen["endpoint"] == record[schema.RUN_ID]


@BOTH
def test_a_sync_endpoint_is_inside_the_run(webhooks: Audited, make: Callable[[], Any]) -> None:
    send(make(), "/hooks/sync")
    assert seen["endpoint"] == only(webhooks)[schema.RUN_ID]


def test_an_unknown_sender_is_recognised_by_the_path(webhooks: Audited) -> None:
    send(fastapi(), headers={})
    record = only(webhooks)
    assert (record[schema.ACTOR_ID], record[schema.ACTOR_EVIDENCE]) == ("unknown", "unknown")
    assert record[schema.TRIGGER_RULE] == "POST /hooks/github"
    assert record[schema.WEBHOOK_EVENT_TYPE] == "unknown"
    assert schema.WEBHOOK_DELIVERY_ID not in record
    prefix, _, unique = record[schema.RUN_ID].rpartition("/")
    assert prefix == "webhook/unknown" and uuid.UUID(unique)


def test_other_requests_are_not_recorded(webhooks: Audited) -> None:
    app = fastapi()
    app.get("/hooks/list")(on_issue_sync)
    assert send(app, "/orders/7", headers={}).status_code == 200
    assert send(app, "/hooks/list", headers={}, method="GET").status_code == 200
    assert webhooks.records == []
    assert seen["endpoint"] is None


def test_a_known_sender_is_recognised_on_any_path_and_the_template_hides_the_value(webhooks: Audited) -> None:
    send(fastapi(), "/orders/private-7")
    record = only(webhooks)
    assert record[schema.TARGET_ID] == "/orders/{order}"
    assert "private-7" not in str(record)


SENDERS: list[tuple[dict[str, str], tuple[str, str | None, str]]] = [
    (GITHUB, ("github", GITHUB["X-GitHub-Delivery"], "issues")),
    ({"X-Gitlab-Event": "Push Hook", "Idempotency-Key": "k1"}, ("gitlab", "k1", "Push Hook")),
    ({"X-Gitlab-Event": "Push Hook", "X-Gitlab-Event-UUID": "e1"}, ("gitlab", "e1", "Push Hook")),
    ({"Stripe-Signature": "t=1,v1=00"}, ("stripe", None, "unknown")),
    ({"X-Slack-Signature": "v0=00"}, ("slack", None, "unknown")),
    ({"X-Shopify-Topic": "orders/create", "X-Shopify-Webhook-Id": "s1"}, ("shopify", "s1", "orders/create")),
    ({"X-Twilio-Signature": "x", "I-Twilio-Idempotency-Token": "t1"}, ("twilio", "t1", "unknown")),
    ({"webhook-id": "msg_1", "webhook-signature": "v1,x"}, ("standard_webhooks", "msg_1", "unknown")),
    ({"svix-id": "msg_2", "svix-signature": "v1,x"}, ("svix", "msg_2", "unknown")),
    ({"ce-id": "c1", "ce-type": "com.example.made"}, ("cloudevents", "c1", "com.example.made")),
]


@pytest.mark.parametrize(("headers", "expected"), SENDERS, ids=[case[1][0] + str(i) for i, case in enumerate(SENDERS)])
def test_each_known_sender(webhooks: Audited, headers: dict[str, str], expected: tuple[str, str | None, str]) -> None:
    send(starlette(), "/hooks/sync", headers=headers)
    record = only(webhooks)
    found = (record[schema.ACTOR_ID], record.get(schema.WEBHOOK_DELIVERY_ID), record[schema.WEBHOOK_EVENT_TYPE])
    assert found == expected


def test_header_values_are_bounded_and_cleaned(webhooks: Audited) -> None:
    headers = {"X-GitHub-Event": "a\tb" + "x" * 999, "X-GitHub-Delivery": "d" * 999, "User-Agent": "u" * 999}
    send(fastapi(), headers=headers)
    record = only(webhooks)
    assert record[schema.WEBHOOK_EVENT_TYPE] == "a?b" + "x" * 253
    assert record[schema.WEBHOOK_DELIVERY_ID] == "d" * 256
    assert len(record[schema.USER_AGENT]) == len(record[schema.RUN_ID]) == len(record[schema.TRIGGER_RULE]) == 256
    assert seen["endpoint"] == record[schema.RUN_ID]


@pytest.mark.parametrize("make", [fastapi, starlette], ids=["fastapi", "starlette"])
def test_body_query_and_other_headers_are_never_recorded(webhooks: Audited, make: Callable[[], Any]) -> None:
    headers = {**GITHUB, "Authorization": SECRET, "Cookie": SECRET, "X-Other": SECRET}
    headers["X-Hub-Signature-256"] = "sha256=" + hmac.new(SECRET.encode(), b"{}", hashlib.sha256).hexdigest()
    send(make(), f"/hooks/github?key={SECRET}", headers=headers, content=b"{}")
    send(make(), f"/hooks/github?key={SECRET}", headers=headers, content=SECRET.encode())
    assert len(webhooks.records) == 2
    for span in webhooks.spans:
        text = f"{span.name} {dict(span.attributes or {})} {[dict(e.attributes or {}) for e in span.events]}"
        assert SECRET not in text + str(span.status.description)
        assert headers["X-Hub-Signature-256"][7:] not in text


# -- outcomes --------------------------------------------------------------------------------------------------


class Boom(Exception):
    pass


@BOTH
def test_an_exception_is_recorded_and_unchanged(webhooks: Audited, make: Callable[[], Any]) -> None:
    boom = Boom(SECRET)

    async def endpoint(request: Request) -> Any:
        raise boom

    app = make()
    app.router.routes.insert(0, Route("/hooks/boom", endpoint, methods=["POST"]))
    with pytest.raises(Boom) as raised:
        send(app, "/hooks/boom")
    assert raised.value is boom
    ours = [entry.path for entry in raised.traceback if entry.path.match("auditspan/webhooks/*.py")]
    assert ours == []  # the traceback shows where the wrapper calls, not how the hook looked at it
    record = only(webhooks)
    assert (record[schema.OUTCOME], record[schema.HTTP_STATUS]) == ("failure", 500)
    assert record[schema.ERROR_TYPE] == f"{__name__}.Boom"
    assert SECRET not in str(record)


def test_a_rejecting_middleware_is_recorded(webhooks: Audited) -> None:
    async def reject(request: Any, call_next: Any) -> Any:
        note_run("middleware")
        return PlainTextResponse("no", status_code=401)

    app = fastapi()
    app.add_middleware(BaseHTTPMiddleware, dispatch=reject)
    assert send(app).status_code == 401
    record = only(webhooks)
    assert (record[schema.OUTCOME], record[schema.HTTP_STATUS], record[schema.ERROR_TYPE]) == ("failure", 401, "401")
    assert record[schema.HTTP_ROUTE] == "/hooks/github"
    assert seen == {"middleware": record[schema.RUN_ID]}


@BOTH
def test_not_found_and_wrong_method(webhooks: Audited, make: Callable[[], Any]) -> None:
    assert send(make(), "/hooks/nobody").status_code == 404
    assert send(make(), "/hooks/github", method="PUT").status_code == 405
    missing, wrong = webhooks.records
    assert (missing[schema.OUTCOME], missing[schema.HTTP_STATUS]) == ("failure", 404)
    assert missing[schema.TARGET_ID] == missing[schema.WORKFLOW_NAME] == "/hooks/nobody"
    assert schema.HTTP_ROUTE not in missing
    assert (wrong[schema.OUTCOME], wrong[schema.HTTP_STATUS]) == ("failure", 405)
    assert wrong[schema.HTTP_ROUTE] == wrong[schema.WORKFLOW_NAME] == "/hooks/github"
    for record in (missing, wrong):
        assert record[schema.SCRIPT_VERSION] == "unknown"
        assert schema.CODE_FUNCTION not in record


def test_streaming_ends_the_record_with_the_last_part(webhooks: Audited) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for part in (b"a", b"b"):
            assert webhooks.records == []
            yield part

    async def endpoint(request: Any) -> StreamingResponse:
        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/hooks/s", endpoint, methods=["POST"])])
    assert send(app, "/hooks/s").content == b"ab"
    assert only(webhooks)[schema.OUTCOME] == "success"


def test_a_stream_that_breaks_is_a_failure(webhooks: Audited) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        raise Boom

    async def endpoint(request: Any) -> StreamingResponse:
        return StreamingResponse(parts())

    app = Starlette(routes=[Route("/hooks/s", endpoint, methods=["POST"])])
    with pytest.raises(Exception, match=r"^$|TaskGroup"):  # in older versions of Starlette a group of one
        send(app, "/hooks/s")
    record = only(webhooks)
    assert (record[schema.OUTCOME], record[schema.HTTP_STATUS]) == ("failure", 200)


def test_an_answer_that_stops_halfway_is_unknown(webhooks: Audited) -> None:
    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def go() -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def ignore(message: Any) -> None:
            pass

        scope = {
            "type": "http", "method": "POST", "path": "/hooks/x", "headers": [], "query_string": b"", "root_path": "",
        }  # fmt: skip
        await Starlette(routes=[Mount("/hooks", app=half)])(scope, receive, ignore)
        assert set(scope) >= {"type"} and plugin._KEY not in scope

    asyncio.run(go())
    record = only(webhooks)
    assert (record[schema.OUTCOME], record[schema.ERROR_TYPE]) == ("unknown", "incomplete_response")
    assert record[schema.TARGET_ID] == "/hooks/{path}"


@pytest.mark.parametrize("native", [False, True])
def test_background_tasks_are_after_the_record_and_inside_the_run(webhooks: Audited, native: bool) -> None:
    app = FastAPI(**native_telemetry(webhooks)) if native else FastAPI()

    async def later() -> None:
        assert len(webhooks.records) == 1
        note_run("task")

    def later_sync() -> None:
        note_run("sync task")

    @app.post("/hooks/github")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(later)
        tasks.add_task(later_sync)
        return "ok"

    send(app)
    run = only(webhooks)[schema.RUN_ID]
    assert seen == {"task": run, "sync task": run}


# -- routes ----------------------------------------------------------------------------------------------------


def nested_routers() -> FastAPI:
    inner, outer = APIRouter(prefix="/inner"), APIRouter(prefix="/outer")
    inner.post("/hooks/{name}")(on_issue_sync)
    inner.get("/hooks/{name}")(on_issue_sync)
    outer.include_router(inner)
    app = FastAPI()
    app.include_router(outer, prefix="/api")
    return app


def test_included_routers(webhooks: Audited) -> None:
    assert send(nested_routers(), "/api/outer/inner/hooks/x").status_code == 200
    assert send(nested_routers(), "/api/outer/inner/hooks/x", method="PUT").status_code == 405
    for record in webhooks.records:
        assert record[schema.HTTP_ROUTE] == record[schema.TARGET_ID] == "/api/outer/inner/hooks/{name}"
    first, second = webhooks.records
    assert first[schema.WORKFLOW_NAME] == f"{__name__}.on_issue_sync"
    assert schema.CODE_FUNCTION not in second


def mounted_in_starlette() -> Starlette:
    return Starlette(routes=[Mount("/v{version}", app=fastapi())])


def mounted_in_fastapi() -> FastAPI:
    app = FastAPI()
    app.mount("/v{version}", Starlette(routes=[Mount("/", app=fastapi())]))
    return app


def mounted_router() -> Starlette:
    return Starlette(
        routes=[Mount("/v{version}", routes=[Route("/hooks/github", starlette_endpoint, methods=["POST"])])]
    )


@pytest.mark.parametrize("make", [mounted_in_starlette, mounted_in_fastapi, mounted_router])
def test_mounted_applications_are_recorded_once(webhooks: Audited, make: Callable[[], Any]) -> None:
    assert send(make(), "/v1/hooks/github").status_code == 200
    assert send(make(), "/v1/hooks/none").status_code == 404
    found, missing = webhooks.records
    assert found[schema.HTTP_ROUTE] == "/v{version}/hooks/github"
    assert found[schema.WORKFLOW_NAME].startswith(f"{__name__}.")
    assert missing[schema.TARGET_ID] == "/v1/hooks/none"


def test_hosts(webhooks: Audited) -> None:
    inner = Router(routes=[Route("/hooks/github", starlette_endpoint, methods=["POST"])])
    send(Starlette(routes=[Host("hooks.example", app=inner)]))
    assert only(webhooks)[schema.HTTP_ROUTE] == "/hooks/github"


class Endpoint(HTTPEndpoint):
    async def post(self, request: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")


def test_class_endpoints(webhooks: Audited) -> None:
    send(Starlette(routes=[Route("/hooks/github", Endpoint)]))
    assert only(webhooks)[schema.WORKFLOW_NAME] == f"{__name__}.Endpoint.post"


def test_a_users_own_route_is_asked_by_its_router_only(webhooks: Audited) -> None:
    asked: list[str] = []

    class Own(BaseRoute):
        def matches(self, scope: Any) -> Any:
            asked.append(scope["path"])
            return Match.NONE, {}

        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError

    app = fastapi()
    app.router.routes.insert(0, Own())
    send(app)
    assert asked == ["/hooks/github"]
    record = only(webhooks)
    assert record[schema.WORKFLOW_NAME] == "/hooks/github"
    assert record[schema.HTTP_ROUTE] == record[schema.TARGET_ID] == "/hooks/github"
    assert record[schema.CODE_FUNCTION] == f"{__name__}.on_issue"


def test_a_middleware_that_changes_the_path(webhooks: Audited) -> None:
    class Rewrite:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                scope["path"] = "/hooks/sync"
            await self.app(scope, receive, send)

    send(fastapi(middleware=[Middleware(Rewrite)]), "/hooks/github")
    record = only(webhooks)
    assert record[schema.HTTP_ROUTE] == "/hooks/sync"
    assert record[schema.CODE_FUNCTION] == f"{__name__}.on_issue_sync"


# -- where it comes from ---------------------------------------------------------------------------------------


def native_telemetry(audited: Audited) -> dict[str, Any]:
    fastapi_telemetry = pytest.importorskip("fastapi.telemetry")
    assert fastapi_telemetry is not None
    return {"telemetry": {"tracer_provider": audited.provider}}


@BOTH
def test_the_senders_trace_is_continued(webhooks: Audited, make: Callable[[], Any]) -> None:
    send(make(), headers={**GITHUB, "traceparent": TRACEPARENT})
    span = audit_span(webhooks)
    assert format(span.context.trace_id, "032x") == TRACE
    assert format(span.parent.span_id, "016x") == "b7ad6b7169203331"


def test_an_unsampled_sender_does_not_switch_the_record_off(webhooks: Audited) -> None:
    send(fastapi(), headers={**GITHUB, "traceparent": TRACEPARENT[:-1] + "0"})
    assert format(audit_span(webhooks).context.trace_id, "032x") == TRACE


@pytest.mark.parametrize("flags", ["01", "00"])
def test_fastapis_own_server_span_is_the_parent(webhooks: Audited, flags: str) -> None:
    app = fastapi(**native_telemetry(webhooks))
    send(app, headers={**GITHUB, "traceparent": TRACEPARENT[:-2] + flags})
    span = audit_span(webhooks)
    assert format(span.context.trace_id, "032x") == TRACE
    if flags == "01":
        (server,) = [s for s in webhooks.spans if s.kind is SpanKind.SERVER]
        assert span.parent.span_id == server.context.span_id
        endpoint = next(s for s in webhooks.spans if s.name == "fastapi.endpoint")
        assert endpoint.parent is not None and endpoint.parent.span_id == span.context.span_id


def baggage(**values: str) -> str:
    return ",".join(f"{name.replace('__', '.')}={quote(value)}" for name, value in values.items())


RECORD = "0b6f1f0e-6f0e-4b57-9d56-0f7f3f6d9c11"


@pytest.mark.parametrize("named", [RECORD, "r1", "<script>", "x" * 36])
@pytest.mark.parametrize("native", [False, True])
def test_a_claimed_parent_run_is_bounded_and_marked(webhooks: Audited, native: bool, named: str) -> None:
    app = fastapi(**native_telemetry(webhooks)) if native else fastapi()
    value = baggage(automation__run__id="evil\n" + "x" * 999, audit__record__id=named, automation__workflow__name="w")
    send(app, headers={**GITHUB, "baggage": value, "traceparent": TRACEPARENT})
    record = only(webhooks)
    assert record[schema.PARENT_RUN_ID] == ("evil?" + "x" * 999)[: runs._LIMIT]
    assert record[schema.PARENT_RUN_CLAIMED] is True
    assert record.get(schema.PARENT_RECORD_ID) == (RECORD if named == RECORD else None)
    assert record[schema.RUN_ID] == seen["endpoint"] == f"webhook/github/{GITHUB['X-GitHub-Delivery']}"
    assert record[schema.WORKFLOW_NAME] == f"{__name__}.on_issue"


def test_a_claimed_ancestor_alone_is_not_believed(webhooks: Audited) -> None:
    send(fastapi(), headers={**GITHUB, "baggage": baggage(audit__record__id=RECORD)})
    assert schema.PARENT_RECORD_ID not in only(webhooks)


def test_what_started_the_server_is_not_the_cause_of_a_delivery(
    webhooks: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", TRACEPARENT)
    monkeypatch.setenv("BAGGAGE", baggage(automation__run__id="the-run-that-started-us", audit__record__id=RECORD))
    environ.forget()
    assert runs.current(environ.parent_context()) is not None
    send(fastapi())
    assert schema.PARENT_RUN_ID not in only(webhooks)
    assert audit_span(webhooks).parent is None


def test_a_call_inside_the_process_is_a_delivery_of_its_own(webhooks: Audited) -> None:
    other = starlette()

    async def forward(request: Any) -> PlainTextResponse:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=other), base_url="http://x") as http:
            await http.post("/hooks/github", headers={"ce-id": "1"})
        return PlainTextResponse("ok")

    send(Starlette(routes=[Route("/hooks/github", forward, methods=["POST"])]))
    second, first = webhooks.records
    assert second[schema.PARENT_RUN_ID] == first[schema.RUN_ID]
    assert second[schema.PARENT_RECORD_ID] == first[schema.RECORD_ID]
    assert schema.PARENT_RUN_CLAIMED not in second


def contrib_parent(audited: Audited, app: Any, instrument: Callable[[], None], path: str = "/hooks/github") -> Any:
    instrument()
    response = send(app, path, headers={**GITHUB, "traceparent": TRACEPARENT})
    (server,) = [span for span in audited.spans if span.kind is SpanKind.SERVER]
    span = audit_span(audited)
    assert format(server.context.trace_id, "032x") == TRACE
    return response, server, span


def test_contribs_server_span_in_fastapi_is_the_parent(webhooks: Audited) -> None:
    contrib = pytest.importorskip("opentelemetry.instrumentation.fastapi")
    app = fastapi()
    instrumentor = contrib.FastAPIInstrumentor
    try:
        _, server, span = contrib_parent(
            webhooks, app, lambda: instrumentor.instrument_app(app, tracer_provider=webhooks.provider)
        )
    finally:
        instrumentor.uninstrument_app(app)
    assert span.parent.span_id == server.context.span_id
    assert seen["endpoint"] == only(webhooks)[schema.RUN_ID]


def test_contribs_server_span_in_starlette_is_the_parent_unless_it_comes_too_late(webhooks: Audited) -> None:
    contrib = pytest.importorskip("opentelemetry.instrumentation.starlette")
    app, guarded = starlette(), starlette()

    async def reject(request: Any, call_next: Any) -> Any:
        return PlainTextResponse("no", status_code=401)

    _, server, span = contrib_parent(
        webhooks, app, lambda: contrib.StarletteInstrumentor.instrument_app(app, tracer_provider=webhooks.provider)
    )
    assert span.parent.span_id == server.context.span_id
    webhooks.spans.clear()
    contrib.StarletteInstrumentor.instrument_app(guarded, tracer_provider=webhooks.provider)
    guarded.add_middleware(BaseHTTPMiddleware, dispatch=reject)
    assert send(guarded).status_code == 401
    assert only(webhooks)[schema.HTTP_STATUS] == 401


def test_contribs_server_span_around_the_application_is_the_parent(webhooks: Audited) -> None:
    contrib = pytest.importorskip("opentelemetry.instrumentation.asgi")
    app = contrib.OpenTelemetryMiddleware(starlette(), tracer_provider=webhooks.provider)
    _, server, span = contrib_parent(webhooks, app, lambda: None)
    assert span.parent.span_id == server.context.span_id


# -- policy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "client", "expected"),
    [
        (None, "203.0.113.77", "203.0.113.0/24"),
        ("network", "2001:db8:1:2::3", "2001:db8:1::/48"),
        ("network", "::ffff:203.0.113.77", "203.0.113.0/24"),
        ("network", "fe80::1%eth0", "fe80::/48"),
        ("network", "a-host-name", None),
        ("full", "203.0.113.77", "203.0.113.77"),
        ("none", "203.0.113.77", None),
    ],
)
def test_the_callers_address_follows_the_policy(
    webhooks: Audited,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    allowed: str | None,
    client: str,
    expected: str | None,
) -> None:
    if allowed is not None:
        file = tmp_path / "policy.yaml"
        file.write_text(f"client_address: {allowed}\nenvironment: test\n", encoding="utf-8")
        monkeypatch.setenv("AUDITSPAN_POLICY", str(file))
    send(fastapi(), client=(client, 1))
    record = only(webhooks)
    assert record.get(schema.CLIENT_ADDRESS) == expected
    if expected != client:
        assert client not in str(record)


@pytest.mark.parametrize("text", ["client_address: sometimes", "- a list", "{", "client_address: [full]", None])
def test_a_bad_policy_is_counted_and_the_strictest_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "policy.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("AUDITSPAN_POLICY", str(file))
    faults.forget()
    assert policies.policy() is policies.STRICTEST
    assert policies.policy() is policies.policy()
    assert faults.snapshot()["policy: read AUDITSPAN_POLICY"].count == 1
    faults.forget()


def test_a_policy_without_pyyaml_is_counted_and_the_strictest_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("client_address: full", encoding="utf-8")
    monkeypatch.setenv("AUDITSPAN_POLICY", str(file))
    monkeypatch.setitem(sys.modules, "yaml", None)
    faults.forget()
    assert policies.policy() is policies.STRICTEST
    assert len(faults.snapshot()) == 1
    faults.forget()


# -- who is behind it --------------------------------------------------------------------------------------------


def test_who_is_logged_in_stands_behind_the_delivery_and_what_it_causes(webhooks: Audited) -> None:
    from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
    from starlette.middleware.authentication import AuthenticationMiddleware

    class Backend(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> Any:
            name = conn.headers.get("x-login")
            return (AuthCredentials(["authenticated"]), SimpleUser(name)) if name else None

    recorder = Recorder("test", "1", webhooks.provider)

    async def handler(request: Any) -> Response:
        details = DataDelete()
        with recorder.record(Event("delete row", details, os_actor(), Target("1", "row"))):
            return Response()

    app = Starlette(routes=[Route("/hooks/{name}", handler, methods=["POST"])])
    app.add_middleware(AuthenticationMiddleware, backend=Backend())
    send(app, headers={**GITHUB, "X-Login": "alice"})
    send(app, headers={"X-Login": "alice"}, path="/hooks/internal")
    send(app, headers=GITHUB)
    inner, delivered, inner_2, by_person, inner_3, by_nobody = webhooks.records
    assert (delivered[schema.ACTOR_ID], delivered[schema.ACTOR_EVIDENCE]) == ("github", "claimed")
    assert delivered[schema.BEHALF_ID] == inner[schema.BEHALF_ID] == inner_2[schema.BEHALF_ID] == "alice"
    assert (by_person[schema.ACTOR_ID], by_person[schema.ACTOR_EVIDENCE]) == ("alice", "framework_login")
    assert by_person[schema.ACTOR_TYPE] == "user"
    assert schema.BEHALF_ID not in {**inner_3, **by_nobody}


def test_a_proxys_login_session_and_fingerprint_are_taken_as_the_policy_says(
    webhooks: Audited, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        "actor: {header: X-User, from: [10.0.0.0/8]}\nsession: {cookie: sid}\nfingerprint: {header: X-Device}\n"
    )
    headers = {**GITHUB, "X-User": "alice", "Cookie": "sid=s-secret-42", "X-Device": "canvas-4711"}
    send(fastapi(), headers=headers, client=("10.1.1.1", 1))
    assert schema.BEHALF_ID not in only(webhooks), "without a policy nobody is believed"
    assert schema.SESSION_ID not in only(webhooks)
    monkeypatch.setenv("AUDITSPAN_POLICY", str(file))
    policies.forget()
    send(fastapi(), headers=headers, client=("10.1.1.1", 1))
    send(fastapi(), headers=headers, client=("203.0.113.7", 1))
    trusted, stranger = webhooks.records[1:]
    assert trusted[schema.BEHALF_ID] == "alice"
    assert schema.BEHALF_ID not in stranger
    for record in (trusted, stranger):
        assert record[schema.SESSION_ID].startswith("hmac-sha256:")
        assert record[schema.CLIENT_FINGERPRINT].startswith("hmac-sha256:")
        assert "s-secret-42" not in str(record)
        assert "canvas-4711" not in str(record)


# -- the application comes first -------------------------------------------------------------------------------


def answers(app: Any) -> list[tuple[int, list[tuple[str, str]], bytes]]:
    result = []
    for path, method in [
        ("/hooks/github", "POST"), ("/hooks/github", "GET"), ("/hooks/sync", "POST"), ("/hooks/nobody", "POST"),
        ("/hooks/github/", "POST"), ("/orders/1", "POST"), ("/hooks/boom", "POST"),
    ]:  # fmt: skip
        response = send(app, path, method=method, raises=False)
        result.append((response.status_code, sorted(response.headers.multi_items()), response.content))
    return result


@BOTH
def test_answers_are_the_same_with_and_without(audited: Audited, make: Callable[[], Any]) -> None:
    def boom(request: Any) -> Any:
        raise Boom

    def app() -> Any:
        made = make()
        made.router.routes.insert(0, Route("/hooks/boom", boom, methods=["POST"]))
        return made

    before = answers(app())
    audited.instrument(StarletteInstrumentor, SignatureInstrumentor)
    assert answers(app()) == before
    assert len(audited.records) == len(before)


@BOTH
@pytest.mark.parametrize(
    ("where", "name"),
    [
        (delivery, "recognise"),
        (delivery, "opening"),
        (delivery, "caused_by"),
        (delivery, "close"),
        (plugin, "_find"),
        (plugin._Receiving, "_sending"),
    ],
)
def test_a_fault_of_ours_leaves_the_answer_alone_and_is_counted(
    webhooks: Audited, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any], where: Any, name: str
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(where, name, broken)
    assert send(make()).json() == {"got": "it"}
    assert [fault.last for fault in faults.snapshot().values()][:1] == ["ZeroDivisionError"]
    assert delivery.current() is None and runs.current() is None
    assert len(webhooks.records) == (name == "_find" or where is plugin._Receiving)
    faults.forget()


def test_a_call_without_arguments_is_refused_at_once(webhooks: Audited) -> None:
    """By this, servers tell an application from a function that makes one."""
    with pytest.raises(TypeError, match="missing 3 required positional arguments"):
        starlette()()  # type: ignore[call-arg]


def test_uninstrument_restores(audited: Audited) -> None:
    original = Starlette.__dict__["__call__"]
    instance = StarletteInstrumentor()
    instance.instrument(tracer_provider=audited.provider)
    assert Starlette.__dict__["__call__"] is not original
    instance.uninstrument()
    assert Starlette.__dict__["__call__"] is original
    send(fastapi())
    assert audited.spans == []


def test_websockets_and_lifespan_are_left_alone(webhooks: Audited) -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        seen["lifespan"] = "up"
        yield
        seen["lifespan"] = "down"

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/hooks/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    async def talk(scope: dict[str, Any], *messages: str) -> list[str]:
        incoming = iter(messages)
        answers: list[str] = []

        async def receive() -> Any:
            return {"type": next(incoming)}

        async def answer(message: Any) -> None:
            answers.append(message["type"])

        await app({**scope, "asgi": {"version": "3.0"}, "state": {}}, receive, answer)
        return answers

    async def go() -> None:
        started = await talk({"type": "lifespan"}, "lifespan.startup", "lifespan.shutdown")
        assert started == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        headers = [(b"x-github-event", b"issues")]
        scope = {"type": "websocket", "path": "/hooks/ws", "headers": headers, "query_string": b"", "root_path": ""}
        assert await talk(scope, "websocket.connect") == ["websocket.accept", "websocket.send", "websocket.close"]

    asyncio.run(go())
    assert seen["lifespan"] == "down"
    assert webhooks.records == []


# -- a real server ---------------------------------------------------------------------------------------------


@contextmanager
def served(app: Any) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@BOTH
def test_over_a_real_server(webhooks: Audited, make: Callable[[], Any]) -> None:
    with served(make()) as address, httpx.Client(base_url=address, trust_env=False) as http:
        headers = {**GITHUB, "traceparent": TRACEPARENT}
        for number in range(3):
            response = http.post("/hooks/github", headers={**headers, "X-GitHub-Delivery": str(number)}, content=b"{}")
            assert response.json() == {"got": "it"}
            # What was acknowledged is in the record already.
            assert len(webhooks.records) == number + 1
        assert http.post("/hooks/nobody", content=b"x").status_code == 404
    assert [record[schema.RUN_ID] for record in webhooks.records[:3]] == [f"webhook/github/{n}" for n in range(3)]
    assert {record[schema.CLIENT_ADDRESS] for record in webhooks.records} == {"127.0.0.0/24"}


def test_deliveries_at_the_same_time_do_not_mix(webhooks: Audited) -> None:
    app = FastAPI()

    @app.post("/hooks/{name}")
    async def endpoint(name: str) -> str:
        await asyncio.sleep(0.01)
        run = runs.current()
        return run.id if run else "none"

    async def go() -> list[Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as http:
            calls = [http.post(f"/hooks/{n}", headers={"X-GitHub-Delivery": str(n)}) for n in range(20)]
            return [response.json() for response in await asyncio.gather(*calls)]

    assert asyncio.run(go()) == [f"webhook/github/{n}" for n in range(20)]
    assert len({record[schema.RECORD_ID] for record in webhooks.records}) == 20
