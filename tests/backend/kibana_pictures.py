# SPDX-License-Identifier: Apache-2.0
"""Draws the dashboards as they show the recorded incident: ``python -m tests.backend.kibana_pictures``.

There is no Kibana of today to take pictures of. These are drawn from the same descriptions that the dashboards are
made of, and from what Elasticsearch answers to their queries; Kibana's own colours and letters are others.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from auditspan.devstack import Stack
from auditspan.kibana.dashboards import DASHBOARDS, DATA_VIEWS
from auditspan.kibana.panels import BARS, DONUT, LINES, NUMBER, TABLE, Metric, Panel
from auditspan.kibana.views import Dashboard, layout
from tests.backend.honest import Api
from tests.backend.incident_data import Incident, tell

FOLDER = Path(__file__).parents[2] / "docs" / "kibana"
UNIT, LINE = 22, 15
COLOURS = ("#16879c", "#e07b39", "#7b61a8", "#4f9d5d", "#c2506b", "#b0963a", "#5a7fc0", "#8a8a8a", "#a05d3b", "#3b9aa0")
_DAYS = {"range": {"@timestamp": {"gte": "2026-11-16", "lt": "2026-11-21"}}}


class Picture:
    """One dashboard, drawn."""

    def __init__(self, page: Dashboard, rows: list[dict[Any, Any]]) -> None:
        self._parts: list[str] = []
        panels = page.all_panels()
        places = layout([panel.size for panel in panels])
        height = max(place["y"] + place["h"] for place in places) * UNIT + 40
        for panel, place, found in zip(panels, places, rows, strict=True):
            self._panel(panel, found, place["x"] * UNIT, place["y"] * UNIT + 34, place["w"] * UNIT, place["h"] * UNIT)
        body = "\n".join(self._parts)
        self.text = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {48 * UNIT} {height}" font-family="sans-serif" '
            f'font-size="11">\n<rect width="100%" height="100%" fill="#f4f6f9"/>\n'
            f'<text x="8" y="22" font-size="16" font-weight="bold">{escape(page.title)}</text>\n{body}\n</svg>\n'
        )

    def _panel(self, panel: Panel, rows: dict[Any, Any], x: int, y: int, w: int, h: int) -> None:
        self._parts.append(
            f'<rect x="{x + 3}" y="{y + 3}" width="{w - 6}" height="{h - 6}" rx="4" fill="white" stroke="#d3dae6"/>'
        )
        self._write(x + 10, y + 18, panel.title, w - 20, bold=True)
        draw = {NUMBER: self._number, TABLE: self._table, DONUT: self._parts_of, BARS: self._bars, LINES: self._lines}
        draw[panel.show](panel, rows, x + 10, y + 26, w - 20, h - 36)

    def _write(self, x: float, y: float, text: str, room: float, *, bold: bool = False, size: int = 11) -> None:
        letters = max(3, int(room / (size * 0.56)))
        text = text if len(text) <= letters else text[: letters - 1] + "…"
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}"{weight}>{escape(text)}</text>')

    def _bar(self, x: float, y: float, w: float, h: float, colour: str) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0.5):.1f}" height="{max(h, 0.5):.1f}" fill="{colour}"/>'
        )

    def _number(self, panel: Panel, rows: dict[Any, Any], x: int, y: int, w: int, h: int) -> None:
        ((value,),) = rows.values()
        self._write(x, y + h - 20, said(panel.metrics[0], value), w, size=22)

    def _table(self, panel: Panel, rows: dict[Any, Any], x: int, y: int, w: int, h: int) -> None:
        heads = [name.rpartition(".")[0].rpartition(".")[2] + "." + name.rpartition(".")[2] for name in panel.by]
        heads += [metric.label for metric in panel.metrics]
        column = w / len(heads)
        for number, head in enumerate(heads):
            self._write(x + number * column, y + LINE, head, column - 4, bold=True, size=10)
        for line, (key, values) in enumerate(list(rows.items())[: h // LINE - 2]):
            cells = [*map(str, key), *(said(m, v) for m, v in zip(panel.metrics, values, strict=True))]
            for number, cell in enumerate(cells):
                self._write(x + number * column, y + (line + 2) * LINE + 4, cell, column - 4, size=10)
        if not rows:
            self._write(x, y + 2 * LINE, "nothing found", w)

    def _parts_of(self, panel: Panel, rows: dict[Any, Any], x: int, y: int, w: int, h: int) -> None:
        whole = sum(values[0] for values in rows.values()) or 1
        for line, (key, values) in enumerate(list(rows.items())[: h // 20]):
            self._bar(x, y + line * 20, w * 0.45 * values[0] / whole, 14, COLOURS[line % len(COLOURS)])
            text = f"{' · '.join(map(str, key))}  {said(panel.metrics[0], values[0])}"
            self._write(x + w * 0.47, y + line * 20 + 11, text, w * 0.52)

    def _bars(self, panel: Panel, rows: dict[Any, Any], x: int, y: int, w: int, h: int) -> None:
        days, names = _axes(rows)
        stacks: dict[Any, float] = defaultdict(float)
        for key, values in rows.items():
            stacks[key[0]] += values[0]
        most, left, wide = max(stacks.values(), default=1), w * 0.66, w * 0.66 / max(1, len(days))
        bottom = y + h - 16
        for number, day in enumerate(days):
            at = bottom
            for name in names:
                value = rows.get((day, *name), (0,))[0]
                tall = (h - 30) * value / most
                at -= tall
                if value:
                    self._bar(x + number * wide + 4, at, wide - 8, tall, COLOURS[names.index(name) % len(COLOURS)])
            self._write(x + number * wide + 4, bottom + 12, day[5:10], wide, size=9)
        self._legend(
            [str(name[0]) if name else panel.metrics[0].label for name in names], x + left + 8, y, w - left - 8, h
        )

    def _lines(self, panel: Panel, rows: dict[Any, Any], x: int, y: int, w: int, h: int) -> None:
        days, _ = _axes(rows)
        most = max((value or 0 for values in rows.values() for value in values), default=1) or 1
        left, bottom = w * 0.66, y + h - 16
        for metric in range(len(panel.metrics)):
            points = " ".join(
                f"{x + (number + 0.5) * left / len(days):.0f},"
                f"{bottom - (h - 30) * (rows[(day,)][metric] or 0) / most:.0f}"
                for number, day in enumerate(days)
            )
            self._parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[metric]}" stroke-width="2"/>')
        for number, day in enumerate(days):
            self._write(x + (number + 0.3) * left / len(days), bottom + 12, day[5:10], 40, size=9)
        tops = [
            f"{one.label}, at most {said(one, max(v[i] or 0 for v in rows.values()))}"
            for i, one in enumerate(panel.metrics)
        ]
        self._legend(tops, x + left + 8, y, w - left - 8, h)

    def _legend(self, names: list[str], x: float, y: float, w: float, h: float) -> None:
        for line, name in enumerate(names[: int(h // LINE)]):
            self._bar(x, y + line * LINE + 2, 9, 9, COLOURS[line % len(COLOURS)])
            self._write(x + 14, y + line * LINE + 11, name, w - 14, size=10)


def _axes(rows: dict[Any, Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
    return sorted({key[0] for key in rows}), sorted({key[1:] for key in rows})


def said(metric: Metric, value: Any) -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    if metric.of == "@timestamp":
        return dt.datetime.fromtimestamp(value / 1000, tz=dt.timezone.utc).strftime("%d %b %H:%M")
    if metric.of == "duration":
        return f"{value / 60e9:.1f} min"
    return f"{value:,.0f}"


def draw(api: Api, incident: Incident) -> Iterator[tuple[str, str]]:
    """Give name and text of the picture of each dashboard."""
    patterns = {view.id: view.pattern for view in DATA_VIEWS}
    for page in DASHBOARDS:
        found = []
        for panel in page.all_panels():
            # What happens in real time (gaps, checks) is not of that week: those pages show all of it.
            days = [] if page.id == "auditspan-integrity" else [_DAYS]
            found.append(panel.rows(api("POST", f"/{patterns[panel.of]}/_search", panel.request(incident.only, *days))))
        yield page.id.removeprefix("auditspan-"), Picture(page, found).text


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Stack.start(folder) as stack:
        incident = tell(Path(folder) / "incident", stack.otlp_http_endpoint, stack.elasticsearch_url)
        api = Api(stack.elasticsearch_url)
        FOLDER.mkdir(exist_ok=True)
        for name, text in draw(api, incident):
            (FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")
            print(f"wrote docs/kibana/{name}.svg")
        api.close()


if __name__ == "__main__":
    main()
