# SPDX-License-Identifier: Apache-2.0
"""What stands in a row is kept together, and is judged as if each entry were sorted by itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from auditspan_seal import spans
from auditspan_seal.verify import files, runs
from auditspan_seal.verify.files import verify_files
from auditspan_seal.verify.journey import Journey, Since
from auditspan_seal.verify.report import Code, Verdict
from auditspan_seal.verify.state import StateFile
from tests.benchmarks.logs import export, make_log

RECORDS = 300
ROUNDS = 40
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    """Requests, each with the spans of one scope."""
    folder = tmp_path_factory.mktemp("runs")
    export(make_log(folder / "log", RECORDS, batch=30, segments=3), folder / "traces.json")
    return [
        {"resourceSpans": [{**resource, "scopeSpans": [scope]}]}
        for line in (folder / "traces.json").read_bytes().splitlines()
        for resource in orjson.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
    ]


def spans_in(line: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = line["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return found


def write(path: Path, lines: Lines) -> Path:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


def judged(path: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> dict[str, Any]:
    """The report, which is the same if every entry is sorted by itself; so are those of shorter runs."""
    reports = []
    for shortest, chunk in ((8, 1 << 62), (1, 70), (1 << 62, 1 << 62)):
        monkeypatch.setattr(runs, "_SHORTEST", shortest)
        monkeypatch.setattr(files, "CHUNK", chunk)
        reports.append(verify_files([path], jobs=1, **more).as_json())
    for other in reports[:2]:
        assert other["findings"] == reports[2]["findings"]
        assert other == reports[2]
    return reports[0]


def test_an_honest_file_is_kept_in_runs(honest: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.json", honest)
    kept = [found for piece in files._pieces(path) for found in files._chunks(piece, 1 << 62, None)]
    assert sum(end - first for found in kept for _, first, end, _, _ in found.runs) == RECORDS
    assert judged(path, monkeypatch)["verdict"] == "PASSED"


def change_index(chance: random.Random, lines: Lines) -> None:
    """A span claims another place, within the log or beyond it."""
    line = chance.choice([line for line in lines if len(spans_in(line)) > 5])
    pairs = chance.choice(spans_in(line))["attributes"]
    pair = next((pair for pair in pairs if pair["key"] == spans.INDEX), None)
    if pair is not None:
        pair["value"] = {"intValue": str(chance.choice([0, 1, 70, 200, RECORDS, 10_000, 2**62]))}


def delete_spans(chance: random.Random, lines: Lines) -> None:
    found = spans_in(chance.choice(lines))
    begin = chance.randrange(len(found))
    del found[begin : begin + chance.choice([1, 2, 30])]


def double_spans(chance: random.Random, lines: Lines) -> None:
    found = spans_in(chance.choice(lines))
    begin = chance.randrange(len(found))
    spans_in(chance.choice(lines)).extend(found[begin : begin + chance.choice([1, 9, 40])])


def move_spans(chance: random.Random, lines: Lines) -> None:
    found = spans_in(chance.choice(lines))
    chance.shuffle(found)


def edit_span(chance: random.Random, lines: Lines) -> None:
    found = chance.choice(spans_in(chance.choice(lines)))
    found["name"] += "x"


def edit_statement(chance: random.Random, lines: Lines) -> None:
    found = chance.choice(spans_in(chance.choice(lines)))
    for pair in found["attributes"]:
        if pair["key"] == spans.STATEMENT:
            pair["value"]["stringValue"] = pair["value"]["stringValue"].replace("success", "failure")


def join_lines(chance: random.Random, lines: Lines) -> None:
    """A Collector puts the spans of several requests into one."""
    at = chance.randrange(len(lines) - 1)
    if lines[at]["resourceSpans"][0]["resource"] == lines[at + 1]["resourceSpans"][0]["resource"]:
        spans_in(lines[at]).extend(spans_in(lines.pop(at + 1)))


EDITS: list[Callable[[random.Random, Lines], object]] = [
    change_index, delete_spans, double_spans, move_spans, edit_span, edit_statement, join_lines,
    lambda chance, lines: lines.pop(chance.randrange(len(lines))),
    lambda chance, lines: lines.append(chance.choice(lines)),
    lambda chance, lines: chance.shuffle(lines),
]  # fmt: skip


def test_whatever_was_done_to_a_file(honest: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    seen = set()
    for number in range(ROUNDS):
        lines: Lines = orjson.loads(orjson.dumps(honest))
        for _ in range(1 + number % 3):
            edit = EDITS[number % len(EDITS)] if number < 2 * len(EDITS) else chance.choice(EDITS)
            edit(chance, [line for line in lines if spans_in(line)] if edit not in EDITS[-4:] else lines)
        report = judged(write(tmp_path / "t.json", lines), monkeypatch)
        seen |= {finding["code"] for finding in report["findings"]} | {report["verdict"]}
    assert seen >= {
        Verdict.PASSED, Verdict.FAILED, Code.ENTRY_MISSING, Code.FIELD_MISMATCH, Code.STATEMENT_ALTERED,
        Code.CHECKPOINT_MISSING,
    }  # fmt: skip


def test_second_copies_in_a_row_are_counted(honest: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = judged(write(tmp_path / "t.json", [*honest, *honest]), monkeypatch)
    assert (report["verdict"], report["records"]) == ("PASSED", RECORDS)
    assert report["copies"] >= RECORDS


@pytest.mark.parametrize("since", ["0", "57", str(RECORDS), "1970-01-01", "2100-01-01"])
def test_since(honest: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str) -> None:
    path = write(tmp_path / "t.json", honest)
    report = judged(path, monkeypatch, journey=Journey(Since.parse(since)))
    assert report["verdict"] == "PASSED"
    assert since not in ("0", "1970-01-01") or report["records"] == RECORDS


def test_a_state_is_gone_on_with(honest: Lines, tmp_path: Path) -> None:
    ends = [at + 1 for at, line in enumerate(honest) if b'"checkpoint"' in orjson.dumps(line)]
    for end in (*ends[2:5], ends[-1]):
        path = write(tmp_path / "t.json", honest[:end])
        report = verify_files([path], jobs=1, journey=Journey(state=StateFile(tmp_path / "state")))
        assert (report.verdict, report.findings) == (Verdict.PASSED, [])
    assert report.records == RECORDS
    assert list(report.anchors.values()) == [150]  # what was judged before is where it went on from
