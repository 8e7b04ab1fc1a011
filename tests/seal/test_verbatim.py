# SPDX-License-Identifier: Apache-2.0
"""What is judged without being read as JSON is judged as if it were read, whatever was done to the text."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from auditspan_seal import spans
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.otlp import as_json
from auditspan_seal.otlp.parcel import Checkpoint, Entry
from auditspan_seal.verify import otlp, verbatim, written
from auditspan_seal.verify.facts import Fact
from auditspan_seal.verify.files import verify_files
from auditspan_seal.verify.report import Verdict
from auditspan_seal.verify.sorter import row_of, stored
from tests.benchmarks.logs import export
from tests.seal.mutator import JSON_VALUES, Mutator
from tests.seal.test_personal import ADDRESS, OTHER, fill
from tests.seal.verifying import Log

INPUTS = int(os.environ.get("AUDITSPAN_FUZZ_INPUTS", "20000"))
PLAIN: dict[str, Any] = {
    "flag": True,
    "ratio": 1.5,
    "names": ["a", "b"],
    "text": 'say "{[}]," \\ \u2028 \u00e4',
    "whole": -5,
}


@pytest.fixture(params=["without personal values", "with some"])
def directory(request: pytest.FixtureRequest, make_records: Callable[..., Directory], log_folder: Path) -> Directory:
    if request.param == "with some":
        return fill(log_folder, ADDRESS, OTHER, ADDRESS, 'say "{[}]," \\ \u00e4', OTHER)
    make_records(3, **PLAIN)
    make_records(1, big=2**53)  # written as it is, but beyond what the library's strict writing takes
    return make_records(3)


@pytest.fixture(params=["of the Collector", "of our exporter"])
def lines(request: pytest.FixtureRequest, directory: Directory, tmp_path: Path) -> list[bytes]:
    """An honest file, as the Collector spells it, and as it was sent."""
    if request.param == "of our exporter":
        return [*_sent(directory)]
    export(directory, tmp_path / "traces.json")
    return (tmp_path / "traces.json").read_bytes().splitlines()


def _sent(directory: Directory) -> Iterator[bytes]:
    for block in reader.batches(directory.log):
        entries = [
            Entry(block.batch.first + at, statement, private)
            for at, (statement, private) in enumerate(zip(block.statements, block.private, strict=True))
        ]
        yield as_json.encode(directory.origin, [*entries, Checkpoint(block.batch, 1)]).body


def judged(line: bytes) -> tuple[list[Any], list[str], int]:
    """What is found in a line, the problems, and how many entries were taken word for word."""
    problems: list[str] = []
    found: list[Any] = []
    plain = 0
    for item in otlp.items_of([line], "file", 2, lambda: b"", problems.append):
        plain += isinstance(item, tuple)
        found.append(row_of(item) if isinstance(item, Fact) else stored(item) if isinstance(item, tuple) else item)
    return found, problems, plain


def read_whole(line: bytes) -> tuple[list[Any], list[str]]:
    """The same, all of it read and compared field by field."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otlp, "shorten", lambda request: (request, verbatim.NO_MARKS))
        found, problems, plain = judged(line)
    assert not plain
    return found, problems


def agree(line: bytes) -> int:
    """Both ways say the same; returns how many entries were taken word for word."""
    found, problems, plain = judged(line)
    assert (found, problems) == read_whole(line), line
    return plain


def test_what_is_honest_is_taken_word_for_word(lines: list[bytes]) -> None:
    assert sum(map(agree, lines)) == (5 if b"commitment" in b"".join(lines) else 6)  # and one has a number beyond 2^53


def test_everything_is_read_where_a_run_is_sought(lines: list[bytes]) -> None:
    found = [item for line in lines for item in otlp.items_of([line], "f", 2, lambda: b"", print, lambda _: True)]
    assert not [item for item in found if isinstance(item, tuple)]


def test_other_spellings_of_the_same_pass(directory: Directory, lines: list[bytes], tmp_path: Path) -> None:
    for spell in (
        json.dumps,
        lambda request: json.dumps(request, separators=(",", ":")),
        lambda request: json.dumps(request, sort_keys=True),
        lambda request: orjson.dumps(request, option=orjson.OPT_SORT_KEYS).decode(),
    ):
        path = tmp_path / "t.json"
        path.write_text("".join(spell(orjson.loads(line)) + "\n" for line in lines))
        for line in path.read_bytes().splitlines():
            agree(line)
        report = verify_files([path], jobs=1)
        assert (report.findings, report.records) == ([], 5 if b"commitment" in path.read_bytes() else 7)


