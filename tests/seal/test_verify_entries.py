# SPDX-License-Identifier: Apache-2.0
"""The quick ways of the verifier say what the thorough ones say, whatever is put before them."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from auditspan_seal import spans
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY
from auditspan_seal.log import reader
from auditspan_seal.verify import otlp, visible
from auditspan_seal.verify.entries import AT_ONCE, Entries
from auditspan_seal.verify.facts import Fact, examine
from auditspan_seal.verify.files import verify_files
from auditspan_seal.verify.items import EntryItem, openings_of
from tests.benchmarks import logs
from tests.seal.verifying import Log

SEED = 6
ORIGIN = "host/log"
VALUES: list[Any] = [
    "text", "", "1", 1, 0, -1, True, False, 1.0, 1.5, None, [], ["a"], [1], [True], {"map": {}}, {"int": "1"},
    {"int": str(2**60)}, {"double": "NaN"}, {"bytes": "AAE="}, {"commitment": "x"}, {"commitment": "A" * 43 + "="}, {},
]  # fmt: skip
NAMES = ["type", "origin", "v", "number", "segment", "end", "attributes", "start", "resource", "scope", "status", "x"]


def plain(number: int) -> dict[str, Any]:
    return {
        "v": 2, "type": "span", "origin": ORIGIN, "segment": "ab", "number": number, "trace_id": "1" * 32,
        "span_id": "2" * 16, "parent_span_id": "", "parent_is_remote": False, "trace_flags": 1, "trace_state": "",
        "name": "work", "kind": "INTERNAL", "start": "1700000000000000001", "end": "1700000000000000005",
        "status": {"code": "UNSET", "message": ""}, "attributes": {"a": "b", "n": 1}, "events": [], "links": [],
        "dropped": {"attributes": 0, "events": 0, "links": 0}, "resource": {"attributes": {"r": "s"}, "schema_url": ""},
        "scope": {"name": "s", "version": "", "schema_url": "", "attributes": {}},
    }  # fmt: skip


def hostile(chance: random.Random, number: int) -> bytes:
    """A line of a log file: most as they should be, the others wrong in one of many ways."""
    fields = plain(number)
    way = chance.randrange(80)
    if way == 0:
        fields[chance.choice(NAMES)] = chance.choice([*VALUES, 2**53, "genesis", "gap", "-1", "9" * 30, "x"])
    elif way == 1:
        fields["attributes"]["c"] = chance.choice(VALUES)
    elif way == 2:
        fields.pop(chance.choice(list(fields)))
    text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    if way == 3:
        return ENTRY + chance.choice(
            [orjson.dumps(fields), text[:-1], text[1:], text + b"," + text, text + b" ", b"", b"7", b"[]", b"null",
             text.replace(b'"n":1', b'"n":1,"n":1'), text.replace(b"{", b"{ ", 1), b"[" * 5000, text[:40] + b"\xff"]
        )  # fmt: skip
    if way == 4:
        return ENTRY + text + b"\t" + chance.choice([b"", b"{}", b'{"c":["AA==","x"]}', b"\xff", b"\t"])
    if way == 5:
        at = chance.randrange(1, len(text))
        return ENTRY + text[:at]  # and the next line the rest, which together would be one
    return ENTRY + text


def said(fact: Fact) -> tuple[Any, ...]:
    more = fact.more
    what = (fact.leaf, fact.origin, fact.index, fact.kind, fact.segment, fact.number, fact.time)
    return (*what, more.statement, more.flaws, more.values, more.present, more.stated)


def test_lines_that_are_read_together_say_what_each_says_by_itself() -> None:
    chance = random.Random(SEED)
    together = 0
    for _ in range(400):
        lines = [hostile(chance, number) + b"\n" for number in range(1, chance.randrange(2, AT_ONCE))]
        entries = Entries(ORIGIN, "log/x")
        entries.read(lines)
        expected = []
        for at, line in enumerate(lines):
            statement, _, private = line[2:-1].partition(b"\t")
            item = EntryItem(statement, ORIGIN, at, None, "log/x", None, openings_of(private))
            expected.append(said(examine(item)))
        found = entries.facts()
        assert list(map(said, found)) == expected
        assert entries.leaves == [fact.leaf for fact in found]
        assert entries.times == [fact.time for fact in found]
        together += len(entries) - len(entries.odd)
    assert together > 1000


def test_a_document_agrees_only_if_nothing_else_would_be_found(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    directory = logs.make_log(tmp_path / "log", 40)
    cases = []
    for block in reader.batches(directory.log):
        for at, (statement, private) in enumerate(zip(block.statements, block.private, strict=True)):
            if b'"type":"span"' in statement:
                request = logs.otlp([spans.document_of(statement, private, directory.origin, block.batch.first + at)])
                cases.append((statements.decode(statement), document(request)))
    quick = 0
    for _ in range(20_000):
        fields, whole = chance.choice(cases)
        fields, seen = copy.deepcopy(fields), copy.deepcopy(whole)
        if chance.random() < 0.9:
            alter(chance, chance.choice([fields, seen]))
        try:
            agrees = fields["type"] == "span" and visible._agrees(fields, seen)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # a statement that lacks what a span must have; that is said before
        found = slowly(fields, seen)
        assert not (agrees and found), found
        quick += agrees
    assert quick > 1500


def slowly(fields: dict[str, Any], seen: dict[str, Any]) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visible, "_agrees", lambda *_: False)
        try:
            return list(visible.mismatches(fields, seen))
        except (FormatError, KeyError, TypeError, ValueError, AttributeError):  # as in facts.examine
            return ["a statement that cannot be read"]


def document(request: dict[str, Any]) -> dict[str, Any]:
    group = request["resourceSpans"][0]
    scope = group["scopeSpans"][0]
    span = scope["spans"][0]
    resource = {"attributes": otlp._attributes(group["resource"]["attributes"]), "schema_url": None}
    return otlp._document(span, otlp._attributes(span["attributes"]) or {}, resource, otlp._scope(scope))


def alter(chance: random.Random, holder: dict[str, Any]) -> None:
    """Change, add or remove one value, at any depth."""
    while True:
        name = chance.choice([*holder, "new", "audit.new", "data_stream", "dropped_events_count"])
        inner = holder.get(name)
        if not isinstance(inner, dict) or not inner or chance.random() < 0.2:
            break
        holder = inner
    if name in holder and chance.random() < 0.3:
        del holder[name]
    else:
        old = holder.get(name)
        near = [str(old), [old], old + 1, float(old), bool(old)] if isinstance(old, int) else []
        holder[name] = chance.choice([*VALUES, *near])


def test_an_attribute_may_have_the_name_of_a_part_of_a_span(tmp_path: Path) -> None:
    log = Log(tmp_path / "log")
    log.add(log.spans(3, attributes={"events": 2, "links": "x"}))
    logs.export(log.directory, tmp_path / "traces.json")
    report = verify_files([tmp_path / "traces.json"], trust=log.trust())
    assert (report.findings, report.records) == ([], 3)
