# SPDX-License-Identifier: Apache-2.0
"""What Elasticsearch holds of one log, as reconciliation asks for it: counted, read back, found by document ID."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from auditspan_seal import spans
from auditspan_seal.formats import merkle
from auditspan_seal.formats.batch import Batch
from auditspan_seal.verify.documents import attributes_of, checkpoint_of
from auditspan_seal.verify.stored import INDICES, Documents, answered, every

_CHUNK = 500  # indexes or IDs to a query
_INDEX = f"attributes.{spans.INDEX}"
_FIRST = f"attributes.{spans.FIRST}"
_CHECKPOINT: dict[str, Any] = {"term": {f"attributes.{spans.DOCUMENT}": "checkpoint"}}
_LONGEST_ID = 200  # characters; see collector-config/collector.yaml

Query = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """The document of an entry: the index that it says, its ID, and the leaf hash of the statement in it."""

    index: int
    document_id: str
    leaf: bytes | None


def entry_id(origin: str, index: int, statement: bytes) -> str:
    """Return the ID that the Collector gives to the document of an entry."""
    return _short(f"{origin}-{index}-{hashlib.sha256(statement).hexdigest()[:16]}")


def checkpoint_id(batch: Batch, origin: str) -> str:
    """Return the ID that the Collector gives to the document of a checkpoint."""
    return _short(f"{origin}-checkpoint-{batch.size}-{hashlib.sha256(batch.note.encode()).hexdigest()[:16]}")


def _short(name: str) -> str:
    return name if len(name.encode()) <= _LONGEST_ID else hashlib.sha256(name.encode()).hexdigest()


class Held(Documents):
    """The documents of one log in Elasticsearch, at one point in time.

    Args:
        client: an Elasticsearch client.
        origin: the log.
    """

    def __init__(self, client: Any, origin: str) -> None:
        super().__init__(client, only=origin)
        self.origin = origin

    def look(self) -> None:
        """Go to the present point in time.

        Raises:
            SourceError: Elasticsearch does not answer, or not as it should.
        """
        self.close()
        self.open()

    def count(self, begin: int, end: int) -> tuple[int, int]:
        """Count the documents of entries in a range of indexes, and of the checkpoints whose batch begins in it."""
        if self.pit is None:
            return 0, 0
        found = self._search(
            self._of(self.origin),
            size=0,
            aggs={
                "entries": {"filter": every(_between(_INDEX, begin, end), without=[_CHECKPOINT])},
                "checkpoints": {"filter": every(_CHECKPOINT, _between(_FIRST, begin, end))},
            },
        )["aggregations"]
        return int(found["entries"]["doc_count"]), int(found["checkpoints"]["doc_count"])

    def entries(self, begin: int, end: int) -> Iterator[Entry]:
        """Read the entries of a range back, in order of their indexes."""
        return self._entries_of(_between(_INDEX, begin, end))

    def entries_at(self, indexes: Sequence[int]) -> Iterator[Entry]:
        """Read some entries back."""
        for begin in range(0, len(indexes), _CHUNK):
            yield from self._entries_of({"terms": {_INDEX: list(indexes[begin : begin + _CHUNK])}})

    def batches(self, begin: int, end: int) -> Iterator[Batch]:
        """Read the checkpoints back whose batch begins in a range; those that cannot be read as one are left out."""
        return self._batches_of(_between(_FIRST, begin, end))

    def batches_at(self, firsts: Sequence[int]) -> Iterator[Batch]:
        """Read the checkpoints back whose batch begins at one of these indexes."""
        for begin in range(0, len(firsts), _CHUNK):
            yield from self._batches_of({"terms": {_FIRST: list(firsts[begin : begin + _CHUNK])}})

    def taken(self, ids: Sequence[str]) -> set[str]:
        """Return which of these document IDs are taken, whatever the documents say."""
        found: set[str] = set()
        for begin in range(0, len(ids), _CHUNK):
            query = {"ids": {"values": list(ids[begin : begin + _CHUNK])}}
            found |= {hit["_id"] for hit in self._read(query, [], source=False)}
        return found

    def failures(self, ids: Sequence[str]) -> dict[str, str]:
        """Return why documents are in the failure store of their data stream: document ID → reason.

        An Elasticsearch without failure stores (before 8.19), or a stream that has none, says nothing.
        """
        found: dict[str, str] = {}
        streams = ",".join(f"{name}::failures" for name in INDICES.split(","))
        for begin in range(0, len(ids), _CHUNK):
            query = {"terms": {"document.id": list(ids[begin : begin + _CHUNK])}}
            for hit in _unless_refused(self._client, streams, query):
                source = hit.get("_source", {})
                name, error = source.get("document", {}).get("id"), source.get("error", {})
                if isinstance(name, str):
                    found[name] = f"{error.get('type', 'error')}: {error.get('message', 'no message')}"
        return found

    # -- requests ----------------------------------------------------------------------------------------------

    def _entries_of(self, which: Query) -> Iterator[Entry]:
        # Not more than what is hashed: the rest of a document is for `auditspan verify`.
        wanted = [_INDEX, f"attributes.{spans.STATEMENT}"]
        query = every(self._of(self.origin), which, without=[_CHECKPOINT])
        for hit in self._read(query, [{_INDEX: "asc"}], source=wanted):
            attributes = attributes_of(hit.get("_source") or {})
            index, statement = attributes.get(spans.INDEX), attributes.get(spans.STATEMENT)
            if type(index) is int:
                yield Entry(index, hit["_id"], _leaf(statement))

    def _batches_of(self, which: Query) -> Iterator[Batch]:
        for hit in self._read(every(self._of(self.origin), _CHECKPOINT, which), [{_FIRST: "asc"}]):
            item = checkpoint_of(hit.get("_source") or {}, hit["_id"])
            if item.batch is not None:
                yield item.batch

    def _read(self, query: Query, order: Sequence[dict[str, str]], **more: Any) -> Iterator[Any]:
        return iter(()) if self.pit is None else self._hits(query, order, **more)


def _leaf(statement: Any) -> bytes | None:
    try:
        return merkle.leaf_hash(statement.encode()) if isinstance(statement, str) else None
    except UnicodeEncodeError:  # half of a character: no statement has that
        return None


def _between(field: str, begin: int, end: int) -> Query:
    return {"range": {field: {"gte": begin, "lt": end}}}


def _unless_refused(client: Any, index: str, query: Query) -> list[Any]:
    from elasticsearch import ApiError

    def ask() -> list[Any]:
        try:
            found = client.search(index=index, query=query, size=_CHUNK, ignore_unavailable=True)
        except ApiError as error:
            if error.status_code in (400, 403, 404):
                return []
            raise
        return list(found["hits"]["hits"])

    return list(answered(ask, []))
