# SPDX-License-Identifier: Apache-2.0
"""Every kind of token, every place: nothing survives; and without its pattern each would: the tests can fail."""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
from collections.abc import Iterator
from typing import Any

import opentelemetry.semconv
import pytest

from auditspan.capture import secret_detection, secret_patterns
from auditspan.capture.secret_detection import REMOVED, is_secret_name, scrub, scrub_mapping, scrub_text
from tests.capture.planted import plants
from tests.capture.planted_places import AROUND, PLACES, TOKENS

EACH = 25


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    secret_detection.forget()
    yield
    secret_detection.forget()


def survives(secret: str, found: Any) -> bool:
    text = repr(found)
    return any(secret[at : at + 12] in text for at in range(max(1, len(secret) - 11)))


def random_part(token: str) -> str:
    return re.split(r"[/._-]", token)[-1][-32:] if len(token) < 300 else token[-32:]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_survives_in_any_place(place: str) -> None:
    rng = random.Random(place)
    for _ in range(EACH):
        secret, value = PLACES[place](rng)
        assert survives(secret, bytes(value) if isinstance(value, memoryview) else value) or isinstance(value, dict)
        for cleaned, removed in (scrub(value), scrub_mapping({"app.detail": value})):
            assert not survives(secret, cleaned), value
            assert removed
            assert not survives(secret, removed)


def test_every_kind_of_token_is_planted() -> None:
    assert TOKENS.keys() == secret_patterns.TOKENS.keys()


def leaks(kind: str) -> list[str]:
    rng = random.Random(kind)
    found = []
    for around in AROUND * 3:
        token = TOKENS[kind](rng)
        if survives(random_part(token), scrub_text(around.format(token))):
            found.append(around.format(token))
    return found


