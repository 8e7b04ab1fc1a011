# SPDX-License-Identifier: Apache-2.0
"""A panel, described once: from it come what Kibana draws and the query that it means.

::

    Panel(
        "Failures by error", "What goes wrong, and where?", TABLE,
        by=("error.type", "automation.workflow.name"), where="audit.outcome : failure",
    )
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from auditspan.kibana import fields, kql
from auditspan.kibana.errors import DescriptionError

NUMBER, TABLE, DONUT, BARS, LINES = "lnsMetric", "lnsDatatable", "lnsPie", "bar_stacked", "line"
"""How a panel looks: one number, a table, parts of a whole, stacked bars, lines."""

DAYS, HOURS = "1d", "1h"
_OPERATIONS = {
    "count": "value_count",
    "distinct": "cardinality",
    "sum": "sum",
    "latest": "max",
    "highest": "max",
    "median": "percentiles",
    "p95": "percentiles",
}
_PERCENTS = {"median": 50, "p95": 95}


@dataclass(frozen=True)
class Metric:
    """What is counted or measured.

    Attributes:
        what: ``count`` (of documents), ``distinct``, ``sum``, ``highest``, ``latest`` (of a time), ``median``, ``p95``.
        label: what people read.
        of: the field; none for ``count``.
        where: KQL; only these documents.
    """

    what: str = "count"
    label: str = "Records"
    of: str | None = None
    where: str = ""

    def __post_init__(self) -> None:
        if self.what not in _OPERATIONS:
            raise DescriptionError(f"{self.label}: there is no metric {self.what!r}.", f"One of {list(_OPERATIONS)}.")
        if (self.of is None) is not (self.what == "count"):
            raise DescriptionError(f"{self.label}: {self.what} and field do not fit.", "Only `count` has no field.")

    @property
    def order(self) -> str:
        """What buckets are ordered by where this metric is the first; empty: by name."""
        if self.where or self.what in _PERCENTS:
            return ""
        return "_count" if self.of is None else "m0"

    def aggregation(self) -> kql.Query:
        """Return the aggregation that computes it."""
        if self.of is None:
            found: kql.Query = {"filter": {"match_all": {}}}
        elif self.what in _PERCENTS:
            found = {"percentiles": {"field": fields.path(self.of), "percents": [_PERCENTS[self.what]]}}
        elif self.what == "distinct":
            found = {"cardinality": {"field": fields.path(self.of), "precision_threshold": 3000}}
        else:
            found = {_OPERATIONS[self.what]: {"field": fields.path(self.of)}}
        return found if not self.where else {"filter": kql.to_query(self.where), "aggs": {"of": found}}

    def value(self, answer: Any) -> Any:
        """Return its value from what Elasticsearch answered."""
        answer = answer.get("of", answer)
        if self.of is None:
            return answer["doc_count"]
        return next(iter(answer["values"].values())) if self.what in _PERCENTS else answer["value"]


COUNT = Metric()
RUNS = Metric("distinct", "Runs", "automation.run.id")
LATEST = Metric("latest", "Last seen", fields.TIME)


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard.

    Attributes:
        title: what people read above it.
        asks: the question that it answers; becomes its description.
        show: how it looks: one of the constants above.
        by: fields that it is split by, the outermost first; ``@timestamp`` stands for steps of time.
        metrics: what is counted.
        where: KQL; only these documents.
        of: the data view; empty: that of the dashboard.
        top: of each field, so many values.
        width: of the 48 columns of a dashboard; 0: as usual for its look.
    """

    title: str
    asks: str
    show: str
    by: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = (COUNT,)
    where: str = ""
    of: str = ""
    top: int = 10
    width: int = 0

    def __post_init__(self) -> None:
        if self.show not in (NUMBER, TABLE, DONUT, BARS, LINES):
            raise DescriptionError(f"{self.title}: nothing looks like {self.show!r}.", "Take one of the constants.")
        if (self.show == NUMBER) is bool(self.by) or (self.show == NUMBER and len(self.metrics) != 1):
            raise DescriptionError(f"{self.title}: a number is split by nothing.", "All others are split by something.")
        if self.show == DONUT and (len(self.by) > 2 or len(self.metrics) != 1):
            raise DescriptionError(f"{self.title}: a donut has one metric and two rings at most.", "Take a table.")
        if self.show in (BARS, LINES) and len(self.by) > (2 if len(self.metrics) == 1 else 1):
            raise DescriptionError(f"{self.title}: a chart is split by one more thing than its axis.", "Take a table.")
        for name in (*self.by, *(metric.of for metric in self.metrics if metric.of)):
            fields.path(name)
        for text in (self.where, *(metric.where for metric in self.metrics)):
            kql.to_query(text)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in units of a dashboard, which is 48 wide."""
        width, height = {NUMBER: (8, 5), DONUT: (16, 12), TABLE: (24, 12)}.get(self.show, (24, 10))
        return self.width or width, height

    @property
    def fields(self) -> Iterator[str]:
        """The names of the fields that it uses, without those of its filters."""
        yield from self.by
        yield from (metric.of for metric in self.metrics if metric.of)

    def request(self, *also: kql.Query, interval: str = DAYS, zone: str = "UTC") -> kql.Query:
        """Return the body of the search that it means: that which Lens sends, without what only concerns drawing.

        Args:
            also: more filters, for example the range of time that people have chosen.
            interval: one step of time; Kibana chooses it by the range.
            zone: time zone in which days begin; Kibana takes that of the browser.
        """
        values = {f"m{number}": metric.aggregation() for number, metric in enumerate(self.metrics)}
        aggregations = values
        for level, name in reversed(list(enumerate(self.by))):
            if name == fields.TIME:
                steps = {"field": name, "fixed_interval": interval, "time_zone": zone, "min_doc_count": 1}
                aggregations = {f"b{level}": {"date_histogram": steps, "aggs": aggregations}}
            else:
                # Lens orders by the first metric, and shows no row for documents without the field.
                by = self.metrics[0].order
                if by == "m0":  # of this level: what is further in cannot be ordered by
                    aggregations = aggregations | {"m0": self.metrics[0].aggregation()}
                order = {by: "desc"} if by else {"_key": "asc"}
                terms = {"field": fields.path(name), "size": self.top, "order": order}
                aggregations = {f"b{level}": {"terms": terms, "aggs": aggregations}}
        query = {"bool": {"filter": [kql.to_query(self.where), *also]}}
        return {"size": 0, "track_total_hits": True, "query": query, "aggs": aggregations}

    def rows(self, answer: Any) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        """Return what Elasticsearch answered as rows: values of `by` → values of `metrics`."""
        return dict(self._rows(answer["aggregations"], 0, ()))

    def _rows(self, found: Any, level: int, key: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
        if level == len(self.by):
            yield key, tuple(metric.value(found[f"m{number}"]) for number, metric in enumerate(self.metrics))
            return
        for bucket in found[f"b{level}"]["buckets"]:
            value = bucket.get("key_as_string", bucket["key"])
            yield from self._rows(bucket, level + 1, (*key, value))

    def on(self, view: str) -> Panel:
        """Return it with a data view, if it has none of its own."""
        return self if self.of else replace(self, of=view)
