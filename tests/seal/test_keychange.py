# SPDX-License-Identifier: Apache-2.0
"""Rotation and revocation entries: they come back, and nothing that is not one passes for one."""

from __future__ import annotations

import base64
import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditspan_seal.errors import FormatError, MalformedKeyChange
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.keychange import MAX_REASON, Revocation, Rotation, revocation_text, rotation_text
from auditspan_seal.formats.note import Checkpoint, VerifierKey
from auditspan_seal.keys.signer import certify_revocation, certify_rotation
from tests.seal.keylogs import ORIGIN, new_signer

OLD, NEW, THIRD = new_signer(), new_signer(), new_signer()
ROTATION = statements.decode(
    certify_rotation(ORIGIN, 7, OLD, NEW, time=5, not_after=99, reason="yearly \u2028 ß", actor="carol")
)
REVOCATION = statements.decode(
    certify_revocation(ORIGIN, 9, OLD.verifier_key, NEW, since=3, reason="leaked\nfrom a backup", time=6)
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_rotation_comes_back() -> None:
    rotation = Rotation.parse(ROTATION)
    assert (rotation.origin, rotation.index, rotation.time, rotation.not_after) == (ORIGIN, 7, 5, 99)
    assert (rotation.old, rotation.new) == (OLD.verifier_key, NEW.verifier_key)
    assert rotation.reason == "yearly \u2028 ß"
    assert ROTATION["attributes"]["audit.actor.id"] == "carol"
    assert ROTATION["attributes"]["audit.key.successor.id"] == NEW.verifier_key.key_id.hex()
    assert ROTATION["attributes"]["audit.rationale"] == "yearly \u2028 ß"


def test_what_is_certified_is_spelled_out() -> None:
    """The text of the documentation, byte for byte: another implementation must come to the same."""
    old, new = VerifierKey("h/auditspan/1", bytes(32)), VerifierKey("h/auditspan/1", bytes(range(32)))
    assert rotation_text("h/auditspan/1", 7, old, new, None) == (
        b"auditspan/key-rotation/v1\nh/auditspan/1\n7\n"
        b"h/auditspan/1+a7f57633+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
        b"h/auditspan/1+d4defc52+AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n-\n"
    )
    assert rotation_text("h/auditspan/1", 7, old, new, 99).endswith(b"\n99\n")
    assert revocation_text("h/auditspan/1", 9, old, 3, "why") == (
        b"auditspan/key-revocation/v1\nh/auditspan/1\n9\n"
        b"h/auditspan/1+a7f57633+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n3\n"
        b"2be23c585f15e5fd3279d0663036dd9f6e634f4225ef326fc83fb874dbb81a0f\n"
    )


def test_a_revocation_comes_back() -> None:
    revocation = Revocation.parse(REVOCATION)
    assert (revocation.key, revocation.since, revocation.index) == (OLD.verifier_key, 3, 9)
    assert revocation.reason == "leaked\nfrom a backup"
    assert revocation.certified_by(NEW.verifier_key)
    assert not revocation.certified_by(OLD.verifier_key)


@pytest.mark.parametrize("origin", [ORIGIN, "auditspan/key-rotation/v1", "7"])
def test_a_certificate_is_never_a_checkpoint(origin: str) -> None:
    key = VerifierKey(origin, OLD.verifier_key.public)
    for text in (
        rotation_text(origin, 7, key, VerifierKey(origin, NEW.verifier_key.public), 99),
        revocation_text(origin, 7, key, 3, "why"),
    ):
        with pytest.raises(FormatError):
            Checkpoint.parse(text.decode())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "revocation"}, "not a rotation"),
        ({"origin": "example.com/auditspan/2"}, "of another log"),
        ({"origin": None}, "'origin'"),
        ({"origin": "\ud800"}, "surrogate"),
        ({"index": 8}, "not certified by the old key"),
        ({"index": 0}, "index"),
        ({"index": True}, "index"),
        ({"index": 7.0}, "index"),
        ({"index": "7"}, "index"),
        ({"index": 2**63}, "index"),
        ({"old": str(THIRD.verifier_key)}, "not certified by the old key"),
        ({"new": str(THIRD.verifier_key)}, "not certified by the old key"),
        ({"new": str(OLD.verifier_key)}, "by itself"),
        ({"new": f" {NEW.verifier_key}"}, "one form"),
        ({"new": str(new_signer("other").verifier_key)}, "of another log"),
        ({"new": "x"}, "no verifier key"),
        ({"new": 1}, "'new'"),
        ({"not_after": "100"}, "not certified by the old key"),
        ({"not_after": 99}, "'not_after'"),
        ({"not_after": "099"}, "'not_after'"),
        ({"not_after": "-1"}, "'not_after'"),
        ({"not_after": "\u0669"}, "'not_after'"),
        ({"not_after": str(2**63)}, "2^63"),
        ({"not_after": "1" * 5000}, "'not_after'"),
        ({"time": None}, "'time'"),
        ({"reason": 1}, "'reason'"),
        ({"reason": "x" * (MAX_REASON + 1)}, "longer"),
        ({"certificates": None}, "no certificates"),
        ({"certificates": {"old": ROTATION["certificates"]["old"]}}, "'new'"),
        ({"certificates": {**ROTATION["certificates"], "new": ROTATION["certificates"]["old"]}}, "by the new key"),
        ({"certificates": {**ROTATION["certificates"], "old": b64(bytes(64))}}, "by the old key"),
        ({"certificates": {**ROTATION["certificates"], "old": b64(bytes(63))}}, "64 bytes"),
        ({"certificates": {**ROTATION["certificates"], "old": "é"}}, "not base64"),
        ({"certificates": {**ROTATION["certificates"], "old": "A" * 85 + "B=="}}, "64 bytes"),
    ],
)
def test_what_is_no_rotation_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(MalformedKeyChange) as error:
        Rotation.parse(ROTATION | change)
    assert said in str(error.value)


