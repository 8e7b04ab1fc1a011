# SPDX-License-Identifier: Apache-2.0
"""Verifies from Elasticsearch documents alone: reads the sealed spans and the checkpoints back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from auditspan_seal import spans
from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.verify.core import Trust, Verifier
from auditspan_seal.verify.facts import examine
from auditspan_seal.verify.items import CheckpointItem, EntryItem
from auditspan_seal.verify.report import Code, Report
from auditspan_seal.verify.sorter import Sorter

INDICES = "traces-audit*.otel-*,auditspan-log*"
PAGE = 1000  # documents per request
# Of a value that is not there, the record of its erasure may be what is on its way.
_IN_FLIGHT = (Code.ENTRY_MISSING, Code.ENTRY_UNCOVERED, Code.CHECKPOINT_MISSING, Code.VALUE_REMOVED)


def connect(url: str) -> Any:
    """Make a client.

    Args:
        url: may hold user name and password; an API key comes from the environment (ELASTIC_API_KEY).

    Raises:
        SourceError: the client library is not installed, or the URL is none.
    """
    import os

    try:
        from elasticsearch import Elasticsearch
    except ImportError:
        raise SourceError(
            "The Elasticsearch client is not installed.", "Run `pip install 'auditspan[elasticsearch]'`."
        ) from None
    try:
        return Elasticsearch(url, api_key=os.environ.get("ELASTIC_API_KEY") or None, request_timeout=30, max_retries=1)
    except ValueError as error:
        raise SourceError(
            f"{url!r} is not the URL of an Elasticsearch: {error}.", "Give it as http://host:9200."
        ) from None


def verify_elasticsearch(
    url: str,
    *keys: VerifierKey,
    origin: str | None = None,
    wait: float = 15.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Verify what is in Elasticsearch.

    Args:
        url: its URL.
        keys: the keys to trust, each for the log of its name; none: the one that each log names itself.
        origin: verify only this log; None: all that are there.
        wait: seconds to wait for documents in flight before something counts as missing.
        progress: is told what is going on.

    Raises:
        SourceError: it does not answer, or not as it should.
    """
    client = connect(url)
    deadline = time.monotonic() + wait
    while True:
        report = _verify_once(client, url, keys, origin, progress)
        missing = [finding for finding in report.findings if finding.code in _IN_FLIGHT]
        if not missing or time.monotonic() >= deadline:
            return report
        progress(f"{len(missing)} documents are not there; waiting in case they are still on their way …")
        time.sleep(min(2.0, max(0.1, deadline - time.monotonic())))


def _verify_once(
    client: Any, url: str, keys: Sequence[VerifierKey], origin: str | None, progress: Callable[[str], None]
) -> Report:
    def counted() -> Iterator[dict[str, Any]]:
        for count, hit in enumerate(documents(client, _of_log(origin)), 1):
            if count % 10_000 == 0:
                progress(f"{count} documents read …")
            yield hit

    return verify_documents(counted(), _without_password(url), *keys)


def verify_documents(hits: Iterable[dict[str, Any]], source: str, *keys: VerifierKey, trust: Trust | None = None) -> Report:
    """Verify documents that were read already, in any order.

    Args:
        hits: search hits of Elasticsearch: ``_index``, ``_id``, ``_source``.
        source: what is being read, for the report.
        keys: the keys to trust, each for the log of its name; none: the one that each log names itself.
        trust: what else to trust; instead of `keys`.
    """
    trust = trust or Trust(keys)
    sorter = Sorter()
    try:
        for hit in hits:
            add(sorter, hit)
        return Verifier(sorter, trust.report(source), trust).run()
    finally:
        sorter.close()


def add(sorter: Sorter, hit: dict[str, Any]) -> None:
    """Add a search hit to what is to be sorted."""
    if _attributes(hit).get(spans.DOCUMENT) == "checkpoint":
        sorter.add_checkpoint(_checkpoint(hit))
    else:
        sorter.add(examine(_entry(hit)))


