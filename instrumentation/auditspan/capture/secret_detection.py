# SPDX-License-Identifier: Apache-2.0
"""Finds secrets in attribute names and values and takes them out. Pure code: no I/O, nothing of a secret is kept.

Two ways lead to a secret: the name under which a value stands (``password``, ``api_key``), and the form of the value
(``ghp_…``, a JWT, ``scheme://user:password@host``). The forms are those of the detectors that many people keep; see
secret_patterns.py for the sources. What only looks random is not taken for a secret: hashes, commits, trace and run
identifiers look random too. See docs/secrets.md.

A text that may hold a secret goes through :data:`STAGES` in order. What one stage takes out is replaced by a single
character that no other pattern knows, so that a later stage sees neither words nor blanks where a secret was.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

from auditspan.capture import secret_patterns as known
from auditspan.capture.secret_labels import (
    OUT,
    SHORT,
    is_secret_name,
    may_short,
    mixed,
    names_secret,
    stands_in,
    without_labelled,
)

REMOVED = "[secret removed]"
LIMIT = 65_536
"""Characters of one text that are looked at; what is longer is cut, because nothing passes unseen."""
CUT = "…[cut]"
_DEPTH = 32
_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_REMOVED_AGAIN = re.compile(re.escape(REMOVED))


# -- values ----------------------------------------------------------------------------------------------------
def scrub_text(text: str) -> str:
    """Return a text without the secrets in it: each is replaced by :data:`REMOVED`, the rest can be read.

    Args:
        text: any text. Of one longer than :data:`LIMIT` the beginning is returned, with :data:`CUT` behind it.

    Returns:
        the same object if nothing was found.
    """
    length = len(text)
    if text in (_clean if length <= 256 else _clean_long):
        return text
    if length > LIMIT:
        return _scrubbed(_begin_of(text)) + CUT
    if _may(text) and (without := _scrubbed(text)) is not text:
        return without
    if type(text) is str:  # a text that says of itself what it is equal to is looked at each time
        if length <= 256:
            _remember(_clean, text, 4096)
        elif length <= 8192:
            _remember(_clean_long, text, 128)
    return text


# What was looked at and has no secret in it; the same text comes by twice for each record, and often for many.
_clean: set[str] = set()
_clean_long: set[str] = set()
_clean_names: set[tuple[str, ...]] = set()


def _remember(clean: set[Any], item: Any, most: int) -> None:
    if len(clean) >= most:
        clean.clear()
    clean.add(item)


def forget() -> None:
    """Look at everything anew (for tests)."""
    for clean in (_clean, _clean_long, _clean_names):
        clean.clear()


def _begin_of(text: str) -> str:
    # Half a token may no longer look like one: what the cut goes through is left out, unless it has no begin.
    head = text[:LIMIT]
    tail = re.search(r"\s\S{1,1024}\Z", head[-1025:])
    return head[: len(head) - len(tail.group())] if tail and not text[LIMIT].isspace() else head


def _may(text: str) -> bool:
    """Tell whether a text may have a secret in it: far cheaper than to look for one."""
    if len(text) <= SHORT and not may_short(text):
        return False
    if known.INNOCENT.fullmatch(text) and " -" not in text and text[:1] != "-":
        return False
    lowered = text.lower()
    # A token has no blanks and is longer than most words; without one, and without what separates a label from its
    # value, only a few words can announce a secret.
    long = [text] if len(text) > 256 else [w for w in text.split() if len(w) > SHORT and not known.PLAIN.fullmatch(w)]
    if (
        long
        and any(not known.INNOCENT.fullmatch(word) for word in long)
        and (
            known.TOKEN_HINT.search(lowered)
            or ("%" in text and "2f%" in lowered)
            or (len(text) > 55 and text.count(".") > 1 and known.DOTTED.search(text))
        )
    ):
        return True
    if long or ":" in text or "=" in text or "%" in text or "," in text or ">" in text or "-" in text:
        return bool(
            ("@" in text and "://" in text)
            or (known.WORD_HINT.search(lowered) and known.SEPARATOR.search(lowered))
            or ("curl" in lowered and ":" in text)
        )
    return known.BARE_HINT.search(lowered) is not None


def _scrubbed(text: str) -> str:
    work = _REMOVED_AGAIN.sub(OUT, text)
    for _, stage in STAGES:
        work = stage(work)
    without = work.replace(OUT, REMOVED)
    return text if without == text else without


def _sub(pattern: re.Pattern[str], check: Callable[[re.Match[str]], bool] | None = None) -> Callable[[str], str]:
    """Return a stage that takes out what a pattern finds: its group ``s``, else its first, or all."""

    def without(match: re.Match[str]) -> str:
        if check is not None and not check(match):
            return match.group()
        group = next((n for n in range(1, (match.re.groups or 0) + 1) if match.group(n) is not None), 0)
        begin, end = match.span("s" if "s" in match.re.groupindex else group)
        whole, start = match.group(), match.start()
        return whole[: begin - start] + OUT + whole[end - start :]

    return lambda text: pattern.sub(without, text)


def _tokens(text: str) -> str:
    lowered = text.lower()
    for token, without in _TOKENS.values():
        if not token.hints or any(hint.partition("[")[0] in lowered for hint in token.hints):
            text = without(text)
    return text


def _sub_later(pattern: str) -> Callable[[str], str]:
    """Return a stage whose pattern is compiled at its first use."""
    stage = functools.cache(lambda: _sub(re.compile(pattern)))
    return lambda text: stage()(text)


_TOKENS = {kind: (token, _sub_later(token.pattern)) for kind, token in known.TOKENS.items()}


def _is_key_block(match: re.Match[str]) -> bool:
    # A text may speak of the first line of a key; a key cut at its end has no last line.
    return match["end"] is not None or re.search(r"[A-Za-z0-9+/=]{24}", match["body"]) is not None


def _is_user(match: re.Match[str]) -> bool:
    user = match["s"]
    return ":" in user or "%3a" in user.lower() or "%253a" in user.lower() or mixed(user)


def _is_scheme(match: re.Match[str]) -> bool:
    value = match["s"]
    if match["scheme"].lower() != "basic":
        return _looks_random(value) or (len(value) >= 8 and mixed(value))
    try:  # RFC 7617: user:password
        plain = base64.b64decode(value.rstrip("=") + "=" * (-len(value.rstrip("=")) % 4), altchars=b"-_")
        return b":" in plain and all(byte > 31 for byte in plain)
    except binascii.Error:
        return False


def _is_named_element(match: re.Match[str]) -> bool:
    return names_secret(match["name"]) and not stands_in(match["s"], match["name"], quoted=True)


def _is_near(match: re.Match[str]) -> bool:
    words = match["words"].lower().replace(":", " ").replace("=", " ").split()
    return not any(word in known.ABOUT_WORDS for word in words if word != "provided") and _looks_random(match["s"])


def _looks_random(text: str) -> bool:
    """Tell whether a text looks made by a machine. Asked only of what a label or a word beside it announces."""
    if len(text) < 16:
        return False
    parts = re.split(r"[-_./+~=]", text)
    if any(len(part) >= 6 and mixed(part) and not re.fullmatch(r"[A-Za-z]+\d{1,4}", part) for part in parts):
        return True
    return len(max(parts, key=len)) >= 16 and re.search(r"[a-z][A-Z].*[a-z][A-Z]", text) is not None


def _beside(text: str) -> str:
    if known.WORD_HINT.search(text.lower()) is None:
        return text
    return _identified(_near(text))


_near = _sub(known.NEAR, _is_near)
_identified = _sub(known.IDENTIFIED, lambda match: not stands_in(match["s"], "password", quoted=True))
_curl = _sub(known.CURL_USER, lambda match: not match["s"].isdigit())

STAGES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("key block", _sub(known.KEY_BLOCK, _is_key_block)),
    ("url user", _sub(known.URL_USER, _is_user)),
    ("url user encoded", _sub(known.URL_USER_ENCODED, _is_user)),
    ("tokens", _tokens),
    ("jwt", _sub(known.JWT)),
    ("schemes", _sub(known.SCHEMES, _is_scheme)),
    ("curl", lambda text: _curl(text) if "curl" in text else text),
    ("xml", _sub(known.XML, _is_named_element)),
    ("labels", without_labelled),
    ("beside", _beside),
)


# -- values of any depth ---------------------------------------------------------------------------------------
def scrub(value: Any) -> tuple[Any, list[str]]:
    """Take the secrets out of a value of any depth.

    Args:
        value: texts, bytes, mappings and sequences of them; everything else is left alone.

    Returns:
        the value, the same object if nothing was found; and the paths of what was removed, never a value.
    """
    removed: list[str] = []
    return _scrub(value, "", removed, 0, {}), removed


def scrub_mapping(attributes: Mapping[str, Any], prefix: str = "") -> tuple[Mapping[str, Any], list[str]]:
    """Take the secrets out of attributes; see :func:`scrub`.

    Args:
        attributes: attribute → value.
        prefix: what comes before the names in the list of what was removed.
    """
    # The hot path: nothing to remove, and nothing made.
    names = tuple(attributes)
    if names in _clean_names or _announce_nothing(names):
        clean, uuid = _clean, _UUID.fullmatch
        for value in attributes.values():
            kind = type(value)
            if kind is str:
                if value in clean or (len(value) == 36 and uuid(value)):  # innocent, and new in each record
                    continue
                if scrub_text(value) is not value:
                    break
            elif kind not in _NUMBERS and _scrub(value, "", [], 1, {}) is not value:
                break
        else:
            return attributes, []
    removed: list[str] = []
    cleaned = _scrub_items(attributes, "", removed, 0, {})
    return cleaned, [prefix + name for name in removed]


_NUMBERS = frozenset({int, bool, float, type(None)})


def _announce_nothing(names: tuple[str, ...]) -> bool:
    """Tell whether what stands under some names has to be judged by itself alone."""
    if "value" in names and ("name" in names or "key" in names):
        return False  # see _scrub_items
    if any(scrub_text(name) is not name or _is_secret_name(name) for name in names):
        return False
    if len(names) <= 128 and all(type(name) is str and len(name) <= 128 for name in names):
        _remember(_clean_names, names, 1024)
    return True


def _is_secret_name(name: str) -> bool:
    return (is_secret_name if len(name) <= 128 else names_secret)(name)


def _scrub(value: Any, path: str, removed: list[str], depth: int, done: dict[int, Any]) -> Any:
    if isinstance(value, str):
        cleaned: Any = scrub_text(value)
        if cleaned is not value:
            removed.append(path)
        return cleaned
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _scrub_bytes(value, path, removed)
    if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return value
    if depth > _DEPTH:
        removed.append(path)
        return REMOVED
    if id(value) not in done:  # what is in a value many times is looked at once; what is in itself ends here
        done[id(value)] = REMOVED
        if isinstance(value, Mapping):
            done[id(value)] = _scrub_items(value, path, removed, depth, done)
        else:
            done[id(value)] = _scrub_sequence(value, path, removed, depth, done)
    elif done[id(value)] is not value:
        removed.append(path)
    return done[id(value)]


def _scrub_bytes(value: bytes | bytearray | memoryview, path: str, removed: list[str]) -> Any:
    raw = bytes(value)
    try:
        encoding, text = "utf-8", raw.decode()
    except UnicodeDecodeError:
        encoding, text = "latin-1", raw.decode("latin-1")
    if (cleaned := scrub_text(text)) is text:
        return value
    removed.append(path)
    return cleaned.replace(CUT, "...[cut]").encode(encoding)


def _scrub_items(
    value: Mapping[Any, Any], path: str, removed: list[str], depth: int, done: dict[int, Any]
) -> Mapping[Any, Any]:
    found: dict[Any, Any] = {}
    changed = False
    # {"name": "DB_PASSWORD", "value": "…"}: how many tools list settings and headers
    label = next((value[key] for key in ("name", "key") if key in value), None) if "value" in value else None
    for key, item in value.items():
        name = _as_text(key)
        clean = scrub_text(name)
        where = f"{path}.{clean}" if path else clean
        if (_is_secret_item(name, item)) or (key == "value" and label is not None and _is_secret_item(label, item)):
            cleaned: Any = item if item == REMOVED else REMOVED
            if cleaned is not item:
                removed.append(where)
        else:
            cleaned = _scrub(item, where, removed, depth + 1, done)
        if clean is not name:
            removed.append(where)
            key = clean = _free(clean, found)
        changed = changed or cleaned is not item or clean is not name
        found[key] = cleaned
    return found if changed else value


def _as_text(key: Any) -> str:
    if isinstance(key, str):
        return key
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _is_secret_item(name: Any, item: Any) -> bool:
    if item is None or isinstance(item, bool) or (not item and item != 0):
        return False
    name = _as_text(name)
    if name in ("pass", "auth") and isinstance(item, (int, float)):  # how many passed
        return False
    return _is_secret_name(name)


def _free(name: str, found: Mapping[Any, Any]) -> str:
    # Two names may be the same without their secrets; neither value may be lost.
    number, free = 2, name
    while free in found:
        free, number = f"{name} ({number})", number + 1
    return free


def _scrub_sequence(value: Any, path: str, removed: list[str], depth: int, done: dict[int, Any]) -> Any:
    items: list[Any] = []
    announced = ""
    for position, item in enumerate(value):
        where = f"{path}[{position}]"
        if announced and isinstance(item, (str, bytes)) and item and _as_text(item) != REMOVED:
            cleaned: Any = REMOVED if isinstance(item, str) else REMOVED.encode()
            removed.append(where)
        elif _is_pair(item):  # headers of ASGI and of http.client: [(b"authorization", b"…")]
            cleaned = type(item)((item[0], REMOVED if isinstance(item[1], str) else REMOVED.encode()))
            removed.append(where)
        else:
            cleaned = _scrub(item, where, removed, depth + 1, done)
        # ["--password", "…"]: an argument list
        option = isinstance(item, str) and item.startswith("-") and "=" not in item and " " not in item
        announced = item if option and len(item) > 2 and not announced and names_secret(item) else ""
        items.append(cleaned)
    if all(item is old for item, old in zip(items, value, strict=True)):
        return value
    return type(value)(items) if type(value) in (list, tuple, set, frozenset) else items


def _is_pair(item: Any) -> bool:
    return (
        type(item) in (tuple, list)
        and len(item) == 2
        and isinstance(item[0], (str, bytes))
        and isinstance(item[1], (str, bytes))
        and len(item[0]) <= 128
        and _as_text(item[1]) != REMOVED
        and names_secret(_as_text(item[0]))
    )
