# SPDX-License-Identifier: Apache-2.0
"""The policy file: what it can say, and that nothing else is taken for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from auditspan import schema
from auditspan.capture import privacy
from auditspan.capture.policy import Policy, PolicyError, Treat, Treatment, parse
from auditspan.capture.privacy import minimise, network_of, pseudonym

DOCS = Path(__file__).parents[2] / "docs" / "privacy.md"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def put(text: str) -> Policy:
        policy = parse(yaml.safe_load(text))
        monkeypatch.setattr(privacy, "policy", lambda: policy)
        return policy

    return put


def test_the_documented_defaults_are_the_defaults() -> None:
    assert parse(yaml.safe_load(EXAMPLES[0])) == Policy()


def test_the_documented_example_says_what_it_says() -> None:
    policy = parse(yaml.safe_load(EXAMPLES[1]))
    treatments, tags = policy.for_target("crm.contact")
    assert treatments[schema.TARGET_ID] == Treat(Treatment.HASH)
    assert treatments[schema.USER_AGENT] == Treat(Treatment.TRUNCATE, 40)
    assert tags == {schema.MODULE: "sales", schema.FEATURE: "contacts", schema.RISK_LEVEL: "high"}
    assert schema.TARGET_ID not in policy.for_target("singer.stream")[0]
    assert policy.is_personal("automation.task.name")
    assert (policy.actor_header, policy.session_cookie) == ("x-forwarded-user", "sessionid")
    assert policy.environment == "production"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list", "must be a mapping"),
        ("privcy: {}", "'privcy' is not known here"),
        ("client_address: sometimes", "client_address must be one of"),
        ("client_address: [full]", "client_address must be one of"),
        ("privacy: {attributes: {client.address: maybe}}", "must be one of: keep, drop"),
        ("privacy: {attributes: {audit.actor.ident: drop}}", "not in the registry"),
        ("privacy: {attributes: {audit.record.id: drop}}", "always kept"),
        ("privacy: {attributes: {audit.outcome: drop}}", "always kept"),
        ("privacy: {attributes: {user_agent.original: {truncate: 0}}}", "from 1 to 4096"),
        ("privacy: {classes: {public: drop}}", "'public' is not known here"),
        ("privacy: {personal: audit.target.id}", "must be a list"),
        ("actor: {header: X-User}", "give both"),
        ("actor: {header: X-User, from: [everywhere]}", "not a network"),
        ("session: {cookie: 7}", "must be a text"),
        ("targets: {type: x}", "must be a list"),
        ("targets: [{attributes: {}}]", "type is missing"),
        ("targets: [{type: x, tags: {risk: huge}}]", "must be critical, high, low, medium"),
    ],
)
def test_what_is_not_understood_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said)):
        parse(yaml.safe_load(text), "policy.yaml")


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48"),
        ("::ffff:203.0.113.7", "203.0.113.0/24"),
        ("fe80::1%eth0", "fe80::/48"),
        ("203.0.113.0/24", "203.0.113.0/24"),
        ("partner.example", None),
        ("/run/app.sock", None),
    ],
)
def test_networks(host: str, network: str | None) -> None:
    assert network_of(host) == network


def test_pseudonyms_are_stable_keyed_and_of_one_attribute(tmp_path: Path) -> None:
    privacy.use_key(tmp_path / "pseudonym.key")
    one = pseudonym("session.id", "abc")
    assert one == pseudonym("session.id", "abc") != pseudonym("client.address", "abc")
    assert re.fullmatch(r"hmac-sha256:[0-9a-f]{32}", one)
    assert (tmp_path / "pseudonym.key").stat().st_mode & 0o077 == 0
    privacy.use_key(tmp_path / "pseudonym.key")
    assert pseudonym("session.id", "abc") == one, "the key is kept for the next process"
    privacy.use_key(tmp_path / "another.key")
    assert pseudonym("session.id", "abc") != one


def test_minimisation(use, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    privacy.use_key(tmp_path / "key")
    use(
        """
        privacy:
          classes: {personal: drop}
          attributes: {user_agent.original: {truncate: 5}, audit.change.fields: hash}
        targets:
          - {type: crm.*, attributes: {audit.target.id: hash}, tags: {risk: high}}
        """
    )
    said = {
        schema.ACTOR_ID: "alice", schema.CLIENT_ADDRESS: "203.0.113.7", schema.USER_AGENT: "Mozilla/5.0",
        schema.TARGET_ID: "bob@example.com", schema.CHANGE_FIELDS: ["email", "phone"], "password": "hunter2hunter2",
    }  # fmt: skip
    found = minimise(dict(said), "crm.contact")
    assert found[schema.ACTOR_ID] == schema.WITHHELD, "a record must have it"
    assert schema.CLIENT_ADDRESS not in found
    assert found[schema.USER_AGENT] == "Mozil"
    assert found[schema.TARGET_ID] == pseudonym(schema.TARGET_ID, "bob@example.com")
    assert [len(item) for item in found[schema.CHANGE_FIELDS]] == [44, 44]
    assert found[schema.RISK_LEVEL] == "high"
    assert found[schema.REDACTED] == ["password"]
    assert not any(secret in str(found) for secret in ("alice", "203.0", "bob@", "hunter2", "email"))
    assert minimise(dict(said), "table")[schema.TARGET_ID] == "bob@example.com"
