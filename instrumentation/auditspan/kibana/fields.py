# SPDX-License-Identifier: Apache-2.0
"""The fields that views may use: the attributes of the registry, and what the Collector's exporter writes beside them.

A field is named in descriptions as the registry names it, and in what Kibana gets by its whole path
(``attributes.audit.outcome``). The short name would work, too, because ``attributes`` is a passthrough object; but
whoever may send spans can define the same short name in the resource, which has the higher priority, and every panel
that used it would be empty from then on (``tests/backend/test_kibana_views.py`` shows it).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auditspan.kibana.errors import DescriptionError
from auditspan.registry.load import load

TIME = "@timestamp"
ATTRIBUTES = "attributes."
_NUMBERS = frozenset({"int", "double"})
OTHERS = {
    TIME: "date",
    "trace_id": "string",
    "span_id": "string",
    "parent_span_id": "string",
    "name": "string",
    "kind": "string",
    "duration": "number",
    "status.code": "string",
    "resource.attributes.service.name": "string",
    "resource.attributes.host.name": "string",
}
"""What is no attribute of the registry, with the kind of its values."""
_UNINDEXED = frozenset(
    {"audit.statement", "audit.private", "audit.checkpoint.note", "audit.checkpoint.frontier",
     "audit.checkpoint.leaf_hashes"}
)  # fmt: skip


@functools.lru_cache(maxsize=1)
def _registry() -> dict[str, str]:
    return {name: attribute.type for name, attribute in load().attributes.items()}


def path(name: str) -> str:
    """Return the whole path of a field.

    Args:
        name: of an attribute of the registry, or one of :data:`OTHERS`.

    Raises:
        DescriptionError: there is no such field, or nothing can be asked of it.
    """
    if name in OTHERS:
        return name
    if name not in _registry():
        raise DescriptionError(
            f"There is no field {name!r}.", "Name an attribute of the registry (`auditspan schema show`)."
        )
    if name in _UNINDEXED:
        raise DescriptionError(f"The field {name!r} is stored and not indexed.", "Nothing can be asked of it.")
    return ATTRIBUTES + name


def kind(name: str) -> str:
    """Return what the values of a field are: ``string``, ``number``, ``boolean`` or ``date``.

    Raises:
        DescriptionError: see :func:`path`.
    """
    path(name)
    if name in OTHERS:
        return OTHERS[name]
    said = _registry()[name]
    return "number" if said in _NUMBERS else "boolean" if said == "boolean" else "string"


def mapped(templates: Path) -> dict[str, dict[str, Any]]:
    """Return the fields that the index templates map, by path, with their mappings; aliases are among them.

    Args:
        templates: the folder ``collector-config/elasticsearch``.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in sorted((templates / "component-templates").glob("*.json")):
        template = json.loads(file.read_text(encoding="utf-8"))["template"]
        found |= dict(_leaves(template.get("mappings", {}).get("properties", {}), ""))
    return found


def _leaves(properties: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, mapping in properties.items():
        if "properties" in mapping:
            yield from _leaves(mapping["properties"], f"{prefix}{name}.")
        else:
            yield prefix + name, mapping
