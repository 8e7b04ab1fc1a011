# SPDX-License-Identifier: Apache-2.0
"""One record, proven to somebody who has two small files and the public key."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from auditspan.cli import main
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.proof import entries_of

Make = Callable[..., Directory]


@pytest.fixture
def directory(make_records: Make) -> Directory:
    make_records(5)
    make_records(7)
    return make_records(3)


@pytest.fixture
def prove(directory: Directory, tmp_path: Path) -> Callable[[str], Path]:
    def write(span: str) -> Path:
        assert main(["prove", span, str(directory.path), "--out", str(tmp_path / "evidence")]) == 0
        return tmp_path / "evidence" / f"{span}.tlog-proof"

    return write


def spans(directory: Directory) -> list[str]:
    entries = (statements.decode(statement) for statement, _ in entries_of(directory))
    return [entry["span_id"] for entry in entries if entry["type"] == "span"]


def verify(proof: Path, key: Path | None, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    capsys.readouterr()
    code = main(["verify", str(proof), "--json", *(("--key", str(key)) if key else ())])
    return code, [finding["code"] for finding in json.loads(capsys.readouterr().out)["findings"]]


def test_every_record_can_be_proven(
    directory: Directory, prove: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(spans(directory)) == 15
    for span in spans(directory):
        proof = prove(span)
        assert verify(proof, directory.verifier_key, capsys) == (0, [])
        assert sum(len(path.read_bytes()) for path in proof.parent.glob(f"{span}.*")) < 4000


def test_a_proof_alone_does_not_say_whom_to_trust(
    directory: Directory, prove: Callable[[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    proof = prove(spans(directory)[0])
    assert verify(proof, None, capsys) == (4, ["no_key"])
    for name, code in ((directory.origin, "wrong_key"), ("another/log", "no_key")):
        (tmp_path / "vkey").write_text(str(VerifierKey(name, bytes(range(32)))))
        assert verify(proof, tmp_path / "vkey", capsys)[1] == [code]


def test_every_altered_byte_is_found(
    directory: Directory, prove: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    proof = prove(spans(directory)[8])
    statement = proof.with_name(proof.name.replace(".tlog-proof", ".statement.json"))
    for path in (proof, statement):
        honest = path.read_bytes()
        for at in range(0, len(honest), 3):
            path.write_bytes(honest[:at] + bytes([honest[at] ^ 1]) + honest[at + 1 :])
            assert verify(proof, directory.verifier_key, capsys)[0] in (1, 4), (path.name, at)
        path.write_bytes(honest)
    assert verify(proof, directory.verifier_key, capsys) == (0, [])


def test_bad_input_is_said(
    directory: Directory, prove: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prove", "nobody", str(directory.path)]) == 2
    assert "There is no record" in capsys.readouterr().err
    proof = prove(spans(directory)[0])
    proof.with_name(proof.name.replace(".tlog-proof", ".statement.json")).unlink()
    assert main(["verify", str(proof), "--key", str(directory.verifier_key)]) == 2
    assert "A proof is two files" in capsys.readouterr().err