@pytest.mark.parametrize("kind", TOKENS)
def test_no_token_survives_and_without_its_pattern_it_would(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert leaks(kind) == []
    monkeypatch.delitem(secret_detection._TOKENS, kind)
    secret_detection.forget()
    assert leaks(kind) != []


@pytest.mark.parametrize("stage", [name for name, _ in secret_detection.STAGES])
def test_each_stage_is_needed(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple(pair for pair in secret_detection.STAGES if pair[0] != stage)
    monkeypatch.setattr(secret_detection, "STAGES", kept)
    rng = random.Random(stage)
    assert any(survives(secret, scrub(value)[0]) for secret, value in (make(rng) for make in PLACES.values()))


def test_the_first_look_hides_nothing_and_a_second_scrub_finds_nothing() -> None:
    rng = random.Random(5)
    found = [text for plant in plants(11, 1500) for text in texts(plant.value)]
    found += [text for make in PLACES.values() for _ in range(5) for text in texts(make(rng)[1])]
    found += [around.format(make(rng)) for make in TOKENS.values() for around in AROUND]
    for text in found:
        cleaned = secret_detection._scrubbed(text)
        assert cleaned is text or secret_detection._may(text), text
        assert scrub_text(cleaned) == cleaned


INNOCENT = r"""
token bucket: 3 of 10 left
Invalid token: unexpected end of input
SyntaxError: unexpected token: name
PASS: test_foo
PASS: 12 tests
pass=12 fail=3
auth=none
authorization: missing
Authorization: required
Cookie policy: strict
missing fields: ['password', 'email']
KeyError: 'token'
KeyError: 'password'
secret "db-credentials" not found
field 'api_key' is required
def login(user: str, password: str, token: Optional[str] = None) -> None:
password = self.settings.password
token = os.environ["API_TOKEN"]
password=password, user=user
api_key={api_key}
api_key=%(api_key)s
password=%s
WHERE password = ?
password = :password
PWD=/home/user/app
OLDPWD=/srv
--password-file /run/secrets/pw
--token-count 5
option --password was removed
https://user@example.com/x
ssh://git@github.com/acme/app.git
git@github.com:acme/app.git
https://example.com:8443/a@b/c
http://h/?code=US&page=1
status_code=500 code=12
?q=key&sort=asc
error code: 1045
exit code=137
zip code: 12345
X-Hub-Signature-256: sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=
signature verified true
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
the secret of success is 12
token type: bearer
grant_type=client_credentials&scope=read
Bearer of news
Bearer authentication-failed
Basic authentication is off
basic usage: run it
primary key: id
foreign key: customer_id
partition key=2026-11-24
cache_key=weather:2026
routing_key=orders.created
public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8
key: value
keys: 3
sort=key
passed: 12
compass=north
tokenizer: cl100k_base
max_tokens=4096
token_count: 17
input_tokens=123
secret_name: db-password
cookie_domain=example.com
session.id=abc
mysession
author=Bob
authority=example.com
authenticated=true
authentication=none
auth_type: oidc
auth.method=ldap
access: public
accesskeyid
api: v2
apis=3
pin to version 1.2.3
spinning: yes
pinned=true
dsn
wrote 3 rows
token: none
password: null
"password": null
password: ***
password=******
token=<redacted>
secret: [secret removed]
password=[secret removed]&x=1
eyJmb28iOiJiYXIifQ
the commit 8f3c1de0b2a94e0f7f0c6c5a1d2e3f4a5b6c7d8e of token.py
see docs/tokens.md
risk-level-of-the-whole-organisation-2026
task-force-reorganisation-project-alpha
sk-learn
monkey-12345678901234567890123456789012
patterns.of.abc
hvsomething.else
key-value-store
pat-a-cake
SGML.is.old
skills
disk-1234
AKIA is a prefix
-----BEGIN CERTIFICATE-----
begins with -----BEGIN PRIVATE KEY----- and so on
must have -----BEGIN RSA PRIVATE KEY----- as its first line
password reset link sent
Reset your password: click the link
password must be changed
passwords: 3 rotated
secrets: 3 found
token expires 2026-11-24T03:00:00Z
token id 550e8400-e29b-41d4-a716-446655440000
key id 9f86d081884c7d65
token_hash=9f86d081884c7d659a2f
policy payouts: allowed
user.password.changed_at=2026-11-24
<password></password>
<token/>
<p>key</p>
cookie banner: shown
curl -u
curl --user-agent x:y https://h
docker run -u 1000:1000 x
uv pip install auth: ok
{"type": "password", "label": "Password"}
INSERT INTO users (password) VALUES (?)
ALTER TABLE t ADD password VARCHAR(255)
identified by the user
password authentication failed for user "svc"
FATAL:  password authentication failed for user 'svc'
redis://localhost:6379/0
postgresql://db:5432/app?sslmode=require
s3://bucket/key=1/part-0000.parquet
arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf
projects/p/secrets/db/versions/3
vault kv get secret/db
/run/secrets/db_password
C:\Users\token\x.txt
urn:ietf:params:oauth:grant-type:jwt-bearer
oauth2: token endpoint https://h/token
POST /oauth/token 200
GET /v1/secrets?limit=5
https://h/login?next=/home
hash=abc123 size=4
mailto:a@b.c
00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
$5 and $6 were paid
costs $2a year
1//2
a//0b
""".strip().splitlines()


@pytest.mark.parametrize("text", INNOCENT)
def test_what_speaks_of_secrets_is_left_alone(text: str) -> None:
    assert scrub_text(text) is text


def test_no_name_of_the_semantic_conventions_is_taken_for_a_secret() -> None:
    names: set[str] = set()
    for module in pkgutil.walk_packages(opentelemetry.semconv.__path__, "opentelemetry.semconv."):
        if "attributes" in module.name and "_incubating" not in module.name:
            names |= {value for value in vars(importlib.import_module(module.name)).values() if isinstance(value, str)}
    names = {name for name in names if re.fullmatch(r"[a-z0-9_.]+", name)}
    assert len(names) > 50
    assert [name for name in names if is_secret_name(name)] == []


def test_a_signature_is_a_secret_only_in_a_url() -> None:
    # Whoever has a signed URL may use it; the signature of a webhook proves where a body came from and opens nothing.
    assert scrub_text("https://h/x?se=1&Signature=abcdef012345") == f"https://h/x?se=1&Signature={REMOVED}"
    assert not is_secret_name("webhook.signature")
    assert (
        scrub_text("webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQ=")
        == "webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQ="
    )


def test_names_that_become_the_same_keep_both_values() -> None:
    first, second = TOKENS["github"](random.Random(1)), TOKENS["github"](random.Random(2))
    assert scrub({first: 1, second: 2})[0] == {REMOVED: 1, f"{REMOVED} (2)": 2}


def test_what_is_shared_many_times_is_looked_at_once() -> None:
    value: list[Any] = ["x"]
    for _ in range(30):
        value = [value, value]
    assert scrub(value)[0] is value


def test_a_label_beside_a_value_is_read_among_the_attributes_themselves() -> None:
    for label in ("name", "key"):
        cleaned, removed = scrub_mapping({label: "DB_PASSWORD", "value": "hunter2"})
        assert (cleaned["value"], removed) == (REMOVED, ["value"])
        assert scrub_mapping({label: "colour", "value": "green"}) == ({label: "colour", "value": "green"}, [])


def test_what_is_remembered_is_bounded_and_has_no_secret() -> None:
    for number in range(5000):
        scrub_mapping({f"app.name{number}": f"value {number}", "app.other": "x" * 300 + str(number)})
        scrub_mapping({"app.detail": f"password=hunter{number}x!", f"secret{number}": "plain"})
    kept = (secret_detection._clean, secret_detection._clean_long, secret_detection._clean_names)
    assert [len(clean) <= most for clean, most in zip(kept, (4096, 128, 1024), strict=True)] == [True] * 3
    assert not any("hunter" in text or text == "plain" for text in secret_detection._clean)
