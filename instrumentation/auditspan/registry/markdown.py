# SPDX-License-Identifier: Apache-2.0
"""Small pieces of Markdown that the generated pages share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

GENERATED: Final = "<!-- Generated from registry.yaml by `python -m auditspan.registry`. Do not edit. -->"
RECORDS: Final = "records.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar inside a cell is escaped."""
    lines = [_row(head), "|" + "---|" * len(head), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def anchor(name: str) -> str:
    """Return the anchor of an attribute or event type: dots are not allowed in the ones that renderers make."""
    return name.replace(".", "-").replace("_", "-")


def attribute(name: str, page: str = RECORDS) -> str:
    """Return a link to an attribute on the reference page."""
    return f"[`{name}`]({page}#{anchor(name)})"


def event(name: str, page: str = RECORDS) -> str:
    """Return a link to an event type on the reference page."""
    return f"[`{name}`]({page}#event-{anchor(name)})"
