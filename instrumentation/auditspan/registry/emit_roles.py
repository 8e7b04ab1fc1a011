# SPDX-License-Identifier: Apache-2.0
"""Writes the roles for Elasticsearch: bodies for its API, ``roles.yml``, recipes for API keys, the reference page."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final

from auditspan.registry import markdown
from auditspan.registry.model import Registry
from auditspan.registry.roles import (
    ENVIRONMENT_FIELD,
    EXAMPLE,
    MATRIX,
    OPERATIONS,
    ROLES,
    TENANT_FIELD,
    Grant,
    Role,
)

FOLDER: Final = "collector-config/elasticsearch"
PAGE: Final = "docs/reference/elasticsearch-roles.md"
RESTRICTED: Final = "auditspan_reader_restricted"
PRODUCT: Final = "auditspan"
_BY: Final = "Generated from registry/roles.py by `python -m auditspan.registry`."

_ENVELOPE: Final = (
    "@timestamp", "data_stream.*", "trace_id", "span_id", "parent_span_id", "name", "kind", "duration", "status.code",
    "links.trace_id", "links.span_id", "scope.name", "scope.version", "resource.attributes.service.*",
    "resource.attributes.deployment.*", "resource.attributes.telemetry.*", "resource.attributes.host.name",
)  # fmt: skip
"""What a restricted reader sees beside audit attributes. Not `status.message`: it may quote an exception."""

_HIDDEN: Final = ("audit.statement", "audit.private")
"""Never for a restricted reader: the statement has all that a process said of itself, `audit.private` the values."""


def files(registry: Registry) -> dict[str, str]:
    """Return the roles in all their forms: path from the root of the repository → content."""
    import yaml  # not with the command line, which needs no more than `body`

    bodies = {name: body(registry, name) for name in ROLES}
    found = {f"{FOLDER}/roles/{name}.json": _json(value) for name, value in bodies.items()}
    text = yaml.safe_dump(bodies, sort_keys=False, width=110, allow_unicode=True)
    found[f"{FOLDER}/roles.yml"] = f"# {_BY} Do not edit.\n# The same roles as in roles/, for the file realm.\n{text}"
    for name, role in ROLES.items():
        found[f"{FOLDER}/api-keys/{name}.json"] = _json(_api_key(name, role, bodies[name]))
    found[PAGE] = _page(registry)
    return found


def personal(registry: Registry) -> list[str]:
    """Return the attributes that a restricted reader does not see because they may be about a person."""
    return sorted(name for name, a in registry.attributes.items() if a.privacy == "personal")


def body(registry: Registry, name: str, rows: tuple[str, str] = EXAMPLE, hide: Collection[str] = ()) -> dict[str, Any]:
    """Return a role as ``PUT _security/role/<name>`` wants it.

    Args:
        registry: says which attributes may be about a person.
        name: of the role.
        rows: tenant and environment that a restricted role may see.
        hide: attributes that it must not see either: those that the policy of a site calls personal.
    """
    role = ROLES[name]
    return {
        "cluster": list(role.cluster),
        "indices": [_grant(registry, grant, rows, hide) for grant in role.indices],
        "metadata": {"product": PRODUCT, "who": role.who, "why": role.why, "registry": registry.version, "note": _BY},
    }


def _grant(registry: Registry, grant: Grant, rows: tuple[str, str], hide: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"names": list(grant.names), "privileges": list(grant.privileges)}
    if grant.restricted:
        pairs = zip((TENANT_FIELD, ENVIRONMENT_FIELD), rows, strict=True)
        query = {"bool": {"filter": [{"term": {field: value}} for field, value in pairs]}}
        shown = [
            f"attributes.{name}"
            for name, a in sorted(registry.attributes.items())
            if a.privacy in ("public", "internal") and name not in (*_HIDDEN, *hide)
        ]
        found["field_security"] = {"grant": [*_ENVELOPE, *shown]}
        found["query"] = json.dumps(query, separators=(",", ":"))
    return found


def _api_key(name: str, role: Role, value: dict[str, Any]) -> dict[str, Any]:
    descriptor = {key: value[key] for key in ("cluster", "indices")}
    return {
        "name": name.replace("_", "-"),
        "expiration": role.expiration,
        "role_descriptors": {name: descriptor},
        "metadata": {"product": PRODUCT, "note": _BY},
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _page(registry: Registry) -> str:
    privileges = []
    for name, role in ROLES.items():
        rows = [["cluster", f"`{privilege}`", why] for privilege, why in role.cluster.items()]
        for grant in role.indices:
            names = ", ".join(f"`{item}`" for item in grant.names)
            rows += [[names, f"`{privilege}`", why] for privilege, why in grant.privileges.items()]
        privileges.append(
            f"### {name}\n\nFor {role.who}. {role.why}\n\n{markdown.table(['on', 'privilege', 'needed for'], rows)}\n"
        )
    short = {name: name.removeprefix("auditspan_").replace("_", " ") for name in ROLES}
    matrix = markdown.table(
        ["operation", *short.values()],
        [[text, *("yes" if key in MATRIX[name] else "no" for name in ROLES)] for key, text in OPERATIONS.items()],
    )
    hidden = ", ".join(markdown.attribute(name) for name in personal(registry))
    return f"""<!-- {_BY} Do not edit. -->
# Roles in Elasticsearch

How to install them, and what they are good for: [Elasticsearch](../elasticsearch.md). The same roles in three forms,
all in `collector-config/elasticsearch`: `roles/NAME.json` (body of `PUT _security/role/NAME`), `roles.yml` (file
realm), `api-keys/NAME.json` (body of `POST _security/api_key`).

## Who may do what

Each cell is executed by `tests/backend/test_roles.py` on a real Elasticsearch with security (9.5.0; 8.19.7 on
demand): *yes* is done, *no* is answered with 403. A document under an ID that is there already is refused for everybody
who may only create (409).

{matrix}

## What a restricted reader does not see

Rows: everything but those where `{TENANT_FIELD}` and `{ENVIRONMENT_FIELD}`
have the values that the role names.

Fields: only attributes that the registry calls public or internal are granted, so an attribute that is not in the
registry is not shown either. Not shown because they may be about a person: {hidden}.
Also hidden: `audit.statement`, `status.message`, events, resource attributes other than service, deployment, telemetry
and host name.

## Privileges, and what each is needed for

{chr(10).join(privileges)}"""