def test_an_expiry_cannot_be_taken_away() -> None:
    with pytest.raises(MalformedKeyChange):
        Rotation.parse({name: item for name, item in ROTATION.items() if name != "not_after"})


@pytest.mark.parametrize(
    "change",
    [{"since": "4"}, {"index": 10}, {"reason": "leaked"}, {"key": str(THIRD.verifier_key)}],
)
def test_the_certificate_of_a_revocation_covers_what_it_says(change: dict[str, Any]) -> None:
    assert not Revocation.parse(REVOCATION | change).certified_by(NEW.verifier_key)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "rotation"}, {"since": 3}, {"since": "x"}, {"reason": None}, {"certificate": "x"}, {"index": -1},
        {"key": str(new_signer("other").verifier_key)}, {"certificate": b64(bytes(65))}, {"time": "01"},
    ],
)  # fmt: skip
def test_what_is_no_revocation_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedKeyChange):
        Revocation.parse(REVOCATION | change)


@pytest.mark.parametrize("field", sorted(set(ROTATION) - {"v", "attributes", "reason", "not_after"}))
def test_a_rotation_without_a_field_is_refused(field: str) -> None:
    with pytest.raises(MalformedKeyChange):
        Rotation.parse({name: item for name, item in ROTATION.items() if name != field})


anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text(alphabet="\ud800\udfff+ \n1A="),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    st.sampled_from([ROTATION, REVOCATION]), st.dictionaries(st.sampled_from(sorted(ROTATION | REVOCATION)), anything)
)
def test_only_typed_errors_leave_the_parsers(good: dict[str, Any], change: dict[str, Any]) -> None:
    fields = good | change
    for parse in (Rotation.parse, Revocation.parse):
        with contextlib.suppress(MalformedKeyChange):
            parse(fields)


def test_the_builder_makes_nothing_that_would_not_count() -> None:
    with pytest.raises(MalformedKeyChange, match="by itself"):
        certify_rotation(ORIGIN, 7, OLD, OLD, time=5)
    with pytest.raises(MalformedKeyChange, match="of another log"):
        certify_rotation("other", 7, OLD, NEW, time=5)
    with pytest.raises(MalformedKeyChange, match="longer"):
        certify_revocation(ORIGIN, 7, OLD.verifier_key, NEW, since=3, reason="x" * 1001, time=6)
