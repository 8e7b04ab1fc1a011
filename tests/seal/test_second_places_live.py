# SPDX-License-Identifier: Apache-2.0
"""An audited process brings its checkpoints to an archive and to a witness, by settings alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from auditspan.cli import main
from auditspan_seal.formats.note import Note
from auditspan_seal.formats.witness_policy import Policy
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.witness.trusted import load
from tests.seal.second_places import WitnessProcess

pytestmark = pytest.mark.slow
Make = Callable[..., Directory]


def newest(directory: Directory) -> Note:
    return Note.parse([block.batch for block in reader.batches(directory.log)][-1].note)


def test_records_of_a_process_are_cosigned_and_archived(
    make_records: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(1)
    archive, policy = tmp_path / "archive", tmp_path / "policy"
    key = read_verifier_key(directory.verifier_key)
    with WitnessProcess(tmp_path / "witness", [directory.verifier_key]) as witness:
        policy.write_text(f"log {key}\n{witness.policy_line('w1')}\nquorum w1\n")
        monkeypatch.setenv("AUDITSPAN_ARCHIVE", str(archive))
        monkeypatch.setenv("AUDITSPAN_WITNESS_POLICY", str(policy))
        make_records(3)
        cosigned = Note.parse((directory.path / "cosigned.note").read_text())
        assert cosigned.text == newest(directory).text
        assert len(cosigned.signatures) == 2
        trusted = load(str(archive), Policy.parse(policy.read_bytes()), [key])
        assert trusted.rejected == []
        assert [item.size for item in trusted.checkpoints][-1] == 5
        assert trusted.checkpoints[-1].witnesses == ("w1",)
    # The witness is away: nothing is held up, `status` says it, and the next one to come makes up for it.
    make_records(2)
    capsys.readouterr()
    assert main(["status", str(directory.path), "--json"]) == 3
    problems = json.loads(capsys.readouterr().out)["attention"]
    assert any("w1" in problem for problem in problems)
    assert main(["agent", str(directory.path), "--once", "--timeout", "1"]) == 3
    witness.start()
    with witness:
        assert main(["agent", str(directory.path), "--once"]) == 0
    assert Note.parse((directory.path / "cosigned.note").read_text()).text == newest(directory).text


def test_a_setting_that_is_wrong_is_said_and_holds_nothing_up(
    make_records: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUDITSPAN_WITNESS_POLICY", str(tmp_path / "nothing"))
    directory = make_records(2)
    assert newest(directory).text.split("\n")[1] == "3"
    assert main(["status", str(directory.path)]) == 3
    assert "AUDITSPAN_WITNESS_POLICY" in capsys.readouterr().out
