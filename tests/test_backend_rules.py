# SPDX-License-Identifier: Apache-2.0
"""What Elasticsearch adds to what it was given is no difference, where the servers of the tests cannot show it.

The minimal distribution has neither native roles nor lifecycle policies. Their answers are written here as the
documentation has them; everything else is compared with the answers of real servers (tests/backend).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

from auditspan.backend_setup import compare
from auditspan.backend_setup.artefacts import POLICY, ROLE, Artefact, Wanted, load
from auditspan.registry.load import ROOT

FOLDER = ROOT / "collector-config" / "elasticsearch"
ALL = load(FOLDER, Wanted(retention=90, ilm=True, roles=True, readers=(("ops", "acme", "test"),)))


def answered(artefact: Artefact) -> dict[str, Any]:
    """What a GET answers after the artefact was put."""
    body: dict[str, Any] = copy.deepcopy(compare.marked(artefact))
    if artefact.kind == ROLE:
        for grant in body["indices"]:
            grant["allow_restricted_indices"] = False
        added = {"applications": [], "run_as": [], "transient_metadata": {"enabled": True}, "remote_indices": []}
        return {artefact.name: body | added}
    body["policy"]["phases"]["hot"]["min_age"] = "0ms"
    modified = {"version": 3, "modified_date": "2026-11-28T00:00:00.000Z", "in_use_by": {"indices": []}}
    return {artefact.name: body | modified}


@pytest.mark.parametrize("artefact", [item for item in ALL if item.kind in (ROLE, POLICY)], ids=lambda item: item.title)
def test_what_comes_back_is_what_was_put(artefact: Artefact) -> None:
    current = artefact.current(answered(artefact))
    assert current is not None
    assert compare.changes(artefact, current) == []
    assert not compare.edited(artefact.kind, current)


def test_a_role_that_somebody_widened_or_restricted_is_seen() -> None:
    (writer,) = (item for item in ALL if item.name == "auditspan_writer")
    current = writer.current(answered(writer))
    assert current is not None
    current["indices"][0]["privileges"].append("read")
    assert [change.path for change in compare.changes(writer, current)] == ["indices[0].privileges"]
    assert compare.edited(ROLE, current)
    current["indices"][0]["query"] = '{"term":{"a":1}}'
    (restricted,) = (change for change in compare.changes(writer, current) if change.path.endswith("query"))
    assert compare.weakens(restricted) == "the role is restricted there"


@pytest.mark.parametrize(
    ("path", "old", "new", "weaker"),
    [
        ("template.mappings.dynamic", "strict", "false", True),
        ("template.mappings.dynamic", "true", "false", False),
        ("template.mappings.properties.attributes.dynamic", "false", "true", True),
        ("template.lifecycle.data_retention", "36h", "1d", True),
        ("template.lifecycle.data_retention", "36h", "2d", False),
        ("template.lifecycle.data_retention", None, "2d", False),
        ("policy.phases.delete.min_age", "30d", "29d", True),
        ("priority", "300", "250", True),
        ("priority", "250", "300", False),
        ("indices[0].field_security.grant", '["a"]', None, True),
        ("template.settings.index.codec", "best_compression", "default", False),
    ],
)
def test_what_is_weaker(path: str, old: str | None, new: str | None, weaker: bool) -> None:
    assert (compare.weakens(compare.Change(path, old, new)) is not None) == weaker
