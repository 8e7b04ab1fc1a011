# SPDX-License-Identifier: Apache-2.0
"""From a panel to the Lens object that Kibana 8.19 and 9 draw (datasource ``formBased``)."""

from __future__ import annotations

from typing import Any

from auditspan.kibana import fields, kql
from auditspan.kibana.panels import DONUT, NUMBER, TABLE, Metric, Panel

LAYER = "records"
LAYER_REFERENCE = f"indexpattern-datasource-layer-{LAYER}"
_OPERATIONS = {
    "count": "count", "distinct": "unique_count", "sum": "sum", "latest": "max", "highest": "max",
    "median": "median", "p95": "percentile",
}  # fmt: skip


def attributes(panel: Panel, view: str) -> dict[str, Any]:
    """Return the attributes of the Lens object of a panel.

    Args:
        panel: the panel.
        view: id of its data view.
    """
    splits = {f"b{number}": _split(name, panel) for number, name in enumerate(panel.by)}
    values = {f"m{number}": _value(metric) for number, metric in enumerate(panel.metrics)}
    layer = {
        "columns": splits | values,
        "columnOrder": [*splits, *values],
        "incompleteColumns": {},
        "sampling": 1,
        "ignoreGlobalFilters": False,
    }
    return {
        "title": panel.title,
        "description": panel.asks,
        "visualizationType": panel.show if panel.show in (NUMBER, TABLE, DONUT) else "lnsXY",
        "type": "lens",
        "references": [{"type": "index-pattern", "id": view, "name": LAYER_REFERENCE}],
        "state": {
            "datasourceStates": {"formBased": {"layers": {LAYER: layer}}, "textBased": {"layers": {}}},
            "visualization": _looks(panel, list(splits), list(values)),
            "query": {"query": kql.to_kibana(panel.where), "language": "kuery"},
            "filters": [],
            "internalReferences": [],
            "adHocDataViews": {},
        },
    }


def _split(name: str, panel: Panel) -> dict[str, Any]:
    column = {"label": name, "customLabel": True, "sourceField": fields.path(name), "isBucketed": True}
    if name == fields.TIME:
        return column | {
            "label": "Time", "dataType": "date", "operationType": "date_histogram", "scale": "interval",
            "params": {"interval": "auto", "includeEmptyRows": True, "dropPartials": False},
        }  # fmt: skip
    by_metric = {"orderBy": {"type": "column", "columnId": "m0"}, "orderDirection": "desc"}
    by_name = {"orderBy": {"type": "alphabetical", "fallback": False}, "orderDirection": "asc"}
    return column | {
        "dataType": fields.kind(name), "operationType": "terms", "scale": "ordinal",
        "params": {
            "size": panel.top, **(by_metric if panel.metrics[0].order else by_name),
            "otherBucket": panel.show == DONUT, "missingBucket": False, "parentFormat": {"id": "terms"},
            "include": [], "exclude": [], "includeIsRegex": False, "excludeIsRegex": False,
        },
    }  # fmt: skip


def _value(metric: Metric) -> dict[str, Any]:
    column: dict[str, Any] = {
        "label": metric.label,
        "customLabel": True,
        "dataType": "date" if metric.of == fields.TIME else "number",
        "operationType": _OPERATIONS[metric.what],
        "sourceField": "___records___" if metric.of is None else fields.path(metric.of),
        "isBucketed": False,
        "scale": "ratio",
        "params": {"emptyAsNull": False} if metric.what in ("count", "distinct", "sum") else {},
    }
    if metric.what == "p95":
        column["params"] = {"percentile": 95}
    if metric.where:
        column["filter"] = {"query": kql.to_kibana(metric.where), "language": "kuery"}
    return column


def _looks(panel: Panel, splits: list[str], values: list[str]) -> dict[str, Any]:
    base: dict[str, Any] = {"layerId": LAYER, "layerType": "data"}
    if panel.show == NUMBER:
        return base | {"metricAccessor": values[0]}
    if panel.show == TABLE:
        return base | {"columns": [{"columnId": name} for name in (*splits, *values)]}
    if panel.show == DONUT:
        ring = base | {
            "primaryGroups": splits, "metrics": values, "numberDisplay": "value", "categoryDisplay": "default",
            "legendDisplay": "show", "nestedLegend": False,
        }  # fmt: skip
        return {"shape": "donut", "layers": [ring]}
    series = base | {
        "seriesType": panel.show, "xAccessor": splits[0], "accessors": values, "position": "top",
        "showGridlines": False,
    }  # fmt: skip
    if len(splits) > 1:
        series["splitAccessor"] = splits[1]
    return {
        "legend": {"isVisible": len(splits) > 1 or len(values) > 1, "position": "right"},
        "valueLabels": "hide",
        "fittingFunction": "None",
        "preferredSeriesType": panel.show,
        "layers": [series],
    }
