# SPDX-License-Identifier: Apache-2.0
"""The test vectors in ``tests/vectors``: frozen, and verified here and by the second verifier, in Go."""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import consistency, inclusion, verify_consistency, verify_inclusion
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.proof import verify_proof
from auditspan_seal.verify.report import Verdict
from tests.seal.go import build
from tests.vectors import generate

FOLDER = Path(__file__).parents[1] / "vectors"


def load(name: str) -> Any:
    return json.loads((FOLDER / name).read_bytes())


LOGS = [("logs", name) for name in load("logs/expected.json")]
ROTATIONS = [("rotation", name) for name in load("rotation/expected.json")]


def test_the_vectors_are_frozen(tmp_path: Path) -> None:
    generate.write_all(tmp_path)
    written = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    folders = {Path(name).parts[0] for name in written if "/" in name}
    committed = {
        str(path.relative_to(FOLDER)): path.read_bytes()
        for path in FOLDER.rglob("*")
        if path.is_file() and (path.suffix == ".json" or path.relative_to(FOLDER).parts[0] in folders)
    }
    assert sorted(written) == sorted(committed)
    for name, content in written.items():
        assert content == committed[name], f"{name} changed: logs that exist would be read in another way"


@pytest.mark.parametrize("vector", load("statements.json")["statements"], ids=lambda item: item["name"])
def test_a_statement_is_canonical(vector: dict[str, str]) -> None:
    data = base64.b64decode(vector["statement"])
    fields = statements.decode(data)
    assert leaf_hash(data).hex() == vector["leaf_hash"]
    for item in fields.get("attributes", {}).values():
        statements.plain(item)


@pytest.mark.parametrize("vector", load("statements.json")["refused"], ids=lambda item: item["name"])
def test_what_is_no_statement_is_refused(vector: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        fields = statements.decode(base64.b64decode(vector["statement"]))
        statements.plain(fields["attributes"]["a"])


@pytest.mark.parametrize("vector", load("commitments.json"), ids=lambda item: f"{item['name']}={item['value']}")
def test_a_commitment_opens(vector: dict[str, Any]) -> None:
    assert commitment.opens(vector["commitment"], vector["name"], vector["value"], vector["salt"])
    assert not commitment.opens(vector["commitment"], "another", vector["value"], vector["salt"])
    assert not commitment.opens(vector["commitment"], vector["name"], "another", vector["salt"])


@pytest.mark.parametrize("vector", load("trees.json"), ids=lambda item: str(item["size"]))
def test_a_tree_has_this_root_and_these_proofs(vector: dict[str, Any]) -> None:
    leaves = [leaf_hash(b"%d" % number) for number in range(vector["size"])]
    root = bytes.fromhex(vector["root"])
    assert Frontier(vector["size"], map(bytes.fromhex, vector["frontier"])).root() == root
    for index, hashes in vector["inclusion"].items():
        proof = tuple(map(bytes.fromhex, hashes))
        assert inclusion(leaves, int(index)) == proof
        assert verify_inclusion(int(index), vector["size"], leaves[int(index)], root, proof)
    roots = {item["size"]: bytes.fromhex(item["root"]) for item in load("trees.json")}
    for first, hashes in vector["consistency"].items():
        proof = tuple(map(bytes.fromhex, hashes))
        assert consistency(leaves, int(first)) == proof
        if int(first) in roots:
            assert verify_consistency(int(first), vector["size"], roots[int(first)], root, proof)


@pytest.mark.parametrize("vector", load("notes.json")["notes"], ids=lambda item: item["name"])
def test_a_note_is_signed(vector: dict[str, Any]) -> None:
    note = Note.parse(vector["note"])
    assert str(note) == vector["note"]
    assert note.signed_by(VerifierKey.parse(vector["vkey"])) is vector["signed"]
    if vector["name"].startswith("checkpoint"):
        assert note.text.startswith(Checkpoint.parse(note.text).text())


def test_what_is_no_note_checkpoint_or_key_is_refused() -> None:
    vectors = load("notes.json")
    for name, text in [(item["name"], item["note"]) for item in vectors["refused_notes"]]:
        with pytest.raises(FormatError):
            pytest.fail(f"{name}: {Note.parse(text)}")
    for name, text in [(item["name"], item["text"]) for item in vectors["refused_checkpoints"]]:
        with pytest.raises(FormatError):
            pytest.fail(f"{name}: {Checkpoint.parse(text)}")
    for text in vectors["refused_vkeys"]:
        with pytest.raises(FormatError):
            pytest.fail(f"{VerifierKey.parse(text)}")
    for text in vectors["vkeys"]:
        assert str(VerifierKey.parse(text)) == text


def test_the_proof_passes() -> None:
    key = VerifierKey.parse((FOLDER / "proof" / "log.vkey").read_text())
    report = verify_proof(FOLDER / "proof" / "record.tlog-proof", key)
    assert (report.verdict, report.records, report.checkpoints, report.compared) == (Verdict.PASSED, 1, 1, True)


def check(folder: str, name: str) -> None:
    expected = load(f"{folder}/expected.json")[name]
    keys = [VerifierKey.parse(expected["vkey"])] if expected["vkey"] else []
    report = verify_directory(open_directory(FOLDER / folder / name), *keys)
    found = sorted({finding.code.value for finding in report.findings})
    assert (report.verdict.value, found) == (expected["verdict"], expected["codes"])


@pytest.mark.parametrize(("folder", "name"), LOGS)
def test_a_log_has_this_verdict(folder: str, name: str) -> None:
    check(folder, name)


@pytest.mark.skipif(
    importlib.util.find_spec("auditspan_seal.formats.keychange") is None, reason="keys cannot be changed yet"
)
@pytest.mark.parametrize(("folder", "name"), ROTATIONS)
def test_a_log_with_key_changes_has_this_verdict(folder: str, name: str) -> None:
    check(folder, name)


@pytest.mark.slow
def test_the_second_verifier_says_the_same() -> None:
    expected = [(folder, name, load(f"{folder}/expected.json")[name]) for folder, name in (*LOGS, *ROTATIONS)]
    statement_vectors = load("statements.json")
    questions: list[dict[str, str]] = [
        {"path": str(FOLDER / folder / name), "vkey": item["vkey"]} for folder, name, item in expected
    ]
    for kind in ("statements", "refused"):
        questions += [{"statement": item["statement"]} for item in statement_vectors[kind]]
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run([build("verifier")], input=lines, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(questions)
    for (folder, name, item), answer in zip(expected, answers, strict=False):
        assert (answer["verdict"], answer["codes"]) == (item["verdict"], item["codes"]), (folder, name)
    rest = answers[len(expected) :]
    for item, answer in zip(statement_vectors["statements"], rest, strict=False):
        assert answer == {"ok": True, "leaf": item["leaf_hash"]}, item["name"]
    for item, answer in zip(statement_vectors["refused"], rest[len(statement_vectors["statements"]) :], strict=True):
        assert not answer["ok"], item["name"]
