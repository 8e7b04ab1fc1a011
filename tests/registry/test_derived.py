# SPDX-License-Identifier: Apache-2.0
"""What is derived is up to date, and says when it is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from auditspan.registry import __main__ as command
from auditspan.registry import derived
from auditspan.registry.load import ROOT, load, released
from auditspan.registry.model import Registry

RELEASED = {
    "0.2.0": "e54213e11ffbbb0f3ab92fe36e7e8c8c9d5849332a96c91751e988a59078f5f6",
}
"""SHA-256 of each released registry. A line is added at a release, never changed: records follow these files."""


def test_everything_is_up_to_date(registry: Registry) -> None:
    outdated = derived.outdated(derived.files(registry), ROOT)
    assert not outdated, f"run `{derived.COMMAND}`"


def test_every_emitter_writes_something_of_its_own(registry: Registry) -> None:
    paths = [path for emitter in derived.EMITTERS for path in emitter.files(registry)]
    assert len(paths) == len(set(paths))
    assert all(emitter.files(registry) for emitter in derived.EMITTERS)


def test_generated_files_say_that_they_are(registry: Registry) -> None:
    for path, content in derived.files(registry).items():
        if path.endswith(("registry.json", "crosswalk.json")):
            continue  # plain data
        assert "enerated" in content[:1000] or "enerated" in content[-500:], path


def test_released_registries_are_never_edited() -> None:
    found = {version: hashlib.sha256(path.read_bytes()).hexdigest() for version, path in released().items()}
    assert found == RELEASED


def test_released_registries_can_be_read_and_say_their_version() -> None:
    for version, path in released().items():
        assert load(path).version == version


@pytest.fixture
def tree(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree of its own with everything up to date."""
    derived.write(derived.files(registry), tmp_path)
    monkeypatch.setattr(command, "source_tree", lambda: tmp_path)
    return tmp_path


def test_check_names_what_is_not_up_to_date_and_writes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited, gone = tree / "docs/reference/records.md", tree / "docs/reference/crosswalk.json"
    edited.write_text("edited by hand")
    gone.unlink()
    assert command.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "docs/reference/records.md" in said
    assert "docs/reference/crosswalk.json" in said
    assert "docs/reference/crosswalk.md" not in said
    assert derived.COMMAND in said
    assert edited.read_text() == "edited by hand"
    assert not gone.exists()


def test_it_writes_what_differs_and_only_that(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edited = tree / "docs/reference/records.md"
    edited.write_bytes(b"\xff not even text")
    untouched = (tree / "docs/reference/crosswalk.md").stat().st_mtime_ns
    assert command.main([]) == 0
    assert capsys.readouterr().out == "wrote docs/reference/records.md\n"
    assert (tree / "docs/reference/crosswalk.md").stat().st_mtime_ns == untouched
    assert command.main(["--check"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_without_a_source_tree_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "source_tree", lambda: None)
    assert command.main([]) == 2
    assert "not a source tree" in capsys.readouterr().err
