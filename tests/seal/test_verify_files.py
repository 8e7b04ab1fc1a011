# SPDX-License-Identifier: Apache-2.0
"""OTLP/JSON files, in any order and with second copies, say what the log says; tampering with them is found."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan_seal import spans
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify import files, parallel
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.files import verify_files
from auditspan_seal.verify.report import Code, Report, Verdict
from tests.benchmarks.logs import export, otlp
from tests.seal.test_personal import ADDRESS, OTHER, fill
from tests.seal.verifying import Log, codes, requests, rewrite

Edit = Callable[[list[dict[str, Any]]], None]


@pytest.fixture
def directory(make_records: Callable[..., Directory]) -> Directory:
    make_records(4, flag=True, ratio=1.0, names=["a", "b"], raw=b"\x00\x01", big=2**60)
    return make_records(4)


@pytest.fixture
def path(directory: Directory, tmp_path: Path) -> Path:
    export(directory, tmp_path / "traces.json")
    return tmp_path / "traces.json"


def verify(directory: Directory, *paths: Path) -> Report:
    from auditspan_seal.keys import read_verifier_key

    return verify_files(paths, read_verifier_key(directory.verifier_key))


def spans_of(request: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        span
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]  # fmt: skip


def records(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sealed spans of a file, in the order of their index."""
    every = [span for request in found for span in spans_of(request)]
    sealed = [span for span in every if attribute(span, spans.STREAM)]
    return sorted(sealed, key=lambda span: int(attribute(span, spans.INDEX)["intValue"]))


def attribute(span: dict[str, Any], name: str) -> Any:
    return next((pair["value"] for pair in span["attributes"] if pair["key"] == name), None)


# -- honest ----------------------------------------------------------------------------------------------------------
def test_an_honest_file_passes(directory: Directory, path: Path) -> None:
    report = verify(directory, path)
    assert (report.findings, report.verdict, report.records) == ([], Verdict.PASSED, 8)
    assert report.compared
    assert report.logs == {directory.origin: 9}


def test_order_and_second_copies_do_not_matter(directory: Directory, path: Path, tmp_path: Path) -> None:
    one_each = [
        {"resourceSpans": [{**resource, "scopeSpans": [{**scope, "spans": [span]}]}]}
        for request in requests(path)
        for resource in request["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    for seed in range(5):
        some = [*one_each, *random.Random(seed).choices(one_each, k=6)]
        random.Random(seed).shuffle(some)
        rewrite(tmp_path / "a.json", some[:7])
        rewrite(tmp_path / "b.json", some[7:])
        report = verify(directory, tmp_path / "a.json", tmp_path / "b.json")
        assert (report.findings, report.records) == ([], 8)
        assert report.copies <= 6


def test_packed_files_and_plain_exports(directory: Directory, path: Path, tmp_path: Path) -> None:
    (tmp_path / "t.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert verify(directory, tmp_path / "t.json.gz").verdict is Verdict.PASSED
    merged = {"resourceSpans": [item for request in requests(path) for item in request["resourceSpans"]]}
    (tmp_path / "pretty.json").write_text(json.dumps(merged, indent=2))
    assert verify(directory, tmp_path / "pretty.json").verdict is Verdict.PASSED
    (tmp_path / "list.json").write_text(json.dumps(requests(path)))
    assert verify(directory, tmp_path / "list.json").verdict is Verdict.PASSED
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-q", str(path)], check=True)
        assert verify(directory, path.with_name("traces.json.zst")).verdict is Verdict.PASSED


def test_other_spans_and_broken_lines_do_not_disturb(directory: Directory, path: Path) -> None:
    other = {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "other", "traceId": "1", "attributes": []}]}]}]}
    odd = ["{}", "[]", "[1]", "null", '{"resourceSpans":5}', '{"resourceLogs":[]}', '{"resourceSpans":[{"scopeSpans":'
           '[{"spans":[5,{"attributes":5},{"attributes":[5]}]}]}]}', "{torn", "", "\u2028"]  # fmt: skip
    path.write_text("\n".join([*path.read_text().splitlines(), json.dumps(other), *odd]))
    report = verify(directory, path)
    assert report.findings == []
    assert [note for note in report.notes if "not JSON" in note]


