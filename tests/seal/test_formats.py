# SPDX-License-Identifier: Apache-2.0
"""The pure formats: against their definitions, and against input that is not what it should be."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from auditspan_seal.errors import FormatError, MalformedNote, MalformedStatement
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint

ROOT = base64.b64encode(bytes(32)).decode()


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition, RFC 6962 §2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def test_the_tree_is_that_of_rfc_6962() -> None:
    leaves = [leaf_hash(str(i).encode()) for i in range(130)]
    tree = Frontier()
    assert tree.root() == EMPTY_ROOT
    for size, leaf in enumerate(leaves, 1):
        tree.append(leaf)
        assert tree.root() == recursive_root(leaves[:size])
        assert Frontier(size, tree.hashes).root() == tree.root()


def test_known_answers_of_certificate_transparency() -> None:
    # Test vectors of the reference implementation of RFC 6962 (merkle tree tests, 8 inputs).
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    tree = Frontier()
    for item in inputs:
        tree.append(leaf_hash(bytes.fromhex(item)))
    assert tree.root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


def test_a_known_note_verifies() -> None:
    # The example of golang.org/x/mod/sumdb/note.
    key = VerifierKey.parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    note = Note.parse(
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    )
    assert note.signed_by(key) is True
    assert str(key) == "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    altered = Note(note.text.replace("answer", "Answer"), note.signatures)
    assert altered.signed_by(key) is False
    assert note.signed_by(VerifierKey("PeterNeumann", bytes(32))) is None


def test_one_bad_signature_by_a_known_key_spoils_the_note() -> None:
    signer = KeyFileSigner(Ed25519PrivateKey.generate(), "host")
    good = sign_checkpoint(signer, Checkpoint("host", 7, leaf_hash(b"x")))
    name, key_id, signature = good.signatures[0]
    bad = (name, key_id, signature[:-1] + bytes([signature[-1] ^ 1]))
    for signatures in ((good.signatures[0], bad), (bad, good.signatures[0])):
        assert Note(good.text, signatures).signed_by(signer.verifier_key) is False


def test_a_note_with_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(MalformedNote):
        Note.parse("host\n1\n\ud800\n\n— host AAAAAAA=\n")


def test_a_checkpoint_comes_back() -> None:
    signer = KeyFileSigner(Ed25519PrivateKey.generate(), "host/auditspan/1")
    checkpoint = Checkpoint("host/auditspan/1", 7, leaf_hash(b"x"))
    note = Note.parse(str(sign_checkpoint(signer, checkpoint)))
    assert Checkpoint.parse(note.text) == checkpoint
    assert note.signed_by(signer.verifier_key) is True


@pytest.mark.parametrize(
    "text",
    [
        "", "a\n1\n", "a\n01\nAAAA\n", "a\n-1\nAAAA\n", "a\n\u0661\nAAAA\n", "a\n1\nAAAA\n", "\n1\n" + "A" * 43 + "=\n",
        f"a\n{2**63}\n{ROOT}\n", f"a\n1\n{ROOT}\n\n", f"a\n1\n{ROOT}\n\nx\n", "a\n1\n" + "A" * 42 + "B=\n",
    ],
)  # fmt: skip
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(MalformedNote):
        Checkpoint.parse(text)


@given(st.text() | st.text(alphabet="—abc+ \n\t=AB1\x00\u2028"))
def test_only_typed_errors_leave_the_text_parsers(text: str) -> None:
    for parse in (Note.parse, Checkpoint.parse, VerifierKey.parse):
        with contextlib.suppress(FormatError):
            parse(text)


json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.binary() | st.builds(lambda b: b'{"v":1,"type":"span",' + b, st.binary()))
def test_only_typed_errors_leave_the_byte_parsers(data: bytes) -> None:
    for parse in (statements.decode, Batch.parse, lambda raw: Batch.parse(b"C " + raw)):
        with contextlib.suppress(FormatError):
            parse(data)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and one != one:
        return isinstance(other, float) and other != other
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    return bool(one == other)


@given(json_values)
def test_every_value_comes_back_with_its_type(item: Any) -> None:
    encoded = statements.encode({"v": 1, "type": "span", "x": statements.value(item)})
    assert same(statements.plain(statements.decode(encoded)["x"]), item)


def test_values_that_json_confuses_give_different_statements() -> None:
    items: list[Any] = [1, 1.0, "1", True, [1], ["1"], None, "null", b"1", 2**53 + 1, float(2**53), "1.0", {"int": "1"}]
    encoded = {statements.encode({"x": statements.value(item)}) for item in items}
    assert len(encoded) == len(items)


def test_lone_surrogates_and_deep_nesting_are_recorded() -> None:
    deep: Any = "end"
    for _ in range(5000):
        deep = [deep]
    encoded = statements.encode({"v": 1, "type": "span", "x": statements.values({"s\ud800": "a\udfffb", "d": deep})})
    assert "\ufffd" in statements.decode(encoded)["x"]["s\ufffd"]


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"span","v":1,"v":1}', b'{"v":1,"type":"span"}', b'{"type":"span", "v":1}', b'{"type":"span","v":1.0}',
        b'{"type":"span","v":true}', b'{"type":"span","v":3}', b"[]", b"", b"\xff", b'{"type":1,"v":1}',
        b'{"a":1e0,"type":"span","v":1}', b'{"a":"\\u0041","type":"span","v":1}', b"[" * 100_000,
        b'{"a":123456789012345678901234567890,"type":"span","v":1}',
    ],
)  # fmt: skip
def test_a_statement_has_one_spelling(data: bytes) -> None:
    with pytest.raises(MalformedStatement):
        statements.decode(data)


def test_a_batch_comes_back() -> None:
    tree = Frontier()
    for i in range(5):
        tree.append(leaf_hash(bytes([i])))
    batch = Batch("note\n", 5, tree.hashes, (leaf_hash(b"a"), leaf_hash(b"b")))
    assert Batch.parse(batch.line()) == batch
    assert batch.tree().size == batch.size == 7


@pytest.mark.parametrize("first", ["-1", "1.5", '"1"', "true", "null"])
def test_a_batch_with_a_wrong_index_is_refused(first: str) -> None:
    line = f'C {{"note":"n","first":{first},"frontier":"","leaves":"","segments":{{}}}}'
    with pytest.raises(FormatError):
        Batch.parse(line.encode())


def test_hashes_that_do_not_fit_are_refused() -> None:
    short = base64.b64encode(b"x" * 31).decode()
    with pytest.raises(FormatError):
        Batch.parse(f'C {{"note":"n","first":0,"frontier":"","leaves":"{short}","segments":{{}}}}'.encode())
    with pytest.raises(FormatError):
        Frontier(3, [bytes(32)])
