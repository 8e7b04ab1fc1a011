# SPDX-License-Identifier: Apache-2.0
"""Reads a Collector configuration and says where it can lose, hide, re-route or alter audit records.

Every way is followed that audit spans, entries and checkpoints can take from a receiver, through routing, to an
exporter. A configuration may do with copies what it likes, sample them for example: it is refused if there is a case in
which no way is left that keeps every record as it is. Example::

    from auditspan.collector_lint import lint

    for finding in lint(["collector.yaml"], os.environ).findings:
        print(finding.level.value, finding.rule, finding.line)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditspan.collector_lint import exporters, processors, receivers
from auditspan.collector_lint.flow import Case, Flow, Way
from auditspan.collector_lint.rules import RULES, Finding, Level, Rule
from auditspan.collector_lint.source import Configuration, load
from auditspan.collector_lint.trail import Trail

__all__ = ["RULES", "Finding", "Level", "Report", "Rule", "lint"]
_ORDER = list(Level)


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        files: what was read, in order.
        pipelines: those that audit records can pass.
        sinks: exporters that keep them.
        findings: the worst first.
    """

    files: tuple[str, ...]
    pipelines: tuple[str, ...]
    sinks: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether there is an error."""
        return any(finding.level is Level.ERROR for finding in self.findings)


def lint(files: Sequence[str | Path], environment: Mapping[str, str]) -> Report:
    """Read configuration files, merged in this order, and judge them.

    Args:
        files: as they are given to the Collector with ``--config``.
        environment: for ``${env:X}``.

    Raises:
        SourceError: a file cannot be read or is no configuration.
    """
    configuration = load(files, environment)
    flow = Flow(configuration)
    found = _Found(configuration)
    receivers.check(configuration, flow, found.once)
    cases = list(flow.cases())
    if not cases:
        found.once("audit-dropped", "no pipeline of traces has a receiver", "service", "pipelines")
    for case in cases:
        found.case(case, flow)
    if found.alone and not any(name.partition("/")[0] in exporters.HANDING_ON for name in found.sinks):
        found.once("one-sink", "records are kept in one place alone", "service", "pipelines")
    findings = sorted(found.all.values(), key=lambda item: (_ORDER.index(item.level), item.line or 0, item.rule))
    return Report(
        tuple(configuration.files), tuple(name for name in flow.pipelines if name in found.pipelines),
        tuple(sorted(found.sinks)), tuple(findings),
    )  # fmt: skip


class _Found:
    """All findings, each once."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.all: dict[tuple[str, str, int | None], Finding] = {}
        self.pipelines: set[str] = set()
        self.sinks: set[str] = set()
        self.alone = False

    def once(self, rule: str, what: str, *path: str) -> None:
        file, line = self._configuration.place(*path)
        self._add([Finding(rule, RULES[rule].level, what, "::".join(path[:2]), file, line)])

    def case(self, case: Case, flow: Flow) -> None:
        """Judge a case: is there a way that keeps every record of it?"""
        self.pipelines |= {pipeline for way in case.ways for pipeline in way.pipelines}
        kept = [way for way in case.ways if way.exporter.partition("/")[0] not in exporters.NOWHERE]
        judged = [(way, _judge(self._configuration, case, way, flow)) for way in kept]
        good = [way for way, findings in judged if not any(item.level is Level.ERROR for item in findings)]
        self.sinks |= {way.exporter for way in good or kept}
        self.alone |= bool(kept) and len({way.exporter for way in good or kept}) < 2
        # An archive is no excuse for what happens on the way to the place where records are searched.
        searched = [way for way in kept if way.exporter.partition("/")[0] not in exporters.ARCHIVES]
        excused = any(way in good for way in searched or kept)
        for _, findings in judged:
            self._add(findings if not excused else [_copy(item) for item in findings])
        if not kept:
            ends = sorted({f"{way.pipelines[-1]} → {way.exporter}" for way in case.ways}) or ["no pipeline"]
            path = ("service", "pipelines", *(case.ways[0].pipelines[-1:] if case.ways else ()))
            self.once("audit-dropped", f"{case.kind.name} from {case.receiver} come to {', '.join(ends)}", *path)

    def _add(self, findings: Iterable[Finding]) -> None:
        for item in findings:
            key = (item.rule, item.component, item.line)
            known = self.all.get(key)
            if known is None or _ORDER.index(item.level) < _ORDER.index(known.level):
                self.all[key] = item


def _judge(configuration: Configuration, case: Case, way: Way, flow: Flow) -> list[Finding]:
    trail = Trail(configuration, case.kind)
    for pipeline in way.pipelines:
        for processor in flow.parts(pipeline, "processors"):
            processors.check(trail, processor)
    exporters.check(trail, way.exporter)
    return trail.findings


def _copy(finding: Finding) -> Finding:
    """What is wrong with a way while another one keeps every record."""
    if finding.level is not Level.ERROR or finding.rule == "archive-truncates":
        return finding
    what = f"{finding.what} (only a copy: every record is kept on another way)"
    return dataclasses.replace(finding, level=Level.HINT, what=what)
