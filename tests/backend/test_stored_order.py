# SPDX-License-Identifier: Apache-2.0
"""Entries are read out of Elasticsearch in the order of their indexes, all of them, whatever indexes they claim."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from auditspan.devstack import Stack
from auditspan_seal import spans
from auditspan_seal.verify import stored
from auditspan_seal.verify.elasticsearch import connect
from auditspan_seal.verify.facts import MAX_INDEX
from auditspan_seal.verify.stored import Documents
from tests.backend import honest
from tests.backend.honest import Api

pytestmark = [pytest.mark.backend, pytest.mark.timeout(300)]

PAGE = 20
Write = Callable[[Sequence[Any], int], str]


@pytest.fixture
def write(stack: Stack) -> Iterator[Write]:
    api = Api(stack.elasticsearch_url)
    written: list[str] = []

    def write(indexes: Sequence[Any], size: int) -> str:
        """Write a document for each claimed index, and a checkpoint that claims a size; return the log's name."""
        origin = f"order/{uuid.uuid4().hex}"
        checkpoint = {spans.DOCUMENT: "checkpoint", spans.FIRST: 0, spans.SIZE: size}
        lines = []
        for more in [checkpoint, *({spans.INDEX: index} for index in indexes)]:
            source = {"@timestamp": "2026-01-01T00:00:00Z", "attributes": {spans.ORIGIN: origin, **more}}
            lines += [json.dumps({"create": {"_index": "auditspan-log"}}), json.dumps(source)]
        assert not [item for item in api.bulk(lines) if item["status"] >= 300]
        written.append(origin)
        return origin

    yield write
    api.remove(api.read(honest.LOG, *written))  # other tests verify all that is there
    api.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pages were asked for, one item each."""
    monkeypatch.setattr(stored, "PAGE", PAGE)
    pages: list[int] = []
    page = Documents._page

    def counting(self: Documents, *arguments: Any, **more: Any) -> list[dict[str, Any]]:
        found = page(self, *arguments, **more)
        pages.append(len(found))
        return found

    monkeypatch.setattr(Documents, "_page", counting)
    return pages


def read(stack: Stack, origin: str, begin: int = 0, end: int = MAX_INDEX) -> list[Any]:
    client = connect(stack.elasticsearch_url)
    source = Documents(client)
    try:
        assert source.open()
        return [hit["_source"]["attributes"][spans.INDEX] for hit in source._in_place(origin, begin, end)]
    finally:
        source.close()
        client.close()


CASES = {
    "one": [0],
    "a whole log": list(range(500)),
    "a page": list(range(PAGE)),
    "beyond the size": [*range(100), 205, 300, 2**40, MAX_INDEX - 1],
    "a hole": [*range(50), *range(150, 400)],
    "sparse": list(range(0, 3000, 37)),
    "a place that many claim": [*range(100), *[57] * 90, *range(100, 200)],
    "nothing but beyond": [MAX_INDEX - 2],
}


@pytest.mark.parametrize("indexes", CASES.values(), ids=CASES.keys())
def test_in_order_and_each_once(stack: Stack, write: Write, asked: list[int], indexes: list[int]) -> None:
    claimed = random.Random(1).sample(indexes, len(indexes))
    size = max((index + 1 for index in indexes if index < 2**39), default=1)
    origin = write(claimed, min(size, 200))
    assert read(stack, origin) == sorted(indexes)
    assert len(asked) <= len(indexes) / (PAGE // 2) + 6
    some = [index for index in sorted(indexes) if 30 <= index < 170]
    assert read(stack, origin, 30, 170) == some


def test_a_whole_log_costs_no_more_than_its_pages(stack: Stack, write: Write, asked: list[int]) -> None:
    origin = write(range(1900), 1900)
    assert read(stack, origin) == list(range(1900))
    assert len(asked) == 101  # 1900 / 19, and one that finds nothing beyond
    assert set(asked[:-1]) == {PAGE - 1}, "no window has to be sorted twice"


def test_documents_that_claim_several_indexes_are_not_passed_over(stack: Stack, write: Write, asked: list[int]) -> None:
    # More than a page of them, each with an index that sorts before all, and one in the middle of an honest log.
    odd = [[-1, 150], [-1, 2**50], [3, 150]]
    origin = write([*range(200), *(odd * PAGE)], 200)
    found = read(stack, origin)
    assert [index for index in found if isinstance(index, int)] == list(range(200))
    assert all(found.count(item) >= PAGE for item in odd)


def test_a_checkpoint_that_claims_too_much_costs_little(stack: Stack, write: Write, asked: list[int]) -> None:
    origin = write(range(30), 2**62)
    assert read(stack, origin) == list(range(30))
    assert len(asked) < 25
