# SPDX-License-Identifier: Apache-2.0
"""Finds secrets in attribute names and values and takes them out. Pure code: no I/O, nothing of a secret is kept.

Two ways lead to a secret: the name under which a value stands (``password``, ``api_key``), and the form of the value
(``ghp_…``, a JWT, ``scheme://user:password@host``). The forms are those of the detectors that many people keep:
gitleaks (config/gitleaks.toml), detect-secrets (plugins), and the scrubber of sentry-python for names. What only looks
random is not taken for a secret: hashes, commits, trace and run identifiers look random too. See docs/secrets.md.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from auditspan.capture.secret_patterns import FORMS

REMOVED = "[secret removed]"
LIMIT = 65_536
"""Characters of one text that are looked at; what is longer is cut, because nothing passes unseen."""
CUT = "…[cut]"
_DEPTH = 32

# -- names -----------------------------------------------------------------------------------------------------
_WORDS = frozenset(
    [
        "password",
        "passwd",
        "pwd",
        "passphrase",
        "passcode",
        "secret",
        "secrets",
        "token",
        "apikey",
        "authorization",
        "cookie",
        "cookies",
        "credential",
        "credentials",
        "privatekey",
        "accesskey",
        "secretkey",
        "clientsecret",
        "connectionstring",
        "dsn",
        "otp",
        "bearer",
        "jwt",
        "csrf",
        "xsrf",
        "sessionkey",
        "signingkey",
        "encryptionkey",
        "masterkey",
        "authkey",
        "authtoken",
        "pin",
        "cvv",
        "cvc",
    ]
)
_PAIRS = frozenset(
    [
        "api.key",
        "private.key",
        "access.key",
        "secret.key",
        "client.secret",
        "connection.string",
        "session.key",
        "signing.key",
        "encryption.key",
        "master.key",
        "auth.key",
        "auth.token",
        "set.cookie",
        "account.key",
        "shared.key",
        "ssh.key",
        "storage.key",
        "service.key",
    ]
)
_HARMLESS_AFTER = frozenset(
    [
        "name",
        "count",
        "counts",
        "type",
        "id",
        "ids",
        "version",
        "source",
        "hash",
        "length",
        "size",
        "path",
        "file",
        "field",
        "url",
        "expires",
        "expiry",
        "expiration",
        "ttl",
        "policy",
        "rotation",
        "status",
        "scope",
        "scopes",
        "method",
        "rule",
        "removed",
        "verified",
        "usage",
        "limit",
        "budget",
        "tokens",
    ]
)
"""``token_count`` and ``secret_name`` speak about a secret and are none."""
_OURS = ("audit.", "automation.", "gen_ai.", "code.", "vcs.", "telemetry.", "service.", "otel.")
_SPLIT = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@functools.lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell whether what stands under a name is a secret, whatever it looks like.

    Args:
        name: a dotted, camelCase, kebab-case or snake_case name.
    """
    if name.startswith(_OURS):
        return False
    words = [word.lower() for word in _SPLIT.split(name[:512]) if word]
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        after = words[position + 2] if position + 2 < len(words) else ""
        if word in _WORDS and following not in _HARMLESS_AFTER:
            return not (word == "tokens" or (word == "pin" and len(words) > 1 and following))
        if f"{word}.{following}" in _PAIRS and after not in _HARMLESS_AFTER:
            return True
    return False


# -- values ----------------------------------------------------------------------------------------------------
_PATTERNS = tuple(
    (begins, re.compile(pattern, re.IGNORECASE | re.DOTALL if "BEGIN" in pattern else re.IGNORECASE))
    for begins, pattern in FORMS
)
_BEGINS = tuple(sorted({begin for begins, _ in FORMS for begin in begins}, key=len))


def _may(text: str) -> bool:
    """Tell whether a text may have a secret in it: far cheaper than to look for one."""
    lowered = text.lower()
    return any(begin in lowered for begin in _BEGINS)


_HARMLESS_VALUE = re.compile(
    r"(?:none|null|true|false|\*+|x+|<[^>]*>|\.\.\.|…|\{\w*\}|\$\{?\w+\}?|\[secret removed\].*|\d{1,3}|missing|required"
    r"|not|was|is|has|string|str|int|bytes)[.,;:!?]?",
    re.IGNORECASE,
)


def scrub_text(text: str) -> str:
    """Return a text without the secrets in it: each is replaced by :data:`REMOVED`, the rest can be read."""
    if len(text) <= 256:
        return text if _is_clean(text) else _scrubbed(text)
    if len(text) > LIMIT:
        return _scrubbed(text[:LIMIT]) + CUT
    return _scrubbed(text) if _may(text) else text


