# SPDX-License-Identifier: Apache-2.0
"""Who may do what in Elasticsearch: roles with exact privileges, each with its reason, and what follows from them.

Pure data. The files of the roles, the recipes for API keys and the reference page are written from it
(:mod:`.emit_roles`); the tests execute :data:`MATRIX` on a real Elasticsearch with security.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TRACES: Final = "traces-audit.otel-*"
EVENTS: Final = "logs-audit.otel-*"
LOG: Final = "auditspan-log"
STREAMS: Final = (TRACES, EVENTS, LOG)

EXAMPLE: Final = ("acme", "production")
"""Tenant and environment of the restricted reader in the files; `auditspan backend setup --reader` makes others."""

TENANT_FIELD: Final = "resource.attributes.service.namespace"
ENVIRONMENT_FIELD: Final = "attributes.deployment.environment.name"


@dataclass(frozen=True)
class Grant:
    """Privileges on indices.

    Attributes:
        names: data streams.
        privileges: privilege → what it is needed for. A name that begins with ``indices:`` is a single action, where
            the named privilege that has it would allow deletion, too.
        restricted: only the rows of a tenant in an environment, and no field that may be about a person.
    """

    names: tuple[str, ...]
    privileges: Mapping[str, str]
    restricted: bool = False


@dataclass(frozen=True)
class Role:
    """One role.

    Attributes:
        who: who has it.
        why: why it is as it is, in a sentence.
        cluster: cluster privilege → what it is needed for.
        indices: privileges on indices.
        expiration: how long an API key of this role should live.
    """

    who: str
    why: str
    cluster: Mapping[str, str]
    indices: tuple[Grant, ...]
    expiration: str


_META: Final = "mappings and settings, which searches and Kibana ask for"
_WRITES: Final = {
    "create_doc": "add documents, and nothing else: no update, no deletion, no reading back",
    "auto_configure": "make the data stream with the first document, and map attributes nobody has seen before",
}

ROLES: Final[Mapping[str, Role]] = {
    "auditspan_writer": Role(
        "the Collector",
        "Whoever takes over a sender or the Collector can add documents, and cannot see or change what is there.",
        {},
        (Grant(STREAMS, _WRITES),),
        "90d",
    ),
    "auditspan_general_writer": Role(
        "the Collector, beside auditspan_writer, if ordinary spans go through it, too",
        "Ordinary spans have streams of their own; the key for them opens nothing of the audit trail.",
        {},
        (Grant(("traces-generic.otel-*", "logs-generic.otel-*"), _WRITES),),
        "90d",
    ),
    "auditspan_reader": Role(
        "who answers questions in Kibana or with `auditspan runs`",
        "Reads everything, personal values as well, and changes nothing.",
        {},
        (Grant(STREAMS, {"read": "search and get", "view_index_metadata": _META}),),
        "30d",
    ),
    "auditspan_reader_restricted": Role(
        "a team that looks at its own automations",
        "Rows of one tenant and environment only, and only fields that the registry calls public or internal. What the "
        "registry does not know is not shown, and neither is the statement: it has everything.",
        {},
        (Grant((TRACES,), {"read": "search and get", "view_index_metadata": _META}, restricted=True),),
        "30d",
    ),
    "auditspan_auditor": Role(
        "`auditspan verify`, `backend reconcile`, `backend check`",
        "Reads everything that evidence and its proof need, with the numbers that show changes, and changes nothing. A "
        "reader whose rows or fields are restricted cannot verify.",
        {"monitor": "name and ID of the cluster, for the receipt"},
        (
            Grant(
                ("traces-audit*.otel-*", "logs-audit*.otel-*", "auditspan-log*"),
                {
                    "read": "statements and checkpoints, at one point in time",
                    "view_index_metadata": "why documents are missing: blocks, mappings",
                    "monitor": "sequence numbers of the shards: were documents changed or deleted?",
                    "read_failure_store": "documents that were refused, where there is a failure store",
                },
            ),
        ),
        "7d",
    ),
    "auditspan_administrator": Role(
        "who runs the cluster: `auditspan backend setup`",
        "Templates, retention, rollover, health; cannot read, write or delete a document or an index. Retention is in "
        "these hands, so keep a second copy of the checkpoints (docs/witness.md).",
        {
            "monitor": "health and statistics",
            "manage_index_templates": "component and index templates",
            "manage_ilm": "retention by index lifecycle management",
        },
        (
            Grant(
                STREAMS,
                {
                    "monitor": "statistics",
                    "view_index_metadata": "mappings and settings of the live streams",
                    "maintenance": "refresh, force merge",
                    "manage_data_stream_lifecycle": "retention by data stream lifecycle",
                    "indices:admin/rollover": "a new backing index when a mapping changed",
                },
            ),
        ),
        "1d",
    ),
    "auditspan_backup": Role(
        "snapshot lifecycle management, or whoever takes snapshots",
        "Copies without reading. Restoring replaces indices and is for a superuser, with two people.",
        {
            "create_snapshot": "take snapshots into the repositories that exist",
            "monitor_snapshot": "see what became of them",
        },
        (),
        "90d",
    ),
    "auditspan_eraser": Role(
        "`auditspan erase`, only while a request for erasure is worked on",
        "Must rewrite documents to take personal values out, so it could alter any: what it alters is found by "
        "`auditspan verify`. Give it as an API key that dies within the hour.",
        {},
        (
            Grant(
                STREAMS,
                {
                    "read": "find the documents",
                    "view_index_metadata": _META,
                    "index": "write them back without the value",
                    "monitor": "how many old versions are left in the files",
                    "maintenance": "refresh, and merge the old versions away",
                    "indices:admin/settings/update": "let a merge drop every old version",
                },
            ),
        ),
        "1h",
    ),
}

OPERATIONS: Final[Mapping[str, str]] = {
    "create": "add a document",
    "create_with_id": "add a document under an ID of its own",
    "search": "search",
    "get": "get a document by its ID",
    "point_in_time": "open a point in time",
    "update": "update a document of a backing index",
    "overwrite": "overwrite a document of a backing index",
    "delete": "delete a document of a backing index",
    "create_stream": "make a new data stream by its first document",
    "refresh": "refresh",
    "force_merge": "force a merge",
    "rollover": "roll a data stream over",
    "put_mapping": "change a mapping",
    "put_settings": "change settings of an index",
    "block_writes": "block writes to an index",
    "close_index": "close an index",
    "delete_index": "delete a backing index",
    "read_mapping": "read mappings",
    "read_settings": "read settings",
    "statistics": "read statistics and sequence numbers",
    "failure_store": "read the failure store",
    "read_template": "read index templates",
    "put_template": "change an index template",
    "put_component": "change a component template",
    "cluster_state": "read name and version of the cluster",
    "put_cluster_settings": "change settings of the cluster",
    "read_security": "read roles",
    "put_role": "change a role",
    "api_key": "make an API key",
    "take_snapshot": "take a snapshot",
    "read_snapshots": "list snapshots",
    "delete_snapshot": "delete a snapshot",
    "restore": "restore a snapshot",
    "foreign_search": "search an index that is not auditspan's",
    "foreign_create": "add a document to an index that is not auditspan's",
}
"""What the matrix is about, in its order. All of them are executed on the minimal distribution of Elasticsearch, where
some end in "no such thing" when they are allowed: what is told apart is allowed and refused (401, 403)."""

_READING: Final = frozenset({"search", "get", "point_in_time", "read_mapping", "read_settings"})

MATRIX: Final[Mapping[str, frozenset[str]]] = {
    "auditspan_writer": frozenset({"create", "create_with_id", "create_stream"}),
    "auditspan_general_writer": frozenset(),
    "auditspan_reader": _READING,
    "auditspan_reader_restricted": _READING,
    "auditspan_auditor": _READING | {"statistics", "failure_store", "read_template", "cluster_state"},
    "auditspan_administrator": frozenset(
        {
            "refresh", "force_merge", "rollover", "read_mapping", "read_settings", "statistics", "read_template",
            "put_template", "put_component", "cluster_state",
        }
    ),
    "auditspan_backup": frozenset({"take_snapshot", "read_snapshots"}),
    "auditspan_eraser": _READING
    | {"create", "create_with_id", "update", "overwrite", "refresh", "force_merge", "put_settings", "statistics"},
}  # fmt: skip
"""Role → the operations that it may do; everything else is refused."""
