# SPDX-License-Identifier: Apache-2.0
"""A log directory in which something is not what it should be: each verb says so, and none ends in a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from auditspan.cli import main
from tests.benchmarks.logs import make_log

FILES = ("origin", "key.pem", "log.vkey", "checkpoint", "delivery.json", "receipt.json", "reconciliation.json")
FOLDERS = ("log", "segments", "processes", "control")
VERBS = (
    ("status",), ("verify",), ("runs",), ("agent", "--once"), ("prune", "--dry-run", "--older-than", "1"),
    ("erase", "--value", "x", "--reason", "y"), ("prove", "1"), ("keys", "show"),
    ("backend", "reconcile", "--elasticsearch", "http://127.0.0.1:1", "--wait", "0"),
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("part", [*FILES, *FOLDERS])
def test_a_file_where_a_folder_should_be_and_the_reverse(
    part: str,
    verb: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = make_log(tmp_path / "log", 3)
    monkeypatch.setenv("AUDITSPAN_DIR", str(directory.path))
    place = directory.path / part
    if part in FILES:
        place.unlink(missing_ok=True)
        place.mkdir()
    else:
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("not a folder")
    code = main(verb)  # raises nothing
    said = capsys.readouterr()
    if code == 2 and "Nothing to erase" not in said.out:
        assert "auditspan: " in said.err and "What to do: " in said.err
    if part in ("log", "segments") and verb[0] not in ("runs", "prune", "prove", "keys", "backend"):
        assert code == 2 and part in said.err
