# SPDX-License-Identifier: Apache-2.0
"""Documents as sealed spans are stored: which are checkpoints, which are entries, and what is read from each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from auditspan_seal import spans
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.verify.facts import says
from auditspan_seal.verify.items import CheckpointItem, EntryItem
from auditspan_seal.verify.visible import checkpoint_mismatches


def attributes_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a document; none if there is nothing of the kind."""
    attributes = document.get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def is_checkpoint(document: Mapping[str, Any]) -> bool:
    """Tell whether a document says that it is a checkpoint."""
    return attributes_of(document).get(spans.DOCUMENT) == "checkpoint"


def checkpoint_of(document: Mapping[str, Any], document_id: str | None) -> CheckpointItem:
    """Read a checkpoint document."""
    attributes = attributes_of(document)
    origin = _text(attributes, spans.ORIGIN)
    try:
        first = attributes.get(spans.FIRST)
        batch = Batch(
            note=_text(attributes, spans.NOTE),
            first=first if type(first) is int and first >= 0 else -1,
            frontier=batches.split(_text(attributes, spans.FRONTIER)),
            leaves=batches.split(_text(attributes, spans.LEAVES)),
        )
        origin = batch.checkpoint().origin
        for name, expected, seen in checkpoint_mismatches(batch, document):
            return CheckpointItem(origin, None, document_id, f"{name}: {says(expected, seen)}")
    except FormatError as error:
        return CheckpointItem(origin, None, document_id, error.what)
    return CheckpointItem(origin, batch, document_id)


def _text(attributes: dict[str, Any], name: str) -> str:
    found = attributes.get(name)
    return found if isinstance(found, str) else ""


def entry_of(document: Mapping[str, Any], document_id: str | None, container: str | None) -> EntryItem:
    """Read the document of an entry."""
    attributes = attributes_of(document)
    statement = attributes.get(spans.STATEMENT)
    origin, index = attributes.get(spans.ORIGIN), attributes.get(spans.INDEX)
    return EntryItem(
        statement=statement.encode("utf-8", "replace") if isinstance(statement, str) else None,
        origin=origin if isinstance(origin, str) else None,
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        document=document,
        document_id=document_id,
        container=container,
        openings=_openings(attributes) if spans.PRIVATE in attributes else {},
    )


def _openings(attributes: dict[str, Any]) -> dict[str, tuple[str | None, Any]]:
    """Return the salts of a document with the values that stand in it."""
    text = attributes.get(spans.PRIVATE)
    try:
        salts = orjson.loads(text) if isinstance(text, str) else {}
    except orjson.JSONDecodeError:
        return {"": (None, None)}
    if not isinstance(salts, dict):
        return {"": (None, None)}
    return {
        str(name): (salt if isinstance(salt, str) else None, statements.value(attributes.get(name)))
        for name, salt in salts.items()
    }
