# SPDX-License-Identifier: Apache-2.0
"""Verifies from Elasticsearch documents alone: reads the sealed spans and the checkpoints back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from typing import Any

from auditspan_seal import spans
from auditspan_seal.errors import SourceError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.verify import parallel
from auditspan_seal.verify.account import Misfits
from auditspan_seal.verify.core import Log, Trust, Verifier
from auditspan_seal.verify.documents import checkpoint_of, entry_of, is_checkpoint
from auditspan_seal.verify.facts import MAX_INDEX, examine
from auditspan_seal.verify.items import EntryItem
from auditspan_seal.verify.journey import Going, Journey
from auditspan_seal.verify.progress import Progress
from auditspan_seal.verify.report import Code, Report
from auditspan_seal.verify.sorter import Sorter
from auditspan_seal.verify.source import Buffer, Feed, says_control
from auditspan_seal.verify.stored import INDICES, Documents
from auditspan_seal.witness.trusted import TrustedCheckpoint

__all__ = ["INDICES", "connect", "documents", "verify_documents", "verify_elasticsearch"]

# Of a value that is not there, the record of its erasure may be what is on its way.
_IN_FLIGHT = (
    Code.ENTRY_MISSING, Code.ENTRY_UNCOVERED, Code.CHECKPOINT_MISSING, Code.VALUE_REMOVED, Code.LOG_TRUNCATED,
    Code.LOG_SILENT, Code.NO_CHECKPOINT, Code.NOTHING_FOUND,
)  # fmt: skip
WORTH_IT = 100_000  # entries of a log from which on starting processes pays
SLICE = 20_000  # entries to a range at least


def connect(url: str) -> Any:
    """Make a client.

    Args:
        url: may hold user name and password; an API key comes from the environment (ELASTIC_API_KEY), as does the
            certificate authority (AUDITSPAN_ELASTICSEARCH_CA_FILE).

    Raises:
        SourceError: the client library is not installed, or the URL is none.
    """
    import os

    try:
        from auditspan_seal.verify.client import QUICK, AnyMajor
    except ImportError:
        raise SourceError(
            "The Elasticsearch client is not installed.", "Run `pip install 'auditspan[elasticsearch]'`."
        ) from None
    try:
        authority = os.environ.get("AUDITSPAN_ELASTICSEARCH_CA_FILE")
        more: dict[str, Any] = {"ca_certs": authority} if authority and url.startswith("https:") else {}
        api_key = os.environ.get("ELASTIC_API_KEY") or None
        return AnyMajor(url, serializers=QUICK, api_key=api_key, request_timeout=30, max_retries=1, **more)
    except (ValueError, OSError) as error:
        raise SourceError(
            f"{without_password(url)!r} is not the URL of an Elasticsearch that can be used: {error}.",
            "Give it as http://host:9200; a private certificate authority as AUDITSPAN_ELASTICSEARCH_CA_FILE.",
        ) from None


def verify_elasticsearch(
    url: str,
    *keys: VerifierKey,
    origin: str | None = None,
    wait: float = 15.0,
    progress: Callable[[str], None] = lambda text: None,
    trust: Trust | None = None,
    jobs: int | None = 1,
    journey: Journey | None = None,
) -> Report:
    """Verify what is in Elasticsearch.

    Args:
        url: its URL.
        keys: the keys to trust, each for the log of its name; none: the one that each log names itself.
        origin: verify only this log; None: all that are there.
        wait: seconds to wait for documents in flight before something counts as missing.
        progress: is told what is going on.
        trust: what else to trust; instead of `keys`.
        jobs: how many processes to use for each log; None: one for each processor if the log is large.
        journey: where to begin, and what to remember; None: everything is looked at.

    Raises:
        SourceError: it does not answer, or not as it should.
    """
    journey = journey or Journey()
    trust = journey.trusting(trust or Trust(keys))
    if origin is not None:
        trust = trust.of(origin)
    going = Going(journey, trust, Progress(progress), jobs or parallel.processors())
    deadline = time.monotonic() + wait
    with closing(connect(url)) as client:
        while True:
            report = _verify_once(client, url, origin, going)
            missing = [finding for finding in report.findings if finding.code in _IN_FLIGHT]
            if not missing or time.monotonic() >= deadline:
                return report
            nothing = missing[0].code is Code.NOTHING_FOUND
            what = "nothing is there" if nothing else f"{len(missing)} documents are not there"
            progress(f"{what}; waiting in case of what is still on its way …")
            time.sleep(min(2.0, max(0.1, deadline - time.monotonic())))


def _verify_once(client: Any, url: str, origin: str | None, going: Going) -> Report:
    journey, trust = going.journey, going.trust
    source = Documents(client, only=origin, run=journey.run)
    report = trust.report(without_password(url))
    try:
        if source.open() and any(item.batch is not None for item in source.loose_checkpoints()):
            # Fields that should be indexed are not: somebody else's templates. What cannot be asked for is sorted here.
            report.notes.append("the documents are not indexed by log and index, so all were read and sorted here")
            sorter = Sorter()
            try:
                for hit in documents(client, _of_log(origin)):
                    if journey.run is None or journey.pick()(_statement(hit)):
                        add(sorter, hit)
                sorter.filtered = journey.run is not None
                Verifier(sorter, report, trust, lambda log, misfits: going.along(sorter, log, misfits)).run()
            finally:
                sorter.close()
        else:
            Verifier(source, report, trust, lambda log, misfits: _walk(source, log, misfits, url, going)).run()
    finally:
        source.close()
    journey.report(report)
    return report


def _walk(source: Documents, log: Log, misfits: Misfits, url: str, going: Going) -> None:
    """Walk along a log, range by range of its indexes; in several processes if that is wanted."""
    origin, journey, trust = log.walk.origin, going.journey, going.trust
    if journey.run is not None:
        journey.one_run(source, log, misfits)
        return
    begin = journey.begin(source, log, misfits, trust)
    size = source.size(origin)
    bounds = _bounds(source, origin, source.first_of(origin, begin), size, going.jobs or 1)
    work = list(zip(bounds, [*bounds[1:], MAX_INDEX], strict=True))
    control = len(work) > 1 and says_control(source, origin)

    def submit(pool: ProcessPoolExecutor, part: tuple[int, int]) -> Future[parallel.Part | None]:
        known = [*trust.keys, *log.named_keys()]
        return pool.submit(walk_documents, url, str(source.pit), origin, part, trust.checkpoints, control, known)

    feed: Feed = Buffer()
    several = len(work) > 1
    for (low, high), result in (
        parallel.in_order(going.jobs or 1, work, submit) if several else ((part, None) for part in work)
    ):
        if result is not None and log.join(result, control):
            journey.reached(log, misfits, trust)
            continue
        checkpoints, feed = source.part(origin, low, high)
        for item in checkpoints:
            log.walk.step(item, feed)
            log.tell()
            journey.reached(log, misfits, trust)
            going.progress.at(log.walk.account.records, log.walk.chain.size / max(1, size))
        if high != MAX_INDEX:
            log.walk.rest(feed)
    journey.reached(log, misfits, trust, last=True)
    log.walk.rest(feed)


def _bounds(source: Documents, origin: str, begin: int, size: int, jobs: int) -> list[int]:
    """Return where ranges begin, each at the first entry of a batch."""
    bounds = [begin]
    if jobs > 1 and size - begin >= WORTH_IT:
        step = max(SLICE, -(-size // (jobs * 50)))
        for index in range(begin + step, size, step):
            first = source.next_first(origin, index)
            if first is not None and first > bounds[-1]:
                bounds.append(first)
    return bounds


def walk_documents(
    url: str, pit: str, origin: str, part: tuple[int, int], trusted: Sequence[TrustedCheckpoint], control: bool,
    keys: Sequence[VerifierKey],
) -> parallel.Part | None:  # fmt: skip
    """Walk along a range of the indexes of a log, in a process of its own; None: not as it should be."""
    with closing(connect(url)) as client:
        source = Documents(client, pit, origin)
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
    with closing(connect(url)) as client:
        for hit in documents(client, _of_log(origin)):
            item = _entry(hit)
            if item.statement is not None:
                openings = item.openings.items()
                yield (
                    item.statement,
                    {name: (salt, value) for name, (salt, value) in openings if salt and value is not None},
                )


def batches_of(url: str, statement: bytes) -> list[Batch]:
    """Read the checkpoints of the log that a statement says it is in, in order.

    Raises:
        SourceError: Elasticsearch does not answer, or not as it should.
        MalformedStatement: the statement is none.
    """
    origin = statements.decode(statement).get("origin")
    own = [_of_log(origin), {"term": {f"attributes.{spans.DOCUMENT}": "checkpoint"}}]
    with closing(connect(url)) as client:
        hits = documents(client, {"bool": {"filter": own}})
        found = [checkpoint_of(_source(hit), hit["_id"]).batch for hit in hits]
    return sorted((batch for batch in found if batch is not None), key=lambda batch: batch.first)


def _of_log(origin: str | None) -> dict[str, Any] | None:
    return {"term": {f"attributes.{spans.ORIGIN}": origin}} if origin else None


def _source(hit: dict[str, Any]) -> dict[str, Any]:
    source = hit.get("_source")
    return source if isinstance(source, dict) else {}


def _entry(hit: dict[str, Any]) -> EntryItem:
    return entry_of(_source(hit), hit["_id"], hit["_index"])


def _statement(hit: dict[str, Any]) -> bytes:
    return _entry(hit).statement or b""


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
