# SPDX-License-Identifier: Apache-2.0
"""A registry that contradicts itself is refused, and the message names the culprit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan.registry import load as loading
from auditspan.registry.load import PACKAGED, SOURCE, load
from auditspan.registry.model import Registry, RegistryError

Document = dict[str, Any]


def test_the_document_reads_back_as_it_was(registry: Registry, document: Document) -> None:
    assert Registry.parse(document) == registry


def test_the_packaged_registry_is_the_source(registry: Registry) -> None:
    assert load(PACKAGED) == registry
    assert load() == registry


def test_the_packaged_registry_needs_no_yaml(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    assert load() == registry
    with pytest.raises(RegistryError, match="PyYAML is not installed"):
        load(SOURCE)


def _message_with_a_personal_value(document: Document) -> None:
    document["events"]["data.read"]["message"] = "read by {audit.actor.id}"


def _message_with_a_foreign_attribute(document: Document) -> None:
    document["events"]["data.read"]["message"] = "read {audit.policy.name}"


def _unknown_attribute(document: Document) -> None:
    document["events"]["data.read"]["optional"].append("audit.nonsense")


def _attribute_twice(document: Document) -> None:
    document["events"]["data.read"]["required"].append("automation.connector.name")


def _document_attribute_in_a_record(document: Document) -> None:
    document["events"]["data.read"]["optional"].append("audit.statement")


def _same_constant(document: Document) -> None:
    document["attributes"]["audit.module"]["constant"] = "FEATURE"


def _unknown_type(document: Document) -> None:
    document["attributes"]["audit.module"]["type"] = "float"


def _unknown_format(document: Document) -> None:
    document["attributes"]["audit.module"]["format"] = "email"


def _unknown_privacy(document: Document) -> None:
    document["attributes"]["audit.module"]["privacy"] = "private"


def _unknown_carrier(document: Document) -> None:
    document["attributes"]["audit.module"]["carrier"] = "header"


def _bad_name(document: Document) -> None:
    document["attributes"]["audit.Module"] = document["attributes"]["audit.module"] | {"constant": "OTHER"}


def _no_sentence(document: Document) -> None:
    document["attributes"]["audit.module"]["brief"] = "the module"


def _misspelled_field(document: Document) -> None:
    document["attributes"]["audit.module"]["privcy"] = "public"


def _missing_field(document: Document) -> None:
    del document["attributes"]["audit.module"]["privacy"]


def _condition_on_nothing(document: Document) -> None:
    document["conditions"].append({"when": {"audit.nonsense": ["X"]}, "require": ["audit.module"], "brief": "No."})


def _no_version(document: Document) -> None:
    document["version"] = "next"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_message_with_a_personal_value, "the message of data.read uses audit.actor.id, which is personal"),
        (_message_with_a_foreign_attribute, "data.read uses audit.policy.name, which its records do not have"),
        (_unknown_attribute, "data.read names the unknown attribute audit.nonsense"),
        (_attribute_twice, "data.read names automation.connector.name twice"),
        (_document_attribute_in_a_record, "data.read names audit.statement, which only stored documents have"),
        (_same_constant, "audit.feature and audit.module have the same constant FEATURE"),
        (_unknown_type, "audit.module has the unknown type 'float'"),
        (_unknown_format, "audit.module has the unknown format 'email'"),
        (_unknown_privacy, "audit.module has the unknown privacy class 'private'"),
        (_unknown_carrier, "audit.module has the unknown carrier 'header'"),
        (_bad_name, "audit.Module is not a dotted lower-case name"),
        (_no_sentence, "the brief of audit.module is not a sentence"),
        (_misspelled_field, "audit.module has the unknown field 'privcy'"),
        (_missing_field, "privacy"),
        (_condition_on_nothing, "a condition names the unknown attribute audit.nonsense"),
        (_no_version, "its version 'next' is not of the form 1.2.3"),
    ],
)
def test_a_contradiction_is_refused(document: Document, edit: Callable[[Document], None], said: str) -> None:
    edit(document)
    with pytest.raises(RegistryError, match=re.escape(said)):
        Registry.parse(document)


@pytest.mark.parametrize("content", ["- no mapping", "key: [", "\x00", "{}"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_what_is_no_registry_is_refused_without_a_traceback(tmp_path: Path, content: str, suffix: str) -> None:
    path = tmp_path / f"registry{suffix}"
    path.write_text(content)
    with pytest.raises(RegistryError):
        load(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="nowhere"):
        load(tmp_path / "nowhere.yaml")


def test_released_versions_are_sorted_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "RELEASED", tmp_path)
    for version in ("0.10.0", "0.2.0", "1.0.0"):
        (tmp_path / f"{version}.yaml").touch()
    assert list(loading.released()) == ["0.2.0", "0.10.0", "1.0.0"]
