# SPDX-License-Identifier: Apache-2.0
"""Writes the Elasticsearch mapping of the audit attributes, a component template."""

from __future__ import annotations

import json
from typing import Any, Final

from auditspan.registry.model import Attribute, Registry

PATH: Final = "collector-config/elasticsearch/component-templates/auditspan@audit-mappings.json"

STORED_ONLY: Final = frozenset(
    {
        "audit.statement",
        "audit.private",
        "audit.checkpoint.note",
        "audit.checkpoint.frontier",
        "audit.checkpoint.leaf_hashes",
    }
)
"""Kept byte-exact at any size: neither index nor doc values, which is the only form that no mode of storing alters."""

PROSE: Final = frozenset({"audit.message", "audit.rationale", "audit.remediation", "automation.run.reason"})
"""Written for people, so searched by words as well: `attributes.audit.message.text`. A passthrough object passes its
fields through, not their sub-fields, so the short name does not do (seen with 9.5.0)."""

_KEYWORD: Final = {"type": "keyword", "ignore_above": 1024}
_DATE: Final = {
    "type": "date",
    "format": "strict_date_optional_time_nanos",
    # Without it a text that is no date would cost the whole document.
    "ignore_malformed": True,
}


def files(registry: Registry) -> dict[str, str]:
    """Return the component template: path from the root of the repository → content."""
    template = {
        "template": {
            "mappings": {
                "properties": {
                    "attributes": {
                        "type": "passthrough",
                        "dynamic": True,
                        "priority": 30,
                        "properties": {name: field(a) for name, a in sorted(registry.attributes.items())},
                    }
                }
            }
        },
        "version": number(registry.version),
        "_meta": {
            "product": "auditspan",
            "description": "Audit attributes. The signed strings are kept byte-exact at any size: not indexed, not in "
            "doc values. Generated from the registry by `python -m auditspan.registry`.",
            "registry": registry.version,
        },
    }
    return {PATH: json.dumps(template, indent=2, ensure_ascii=False) + "\n"}


def number(version: str) -> int:
    """Return a version as Elasticsearch keeps it with a template: 0.3.0 is 3000."""
    major, minor, patch = map(int, version.split("."))
    return (major * 1000 + minor) * 1000 + patch


def field(attribute: Attribute) -> dict[str, Any]:
    """Return the mapping of one attribute. None may refuse a value: a document that is refused is a record lost."""
    if attribute.type == "int":
        return {"type": "long"}
    if attribute.type == "boolean":
        return {"type": "boolean"}
    if attribute.name in STORED_ONLY:
        return {"type": "keyword", "index": False, "doc_values": False}
    # Also addresses: what is recorded is a network, a pseudonym or a name as often as an address.
    if attribute.name in PROSE:
        return {**_KEYWORD, "fields": {"text": {"type": "text"}}}
    if attribute.format == "timestamp":
        return {**_KEYWORD, "fields": {"date": dict(_DATE)}}
    return dict(_KEYWORD)
