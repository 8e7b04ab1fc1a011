# SPDX-License-Identifier: Apache-2.0
"""Secrets are taken out wherever they stand; what only looks like one is left alone."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from auditspan.capture import secret_detection, secret_patterns
from auditspan.capture.secret_detection import (
    CUT,
    LIMIT,
    REMOVED,
    is_secret_name,
    scrub,
    scrub_mapping,
    scrub_text,
)
from auditspan.capture.secret_labels import digits_do_not_matter
from auditspan.schema import rules
from tests.capture.planted import KINDS, Plant, plants

DOCS = Path(__file__).parents[2] / "docs"


def survives(secret: str, found: Any) -> bool:
    """Tell whether a secret, or any 12 characters of it, is left in what was cleaned."""
    text = repr(found)
    flat = secret.replace("\\n", "\n").split("\n")
    return any(part[i : i + 12] in text for part in flat for i in range(0, max(1, len(part) - 11), 4))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_secret(kind: str) -> None:
    for plant in [plant for plant in plants(7, 60 * len(KINDS)) if plant.kind == kind]:
        assert survives(plant.secret, plant.value), "the test itself can see it"
        cleaned, removed = scrub_mapping({plant.name: plant.value})
        assert not survives(plant.secret, cleaned), plant
        assert removed
        assert not any(survives(plant.secret, name) for name in removed)
        deep, where = scrub({"deep": [plant.value]})
        assert not survives(plant.secret, deep)
        assert where


def test_a_thousand_planted_secrets_leave_nothing_behind() -> None:
    found: list[Plant] = plants(4711, 1500)
    assert not [plant for plant in found if survives(plant.secret, scrub(plant.value)[0])]


INNOCENT = """
sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a
git:8f3c1de0b2a94e0f7f0c6c5a1d2e3f4a5b6c7d8e
0b6f1f0e-6f0e-4b57-9d56-0f7f3f6d9c11
00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
4bf92f3577b34da6a3ce929d0e0e4736
cron[hour='3', minute='*/5']
*/5 * * * *
interval[0:05:00]
date[2026-11-24 14:07:14 UTC]
2026-11-24T03:00:00+00:00
apscheduler/load/2026-11-24T03:00:00+00:00
webhook/github/72d3162e-cc78-11e3-81ab-4c9367dc0958
webhook/standard_webhooks/msg_b56820f61c22404f8aede1c8373a4f8b
POST /hooks/{name} · push
POST /hooks/github received a delivery from github (push), answered 202
read singer.stream 'daily_weather', 1096 rows
wrote to singer.sink 'orders'
updated crm.contact 'row-1' — failed: KeyError
policy payouts: override by rule 'amount <= 1000' on payout 'payout-7'; to do: raise the limit
apscheduler.job 'refresh' was not run: it was due too long ago
GitHub-Hookshot/044aadd
Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36
python-requests/2.32.3
/usr/lib/python3.11/site-packages/requests/sessions.py
service.receive
module.Class.method.<locals>.inner
__main__.dataset_updated
tests.plugins.test_webhooks.on_issue
SELECT id, token_count FROM usage WHERE day = '2026-11-24'
INSERT INTO contact VALUES (?, ?, 'new')
token_count=5
max_tokens: 4096
the password was changed
password is required
no token was given
Bearer of news
the secret of success
a basic example of it
key: value
sort_key=date
primary key = id
key=5
author: Alice
passed: 12, failed: 3
compass=north
https://example.com/docs?page=2&sort=key
https://api.github.com/repos/acme/app/hooks/1
s3://exports/2026/11/24
sftp://partner.example/in
postgresql://db.example:5432/app
http://127.0.0.1:4318
mailto:alice@example.com
hmac.compare_digest
standardwebhooks
hmac-sha256:9b1c0a51c3d94cf1a8e0c6d07a2f4b6e
203.0.113.0/24
2001:db8:1::/48
requests.exceptions.ConnectionError
concurrent.futures.CancelledError
tap-weather-csv
target-snowflake
{"bookmarks": {"orders": {"replication_key": "date"}}}
['--config', 'settings.json', '--catalog', 'catalog.json']
token bucket: 3 of 10 left
rotate keys yearly
pin version 1.2.3
cookie policy accepted
AKIA is how access keys of AWS begin
a skeleton in the cupboard
ask-me-anything-at-the-conference-2026
risk-level-of-the-whole-organisation
password: ***
api_key=${API_KEY}
PASSWORD=<redacted>
""".strip().splitlines()


@pytest.mark.parametrize("text", INNOCENT)
def test_innocent_texts_are_left_alone(text: str) -> None:
    assert scrub_text(text) is text
    assert scrub_mapping({"audit.target.id": text})[1] == []


def test_there_are_enough_innocent_texts() -> None:
    assert len(INNOCENT) >= 60


def test_no_name_of_the_registry_is_taken_for_a_secret() -> None:
    assert [name for name in rules.TYPES if is_secret_name(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db.password",
        "DB_PASSWORD",
        "userPassword",
        "apiKey",
        "api_key",
        "X-Api-Key",
        "authorization",
        "http.request.header.authorization",
        "http.request.header.cookie",
        "Set-Cookie",
        "clientSecret",
        "client_secret",
        "auth_token",
        "accessToken",
        "refresh-token",
        "privateKey",
        "private_key",
        "aws_secret_access_key",
        "connectionString",
        "SENTRY_DSN",
        "passphrase",
        "jwt",
        "otp",
        "credentials",
        "ssh_key",
    ],
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)
    assert scrub_mapping({name: "x1y2"}) == ({name: REMOVED}, [name])


@pytest.mark.parametrize(
    "name",
    [
        "token_count",
        "gen_ai.usage.input_tokens",
        "max_tokens",
        "secret_name",
        "auth.method",
        "tokenizer",
        "passed",
        "key",
        "author",
        "compass",
        "password_expiry",
        "token_type",
        "cookie_policy",
        "key_id",
        "sort_key",
        "keyboard",
        "spinning",
        "pinned",
    ],
)
def test_names_that_only_sound_like_it(name: str) -> None:
    assert not is_secret_name(name)


def test_nothing_found_is_the_same_object() -> None:
    value = {"a": ["b", {"c": ("d", 1, None, 2.5, b"e")}]}
    assert scrub(value)[0] is value
    attributes = {"audit.target.id": "orders", "n": 3, "list": ["a", "b"]}
    assert scrub_mapping(attributes)[0] is attributes


def test_the_rest_of_a_text_stays_readable() -> None:
    assert scrub_text("GET /x?page=2&token=abcdef0123&n=1") == f"GET /x?page=2&token={REMOVED}&n=1"
    assert scrub_text("postgres://svc:abcdef@db/app is down") == f"postgres://{REMOVED}@db/app is down"
    assert scrub_text("host=db password=abcdef user=x") == f"host=db password={REMOVED} user=x"
    assert scrub_text(scrub_text("password=abcdef")) == f"password={REMOVED}", "once is enough"


def test_no_secret_is_remembered() -> None:
    secret_detection.forget()
    for plant in plants(3, 300):
        scrub({"value": plant.value})
    before = len(secret_detection._clean)
    for _ in range(3):
        scrub_text("password=abcdefghijkl")
    assert len(secret_detection._clean) == before


def test_where_digits_do_not_matter() -> None:
    for pattern in (secret_patterns.WORD_HINT, secret_patterns.BARE_HINT):
        assert not re.search(r"\d", pattern.pattern)
    dice = random.Random(7)
    words = [
        "pass",
        "pin=",
        "pwd ",
        "key",
        "order",
        "run ",
        "://",
        "curl",
        "no",
        "st=",
        "12",
        "907",
        " ",
        "-",
        "é",
        "Z",
    ]
    asked = 0
    for _ in range(20_000):
        text = "".join(dice.choices(words, k=dice.randrange(1, 6)))
        if digits_do_not_matter(text):
            asked += 1
            other = re.sub(r"\d", lambda _: str(dice.randrange(10)), text)
            secret_detection.forget()
            assert scrub_text(other) is other
    assert asked > 1000
    assert not digits_do_not_matter("pass 1234") and not digits_do_not_matter("x" * 15)
    assert digits_do_not_matter("order 17")


def test_what_is_too_long_is_cut_and_never_passed_unseen() -> None:
    text = "x" * LIMIT + " password=abcdefghijkl"
    assert scrub_text(text) == "x" * LIMIT + CUT


@pytest.mark.parametrize(
    "unit",
    [
        "=", "password", "password=", "a:b@", "://", "eyJ.", "-----BEGIN ", "?token=", "'\\", '"', "Authorization: ",
        "sk-a-", "--x", " ", "&%3a%2f%2f:",
    ],
)  # fmt: skip
def test_hostile_texts_take_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        text = (unit * length)[:length]
        begin = time.process_time()
        scrub_text(text)
        return time.process_time() - begin

    # Four times the length may take four times as long, not sixteen; with room for a noisy machine.
    short, long = min(seconds(12_000) for _ in range(3)), min(seconds(48_000) for _ in range(3))
    assert long < max(0.05, 9 * short), f"{short:.4f} s, {long:.4f} s"


def test_a_self_containing_value_ends() -> None:
    value: list[Any] = []
    value.append(value)
    assert REMOVED in repr(scrub(value)[0])


ALLOWED = ("cookie", "key", "salt", "password", "token", "secret")


def test_the_documents_of_this_project_hold_nothing_that_is_taken_for_a_secret_but_speaks_of_none() -> None:
    for page in DOCS.rglob("*.md"):
        if page.name == "secrets.md":
            continue
        for line in page.read_text(encoding="utf-8").splitlines():
            assert scrub_text(line) == line or any(word in line.lower() for word in ALLOWED), (page.name, line)
