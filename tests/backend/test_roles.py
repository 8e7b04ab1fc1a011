# SPDX-License-Identifier: Apache-2.0
"""Who may do what: every cell of docs/reference/elasticsearch-roles.md, executed on a real secured Elasticsearch."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from auditspan.registry.load import load
from auditspan.registry.roles import EXAMPLE, MATRIX, OPERATIONS, ROLES
from tests.backend.honest import eventually
from tests.backend.secured import ARTEFACTS, AUDIT, LOG, PERSON, SUPERUSER, Secured, hits
from tests.backend.secured import PROGRAM as _PROGRAM

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

STREAM = "traces-audit.otel-matrix"  # its own: what is allowed is done
DOCUMENT = {  # in a row that the restricted reader may see
    "@timestamp": "1705314600000.5", "name": "x", "resource": {"attributes": {"service.namespace": EXAMPLE[0]}},
    "attributes": {"audit.record.id": "r", "deployment.environment.name": EXAMPLE[1]},
}  # fmt: skip
CANNOT = {
    "put_role": "native roles: the security index cannot be made",
    "api_key": "API keys: the security index cannot be made",
    "restore": "there is no such snapshot, on purpose",
    "delete_snapshot": "there is no such snapshot, on purpose",
}
"""What even the superuser cannot do here. That one may not is still told apart: 403 comes first."""

Request = tuple[str, str, Any]


def requests(secured: Secured, index: str, document: str) -> Mapping[str, Request]:
    """One request for each operation; `index` is the backing index, `document` the ID of a document in it."""
    now = secured.do("GET", f"/{index}/_doc/second")
    seen = f"if_seq_no={now['_seq_no']}&if_primary_term={now['_primary_term']}"
    new = f"matrix-{uuid.uuid4()}"
    other = f"traces-audit.otel-{uuid.uuid4().hex[:8]}"
    fresh = [{"create": {"_index": STREAM}}, DOCUMENT]
    repository = "/_snapshot/matrix"
    return {
        "create": ("POST", "/_bulk?require_data_stream=true", fresh),
        "create_with_id": ("POST", "/_bulk", [{"create": {"_index": STREAM, "_id": new}}, DOCUMENT]),
        "search": ("POST", f"/{STREAM}/_search", {"size": 1}),
        "get": ("GET", f"/{index}/_doc/{document}", None),
        "point_in_time": ("POST", f"/{STREAM}/_pit?keep_alive=1s", None),
        "update": ("POST", f"/{index}/_update/{document}", {"doc": {"name": "y"}}),
        "overwrite": ("PUT", f"/{index}/_doc/second?{seen}", DOCUMENT),
        "delete": ("DELETE", f"/{index}/_doc/{document}", None),
        "create_stream": ("POST", "/_bulk", [{"create": {"_index": other}}, DOCUMENT]),
        "refresh": ("POST", f"/{STREAM}/_refresh", None),
        "force_merge": ("POST", f"/{STREAM}/_forcemerge", None),
        "rollover": ("POST", f"/{STREAM}/_rollover?dry_run=true", None),
        "put_mapping": ("PUT", f"/{STREAM}/_mapping", {"properties": {"more": {"type": "keyword"}}}),
        "put_settings": ("PUT", f"/{index}/_settings", {"index.merge.policy.deletes_pct_allowed": 20}),
        "block_writes": ("PUT", f"/{index}/_block/write", None),
        "close_index": ("POST", f"/{index}/_close", None),
        "delete_index": ("DELETE", f"/{index}", None),
        "read_mapping": ("GET", f"/{STREAM}/_mapping", None),
        "read_settings": ("GET", f"/{STREAM}/_settings", None),
        "statistics": ("GET", f"/{STREAM}/_stats?level=shards", None),
        "failure_store": ("GET", f"/{STREAM}::failures/_search", None),
        "read_template": ("GET", "/_index_template/auditspan-traces", None),
        "put_template": ("PUT", "/_index_template/matrix", {"index_patterns": ["matrix-never-*"]}),
        "put_component": ("PUT", "/_component_template/matrix", {"template": {}}),
        "cluster_state": ("GET", "/_cluster/state/version", None),
        "put_cluster_settings": ("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}}),
        "read_security": ("GET", "/_security/role/superuser", None),
        "put_role": ("PUT", "/_security/role/matrix", {"cluster": []}),
        "api_key": ("POST", "/_security/api_key", {"name": "matrix"}),
        "take_snapshot": ("PUT", f"{repository}/{uuid.uuid4()}?wait_for_completion=true", {"indices": STREAM}),
        "read_snapshots": ("GET", f"{repository}/_all", None),
        "delete_snapshot": ("DELETE", f"{repository}/none", None),
        "restore": ("POST", f"{repository}/none/_restore", None),
        "foreign_search": ("POST", "/orders/_search", None),
        "foreign_create": ("POST", "/_bulk", [{"create": {"_index": "orders"}}, {"total": 1}]),
    }


@pytest.fixture(scope="module")
def target(secured: Secured) -> tuple[str, str]:
    """Backing index and ID of a document; what else the requests need is there, too."""
    secured.do("PUT", "/_snapshot/matrix", {"type": "fs", "settings": {"location": "matrix"}})
    secured.do("POST", "/_bulk?refresh=true", [{"create": {"_index": "orders"}}, {"total": 1}])
    lines = [line for name in ("first", "second") for line in ({"create": {"_index": STREAM, "_id": name}}, DOCUMENT)]
    secured.do("POST", "/_bulk?refresh=true", lines)
    return secured.backing(STREAM)[0], "first"


def status(secured: Secured, user: str, request: Request) -> int:
    """What a request is answered with; of a bulk request, its one item."""
    answer = secured.ask(user, *request)
    if request[1].startswith("/_bulk") and answer.status_code == 200:
        (item,) = answer.json()["items"]
        return int(next(iter(item.values()))["status"])
    return answer.status_code


def test_the_requests_are_such_that_a_superuser_can_do_them(secured: Secured, target: tuple[str, str]) -> None:
    """Otherwise a refusal could be about the request, and not about who asks."""
    asked = requests(secured, *target)
    assert list(asked) == list(OPERATIONS)
    keep = {"close_index", "delete_index", "delete", "block_writes"}  # they would end what the others need
    found = {what: status(secured, SUPERUSER, asked[what]) for what in asked.keys() - keep}
    assert {what for what, code in found.items() if code >= 300} == set(CANNOT), found
    assert not {401, 403} & set(found.values())


@pytest.mark.parametrize("role", ROLES)
def test_every_cell(secured: Secured, target: tuple[str, str], role: str) -> None:
    found = {what: status(secured, role, request) for what, request in requests(secured, *target).items()}
    assert 401 not in found.values()
    may = {what for what, code in found.items() if code != 403}
    assert may == MATRIX[role], {what: found[what] for what in may ^ MATRIX[role]}
    done = {what for what in may if found[what] < 300}
    assert done == may - CANNOT.keys(), found


def test_a_writer_cannot_put_its_document_in_the_place_of_another(secured: Secured, target: tuple[str, str]) -> None:
    again: Request = ("POST", "/_bulk", [{"create": {"_index": STREAM, "_id": target[1]}}, DOCUMENT])
    assert status(secured, "auditspan_writer", again) == 409
    for action in ("index", "update", "delete"):
        body = {"update": [{"doc": {}}], "delete": []}.get(action, [DOCUMENT])
        seen = {"if_seq_no": 0, "if_primary_term": 1}
        lines = [{action: {"_index": target[0], "_id": target[1], **seen}}, *body]
        assert status(secured, "auditspan_writer", ("POST", "/_bulk", lines)) == 403, action


def test_who_has_no_account_can_do_nothing(secured: Secured) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secured.security, "password", "guessed")
        for user in (SUPERUSER, "auditspan_reader", "nobody"):
            client = secured.clients.pop(user, None)
            assert secured.ask(user, "POST", f"/{AUDIT}/_search").status_code == 401
            secured.clients.pop(user).close()
            if client is not None:
                client.close()


# -- restricted readers -----------------------------------------------------------------------------------------------


def searched(secured: Secured, user: str, **query: Any) -> list[Mapping[str, Any]]:
    secured.do("POST", f"/{AUDIT}/_refresh")
    return hits(secured.ask(user, "POST", f"/{AUDIT},{LOG}/_search?ignore_unavailable=true", {"size": 500, **query}))


def test_a_restricted_reader_sees_only_its_rows(secured: Secured) -> None:
    origins = {log.origin: rows for rows, log in secured.logs.items()}
    everything = {hit["_source"]["attributes"]["audit.log.origin"] for hit in searched(secured, "auditspan_reader")}
    assert everything >= origins.keys()
    found = searched(secured, "auditspan_reader_restricted")
    seen = {hit["_source"]["attributes"]["audit.log.origin"] for hit in found}
    assert {rows for origin, rows in origins.items() if origin in seen} == {EXAMPLE}
    assert {hit["_index"] for hit in found} <= set(secured.backing())  # nothing of the stream of checkpoints
    for rows, log in secured.logs.items():
        query = {"term": {"audit.log.origin": log.origin}}
        assert bool(searched(secured, "auditspan_reader_restricted", query=query)) == (rows == EXAMPLE)
    mine = {hit["_id"] for hit in found}
    for hit in searched(secured, "auditspan_reader"):
        path = f"/{hit['_index']}/_doc/{quote(hit['_id'], '')}"
        answer = secured.ask("auditspan_reader_restricted", "GET", path)
        assert answer.status_code == (200 if hit["_id"] in mine else 403 if "log" in hit["_index"] else 404)


def test_a_restricted_reader_sees_nothing_personal(secured: Secured) -> None:
    personal = {name for name, a in load().attributes.items() if a.privacy == "personal"} | {"audit.statement"}
    full = searched(secured, "auditspan_reader")
    assert PERSON in json.dumps(full)  # it is there, for who may see it
    seen = {name for hit in full for name in hit["_source"].get("attributes", {})}
    assert personal & seen >= {"audit.actor.id", "audit.private", "audit.statement"}
    found = searched(secured, "auditspan_reader_restricted", fields=["*"])
    assert found and PERSON not in json.dumps(found)
    assert not personal & {name for hit in found for name in hit["_source"]["attributes"]}
    for hit in found:  # what it needs to understand what happened is there
        assert {"audit.action", "audit.outcome", "audit.target.id"} <= hit["_source"]["attributes"].keys()


@pytest.mark.parametrize("name", ["attributes.audit.actor.id", "audit.actor.id"])
def test_a_restricted_reader_cannot_guess_what_it_does_not_see(secured: Secured, name: str) -> None:
    ways: dict[str, Callable[[str], Any]] = {
        "query": lambda user: len(searched(secured, user, query={"term": {name: PERSON}})),
        "exists": lambda user: len(searched(secured, user, query={"exists": {"field": name}})),
        "prefix": lambda user: len(searched(secured, user, query={"prefix": {name: "a"}})),
        "aggregation": lambda user: secured.ask(
            user, "POST", f"/{AUDIT}/_search", {"size": 0, "aggs": {"a": {"terms": {"field": name}}}}
        ).json()["aggregations"]["a"]["buckets"],
        "sort": lambda user: [
            hit["sort"] for hit in searched(secured, user, sort=[{name: {"order": "asc", "unmapped_type": "keyword"}}])
            if hit["sort"] != [None]
        ],
    }  # fmt: skip
    for what, way in ways.items():
        assert way("auditspan_reader"), what
        assert not way("auditspan_reader_restricted"), what


# -- the other roles at their work ------------------------------------------------------------------------------------


def test_the_auditor_verifies_and_a_restricted_reader_cannot(secured: Secured) -> None:
    for log in secured.logs.values():
        code, report = secured.verify(log)
        assert (code, report["verdict"], report["findings"]) == (0, "PASSED", [])
        assert report["records"] >= 4
    code, report = secured.verify(secured.logs[EXAMPLE], "auditspan_reader_restricted")
    assert code != 0


def test_the_auditor_reconciles(secured: Secured) -> None:
    log = secured.logs[EXAMPLE]
    code, found = secured.command(
        "backend", "reconcile", str(log.directory.path), "--elasticsearch", secured.url("auditspan_auditor"), "--full"
    )
    assert (code, found["state"], found["missing"]) == (0, "complete", 0), found
    assert found["cluster"]  # the receipt names it: privilege `monitor`


def test_the_eraser_erases_and_the_log_verifies(secured: Secured) -> None:
    log = secured.record("log-erased", "other", "erased", 2)
    mine = {"term": {"audit.log.origin": log.origin}}
    arguments = (
        "erase", str(log.directory.path), "--value", PERSON, "--reason", "request 4711",
        "--elasticsearch",
    )  # fmt: skip
    code, found = secured.command(*arguments, secured.url("auditspan_auditor"), "--wait", "0")
    assert code == 3 and "privileges" in json.dumps(found)  # the auditor cannot
    assert PERSON in json.dumps(searched(secured, "auditspan_reader", query=mine))
    code, found = secured.command(*arguments, secured.url("auditspan_eraser"), "--wait", "0")
    assert code in (0, 3), found
    eventually(lambda: secured.count(log) >= log.size, "the record of the erasure")
    code, report = secured.verify(log)
    assert (code, report["verdict"]) == (0, "PASSED"), report["findings"]
    assert report["erased"] > 0
    left = searched(secured, "auditspan_reader", query=mine)
    assert PERSON not in json.dumps(left)


# -- one source -------------------------------------------------------------------------------------------------------


def test_the_three_forms_of_a_role_say_the_same() -> None:
    file = yaml.safe_load((ARTEFACTS / "roles.yml").read_text())
    assert list(file) == list(ROLES)
    for name, role in file.items():
        assert json.loads((ARTEFACTS / "roles" / f"{name}.json").read_text()) == role
        key = json.loads((ARTEFACTS / "api-keys" / f"{name}.json").read_text())
        assert key["role_descriptors"] == {name: {part: role[part] for part in ("cluster", "indices")}}
        assert key["expiration"]


def test_the_person_that_the_tests_look_for_is_the_one_that_is_recorded() -> None:
    assert PERSON in _PROGRAM
