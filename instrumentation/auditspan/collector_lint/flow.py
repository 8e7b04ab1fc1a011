# SPDX-License-Identifier: Apache-2.0
"""Which ways audit spans can take through the pipelines of a configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from auditspan.collector_lint import ottl
from auditspan.collector_lint.ottl import KINDS, Kind
from auditspan.collector_lint.source import Configuration

_MOST_OPEN = 8  # conditions that are tried both ways; with more of them, those that are left are taken to hold
_DEEPEST = 32  # connectors one after the other

Choice = tuple[str, int]  # connector, position in its table


@dataclass(frozen=True)
class Way:
    """One way from a receiver to an exporter.

    Args:
        receiver: id of the receiver.
        pipelines: ids of the pipelines on the way.
        exporter: id of the exporter.
    """

    receiver: str
    pipelines: tuple[str, ...]
    exporter: str


@dataclass(frozen=True)
class Case:
    """What happens to the records of a kind that come in at a receiver, if conditions that cannot be decided go so."""

    kind: Kind
    receiver: str
    ways: tuple[Way, ...]


class Flow:
    """The pipelines of traces, and what joins them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.pipelines: dict[str, dict[str, Any]] = {
            name: dict(pipeline) if isinstance(pipeline, Mapping) else {}
            for name, pipeline in configuration.section("service", "pipelines").items()
            if name.partition("/")[0] == "traces"
        }
        self._connectors = configuration.section("connectors")

    def parts(self, pipeline: str, part: str) -> list[str]:
        """Return the ids in ``receivers``, ``processors`` or ``exporters`` of a pipeline."""
        found = self.pipelines[pipeline].get(part)
        return [str(item) for item in found] if isinstance(found, list) else []

    @property
    def receivers(self) -> list[str]:
        """Receivers, without connectors, in order."""
        return list(
            dict.fromkeys(
                name for key in self.pipelines for name in self.parts(key, "receivers") if name not in self._connectors
            )
        )

    def cases(self) -> Iterator[Case]:
        """Return every case."""
        for receiver, kind in itertools.product(self.receivers, KINDS):
            open_ = list(itertools.islice(self._open(kind), _MOST_OPEN))
            for answers in itertools.product((True, False), repeat=len(open_)):
                decided = dict(zip(open_, answers, strict=True))
                ways = [
                    Way(receiver, pipelines, exporter)
                    for start in self.pipelines
                    if receiver in self.parts(start, "receivers")
                    for pipelines, exporter in self._from((start,), kind, decided)
                ]
                yield Case(kind, receiver, tuple(ways))

    def undecided(self) -> Iterator[Choice]:
        """Return the rows of routing connectors by which a sender decides where a record goes."""
        return iter(dict.fromkeys(choice for kind in KINDS for choice in self._open(kind)))

    def _open(self, kind: Kind) -> Iterator[Choice]:
        for name in self._connectors:
            for position, (condition, context) in enumerate(self.table(name)):
                held = ottl.holds(condition, kind, context)
                if held is None:
                    yield name, position
                elif held:
                    break  # none of this kind comes to the rows below

    def table(self, connector: str) -> list[tuple[str, str]]:
        """Return condition and context of each row of a routing connector's table."""
        if connector.partition("/")[0] != "routing":
            return []
        found = []
        for said in self._rows(connector):
            condition = str(said.get("condition") or ottl.where(str(said.get("statement", "")))[1] or "unknown")
            found.append((condition, str(said.get("context") or "resource")))
        return found

    def _rows(self, connector: str) -> list[Mapping[str, Any]]:
        rows = self._configuration.get("connectors", connector, "table")
        return [row if isinstance(row, Mapping) else {} for row in rows] if isinstance(rows, list) else []

    def _from(
        self, way: tuple[str, ...], kind: Kind, decided: Mapping[Choice, bool]
    ) -> Iterator[tuple[tuple[str, ...], str]]:
        if len(way) > _DEEPEST:
            return
        for exporter in self.parts(way[-1], "exporters"):
            if exporter not in self._connectors:
                yield way, exporter
                continue
            for pipeline in self._behind(exporter, kind, decided):
                if pipeline in self.pipelines and exporter in self.parts(pipeline, "receivers"):
                    yield from self._from((*way, pipeline), kind, decided)

    def _behind(self, connector: str, kind: Kind, decided: Mapping[Choice, bool]) -> list[str]:
        if connector.partition("/")[0] != "routing":
            return list(self.pipelines)
        found: list[str] = []
        rows = self._rows(connector)
        for position, (condition, context) in enumerate(self.table(connector)):
            held = ottl.holds(condition, kind, context)
            if held is None:
                held = decided.get((connector, position), True)
            if held:
                found += _names(rows[position].get("pipelines"))
                if rows[position].get("action", "move") != "copy":
                    return found
        return found + _names(self._configuration.get("connectors", connector, "default_pipelines"))


def _names(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