def test_what_a_collector_adds_is_honest(lines: list[bytes]) -> None:
    for line in lines:
        request = orjson.loads(line)
        for resource in request["resourceSpans"]:
            resource["resource"]["attributes"].append({"key": "host.name", "value": {"stringValue": "h"}})
        assert agree(orjson.dumps(request)) == agree(line)


def test_personal_values_are_opened(log_folder: Path, tmp_path: Path) -> None:
    directory = fill(log_folder, ADDRESS, OTHER)
    export(directory, tmp_path / "traces.json")
    taken = 0
    for line in [*_sent(directory), *(tmp_path / "traces.json").read_bytes().splitlines()]:
        taken += agree(line)
        agree(line.replace(OTHER.encode(), b"somebody"))
        agree(line.replace(b"alice", b"bob"))
        agree(re.sub(rb'("audit.private","value":.{30})', rb"\1x", line))
        agree(re.sub(rb',{"key":"audit.private","value":{"stringValue":"[^}]*}"}}', b"", line))
    assert taken == 4  # both spans, as both spell them


def test_any_edit_of_the_parsed_request_is_judged_as_before(lines: list[bytes]) -> None:
    chance = random.Random(1)
    told: set[bool] = set()
    for number in range(INPUTS // 20):
        request = orjson.loads(chance.choice(lines))
        for _ in range(1 + number % 3):
            _edit(chance, request)
        line = orjson.dumps(request)
        plain = agree(line)
        told.add(plain < line.count(spans.NUMBER.encode()))
    assert told == {True, False}


def _edit(chance: random.Random, request: Any) -> None:
    """Change, remove, double or exchange something anywhere."""
    places: list[tuple[Any, Any]] = []

    def collect(item: Any) -> None:
        for key in item if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ():
            places.append((item, key))
            collect(item[key])

    collect(request)
    if not places:
        return
    (holder, key), (other, place) = chance.choice(places), chance.choice(places)
    what = chance.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1:
        holder[key] = chance.choice([1, True, None, "", "1", "success", 1.0, [], {}, holder[key], [holder[key]]])
    elif what == 2 and isinstance(holder, list):
        holder.insert(chance.randrange(len(holder) + 1), orjson.loads(orjson.dumps(holder[key])))
    elif what == 3 and isinstance(holder, dict):
        holder[chance.choice(["key", "value", "links", "traceState", "stringValue", "intValue", "more"])] = holder[key]
    elif what == 4 and isinstance(holder[key], str):
        holder[key] += chance.choice(["x", " ", '"', "\\", "}", "0"])
    else:
        one, another = orjson.dumps(holder[key]), orjson.dumps(other[place])
        holder[key] = orjson.loads(another)
        if holder is not other:
            other[place] = orjson.loads(one)


def test_any_change_of_the_text_is_judged_as_before(lines: list[bytes]) -> None:
    mutator = Mutator(2, [line for line in lines if len(line) < 20_000])
    for _ in range(INPUTS // 10):
        agree(mutator.next().replace(b"\n", b" "))


def test_marks_and_texts_where_none_belong(lines: list[bytes]) -> None:
    """Tricks: text in the place of something else, in names and texts, twice, and marks as we would write them."""
    for line in lines:
        begin = b'{"traceId"'
        first = line.find(begin, line.find(b'"automation.run.id"') - 900)
        end = line.find(begin, first + 1)
        span = line[first : end - 1] if end > 0 else line[first : line.rfind(b"]}]}]}")]
        attributes = span[span.find(b'"attributes":') : span.find(b'"audit.sequence.number"')] + b'"x"}]'
        pair = span[span.find(b'{"key":"audit.statement"') :]
        pair = pair[: pair.find(b'}"}}') + 4]
        for new in (
            b'{"hidden":%b}' % span, b'"%b"' % span, b"[%b]" % span, span + b"," + span, b'{"spans":[%b]}' % span,
            b"{%b}" % attributes, b'{"a":{%b},%b}' % (attributes, span[1:-1]), b'"{%b}"' % attributes, b"",
            span.replace(b'"attributes":[', b'"attributes":[%b,' % pair),
            *(span.replace(b'"status":', b'"%b":[{"traceId":"1","spanId":"2","name":"n"}],"status":' % parts)
              for parts in (b"links", b"events")),
            *(span.replace(b'"%b":[]' % parts, b'"%b":[{"traceId":"1","spanId":"2","name":"n"}]' % parts)
              for parts in (b"links", b"events")),
            span.replace(b'"attributes":', b'"attributes":[],"attributes":'),
            span.replace(b'"name":', b'"name":"x","name":'), span.replace(b'"name":', b'"attributes":[],"name":'),
            span[:-1] + b',"attributes":[]}', span[:-1] + b',"attributes":[%b]}' % pair,
            span.replace(b'"events":[', b'"events":[{%b},' % attributes), span.replace(pair, pair + b"," + pair),
            *(b'{"attributes":[{"key":%d}]}' % (verbatim._MARK + at) for at in (-1, 0, 1, 6)),
            *(span.replace(b'"kind":', b'"kind":%b,"x":' % value) for value in JSON_VALUES[:40]),
            *(span.replace(b'"status":', b'"status":%b,"x":' % value) for value in JSON_VALUES[:40]),
            *(span.replace(b'"intValue":"', b'"intValue":"' + sign) for sign in (b"0", b" ", b"-", b"\xd9\xa1", b"+")),
        ):  # fmt: skip
            agree(line.replace(span, new))
            agree(line.replace(span, new + b"," + span))
            agree(line.replace(b'"resource":{"attributes":[', b'"resource":{"attributes":[%b,' % pair))
            agree(line.replace(b'"resource":{', b'"resource":{%b,' % attributes))


ODD: list[dict[str, Any]] = [
    {"trace_id": 1}, {"name": 5}, {"name": ""}, {"kind": "?"}, {"kind": 1}, {"start": 1}, {"start": "1_0"},
    {"start": "-1"}, {"start": ""}, {"start": "1" * 21}, {"end": str(2**63)}, {"end": "\u0661"},
    {"status": {"code": "OK", "message": "x"}}, {"status": {"code": "ERROR", "message": "x"}},
    {"status": {"code": "?", "message": ""}}, {"status": 5}, {"number": 0}, {"number": "1"}, {"number": True},
    {"number": -1}, {"segment": 5}, {"segment": ""}, {"origin": "another/log"}, {"origin": None}, {"v": 1}, {"v": 3},
    {"v": True}, {"type": "Span"}, {"attributes": []}, {"attributes": {}}, {"attributes": None},
    {"attributes": {"a": None}}, {"attributes": {"a": {"int": "9007199254740993"}}}, {"attributes": {"a": [1, [2]]}},
    {"attributes": {"a": [{"commitment": "A" * 43 + "="}]}}, {"attributes": {"a": -5}}, {"attributes": {"a": -0.0}},
    {"attributes": {"a": 1e16}}, {"attributes": {"a": []}}, {"attributes": {spans.DOCUMENT: "checkpoint"}},
    {"attributes": {spans.STATEMENT: "x"}}, {"attributes": {spans.INDEX: 5}}, {"attributes": {spans.ORIGIN: "x"}},
    {"attributes": {"audit.log.index": "1"}}, {"attributes": {"": ""}}, {"attributes": {"a": "\x00\x7f<>&"}},
    {"attributes": {"audit": {"map": {"outcome": "x"}}}}, {"resource": 5},
    {"resource": {"attributes": {"a": 1}, "schema_url": 5}},
    {"resource": {"attributes": {"a": True}, "schema_url": "u"}},
    {"scope": {"name": "s", "version": "", "attributes": {}}},
    {"scope": {"name": 5, "version": "", "schema_url": "", "attributes": {"a": 1}}}, {"trace_state": "a=b"},
    {"links": 5}, {"events": [{"name": "e", "time": "1", "attributes": {}}]}, {"parent_span_id": "c" * 16},
    {"more": 5},
]  # fmt: skip


@pytest.mark.parametrize("shown", ["as stated", "as a plain span"])
def test_odd_statements_are_judged_as_before(log_folder: Path, shown: str) -> None:
    log = Log(log_folder)
    taken = 0
    for at, more in enumerate(ODD):
        stated, line = plain_span(log)
        odd = {**stated, **more}
        if shown == "as stated":
            written = orjson.dumps(odd, option=orjson.OPT_SORT_KEYS)
            line = as_json.encode(log.directory.origin, [Entry(at, written, b"")]).body
        else:
            line = with_statement(line, stated, odd)
            for name in ("number", "segment", "origin"):
                if name in more:
                    line = line.replace(orjson.dumps(str(stated[name])), orjson.dumps(str(more[name])))
        taken += agree(line)
    assert taken


SHOWN: list[tuple[dict[str, Any], bytes]] = [  # what is stated, and what the span has in its place
    *(({"name": 1}, b'"name":%b' % value) for value in (b"1", b"true", b'"1"', b"1.0")),
    *(({"trace_id": 0}, b'"traceId":%b' % value) for value in (b"0", b"false", b'"0"', b"null")),
    *(({"start": t}, b'"startTimeUnixNano":%b' % orjson.dumps(t)) for t in ("1_0", " 1", "-1", "", 1, "0" * 21)),
    *(({"end": end}, b'"endTimeUnixNano":%b' % orjson.dumps(end)) for end in ("1_0", "+1", "-1", 1, "0" * 21 + "1")),
    *(({"number": n}, b'"intValue":"%d"}}]' % n) for n in (True, 2**53, 2**62)),
]  # fmt: skip


@pytest.mark.parametrize("more", SHOWN)
def test_what_is_odd_in_both_is_judged_as_before(log_folder: Path, more: tuple[dict[str, Any], bytes]) -> None:
    stated, line = plain_span(Log(log_folder))
    odd, shown = more
    name = shown[: shown.find(b":") + 1]
    begin = line.rfind(name)
    end = line.find(b"]" if name == b'"intValue":' else b",", begin) + (name == b'"intValue":')
    agree(with_statement(line[:begin] + shown + line[end:], stated, {**stated, **odd}))


@pytest.mark.parametrize("name", sorted(spans.ADDED))
@pytest.mark.parametrize("value", ["checkpoint", 1])
def test_names_of_ours_in_a_statement_are_judged_as_before(log_folder: Path, name: str, value: Any) -> None:
    _, line = plain_span(Log(log_folder), value)
    assert agree(line) == 1
    assert agree(line.replace(b"audit.a", name.encode())) == 0


def test_an_index_beyond_all_bounds(log_folder: Path) -> None:
    _, line = plain_span(Log(log_folder))
    for index in (b"0", b"9" * 18, b"9" * 19, b"9" * 40, b"00", b"-1", b""):
        place = b'"%b","value":{"intValue":"%%b"' % spans.INDEX.encode()
        changed = line.replace(place % b"1", place % index)
        assert changed != line
        agree(changed)


def test_nobody_fills_the_memory(log_folder: Path) -> None:
    stated, line = plain_span(Log(log_folder))
    long = "x" * 30_000
    assert agree(line) == 1
    kept = len(written._kept), len(verbatim._arounds), written._head.cache_info().currsize
    for name, odd in (
        ("a value", {"attributes": {"audit.a": long}}), ("a name", {"attributes": {long: "a"}}),
        ("a number", {"attributes": {long: 1}}), ("the log", {"origin": long}),
        ("a stream", {"segment": long}),
        ("the resource", {"resource": {"attributes": {"a": long}, "schema_url": ""}}),
    ):  # fmt: skip
        statement = orjson.dumps({**stated, **odd}, option=orjson.OPT_SORT_KEYS)
        agree(as_json.encode(odd.get("origin", "a/log"), [Entry(1, statement, b"")]).body)
        assert (len(written._kept), len(verbatim._arounds), written._head.cache_info().currsize) == kept, name
    for number in range(10_000):
        written._written(("audit.a", f"value {number}"))
    assert len(written._kept) <= 4096


def plain_span(log: Log, value: Any = 5) -> tuple[dict[str, Any], bytes]:
    """What a statement says, and the request with its span."""
    stated = orjson.loads(log.span())
    stated["attributes"] = {"audit.a": value, "audit.outcome": "success"}
    return stated, as_json.encode(log.directory.origin, [Entry(1, orjson.dumps(stated), b"")]).body


def with_statement(line: bytes, stated: dict[str, Any], other: dict[str, Any]) -> bytes:
    """The request with another statement in the place of its own."""
    written = orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
    return line.replace(orjson.dumps(orjson.dumps(stated).decode()), orjson.dumps(written.decode()))


def test_a_tampered_file_fails(directory: Directory, lines: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    for old, new in (
        (b'"audit.outcome","value":{"stringValue":"success"', b'"audit.outcome","value":{"stringValue":"failure"'),
        (b'\\"audit.outcome\\":\\"success\\"', b'\\"audit.outcome\\":\\"failure\\"'),
        (b'"name":"record', b'"name":"another'),
        (b'"stringValue":"pytest"', b'"stringValue":"nobody"'),
        (b'"key":"audit.log.index","value":{"intValue":"2"', b'"key":"audit.log.index","value":{"intValue":"3"'),
    ):  # fmt: skip
        text = b"\n".join(lines)
        assert old in text
        path.write_bytes(text.replace(old, new, 1))
        assert verify_files([path], jobs=1).verdict is Verdict.FAILED, old
