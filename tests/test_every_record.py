# SPDX-License-Identifier: Apache-2.0
"""Runs last: every audit span that any test or example of this session has left on disk follows the registry."""

from __future__ import annotations

from collections import Counter

import pytest

from auditspan import schema
from auditspan_seal.errors import AuditspanError
from auditspan_seal.spans import readable
from tests.records import ON_PURPOSE, directories, recorded


@pytest.mark.last
def test_every_record_of_this_session_follows_the_registry(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    found: Counter[str] = Counter()
    wrong: list[str] = []
    for directory in directories(tmp_path_factory.getbasetemp()):
        if (directory / ON_PURPOSE).exists():
            continue
        try:
            records = list(recorded(directory))
        except AuditspanError:
            continue  # damaged by a test on purpose
        for fields in records:
            attributes = readable(fields["attributes"], {})
            if attributes.get(schema.RECORD_SCHEMA_VERSION) == "0.1.0":
                continue  # a copy of a log of an older release
            found[str(attributes.get(schema.EVENT_TYPE))] += 1
            problems = schema.violations(attributes, erasable=True)
            wrong += [f"{directory.parent.name}: {fields['name']}: {problem}" for problem in problems]
    print(f"{sum(found.values())} records on disk were checked: {dict(sorted(found.items()))}")
    assert wrong == []
    if any("test_audited_or_not_it_does_the_same" in item.nodeid for item in request.session.items):
        assert min(found[kind] for kind in ("webhook.delivery", "data.read", "workflow.execution.finished")) > 0
