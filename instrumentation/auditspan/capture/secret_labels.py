# SPDX-License-Identifier: Apache-2.0
"""What a name announces: whether it names a secret, and where in a text the value behind such a name ends.

An unquoted password may hold whatever separates fields, so that its end is a matter of what follows: more is taken
rather than less. What is no value (``password: must have a digit``, ``token=${TOKEN}``) stays.
"""

from __future__ import annotations

import functools
import itertools
import re

from auditspan.capture import secret_patterns as known

OUT = "\ufdd0"
"""Stands for what was removed while a text is worked on: a noncharacter, never in interchanged text."""

# -- names -----------------------------------------------------------------------------------------------------
_PARTS = re.compile(r"[.\[\]/:\s]+")
_WORDS = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

SHORT = 14
"""Characters; a token has more."""


def may_short(text: str) -> bool:
    """Tell whether a text too short for a token may have a secret: most are identifiers, names, numbers."""
    lowered = text.lower()
    hint = known.WORD_HINT.search(lowered) or known.BARE_HINT.search(lowered)
    return hint is not None or "://" in text or "curl" in lowered


def digits_do_not_matter(text: str) -> bool:
    """Tell whether no text that differs from this in nothing but digits has a secret in it.

    So short a text has one only with a word that announces it, and no such word has a digit.
    """
    return len(text) <= SHORT and not may_short(text)