class _Unclean(Exception):
    """Keeps a secret out of the cache: a call that raises is not kept."""


def _is_clean(text: str) -> bool:
    try:
        return _known_clean(text)
    except _Unclean:
        return False


@functools.lru_cache(maxsize=4096)
def _known_clean(text: str) -> bool:
    if not _may(text) or _scrubbed(text) == text:
        return True
    raise _Unclean


def _scrubbed(text: str) -> str:
    lowered = text.lower()
    for begins, pattern in _PATTERNS:
        if any(begin in lowered for begin in begins):
            changed = pattern.sub(_without_secret, text)
            if changed is not text and changed != text:
                text, lowered = changed, changed.lower()
    return text


def _without_secret(match: re.Match[str]) -> str:
    group = match.lastgroup or "s"
    secret = match.group(group)
    if secret.startswith("[secret") or _HARMLESS_VALUE.fullmatch(secret):
        return match.group()
    begin, end = match.span(group)
    whole = match.group()
    return whole[: begin - match.start()] + REMOVED + whole[end - match.start() :]


def scrub(value: Any) -> tuple[Any, list[str]]:
    """Take the secrets out of a value of any depth.

    Args:
        value: texts, bytes, mappings and sequences of them; everything else is left alone.

    Returns:
        the value, the same object if nothing was found; and the paths of what was removed, never a value.
    """
    removed: list[str] = []
    return _scrub(value, "", removed, 0), removed


def scrub_mapping(attributes: Mapping[str, Any], prefix: str = "") -> tuple[Mapping[str, Any], list[str]]:
    """Take the secrets out of attributes; see :func:`scrub`.

    Args:
        attributes: attribute → value.
        prefix: what comes before the names in the list of what was removed.
    """
    changed: dict[str, Any] = {}
    removed: list[str] = []
    unclean = False
    for name, value in attributes.items():
        secret = _is_secret(name)
        if secret is None:
            unclean = True
        if secret and not isinstance(value, (bool, int, float)) and value:
            if value != REMOVED:
                changed[name] = REMOVED
                removed.append(prefix + name)
        elif isinstance(value, str):
            cleaned = scrub_text(value)
            if cleaned is not value:
                changed[name] = cleaned
                removed.append(prefix + name)
        elif not isinstance(value, (int, float, type(None))):
            cleaned = _scrub(value, prefix + name, removed, 1)
            if cleaned is not value:
                changed[name] = cleaned
    if unclean:
        clean_names = {name: scrub_text(name) for name in attributes}
        return {clean_names[name]: changed.get(name, value) for name, value in attributes.items()}, [
            scrub_text(name) for name in removed
        ] or [prefix + clean for name, clean in clean_names.items() if clean is not name]
    return ({**attributes, **changed}, removed) if changed else (attributes, removed)


def _is_secret(name: str) -> bool | None:
    """Tell whether a name names a secret; None: the name itself has one in it."""
    try:
        return _known_name(name)
    except _Unclean:
        return None


@functools.lru_cache(maxsize=4096)
def _known_name(name: str) -> bool:
    if scrub_text(name) is not name:
        raise _Unclean
    return is_secret_name(name)


def _scrub(value: Any, path: str, removed: list[str], depth: int) -> Any:
    if depth > _DEPTH:
        removed.append(path)
        return REMOVED
    if isinstance(value, str):
        cleaned = scrub_text(value)
        if cleaned is not value:
            removed.append(path)
        return cleaned
    if isinstance(value, (bytes, bytearray)):
        text = bytes(value).decode("latin-1")
        cleaned = scrub_text(text)
        if cleaned is text:
            return value
        removed.append(path)
        return cleaned.encode("utf-8")
    if isinstance(value, Mapping):
        return _scrub_items(value, path, removed, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_scrub(item, f"{path}[{position}]", removed, depth + 1) for position, item in enumerate(value)]
        if all(item is old for item, old in zip(items, value, strict=True)):
            return value
        return type(value)(items) if type(value) in (list, tuple, set, frozenset) else items
    return value


def _scrub_items(value: Mapping[Any, Any], path: str, removed: list[str], depth: int) -> Any:
    found: dict[Any, Any] = {}
    changed = False
    for key, item in value.items():
        name = key if isinstance(key, str) else str(key)
        clean_name = scrub_text(name)
        where = f"{path}.{clean_name}" if path else clean_name
        if is_secret_name(name) and item and not isinstance(item, bool):
            cleaned: Any = REMOVED
            if item != REMOVED:
                removed.append(where)
        else:
            cleaned = _scrub(item, where, removed, depth + 1)
        changed = changed or cleaned is not item or clean_name is not name
        found[clean_name if clean_name is not name else key] = cleaned
    return found if changed else value
