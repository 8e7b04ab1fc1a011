# SPDX-License-Identifier: Apache-2.0
"""The little of OTTL, the language of conditions and statements, that can be decided for audit spans."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of span that carries evidence.

    Args:
        name: for people.
        has: span attributes that each of them has, with the value if it is always the same.
        lacks: beginnings of names that none of them has.
    """

    name: str
    has: dict[str, str | None]
    lacks: tuple[str, ...]


KINDS = (
    Kind(
        "sealed audit spans",
        dict.fromkeys(("audit.record.id", "audit.statement", "audit.log.origin", "audit.log.index", "audit.action")),
        ("audit.log.document", "audit.checkpoint."),
    ),
    Kind(
        "entries that are no spans",
        {"audit.log.document": "entry", "audit.log.origin": None, "audit.log.index": None, "audit.statement": None},
        ("audit.checkpoint.",),
    ),
    Kind(
        "checkpoints",
        dict.fromkeys(("audit.log.origin", "audit.checkpoint.note", "audit.checkpoint.tree_size"))
        | {"audit.log.document": "checkpoint"},
        ("audit.statement", "audit.record.id", "audit.log.index"),
    ),
)

_INTEGERS = ("audit.log.index", "audit.checkpoint.tree_size")
_ATTRIBUTE = r'(?P<path>(?:\w+\.)*)attributes\["(?P<key>[^"]*)"\]'
_COMPARED = re.compile(_ATTRIBUTE + r'\s*(?P<how>==|!=)\s*(?:(?P<nil>nil)|"(?P<text>[^"]*)")')
_TYPED = re.compile(r"Is(?P<type>String|Int|Double|Bool|Map|List)\(\s*" + _ATTRIBUTE + r"\s*\)")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\band\b|\bor\b|\bnot\b|[()]|\s+|[^"()\s]+')
_RUNE = re.compile(r"\\x\{([0-9a-fA-F]{1,6})\}")
_WHERE = re.compile(r"(?:^|\s)where\s")


def holds(condition: str, kind: Kind, context: str) -> bool | None:
    """Return whether a condition holds for every span of a kind; None: that depends, or is not understood.

    Args:
        condition: OTTL.
        kind: of span.
        context: what ``attributes`` without a path means: ``span``, ``resource`` …
    """
    return _Condition(condition, kind, context).value()


def where(statement: str) -> tuple[str, str]:
    """Divide a statement into what it does and on which condition (empty: always)."""
    quoted = [(found.start(), found.end()) for found in re.finditer(r'"(?:[^"\\]|\\.)*"', statement)]
    for found in _WHERE.finditer(statement):
        if not any(start <= found.start() < end for start, end in quoted):
            return statement[: found.start()].strip(), statement[found.end() :].strip()
    return statement.strip(), ""


def matches(pattern: str, text: str) -> bool | None:
    """Return whether a regular expression of Go finds something in a text; None: it is not understood."""
    try:
        return re.search(_RUNE.sub(lambda found: f"\\U{int(found[1], 16):08x}", pattern), text) is not None
    except re.error:
        return None


def claims(condition: str) -> list[str]:
    """Return the names of the attributes and request fields that a condition reads."""
    return re.findall(r'(?:attributes|request|metadata)\["([^"]*)"\]', condition)


class _Condition:
    def __init__(self, text: str, kind: Kind, context: str) -> None:
        self._kind, self._context = kind, context
        self._tokens: Iterator[str] = iter(_TOKEN.findall(text))
        self._next: str | None = next(self._tokens, None)

    def value(self) -> bool | None:
        found = self._or()
        return None if self._next is not None else found

    def _take(self) -> str:
        taken = self._next or ""
        self._next = next(self._tokens, None)
        return taken

    def _skip(self) -> None:
        while self._next is not None and self._next.isspace():
            self._take()

    def _or(self) -> bool | None:
        found = [self._and()]
        while self._next == "or":
            self._take()
            found.append(self._and())
        return True if True in found else None if None in found else False

    def _and(self) -> bool | None:
        found = [self._not()]
        while self._next == "and":
            self._take()
            found.append(self._not())
        return False if False in found else None if None in found else True

    def _not(self) -> bool | None:
        self._skip()
        if self._next == "not":
            self._take()
            found = self._not()
            return None if found is None else not found
        if self._next == "(":
            self._take()
            found = self._or()
            self._take()  # the closing one
            self._skip()
            return found
        return self._atom()

    def _atom(self) -> bool | None:
        text, depth = "", 0
        while self._next is not None and not (depth == 0 and self._next in ("and", "or", ")")):
            depth += {"(": 1, ")": -1}.get(self._next, 0)
            text += self._take()
        return self._decide(text.strip())

    def _decide(self, text: str) -> bool | None:
        if text in ("true", "false"):
            return text == "true"
        if found := _COMPARED.fullmatch(text):
            there = self._there(found)
            if there is None:
                return None
            if found["nil"]:
                equal: bool | None = not there
            elif not there:
                equal = False
            else:
                known = self._kind.has[found["key"]]
                equal = None if known is None else known == found["text"]
            return None if equal is None else equal is (found["how"] == "==")
        if found := _TYPED.fullmatch(text):
            there = self._there(found)
            if not there:
                return there
            return found["type"] == ("Int" if found["key"] in _INTEGERS else "String")
        return None

    def _there(self, found: re.Match[str]) -> bool | None:
        path = found["path"].rstrip(".") or self._context
        if path != "span":
            return None
        key = found["key"]
        if key in self._kind.has:
            return True
        return False if key.startswith(self._kind.lacks) else None
