# SPDX-License-Identifier: Apache-2.0
"""Secrets of realistic kinds, made at random, planted where they turn up in real records. For tests of all parts."""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
B32 = string.ascii_uppercase + "234567"


@dataclass(frozen=True)
class Plant:
    """One planted secret.

    Attributes:
        kind: what kind of secret.
        secret: the random part that must not survive.
        name: an attribute name that says nothing.
        value: what carries it: a text, or a mapping or list of any depth.
    """

    kind: str
    secret: str
    name: str
    value: Any


def _of(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(length))


TOKENS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    # kind -> (whole token, its random part)
    "aws_access_key": lambda r: (f"AKIA{(s := _of(r, B32, 16))}", s),
    "github": lambda r: (f"{r.choice(['ghp', 'gho', 'ghs', 'ghu', 'ghr'])}_{(s := _of(r, ALNUM, 36))}", s),
    "github_fine": lambda r: (f"github_pat_{(s := _of(r, ALNUM, 22) + '_' + _of(r, ALNUM, 59))}", s),
    "gitlab": lambda r: (f"glpat-{(s := _of(r, ALNUM, 20))}", s),
    "slack": lambda r: (f"xoxb-{(s := f'{_of(r, string.digits, 12)}-{_of(r, ALNUM, 24)}')}", s),
    "stripe": lambda r: (f"{r.choice(['sk', 'rk'])}_live_{(s := _of(r, ALNUM, 24))}", s),
    "whsec": lambda r: (f"whsec_{(s := base64.b64encode(r.randbytes(24)).decode())}", s),
    "google": lambda r: (f"AIza{(s := _of(r, ALNUM + '-_', 34) + 'x')}", s),
    "openai": lambda r: (f"sk-proj-{(s := _of(r, ALNUM, 48))}", s),
    "anthropic": lambda r: (f"sk-ant-api03-{(s := _of(r, ALNUM + '-_', 92) + 'A')}", s),
    "hugging_face": lambda r: (f"hf_{(s := _of(r, ALNUM, 34))}", s),
    "npm": lambda r: (f"npm_{(s := _of(r, ALNUM, 36))}", s),
    "pypi": lambda r: (f"pypi-{(s := 'AgEIcHlwaS5vcmc' + _of(r, ALNUM, 80))}", s),
    "sendgrid": lambda r: (f"SG.{(s := _of(r, ALNUM, 22) + '.' + _of(r, ALNUM, 43))}", s),
    "twilio": lambda r: (f"SK{(s := _of(r, HEX, 32))}", s),
    "mailgun": lambda r: (f"key-{(s := _of(r, HEX, 32))}", s),
    "telegram": lambda r: (f"{_of(r, '123456789', 9)}:AA{(s := _of(r, ALNUM, 33))}", s),
    "shopify": lambda r: (f"shpat_{(s := _of(r, HEX, 32))}", s),
    "digitalocean": lambda r: (f"dop_v1_{(s := _of(r, HEX, 64))}", s),
    "databricks": lambda r: (f"dapi{(s := _of(r, HEX, 32))}", s),
    "vault": lambda r: (f"hvs.{(s := _of(r, ALNUM, 90))}", s),
    "airtable": lambda r: (f"pat{_of(r, ALNUM, 14)}.{(s := _of(r, HEX, 64))}", s),
    "notion": lambda r: (f"ntn_{(s := _of(r, ALNUM, 46))}", s),
    "linear": lambda r: (f"lin_api_{(s := _of(r, ALNUM, 40))}", s),
    "atlassian": lambda r: (f"ATATT3xFfGF0{(s := _of(r, ALNUM + '-_', 120) + '=' + _of(r, HEX, 8))}", s),
    "jwt": lambda r: (
        "eyJhbGciOiJIUzI1NiJ9." + (s := base64.urlsafe_b64encode(r.randbytes(60)).decode() + "." + _of(r, ALNUM, 43)),
        s,
    ),
    "pem": lambda r: (
        "-----BEGIN RSA PRIVATE KEY-----\n"
        + (s := "\n".join(_of(r, ALNUM + "+/", 64) for _ in range(6)))
        + "\n-----END RSA PRIVATE KEY-----",
        s,
    ),
    "pem_one_line": lambda r: (
        "-----BEGIN PRIVATE KEY-----\\n"
        + (s := "\\n".join(_of(r, ALNUM, 64) for _ in range(4)))
        + "\\n-----END PRIVATE KEY-----\\n",
        s,
    ),
}  # fmt: skip