@functools.lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Tell whether what stands under a name is a secret, whatever it looks like.

    The last part of a dotted name decides; the words of camelCase, kebab-case and snake_case names count one by one. A
    last word such as ``count`` or ``type`` says that the name speaks about a secret and is none.

    Args:
        name: a name of an attribute, key, header, option or variable. Of a very long one, its end.
    """
    return names_secret(name)


def names_secret(name: str) -> bool:
    # Not cached: for names found in a text, which may be anything.
    if not known.WORD_HINT.search(name[-256:].lower() + "="):
        return False
    parts = [_split(part) for part in _PARTS.split(name[-256:])]
    parts = [words for words in parts if words]
    while len(parts) > 1 and all(word in known.VALUE_WORDS or word.isdigit() for word in parts[-1]):
        parts.pop()
    return bool(parts) and _secret_words(parts[-1], parts[-2] if len(parts) > 1 else [])


def _split(name: str) -> list[str]:
    words: list[str] = []
    for word in _WORDS.findall(name):
        words += _CAMEL.findall(word) if word.isascii() else [word]
    return [word.lower() for word in words]


def _secret_words(words: list[str], before: list[str]) -> bool:
    if len(words) == 1 and words[0] in known.WHOLE_NAMES and words[0] != "auth":
        return True
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in known.VALUE_WORDS):
        words = words[:-1]
    if words == ["auth"]:
        return True
    near = [*before[-1:], *words] if len(words) == 1 else words  # api.key, connection.string
    pairs = list(itertools.pairwise(near))
    if words and words[-1] in known.ABOUT_WORDS:
        return bool(pairs) and " ".join(pairs[-1]) in known.SECRET_PAIRS
    return any(word in known.STRONG_WORDS or word.endswith(known.JOINED_ENDINGS) for word in words) or any(
        (second in ("key", "keys") and first in known.KEY_KINDS) or f"{first} {second}" in known.SECRET_PAIRS
        for first, second in pairs
    )


# -- labels in a text ---- ------------------------------------------------------------------------------------
def without_labelled(text: str) -> str:
    """Take out what labels announce: ``password: …``, ``--token …``, ``"api_key": "…"``, ``?sig=…``."""
    kept: list[str] = []
    judged: dict[str, bool] = {}  # names of this text only: they may be anything
    copied = position = 0
    while match := known.LABEL.search(text, position):
        position = match.end()
        if (span := _announced(text, match, judged)) is not None:
            kept += (text[copied : span[0]], OUT)
            copied = position = max(span[1], position)
    return "".join([*kept, text[copied:]]) if kept else text


def _announced(text: str, match: re.Match[str], judged: dict[str, bool]) -> tuple[int, int] | None:
    """Return where the secret that a label announces begins and ends; None: it announces none."""
    name = match["name"] or match["flag"]
    begin, quote = match.end(), match["open"] or ""
    if not _announces(text, match, name, judged):
        if name.lower() not in ("name", "key") or not quote or not (named := known.NAMED.match(text, begin)):
            return None
        if not names_secret(name := named["name"]):
            return None
        begin, quote = named.end(), named["open"]
    bare = quote.lstrip("bBrRuUfF")
    end = _end_of_quoted(text, begin, bare) if bare else _end_of_unquoted(text, begin, match, name)
    if name.lower().endswith(("authorization", "authorisation")) and (
        scheme := known.AUTH_SCHEME.match(text, begin, end)
    ):
        begin = scheme.end()
    if begin >= end or stands_in(text[begin:end], name, quoted=bool(quote)):
        return None
    return begin, end


def _announces(text: str, match: re.Match[str], name: str, judged: dict[str, bool]) -> bool:
    start = match.start("name")
    if (secret := judged.get(name)) is None:
        secret = judged[name] = names_secret(name)
    if match["flag"]:
        return secret
    separator = text[match.end("close") if match["close"] else match.end("name") : match.end()].strip()
    if separator.startswith(","):
        # ('password', 'x') and ['--password', 'x'] are pairs; ['password', 'email'] is a list of names.
        opened = re.search(r"\(\s*b?\\*[\"']\Z", text[max(0, start - 8) : start]) is not None
        if not (opened or name.startswith("-") or name.lower() in ("authorization", "cookie", "x-api-key")):
            return False
    before = text[max(0, start - 6) : start].lower()
    in_query = before.endswith(("?", "&", "%3f", "%26", "&amp;")) or (start == 0 and "&" in text)
    if in_query and name.lower() in known.QUERY_NAMES and separator[:1] in ("=", "%"):
        return name.lower() != "code" or re.compile(r"[\w.~/-]{6}").match(text, match.end()) is not None  # not: code=US
    if name.lower() == "sig" and separator.startswith("="):
        return True
    if name.lower() in ("key", "keys", "string", "code", "codes", "phrase", "pin"):  # API key: …
        words = re.search(r"([A-Za-z]{2,16})[ \t]\Z", text[max(0, start - 18) : start])
        if words and _secret_words([words[1].lower(), name.lower()], []):
            return True
    if name == "secret" and re.search(r"\d{12}:\Z", text[max(0, start - 14) : start]):  # the name of one at AWS
        return False
    if secret:
        return True
    return before.endswith("\\") and name[0] in "nrt" and names_secret(name[1:])


def _end_of_quoted(text: str, begin: int, quote: str) -> int:
    if len(quote) == 1:
        end = _QUOTED[quote].match(text, begin)
        if end and text[end.end() : end.end() + 1] == quote:
            return end.end()
    else:  # a text in a text: \"…\", or percent-encoded
        end_at = text.find(quote, begin)
        while end_at > begin and text[end_at - 1] == "\\":
            end_at = text.find(quote, end_at + 1)
        if end_at >= 0:
            return end_at
    line = text.find("\n", begin)  # it was cut
    return line if line >= 0 else len(text)


_QUOTED = {quote: re.compile(rf"[^{quote}\\]*(?:\\.[^{quote}\\]*)*", re.DOTALL) for quote in "\"'`"}


def _end_of_unquoted(text: str, begin: int, label: re.Match[str], name: str) -> int:
    if text[begin : begin + 1] in ("{", "[") and not known.STAND_IN.match(text, begin):
        return _end_of_brackets(text, begin)
    encoded = "%" in text[label.end("name") : begin] if label["name"] else False
    found = (known.UNQUOTED_ENCODED if encoded else known.UNQUOTED).match(text, begin)
    end = found.end() if found else begin
    value = text[begin:end]
    separator = text[label.end("name") : begin] if label["name"] else ""
    bare = value.rstrip(")]},;.:!?>")
    if known.STAND_IN.fullmatch(value.rstrip(",;.")):
        return begin
    words = re.fullmatch(r"[A-Za-z]+", bare)
    lowered = name.lower()
    if ":" in separator or label["flag"]:
        if words and bare.lower() in known.PROSE_WORDS:
            return begin
        if lowered == "pass" and not mixed(bare):  # PASS: test_import
            return begin
    if bare.isdigit() and (lowered == "pass" or lowered.endswith("s")):  # pass=12 fail=3, passwords: 3 rotated
        return begin
    if lowered == "auth" and words:  # auth=none
        return begin
    if name in ("PWD", "OLDPWD") and re.fullmatch(r"/[\w./-]*", value):  # a directory
        return begin
    if lowered.endswith(("cookie", "cookies")) and "=" in value:
        return _end_of_line(text, begin)
    if lowered.endswith(("authorization", "authorisation")) and (scheme := known.AUTH_SCHEME.match(text, begin)):
        if scheme["scheme"].lower() in known.LISTED_SCHEMES:
            return _end_of_line(text, begin)
        found = known.UNQUOTED.match(text, scheme.end())
        return found.end() if found else begin
    return begin + len(bare) if bare else end


def _end_of_line(text: str, begin: int) -> int:
    found = known.LINE.match(text, begin)
    return found.end() if found else begin


def _end_of_brackets(text: str, begin: int) -> int:
    depth, quote, skipped = 0, "", -1
    for match in _BRACKETS.finditer(text, begin):
        char = match.group()
        if match.start() == skipped:
            continue
        if char == "\\":
            skipped = match.start() + 1 if quote else -1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif (depth := depth + (1 if char in "{[(" else -1)) == 0:
            return match.end()
    return len(text)


_BRACKETS = re.compile(r"[\\\"'{}\[\]()]")


def stands_in(value: str, name: str, *, quoted: bool) -> bool:
    """Tell whether a value is no secret but says that there is none, or where it comes from."""
    bare = value.strip(" \t\"'`()[]{}<>.,;:!?*#•_-…")
    if not bare or bare == OUT or bare.lower() in known.NO_SECRETS or set(bare.lower()) == {"x"}:
        return True
    if bare == OUT or bare.lower() == name.lower().lstrip("-"):
        return True
    if known.STAND_IN.fullmatch(value):
        return True
    named = known.NAMED_STAND_IN.fullmatch(value)
    if named and (names_secret(named["name"]) or re.fullmatch(r"[A-Z]+_[A-Z_]+", named["name"])):
        return True
    return not quoted and known.CODE.fullmatch(value) is not None


def mixed(text: str) -> bool:
    return any(char.isdigit() for char in text) and any(char.isalpha() for char in text)
