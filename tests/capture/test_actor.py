# SPDX-License-Identifier: Apache-2.0
"""Who is behind a request: only what there is evidence for, from where the policy allows."""

from __future__ import annotations

import pytest
import yaml

from auditspan.capture import actor
from auditspan.capture.actor import caller_of
from auditspan.capture.policy import parse
from auditspan.schema import ActorEvidence, ActorType

POLICY = """
actor: {header: X-Forwarded-User, from: [10.0.0.0/8, 2001:db8::/32]}
session: {cookie: sid}
fingerprint: {header: X-Device}
"""


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    found = parse(yaml.safe_load(POLICY))
    monkeypatch.setattr(actor, "policy", lambda: found)


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7"])
def test_a_trusted_proxy_is_believed(peer: str) -> None:
    person = caller_of({"x-forwarded-user": "alice"}, peer).person
    assert person is not None
    assert (person.id, person.type, person.evidence) == ("alice", ActorType.USER, ActorEvidence.HEADER)


@pytest.mark.parametrize("peer", ["203.0.113.7", None, "unix:/run/app.sock", "10.1.2.3.4", ""])
def test_nobody_else_is(peer: str | None) -> None:
    assert caller_of({"x-forwarded-user": "alice"}, peer).person is None


def test_the_frameworks_own_login_comes_first() -> None:
    person = caller_of({"x-forwarded-user": "alice"}, "10.0.0.1", login="bob").person
    assert person is not None
    assert (person.id, person.evidence) == ("bob", ActorEvidence.FRAMEWORK_LOGIN)


def test_session_and_fingerprint() -> None:
    caller = caller_of({"cookie": "a=1; sid=s-42; b=2", "x-device": "fp"}, None)
    assert (caller.session, caller.fingerprint) == ("s-42", "fp")
    assert caller_of({"cookie": "\x00;;=", "x-device": ""}, None) == actor.Caller()


def test_without_a_policy_nothing_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "policy", lambda: parse({}))
    headers = {"x-forwarded-user": "alice", "cookie": "sid=s", "x-device": "fp"}
    assert caller_of(headers, "10.0.0.1") == actor.Caller()


def test_the_actor_of_the_process_is_the_operating_system_user() -> None:
    found = actor.os_actor()
    assert found.id
    assert (found.type, found.evidence) == (ActorType.SYSTEM, ActorEvidence.OS_USER)
