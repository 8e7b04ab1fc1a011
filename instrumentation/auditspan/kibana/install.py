# SPDX-License-Identifier: Apache-2.0
"""Brings everything into a Kibana; a second time it changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditspan.kibana import objects, rules
from auditspan.kibana.client import Kibana
from auditspan.kibana.errors import KibanaError
from auditspan.kibana.objects import Names, Object
from auditspan.kibana.parameters import Parameters
from auditspan.kibana.views import DataView

CREATE, UPDATE, SAME = "create", "update", "unchanged"


@dataclass(frozen=True)
class Change:
    """What is, or would be, done to one object.

    Attributes:
        kind: ``data view``, ``search``, ``dashboard`` or ``rule``.
        id: of the object.
        title: what people read.
        what: ``create``, ``update`` or ``unchanged``.
        differences: of an update: what is not as it is to be.
    """

    kind: str
    id: str
    title: str
    what: str
    differences: tuple[str, ...] = ()


def install(
    kibana: Kibana, names: Names, parameters: Parameters | None, *, dry_run: bool = False, force: bool = False
) -> Iterator[Change]:
    """Install data views, searches, dashboards, and alert rules; tell each object when it is dealt with.

    A search or dashboard that was made of the same description is left alone, also if people have changed it since.

    Args:
        kibana: where.
        names: ids in its space.
        parameters: for the rules; None: no rules.
        dry_run: change nothing.
        force: write searches and dashboards again, over the changes of people.

    Raises:
        KibanaError: it could not be done; what was told before is done.
    """
    wanted = objects.all_objects(names)
    yield from _views(kibana, [item for item in wanted if item["type"] == "index-pattern"], dry_run)
    changes: list[tuple[Change, Object]] = []
    for item in wanted:
        if item["type"] != "index-pattern":
            changes.append((_saved(kibana, item, force), item))
    to_write = [item for change, item in changes if change.what != SAME]
    if to_write and not dry_run:
        kibana.put_saved(to_write)
    yield from (change for change, _ in changes)
    if parameters is not None:
        yield from _rules(kibana, names, parameters, dry_run)


def _views(kibana: Kibana, views: list[Object], dry_run: bool) -> Iterator[Change]:
    for item in views:
        attributes = item["attributes"]
        said = {name: attributes[name] for name in ("title", "name", "timeFieldName")}
        said["fieldFormats"] = DataView.FORMATS
        found = kibana.view(item["id"])
        differences = _differences(said, found or {})
        what = CREATE if found is None else UPDATE if differences else SAME
        if what != SAME and not dry_run:
            kibana.put_view(item["id"], said, exists=found is not None)
        yield Change("data view", item["id"], attributes["name"], what, differences if found else ())


def _saved(kibana: Kibana, item: Object, force: bool) -> Change:
    found = kibana.saved(item["type"], item["id"])
    if found is None:
        return Change(item["type"], item["id"], item["attributes"]["title"], CREATE)
    if force or objects.fingerprint(found) != objects.fingerprint(item):
        known = objects.fingerprint(found) or "another description"
        return Change(item["type"], item["id"], item["attributes"]["title"], UPDATE, (f"made of {known}",))
    return Change(item["type"], item["id"], item["attributes"]["title"], SAME)


def _rules(kibana: Kibana, names: Names, parameters: Parameters, dry_run: bool) -> Iterator[Change]:
    for name, body in rules.bodies(names, parameters).values():
        found = kibana.rule(name)
        if found is not None and found.get("rule_type_id") != body["rule_type_id"]:
            raise KibanaError(f"The rule {name} in Kibana is not ours.", "Delete it there, and install again.")
        said = {key: body[key] for key in ("name", "schedule", "params", "tags", "actions")}
        differences = _differences(said, found or {})
        what = CREATE if found is None else UPDATE if differences else SAME
        if what != SAME and not dry_run:
            kibana.put_rule(name, body, exists=found is not None)
        yield Change("rule", name, body["name"], what, differences if found else ())


def _differences(wanted: Mapping[str, Any], found: Mapping[str, Any], where: str = "") -> tuple[str, ...]:
    """Name what in `found` is not as in `wanted`; what is there besides does not matter."""
    said: list[str] = []
    for name, item in wanted.items():
        other = found.get(name)
        if isinstance(item, Mapping) and isinstance(other, Mapping):
            said += _differences(item, other, f"{where}{name}.")
        elif name == "actions":
            # Kibana adds what it knows of a connector to each action.
            same = isinstance(other, list) and len(other) == len(item) and not any(
                _differences(one, two) for one, two in zip(item, other, strict=True)
            )  # fmt: skip
            said += [] if same else [f"{where}{name}"]
        elif name == "esQuery" and isinstance(other, str):
            said += [] if _loaded(item) == _loaded(other) else [f"{where}{name}"]
        elif item != other:
            said.append(f"{where}{name}")
    return tuple(said)


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def files(names: Names, parameters: Parameters) -> dict[str, str]:
    """Return all of it as files, by path, for those who install by other means."""
    made = {"saved-objects.ndjson": objects.ndjson(objects.all_objects(names))}
    for name, (identifier, body) in rules.bodies(names, parameters).items():
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
        made[f"rules/{safe}.json"] = json.dumps({"id": identifier, "body": body}, indent=2, ensure_ascii=False) + "\n"
    return made


def write(folder: Path, made: Mapping[str, str]) -> None:
    """Write files below a folder.

    Raises:
        KibanaError: it cannot be written.
    """
    try:
        for name, content in made.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise KibanaError(
            f"{folder} cannot be written: {error.strerror}.", "Name a folder of yours, on a disk that is not full."
        ) from None
