# SPDX-License-Identifier: Apache-2.0
"""Is this a record as the registry says? Tells everything that is wrong with it; raises nothing.

In production only :func:`missing` runs, one comparison of sets; :func:`violations` looks at every value and runs in
tests, or where ``AUDITSPAN_VALIDATE=true`` asks for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from auditspan.schema import names, rules
from auditspan.schema.details import UNKNOWN, WITHHELD

_OURS = ("audit.", "automation.")
_PATTERNS = {
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    "verb": re.compile(r"[A-Z][A-Z_]*"),
    "hash": re.compile(r"sha256:[0-9a-f]{64}"),
    "version": re.compile(r"\d+\.\d+\.\d+"),
}
_PSEUDONYM = re.compile(r"hmac-sha256:[0-9a-f]{32}")
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls, line separators, overrides of the writing direction, lone surrogates: what forges a line of a report."""


def bounded(text: str, limit: int = 256) -> str:
    """Return `text` cut to `limit` characters, without what could garble or forge a line of a report."""
    text = text[:limit]
    return text if text.isprintable() else _UNSAFE.sub("?", text)  # nothing that is unsafe is printable


def is_personal(name: str) -> bool:
    """Tell whether an attribute is of the privacy class ``personal``."""
    return rules.PRIVACY.get(name) == "personal"


def missing(attributes: Mapping[str, Any]) -> list[str]:
    """Name the required attributes that a record lacks, sorted.

    Args:
        attributes: the attributes of one record. A record of an unknown event type lacks the type.
    """
    required = rules.REQUIRED.get(attributes.get(names.EVENT_TYPE, ""))
    if required is None:
        return [names.EVENT_TYPE]
    lacking = required - attributes.keys()
    for attribute, values, also in rules.CONDITIONS:
        if attributes.get(attribute) in values:
            lacking |= also - attributes.keys()
    return sorted(lacking)


def violations(attributes: Mapping[str, Any], *, erasable: bool = False) -> list[str]:
    """Say everything that is wrong with a record, as ``<attribute>: <what>``; no value is named.

    Args:
        attributes: the attributes of one record.
        erasable: the record was read back: personal values may have been erased since.
    """
    kind = attributes.get(names.EVENT_TYPE)
    if not isinstance(kind, str) or kind not in rules.REQUIRED:
        return [f"{names.EVENT_TYPE}: not an event type of the registry {names.SCHEMA_VERSION}"]
    found = [
        f"{name}: required in {kind}, missing" for name in missing(attributes) if not (erasable and is_personal(name))
    ]
    for name, value in attributes.items():
        if name in rules.TYPES:
            problem = _problem(name, value)
            if problem is None and name.startswith(_OURS) and name not in rules.KNOWN[kind]:
                problem = f"not part of {kind}"
            if problem is None and rules.PRIVACY[name] == "secret":
                problem = "a secret, must never be recorded"
            if problem is not None:
                found.append(f"{name}: {problem}")
        elif name.startswith(_OURS):
            found.append(f"{name}: not in the registry {names.SCHEMA_VERSION}")
    return found


def message_of(attributes: Mapping[str, Any]) -> str:
    """Return the message of a record: made by the template of its event type from public and internal attributes."""
    parts = _message_parts(attributes.get(names.EVENT_TYPE, ""))
    if parts is None:
        return f"{attributes.get(names.ACTION, UNKNOWN)} {attributes.get(names.TARGET_TYPE, UNKNOWN)}"
    text = ""
    for needed, form, shown in parts:
        if needed <= attributes.keys():
            text += form % tuple([_shown(attributes.get(name, UNKNOWN)) for name in shown])
    return text + _ending(attributes)


@functools.lru_cache(maxsize=128)
def _message_parts(kind: str) -> list[tuple[frozenset[str], str, tuple[str, ...]]] | None:
    """Return the parts of the messages of an event type: what must be there for each, its form, what it shows."""
    parts = rules.MESSAGES.get(kind)
    if parts is None:
        return None
    return [
        (
            frozenset(items[1::2] if may_be_left_out else ()),
            "".join(item.replace("%", "%%") if at % 2 == 0 else "%s" for at, item in enumerate(items)),
            tuple(items[1::2]),
        )
        for may_be_left_out, items in parts
    ]


def _ending(attributes: Mapping[str, Any]) -> str:
    outcome = attributes.get(names.OUTCOME)
    if names.RUN_REASON in attributes or outcome in (None, names.Outcome.SUCCESS.value):
        return ""
    error = attributes.get(names.ERROR_TYPE)
    said = "failed" if outcome == names.Outcome.FAILURE.value else "its outcome is not known"
    return f" — {said}" if error is None else f" — {said}: {_shown(error)}"


def _shown(value: Any) -> str:
    if type(value) is str:
        return bounded(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value[:10])
    return bounded(str(value))


def _problem(name: str, value: Any) -> str | None:
    kind, form = rules.TYPES[name]
    if kind == "int":
        return None if type(value) is int else "not an integer"
    if kind == "boolean":
        return None if type(value) is bool else "not a boolean"
    if kind == "string[]":
        texts = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
        return None if texts else "not a list of strings"
    if not isinstance(value, str):
        return "not a string"
    if not value:
        return "empty"
    if kind != "string":
        return None if value in rules.ENUMERATIONS[kind] else f"not one of {kind}"
    if form is None or value == WITHHELD or _PSEUDONYM.fullmatch(value):
        return None
    return None if has_form(form, value) else f"not of the form {form}"


def has_form(form: str, value: str) -> bool:
    """Tell whether a text is of a form that the registry names, for example ``uuid``."""
    pattern = _PATTERNS.get(form)
    if pattern is not None:
        return pattern.fullmatch(value) is not None
    try:
        datetime.fromisoformat(value)  # the only form without a pattern: timestamp
    except ValueError:
        return False
    return True
