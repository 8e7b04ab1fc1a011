# SPDX-License-Identifier: Apache-2.0
"""Signature checks by the real standardwebhooks and the real hmac: seen as true, as false, or not at all."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import inspect
import json
import pickle
import secrets
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from auditspan import schema
from auditspan.capture import faults
from auditspan.webhooks import delivery, signatures
from auditspan.webhooks.delivery import SENDERS, UNKNOWN_SENDER, Delivery
from auditspan.webhooks.signatures import SignatureInstrumentor
from auditspan.webhooks.starlette import StarletteInstrumentor
from tests.plugins.conftest import Audited

ORIGINAL = hmac.compare_digest
KEY = b"the-shared-secret"
BODY = b'{"action": "opened"}'
DIGEST = hmac.new(KEY, BODY, hashlib.sha256)
GITHUB = next(sender for sender in SENDERS if sender.name == "github")
VERIFIED, VERIFIER = schema.WEBHOOK_SIGNATURE_VERIFIED, schema.WEBHOOK_SIGNATURE_VERIFIER


@pytest.fixture
def signed(audited: Audited) -> Audited:
    audited.instrument(StarletteInstrumentor, SignatureInstrumentor)
    return audited


def observed(headers: dict[str, str], check: Callable[[], Any], sender: str = "github") -> tuple[str, str | None]:
    """Run `check` inside a delivery with `headers`; return what was observed."""
    row = next((row for row in SENDERS if row.name == sender), UNKNOWN_SENDER)
    found = Delivery(row, headers)
    with delivery.carried(found):
        check()
    assert delivery.current() is None
    return found.verified.value, found.verifier


# -- by hand ---------------------------------------------------------------------------------------------------

GOOD = {"x-hub-signature-256": f"sha256={DIGEST.hexdigest()}"}
BY_HAND = "hmac.compare_digest"
BASE64 = base64.b64encode(DIGEST.digest()).decode()
WRONG = hmac.new(b"another", BODY, hashlib.sha256)

CHECKS: list[tuple[str, str, dict[str, str], Callable[[str], Any], Callable[[Any], Any]]] = [
    # sender, header, its good value, how the user reads it, how the user writes what is expected
    ("github", "x-hub-signature-256", GOOD, lambda v: v, lambda d: f"sha256={d.hexdigest()}"),
    ("github", "x-hub-signature-256", GOOD, lambda v: v.encode(), lambda d: f"sha256={d.hexdigest()}".encode()),
    ("github", "x-hub-signature-256", GOOD, lambda v: v.split("=")[1], lambda d: d.hexdigest()),
    ("github", "x-hub-signature-256", GOOD, lambda v: bytes.fromhex(v[7:]), lambda d: d.digest()),
    ("github", "x-hub-signature-256", GOOD,
     lambda v: bytearray(v.encode()), lambda d: f"sha256={d.hexdigest()}".encode()),
    ("stripe", "stripe-signature", {"stripe-signature": f"t=1700000000,v1={DIGEST.hexdigest()}"},
     lambda v: v.split(",")[1].split("=")[1], lambda d: d.hexdigest()),
    ("slack", "x-slack-signature", {"x-slack-signature": f"v0={DIGEST.hexdigest()}"},
     lambda v: v, lambda d: f"v0={d.hexdigest()}"),
    ("shopify", "x-shopify-hmac-sha256", {"x-shopify-hmac-sha256": BASE64},
     lambda v: v, lambda d: base64.b64encode(d.digest()).decode()),
    ("shopify", "x-shopify-hmac-sha256", {"x-shopify-hmac-sha256": BASE64}, base64.b64decode, lambda d: d.digest()),
    ("standard_webhooks", "webhook-signature", {"webhook-signature": f"v1,{BASE64} v1a,abcdefghijklmnopqrst"},
     lambda v: v.split(" ")[0].split(",")[1], lambda d: base64.b64encode(d.digest()).decode()),
    ("unknown", "x-acme-signature", {"x-acme-signature": f'id="k", signature="{BASE64}"'},
     lambda v: v.split('"')[3], lambda d: base64.b64encode(d.digest()).decode()),
]  # fmt: skip


@pytest.mark.parametrize("case", CHECKS, ids=[f"{case[0]}-{number}" for number, case in enumerate(CHECKS)])
def test_a_comparison_with_the_presented_signature_counts(signed: Audited, case: Any) -> None:
    sender, name, headers, read, write = case
    presented = read(headers[name])
    for digest, expected in ((DIGEST, "true"), (WRONG, "false")):
        for operands in ((presented, write(digest)), (write(digest), presented)):
            assert observed(headers, lambda o=operands: hmac.compare_digest(*o), sender) == (expected, BY_HAND)


def test_a_shared_token_counts_as_a_whole_only(signed: Audited) -> None:
    headers = {"x-gitlab-token": "tok=en"}
    assert observed(headers, lambda: hmac.compare_digest("tok=en", "tok=en"), "gitlab") == ("true", BY_HAND)
    assert observed(headers, lambda: hmac.compare_digest(b"other!", b"tok=en"), "gitlab") == ("false", BY_HAND)
    assert observed(headers, lambda: hmac.compare_digest("tok", "tok"), "gitlab") == ("not_observed", None)
    assert observed({"x-gitlab-token": ""}, lambda: hmac.compare_digest("", ""), "gitlab") == ("not_observed", None)


def test_other_comparisons_do_not_count(signed: Audited) -> None:
    def unrelated() -> None:
        assert hmac.compare_digest("a-session-token-of-the-user", "a-session-token-of-the-user")
        assert hmac.compare_digest("sha256", "sha256")  # a part of the header, but no signature
        assert not hmac.compare_digest(b"one-csrf-token-or-other", b"another-csrf-token-here")

    assert observed(GOOD, unrelated) == ("not_observed", None)
    assert observed({}, unrelated) == ("not_observed", None)
    assert observed({"stripe-signature": "t=1700000000,v1=x"}, lambda: hmac.compare_digest("1700000000", "1700000000"),
                    "stripe") == ("not_observed", None)  # fmt: skip


def test_one_success_among_several_keys_is_enough(signed: Audited) -> None:
    given = GOOD["x-hub-signature-256"][7:]

    def old_and_new() -> None:
        for key in (b"new", KEY, b"older"):
            hmac.compare_digest(hmac.new(key, BODY, hashlib.sha256).hexdigest(), given)

    assert observed(GOOD, old_and_new) == ("true", BY_HAND)


def test_a_flood_of_signatures_is_bounded() -> None:
    found = Delivery(GITHUB, {"x-hub-signature-256": ",".join(f"{n:064x}" for n in range(100_000))})
    started = time.perf_counter()
    texts, raw = found.presented
    assert len(texts) <= 64 and len(raw) <= 192
    assert time.perf_counter() - started < 0.5


def test_the_watcher_compares_with_compare_digest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """`==`, `in` and hashing would tell by their duration how much of the expected signature is right."""

    class Secret(str):
        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared by ==")

        __hash__ = None  # type: ignore[assignment]

    compared: list[tuple[Any, Any]] = []

    def compare(a: Any, b: Any) -> bool:
        compared.append((a, b))
        return False

    found = Delivery(GITHUB, {"x-hub-signature-256": "sha256=" + "0" * 64})
    assert signatures._is_about(found, (Secret("f" * 64), "0" * 64), compare) is False
    assert len(compared) == 2


# -- behaves like the original ---------------------------------------------------------------------------------

CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("a", "a"), {}), (("a", "b"), {}), ((b"a", bytearray(b"a")), {}), ((memoryview(b"a"), b"a"), {}),
    (("ä", "ä"), {}), (("a", b"a"), {}), ((1, 1), {}), ((None, "a"), {}), (("a",), {}), (("a", "b", "c"), {}),
    ((), {"a": "a", "b": "a"}), (("a",), {"b": "b"}),
]  # fmt: skip


def outcome(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_results_and_errors_are_those_of_the_original(
    signed: Audited, args: tuple[Any, ...], kwargs: dict[str, Any], inside: bool
) -> None:
    assert hmac.compare_digest is not ORIGINAL
    with delivery.carried(Delivery(GITHUB, GOOD) if inside else None):
        assert outcome(hmac.compare_digest, args, kwargs) == outcome(ORIGINAL, args, kwargs)


def test_every_way_to_get_it(signed: Audited) -> None:
    from hmac import compare_digest

    for function in (compare_digest, secrets.compare_digest, hmac.compare_digest):
        assert observed(GOOD, lambda f=function: f(DIGEST.hexdigest(), GOOD["x-hub-signature-256"][7:]))[0] == "true"
    assert pickle.loads(pickle.dumps(hmac.compare_digest)) is hmac.compare_digest
    assert hmac.compare_digest.__doc__ == ORIGINAL.__doc__
    assert hmac.compare_digest.__name__ == "compare_digest"
    assert outcome(inspect.signature, (hmac.compare_digest,), {}) == outcome(inspect.signature, (ORIGINAL,), {})


def test_a_fault_of_ours_is_contained_and_counted(signed: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_is_about", lambda *_: 1 / 0)
    with delivery.carried(Delivery(GITHUB, GOOD)):
        assert hmac.compare_digest("a", "a") is True
    assert faults.snapshot()["signatures: hmac.compare_digest"].count == 1
    faults.forget()


def test_outside_of_deliveries_it_costs_next_to_nothing(signed: Audited) -> None:
    def best(function: Any) -> float:
        return min(timeit.repeat(lambda: function("a" * 64, "a" * 64), number=20_000, repeat=5)) / 20_000

    assert best(hmac.compare_digest) - best(ORIGINAL) < 2e-6  # about 0.1 µs on a quiet machine


def test_uninstrument_restores_and_silences_copies(audited: Audited) -> None:
    webhooks = pytest.importorskip("standardwebhooks.webhooks")
    verify = webhooks.Webhook.__dict__["verify"]
    instance = SignatureInstrumentor()
    instance.instrument(tracer_provider=audited.provider)
    copy = hmac.compare_digest
    assert copy is secrets.compare_digest is not ORIGINAL
    assert webhooks.Webhook.__dict__["verify"] is not verify
    instance.uninstrument()
    assert hmac.compare_digest is secrets.compare_digest is ORIGINAL
    assert webhooks.Webhook.__dict__["verify"] is verify
    assert observed(GOOD, lambda: copy(DIGEST.hexdigest(), GOOD["x-hub-signature-256"][7:])) == ("not_observed", None)


def test_it_can_be_disabled(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDITSPAN_DISABLED_PLUGINS", "signatures")
    audited.instrument(SignatureInstrumentor)
    assert hmac.compare_digest is ORIGINAL


def test_standardwebhooks_is_not_imported_for_us_but_seen_when_it_is() -> None:
    script = """
