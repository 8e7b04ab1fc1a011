# SPDX-License-Identifier: Apache-2.0
"""Snapshot, delete, restore, verify: green; with one document altered before the snapshot: red.

By the roles that are meant for it: `auditspan_backup` takes the snapshots, `auditspan_auditor` verifies. The last
module that uses the secured server: it deletes backing indices.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.backend import honest
from tests.backend.secured import AUDIT, LOG, SUPERUSER, Secured, hits

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

REPOSITORY = "/_snapshot/vault"
STREAMS = f"{AUDIT},{LOG}"
HONEST, ALTERED = (f"{name}{uuid.uuid4().hex[:6]}" for name in ("honest", "altered"))


def snapshot(place: Secured, name: str) -> None:
    """Take a snapshot with the role for it."""
    body = {"indices": STREAMS, "include_global_state": False}
    answer = place.ask("auditspan_backup", "PUT", f"{REPOSITORY}/{name}?wait_for_completion=true", body)
    assert answer.json()["snapshot"]["state"] == "SUCCESS", answer.text


def restore(place: Secured, name: str) -> None:
    """Restore a snapshot beside the streams that are in use; it is read because its name begins the same."""
    body = {
        "indices": STREAMS, "include_aliases": False, "rename_pattern": "^(.*?)(-default)?$",
        "rename_replacement": f"$1-{name}",
    }  # fmt: skip
    found = place.do("POST", f"{REPOSITORY}/{name}/_restore?wait_for_completion=true", body)
    assert found["snapshot"]["shards"]["failed"] == 0


def remove(place: Secured) -> None:
    """Delete every backing index that has documents."""
    for stream in (AUDIT, LOG):
        place.do("POST", f"/{stream}/_rollover")
        for index in place.backing(stream)[:-1]:
            place.do("DELETE", f"/{index}")


def documents(place: Secured, log: honest.Log, pattern: str) -> list[Any]:
    place.do("POST", f"/{pattern}/_refresh")
    query = {"query": {"term": {"attributes.audit.log.origin": log.origin}}, "size": 500}
    return list(hits(place.ask(SUPERUSER, "POST", f"/{pattern}/_search", query)))


@pytest.fixture(scope="module")
def log(secured: Secured) -> Iterator[honest.Log]:
    """A log of its own; there are two snapshots of it, and it is gone from where it was."""
    secured.do("PUT", REPOSITORY, {"type": "fs", "settings": {"location": "vault"}})
    found = secured.record("log-snapshots", "acme", "snapshots", 6)
    snapshot(secured, HONEST)
    # The visible field that everybody reads, not the statement: the subtler alteration of the two.
    record = next(hit for hit in documents(secured, found, AUDIT) if hit["_source"]["attributes"]["audit.outcome"])
    changed = {"doc": {"attributes": {"audit.outcome": "failure"}}}
    secured.do("POST", f"/{record['_index']}/_update/{quote(record['_id'], '')}?refresh=true", changed)
    snapshot(secured, ALTERED)
    remove(secured)
    assert not documents(secured, found, STREAMS)
    yield found


def test_what_is_deleted_does_not_verify(secured: Secured, log: honest.Log) -> None:
    code, report = secured.verify(log)
    assert (code, report["verdict"]) == (4, "UNVERIFIABLE")


def test_after_restore_it_verifies(secured: Secured, log: honest.Log) -> None:
    restore(secured, HONEST)
    code, report = secured.verify(log)
    assert (code, report["verdict"], report["findings"]) == (0, "PASSED", [])
    assert report["records"] == 6
    # The audit trail goes on beside it.
    more = secured.record("log-after-restore", "acme", "production", 1)
    assert secured.verify(more)[1]["verdict"] == "PASSED"
    for hit in documents(secured, log, f"traces-audit.otel-{HONEST},auditspan-log-{HONEST}"):
        secured.do("DELETE", f"/{hit['_index']}/_doc/{quote(hit['_id'], '')}?refresh=true")


def test_an_altered_document_in_a_snapshot_is_found_after_restore(secured: Secured, log: honest.Log) -> None:
    restore(secured, ALTERED)
    code, report = secured.verify(log)
    assert (code, report["verdict"]) == (1, "FAILED")
    (finding,) = report["findings"]
    assert (finding["code"], finding["field"]) == ("field_mismatch", "attributes.audit.outcome")