@pytest.mark.slow
def test_several_processes_say_what_one_says(directory: Directory, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PIECE", 3000)
    trust = Trust()
    assert verify_files([path], trust=trust, jobs=2).as_json() == verify_files([path], trust=trust, jobs=1).as_json()


def test_personal_values_erased_and_not(log_folder: Path, tmp_path: Path) -> None:
    directory = fill(log_folder, ADDRESS, OTHER)
    export(directory, tmp_path / "before.json")
    assert verify(directory, tmp_path / "before.json").findings == []
    assert main(["erase", str(log_folder), "--value", ADDRESS, "--reason", "r"]) == 0
    export(directory, tmp_path / "after.json")
    report = verify(directory, tmp_path / "after.json")
    assert (report.findings, report.erased) == ([], 1)
    # An old file beside the new one still has the value: that is what is to be known.
    found = verify(directory, tmp_path / "before.json", tmp_path / "after.json")
    assert codes(found) == {(Code.ERASED_VALUE_PRESENT, 1)}


# -- tampering -------------------------------------------------------------------------------------------------------
def set_attribute(name: str, value: Any) -> Edit:
    def edit(found: list[dict[str, Any]]) -> None:
        next(pair for pair in records(found)[2]["attributes"] if pair["key"] == name)["value"] = value

    return edit


EDITS: dict[str, tuple[Edit, str]] = {
    "name": (lambda f: records(f)[2].update(name="x"), "name"),
    "trace": (lambda f: records(f)[2].update(traceId="0" * 31 + "1"), "trace_id"),
    "kind": (lambda f: records(f)[2].update(kind=5), "kind"),
    "start": (lambda f: records(f)[2].update(startTimeUnixNano="5"), "@timestamp"),
    "status": (lambda f: records(f)[2].update(status={"code": 2}), "status.code"),
    "event": (lambda f: records(f)[2].update(events=[{"name": "e", "timeUnixNano": "1"}]), "events"),
    "link": (lambda f: records(f)[2].update(links=[{"traceId": "1", "spanId": "2"}]), "links"),
    "text": (set_attribute("audit.outcome", {"stringValue": "failure"}), "attributes.audit.outcome"),
    "true for 1": (set_attribute("flag", {"intValue": "1"}), "attributes.flag"),
    "text for a number": (set_attribute("number", {"stringValue": "2"}), "attributes.number"),
    "two values": (
        set_attribute("audit.outcome", {"stringValue": "success", "intValue": "1"}),
        "attributes.audit.outcome",
    ),
    "list": (
        set_attribute("names", {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "c"}]}}),
        "attributes.names",
    ),
    "bytes": (set_attribute("raw", {"bytesValue": "AAA="}), "attributes.raw"),
    "big": (set_attribute("big", {"intValue": str(2**60 + 1)}), "attributes.big"),
    "one more of ours": (
        lambda f: records(f)[2]["attributes"].append({"key": "audit.decision", "value": {"stringValue": "x"}}),
        "attributes.audit.decision",
    ),
    "a name twice": (
        lambda f: records(f)[2]["attributes"].insert(
            0, {"key": "audit.outcome", "value": {"stringValue": "failure"}}
        ),
        "attributes.audit.(a name that is there twice)",
    ),
    "index": (set_attribute(spans.INDEX, {"intValue": "4711"}), "attributes.audit.log.index"),
    "origin": (set_attribute(spans.ORIGIN, {"stringValue": "another/log"}), "attributes.audit.log.origin"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_field_is_named(directory: Directory, path: Path, what: str) -> None:
    edit, field = EDITS[what]
    found = requests(path)
    edit(found)
    rewrite(path, found)
    report = verify(directory, path)
    wrong = [(finding.code, finding.index, finding.field) for finding in report.findings]
    assert (Code.FIELD_MISMATCH, 3, field) in wrong
    assert {code for code, _, _ in wrong} <= {Code.FIELD_MISMATCH, Code.NO_CHECKPOINT}
    assert report.verdict is Verdict.FAILED


def test_statements_edited_swapped_removed_and_deleted(directory: Directory, path: Path) -> None:
    honest = requests(path)

    def after(edit: Edit) -> set[tuple[Code, int | None]]:
        found = copy.deepcopy(honest)
        edit(found)
        rewrite(path, found)
        return codes(verify(directory, path))

    def statement(span: dict[str, Any]) -> dict[str, Any]:
        value: dict[str, Any] = attribute(span, spans.STATEMENT)
        return value

    def edit(found: list[dict[str, Any]]) -> None:
        value = statement(records(found)[2])
        value["stringValue"] = value["stringValue"].replace("success", "failure")

    def swap(found: list[dict[str, Any]]) -> None:
        one, other = statement(records(found)[1]), statement(records(found)[5])
        one["stringValue"], other["stringValue"] = other["stringValue"], one["stringValue"]

    def strip(found: list[dict[str, Any]]) -> None:
        span = records(found)[2]
        span["attributes"] = [pair for pair in span["attributes"] if pair["key"] != spans.STATEMENT]

    def delete(found: list[dict[str, Any]]) -> None:
        gone = records(found)[2]
        for request in found:
            for resource in request["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    scope["spans"] = [span for span in scope["spans"] if span is not gone]

    assert after(edit) == {(Code.STATEMENT_ALTERED, 3)}
    assert {code for code, _ in after(swap)} == {Code.FIELD_MISMATCH}
    assert after(strip) == {(Code.FOREIGN_DOCUMENT, 3), (Code.ENTRY_MISSING, 3)}
    assert after(delete) == {(Code.ENTRY_MISSING, 3)}


def test_a_missing_checkpoint_is_bridged_and_said(directory: Directory, path: Path) -> None:
    found = requests(path)
    for request in found[1:2]:
        for resource in request["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                scope["spans"] = [
                    span for span in scope["spans"] if attribute(span, spans.DOCUMENT) != {"stringValue": "checkpoint"}
                ]
    rewrite(path, found)
    report = verify(directory, path)
    assert {code for code, _ in codes(report)} == {Code.CHECKPOINT_MISSING}
    assert "its records are proven by the next one" in report.findings[0].message
    assert report.records == 8


# -- what was not said -----------------------------------------------------------------------------------------------
def test_one_run_and_since(log_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(log_folder)
    for run in "abc":
        log.add(log.spans(3, attributes={"automation.run.id": run}))
    with open(tmp_path / "t.json", "w") as file:
        for block in reader.batches(log.directory.log):
            found = [
                spans.document_of(statement, b"", log.directory.origin, block.batch.first + at)
                for at, statement in enumerate(block.statements)
            ]
            found.append(spans.checkpoint_document(block.batch, log.directory.origin, 1))
            file.write(json.dumps(otlp(found)) + "\n")
    for place in (str(log_folder), str(tmp_path / "t.json")):
        arguments = ["verify", place, "--key", str(log.directory.verifier_key), "--json"]

        def said(*more: str, arguments: list[str] = arguments) -> tuple[int, dict[str, Any]]:
            code = main([*arguments, *more])
            return code, json.loads(capsys.readouterr().out)

        code, report = said("--run", "b")
        assert (code, report["records"], report["scope"]["run"]) == (0, 3, "b")
        assert {claim["claim"]: claim["verdict"] for claim in report["claims"]}["none_missing"] == "UNVERIFIABLE"
        assert said("--run", "nobody")[0] == 4
        code, report = said("--since", "5")
        assert (code, report["records"], report["scope"]["first_index"]) == (0, 6, {log.directory.origin: 4})
        assert said("--since", "1970-01-01T00:00:00Z")[1]["records"] == 9
        code, report = said("--since", "2100-01-01")
        assert (code, report["records"]) == (0, 3)
    assert main(["verify", str(log_folder), "--since", "yesterday"]) == 2
    assert "neither an index nor a time" in capsys.readouterr().err


def test_what_a_killed_process_leaves_is_read_here() -> None:
    found = list(parallel.in_order(2, range(5), lambda pool, number: pool.submit(os._exit, number)))
    assert found == [(number, None) for number in range(5)]
