# SPDX-License-Identifier: Apache-2.0
"""Was anything changed or deleted? Sequence numbers tell it without reading a document.

Every creation, update and deletion in a shard takes the next sequence number. So as long as a shard has had nothing
but creations, it has as many documents as numbers. Where it has fewer, the versions of the documents say which of them
were changed, and what is left over was deleted. This finds what happened by Elasticsearch's own ways; `auditspan
verify` finds what was changed, whatever the way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from auditspan.backend_setup.check_result import Check, failed, ok, unknown
from auditspan.backend_setup.server import Answer, Server, named
from auditspan_seal import spans

_PAGE: Final = 5000
_SHOWN: Final = 5
_FIELDS: Final = [f"attributes.{spans.STATEMENT}", f"attributes.{spans.PRIVATE}"]
_KEEP: Final = "2m"


@dataclass
class Shard:
    """What one shard says of itself.

    Attributes:
        numbers: how many sequence numbers it has given out.
        documents: how many documents it has.
        changed: documents that were written more than once: (index, ID).
        erased: those of them that look as `auditspan erase` leaves them.
        deleted: numbers that no document accounts for.
    """

    numbers: int
    documents: int
    changed: list[tuple[str, str]] = field(default_factory=list)
    erased: int = 0
    deleted: int = 0


def unchanged(server: Server, stream: str) -> Iterator[Check]:
    """Check that no document of a stream was changed or deleted, except by erasure.

    Raises:
        SourceError: Elasticsearch does not answer.
    """
    name = f"unchanged:{stream}"
    settings = server.ask("GET", f"/{named(stream)}/_settings/index.number_of_shards?flat_settings=true")
    if not settings.done:
        yield unknown(name, f"its backing indices are not told: {settings.reason}", _AUDITOR)
        return
    shards = []
    for index, body in sorted(settings.body.items()):
        for number in range(int(body["settings"].get("index.number_of_shards", 1))):
            found = _shard(server, index, number)
            if isinstance(found, Answer):
                yield unknown(name, f"{index} cannot be read: {found.reason}", _AUDITOR)
                return
            shards.append(found)
    yield _judge(name, shards)


_AUDITOR: Final = "Ask with an account that has the role auditspan_auditor."


def _judge(name: str, shards: list[Shard]) -> Check:
    documents = sum(shard.documents for shard in shards)
    changed = [item for shard in shards for item in shard.changed]
    erased, deleted = (sum(getattr(shard, key) for shard in shards) for key in ("erased", "deleted"))
    if changed or deleted:
        said = [f"{len(changed)} of {documents} documents were changed after they were written"] if changed else []
        said += [f"{deleted} writes have left no document: deleted, or lost with a failed node"] if deleted else []
        examples = ", ".join(f"{item} in {index}" for index, item in changed[:_SHOWN])
        return failed(
            name,
            "; ".join(said) + (f" (e.g. {examples})" if examples else ""),
            "Run `auditspan verify --elasticsearch`: it says what was changed. Then `auditspan backend reconcile`.",
        )
    if erased:
        return ok(
            name,
            f"{erased} of {documents} documents were rewritten, all as `auditspan erase` does it; `auditspan verify` "
            "says whether each erasure is on record",
        )
    return ok(name, f"{documents} documents, each written once, none deleted")


def _shard(server: Server, index: str, number: int) -> Shard | Answer:
    """Return what a shard says, or the answer that it cannot be read."""
    opened = server.ask("POST", f"/{named(index)}/_pit?keep_alive={_KEEP}&preference=_shards:{number}")
    if not opened.done:
        return opened
    pit = {"id": opened.body["id"], "keep_alive": _KEEP}
    try:
        # One point in time: the number and the documents are of the same moment, however much is written meanwhile.
        highest = server.ask("POST", "/_search", _query(pit, size=1, track_total_hits=True, order="desc"))
        if not highest.done:
            return highest
        hits = highest.body["hits"]
        shard = Shard(hits["hits"][0]["sort"][0] + 1 if hits["hits"] else 0, hits["total"]["value"])
        if shard.numbers != shard.documents:
            versions = 0
            for hit in _all(server, pit):
                versions += hit["_version"]
                if hit["_version"] > 1:
                    if _is_erased(hit):
                        shard.erased += 1
                    else:
                        shard.changed.append((hit["_index"], hit["_id"]))
            shard.deleted = shard.numbers - versions
        return shard
    finally:
        server.ask("DELETE", "/_pit", {"id": pit["id"]})


def _all(server: Server, pit: dict[str, str]) -> Iterator[dict[str, Any]]:
    after: dict[str, Any] = {}
    while True:
        page = server.ask("POST", "/_search", _query(pit, size=_PAGE, version=True, _source=_FIELDS, **after))
        hits = page.body["hits"]["hits"] if page.done else []
        yield from hits
        if len(hits) < _PAGE:
            return
        after = {"search_after": hits[-1]["sort"]}


def _query(pit: dict[str, str], order: str = "asc", **more: Any) -> dict[str, Any]:
    return {"pit": pit, "sort": [{"_seq_no": order}], "_source": False, **more}


def _is_erased(hit: dict[str, Any]) -> bool:
    """Return whether a value that the statement is committed to is gone together with its salt."""
    attributes = hit.get("_source", {}).get("attributes", {})
    try:
        stated = json.loads(attributes.get(spans.STATEMENT) or "{}").get("attributes", {})
        salts = json.loads(attributes.get(spans.PRIVATE) or "{}")
        committed = {key for key, value in stated.items() if isinstance(value, dict) and "commitment" in value}
        return bool(committed - salts.keys())
    except (ValueError, AttributeError):
        return False
