# SPDX-License-Identifier: Apache-2.0
"""An audited process brings its checkpoints to an archive and to a witness, by settings alone."""

from __future__ import annotations

import json
import shutil
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


def test_verify_finds_a_cut_end_and_a_rewritten_history(
    make_records: Make, log_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """What nothing in a log can show: with the archive, and with witnesses, it is found; without, it is left open."""
    directory = make_records(1)
    archive, policy = tmp_path / "archive", tmp_path / "policy"
    first = directory.verifier_key.read_text()
    with WitnessProcess(tmp_path / "witness", [directory.verifier_key]) as witness:
        policy.write_text(f"log {first.strip()}\n{witness.policy_line('w1')}\nquorum w1\n")
        monkeypatch.setenv("AUDITSPAN_ARCHIVE", str(archive))
        monkeypatch.setenv("AUDITSPAN_WITNESS_POLICY", str(policy))
        make_records(2)
        make_records(2)

    def verify(path: Path, *arguments: str) -> tuple[str, set[str], dict[str, str]]:
        capsys.readouterr()
        main(["verify", str(path), "--key", str(directory.verifier_key), "--json", *arguments])
        report = json.loads(capsys.readouterr().out)
        claims = {item["claim"]: item["verdict"] for item in report["claims"]}
        return report["verdict"], {finding["code"] for finding in report["findings"]}, claims

    trusting = ("--checkpoints", str(archive), "--policy", str(policy))
    verdict, codes, claims = verify(directory.path, *trusting)
    assert (verdict, codes) == ("PASSED", set())
    assert (claims["nothing_cut_off"], claims["history_not_rewritten"]) == ("PASSED", "PASSED")

    cut = tmp_path / "cut"
    shutil.copytree(directory.path, cut)
    log = cut / "log" / f"{0:020d}.log"
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(at for at, line in enumerate(lines[:-1]) if line.startswith(b"C "))
    log.write_bytes(b"".join(lines[: last + 1]))
    verdict, codes, claims = verify(cut)
    assert (verdict, claims["nothing_cut_off"]) == ("PASSED", "UNVERIFIABLE")
    assert verify(cut, "--require", "nothing_cut_off")[0] == "UNVERIFIABLE"
    assert verify(cut, *trusting)[:2] == ("FAILED", {"log_truncated"})

    monkeypatch.delenv("AUDITSPAN_ARCHIVE")
    monkeypatch.delenv("AUDITSPAN_WITNESS_POLICY")
    thief = tmp_path / "thief"
    (thief / "segments").mkdir(parents=True)
    for name in ("key.pem", "origin"):
        shutil.copy(directory.path / name, thief / name)
    log_folder.rename(tmp_path / "honest")
    thief.rename(log_folder)  # the fixture records there
    make_records(9)
    verdict, codes, claims = verify(log_folder)
    assert (verdict, claims["history_not_rewritten"]) == ("PASSED", "UNVERIFIABLE")
    assert verify(log_folder, *trusting)[:2] == ("FAILED", {"history_rewritten"})
