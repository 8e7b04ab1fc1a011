# SPDX-License-Identifier: Apache-2.0
"""Reads registries from files: the one that is packaged, the one being edited, and those that were released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from auditspan.registry.model import Registry, RegistryError

FOLDER = Path(__file__).parent
SOURCE = FOLDER / "registry.yaml"
PACKAGED = FOLDER / "registry.json"
"""The same as JSON, derived from it: PyYAML is an extra, and whoever asks for a name should not need one."""
RELEASED = FOLDER / "released"
"""One file for each released version, never edited again."""
ROOT = FOLDER.parents[2]
"""The source tree, if this is one: see :func:`source_tree`."""


def load(path: Path | None = None) -> Registry:
    """Read a registry from YAML or JSON.

    Args:
        path: default: the registry of this version of the product.

    Raises:
        RegistryError: it cannot be read, or contradicts itself.
    """
    if path is None:
        path = PACKAGED if PACKAGED.exists() else SOURCE
    text = _text(path)
    if path.suffix == ".json":
        try:
            return Registry.parse(json.loads(text))
        except json.JSONDecodeError:
            raise RegistryError(f"The registry {path} is not JSON.", "Check the file.") from None
    try:
        import yaml
    except ImportError:
        raise RegistryError(
            f"PyYAML is not installed; {path} cannot be read.", "Run `pip install 'auditspan[policy]'`."
        ) from None
    try:
        return Registry.parse(yaml.safe_load(text))
    except yaml.YAMLError:
        raise RegistryError(f"The registry {path} is not YAML.", "Check the file.") from None


def released() -> dict[str, Path]:
    """Return the files of the released registries by version, the oldest first."""
    found = {path.stem: path for path in RELEASED.glob("*.yaml")}
    return dict(sorted(found.items(), key=lambda item: tuple(map(int, item[0].split(".")))))


def source_tree() -> Path | None:
    """Return the root of the source tree that this runs in; None: it runs from an installed wheel."""
    return ROOT if SOURCE == ROOT / "instrumentation/auditspan/registry/registry.yaml" and _is_ours(ROOT) else None


def real_record(event_type: str) -> Any:
    """Return the real record that documents an event type, or None: there is none (yet).

    Raises:
        RegistryError: its file is not JSON.
    """
    path = ROOT / "docs" / "reference" / "records" / f"{event_type}.json"
    if not path.exists():
        return None
    try:
        return json.loads(_text(path))
    except json.JSONDecodeError:
        raise RegistryError(f"The record {path} is not JSON.", "Check the file.") from None


def _is_ours(root: Path) -> bool:
    project = root / "pyproject.toml"
    return project.exists() and 'name = "auditspan"' in project.read_text(encoding="utf-8")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise RegistryError(f"The registry {path} cannot be read: {reason}.", "Check the path.") from None
