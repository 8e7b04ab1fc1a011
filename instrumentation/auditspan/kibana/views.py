# SPDX-License-Identifier: Apache-2.0
"""What dashboards are made of beside panels: data views, saved searches, and the dashboard itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from auditspan.kibana import fields, kql
from auditspan.kibana.panels import Panel


@dataclass(frozen=True)
class DataView:
    """Which documents, under which name.

    Attributes:
        id: fixed, so that links and later versions find it.
        name: what people read.
        pattern: the indexes, as Elasticsearch takes them.
    """

    id: str
    name: str
    pattern: str

    FORMATS: ClassVar[dict[str, Any]] = {
        "duration": {
            "id": "duration",
            "params": {
                "inputFormat": "nanoseconds", "outputFormat": "humanizePrecise", "outputPrecision": 1,
                "useShortSuffix": True,
            },
        },
        "trace_id": {
            "id": "url",
            "params": {"urlTemplate": "apm/link-to/trace/{{value}}", "labelTemplate": "{{value}}"},
        },
    }  # fmt: skip
    """How values look: a duration as such, a trace as a link to its waterfall."""


@dataclass(frozen=True)
class Search:
    """A list of documents, newest first.

    Attributes:
        id: fixed.
        title: what people read.
        asks: the question that it answers.
        view: id of the data view.
        columns: fields.
        where: KQL; only these documents.
    """

    id: str
    title: str
    asks: str
    view: str
    columns: tuple[str, ...]
    where: str = ""

    def __post_init__(self) -> None:
        kql.to_query(self.where)
        for name in self.columns:
            fields.path(name)

    def request(self, *also: kql.Query, size: int = 500) -> kql.Query:
        """Return the body of the search that it means.

        Args:
            also: more filters.
            size: documents at most; 500 as in Discover.
        """
        query = {"bool": {"filter": [kql.to_query(self.where), *also]}}
        return {"size": size, "track_total_hits": True, "query": query, "sort": [{fields.TIME: "desc"}]}


@dataclass(frozen=True)
class Dashboard:
    """One page.

    Attributes:
        id: fixed.
        title: what people read.
        asks: whom it is for, and what it answers.
        view: id of the data view of panels that name none.
        panels: from left to right, and down.
        searches: ids of saved searches below them.
    """

    id: str
    title: str
    asks: str
    view: str
    panels: tuple[Panel, ...]
    searches: tuple[str, ...] = ()

    def all_panels(self) -> list[Panel]:
        """Return its panels, each with its data view."""
        return [panel.on(self.view) for panel in self.panels]


def layout(sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Place panels from left to right in rows of 48 units; a row is as high as the highest in it."""
    placed: list[dict[str, Any]] = []
    x = y = height = 0
    for w, h in sizes:
        if x + w > 48:
            x, y, height = 0, y + height, 0
        placed.append({"x": x, "y": y, "w": w, "h": h})
        x, height = x + w, max(height, h)
    return placed
