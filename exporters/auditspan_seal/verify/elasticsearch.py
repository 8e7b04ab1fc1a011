# SPDX-License-Identifier: Apache-2.0
"""Verifies from Elasticsearch documents alone: reads the sealed spans and the checkpoints back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from auditspan_seal import spans
from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.verify import parallel
from auditspan_seal.verify.core import Log, Trust, Verifier
from auditspan_seal.verify.documents import checkpoint_of, entry_of, is_checkpoint
from auditspan_seal.verify.facts import MAX_INDEX, examine
from auditspan_seal.verify.items import EntryItem
from auditspan_seal.verify.progress import Progress
from auditspan_seal.verify.report import Code, Report
from auditspan_seal.verify.sorter import Sorter
from auditspan_seal.verify.stored import INDICES, Documents
from auditspan_seal.witness.trusted import TrustedCheckpoint

__all__ = ["INDICES", "connect", "documents", "verify_documents", "verify_elasticsearch"]

# Of a value that is not there, the record of its erasure may be what is on its way.
_IN_FLIGHT = (
    Code.ENTRY_MISSING, Code.ENTRY_UNCOVERED, Code.CHECKPOINT_MISSING, Code.VALUE_REMOVED, Code.LOG_TRUNCATED,
    Code.LOG_SILENT,
)  # fmt: skip
WORTH_IT = 100_000  # entries of a log from which on starting processes pays
SLICE = 20_000  # entries to a range at least


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
    trust: Trust | None = None,
    jobs: int = 1,
) -> Report:
    """Verify what is in Elasticsearch.

    Args:
        url: its URL.
        keys: the keys to trust, each for the log of its name; none: the one that each log names itself.
        origin: verify only this log; None: all that are there.
        wait: seconds to wait for documents in flight before something counts as missing.
        progress: is told what is going on.
        trust: what else to trust; instead of `keys`.
        jobs: how many processes to use for each log.

    Raises:
        SourceError: it does not answer, or not as it should.
    """
    trust = trust or Trust(keys)
    if origin is not None:
        trust = trust.of(origin)
    client = connect(url)
    deadline = time.monotonic() + wait
    while True:
        report = _verify_once(client, url, trust, origin, Progress(progress), jobs)
        missing = [finding for finding in report.findings if finding.code in _IN_FLIGHT]
        if not missing or time.monotonic() >= deadline:
            return report
        progress(f"{len(missing)} documents are not there; waiting in case they are still on their way …")
        time.sleep(min(2.0, max(0.1, deadline - time.monotonic())))


def _verify_once(client: Any, url: str, trust: Trust, origin: str | None, progress: Progress, jobs: int) -> Report:
    source = Documents(client, only=origin)
    report = trust.report(_without_password(url))
    try:
        if not source.open():
            source = Documents(None, only=origin)
        elif any(item.batch is not None for item in source.loose_checkpoints()):
            # Fields that should be indexed are not: somebody else's templates. What cannot be asked for is sorted here.
            return verify_documents(documents(client, _of_log(origin)), report.source, trust=trust)
        return Verifier(source, report, trust, lambda log: _walk(source, log, url, trust, progress, jobs)).run()
    finally:
        source.close()


def _walk(source: Documents, log: Log, url: str, trust: Trust, progress: Progress, jobs: int) -> None:
    """Walk along a log, range by range of its indexes; in several processes if that is wanted."""
    origin = log.walk.origin
    size = source.size(origin)
    bounds = _bounds(source, origin, size, jobs)
    work = list(zip(bounds, [*bounds[1:], MAX_INDEX], strict=True))
    control = jobs > 1 and _control(source, origin)

    def submit(pool: ProcessPoolExecutor, part: tuple[int, int]) -> Future[parallel.Part | None]:
        known = [*trust.keys, *log.named_keys()]
        return pool.submit(walk_documents, url, str(source.pit), origin, part, trust.checkpoints, control, known)

    pairs = parallel.in_order(jobs, work, submit) if len(work) > 1 else ((part, None) for part in work)
    for (begin, end), result in pairs:
        if result is not None and log.join(result, control):
            continue
        checkpoints, feed = source.part(origin, begin, end)
        for item in checkpoints:
            log.walk.step(item, feed)
            log.tell()
            progress.at(log.walk.account.records, log.walk.chain.size / max(1, size))
        log.walk.rest(feed)


def _bounds(source: Documents, origin: str, size: int, jobs: int) -> list[int]:
    """Return where ranges begin, each at the first entry of a batch."""
    bounds = [0]
    if jobs > 1 and size >= WORTH_IT:
        step = max(SLICE, -(-size // (jobs * 50)))
        for index in range(step, size, step):
            first = source.next_first(origin, index)
            if first is not None and first > bounds[-1]:
                bounds.append(first)
    return bounds


def _control(source: Documents, origin: str) -> bool:
    for fact in source.at(origin, [0]):
        with contextlib.suppress(FormatError):
            return statements.decode(fact.more.statement or b"").get("control") is True
    return False


def walk_documents(
    url: str, pit: str, origin: str, part: tuple[int, int], trusted: Sequence[TrustedCheckpoint], control: bool,
    keys: Sequence[VerifierKey],
) -> parallel.Part | None:  # fmt: skip
    """Walk along a range of the indexes of a log, in a process of its own; None: not as it should be."""
    source = Documents(connect(url), pit, origin)
    checkpoints, feed = source.part(origin, *part)
    return parallel.summed(origin, ((item, feed, {}) for item in checkpoints), feed, trusted, control, keys)


def verify_documents(
    hits: Iterable[dict[str, Any]], source: str, *keys: VerifierKey, trust: Trust | None = None
) -> Report:
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
    if is_checkpoint(_source(hit)):
        sorter.add_checkpoint(checkpoint_of(_source(hit), hit["_id"]))
    else:
        sorter.add(examine(_entry(hit)))


def documents(client: Any, query: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
    """Read all documents of the audit streams, in any order, at one point in time.

    Args:
        client: an Elasticsearch client.
        query: which; default: all.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
    """
    source = Documents(client)
    try:
        if source.open():
            yield from source.hits(query or {"match_all": {}})
    finally:
        source.close()


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
    hits = documents(connect(url), {"bool": {"filter": own}})
    found = [checkpoint_of(_source(hit), hit["_id"]).batch for hit in hits]
    return sorted((batch for batch in found if batch is not None), key=lambda batch: batch.first)


def _of_log(origin: str | None) -> dict[str, Any] | None:
    return {"term": {f"attributes.{spans.ORIGIN}": origin}} if origin else None


def _source(hit: dict[str, Any]) -> dict[str, Any]:
    source = hit.get("_source")
    return source if isinstance(source, dict) else {}


def _entry(hit: dict[str, Any]) -> EntryItem:
    return entry_of(_source(hit), hit["_id"], hit["_index"])


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
