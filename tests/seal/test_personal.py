# SPDX-License-Identifier: Apache-2.0
"""Personal values: committed to, not signed in the clear; altered or removed they are found; erased they are gone."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from auditspan.cli import main
from auditspan_seal.erase import disk
from auditspan_seal.erase.wanted import Wanted
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.guard import WITHHELD
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.proof import entries_of
from auditspan_seal.verify.report import Code, Verdict
from tests.records import ON_PURPOSE, audit_attributes

ADDRESS = "203.0.113.77"
OTHER = "198.51.100.9"
CORPUS = Path(__file__).parents[1] / "corpus"


class Guard:
    """What the tests hold to be personal."""

    def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
        return attributes or {}

    def text(self, text: str) -> str:
        return text

    def personal(self, names: Collection[str]) -> Collection[str]:
        return [name for name in names if name in ("client.address", "audit.actor.id", "session.id")]


def fill(folder: Path, *addresses: str, guard: Any = None) -> Directory:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(folder, guard=guard or Guard())
    provider.add_span_processor(AuditSpanProcessor(log))
    for address in addresses:
        attributes = audit_attributes(**{"client.address": address, "audit.actor.id": "alice"})
        provider.get_tracer("test").start_span("record", attributes=attributes).end()
    provider.shutdown()
    return log.directory


@pytest.fixture
def directory(log_folder: Path) -> Directory:
    return fill(log_folder, ADDRESS, OTHER, ADDRESS)


def report_of(directory: Directory) -> Any:
    return verify_directory(directory, read_verifier_key(directory.verifier_key))


def codes(directory: Directory) -> set[tuple[Code, int | None, str | None]]:
    return {(finding.code, finding.index, finding.field) for finding in report_of(directory).findings}


def entries(directory: Directory) -> list[tuple[dict[str, Any], commitment.Private]]:
    return [(statements.decode(statement), private) for statement, private in entries_of(directory)]


def edit(directory: Directory, index: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the private part of an entry in the log, as somebody with an editor would."""
    path = directory.log / reader.files(directory.log)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    where = [number for number, line in enumerate(lines) if line.startswith(b"E ")][index]
    statement, _, private = lines[where].rstrip(b"\n").partition(b"\t")
    fields = json.loads(private)
    change(fields)
    lines[where] = statement + b"\t" + json.dumps(fields).encode() + b"\n"
    path.write_bytes(b"".join(lines))


