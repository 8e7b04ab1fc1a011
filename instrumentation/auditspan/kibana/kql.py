# SPDX-License-Identifier: Apache-2.0
"""The part of the Kibana Query Language that is used here, and the Elasticsearch query that Kibana makes of it.

``and``, ``or``, ``not``, parentheses; ``field : value``, ``field : "a value"``, ``field : *``,
``field : (a or b)``, and comparisons of numbers, ``field > 3``. Names of attributes are written as in the registry
(``audit.outcome``) and become the whole path of the field in the documents: see :func:`auditspan.kibana.fields.path`.
"""

from __future__ import annotations

import re
from typing import Any

from auditspan.kibana import fields
from auditspan.kibana.errors import DescriptionError

Query = dict[str, Any]

_TOKEN = re.compile(r'\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<sign>[()]|[<>]=?|:)|(?P<word>[^\s()<>:"]+))')
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def to_query(text: str) -> Query:
    """Return the Elasticsearch query of a KQL text, as Kibana makes it.

    Raises:
        DescriptionError: the text is not of the part of KQL that is known here, or names an unknown field.
    """
    return _Parser(text).query() if text.strip() else {"match_all": {}}


def to_kibana(text: str) -> str:
    """Return a KQL text with the whole paths of its fields, as a saved object has it.

    Raises:
        DescriptionError: see :func:`to_query`.
    """
    to_query(text)
    found = ""
    tokens = _tokens(text)
    for number, (kind, token) in enumerate(tokens):
        following = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        is_field = kind == "word" and (following == ":" or following in _RANGES)
        tight = not found or found.endswith("(") or token in (")",)
        found += ("" if tight else " ") + (fields.path(token) if is_field else token)
    return found


def quoted(value: str) -> str:
    """Return a value as KQL has it, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def any_of(query: list[Query]) -> Query:
    """Return the query that wants one of several."""
    return query[0] if len(query) == 1 else {"bool": {"should": query, "minimum_should_match": 1}}


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise DescriptionError(f"Not KQL, from here: {text[at:]!r}.", "Mend the text.")
        found.append((str(match.lastgroup), match.group(str(match.lastgroup))))
        at = match.end()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0

    def query(self) -> Query:
        found = self._either()
        if self._at < len(self._tokens):
            raise self._wrong()
        return found

    def _either(self) -> Query:
        found = [self._both()]
        while self._take("or"):
            found.append(self._both())
        return any_of(found)

    def _both(self) -> Query:
        found = [self._one()]
        while self._take("and"):
            found.append(self._one())
        return found[0] if len(found) == 1 else {"bool": {"filter": found}}

    def _one(self) -> Query:
        if self._take("not"):
            return {"bool": {"must_not": [self._one()]}}
        if self._take("("):
            found = self._either()
            self._expect(")")
            return found
        field = fields.path(self._word())
        for sign, name in _RANGES.items():
            if self._take(sign):
                return {"range": {field: {name: self._word()}}}
        self._expect(":")
        if self._take("("):
            values = [self._value(field)]
            while self._take("or"):
                values.append(self._value(field))
            self._expect(")")
            return any_of(values)
        return self._value(field)

    def _value(self, field: str) -> Query:
        if self._at == len(self._tokens):
            raise self._wrong()
        kind, token = self._tokens[self._at]
        self._at += 1
        if kind == "text":
            return {"match_phrase": {field: re.sub(r"\\(.)", r"\1", token[1:-1])}}
        if kind != "word":
            raise self._wrong()
        if token in ("*",):
            return {"exists": {"field": field}}
        if "*" in token:
            raise DescriptionError(f"{token!r} has a wildcard, and that is not known here.", "Name the values.")
        return {"match": {field: token}}

    def _word(self) -> str:
        if self._at == len(self._tokens) or self._tokens[self._at][0] != "word":
            raise self._wrong()
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _take(self, token: str) -> bool:
        if self._at < len(self._tokens) and self._tokens[self._at][1].lower() == token:
            self._at += 1
            return True
        return False

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._wrong()

    def _wrong(self) -> DescriptionError:
        where = self._tokens[self._at][1] if self._at < len(self._tokens) else "the end"
        return DescriptionError(f"Not KQL as it is known here: {self._text!r}, at {where!r}.", "Mend the text.")
