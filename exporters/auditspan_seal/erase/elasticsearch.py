# SPDX-License-Identifier: Apache-2.0
"""Erases personal values from the documents in Elasticsearch: value and salt, in every document of the entry."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from auditspan_seal import spans
from auditspan_seal.errors import SourceError
from auditspan_seal.verify.elasticsearch import connect, documents

_CHUNK = 500  # entries per query


def erase(url: str, origin: str, erased: Mapping[int, set[str]]) -> tuple[int, list[int]]:
    """Remove values and salts from the documents of a log.

    Args:
        url: URL of the Elasticsearch.
        origin: the log.
        erased: index → attributes that are erased on record.

    Returns:
        how many documents were changed, and the indexes that have no document there: it is still on its way, and the
        erasure is to be run again.

    Raises:
        SourceError: Elasticsearch does not answer or refuses; the message names no value.
    """
    from elasticsearch import ApiError, TransportError

    client = connect(url)
    changed, seen, indices = 0, set(), set()
    for hit in _documents(client, origin, sorted(erased)):
        attributes = hit["_source"].get("attributes", {})
        index = attributes.get(spans.INDEX)
        names = erased.get(index, set())
        seen.add(index)
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
                "Erasing needs the privileges `read`, `index` and `maintenance` on the backing indices "
                f"({hit['_index']}); use the account that is meant for it. What is erased on disk stays erased.",
            ) from None
        except TransportError:
            raise SourceError(
                "Elasticsearch stopped answering while documents were changed.", "Run the command again."
            ) from None
        changed += 1
        indices.add(hit["_index"])
    if indices:
        _forget_old_versions(client, sorted(indices))
    return changed, sorted(set(erased) - seen)


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
    for hit in _documents(connect(url), origin, sorted(erased)):
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


def _forget_old_versions(client: Any, indices: list[str]) -> None:
    """Have the old versions of changed documents leave the files: they are marked as deleted, no more, until merged."""
    from elasticsearch import ApiError, TransportError

    try:
        # By default a merge leaves segments alone that have less than 10 % of deleted documents.
        client.indices.put_settings(index=indices, settings={"index.merge.policy.expunge_deletes_allowed": 0})
        client.options(request_timeout=600).indices.forcemerge(index=indices, only_expunge_deletes=True)
        client.indices.flush(index=indices, force=True, wait_if_ongoing=True)
        client.indices.put_settings(index=indices, settings={"index.merge.policy.expunge_deletes_allowed": None})
    except (ApiError, TransportError) as error:
        raise SourceError(
            f"The documents were changed, but their old versions may still be in the files: {type(error).__name__}.",
            f"Run `POST {','.join(indices)}/_forcemerge?only_expunge_deletes=true` as an administrator.",
        ) from None
