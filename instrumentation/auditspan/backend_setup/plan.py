# SPDX-License-Identifier: Apache-2.0
"""What is to be done to an Elasticsearch, and what is not done because it would weaken what is there."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditspan.backend_setup import compare
from auditspan.backend_setup.artefacts import (
    COMPONENT,
    FAILURE_STORE,
    INDEX,
    STREAMS,
    Artefact,
    priority_kept,
)
from auditspan.backend_setup.compare import Change
from auditspan.backend_setup.server import Server

_PRODUCT = "auditspan"


class State(str, enum.Enum):
    """What becomes of one thing."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True)
class Step:
    """One thing, and what becomes of it.

    Attributes:
        artefact: what there should be.
        state: what becomes of it.
        changes: the differences.
        why: why it is refused.
        advice: what to do then.
    """

    artefact: Artefact
    state: State
    changes: Sequence[Change] = ()
    why: str = ""
    advice: str = ""


@dataclass
class Plan:
    """All of it.

    Attributes:
        steps: in the order in which they are taken.
        rollovers: data streams whose live backing index has another mapping or other settings than the template.
    """

    steps: list[Step]
    rollovers: list[str] = field(default_factory=list)

    def of(self, *states: State) -> list[Step]:
        """Return the steps in some states."""
        return [step for step in self.steps if step.state in states]

    @property
    def refused(self) -> list[Step]:
        """What is refused; if there is anything, nothing is done."""
        return self.of(State.REFUSED)

    @property
    def open(self) -> list[Step]:
        """What is to be done."""
        return self.of(State.CREATE, State.UPDATE)


def make(server: Server, artefacts: Iterable[Artefact], replace: Collection[str] = ()) -> Plan:
    """Compare what there should be with what there is.

    Args:
        server: the Elasticsearch.
        artefacts: what there should be.
        replace: names of what is replaced whatever is there.

    Raises:
        SourceError: Elasticsearch does not answer, or does not let templates be read.
    """
    foreign = _index_templates(server)
    steps = []
    for artefact in artefacts:
        current = artefact.current(server.get(artefact.path))
        artefact = priority_kept(artefact, current if artefact.name not in replace else None)
        steps.append(_step(artefact, current, foreign, artefact.name in replace))
    return Plan(steps)


def _step(
    artefact: Artefact, current: Mapping[str, Any] | None, templates: Mapping[str, Mapping[str, Any]], replace: bool
) -> Step:
    rivals = _rivals(artefact, templates)
    if rivals:
        name, priority = rivals[0]
        return Step(
            artefact,
            State.REFUSED,
            why=f"the index template {name} also matches {STREAMS[artefact.name]}, with priority {priority}: "
            f"{artefact.name} (priority {artefact.body['priority']}) would not be in effect",
            advice=f"Give --priority {priority + 1}, or make the pattern of {name} narrower.",
        )
    if current is None:
        return Step(artefact, State.CREATE, [])
    changes = compare.changes(artefact, current)
    if not changes:
        return Step(artefact, State.UNCHANGED)
    if replace:
        return Step(artefact, State.UPDATE, changes)
    why, advice = _objection(artefact, current, changes)
    return Step(artefact, State.REFUSED if why else State.UPDATE, changes, why, advice)


def _objection(artefact: Artefact, current: Mapping[str, Any], changes: Sequence[Change]) -> tuple[str, str]:
    """Return why something must not be changed, and what to do; empty: it may be."""
    anyway = f"`--replace '{artefact.name}'` replaces it."
    if compare.meta(artefact.kind, current).get("product") != _PRODUCT:
        return (
            "it is there and not auditspan's",
            f"Find out whose it is and give it another name. If nobody needs it, {anyway}",
        )
    there, ours = (_version(artefact, body) for body in (current, artefact.body))
    if there > ours:
        return (
            f"what is there is newer (version {there}, this auditspan brings {ours})",
            f"Use the newer auditspan. To go back on purpose, {anyway}",
        )
    for change in changes:
        weaker = compare.weakens(change)
        if weaker:
            return weaker, f"If that is meant, {anyway}"
    removed = [change.path for change in changes if change.new is None]
    if removed and compare.edited(artefact.kind, current):
        return (
            f"somebody added {removed[0]}{' and more' if len(removed) > 1 else ''}, which would be lost",
            f"What a site adds belongs into the component template auditspan@custom. Once it is there, {anyway}",
        )
    return "", ""


def _version(artefact: Artefact, body: Mapping[str, Any]) -> int:
    version = body.get("version") if artefact.kind in (COMPONENT, INDEX) else None
    return int(version or compare.meta(artefact.kind, body).get("version") or 0)


def _rivals(artefact: Artefact, templates: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int]]:
    """Return the templates of others that match the same data stream and win, or would make ours refused."""
    if artefact.kind != INDEX or artefact.name not in STREAMS:
        return []
    stream = STREAMS[artefact.name]
    found = [
        (name, int(template.get("priority") or 0))
        for name, template in templates.items()
        if name != artefact.name and any(fnmatch.fnmatchcase(stream, item) for item in template["index_patterns"])
    ]
    winning = [(name, priority) for name, priority in found if priority >= artefact.body["priority"]]
    return sorted(winning, key=lambda item: -item[1])


def _index_templates(server: Server) -> dict[str, Mapping[str, Any]]:
    found = server.get("/_index_template") or {}
    return {item["name"]: item["index_template"] for item in found.get("index_templates", [])}


def optional(artefact: Artefact) -> bool:
    """Return whether a server that does not know such a thing can do without."""
    return artefact.name == FAILURE_STORE
