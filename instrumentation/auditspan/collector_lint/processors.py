# SPDX-License-Identifier: Apache-2.0
"""What each kind of processor does to a record that passes it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from auditspan.collector_lint import ottl, transform
from auditspan.collector_lint.trail import Trail

Check = Callable[[Trail, str, dict[str, Any]], None]


def check(trail: Trail, name: str) -> None:
    """Judge one processor.

    Args:
        trail: the record that passes; what becomes of it is noted there.
        name: id of the processor, e.g. ``transform/audit``.
    """
    kind = name.partition("/")[0]
    settings = trail.configuration.section("processors", name)
    if kind in _CHECKS:
        _CHECKS[kind](trail, name, settings)
    elif kind not in _HARMLESS:
        trail.find("unknown-processor", f"the processor {name}", "processors", name)


def _samples(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    trail.find("sampler", f"{name} samples", "processors", name)


def _filter(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    conditions: list[tuple[str, tuple[str, ...]]] = []
    for form in ("trace_conditions", "traces", "spans"):
        conditions += _conditions(settings.get(form), ("processors", name, form))
    for condition, path in conditions:
        context = next((found for found in ("spanevent", "resource") if found in path), "span")
        if context != "spanevent" and ottl.holds(condition, trail.kind, context) is not False:
            trail.find("filter", f"{name} drops spans where {condition}", *path)


def _conditions(value: Any, path: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(value, str):
        return [(value, path)]
    found: list[tuple[str, tuple[str, ...]]] = []
    if isinstance(value, list):
        for position, item in enumerate(value):
            found += _conditions(item, (*path, str(position)))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key in ("include", "exclude"):
                found.append((f"the list `{key}` says so", (*path, key)))
            elif key not in ("context", "error_mode"):
                found += _conditions(item, (*path, str(key)))
    return found


def _actions(section: str, context: str) -> Check:
    def checked(trail: Trail, name: str, settings: dict[str, Any]) -> None:
        always = "include" not in settings and "exclude" not in settings
        actions = settings.get(section)
        for position, item in enumerate(actions if isinstance(actions, list) else []):
            path = ("processors", name, section, str(position))
            said = dict(item) if isinstance(item, Mapping) else {}
            action, key, pattern = str(said.get("action")), str(said.get("key") or ""), said.get("pattern")
            if action == "insert":
                continue  # sets what is not there
            if pattern and action in ("delete", "hash"):
                trail.replaced_where(context, str(pattern), f"{name}: {action}", *path)
                if action == "delete" and always:
                    trail.removed(context, functools.partial(ottl.matches, str(pattern)))
            if key:
                trail.replaced(key, f"{name}: {action}", *path)
                if always and action == "delete":
                    trail.removed(context, functools.partial(operator.eq, key))
                elif always and action == "upsert":
                    trail.written(context, key)

    return checked


def _redaction(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    if not settings.get("allow_all_keys"):
        trail.find("rewrite", f"{name} deletes every attribute that is not in allowed_keys", "processors", name)
    for key in ("blocked_values", "blocked_key_patterns", "url_sanitizer", "db_sanitizer"):
        if settings.get(key):
            trail.find("rewrite", f"{name} masks values ({key})", "processors", name, key)


def _rewrites(how: str) -> Check:
    def checked(trail: Trail, name: str, settings: dict[str, Any]) -> None:
        trail.find("rewrite", f"{name} {how}", "processors", name)

    return checked


def _batch(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    trail.buffered = name
    trail.find("batch-in-memory", f"{name} stands in the way of audit records", "processors", name)


def _collects(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    trail.buffered = name
    trail.find("batch-in-memory", f"{name} collects spans in memory, and lets the oldest traces go", "processors", name)


def _detection(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    if settings.get("override", True):
        trail.find("may-rewrite", f"{name} overrides resource attributes (the default)", "processors", name, "override")


def _elastic(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    trail.find("may-rewrite", f"{name} replaces host.name and removes messaging.* attributes", "processors", name)


_CHECKS: dict[str, Check] = {
    "tail_sampling": _samples,
    "probabilistic_sampler": _samples,
    "filter": _filter,
    "attributes": _actions("actions", "span"),
    "resource": _actions("attributes", "resource"),
    "redaction": _redaction,
    "span": _rewrites("renames spans or sets their status"),
    "schema": _rewrites("renames attributes"),
    "groupbyattrs": _rewrites("moves attributes of spans to the resource"),
    "transform": transform.check,
    "batch": _batch,
    "groupbytrace": _collects,
    "resourcedetection": _detection,
    "elasticapm": _elastic,
    "elastictrace": _elastic,
}
_HARMLESS = ("memory_limiter", "k8sattributes", "k8s_attributes", "geoip")
