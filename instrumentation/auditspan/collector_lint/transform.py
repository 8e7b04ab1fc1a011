# SPDX-License-Identifier: Apache-2.0
"""What the statements of a transform processor do to a record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from auditspan.collector_lint import ottl
from auditspan.collector_lint.trail import Trail

_CALL = re.compile(r"\s*(\w+)\((.*)\)\s*", re.DOTALL)
_ATTRIBUTE = re.compile(r'(?:(?P<context>[\w.]+)\.)?attributes\["(?P<key>[^"]*)"\]')
_ATTRIBUTES = re.compile(r"(?:(?P<context>[\w.]+)\.)?attributes")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OF_ALL = (
    "keep_keys", "keep_matching_keys", "limit", "truncate_all", "replace_all_matches", "replace_all_patterns",
    "flatten",
)  # fmt: skip


def check(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    """Judge a transform processor."""
    given = settings.get("trace_statements")
    groups = given if isinstance(given, list) else []
    before = len(trail.senders)
    for position, group in enumerate(groups):
        path = ("processors", name, "trace_statements", str(position))
        if isinstance(group, Mapping):
            _group(trail, name, dict(group), path)
        else:
            _flat(trail, name, [str(item) for item in groups if not isinstance(item, Mapping)], path)
            break
    if len(trail.senders) < before and str(settings.get("error_mode", "propagate")) != "propagate":
        what = f"{name} removes control attributes, and goes on after an error"
        trail.find("strip-fails-open", what, "processors", name, "error_mode")


def _flat(trail: Trail, name: str, statements: list[str], path: tuple[str, ...]) -> None:
    if any("spanevent." in item for item in statements) and not all("spanevent." in item for item in statements):
        trail.find("statements-without-context", f"{name} has a list without contexts", *path)
        return  # what does not run for spans without events removes nothing from them
    for position, item in enumerate(statements):
        _statement(trail, name, item, "span", True, (*path[:-1], str(position)))


def _group(trail: Trail, name: str, group: dict[str, Any], path: tuple[str, ...]) -> None:
    context = str(group.get("context") or "span")
    conditions = _texts(group.get("conditions"))
    said = [ottl.holds(item, trail.kind, context) for item in conditions] or [True]
    held = True if True in said else None if None in said else False
    if held is False and context != "spanevent":
        return
    for position, item in enumerate(_texts(group.get("statements"))):
        _statement(trail, name, item, context, held is True, (*path, "statements", str(position)))


def _statement(trail: Trail, name: str, text: str, context: str, always: bool, path: tuple[str, ...]) -> None:
    action, condition = ottl.where(text)
    held = ottl.holds(condition, trail.kind, context) if condition else True
    found = _CALL.fullmatch(action)
    if held is False or found is None:
        return
    function, given = found.groups()
    target = given.split(",", 1)[0].strip()
    if attribute := _ATTRIBUTE.fullmatch(target):
        _one(
            trail,
            name,
            function,
            _context(attribute, context),
            attribute["key"],
            condition,
            always and held is True,
            path,
        )
    elif attributes := _ATTRIBUTES.fullmatch(target):
        _many(trail, name, function, _context(attributes, context), given, always and held is True, path)
    elif "cache" not in target and context != "spanevent" and condition != f"{target} < 0":  # a time that is none
        trail.find("rewrite", f"{name} changes {target}", *path)


def _context(found: re.Match[str], around: str) -> str:
    named = found["context"] or around
    return "scope" if named == "instrumentation_scope" else named


def _one(
    trail: Trail, name: str, function: str, context: str, key: str, condition: str, always: bool, path: tuple[str, ...]
) -> None:
    if function == "set" and always:
        trail.written(context, key)
    only_where_absent = f'["{key}"] == nil' in condition
    if context != "spanevent" and not only_where_absent:
        trail.replaced(key, f"{name}: {function}", *path)


def _many(
    trail: Trail, name: str, function: str, context: str, given: str, always: bool, path: tuple[str, ...]
) -> None:
    texts = [_unquoted(item) for item in _TEXT.findall(given)]
    record = context != "spanevent"
    if function == "delete_key" and texts:
        if record:
            trail.replaced(texts[0], f"{name}: {function}", *path)
        if always:
            trail.removed(context, lambda key: key == texts[0])
    elif function == "delete_matching_keys" and texts:
        if record:
            trail.replaced_where(context, texts[0], f"{name} deletes", *path)
        if always:
            trail.removed(context, lambda key: ottl.matches(texts[0], key) is True)
    elif function == "merge_maps" and texts[-1:] == ["insert"]:
        pass  # sets what is not there
    elif record:
        trail.find("rewrite" if function in (*_OF_ALL, "set") else "may-rewrite", f"{name}: {function}({given})", *path)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
