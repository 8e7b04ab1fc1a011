# SPDX-License-Identifier: Apache-2.0
"""The documents in Elasticsearch as a source: in the order of their logs and indexes, at one point in time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from auditspan_seal import spans
from auditspan_seal.errors import SourceError
from auditspan_seal.verify import cycles
from auditspan_seal.verify.documents import checkpoint_of, entry_of, is_checkpoint
from auditspan_seal.verify.facts import MAX_INDEX, Fact, examine
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.sorter import grouped
from auditspan_seal.verify.source import Feed, Pick, Stream

INDICES = "traces-audit*.otel-*,auditspan-log*"
PAGE = 1000  # documents per request
RUN = "automation.run.id"
KEEP = "5m"  # how long Elasticsearch keeps the point in time between two requests
_ORIGIN = f"attributes.{spans.ORIGIN}"
_INDEX = f"attributes.{spans.INDEX}"
_FIRST = f"attributes.{spans.FIRST}"
_SIZE = f"attributes.{spans.SIZE}"
_KIND = f"attributes.{spans.DOCUMENT}"
_CHECKPOINT: dict[str, Any] = {"term": {_KIND: "checkpoint"}}
_CHUNK = 500  # indexes to a query
_WIDER = 16  # times as wide a window follows one that is half empty

Query = dict[str, Any]


def every(*queries: Query, without: Sequence[Query] = ()) -> Query:
    """Return a query for what all of these find, and none of the others."""
    return {"bool": {"filter": list(queries), "must_not": list(without)}}


def _exists(field: str) -> Query:
    return {"exists": {"field": field}}


def _between(field: str, begin: int, end: int) -> Query:
    # what is below 0 or beyond all bounds claims no place that it could be sorted to
    return {"range": {field: {"gte": begin, "lt": end}}}


class Documents:
    """Documents at one point in time.

    Args:
        client: an Elasticsearch client.
        pit: ID of the point in time; None: one is opened with the first request, see :meth:`close`.
        only: the one log to look at; None: all.
        run: the run whose spans :meth:`picked` looks at; None: it looks at no spans.
    """

    copies = False
    lines = False

    def __init__(self, client: Any, pit: str | None = None, only: str | None = None, run: str | None = None) -> None:
        self._client = client
        self.pit = pit
        self._only = only
        self._run = run
        self._ahead: Executor | None = None

    def open(self) -> bool:
        """Open the point in time; returns whether there is anything at all.

        Raises:
            SourceError: Elasticsearch does not answer, or not as it should.
        """
        from elasticsearch import AuthorizationException

        client = self._client

        def work() -> str:
            # Who may only read may not refresh (privilege `maintenance`), and sees new documents about a second later.
            with contextlib.suppress(AuthorizationException):
                client.indices.refresh(index=INDICES, ignore_unavailable=True, allow_no_indices=True)
            found = client.open_point_in_time(index=INDICES, keep_alive=KEEP, ignore_unavailable=True)
            return str(found["id"])

        self.pit = answered(work, None)
        return self.pit is not None

    def close(self) -> None:
        """Let the point in time go."""
        if self._ahead is not None:
            self._ahead.shutdown(cancel_futures=True)
            self._ahead = None
        if self.pit is not None:
            pit, self.pit = self.pit, None
            answered(lambda: self._client.close_point_in_time(id=pit), None)

    # -- as a source -------------------------------------------------------------------------------------------

    def origins(self) -> Sequence[str]:
        """See :class:`.source.Source`."""
        if self.pit is None:
            return []
        if self._only is not None:
            return [self._only] if self._search(self._of(self._only), size=1)["hits"]["hits"] else []
        found: list[str] = []
        after: dict[str, Any] = {}
        while True:
            aggregation = {"composite": {"size": 1000, "sources": [{"o": {"terms": {"field": _ORIGIN}}}], **after}}
            page = self._search({"match_all": {}}, size=0, aggs={"origins": aggregation})["aggregations"]["origins"]
            found += [bucket["key"]["o"] for bucket in page["buckets"]]
            if "after_key" not in page:
                return sorted(found)
            after = {"after": page["after_key"]}

    def size(self, origin: str) -> int:
        """Return the largest tree size that a checkpoint document of a log claims."""
        found = self._search(every(self._of(origin), _CHECKPOINT), size=0, aggs={"size": {"max": {"field": _SIZE}}})
        return int(found["aggregations"]["size"]["value"] or 0)

    def next_first(self, origin: str, index: int) -> int | None:
        """Return the lowest first index from `index` on of a checkpoint of a log; None: there is none."""
        query = every(self._of(origin), _CHECKPOINT, _between(_FIRST, index, MAX_INDEX))
        hits = self._search(query, size=1, sort=[{_FIRST: "asc"}])["hits"]["hits"]
        return int(hits[0]["sort"][0]) if hits else None

    def first_since(self, origin: str, moment: int) -> int:
        """See :class:`.source.Source`.

        The time is that of the visible document, which may say anything: the scope that comes of it is said.
        """
        when = moment // 1_000_000
        query = every(self._of(origin), _exists(_INDEX), {"range": {"@timestamp": {"gte": when, "format": _EPOCH}}})
        hits = self._search(query, size=1, sort=_BY_INDEX)["hits"]["hits"]
        return int(hits[0]["sort"][0]) if hits else max(0, self.size(origin) - 1)

    def read(self, origin: str, begin: int = 0) -> tuple[Iterator[CheckpointItem], Feed]:
        """See :class:`.source.Source`."""
        return self.part(origin, self.first_of(origin, begin), MAX_INDEX)

    def first_of(self, origin: str, index: int) -> int:
        """Return where the batch of the checkpoint that covers an index begins; the index if there is none."""
        item = self._covering(origin, index) if index else None
        return item.batch.first if item is not None and item.batch is not None else index

    def part(self, origin: str, begin: int, end: int) -> tuple[Iterator[CheckpointItem], Feed]:
        """Return the checkpoints whose batch begins in a range of indexes, and the entries of that range."""
        feed = Stream(self._entries(origin, begin, end), lambda low, high: self._entries(origin, low, high))
        return self._checkpoints(origin, begin, end), feed

    def checkpoints(self, origin: str) -> Iterator[CheckpointItem]:
        """See :class:`.source.Source`."""
        return self._checkpoints(origin, 0, MAX_INDEX)

    def at(self, origin: str, indexes: Sequence[int]) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        for begin in range(0, len(indexes), _CHUNK):
            some = {"terms": {_INDEX: list(indexes[begin : begin + _CHUNK])}}
            yield from map(_fact, self._hits(every(self._of(origin), some, without=[_CHECKPOINT]), [{_INDEX: "asc"}]))

    def loose(self) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        return (_fact(hit) for hit in self._loose() if not is_checkpoint(_source(hit)))

    def loose_checkpoints(self) -> Iterator[CheckpointItem]:
        """Return the checkpoint documents that no log and no order can be read of."""
        return (checkpoint_of(_source(hit), hit["_id"]) for hit in self._loose() if is_checkpoint(_source(hit)))

    def picked(
        self, origin: str, pick: Pick, before: int | None = None
    ) -> Iterator[tuple[CheckpointItem | None, list[Fact]]]:
        """See :class:`.source.Source`. Of spans only those of the run are looked at."""
        wanted: Query = _exists(_KIND)
        if self._run is not None:
            wanted = {"bool": {"should": [wanted, {"term": {f"attributes.{RUN}": self._run}}]}}
        found = every(
            self._of(origin), wanted, _between(_INDEX, 0, MAX_INDEX if before is None else before),
            without=[_CHECKPOINT],
        )  # fmt: skip
        facts = (
            examine(item)
            for item in (entry_of(_source(hit), hit["_id"], hit["_index"]) for hit in self._hits(found, _BY_INDEX))
            if item.statement is not None and pick(item.statement)
        )
        return grouped(facts, lambda index: self._covering(origin, index))

    # -- requests ----------------------------------------------------------------------------------------------

    def _covering(self, origin: str, index: int) -> CheckpointItem | None:
        query = every(
            self._of(origin), _CHECKPOINT, _between(_FIRST, 0, index + 1), _between(_SIZE, index + 1, MAX_INDEX)
        )
        hits = self._search(query, size=1, sort=[{_FIRST: "desc"}])["hits"]["hits"]
        return checkpoint_of(_source(hits[0]), hits[0]["_id"]) if hits else None

    def _entries(self, origin: str, begin: int, end: int) -> Iterator[Fact]:
        return map(_fact, self._in_place(origin, begin, end))

    def _checkpoints(self, origin: str, begin: int, end: int) -> Iterator[CheckpointItem]:
        query = every(self._of(origin), _CHECKPOINT, _between(_FIRST, begin, end))
        for hit in self._hits(query, [{_FIRST: "asc"}, {_SIZE: "asc"}]):
            yield checkpoint_of(_source(hit), hit["_id"])

    def _loose(self) -> Iterator[dict[str, Any]]:
        entry = every(_exists(_ORIGIN), _between(_INDEX, 0, MAX_INDEX), without=[_CHECKPOINT])
        checkpoint = every(_exists(_ORIGIN), _CHECKPOINT, _between(_FIRST, 0, MAX_INDEX))
        if self.pit is None:
            return iter(())
        query = every(*([self._of(self._only)] if self._only else []), without=[entry, checkpoint])
        return self._hits(query, [])

    @staticmethod
    def _of(origin: str) -> Query:
        return {"term": {_ORIGIN: origin}}

    def hits(self, query: Query) -> Iterator[dict[str, Any]]:
        """Return what a query finds, in any order."""
        return self._hits(query, [])

    def _hits(self, query: Query, order: Sequence[dict[str, str]], **more: Any) -> Iterator[dict[str, Any]]:
        """Return what a query finds, page by page, each from where the one before it ended."""
        return self._pages(
            lambda after: self._page(query, order, after, **more),
            lambda hits, _: (hits[-1]["sort"],) if len(hits) == PAGE else None,
            (None,),
        )  # fmt: skip

    def _in_place(self, origin: str, begin: int, end: int) -> Iterator[dict[str, Any]]:
        """Return the documents of entries that claim an index in a range, in order of it.

        For each page Elasticsearch looks at all that a query finds, to sort them: a log of n entries would cost n². So
        it is asked for one window of indexes after the other, each read to its end, and as wide as a page, since hardly
        an index is ever missing; where few are there, wider. Beyond what a checkpoint claims all is one window.

        A document that claims several indexes is no honest one, and may come more than once; never not at all.
        """
        last = min(end, max(begin, self.size(origin))) if end - begin >= PAGE else begin
        if last - begin <= PAGE // 2:
            last = begin

        def page(low: int, high: int, after: Any) -> list[dict[str, Any]]:
            query = every(self._of(origin), _between(_INDEX, low, high), without=[_CHECKPOINT])
            return self._page(query, _BY_INDEX, after)

        def window(low: int, width: int) -> tuple[int, int, Any]:
            return (low, min(last, low + width), None) if low < last else (low, end, None)

        def following(hits: list[dict[str, Any]], here: tuple[int, int, Any]) -> tuple[int, int, Any] | None:
            low, high, after = here
            if len(hits) == PAGE:
                return low, high, hits[-1]["sort"]
            if high == end:
                return None
            sparse = after is None and len(hits) < PAGE // 2
            return window(high, (high - low) * _WIDER if sparse else PAGE - 1)

        return self._pages(page, following, window(begin, PAGE - 1))

    def _pages(self, page: Any, following: Any, at: tuple[Any, ...] | None) -> Iterator[dict[str, Any]]:
        """Return the hits of page after page, and have the next one fetched while one is being looked at."""
        coming = None
        ahead = self._ahead = self._ahead or ThreadPoolExecutor(2)  # has no thread until something is submitted
        with cycles.sought_rarely() as seek:
            while at is not None:
                hits = page(*at) if coming is None else coming.result()
                at = following(hits, at)
                coming = None if at is None else ahead.submit(page, *at)
                yield from hits
                seek()

    def _page(self, query: Query, order: Sequence[dict[str, str]], after: Any, **more: Any) -> list[dict[str, Any]]:
        found = self._search(query, size=PAGE, sort=[*order, {"_shard_doc": "asc"}], search_after=after, **more)
        return list(found["hits"]["hits"])

    def _search(self, query: Query, **more: Any) -> Any:
        pit = {"id": self.pit, "keep_alive": KEEP}
        found = answered(
            lambda: self._client.search(pit=pit, query=query, track_total_hits=False, **more), {"hits": {"hits": []}}
        )
        self.pit = found.get("pit_id", self.pit)
        return found


_BY_INDEX = [{_INDEX: "asc"}]
_EPOCH = "epoch_millis"


def answered(request: Any, nothing: Any) -> Any:
    """Make a request.

    Args:
        request: makes it.
        nothing: what is returned if what is asked for is not there (HTTP 404): nothing was ever delivered.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
    """
    from elasticsearch import ApiError, TransportError

    try:
        return request()
    except ApiError as error:
        if error.status_code == 404:
            return nothing
        raise SourceError(
            f"Elasticsearch refused to be read: HTTP {error.status_code}, {error.message}.",
            "Check the credentials: reading needs the privileges `read` and `view_index_metadata` on "
            f"{INDICES} (reference: collector-config/README.md).",
        ) from None
    except TransportError as error:
        raise SourceError(
            f"Elasticsearch does not answer: {error.message.splitlines()[0]}.",
            "Check the URL given to --elasticsearch and that the server is up (GET /_cluster/health).",
        ) from None


def _source(hit: dict[str, Any]) -> dict[str, Any]:
    source = hit.get("_source")
    return source if isinstance(source, dict) else {}


def _fact(hit: dict[str, Any]) -> Fact:
    return examine(entry_of(_source(hit), hit["_id"], hit["_index"]))
