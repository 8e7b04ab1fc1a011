# SPDX-License-Identifier: Apache-2.0
"""Everything that is derived from the registry: which files, and which of them are not up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from auditspan.registry import (
    emit_crosswalk,
    emit_docs,
    emit_evolution,
    emit_json,
    emit_jsonschema,
    emit_mapping,
    emit_python,
    emit_roles,
)
from auditspan.registry.model import Registry

COMMAND: Final = "python -m auditspan.registry"
"""Mends what is not up to date."""

EMITTERS: Final = (
    emit_python,
    emit_json,
    emit_mapping,
    emit_jsonschema,
    emit_crosswalk,
    emit_docs,
    emit_evolution,
    emit_roles,
)


def files(registry: Registry) -> dict[str, str]:
    """Return all derived files: path from the root of the repository → content."""
    found: dict[str, str] = {}
    for emitter in EMITTERS:
        found |= emitter.files(registry)
    return found


def outdated(wanted: Mapping[str, str], root: Path) -> list[str]:
    """Return the paths of the files that are missing or differ, in order."""
    return [path for path, content in wanted.items() if _read(root / path) != content]


def write(wanted: Mapping[str, str], root: Path) -> list[str]:
    """Write the files that differ; return their paths."""
    changed = outdated(wanted, root)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(wanted[path], encoding="utf-8")
    return changed


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
