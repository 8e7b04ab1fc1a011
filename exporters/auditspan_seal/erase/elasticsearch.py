# SPDX-License-Identifier: Apache-2.0
"""Erases personal values from the documents in Elasticsearch: value and salt, in every document of the entry.

A changed document is a new one; the old version stays in the files, readable, until a merge leaves it out.
Elasticsearch keeps it for shard copies that may have to catch up ("soft deletes"), by leases that it moves on every 30
seconds (https://www.elastic.co/docs/reference/elasticsearch/index-settings/history-retention): a merge right after the
change leaves out nothing. So merging is tried until no old version is counted any more.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from auditspan_seal import spans
from auditspan_seal.erase.wanted import Hit, Wanted, hits_in
from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.verify.documents import entry_of
from auditspan_seal.verify.elasticsearch import connect, documents

WAIT = 120.0  # seconds for old versions to leave the files: a lease may need 30 to move on, then again after a flush
_CHUNK = 500  # entries per query
_INDEXED = 1024  # characters; longer ones cannot be asked for (collector-config: ignore_above)
_PAUSE = 5.0  # seconds between two attempts to merge
_EXPUNGE = "index.merge.policy.expunge_deletes_allowed"
_PRIVILEGES = (
    "Erasing needs the privileges of the role auditspan_eraser (docs/reference/elasticsearch-roles.md) on the backing "
    "indices"
)


@dataclass(frozen=True)
class Outcome:
    """What was done in Elasticsearch.

    Attributes:
        changed: how many documents were changed.
        absent: indexes that have no document there: it is still on its way, and the erasure is to be run again.
        old_versions: how many old versions of documents are still in the files, of these or of others.
        released: how many have left them now.
    """

    changed: int
    absent: list[int]
    old_versions: int
    released: int


def find(url: str, origin: str, wanted: Wanted, below: int) -> list[Hit]:
    """Find values in the documents of entries that were pruned from the directory.

    Args:
        url: URL of the Elasticsearch.
        origin: the log.
        wanted: which values.
        below: index of the first entry that the directory still has.

    Raises:
        SourceError: Elasticsearch does not answer.
    """
    own: list[dict[str, Any]] = [
        {"term": {f"attributes.{spans.ORIGIN}": origin}},
        {"range": {f"attributes.{spans.INDEX}": {"gte": 0, "lt": below}}},
    ]
    if wanted.value is not None and len(wanted.value) <= _INDEXED:
        # Asked by every field; what it really is comes from the statement and what stands beside it.
        own.append({"multi_match": {"query": wanted.value, "fields": ["attributes.*"], "lenient": True}})
    if wanted.record is not None:
        names = ("span_id", "attributes.audit.record.id")
        own.append({"bool": {"should": [{"term": {name: wanted.record}} for name in names]}})
    found: list[Hit] = []
    with closing(connect(url)) as client:
        for hit in documents(client, {"bool": {"filter": own}}):
            item = entry_of(hit.get("_source") or {}, hit["_id"], hit["_index"])
            if item.statement is None or item.index is None:
                continue
            private = {
                name: (salt, value) for name, (salt, value) in item.openings.items() if salt and value is not None
            }
            with contextlib.suppress(FormatError):
                found += hits_in(wanted, item.index, item.statement, private)
    return found


def erase(
    url: str,
    origin: str,
    erased: Mapping[int, set[str]],
    wait: float = WAIT,
    progress: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Remove values and salts from the documents of a log.

    Args:
        url: URL of the Elasticsearch.
        origin: the log.
        erased: index → attributes that are erased on record.
        wait: seconds to wait at most for old versions to leave the files.
        progress: is told what goes on.

    Raises:
        SourceError: Elasticsearch does not answer or refuses; the message names no value.
    """
    with closing(connect(url)) as client:
        return _erase(client, origin, erased, wait, progress)