import sys
from auditspan.webhooks import delivery
from auditspan.webhooks.signatures import SignatureInstrumentor
plugin = SignatureInstrumentor()
plugin.instrument()
assert not {"standardwebhooks", "starlette", "yaml", "httpx"} & set(sys.modules), "imported too much"
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
found = delivery.Delivery(delivery.SENDERS[-2], {})
with delivery.carried(found):
    try:
        Webhook("c2VjcmV0LXNlY3JldC1zZWNyZXQ=").verify(b"{}", {})
    except WebhookVerificationError:
        pass
print(found.verified.value, found.verifier)
plugin.uninstrument()
"""
    pytest.importorskip("standardwebhooks")
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("false standardwebhooks", "")


# -- standardwebhooks ------------------------------------------------------------------------------------------

SECRET = base64.b64encode(b"a-secret-of-standardwebhooks").decode()


def standard(data: str = '{"type": "invoice.paid", "card": "4242"}', secret: str = SECRET) -> dict[str, str]:
    webhooks = pytest.importorskip("standardwebhooks.webhooks")
    now = datetime.now(tz=timezone.utc)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": webhooks.Webhook(secret).sign("msg_1", now, data),
    }


def verifying(data: str | bytes, headers: dict[str, str], **kwargs: Any) -> Callable[[], Any]:
    webhooks = pytest.importorskip("standardwebhooks.webhooks")

    def verify() -> None:
        with contextlib.suppress(webhooks.WebhookVerificationError, ValueError):
            webhooks.Webhook(SECRET).verify(data, headers, **kwargs)

    return verify


def test_verify_is_seen(signed: Audited) -> None:
    data = '{"type": "invoice.paid"}'
    other = base64.b64encode(b"another-secret-altogether").decode()
    name = "standardwebhooks"

    def result(*args: Any, **kwargs: Any) -> Any:
        return observed(args[1], verifying(*args, **kwargs), "standard_webhooks")

    assert result(data, standard(data)) == ("true", name)
    assert result(data, standard(data), json_parse=False) == ("true", name)
    assert result(data + " ", standard(data)) == ("false", name)
    assert result(data, standard(data, other)) == ("false", name)
    assert result(data, {}) == ("false", name)
    assert result(data, {**standard(data), "webhook-timestamp": "1"}) == ("false", name)
    assert result(data, {**standard(data), "webhook-signature": "not,a,signature"}) == ("false", name)
    # Its signature was good; that the body is no JSON is another matter.
    assert result("not json", standard("not json")) == ("true", name)


def test_only_what_looks_like_an_event_type_is_taken_from_the_body() -> None:
    for value, expected in (
        ("invoice.paid", "invoice.paid"), ("a b", None), ("x" * 200, None), (7, None), ({"a": 1}, None), ("", None),
    ):  # fmt: skip
        found = Delivery(UNKNOWN_SENDER, {})
        found.name_event(value)
        assert found.event_type == expected


# -- through an application ------------------------------------------------------------------------------------


@pytest.fixture
def post(signed: Audited) -> Iterator[Callable[..., Any]]:
    httpx = pytest.importorskip("httpx")
    webhooks = pytest.importorskip("standardwebhooks.webhooks")
    applications = pytest.importorskip("starlette.applications")
    exceptions = pytest.importorskip("starlette.exceptions")
    concurrency = pytest.importorskip("starlette.concurrency")
    responses = pytest.importorskip("starlette.responses")
    routing = pytest.importorskip("starlette.routing")

    async def by_library(request: Any) -> Any:
        def check() -> None:
            webhooks.Webhook(SECRET).verify(body, dict(request.headers))

        body = await request.body()
        try:
            await concurrency.run_in_threadpool(check)  # as in an endpoint that is not async
        except webhooks.WebhookVerificationError:
            raise exceptions.HTTPException(401) from None
        return responses.Response("ok")

    async def by_hand(request: Any) -> Any:
        expected = "sha256=" + hmac.new(KEY, await request.body(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, request.headers.get("x-hub-signature-256", "")):
            raise exceptions.HTTPException(401)
        return responses.Response("ok")

    async def unchecked(request: Any) -> Any:
        return responses.Response("ok")

    app = applications.Starlette(
        routes=[
            routing.Route("/hooks/standard", by_library, methods=["POST"]),
            routing.Route("/hooks/github", by_hand, methods=["POST"]),
            routing.Route("/hooks/careless", unchecked, methods=["POST"]),
        ]
    )

    def go(path: str, body: bytes, headers: dict[str, str]) -> int:
        async def call() -> int:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
                response = await http.post(path, content=body, headers=headers)
                status: int = response.status_code
                return status

        return asyncio.run(call())

    yield go


def last(audited: Audited) -> tuple[Any, ...]:
    record = audited.records[-1]
    return tuple(record.get(name) for name in (VERIFIED, VERIFIER, schema.ACTOR_EVIDENCE, schema.OUTCOME))


def test_by_hand_in_an_application(signed: Audited, post: Callable[..., Any]) -> None:
    headers = {"X-GitHub-Event": "issues", "X-GitHub-Delivery": "1", **GOOD}
    assert post("/hooks/github", BODY, headers) == 200
    assert last(signed) == ("true", BY_HAND, "signature", "success")
    assert post("/hooks/github", BODY + b" ", headers) == 401  # tampered
    assert last(signed) == ("false", BY_HAND, "claimed", "failure")
    assert post("/hooks/github", BODY, {"X-GitHub-Event": "issues"}) == 401  # unsigned: nothing was there to compare
    assert last(signed) == ("not_observed", None, "claimed", "failure")
    assert post("/hooks/careless", BODY, headers) == 200
    assert last(signed) == ("not_observed", None, "claimed", "success")


def test_by_library_in_an_application(signed: Audited, post: Callable[..., Any]) -> None:
    data = json.dumps({"type": "invoice.paid", "card": "4242-never-recorded"})
    headers = standard(data)
    assert post("/hooks/standard", data.encode(), headers) == 200
    assert last(signed) == ("true", "standardwebhooks", "signature", "success")
    assert signed.records[-1][schema.WEBHOOK_EVENT_TYPE] == "invoice.paid"
    assert post("/hooks/standard", data.encode() + b" ", headers) == 401
    assert last(signed) == ("false", "standardwebhooks", "claimed", "failure")
    assert signed.records[-1][schema.WEBHOOK_EVENT_TYPE] == "unknown"
    assert post("/hooks/careless", data.encode(), headers) == 200
    assert last(signed) == ("not_observed", None, "claimed", "success")
    for span in signed.spans:
        text = str(dict(span.attributes or {}))
        assert "never-recorded" not in text and SECRET not in text and headers["webhook-signature"] not in text