def everywhere(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# -- commitments -----------------------------------------------------------------------------------------------
@given(name=st.text(), value=st.text() | st.integers() | st.lists(st.text()), salt=st.binary(min_size=16, max_size=16))
def test_a_commitment_opens_with_what_was_committed_to_and_nothing_else(name: str, value: Any, salt: bytes) -> None:
    name, value = statements.text(name), statements.value(value)
    sealed = commitment.commit(name, value, salt)
    shown = base64.b64encode(salt).decode()
    assert commitment.opens(sealed, name, value, shown)
    assert not commitment.opens(sealed, name + "x", value, shown)
    assert not commitment.opens(sealed, name, [value], shown)
    assert not commitment.opens(sealed, name, value, base64.b64encode(salt[::-1] + b"x").decode())
    assert not commitment.opens(sealed, name, value, "no base64!")


def test_the_documented_example_of_a_commitment() -> None:
    salt = bytes(range(16))
    expected = hashlib.sha256(b"auditspan/commitment/v1\n" + salt + b'client.address\0"203.0.113.77"').digest()
    assert commitment.commit("client.address", ADDRESS, salt) == base64.b64encode(expected).decode()


@given(st.dictionaries(st.text(min_size=1), st.tuples(st.text(), st.text() | st.integers()), min_size=1))
def test_what_is_erased_leaves_a_part_of_the_same_length(private: commitment.Private) -> None:
    private = {statements.text(k): (statements.text(s), statements.value(v)) for k, (s, v) in private.items()}
    content = commitment.encode(private)
    assert commitment.decode(content) == private
    first = next(iter(private))
    left = commitment.without(content, {first})
    assert len(left) == len(content)
    assert commitment.decode(left) == {name: opening for name, opening in private.items() if name != first}
    assert commitment.decode(commitment.without(content, set(private))) == {}


# -- recording -------------------------------------------------------------------------------------------------
def test_the_statement_has_a_commitment_and_the_value_stands_beside_it(directory: Directory) -> None:
    salts = set()
    for fields, private in entries(directory)[1:]:
        assert set(private) == {"client.address", "audit.actor.id"}
        assert list(fields["attributes"]["client.address"]) == ["commitment"]
        assert ADDRESS not in json.dumps(fields)
        assert "alice" not in json.dumps(fields)
        salts |= {salt for salt, _ in private.values()}
    assert len(salts) == 6, "a salt is never used twice"
    report = report_of(directory)
    assert (report.verdict, report.records, report.erased) == (Verdict.PASSED, 3, 0)


def test_a_guard_that_fails_withholds_and_loses_nothing(log_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Guard):
        def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
            raise RuntimeError(f"cannot look at {attributes}")

        def personal(self, names: Collection[str]) -> Collection[str]:
            raise RuntimeError(names)

    directory = fill(log_folder, ADDRESS, guard=Broken())
    (log_folder / ON_PURPOSE).touch()  # of a record whose every value is withheld there is not much to judge
    ((_, _), (fields, private)) = entries(directory)
    assert ADDRESS.encode() not in everywhere(directory.path)
    assert set(fields["attributes"]) == set(private), "everything is held to be personal"
    assert private["client.address"][1] == WITHHELD
    assert private["audit.event.type"][1] == "data.update"
    assert "privacy guard failed" in caplog.text
    assert ADDRESS not in caplog.text


# -- tampering -------------------------------------------------------------------------------------------------
FIELD = "attributes.client.address"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda p: p["client.address"].__setitem__(1, ADDRESS), Code.FIELD_MISMATCH),
        (lambda p: p["client.address"].__setitem__(0, base64.b64encode(bytes(16)).decode()), Code.FIELD_MISMATCH),
        (lambda p: p["client.address"].__setitem__(0, ""), Code.FIELD_MISMATCH),
        (lambda p: p.pop("client.address"), Code.VALUE_REMOVED),
        (lambda p: p.update({"client.address": p["audit.actor.id"]}), Code.FIELD_MISMATCH),
    ],
)
def test_an_altered_or_removed_value_is_found(directory: Directory, change: Any, code: Code) -> None:
    edit(directory, 2, change)
    assert codes(directory) == {(code, 2, FIELD)}
    assert report_of(directory).verdict is Verdict.FAILED
    assert not any(ADDRESS in f.message or OTHER in f.message for f in report_of(directory).findings)


def test_values_cannot_be_swapped_between_records_with_equal_values(directory: Directory) -> None:
    first, third = (private for index, (_, private) in enumerate(entries(directory)) if index in (1, 3))
    edit(directory, 1, lambda p: p.update(client_address=None) or p.clear() or p.update(third))
    edit(directory, 3, lambda p: p.clear() or p.update(first))
    assert {(code, index) for code, index, _ in codes(directory)} == {(Code.FIELD_MISMATCH, i) for i in (1, 3)}


def test_a_salt_for_what_was_never_committed_to_is_found(directory: Directory) -> None:
    edit(directory, 1, lambda p: p.update({"audit.outcome": ["AAAA", "failure"]}))
    assert codes(directory) == {(Code.FIELD_MISMATCH, 1, "attributes.audit.outcome")}


def test_a_damaged_private_part_is_found_and_stops_nothing(directory: Directory) -> None:
    path = directory.log / reader.files(directory.log)[0]
    path.write_bytes(path.read_bytes().replace(b'\t{"', b"\t{x", 1))
    assert {code for code, _, _ in codes(directory)} >= {Code.VALUE_REMOVED}


# -- erasing ---------------------------------------------------------------------------------------------------
def erase(directory: Directory, *arguments: str) -> int:
    return main(["erase", str(directory.path), "--reason", "request 4711", *arguments])


