# SPDX-License-Identifier: Apache-2.0
"""What only the operator knows and alert rules need: quiet hours, approved actors, scopes and versions.

The file is YAML or JSON; ``collector-config/kibana/parameters.yaml`` has every name with its default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from auditspan.kibana.errors import ParametersError

_LONGEST = 120
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class Scope:
    """What an automation may touch.

    Attributes:
        workflow: name of the automation.
        target_types: kinds of things that it may act on.
        targets: if any are given, also the very things.
    """

    workflow: str
    target_types: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameters:
    """See ``parameters.yaml``; times are of the clock in `time_zone`."""

    time_zone: str = "UTC"
    quiet_from: str = "22:00"
    quiet_to: str = "06:00"
    quiet_weekend: bool = False
    quiet_ignores_triggers: tuple[str, ...] = ("schedule",)
    approved_actors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    approved_scopes: tuple[Scope, ...] = ()
    approved_versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expected_logs: tuple[str, ...] = ()
    look_back_hours: int = 24
    silent_minutes: int = 30
    spike_failures: int = 5
    spike_minutes: int = 60
    verification_hours: int = 26
    actions: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("quiet_from", "quiet_to"):
            if not _CLOCK.fullmatch(getattr(self, name)):
                raise _wrong(name, 'a time of day, "22:00"')
        if self.look_back_hours > _LONGEST:
            raise _wrong("look_back_hours", f"{_LONGEST} at most: of further back the days of the week are not told")
        for name in ("look_back_hours", "silent_minutes", "spike_failures", "spike_minutes", "verification_hours"):
            if getattr(self, name) < 1:
                raise _wrong(name, "at least 1")


def read(path: Path) -> Parameters:
    """Read a file of parameters.

    Raises:
        ParametersError: it cannot be read, or something in it is not understood.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ParametersError(f"The parameters {path} cannot be read: {why}.", "Check the path.") from None
    try:
        document = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except ValueError:
        raise ParametersError(f"The parameters {path} are not YAML.", "Check the file; JSON is YAML, too.") from None
    return parse({} if document is None else document)


def parse(document: Any) -> Parameters:
    """Make parameters of what a YAML reader returned.

    Raises:
        ParametersError: something in it is not understood.
    """
    if not isinstance(document, Mapping):
        raise ParametersError("The parameters are no mapping.", "See collector-config/kibana/parameters.yaml.")
    known = {item.name: _READERS.get(str(item.type)) for item in fields(Parameters)}
    unknown = sorted(str(name)[:40] for name in document if name not in known)
    if unknown:
        raise ParametersError(f"Unknown parameters: {', '.join(unknown)}.", f"Known are: {', '.join(known)}.")
    found: dict[str, Any] = {}
    for name, item in document.items():
        reader = known[name]
        assert reader is not None, name
        found[name] = reader(name, item)
    return Parameters(**found)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ParametersError(
            "PyYAML is not installed.", "Run `pip install 'auditspan[policy]'`, or name a .json file."
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError from error


def _wrong(name: str, wanted: str) -> ParametersError:
    return ParametersError(f"The parameter {name} is not as it must be.", f"It must be {wanted}.")


def _text(name: str, item: Any) -> str:
    if not isinstance(item, str) or not item:
        raise _wrong(name, "a text (in quotes, if it looks like a number or a time)")
    return item


def _number(name: str, item: Any) -> int:
    if type(item) is not int:
        raise _wrong(name, "a whole number")
    return item


def _truth(name: str, item: Any) -> bool:
    if not isinstance(item, bool):
        raise _wrong(name, "true or false")
    return item


def _texts(name: str, item: Any) -> tuple[str, ...]:
    if not isinstance(item, list):
        raise _wrong(name, "a list of texts")
    return tuple(_text(name, one) for one in item)


def _lists(name: str, item: Any) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(item, Mapping):
        raise _wrong(name, "a mapping from a name to a list of texts")
    found = {_text(name, key): _texts(name, value) for key, value in item.items()}
    if not all(found.values()):
        raise _wrong(name, "without empty lists: leave out what nothing is said of")
    return found


def _scopes(name: str, item: Any) -> tuple[Scope, ...]:
    if not isinstance(item, list) or not all(isinstance(one, Mapping) for one in item):
        raise _wrong(name, "a list of mappings with workflow, target_types and targets")
    found = []
    for one in item:
        if set(one) - {"workflow", "target_types", "targets"} or not (one.get("target_types") or one.get("targets")):
            raise _wrong(name, "a list of mappings with workflow and target_types, targets, or both")
        found.append(
            Scope(
                _text(name, one.get("workflow")), _texts(name, one.get("target_types") or []),
                _texts(name, one.get("targets") or []),
            )
        )  # fmt: skip
    return tuple(found)


def _actions(name: str, item: Any) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(item, list) or not all(isinstance(one, Mapping) and "id" in one for one in item):
        raise _wrong(name, "a list of actions as Kibana's alerting API takes them, each with the id of a connector")
    return tuple(dict(one) for one in item)


_READERS: dict[str, Any] = {
    "str": _text,
    "int": _number,
    "bool": _truth,
    "tuple[str, ...]": _texts,
    "Mapping[str, tuple[str, ...]]": _lists,
    "tuple[Scope, ...]": _scopes,
    "tuple[Mapping[str, Any], ...]": _actions,
}
