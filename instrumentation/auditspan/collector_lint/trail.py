# SPDX-License-Identifier: Apache-2.0
"""What is known of a record on its way: which control attributes are still what the sender wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from auditspan.collector_lint import ottl
from auditspan.collector_lint.ottl import Kind
from auditspan.collector_lint.rules import RULES, Finding, Level
from auditspan.collector_lint.source import Configuration

EVERYWHERE = (
    "elasticsearch.index", "elasticsearch.mapping.hints", "elasticsearch.document_id", "elasticsearch.ingest_pipeline",
    "data_stream.type", "data_stream.dataset", "data_stream.namespace",
)  # fmt: skip
ON_SCOPES = ("elastic.mapping.mode", "encoding.format")
CONTEXTS = ("resource", "scope", "span", "spanevent")
CONTROL = frozenset((context, key) for context in CONTEXTS for key in EVERYWHERE) | {
    ("scope", key) for key in ON_SCOPES
}
"""Attributes that the Elasticsearch exporter obeys, with where they stand."""
_STEERING = ("elasticsearch.", "data_stream.", *ON_SCOPES)
_SURELY_SEALED = ("audit.", "automation.", "service.", "telemetry.")
_OF_SPANS = (
    "audit.statement", "audit.record.id", "audit.actor.id", "audit.log.index", "audit.private", "automation.run.id",
    "user.name", "client.address", "http.route",
)  # fmt: skip


def steers(key: str) -> bool:
    """Return whether an attribute is for the exporter, and no part of a record."""
    return key.startswith(_STEERING)


@dataclass
class Trail:
    """One kind of record on one way.

    Args:
        configuration: the configuration.
        kind: of record.
    """

    configuration: Configuration
    kind: Kind
    findings: list[Finding] = field(default_factory=list)
    senders: set[tuple[str, str]] = field(default_factory=lambda: set(CONTROL))
    """Control attributes that the sender may have set, and nobody has removed."""
    ours: set[tuple[str, str]] = field(default_factory=set)
    """Control attributes that the configuration has set."""
    buffered: str | None = None
    """Processor that has broken the chain back to the sender, if one has."""

    def find(self, rule: str, what: str, *path: str, level: Level | None = None) -> None:
        """Note that a rule is broken at a place of the configuration."""
        file, line = self.configuration.place(*path)
        component = "::".join(path[:2])
        self.findings.append(Finding(rule, level or RULES[rule].level, what, component, file, line))

    def removed(self, context: str, which: Callable[[str], bool | None]) -> None:
        """Note that attributes were removed in a context, whoever had set them."""
        gone = {(place, key) for place, key in self.senders | self.ours if place == context and which(key)}
        self.senders -= gone
        self.ours -= gone

    def written(self, context: str, key: str) -> None:
        """Note that the configuration has set an attribute."""
        self.senders.discard((context, key))
        self.ours.add((context, key))

    def replaced(self, key: str, how: str, *path: str) -> None:
        """Judge that a field of a record is replaced or removed."""
        if not steers(key):
            surely = key.startswith(_SURELY_SEALED)
            self.find("rewrite" if surely else "may-rewrite", f"{how} {key}", *path)

    def replaced_where(self, context: str, pattern: str, how: str, *path: str) -> None:
        """Judge that all fields of a context are replaced or removed whose names match."""
        if ottl.matches(pattern, "") is None:
            self.find("may-rewrite", f"{how} what matches {pattern}, which this lint cannot read", *path)
        elif hit := next((name for name in _samples(context) if ottl.matches(pattern, name)), None):
            self.find("rewrite", f"{how} what matches {pattern}, e.g. {hit}", *path)


def _samples(context: str) -> tuple[str, ...]:
    return (*_OF_SPANS, "service.name") if context == "resource" else _OF_SPANS