def test_erasing_one_value(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [path.stat().st_size for path in sorted(directory.log.iterdir())]
    before = [fields for fields, _ in entries(directory)]
    salts = [private["client.address"][0] for _, private in entries(directory)[1:]]
    assert erase(directory, "--value", ADDRESS) == 0
    output = capsys.readouterr()
    assert "2 values of client.address erased" in output.out
    assert ADDRESS not in output.out + output.err
    assert ADDRESS.encode() not in everywhere(directory.path)
    assert salts[0].encode() not in everywhere(directory.path)
    assert salts[1].encode() in everywhere(directory.path), "the other person's value stays"
    assert sorted(directory.log.iterdir())[0].stat().st_size > sizes[0]
    assert [fields for fields, _ in entries(directory)][: len(before)] == before, "no statement has changed"
    assert [private.get("client.address", (0, None))[1] for _, private in entries(directory)[1:4]] == [
        None,
        OTHER,
        None,
    ]
    assert all(private["audit.actor.id"][1] == "alice" for _, private in entries(directory)[1:4])
    report = report_of(directory)
    assert (report.verdict, report.erased, report.erasures) == (Verdict.PASSED, 2, {directory.origin: [4]})
    erasure = entries(directory)[-1][0]
    assert erasure["erased"] == [[1, "client.address"], [3, "client.address"]]
    assert erasure["attributes"]["audit.event.type"] == "log.erasure"
    assert erasure["attributes"]["audit.rationale"] == "request 4711"
    assert main(["verify", str(directory.path)]) == 0
    assert "personal values erased on request: 2" in capsys.readouterr().out


def test_erasing_again_appends_nothing(directory: Directory) -> None:
    assert erase(directory, "--value", ADDRESS) == 0
    size = len(entries(directory))
    assert erase(directory, "--value", ADDRESS) == 2, "nothing is found"
    assert len(entries(directory)) == size
    fill(directory.path, ADDRESS)
    assert erase(directory, "--value", ADDRESS) == 0
    report = report_of(directory)
    assert (report.verdict, report.erased) == (Verdict.PASSED, 3)


def test_by_record_and_attribute(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    fields, _ = entries(directory)[2]
    assert erase(directory, "--record", fields["span_id"], "--attribute", "audit.actor.id", "--json") == 0
    (done,) = json.loads(capsys.readouterr().out)["erased"]
    assert (done["index"], done["attribute"]) == (2, "audit.actor.id")
    assert erase(directory, "--record", fields["attributes"]["audit.record.id"]) == 0
    assert report_of(directory).erased == 2


def test_a_dry_run_changes_nothing_and_shows_no_value(
    directory: Directory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everywhere(directory.log)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ADDRESS}\n"))
    assert erase(directory, "--value", "-", "--dry-run") == 0
    output = capsys.readouterr()
    assert "2 values of client.address would be erased" in output.out
    assert ADDRESS not in output.out + output.err
    assert everywhere(directory.log) == before


def test_a_reason_with_the_value_in_it_is_refused(directory: Directory, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["erase", str(directory.path), "--value", ADDRESS, "--reason", f"delete {ADDRESS}"]) == 2
    output = capsys.readouterr()
    assert "signed and stay forever" in output.err
    assert ADDRESS not in output.err


def test_an_erasure_that_was_cut_short_is_said_and_finished(directory: Directory) -> None:
    copy = directory.path.with_name("copy")
    shutil.copytree(directory.path, copy)
    erase(directory, "--value", ADDRESS)
    # The record of the erasure is there, but the overwriting did not happen: the lines as they were before.
    name = reader.files(directory.log)[0]
    old, new = (copy / "log" / name).read_bytes(), (directory.log / name).read_bytes()
    (directory.log / name).write_bytes(old + new[len(old) :])
    report = report_of(directory)
    assert report.verdict is Verdict.INCOMPLETE
    assert {finding.code for finding in report.findings} == {Code.ERASED_VALUE_PRESENT}
    erase(directory, "--value", ADDRESS)
    assert ADDRESS.encode() not in everywhere(directory.path)
    assert report_of(directory).verdict is Verdict.PASSED


def test_an_erasure_covers_only_what_was_before_it_and_what_it_names(directory: Directory) -> None:
    erase(directory, "--value", ADDRESS)
    edit(directory, 2, lambda p: p.pop("client.address"))
    assert codes(directory) == {(Code.VALUE_REMOVED, 2, FIELD)}


def test_a_writer_that_is_alive_and_its_segment(log_folder: Path) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    log = AuditLog(log_folder, guard=Guard())
    provider.add_span_processor(AuditSpanProcessor(log))
    tracer = provider.get_tracer("test")

    def record(address: str) -> None:
        tracer.start_span("record", attributes=audit_attributes(**{"client.address": address})).end()

    record(ADDRESS)
    record(OTHER)
    program = [sys.executable, "-m", "auditspan.cli", "erase", str(log_folder), "--value", ADDRESS, "--reason", "r"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert ADDRESS.encode() not in everywhere(log_folder)
    assert segment.names(log.directory.segments), "the segment of the living writer is still there"
    record(OTHER)
    provider.shutdown()
    report = report_of(log.directory)
    assert (report.verdict, report.records, report.erased) == (Verdict.PASSED, 3, 1)


def test_what_waits_in_a_segment_is_found_too(log_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequencer, "acquire", classmethod(lambda cls, directory: None))
    directory = fill(log_folder, ADDRESS)
    assert ADDRESS.encode() in everywhere(directory.segments)
    monkeypatch.undo()
    assert len(disk.erase(directory, Wanted(ADDRESS), "r", "tester")) == 1
    assert ADDRESS.encode() not in everywhere(log_folder)


# -- what remains ----------------------------------------------------------------------------------------------
def guesses(what_remains: bytes, candidates: list[str], salts: list[bytes]) -> set[str]:
    """Return every candidate for which some hash that is found in what remains can be made from it.

    Tried are the commitment, and plain SHA-256 of value and of name and value, with every salt that is left and with
    every identifier in the files as if it were one.
    """
    found = set()
    for candidate in candidates:
        for salt in salts:
            made = [
                commitment.commit("client.address", candidate, salt),
                base64.b64encode(hashlib.sha256(salt + candidate.encode()).digest()).decode(),
                hashlib.sha256(salt + candidate.encode()).hexdigest(),
                hashlib.sha256(salt + b"client.address\0" + candidate.encode()).hexdigest(),
            ]
            if any(text.encode() in what_remains for text in made):
                found.add(candidate)
    return found


def test_trying_all_values_finds_the_value_only_while_the_salt_is_there(log_folder: Path) -> None:
    """The argument on a reduced space, 203.0.113.0/24: what holds for 256 values holds for 2^32.

    Whoever tries values out needs the salt. While it is there, one try per value finds the address: that is what the
    first half shows, so that the second can fail. Once it is gone each try would have to be made with 2^128 salts;
    no other number in the files is one. The size of the space of values does not help: it is the salt that is missing.
    """
    directory = fill(log_folder, ADDRESS, OTHER)
    candidates = [f"203.0.113.{n}" for n in range(256)]

    def salts() -> list[bytes]:
        left = [base64.b64decode(salt) for _, private in entries(directory) for salt, _ in private.values()]
        for fields, _ in entries(directory):
            said = fields.get("attributes", {})
            for text in (fields.get("span_id"), fields.get("trace_id"), said.get("audit.record.id"), fields["origin"]):
                if text:
                    left += [str(text).encode(), bytes.fromhex(text) if str(text).isalnum() else b""]
        return [*left, b""]

    assert guesses(everywhere(log_folder), candidates, salts()) == {ADDRESS}
    erase(directory, "--value", ADDRESS)
    assert guesses(everywhere(log_folder), candidates, salts()) == set()
    others = [f"198.51.100.{n}" for n in range(256)]
    assert guesses(everywhere(log_folder), others, salts()) == {OTHER}, "the search itself still works"


# -- proofs and old logs ---------------------------------------------------------------------------------------
def test_a_proof_holds_no_personal_value_unless_it_is_disclosed(
    directory: Directory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    span = entries(directory)[1][0]["span_id"]
    key = str(directory.verifier_key)
    for folder, more in (("closed", []), ("open", ["--disclose"])):
        assert main(["prove", span, str(directory.path), "--out", str(tmp_path / folder), *more]) == 0
        assert (ADDRESS.encode() in everywhere(tmp_path / folder)) is bool(more)
        assert main(["verify", str(tmp_path / folder / f"{span}.tlog-proof"), "--key", key]) == 0
    values = tmp_path / "open" / f"{span}.values.json"
    values.write_text(values.read_text().replace(ADDRESS, OTHER))
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "open" / f"{span}.tlog-proof"), "--key", key, "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["code"], finding["field"]) == ("field_mismatch", FIELD)


@pytest.mark.parametrize("version", sorted(path.name for path in CORPUS.iterdir() if (path / "origin").exists()))
def test_a_log_of_every_released_version_verifies_and_is_shown(
    version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = open_directory(CORPUS / version)
    report = report_of(directory)
    assert {finding.code for finding in report.findings} <= {Code.GAP_ENTRY}, "a record was torn, on purpose"
    assert report.records > 5
    assert report.erased == (0 if version == "0.1.0" else 2)
    assert main(["runs", str(directory.path), "--json"]) == 0
    for run in json.loads(capsys.readouterr().out)["runs"]:
        assert main(["show", run["run"], str(directory.path)]) == 0
        assert len(capsys.readouterr().out.splitlines()) >= 3 + run["records"]


def test_the_person_who_was_erased_from_the_corpus_is_nowhere_in_it() -> None:
    assert b"erin" not in everywhere(CORPUS / "0.2.0")
    assert b"carol" in everywhere(CORPUS / "0.2.0"), "others are"
