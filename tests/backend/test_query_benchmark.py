# SPDX-License-Identifier: Apache-2.0
"""The benchmark of dashboard queries, on few documents: it measures what it says it measures."""

from __future__ import annotations

import json
import os
from collections import Counter
from typing import Any

import pytest

from tests.backend.incident_data import Incident
from tests.benchmarks import queries

pytestmark = [pytest.mark.backend, pytest.mark.timeout(600)]

DOCUMENTS = int(os.environ.get("AUDITSPAN_TEST_DOCUMENTS", "500"))


def records(incident: Incident) -> list[Any]:
    return [hit for hit in incident.hits if hit["_index"].startswith(".ds-traces-audit")]


def test_copies_are_documents_of_their_own(incident: Incident) -> None:
    copies = queries.Copies(records(incident))
    made = [json.loads(text) for text in copies.documents(1000)]
    assert len({(one["trace_id"], one["span_id"]) for one in made}) == 1000
    assert len({one["attributes"]["audit.record.id"] for one in made}) == 1000
    first = len(records(incident))
    for one in made[first : 2 * first]:  # parents are in the same copy of the week, and a statement says the same
        assert one["span_id"] in one["attributes"]["audit.statement"]
        assert one["trace_id"] in one["attributes"]["audit.statement"]
    spans = {one["span_id"] for one in made[first : 2 * first]}
    parents = {one["parent_span_id"] for one in made[first : 2 * first] if "parent_span_id" in one}
    assert len(parents - spans) == 1  # the run that died: of it there is only the beginning
    week = Counter(one["attributes"]["automation.run.id"] for one in made[:first])
    next_week = Counter(one["attributes"]["automation.run.id"] for one in made[first : 2 * first])
    assert not week.keys() & next_week.keys()
    assert sorted(week.values()) == sorted(next_week.values())


def test_it_measures_every_filter_in_peace_and_while_writing(stack: Any, incident: Incident) -> None:
    page = queries.measure(stack, records(incident), DOCUMENTS, 0)
    print("\n\n".join(page))
    assert f"{DOCUMENTS:,} audit documents" in page[1]
    rows = page[2].splitlines()[2:]
    filters = ("nothing", "actor", "action", "run", "resource", "environment")
    assert [row.split(" | ")[0].lstrip("| ") for row in rows] == list(filters)
    assert all(row.count(" ms, ") == 4 for row in rows)
