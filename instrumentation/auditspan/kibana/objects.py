# SPDX-License-Identifier: Apache-2.0
"""Saved objects for Kibana: one object a line (NDJSON), as its import takes them.

They say that they are of the oldest version in use (`VERSIONS`), so that 8.19 takes them and every later one brings
them up to date itself; an object of a newer version is refused by an older Kibana.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from typing import Any

from auditspan.kibana import fields, kql, lens
from auditspan.kibana.dashboards import DASHBOARDS, DATA_VIEWS, SEARCHES
from auditspan.kibana.errors import DescriptionError
from auditspan.kibana.views import Dashboard, DataView, Search, layout

Object = dict[str, Any]

VERSIONS = {"index-pattern": "8.0.0", "search": "8.0.0", "dashboard": "8.9.0"}
"""The version of each type that is written here; Kibana 8.19 knows newer ones and migrates these when it imports."""
CORE_VERSION = "8.8.0"
_FINGERPRINT = re.compile(r"\[auditspan ([0-9a-f]{12})\]")
_SPACE = re.compile(r"[a-z0-9_-]+")
DEFAULT_SPACE = "default"


class Names:
    """Ids in one space of Kibana.

    An id is there once in all spaces: to have the same object in two of them, it needs two.

    Args:
        space: name of the space.

    Raises:
        DescriptionError: there cannot be a space of that name.
    """

    def __init__(self, space: str = DEFAULT_SPACE) -> None:
        if not _SPACE.fullmatch(space):
            raise DescriptionError(
                f"{space!r} is no space of Kibana.", "Its identifier has lower-case letters, digits, - and _ only."
            )
        self.space = space

    def __call__(self, name: str) -> str:
        """Return the id of a data view, search or dashboard."""
        return name if self.space == DEFAULT_SPACE else f"{name}-{self.space}"

    def rule(self, name: str) -> str:
        """Return the id of a rule: of those with secrets beside them Kibana takes random UUIDs (version 4) only."""
        digest = hashlib.sha256(f"auditspan/{self.space}/{name}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))


def data_view(view: DataView, names: Names) -> Object:
    """Return the saved object of a data view."""
    attributes = {
        "title": view.pattern, "name": view.name, "timeFieldName": fields.TIME,
        "fieldFormatMap": _json(DataView.FORMATS), "fieldAttrs": "{}", "fields": "[]", "runtimeFieldMap": "{}",
        "sourceFilters": "[]", "typeMeta": "{}", "allowNoIndex": True,
    }  # fmt: skip
    return _object("index-pattern", names(view.id), attributes, [])


def search(item: Search, names: Names) -> Object:
    """Return the saved object of a saved search."""
    name = "kibanaSavedObjectMeta.searchSourceJSON.index"
    source = {
        "query": {"query": kql.to_kibana(item.where), "language": "kuery"}, "filter": [], "indexRefName": name,
    }  # fmt: skip
    attributes = {
        "title": item.title, "description": item.asks, "columns": [fields.path(column) for column in item.columns],
        "sort": [[fields.TIME, "desc"]], "grid": {}, "hideChart": False, "isTextBasedQuery": False,
        "timeRestore": False, "kibanaSavedObjectMeta": {"searchSourceJSON": _json(source)},
    }  # fmt: skip
    reference = {"type": "index-pattern", "id": names(item.view), "name": name}
    return _signed(_object("search", names(item.id), attributes, [reference]))


def dashboard(page: Dashboard, names: Names) -> Object:
    """Return the saved object of a dashboard, its panels in it."""
    titles = {item.id: item.title for item in SEARCHES}
    panels = page.all_panels()
    placed = layout([panel.size for panel in panels] + [(48, 15)] * len(page.searches))
    made: list[Object] = []
    references: list[Object] = []
    for number, place in enumerate(placed):
        index = f"p{number:02}"
        base = {"gridData": place | {"i": index}, "panelIndex": index}
        if number < len(panels):
            panel = panels[number]
            attributes = lens.attributes(panel, names(panel.of))
            config = {"attributes": attributes, "enhancements": {}, "hidePanelTitles": False}
            made.append(base | {"type": "lens", "title": panel.title, "embeddableConfig": config})
            references += [one | {"name": f"{index}:{one['name']}"} for one in attributes["references"]]
        else:
            wanted = page.searches[number - len(panels)]
            made.append(
                base
                | {
                    "type": "search", "title": titles[wanted], "embeddableConfig": {"enhancements": {}},
                    "panelRefName": f"panel_{index}",
                }
            )  # fmt: skip
            references.append({"type": "search", "id": names(wanted), "name": f"{index}:panel_{index}"})
    options = {
        "useMargins": True, "syncColors": True, "syncCursor": True, "syncTooltips": False, "hidePanelTitles": False,
    }  # fmt: skip
    source = {"query": {"query": "", "language": "kuery"}, "filter": []}
    attributes = {
        "title": page.title, "description": page.asks, "panelsJSON": _json(made), "optionsJSON": _json(options),
        "version": 1, "timeRestore": True, "timeFrom": "now-7d", "timeTo": "now",
        "refreshInterval": {"pause": True, "value": 60000},
        "kibanaSavedObjectMeta": {"searchSourceJSON": _json(source)},
    }  # fmt: skip
    return _signed(_object("dashboard", names(page.id), attributes, references))


def all_objects(names: Names | None = None) -> list[Object]:
    """Return everything that is imported, what others refer to first."""
    names = names or Names()
    return [
        *(data_view(view, names) for view in DATA_VIEWS),
        *(search(item, names) for item in SEARCHES),
        *(dashboard(page, names) for page in DASHBOARDS),
    ]


def ndjson(objects: Iterable[Object]) -> str:
    """Return objects as a file for import: one a line."""
    return "".join(_json(item) + "\n" for item in objects)


def fingerprint(item: Object) -> str | None:
    """Return the mark by which a search or dashboard tells which description it was made of; None: it has none.

    Kibana brings objects up to date when it imports them, so what it holds cannot be compared with what was sent.
    """
    found = _FINGERPRINT.search(str(item["attributes"].get("description", "")))
    return found.group(1) if found else None


def _signed(item: Object) -> Object:
    mark = hashlib.sha256(_json(item).encode()).hexdigest()[:12]
    item["attributes"]["description"] += f" [auditspan {mark}]"
    return item


def _object(kind: str, name: str, attributes: Object, references: list[Object]) -> Object:
    return {
        "id": name, "type": kind, "attributes": attributes, "references": references, "managed": False,
        "coreMigrationVersion": CORE_VERSION, "typeMigrationVersion": VERSIONS[kind],
    }  # fmt: skip


def _json(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
