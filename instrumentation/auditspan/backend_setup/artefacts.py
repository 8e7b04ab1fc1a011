# SPDX-License-Identifier: Apache-2.0
"""What there should be in an Elasticsearch: read from ``collector-config/elasticsearch``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from auditspan.backend_setup.server import named
from auditspan_seal.errors import SourceError

COMPONENT: Final = "component template"
INDEX: Final = "index template"
POLICY: Final = "lifecycle policy"
ROLE: Final = "role"
_API: Final = {
    COMPONENT: "/_component_template/",
    INDEX: "/_index_template/",
    POLICY: "/_ilm/policy/",
    ROLE: "/_security/role/",
}
STREAMS: Final = {
    "auditspan-traces": "traces-audit.otel-default",
    "auditspan-events": "logs-audit.otel-default",
    "auditspan-log": "auditspan-log",
}
"""Index template → the data stream that it is for."""
FAILURE_STORE: Final = "auditspan@failure-store"
RETENTION: Final = "auditspan@retention"


@dataclass(frozen=True)
class Wanted:
    """What is asked for beyond the templates.

    Attributes:
        retention: days for which everything can be verified; None: retention stays what it is.
        ilm: by index lifecycle management and not by data stream lifecycle.
        roles: the roles as well.
        readers: restricted readers: (name, tenant, environment).
        hide: attributes that restricted readers must not see beside those that the registry calls personal.
        priority: of the index templates, at least.
        development: templates for ordinary spans, on a server without the built-in ones.
    """

    retention: float | None = None
    ilm: bool = False
    roles: bool = False
    readers: tuple[tuple[str, str, str], ...] = ()
    hide: tuple[str, ...] = ()
    priority: int = 0
    development: bool = False


@dataclass(frozen=True)
class Artefact:
    """One thing that there should be.

    Attributes:
        kind: one of :data:`COMPONENT`, :data:`INDEX`, :data:`POLICY`, :data:`ROLE`.
        name: its name.
        body: as it is put.
    """

    kind: str
    name: str
    body: dict[str, Any]

    @property
    def path(self) -> str:
        """Where it is."""
        return _API[self.kind] + named(self.name)

    @property
    def title(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"

    def current(self, body: Any) -> dict[str, Any] | None:
        """Return what is there of what a GET answered, in the form in which it is put; None: nothing."""
        if not isinstance(body, dict):
            return None
        if self.kind in (COMPONENT, INDEX):
            key = "component_templates" if self.kind == COMPONENT else "index_templates"
            inner = key[:-1]
            found = [item[inner] for item in body.get(key, []) if item.get("name") == self.name]
            return found[0] if found else None
        found_one = body.get(self.name)
        if self.kind == POLICY and found_one is not None:
            return {"policy": found_one["policy"]}
        return found_one if isinstance(found_one, dict) else None


def load(folder: Path, wanted: Wanted) -> list[Artefact]:
    """Return everything that is wanted, in the order in which it is put.

    Args:
        folder: ``collector-config/elasticsearch``.
        wanted: what beyond the templates.

    Raises:
        SourceError: a file is missing or cannot be read.
    """
    found = list(_retention(folder, wanted))
    found += [Artefact(COMPONENT, name, body) for name, body in _bodies(folder / "component-templates")]
    indices = list(_bodies(folder / "index-templates"))
    if wanted.development:
        indices += _bodies(folder / "development-only")
    for name, body in indices:
        if name in STREAMS:
            body["priority"] = max(body["priority"], wanted.priority)
        found.append(Artefact(INDEX, name, body))
    if wanted.roles:
        found += [Artefact(ROLE, name, body) for name, body in _bodies(folder / "roles") if "_restricted" not in name]
    found += list(_readers(wanted))
    return found


def priority_kept(artefact: Artefact, current: Mapping[str, Any] | None) -> Artefact:
    """Return an index template with the priority that it has there, if that is higher: somebody had a reason."""
    if artefact.kind != INDEX or current is None:
        return artefact
    priority = max(artefact.body["priority"], int(current.get("priority") or 0))
    return replace(artefact, body={**artefact.body, "priority": priority})


def open_days(retention: float) -> int:
    """Return for how many days data stream lifecycle may leave a backing index open, by its retention.

    Retention counts from the rollover on, and these are the rules for ``max_age: auto``, rounded up to days.
    """
    return 1 if retention <= 14 else 7 if retention <= 90 else 30


def retentions(days: float, ilm: bool) -> tuple[int, int]:
    """Return the days that the records and that the checkpoints are kept after the rollover of their index.

    A checkpoint that is there while the document of its record is gone is a deletion, for whoever verifies. The stream
    of the records may roll over at any moment and its clock start, while that of the checkpoints stays open: so the
    records are kept longer by the longest time that it may.
    """
    log = math.ceil(days)
    return log + (30 if ilm else open_days(log)) + 1, log


def _retention(folder: Path, wanted: Wanted) -> Iterator[Artefact]:
    if wanted.retention is None:
        return
    form = "ilm" if wanted.ilm else "data-stream-lifecycle"
    for suffix, days in zip(("", "-log"), retentions(wanted.retention, wanted.ilm), strict=True):
        if wanted.ilm:
            yield Artefact(POLICY, f"auditspan{suffix}", _filled(folder / f"retention/ilm-policy{suffix}.json", days))
        yield Artefact(COMPONENT, f"{RETENTION}{suffix}", _filled(folder / f"retention/{form}{suffix}.json", days))


def _readers(wanted: Wanted) -> Iterator[Artefact]:
    if not wanted.readers:
        return
    from auditspan.registry import emit_roles
    from auditspan.registry.load import load as registry_of

    registry = registry_of()
    unknown = sorted(set(wanted.hide) - set(registry.attributes))
    if unknown:
        raise SourceError(
            f"The registry knows no attribute {unknown[0]!r}.",
            "What it does not know is not shown to restricted readers anyway; see docs/reference/records.md.",
        )
    for name, tenant, environment in wanted.readers:
        body = emit_roles.body(registry, emit_roles.RESTRICTED, (tenant, environment), wanted.hide)
        yield Artefact(ROLE, f"auditspan_reader_{name}", body)


def _bodies(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(folder.glob("*.json")):
        yield file.stem, _read(file)


def _read(file: Path) -> dict[str, Any]:
    return _filled(file, 0)


def _filled(file: Path, days: int) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text.replace('"DAYSd"', f'"{days}d"'))
    except (OSError, ValueError) as error:
        raise SourceError(f"{file} cannot be read: {error}.", "Install auditspan again.") from None
    return found
