# SPDX-License-Identifier: Apache-2.0
"""Why Elasticsearch does not take a document: its failure store, a blocked index, or a field that cannot be mapped.

The Collector only logs what Elasticsearch refuses, so the reasons are looked for where a reader can see them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats import statement as statements
from auditspan_seal.reconcile.compare import MISSING, REFUSED, Difference
from auditspan_seal.reconcile.held import Held
from auditspan_seal.verify.stored import INDICES, answered

UNKNOWN = (
    "it was sent again and did not arrive: look for `failed to index document` in the log of the Collector, and "
    "whether its queue is stuck"
)
_MAX_EXPLAINED = 200  # documents whose fields are looked at; one conflict mostly concerns many
_NUMBERS = {"long", "integer", "short", "byte", "double", "float", "half_float", "scaled_float", "unsigned_long"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?|-?\d+(\.\d+)?")
_OBJECTS = {"object", "flattened", "nested"}


def explain(held: Held, client: Any, differences: Sequence[Difference]) -> list[Difference]:
    """Say of what is still missing, after it was sent again, why that is.

    Args:
        held: the documents of the log.
        client: an Elasticsearch client.
        differences: what is still different.
    """
    missing = [item for item in differences if item.state == MISSING]
    failures = held.failures([item.document_id for item in missing])
    blocked = _blocks(client) if missing else ""
    mappings = _Mappings(client) if missing and not blocked else None
    found = []
    for number, item in enumerate(differences):
        if item.state != MISSING:
            found.append(item)
        elif item.document_id in failures:
            found.append(item.with_state(REFUSED, f"in the failure store: {failures[item.document_id]}"))
        elif blocked:
            found.append(item.with_state(MISSING, blocked))
        else:
            conflict = mappings.conflict(item.statement) if mappings and number < _MAX_EXPLAINED else ""
            found.append(item.with_state(REFUSED, conflict) if conflict else item.with_state(MISSING, UNKNOWN))
    return found


def _blocks(client: Any) -> str:
    """Return which index takes no writes at present; empty: none, or it may not be known."""
    try:
        found = answered(lambda: client.indices.get_settings(index=INDICES, name="index.blocks.*"), {})
    except SourceError:
        return ""
    for name, settings in sorted(found.items()):
        blocks = settings.get("settings", {}).get("index", {}).get("blocks", {})
        names = [f"index.blocks.{key}" for key, value in sorted(blocks.items()) if str(value) == "true"]
        if names:
            return (
                f"{name} takes no writes ({', '.join(names)}): lift the block, and what waits in the Collector arrives"
            )
    return ""


class _Mappings:
    """How the attributes of records are mapped, in the indices that are written to."""

    def __init__(self, client: Any) -> None:
        self._types: dict[str, dict[str, tuple[str, bool]]] = {}  # attribute → index → type, and whether it is strict
        try:
            for index, found in answered(lambda: client.indices.get_mapping(index=INDICES), {}).items():
                properties = found.get("mappings", {}).get("properties", {})
                for holder in (properties.get("attributes", {}), properties):
                    for name, field in _flat(holder.get("properties", {})):
                        self._types.setdefault(name, {}).setdefault(index, field)
        except SourceError:
            pass  # whoever may not see the mapping gets no explanation

    def conflict(self, statement: bytes) -> str:
        """Return which attribute of a record does not fit; empty: none is seen to."""
        try:
            attributes = statements.decode(statement).get("attributes", {}) if statement else {}
        except FormatError:
            return ""
        for name, form in sorted(attributes.items()):
            for index, (kind, _) in sorted(self._types.get(name, {}).items(), key=lambda item: not item[1][1]):
                for value in _values(form):
                    if not _fits(kind, value):
                        return (
                            f"its attribute {name} does not fit the mapping: it is a {kind} in {index}, and the record "
                            f"has a {_kind_of(value)}; change the mapping in auditspan@custom, roll the stream over, "
                            "and reconcile again"
                        )
        return ""


def _flat(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, tuple[str, bool]]]:
    for name, field in properties.items():
        kind = field.get("type", "object")
        yield prefix + name, (kind, field.get("ignore_malformed") in (False, "false"))
        if "properties" in field:
            yield from _flat(field["properties"], f"{prefix}{name}.")


def _values(form: Any) -> Iterable[Any]:
    """Return the values of an attribute as the document has them."""
    items = form if isinstance(form, list) else [form]
    for item in items:
        if isinstance(item, dict) and "commitment" in item:
            continue  # a personal value: what stands in the document is not in the statement
        try:
            yield statements.plain(item)
        except FormatError:
            continue


def _fits(kind: str, value: Any) -> bool:
    if isinstance(value, dict):
        return kind in _OBJECTS
    if value is None:
        return True
    if kind in _OBJECTS:
        return False
    if kind in _NUMBERS:
        return not isinstance(value, bool) and (isinstance(value, (int, float)) or _is_number(value))
    if kind == "boolean":
        return isinstance(value, bool) or value in ("true", "false", "")
    if kind in ("date", "date_nanos"):
        return not isinstance(value, bool) and bool(_DATE.fullmatch(str(value)))
    if kind == "ip":
        return isinstance(value, str) and bool(re.fullmatch(r"[0-9A-Fa-f.:]+", value))
    return True


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _kind_of(value: Any) -> str:
    names = {dict: "map", bool: "truth value", int: "whole number", float: "number", str: "text"}
    return names.get(type(value), type(value).__name__)
