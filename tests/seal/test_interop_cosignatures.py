# SPDX-License-Identifier: Apache-2.0
"""Cosigned notes beside Go: its note package does the notes, ``interop/cosignature.go`` the cosignatures."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.cosignature import MAX_TIME, CosignerKey, cosigned
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from auditspan_seal.witness.publisher import Publisher
from tests.seal.second_places import LOG, Cosigner, LogOnDisk, WitnessProcess
from tests.seal.test_interop import NAMES, Ask, Question, ask, b64

__all__ = ["ask"]  # a fixture
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Cosigned:
    """A claim that a note is signed by a log and cosigned by a witness, right or wrong."""

    log: VerifierKey
    witness: CosignerKey
    note: bytes

    def holds(self) -> bool:
        try:
            note = Note.parse(self.note.decode())
            return note.signed_by(self.log) is True and cosigned(note, self.witness) is not None
        except (FormatError, UnicodeDecodeError):
            return False

    def question(self) -> Question:
        return {
            "op": "check cosigned", "vkey": str(self.log), "witness": str(self.witness), "note": b64(self.note),
        }  # fmt: skip


def assert_both(ask: Ask, claims: list[Cosigned], expected: bool) -> None:
    for claim, answer in zip(claims, ask([claim.question() for claim in claims]), strict=True):
        assert answer["ok"] is expected, (claim, answer)
        assert claim.holds() is expected, claim


def notes(count: int, chance: random.Random) -> list[tuple[VerifierKey, Note]]:
    found = []
    for _ in range(count):
        signer = KeyFileSigner(Ed25519PrivateKey.generate(), chance.choice(NAMES))
        checkpoint = Checkpoint(chance.choice(NAMES), chance.randrange(2**62), chance.randbytes(32))
        found.append((signer.verifier_key, sign_checkpoint(signer, checkpoint)))
    return found


def alter(note: bytes, chance: random.Random) -> bytes:
    """Alter one bit, of those that Go looks at: not in the last digit before "=" (test_go_is_looser_about_base64)."""
    at = chance.choice([at for at in range(len(note)) if note[at + 1 : at + 2] != b"=" or note[at] == ord("=")])
    return note[:at] + bytes([note[at] ^ 1 << chance.randrange(8)]) + note[at + 1 :]


def times(chance: random.Random) -> int:
    return chance.choice([1, 1_679_315_147, 2**32, MAX_TIME, chance.randrange(1, MAX_TIME)])


def test_go_opens_what_we_cosign(ask: Ask) -> None:
    chance = random.Random(4)
    claims = []
    for log, note in notes(300, chance):
        witness = Cosigner(chance.choice(NAMES))
        claims.append(Cosigned(log, witness.key, str(witness.on(note, times(chance))).encode()))
    assert_both(ask, claims, True)
    assert_both(ask, [replace(claim, note=alter(claim.note, chance)) for claim in claims for _ in range(4)], False)
    assert_both(ask, [replace(claim, witness=Cosigner(claim.witness.name).key) for claim in claims], False)


def test_what_go_cosigns_verifies_here(ask: Ask) -> None:
    chance = random.Random(5)
    made = notes(300, chance)
    at = [times(chance) for _ in made]
    questions: list[Question] = [
        {"op": "cosign", "vkey": str(log), "note": b64(str(note).encode()), "name": chance.choice(NAMES), "time": time}
        for (log, note), time in zip(made, at, strict=True)
    ]
    claims = []
    for (log, _), time, answer in zip(made, at, ask(questions), strict=True):
        assert answer["ok"], answer
        key, note = CosignerKey.parse(answer["vkey"]), base64.b64decode(answer["note"])
        assert str(key) == answer["vkey"]
        assert cosigned(Note.parse(note.decode()), key) == time
        claims.append(Cosigned(log, key, note))
    assert_both(ask, claims, True)


def test_a_cosignature_of_another_checkpoint_or_time_is_refused_by_both(ask: Ask) -> None:
    chance = random.Random(6)
    claims = []
    (log, note), (_, other) = notes(2, chance)
    witness = Cosigner("witness.example/w1")
    name, key_id, signature = witness.on(note, 1000).signatures[-1]
    for text_of, wrong in (
        (note, witness.on(other, 1000).signatures[-1]),
        (note, (name, key_id, (1001).to_bytes(8, "big") + signature[8:])),
        (note, (name, key_id, signature[8:])),
        (note, (name, key_id, signature + b"x")),
    ):
        claims.append(Cosigned(log, witness.key, str(Note(text_of.text, (*text_of.signatures, wrong))).encode()))
    assert_both(ask, claims, False)


def test_go_opens_what_a_log_and_its_witness_leave(ask: Ask, tmp_path: Path) -> None:
    log = LogOnDisk(tmp_path / "log")
    with WitnessProcess(tmp_path / "w1", [log.vkey]) as witness:
        (tmp_path / "policy").write_text(f"{witness.policy_line('w1')}\nquorum w1\n")
        publisher = Publisher(log.directory, LOG, policy=str(tmp_path / "policy"), archive=f"{tmp_path}/archive/")
        for count in (1, 5, 3):
            publisher.publish(log.add(count))
            assert publisher.problem is None
        publisher.close()
    objects = sorted((tmp_path / "archive").rglob("*.note"))
    places = [log.directory.path / "cosigned.note", *objects]
    assert len(places) == 4
    assert_both(ask, [Cosigned(log.signer.verifier_key, witness.key, path.read_bytes()) for path in places], True)