TEXTS: tuple[str, ...] = (
    "{}", "token was {} yesterday", "cannot connect with '{}'", 'error: "{}" was refused', "<{}>", "line one\nline {}\nthree",
    "retry #3 ({}); giving up", "[{}]", "HTTPError('401 for key {}')",
)  # fmt: skip

LABELLED: dict[str, Callable[[random.Random, str], Any]] = {
    # kind -> what carries a random password
    "url_password": lambda r, s: f"cannot reach {r.choice(['postgresql', 'amqp', 'https', 'redis', 'mongodb+srv'])}://svc:{s}@db.example:5432/app",
    "url_password_encoded": lambda r, s: f"next=https%3A%2F%2Fsvc%3A{quote(s, safe='')}%40db.example%2Fapp",
    "query": lambda r, s: f"GET https://api.example/v1/x?page=2&{r.choice(['token', 'api_key', 'access_token', 'sig', 'password', 'client_secret', 'X-Amz-Signature'])}={s}&n=1 failed",
    "bearer_header": lambda r, s: f"Authorization: Bearer {s}",
    "basic_header": lambda r, s: f"> authorization: Basic {s}\r\n> accept: */*",
    "header_repr": lambda r, s: "headers: " + repr({"Accept": "*/*", "Authorization": f"Bearer {s}"}),
    "cookie_header": lambda r, s: f"Cookie: sessionid={s}; theme=dark",
    "api_key_header": lambda r, s: f"X-Api-Key: {s}",
    "assignment": lambda r, s: f"{r.choice(['password', 'DB_PASSWORD', 'secret', 'apiKey', 'client_secret', 'passwd'])} = {s}",
    "assignment_quoted": lambda r, s: f'config.{r.choice(["password", "api_key", "access_token"])}: "{s}"',
    "option": lambda r, s: f"program --{r.choice(['password', 'api-key', 'token'])}{r.choice([' ', '='])}{s} --verbose",
    "json_text": lambda r, s: "body was " + json.dumps({"user": "svc", r.choice(["password", "api_key", "token"]): s}),
    "dict_repr": lambda r, s: "ValueError: bad configuration " + repr({"host": "db", "password": s}),
    "libpq": lambda r, s: f"host=db port=5432 user=svc password={s} dbname=app",
    "odbc": lambda r, s: f"Driver={{ODBC Driver 18}};Server=db;Uid=svc;Pwd={s};Encrypt=yes",
    "azure_storage": lambda r, s: f"DefaultEndpointsProtocol=https;AccountName=acme;AccountKey={s};EndpointSuffix=core.windows.net",
    "aws_secret": lambda r, s: f"aws_secret_access_key = {s}",
    "slack_url": lambda r, s: f"https://hooks.slack.com/services/T00000000/B00000000/{s}",
    "mapping": lambda r, s: {"request": {"headers": {r.choice(["Authorization", "Cookie", "X-Api-Key", "Set-Cookie"]): s}}},
    "nested": lambda r, s: {"a": [{"b": {"c": ({"d": {r.choice(["password", "clientSecret", "db.password", "private_key"]): s}},)}}]},
    "list_of_texts": lambda r, s: ["--verbose", f"--password={s}", "run"],
    "bytes": lambda r, s: f"password={s}".encode(),
    "named": lambda r, s: {r.choice(["password", "auth_token", "SECRET_KEY", "connection-string", "apiKey"]): s},
}  # fmt: skip
KINDS = (*TOKENS, *LABELLED)


def plants(seed: int, count: int) -> list[Plant]:
    """Return `count` planted secrets, each kind about as often; the same for the same seed."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        if kind in TOKENS:
            token, secret = TOKENS[kind](rng)
            value: Any = rng.choice(TEXTS).format(token)
        else:
            secret = _of(rng, ALNUM, rng.randint(20, 40))
            value = LABELLED[kind](rng, secret)
        found.append(Plant(kind, secret, f"app.detail.{number}", value))
    return found


def left_in(content: str, found: Sequence[Plant], size: int = 14) -> list[Plant]:
    """Return those of which the first or the last `size` characters are in a text; the text is read once.

    Looking for each of thousands of secrets in megabytes of text takes minutes.
    """
    ends = {end for plant in found for end in (plant.secret[:size], plant.secret[-size:])}
    there = {
        window
        for length in {len(end) for end in ends}
        for at in range(len(content) - length + 1)
        if (window := content[at : at + length]) in ends
    }
    return [plant for plant in found if plant.secret[:size] in there or plant.secret[-size:] in there]
