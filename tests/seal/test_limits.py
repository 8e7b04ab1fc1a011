# SPDX-License-Identifier: Apache-2.0
"""What fuzzing has found, one test each; and what lies just inside and just outside of the limits (docs/formats.md §12)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from auditspan_seal import spans
from auditspan_seal.errors import FormatError, MalformedLog, MalformedNote, MalformedStatement, MalformedTree
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import MAX_LEAVES, MAX_LINE, Batch
from auditspan_seal.formats.merkle import MAX_SIZE, Frontier
from auditspan_seal.formats.note import MAX_KEY, MAX_NOTE, MAX_SIGNATURES, Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import TlogProof
from auditspan_seal.log import reader
from auditspan_seal.log.directory import open_directory
from auditspan_seal.ship import Delivery
from auditspan_seal.verify.elasticsearch import verify_documents
from auditspan_seal.verify.report import Code, Verdict
from tests.seal.documents import hits_of
from tests.vectors.builder import ORIGIN, Builder, salt, signer, small_log, span

KEY = signer("log").verifier_key
LINE = "— x AAAAAAAA\n"


# -- statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelt", ["1e16", "1e+16", "-1.5e300", "-1.5e+300", "[1e16,1e17]"])
def test_doubles_of_every_version_of_the_json_library_are_read(spelt: str) -> None:
    """Before 3.13, orjson wrote 1e16, since then 1e+16: a log that one has written, the other must not find altered."""
    data = f'{{"attributes":{{"a":{spelt}}},"type":"span","v":2}}'.encode()
    assert statements.decode(data)["attributes"]["a"] == json.loads(spelt)
    assert orjson.dumps(1e16) in (b"1e16", b"1e+16")


def test_a_bare_integer_is_at_most_what_every_json_reader_takes() -> None:
    for item in (2**53, -(2**53)):
        statements.decode(b'{"a":%d,"type":"span","v":2}' % item)
    for item in (2**53 + 1, -(2**53) - 1, 2**63, 2**64 - 1):
        with pytest.raises(MalformedStatement, match="2\\^53"):
            statements.decode(b'{"a":%d,"type":"span","v":2}' % item)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_of_any_size_can_be_recorded(sign: int) -> None:
    largest = sign * (10**640 - 1)
    assert statements.plain(statements.value(largest)) == largest
    assert statements.value(sign * 10**640) == "<integer of 2127 bits>"
    assert statements.value(sign * 10**5000) == "<integer of 16610 bits>"  # int() and str() give up at 4,300 digits


def test_nesting_is_limited_where_the_library_stops_writing() -> None:
    for depth, good in ((254, True), (255, False), (1025, False), (100_000, False)):
        data = b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b',"type":"span","v":2}'
        if good:
            statements.decode(data)
        else:
            with pytest.raises(MalformedStatement):
                statements.decode(data)


def test_a_statement_is_at_most_16_mib() -> None:
    empty = b'{"a":"","type":"span","v":2}'
    fits = empty.replace(b'""', b'"' + b"x" * (2**24 - len(empty)) + b'"')
    statements.decode(fits)
    with pytest.raises(MalformedStatement, match="longer"):
        statements.decode(fits.replace(b"xx", b"xxx", 1))


# -- notes and keys ---------------------------------------------------------------------------------------------------


def test_half_a_surrogate_pair_is_no_name_of_a_key() -> None:
    with pytest.raises(MalformedNote):
        VerifierKey.parse("\ud800+00000000+" + base64.b64encode(b"\x01" + bytes(32)).decode())


@pytest.mark.parametrize("text", ["\n", "a\x7fb\n", "a\u2028b\n", "a\u0085\n"])
def test_what_signed_note_allows_is_taken(text: str) -> None:
    assert Note.parse(f"{text}\n{LINE}").text == text


def test_limits_of_notes_and_keys() -> None:
    assert len(Note.parse("a\n\n" + LINE * MAX_SIGNATURES).signatures) == MAX_SIGNATURES
    with pytest.raises(MalformedNote, match="signatures"):
        Note.parse("a\n\n" + LINE * (MAX_SIGNATURES + 1))
    longest = "a" * (MAX_NOTE - len(LINE) - 2) + "\n\n" + LINE
    Note.parse(longest)
    with pytest.raises(MalformedNote, match="longer"):
        Note.parse("a" + longest)
    VerifierKey.parse(str(VerifierKey("x" * (MAX_KEY - 54), bytes(32))))
    with pytest.raises(MalformedNote, match="longer"):
        VerifierKey.parse(str(VerifierKey("x" * (MAX_KEY - 53), bytes(32))))


# -- batches, trees, proofs -------------------------------------------------------------------------------------------


def line(**fields: Any) -> bytes:
    return b"C " + json.dumps({"note": "", "first": 0, "frontier": "", "leaves": "", "segments": {}} | fields).encode()


def test_limits_of_a_checkpoint_line() -> None:
    Batch.parse(line(first=2**62, segments={"a": [2**63 - 1, 0]}))
    for fields in (
        {"first": 2**62 + 1},
        {"first": 2**64},
        {"segments": {"a": [2**63, 0]}},
        {"segments": {"a": [True, 0]}},
    ):
        with pytest.raises(MalformedLog):
            Batch.parse(line(**fields))
    assert len(Batch.parse(line(leaves=batches.join((bytes(32),) * MAX_LEAVES))).leaves) == MAX_LEAVES
    with pytest.raises(MalformedLog, match="more than"):
        Batch.parse(line(leaves=batches.join((bytes(32),) * (MAX_LEAVES + 1))))
    with pytest.raises(MalformedLog, match="longer"):
        Batch.parse(line(note="x" * MAX_LINE))
    with pytest.raises(MalformedLog, match="canonical"):
        Batch.parse(line(leaves=base64.b64encode(bytes(32)).decode().replace("A=", "B=")))


def test_a_tree_has_at_most_2_to_the_62_entries() -> None:
    Frontier(MAX_SIZE, [bytes(32)])
    for size, hashes in ((MAX_SIZE + 1, 2), (2**100_000, 1), (-1, 0)):
        with pytest.raises(MalformedTree):
            Frontier(size, [bytes(32)] * hashes)


def test_a_proof_of_too_many_hashes_is_refused_before_they_are_read() -> None:
    note = small_log().notes[0]
    with pytest.raises(MalformedTree, match="600000 hashes"):
        TlogProof.parse("c2sp.org/tlog-proof@v1\nindex 0\n" + "!\n" * 600_000 + "\n" + note)


# -- personal values --------------------------------------------------------------------------------------------------


def test_erasing_never_makes_a_line_longer() -> None:
    with pytest.raises(MalformedLog):
        commitment.without(b'{"a":["x",1e9]}', {"b"})  # 1e9 would be written as 1000000000.0
    with pytest.raises(MalformedLog):
        commitment.without(b'{"a":["x",' + b"[" * 300 + b"]" * 300 + b"]}", {"b"})


def test_a_salt_has_one_spelling() -> None:
    text = base64.b64encode(salt(1)).decode()
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:21] + digits[digits.index(text[21]) | 1] + "=="
    assert base64.b64decode(other) == salt(1)
    digest = commitment.commit("a", 1, salt(1))
    assert commitment.opens(digest, "a", 1, text)
    assert not commitment.opens(digest, "a", 1, other)


# -- what is read from disk and sent ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"1", b'"x"', b"{}", b"\xff", b"[" * 100_000, b'{"file":"x","offset":1e400,"size":0}', b'{"file":1,"offset":0,"size":0}',
        b'{"file":"","offset":18446744073709551615,"size":0}', b'{"file":"","offset":-1,"size":0}', b'{"file":"","offset":"0","size":0}',
        b'{"file":"","offset":true,"size":0}', b'{"file":"","offset":0,"size":1e300}', b'{"file":"../x","offset":0,"size":0}',
    ],
)  # fmt: skip
def test_a_damaged_delivery_state_means_from_the_start(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "delivery.json").write_bytes(content)
    assert Delivery.load(tmp_path / "delivery.json") == Delivery()
    assert not list(reader.blocks(tmp_path / "log", Delivery.load(tmp_path / "delivery.json").cursor))


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": "f" * 33}, {"trace_id": "_" + "f" * 31}, {"trace_id": "F" * 32}, {"span_id": ""}, {"trace_flags": 256}, {"trace_flags": True},
        {"name": []}, {"start": "9" * 5000}, {"end": str(2**64)}, {"start": "\u0661"}, {"end": "-1"}, {"events": [{}]}, {"links": [1]}, {"status": 1},
        {"status": {"code": "ERROR", "message": []}}, {"attributes": []}, {"attributes": {"a": {"x": 1}}}, {"resource": {}}, {"scope": None},
        {"trace_state": 1}, {"kind": "x"}, {"parent_span_id": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_an_entry_that_cannot_be_sent_does_not_hold_back_the_rest(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedStatement):
        spans.document_of(statements.encode(span(1) | fields), b"", ORIGIN, 1)


@pytest.mark.parametrize("time", ["x", "", 1, None, "9" * 30, "-1"])
def test_an_entry_of_the_log_with_a_time_that_is_none_is_not_sent(time: Any) -> None:
    entry = statements.encode({"v": 2, "type": "gap", "time": time, "attributes": {}})
    with pytest.raises(MalformedStatement):
        spans.document_of(entry, b"", ORIGIN, 1)


def test_integers_beyond_64_bits_reach_the_document(tmp_path: Path) -> None:
    log = Builder()
    log.genesis()
    log.record(span(1, attributes=statements.values({"a": 2**63, "b": [-(2**70)], "c": 2**63 - 1, "d": {"e": 2**64}})))
    log.checkpoint()
    log.write(tmp_path / "log")
    hits = hits_of(open_directory(tmp_path / "log"))
    attributes = hits[1]["_source"]["attributes"]
    assert (attributes["a"], attributes["b"], attributes["c"]) == (str(2**63), [str(-(2**70))], 2**63 - 1)
    assert verify_documents(hits, "x", KEY).verdict is Verdict.PASSED
    attributes["a"] = str(2**63 + 1)
    assert {finding.code for finding in verify_documents(hits, "x", KEY).findings} == {Code.FIELD_MISMATCH}


# -- hostile documents ------------------------------------------------------------------------------------------------


def short(item: Any) -> str:
    return ascii(item)[:20] if isinstance(item, str) else type(item).__name__


DEEP: list[Any] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (spans.PRIVATE, "[" * 100_000), (spans.PRIVATE, '{"a":' + "1" * 5000 + "}"), (spans.PRIVATE, "\ud800"), (spans.STATEMENT, "\ud800"),
        (spans.INDEX, 10**5000), (spans.INDEX, True), (spans.ORIGIN, 10**5000), ("audit.action", 10**5000), ("audit.action", DEEP),
        ("audit.x", 10**5000), ("audit.\ud800", "\ud800"),
    ],
    ids=short,
)  # fmt: skip
def test_a_hostile_value_in_a_document_is_a_finding(name: str, value: Any, tmp_path: Path) -> None:
    small_log().write(tmp_path / "log")
    hits = hits_of(open_directory(tmp_path / "log"))
    hits[2]["_source"]["attributes"][name] = value
    report = verify_documents(hits, "x", KEY)
    assert report.verdict is Verdict.FAILED
    assert json.dumps(report.as_json())


@pytest.mark.parametrize("value", [10**5000, True, None, [], {}, "", "\ud800", "AB==", -1, 2**70], ids=short)
@pytest.mark.parametrize("name", [spans.NOTE, spans.FIRST, spans.FRONTIER, spans.LEAVES])
def test_a_hostile_value_in_a_checkpoint_is_a_finding(name: str, value: Any, tmp_path: Path) -> None:
    small_log().write(tmp_path / "log")
    hits = hits_of(open_directory(tmp_path / "log"))
    assert hits[-1]["_source"]["attributes"][spans.DOCUMENT] == "checkpoint"
    hits[-1]["_source"]["attributes"][name] = value
    report = verify_documents(hits, "x", KEY)
    assert report.verdict is Verdict.FAILED
    assert Code.CHECKPOINT_INVALID in {finding.code for finding in report.findings}


@pytest.mark.parametrize("timestamp", ["9" * 5000, "1.\u0661", "1.", "x", 10**5000, None], ids=short)
def test_a_hostile_time_is_a_mismatch(timestamp: Any, tmp_path: Path) -> None:
    small_log().write(tmp_path / "log")
    hits = hits_of(open_directory(tmp_path / "log"))
    hits[2]["_source"]["@timestamp"] = timestamp
    codes = {(finding.code, finding.field) for finding in verify_documents(hits, "x", KEY).findings}
    assert codes == {(Code.FIELD_MISMATCH, "@timestamp")}


def test_every_limit_is_in_the_document() -> None:
    limits = (Path(__file__).parents[2] / "docs" / "formats.md").read_text().partition("## 12. Limits")[2]
    assert statements.MAX_SIZE == MAX_LINE == 2**24
    assert MAX_SIZE == 2**62
    for number in (statements.MAX_DEPTH, statements.MAX_DIGITS, MAX_LEAVES, MAX_NOTE, MAX_SIGNATURES, MAX_KEY):
        assert f" {number:,} " in limits, number
    for text in ("2^24", "2^62", "2^63 \u2212 1", "63 hashes", "1,000,000 bytes of extra data"):
        assert text in limits, text
    with pytest.raises(FormatError):
        Checkpoint.parse(f"a\n{2**63}\n{base64.b64encode(bytes(32)).decode()}\n")


@pytest.mark.parametrize("edit", [{"number": 2**70}, {"number": -1}, {"end": "9" * 30}, {"end": "-5"}], ids=str)
def test_a_number_beyond_all_bounds_in_a_document_is_a_finding(edit: dict[str, Any], tmp_path: Path) -> None:
    small_log().write(tmp_path / "log")
    hits = hits_of(open_directory(tmp_path / "log"))
    attributes = next(
        hit["_source"]["attributes"]
        for hit in hits
        if '"type":"span"' in str(hit["_source"]["attributes"].get(spans.STATEMENT))
    )
    attributes[spans.STATEMENT] = json.dumps(json.loads(attributes[spans.STATEMENT]) | edit, separators=(",", ":"))
    report = verify_documents(hits, "x", KEY)
    assert Code.STATEMENT_ALTERED in {finding.code for finding in report.findings}
