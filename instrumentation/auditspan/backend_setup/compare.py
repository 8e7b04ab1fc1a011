# SPDX-License-Identifier: Apache-2.0
"""Compares what there should be with what there is, in a form that does not depend on how Elasticsearch writes it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from auditspan.backend_setup.artefacts import COMPONENT, INDEX, POLICY, ROLE, Artefact

Flat = dict[str, str]

# What Elasticsearch adds of itself.
_ADDED: Final = {
    "created_date": None, "created_date_millis": None, "modified_date": None, "modified_date_millis": None,
    "transient_metadata": None, "run_as": "[]", "applications": "[]", "global": "[]", "data_stream.hidden": "false",
    "data_stream.allow_custom_routing": "false", "template.lifecycle.enabled": "true",
    "policy.phases.hot.min_age": "0ms",
}  # fmt: skip
_MARK: Final = "content"
_DYNAMIC: Final = ("true", "runtime", "false", "strict")  # from loose to strict
_RETENTION: Final = ("template.lifecycle.data_retention", "policy.phases.delete.min_age")
_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        path: where in the body, with dots.
        old: what is there; None: nothing.
        new: what there should be; None: nothing.
    """

    path: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        """Return it as a line for people."""
        if self.old is None:
            return f"+ {self.path}: {self.new}"
        if self.new is None:
            return f"- {self.path}: {self.old}"
        return f"~ {self.path}: {self.old} → {self.new}"


def meta(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the notes that a thing carries about itself."""
    if kind == POLICY:
        body = body.get("policy") or {}
    return (body.get("metadata") if kind == ROLE else body.get("_meta")) or {}


def marked(artefact: Artefact) -> dict[str, Any]:
    """Return the body to put: with a hash of its content, by which a later change by hand is seen."""
    body: dict[str, Any] = json.loads(json.dumps(artefact.body))
    notes = meta(artefact.kind, body)
    assert isinstance(notes, dict)
    notes[_MARK] = content(artefact.kind, body)
    return body


def content(kind: str, body: Mapping[str, Any]) -> str:
    """Return the hash of a content, the same for what is put and for what comes back."""
    lines = "\n".join(f"{path}={value}" for path, value in sorted(flat(kind, body).items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def edited(kind: str, current: Mapping[str, Any]) -> bool:
    """Return whether somebody changed it by hand since it was put."""
    return meta(kind, current).get(_MARK) != content(kind, current)


def changes(artefact: Artefact, current: Mapping[str, Any]) -> list[Change]:
    """Return what putting it would change."""
    old, new = flat(artefact.kind, current), flat(artefact.kind, artefact.body)
    return [
        Change(path, old.get(path), new.get(path))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]


def weakens(change: Change) -> str | None:
    """Return why a change would weaken what is there; None: it would not."""
    if change.path.endswith(".dynamic") or change.path == "dynamic":
        if _rank(change.new) < _rank(change.old):
            return "the mapping is stricter there"
    elif change.path in _RETENTION and change.old is not None:
        if change.new is not None and _seconds(change.new) < _seconds(change.old):
            return f"records are kept for {change.old} there and would be for {change.new}"
    elif change.path == "priority" and int(change.new or 0) < int(change.old or 0):
        return "its priority is higher there"
    elif change.new is None and (change.path.endswith((".query", ".field_security.grant"))):
        return "the role is restricted there"
    return None


def flat(kind: str, body: Mapping[str, Any]) -> Flat:
    """Return a body as path → text, without what Elasticsearch adds and without the mark."""
    found = dict(_leaves("", body))
    prefix = {POLICY: "policy._meta.", ROLE: "metadata."}.get(kind, "_meta.")
    found.pop(f"{prefix}{_MARK}", None)
    for path, value in _ADDED.items():
        if path in found and value in (None, found[path]):
            del found[path]
    if kind == INDEX and "data_stream" in body:
        found.setdefault("data_stream", "{}")  # that there is one counts, whatever is said of it
    if kind == ROLE:
        found = {
            path: value
            for path, value in found.items()
            if path.startswith(("cluster", "indices", "metadata")) and not path.endswith(".allow_restricted_indices")
        }
    elif kind in (COMPONENT, INDEX):
        found = {_setting(path): value for path, value in found.items()}
    return found


def flat_mapping(mapping: Mapping[str, Any]) -> Flat:
    """Return a mapping as path → text."""
    return dict(_leaves("", mapping))


def flat_settings(settings: Mapping[str, Any]) -> Flat:
    """Return the settings of an index as path → text, all below ``index.``."""
    return {_setting(f"template.settings.{path}")[18:]: value for path, value in _leaves("", settings)}


def _setting(path: str) -> str:
    # Elasticsearch adds the prefix that may be left out.
    head = "template.settings."
    return f"{head}index.{path[18:]}" if path.startswith(head) and not path.startswith(f"{head}index.") else path


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if not value and path and path != "template":
            yield path, "{}"
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for at, inner in enumerate(value):
            yield from _leaves(f"{path}[{at}]", inner)
    elif isinstance(value, list):
        yield path, json.dumps(value, ensure_ascii=False)
    elif value is not None:
        yield path, str(value).lower() if isinstance(value, bool) else str(value)


def _rank(value: str | None) -> int:
    return _DYNAMIC.index(value) if value in _DYNAMIC else 0


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)(d|h|m|s|ms)", text)
    return float(found.group(1)) * _UNITS[found.group(2)] if found else 0.0
