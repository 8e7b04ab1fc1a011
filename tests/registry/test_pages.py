# SPDX-License-Identifier: Apache-2.0
"""The generated pages: complete, with links that lead somewhere, and the messages that the product makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
from auditspan.registry import compare_rules, docs_texts, emit_docs, emit_evolution, emit_roles, load
from auditspan.registry.load import ROOT
from auditspan.registry.model import FREE, Registry, RegistryError
from tests.registry.samples import record

RECORDS = ROOT / emit_docs.PAGE
EVOLUTION = ROOT / emit_evolution.PAGE
PAGES = [RECORDS, ROOT / "docs/reference/crosswalk.md", EVOLUTION, ROOT / emit_roles.PAGE]


def _anchors(page: Path) -> set[str]:
    """The anchors that a renderer makes of headings, and those that are set by hand."""
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)"></a>', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert links or page == EVOLUTION
    for link in links:
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        assert path.exists(), link
        assert not anchor or anchor in _anchors(path), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Path) -> None:
    columns = None
    for line in page.read_text().splitlines():
        if not line.startswith("|"):
            columns = None
            continue
        count = len(re.findall(r"(?<!\\)\|", line))
        assert columns in (None, count), line
        columns = count


def test_anchors_are_unique() -> None:
    anchors = re.findall(r'<a id="([^"]+)"></a>', RECORDS.read_text())
    assert len(anchors) == len(set(anchors))


def test_every_attribute_event_type_value_and_condition_is_on_the_page(registry: Registry) -> None:
    text = RECORDS.read_text()
    for name, a in registry.attributes.items():
        assert f"></a>`{name}` |" in text, name
        assert a.brief.replace("|", "\\|") in text, name
    for name, event in registry.events.items():
        assert f"\n### {name}\n" in text
        assert event.brief in text
        assert f"`{event.message}`" in text or event.message == FREE
    for name, enumeration in registry.enumerations.items():
        assert f"\n### {name}\n" in text
        assert name == "event_type" or all(f"| `{value}` |" in text for value in enumeration.values)
    for condition in registry.conditions:
        assert condition.brief in text


def test_every_event_type_has_a_real_record_on_the_page(registry: Registry) -> None:
    sections = RECORDS.read_text().split('<a id="event-')[1:]
    for section in sections:
        assert "A real record" in section, section.splitlines()[1]


def test_the_page_says_in_the_index_what_the_tables_say_nowhere(registry: Registry) -> None:
    text = RECORDS.read_text()
    for name, a in registry.attributes.items():
        row = next(line for line in text.splitlines() if f"></a>`{name}` |" in line)
        for fact in (a.privacy, a.since, a.source, a.unit or ""):
            assert f" {fact} |" in row, name


def test_messages_on_the_page_are_those_that_the_product_makes(registry: Registry) -> None:
    for event in registry.events.values():
        if event.message == FREE:
            continue
        full = record(registry, event) | {"audit.outcome": "success"}
        assert emit_docs.message(registry, event, full=True) == schema.message_of(full)
        least = record(registry, event, only_required=True) | {"audit.outcome": "success"}
        assert emit_docs.message(registry, event, full=False) == schema.message_of(least)


def test_a_new_event_type_needs_a_sentence(document: dict[str, Any]) -> None:
    document["events"]["data.copy"] = document["events"]["data.read"]
    with pytest.raises(RegistryError, match=r"does not say when one meets data\.copy"):
        emit_docs.files(Registry.parse(document))


def test_a_new_attribute_of_every_record_needs_a_group(document: dict[str, Any]) -> None:
    document["every_record"]["optional"].append("audit.data.count")
    with pytest.raises(RegistryError, match=r"audit\.data\.count is in the groups of the page or in every record"):
        emit_docs.files(Registry.parse(document))


def test_texts_are_about_what_is_there(registry: Registry) -> None:
    assert set(docs_texts.MEET) == set(registry.events)
    assert {a.format for a in registry.attributes.values() if a.format} <= set(docs_texts.FORMATS)


def test_a_page_without_real_records_says_nothing_of_them(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "real_record", lambda event_type: None)
    assert "real record" not in emit_docs.page(registry)


def test_every_rule_is_on_the_page_with_its_reason_and_what_to_do() -> None:
    text = EVOLUTION.read_text()
    for name, rule in compare_rules.RULES.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
        for said in (rule.what, rule.why, rule.instead):
            assert said in row, name
        assert ("**!**" in row) is rule.always
