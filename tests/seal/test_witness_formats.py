# SPDX-License-Identifier: Apache-2.0
"""The formats between a log and its witnesses: against the C2SP texts, and against input that is malformed."""

from __future__ import annotations

import base64
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from auditspan_seal.errors import FormatError, MalformedMessage, MalformedNote, MalformedPolicy, MalformedTree
from auditspan_seal.formats.add_checkpoint import (
    MAX_ANSWER,
    MAX_REQUEST,
    Request,
    parse_signatures,
    parse_size,
    signatures_body,
    size_body,
)
from auditspan_seal.formats.cosignature import MAX_TIME, CosignerKey, cosigned, make, message
from auditspan_seal.formats.growth import Growth
from auditspan_seal.formats.merkle import EMPTY_ROOT, Frontier, leaf_hash, node_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import consistency, verify_consistency
from auditspan_seal.formats.witness_policy import MAX_EACH, Policy
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from tests.seal.second_places import LOG, Cosigner

# The example of tlog-cosignature, verbatim.
TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
BY_THE_LOG = (
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
EXAMPLE = (
    f"{TEXT}\n{BY_THE_LOG}— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
# The example request of tlog-witness, verbatim.
REQUEST = f"""old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

{TEXT}
{BY_THE_LOG}— example.com/behind-the-sofa \
opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""
SIGNER = KeyFileSigner(Ed25519PrivateKey.generate(), LOG)
NOTE = sign_checkpoint(SIGNER, Checkpoint(LOG, 5, bytes(32)))
W1, W2, W3 = (Cosigner(f"witness.example/w{number}") for number in (1, 2, 3))


# -- cosignatures ------------------------------------------------------------------------------------------------
def test_a_cosignature_signs_what_the_specification_says() -> None:
    assert message(TEXT, 1679315147).decode() == f"cosignature/v1\ntime 1679315147\n{TEXT}"


def test_the_example_of_the_specification_is_read() -> None:
    note = Note.parse(EXAMPLE)
    name, _, signature = note.signatures[1]
    assert name == "witness.example.com/w1"
    assert len(signature) == 72
    assert int.from_bytes(signature[:8], "big") == 1679315147
    assert str(note) == EXAMPLE


def test_a_cosigned_note_says_when() -> None:
    note = W1.on(W2.on(NOTE, 2000), 1000)
    assert cosigned(note, W1.key) == 1000
    assert cosigned(note, W2.key) == 2000
    assert cosigned(note, W3.key) is None
    assert cosigned(Note.parse(str(note)), W1.key) == 1000
    assert note.signed_by(SIGNER.verifier_key) is True, "a cosignature does not disturb the log's signature"
    assert cosigned(W1.on(note, 3000), W1.key) == 3000


def test_a_cosignature_of_something_else_spoils_the_note() -> None:
    other = sign_checkpoint(SIGNER, Checkpoint(LOG, 6, bytes(32)))
    moved = Note(NOTE.text, W1.on(other, 1000).signatures)
    with pytest.raises(MalformedNote, match="not of this checkpoint"):
        cosigned(moved, W1.key)
    good = W1.on(NOTE, 1000).signatures[-1]
    for altered in (
        (*good[:2], (1001).to_bytes(8, "big") + good[2][8:]),  # another time
        (*good[:2], good[2][:-1] + bytes([good[2][-1] ^ 1])),
        (*good[:2], good[2][8:]),  # no time
        (*good[:2], good[2] + b"x"),
        (*good[:2], bytes(8) + W1.sign(message(NOTE.text, 0))),
        (*good[:2], (MAX_TIME + 1).to_bytes(8, "big") + W1.sign(message(NOTE.text, MAX_TIME + 1))),
    ):
        with pytest.raises(MalformedNote):
            cosigned(Note(NOTE.text, (altered,)), W1.key)
        with pytest.raises(MalformedNote):
            cosigned(Note(NOTE.text, (good, altered)), W1.key)


def test_a_log_cannot_sign_as_a_witness_with_its_own_kind_of_signature() -> None:
    """Same name and key: the key IDs differ by the type, so a signature of one kind is none of the other."""
    key = CosignerKey(LOG, SIGNER.verifier_key.public)
    assert key.key_id != SIGNER.verifier_key.key_id
    assert cosigned(NOTE, key) is None


@pytest.mark.parametrize("time", [0, -1, MAX_TIME + 1])
def test_no_cosignature_without_a_time(time: int) -> None:
    with pytest.raises(MalformedNote, match="time"):
        make(W1.key, W1.sign, NOTE.text, time)


def test_keys_of_witnesses_have_a_text_form() -> None:
    assert CosignerKey.parse(str(W1.key)) == W1.key
    assert CosignerKey.parse(f"{W1.key}\n") == W1.key
    assert base64.b64decode(str(W1.key).split("+", 2)[2])[:1] == b"\x04"


def encoded(kind: bytes, public: bytes = bytes(32)) -> str:
    return base64.b64encode(kind + public).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must read"),
        ("name+00000000", "must read"),
        ("na me+00000000+" + encoded(b"\x04"), "must read"),
        ("na\ud800me+00000000+" + encoded(b"\x04"), "must read"),
        ("name+00000000+!", "base64"),
        ("name+00000000+" + encoded(b"\x04", bytes(31))[:-2] + "B=", "canonical"),
        ("name+00000000+" + encoded(b"\x04"), "would fit"),
        ("name+00000000+" + encoded(b"\x04", bytes(31)), "not an Ed25519"),
        ("name+00000000+" + encoded(b"\x06", bytes(1312)), "ML-DSA-44"),
        (str(SIGNER.verifier_key), "of a log"),
        (str(W1.key).replace(W1.key.key_id.hex(), W1.key.key_id.hex().upper() + "x"), "would fit"),
    ],
)
def test_what_is_no_key_of_a_witness(text: str, why: str) -> None:
    with pytest.raises(MalformedNote, match=why):
        CosignerKey.parse(text)


# -- policies ----------------------------------------------------------------------------------------------------
def two_of_three(*more: str) -> bytes:
    lines = [f"witness {w.key.name.rpartition('/')[2]} {w.key}" for w in (W1, W2, W3)]
    return "\n".join([*lines, "group most 2 w1 w2 w3", "quorum most", *more, ""]).encode()


def test_two_of_three() -> None:
    policy = Policy.parse(two_of_three())
    assert policy.satisfied(NOTE) is None
    assert policy.satisfied(W1.on(NOTE)) is None
    assert policy.satisfied(W1.on(W1.on(NOTE))) is None, "a witness counts once"
    assert policy.satisfied(W3.on(W1.on(NOTE))) == ("w1", "w3")
    assert policy.satisfied(W3.on(W2.on(W1.on(NOTE)))) == ("w1", "w2", "w3")
    assert policy.satisfied(Cosigner("witness.example/w1").on(W2.on(NOTE))) is None, "the name alone is nothing"


def test_a_forged_cosignature_does_not_spoil_an_honest_quorum() -> None:
    policy = Policy.parse(two_of_three())
    forged = (W1.key.name, W1.key.key_id, (7).to_bytes(8, "big") + bytes(64))
    note = W3.on(W2.on(NOTE))
    assert policy.satisfied(Note(note.text, (*note.signatures, forged))) == ("w2", "w3")


def test_the_example_of_the_specification_with_groups_of_groups() -> None:
    x, y = ([Cosigner(f"{side}{n}") for n in (1, 2, 3)] for side in "XY")
    text = "".join(f"witness {w.key.name} {w.key}\n" for w in (*x, *y)) + (
        f"log {SIGNER.verifier_key} https://log.example/\n"
        "# a comment\n  \t\n"
        "group X-witnesses 2 X1 X2 X3\n"
        "\tgroup  Y-witnesses\tany Y1 Y2 Y3 \n"
        "group X-and-Y all X-witnesses Y-witnesses\n"
        "quorum X-and-Y"
    )
    policy = Policy.parse(text.encode())
    for have in range(64):
        present = [w for bit, w in enumerate((*x, *y)) if have >> bit & 1]
        note = NOTE
        for witness in present:
            note = witness.on(note)
        expected = bin(have & 7).count("1") >= 2 and have >> 3 > 0
        assert (policy.satisfied(note) is not None) is expected, present


def test_a_log_that_is_not_listed_is_not_taken() -> None:
    stranger = KeyFileSigner(Ed25519PrivateKey.generate(), LOG)
    policy = Policy.parse(f"log {SIGNER.verifier_key}\nquorum none\n".encode())
    assert policy.satisfied(NOTE) == ()
    assert policy.satisfied(sign_checkpoint(stranger, Checkpoint(LOG, 5, bytes(32)))) is None
    elsewhere = sign_checkpoint(SIGNER, Checkpoint("another.example/log", 5, bytes(32)))
    assert policy.satisfied(elsewhere) is None, "the key of one log does not speak for another"
    spoilt = Note(NOTE.text, (*NOTE.signatures, (*NOTE.signatures[0][:2], bytes(64))))
    assert policy.satisfied(spoilt) is None
    assert Policy.parse(b"quorum none").satisfied(NOTE) == ()
    with pytest.raises(MalformedNote):
        policy.satisfied(Note("text\n", NOTE.signatures))


def test_names_are_opaque_octets() -> None:
    policy = Policy.parse(b"witness \xff\xfe " + str(W1.key).encode() + b" http://\xc3\xa4/\nquorum \xff\xfe\n")
    assert policy.satisfied(W1.on(NOTE)) is not None
    with pytest.raises(MalformedPolicy, match=r"\\xff"):
        Policy.parse(b"quorum \xff\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no quorum line"),
        (two_of_three("quorum none"), "quorum line already"),
        (b"quorum w1\n", "not defined"),
        (b"quorum none\r\n", "control character"),
        (b"quorum none\x00", "control character"),
        (b"quorum\n", "must read"),
        (b"quorum none more\n", "must read"),
        (b"quorums none\n", "must read"),
        (b"log\nquorum none", "must read"),
        (b"log x\nquorum none", "Line 1"),
        (b"log \xff+00000000+AAAA\nquorum none", "UTF-8"),
        (f"log {W1.key}\nquorum none".encode(), "Ed25519"),
        (f"log {SIGNER.verifier_key}\nlog {SIGNER.verifier_key}\nquorum none".encode(), "there already"),
        (f"witness w {SIGNER.verifier_key}\nquorum none".encode(), "of a log"),
        (f"witness none {W1.key}\nquorum none".encode(), "taken"),
        (f"witness a {W1.key}\nwitness b {W1.key}\nquorum none".encode(), "there already"),
        (f"witness a {W1.key}\nwitness a {W2.key}\nquorum none".encode(), "taken"),
        (f"witness a {W1.key}\nwitness b {CosignerKey('other', W1.key.public)}\nquorum none".encode(), "there already"),
        (f"witness a {W1.key}\ngroup a any a\nquorum none".encode(), "taken"),
        (f"witness a {W1.key}\ngroup g any a a\nquorum g".encode(), "may count once"),
        (f"witness a {W1.key}\ngroup g any a\ngroup h any a\nquorum h".encode(), "may count once"),
        (f"witness a {W1.key}\ngroup g any none\nquorum g".encode(), "not defined"),
        (f"group g any g\nwitness a {W1.key}\nquorum g".encode(), "not defined"),
        (f"witness a {W1.key}\ngroup g 0 a\nquorum g".encode(), "neither"),
        (f"witness a {W1.key}\ngroup g 01 a\nquorum g".encode(), "neither"),
        (f"witness a {W1.key}\ngroup g +1 a\nquorum g".encode(), "neither"),
        (f"witness a {W1.key}\ngroup g \u0661 a\nquorum g".encode(), "neither"),
        (f"witness a {W1.key}\ngroup g 2 a\nquorum g".encode(), "cannot be needed"),
        (f"witness a {W1.key}\ngroup g all\nquorum g".encode(), "must read"),
        (
            f"log {SIGNER.verifier_key}\nwitness a {CosignerKey('a', SIGNER.verifier_key.public)}\nquorum a".encode(),
            "key of a log",
        ),
        (b"#" * 1_000_001, "longer"),
    ],
)
def test_what_is_no_policy(text: bytes, why: str) -> None:
    with pytest.raises(MalformedPolicy, match=why):
        Policy.parse(text)


def test_a_policy_has_room_for_what_the_specification_recommends() -> None:
    lines = [f"log {VerifierKey(f'log{n}', n.to_bytes(32, 'big'))}" for n in range(1, MAX_EACH + 1)]
    lines += [f"witness w{n} {CosignerKey(f'w{n}', (n + 1000).to_bytes(32, 'big'))}" for n in range(MAX_EACH)]
    lines += ["group g0 any w0", *(f"group g{n} all g{n - 1} w{n}" for n in range(1, MAX_EACH))]
    policy = Policy.parse("\n".join([*lines, f"quorum g{MAX_EACH - 1}"]).encode())
    assert policy.reached([f"w{n}" for n in range(MAX_EACH)])
    assert not policy.reached([f"w{n}" for n in range(1, MAX_EACH)])
    for more, what in (
        (f"log {VerifierKey('more', b'x' * 32)}", "logs"),
        (f"witness more {CosignerKey('more', b'x' * 32)}", "witnesses"),
        (f"group more any g{MAX_EACH - 1}", "groups"),
    ):
        with pytest.raises(MalformedPolicy, match=f"more than 256 {what}"):
            Policy.parse("\n".join([*lines, more, "quorum none"]).encode())


# -- requests and answers ----------------------------------------------------------------------------------------
def test_the_request_of_the_specification_is_read() -> None:
    request = Request.parse(REQUEST.encode())
    assert request.old == 20852014
    assert len(request.proof) == 4
    assert request.checkpoint().size == 20852163
    assert request.encode() == REQUEST.encode()


def test_a_request_without_a_proof_is_read() -> None:
    assert Request.parse(Request(0, (), NOTE).encode()) == Request(0, (), NOTE)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n\n",
        b"old 0\n" + str(NOTE).encode(),
        b"old  0\n\n" + str(NOTE).encode(),
        b"old 00\n\n" + str(NOTE).encode(),
        b"old -1\n\n" + str(NOTE).encode(),
        b"old 9223372036854775808\n\n" + str(NOTE).encode(),
        b"old 1e3\n\n" + str(NOTE).encode(),
        "old \u0661\n\n".encode() + str(NOTE).encode(),
        b"old 1\nAAAA\n\n" + str(NOTE).encode(),
        b"old 1\n" + base64.b64encode(bytes(32))[:-2] + b"B=\n\n" + str(NOTE).encode(),
        b"old 1\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\n" + str(NOTE).encode(),
        b"old 1\n\n" + str(NOTE).encode()[:-1],
        b"old 1\r\n\r\n" + str(NOTE).encode(),
        b"old 1\n\n\xff" + str(NOTE).encode(),
        b"old 1\n\n" + str(Note("no checkpoint\n", NOTE.signatures)).encode(),
        b"old 1\n\n" + str(NOTE).encode() * 400,
    ],
)
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(FormatError):
        Request.parse(body)


def test_answers_are_read() -> None:
    assert parse_size(size_body(0)) == 0
    assert parse_size(b"20852014\n") == 20852014
    note = W1.on(W2.on(NOTE, 5), 6)
    answer = parse_signatures(signatures_body(note), NOTE.text)
    assert answer == note
    assert signatures_body(Note(NOTE.text, note.signatures[-1:])).decode().startswith("— witness.example/w1 ")


@pytest.mark.parametrize("body", [b"", b"7", b"\n", b"07\n", b"7\n\n", b"-7\n", b"7 \n", b"\xff\n", b"9" * 20 + b"\n"])
def test_what_is_no_size(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        parse_size(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"\n", b"text\n", b"other text\n\n" + signatures_body(NOTE), b"\n" + signatures_body(NOTE),
     signatures_body(NOTE)[:-1], b"\xff", b"x" * (MAX_ANSWER + 1)],
)  # fmt: skip
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(FormatError):
        parse_signatures(body, NOTE.text)


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_comes_only_typed_errors_leave(data: bytes) -> None:
    for read in (Policy.parse, Request.parse, parse_size, lambda body: parse_signatures(body, NOTE.text)):
        try:
            read(data)
        except FormatError as error:
            assert error.what
    try:
        CosignerKey.parse(data.decode("utf-8", "surrogateescape"))
    except MalformedNote as error:
        assert error.what


@given(st.data())
def test_a_request_or_policy_with_a_few_bytes_changed_gives_only_typed_errors(data: st.DataObject) -> None:
    for good, read in (
        (REQUEST.encode(), Request.parse),
        (two_of_three(), Policy.parse),
        (signatures_body(W1.on(NOTE)), lambda body: parse_signatures(body, NOTE.text)),
    ):
        at = data.draw(st.integers(0, len(good)))
        piece = data.draw(st.binary(max_size=4))
        cut = data.draw(st.integers(0, 8))
        try:
            read(good[:at] + piece + good[at + cut :])
        except FormatError as error:
            assert error.what


def test_the_longest_request_fits() -> None:
    large = Note(NOTE.text, tuple(("witness.example/w", bytes(4), bytes(2428)) for _ in range(16)))
    request = Request(2**62, (bytes(32),) * 63, large)
    assert len(request.encode()) < MAX_REQUEST
    assert Request.parse(request.encode()) == request


# -- growth ------------------------------------------------------------------------------------------------------
def frontier_of(leaves: list[bytes]) -> Frontier:
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree


LEAVES = [leaf_hash(b"%d" % number) for number in range(200)]


def test_growth_proves_what_the_definition_proves() -> None:
    for first in range(35):
        growth = Growth(frontier_of(LEAVES[:first]))
        for size in range(first, 70):
            assert growth.size == size
            assert growth.root() == frontier_of(LEAVES[:size]).root()
            expected = consistency(LEAVES[:size], first) if first else ()
            assert growth.proof() == expected
            growth.append(LEAVES[size])


def test_growth_of_large_trees_verifies() -> None:
    """Sizes that no list of leaf hashes could have: perfect subtrees of equal leaves stand in for them."""
    chance = random.Random(6962)
    levels = [leaf_hash(b"same")]
    for _ in range(62):
        levels.append(node_hash(levels[-1], levels[-1]))
    for _ in range(200):
        first = chance.randrange(1, 2 ** chance.randrange(1, 61))
        start = Frontier(first, [levels[bit] for bit in reversed(range(62)) if first >> bit & 1])
        growth = Growth(start)
        for _ in range(chance.randrange(1, 300)):
            growth.append(levels[0])
        assert len(growth._nodes) <= 2 * growth.size.bit_length()
        assert verify_consistency(first, growth.size, start.root(), growth.root(), growth.proof())


def test_growth_does_not_change_where_it_began() -> None:
    start = frontier_of(LEAVES[:3])
    growth = Growth(start)
    growth.append(LEAVES[3])
    assert start.size == growth.first == 3
    assert start.root() == frontier_of(LEAVES[:3]).root()
    assert Growth(Frontier()).root() == EMPTY_ROOT
    with pytest.raises(MalformedTree):
        growth.append(b"short")