def documents(client: Any, query: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Read all documents of the audit streams, at one point in time.

    Args:
        client: an Elasticsearch client.
        query: which; default: all.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
    """
    from elasticsearch import ApiError, TransportError

    try:
        client.indices.refresh(index=INDICES, ignore_unavailable=True, allow_no_indices=True)
        pit = client.open_point_in_time(index=INDICES, keep_alive="5m", ignore_unavailable=True)["id"]
        after = None
        try:
            while True:
                page = client.search(
                    pit={"id": pit, "keep_alive": "5m"},
                    query=query or {"match_all": {}},
                    sort=[{"_shard_doc": "asc"}],
                    size=PAGE,
                    search_after=after,
                    track_total_hits=False,
                )
                hits = page["hits"]["hits"]
                yield from hits
                if len(hits) < PAGE:
                    return
                after, pit = hits[-1]["sort"], page["pit_id"]
        finally:
            client.close_point_in_time(id=pit)
    except ApiError as error:
        if error.status_code == 404:
            return  # no such stream yet: nothing was ever delivered
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


def entries_of(url: str, origin: str | None = None) -> Iterator[tuple[bytes, Private]]:
    """Read the statements in Elasticsearch, each with the personal values that stand beside it.

    Args:
        url: its URL.
        origin: of which log; None: all that are there.

    Raises:
        SourceError: it does not answer, or not as it should.
    """
    for hit in documents(connect(url), _of_log(origin)):
        item = _entry(hit)
        if item.statement is not None:
            whole = {name: (salt, value) for name, (salt, value) in item.openings.items() if salt and value is not None}
            yield item.statement, whole


def batches_of(url: str, statement: bytes) -> list[Batch]:
    """Read the checkpoints of the log that a statement says it is in, in order.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
        MalformedStatement: the statement is none.
    """
    origin = statements.decode(statement).get("origin")
    own = [_of_log(origin), {"term": {f"attributes.{spans.DOCUMENT}": "checkpoint"}}]
    found = [_checkpoint(hit).batch for hit in documents(connect(url), {"bool": {"filter": own}})]
    return sorted((batch for batch in found if batch is not None), key=lambda batch: batch.first)


def _of_log(origin: str | None) -> dict[str, Any] | None:
    return {"term": {f"attributes.{spans.ORIGIN}": origin}} if origin else None


def _source(hit: dict[str, Any]) -> dict[str, Any]:
    source = hit.get("_source")
    return source if isinstance(source, dict) else {}


def _attributes(hit: dict[str, Any]) -> dict[str, Any]:
    attributes = _source(hit).get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _checkpoint(hit: dict[str, Any]) -> CheckpointItem:
    attributes = _attributes(hit)
    origin = str(attributes.get(spans.ORIGIN))
    try:
        first = attributes.get(spans.FIRST)
        batch = Batch(
            note=str(attributes.get(spans.NOTE)),
            first=first if isinstance(first, int) and first >= 0 else -1,
            frontier=batches.split(str(attributes.get(spans.FRONTIER) or "")),
            leaves=batches.split(str(attributes.get(spans.LEAVES) or "")),
        )
        origin = batch.checkpoint().origin
    except FormatError as error:
        return CheckpointItem(origin, None, hit["_id"], error.what)
    return CheckpointItem(origin, batch, hit["_id"])


def _entry(hit: dict[str, Any]) -> EntryItem:
    attributes = _attributes(hit)
    statement = attributes.get(spans.STATEMENT)
    origin, index = attributes.get(spans.ORIGIN), attributes.get(spans.INDEX)
    return EntryItem(
        statement=statement.encode("utf-8", "replace") if isinstance(statement, str) else None,
        origin=origin if isinstance(origin, str) else None,
        index=index if isinstance(index, int) and not isinstance(index, bool) else None,
        document=_source(hit),
        document_id=hit["_id"],
        container=hit["_index"],
        openings=_openings(attributes),
    )


def _openings(attributes: dict[str, Any]) -> dict[str, tuple[str | None, Any]]:
    """Return the salts of a document with the values that stand in it."""
    text = attributes.get(spans.PRIVATE)
    try:
        salts = json.loads(text) if isinstance(text, str) else {}
    except json.JSONDecodeError:
        return {"": (None, None)}
    if not isinstance(salts, dict):
        return {"": (None, None)}
    return {
        str(name): (salt if isinstance(salt, str) else None, statements.value(attributes.get(name)))
        for name, salt in salts.items()
    }


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