def _erase(
    client: Any, origin: str, erased: Mapping[int, set[str]], wait: float, progress: Callable[[str], None]
) -> Outcome:
    from elasticsearch import ApiError, TransportError

    changed = 0
    seen: set[int] = set()
    indices: set[str] = set()
    for hit in _documents(client, origin, sorted(erased)):
        attributes = hit["_source"].get("attributes", {})
        index = attributes.get(spans.INDEX)
        names = erased.get(index, set())
        seen.add(index)
        indices.add(hit["_index"])  # also if nothing is to be changed: an earlier run may have been cut short
        salts = _salts(attributes)
        if not (names & attributes.keys() or names & salts.keys()):
            continue
        try:
            # The whole document, if nobody changed it meanwhile: no script, so no privilege and no engine for scripts.
            now = client.get(index=hit["_index"], id=hit["_id"])
            client.index(
                index=hit["_index"],
                id=hit["_id"],
                document=_without(now["_source"], names),
                if_seq_no=now["_seq_no"],
                if_primary_term=now["_primary_term"],
            )
        except ApiError as error:
            raise SourceError(
                f"Elasticsearch refused to change a document: HTTP {error.status_code}.",
                "If it is 409, somebody else changed it: run the command again. "
                f"{_PRIVILEGES} ({hit['_index']}); use the account that is meant for it. What is erased on disk stays "
                "erased.",
            ) from None
        except TransportError:
            raise SourceError(
                "Elasticsearch stopped answering while documents were changed.", "Run the command again."
            ) from None
        changed += 1
    before, left = _forget_old_versions(client, sorted(indices), wait, progress) if indices else (0, 0)
    return Outcome(changed, sorted(set(erased) - seen), left, max(0, before - left))


def _without(document: dict[str, Any], names: set[str]) -> dict[str, Any]:
    attributes = {name: value for name, value in document["attributes"].items() if name not in names}
    left = {name: salt for name, salt in _salts(attributes).items() if name not in names}
    attributes.pop(spans.PRIVATE, None)
    if left:
        attributes[spans.PRIVATE] = json.dumps(left, separators=(",", ":"))
    return {**document, "attributes": attributes}


def still_there(url: str, origin: str, erased: Mapping[int, set[str]]) -> int:
    """Count the documents that still show a value, or hold its salt, though it is erased on record.

    Raises:
        SourceError: Elasticsearch does not answer.
    """
    count = 0
    with closing(connect(url)) as client:
        for hit in _documents(client, origin, sorted(erased)):
            attributes = hit["_source"].get("attributes", {})
            names = erased.get(attributes.get(spans.INDEX), set())
            count += bool(names & attributes.keys() or names & _salts(attributes).keys())
    return count


def _documents(client: Any, origin: str, indexes: list[int]) -> Iterator[dict[str, Any]]:
    for begin in range(0, len(indexes), _CHUNK):
        yield from documents(
            client,
            {
                "bool": {
                    "filter": [
                        {"term": {f"attributes.{spans.ORIGIN}": origin}},
                        {"terms": {f"attributes.{spans.INDEX}": indexes[begin : begin + _CHUNK]}},
                    ]
                }
            },
        )


def _salts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        salts = json.loads(attributes.get(spans.PRIVATE) or "{}")
    except (json.JSONDecodeError, TypeError):
        return {}
    return salts if isinstance(salts, dict) else {}


def _forget_old_versions(
    client: Any, indices: list[str], wait: float, progress: Callable[[str], None]
) -> tuple[int, int]:
    """Have the old versions of changed documents leave the files.

    Returns:
        how many there were, and how many are left after `wait` seconds.
    """
    from elasticsearch import ApiError, TransportError

    slow = client.options(request_timeout=600)
    deadline = time.monotonic() + wait
    try:
        client.indices.refresh(index=indices)
        before = left = _old_versions(client, indices)
        if not before:
            return 0, 0
        progress("waiting until Elasticsearch lets go of the old versions of documents (about half a minute)")
        # By default a merge leaves segments alone that have less than 10 % of deleted documents.
        client.indices.put_settings(index=indices, settings={_EXPUNGE: 0})
        try:
            while True:
                slow.indices.flush(index=indices, force=True, wait_if_ongoing=True)
                slow.indices.forcemerge(index=indices, only_expunge_deletes=True)
                client.indices.refresh(index=indices)
                left = _old_versions(client, indices)
                if not left or time.monotonic() >= deadline:
                    break
                time.sleep(_PAUSE)
            # The files of before the merge, and the translog, go with the commit that no longer needs them.
            slow.indices.flush(index=indices, force=True, wait_if_ongoing=True)
        finally:
            client.indices.put_settings(index=indices, settings={_EXPUNGE: None})
    except (ApiError, TransportError) as error:
        raise SourceError(
            f"The documents were changed, but their old versions may still be in the files: {type(error).__name__}.",
            f"{_PRIVILEGES} ({', '.join(indices)}). Run the command again, or, as an administrator, "
            "`POST …/_forcemerge?only_expunge_deletes=true` until `GET _cat/segments` counts no deleted documents.",
        ) from None
    return before, left


def _old_versions(client: Any, indices: list[str]) -> int:
    """Count the deleted documents that are still in the files of any copy of the indices."""
    found = client.indices.segments(index=indices)["indices"]
    return sum(
        int(segment["deleted_docs"])
        for index in found.values()
        for shard in index["shards"].values()
        for copy in shard
        for segment in copy["segments"].values()
    )
