# SPDX-License-Identifier: Apache-2.0
"""Reads Collector configurations as the Collector does: several files, merged; anchors; ``${env:X:-default}``.

Every value remembers the file and the line that it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditspan_seal.errors import SourceError

Path_ = tuple[str, ...]
_REFERENCE = re.compile(r"\$\$|\$\{([^${}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNREAD = "${…}"
"""Stands for a value from a provider that is not read here."""
_DEEPEST = 8  # variables in variables


@dataclass
class Configuration:
    """Merged files.

    Args:
        content: the values.
        places: path of keys (and positions in lists) → file and line.
        files: what was read.
    """

    content: dict[str, Any] = field(default_factory=dict)
    places: dict[Path_, tuple[str, int]] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def get(self, *path: str, default: Any = None) -> Any:
        """Return the value under some keys; the default where there is none."""
        found: Any = self.content
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                return default
            found = found[key]
        return default if found is None else found

    def section(self, *path: str) -> dict[str, Any]:
        """Return the map under some keys; empty where there is none."""
        found = self.get(*path)
        return dict(found) if isinstance(found, Mapping) else {}

    def place(self, *path: str) -> tuple[str | None, int | None]:
        """Return file and line of a value, or of what is nearest around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.places:
                return self.places[path[:end]]
        return None, None


def load(files: Sequence[str | Path], environment: Mapping[str, str]) -> Configuration:
    """Read and merge files, the later ones over the earlier.

    Maps are merged, everything else is replaced, as the Collector does with several ``--config``.

    Args:
        files: YAML files.
        environment: for ``${env:X}``.

    Raises:
        SourceError: one cannot be read, or is no configuration.
    """
    try:
        import yaml
    except ImportError:
        raise SourceError(
            "Configurations cannot be read without PyYAML.", "Install it: pip install 'auditspan[policy]'."
        ) from None
    merged = Configuration()
    for file in files:
        name = str(file)
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{name} cannot be read: {error}.", "Name the Collector's configuration files.") from None
        reader = _Reader(name, environment, yaml)
        try:
            node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            content = {} if node is None else reader.value(node, ())
        except (yaml.YAMLError, RecursionError) as error:
            raise SourceError(f"{name} is not YAML: {error}", "Mend the file; the Collector cannot read it.") from None
        if not isinstance(content, dict):
            raise SourceError(
                f"{name} is not a Collector configuration: it is not a map of sections.",
                "Name files with receivers, exporters, service and so on.",
            )
        _merge(merged, content, reader.places)
        merged.files.append(name)
    return merged


def _merge(into: Configuration, content: dict[str, Any], places: dict[Path_, tuple[str, int]]) -> None:
    def merge(old: dict[str, Any], new: dict[str, Any], path: Path_) -> None:
        for key, value in new.items():
            here = (*path, key)
            if isinstance(old.get(key), dict) and isinstance(value, dict):
                merge(old[key], value, here)
            else:
                for known in [known for known in into.places if known[: len(here)] == here]:
                    del into.places[known]
                old[key] = value

    merge(into.content, content, ())
    into.places.update(places)


class _Reader:
    def __init__(self, file: str, environment: Mapping[str, str], yaml: Any) -> None:
        self._file, self._environment, self._yaml = file, environment, yaml
        self._loader = yaml.SafeLoader("")
        self.places: dict[Path_, tuple[str, int]] = {}

    def value(self, node: Any, path: Path_) -> Any:
        yaml = self._yaml
        if path:
            self.places.setdefault(path, (self._file, node.start_mark.line + 1))
        if isinstance(node, yaml.MappingNode):
            self._loader.flatten_mapping(node)  # `<<: *anchor`
            found: dict[str, Any] = {}
            for key, item in node.value:
                name = str(key.value)
                # Where a key is given twice (a merge, and its own value), the later one holds.
                here = (*path, name)
                self.places[here] = (self._file, key.start_mark.line + 1)
                found[name] = self.value(item, here)
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, str(number))) for number, item in enumerate(node.value)]
        plain = self._loader.construct_object(node)
        return self._expand(plain) if isinstance(plain, str) and "$" in plain else plain

    def _expand(self, text: str, depth: int = 0) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole and whole.group(1) is not None:
            return self._reference(whole.group(1), depth)

        def one(found: re.Match[str]) -> str:
            if found.group(1) is None:
                return "$"
            value = self._reference(found.group(1), depth)
            return "" if value is None else str(value)

        return _REFERENCE.sub(one, text)

    def _reference(self, inside: str, depth: int) -> Any:
        scheme, colon, rest = inside.partition(":")
        if not colon or rest.startswith("-"):
            scheme, rest = "env", inside  # `${X}` and `${X:-default}` are `${env:…}`
        name, _, default = rest.partition(":-")
        if scheme != "env" or not _NAME.fullmatch(name):
            return UNREAD
        text = self._environment.get(name, default)
        if "$" in text and depth < _DEEPEST:
            return self._expand(text, depth + 1)
        try:
            value = self._yaml.safe_load(text)
        except self._yaml.YAMLError:
            return text
        # What is no number, no truth value and no structure is the text itself (dates, for example, are text).
        return value if value is None or isinstance(value, (bool, int, float, list, dict)) else text
