# SPDX-License-Identifier: Apache-2.0
"""What a process writes is hostile input: read many at a time, it becomes what it becomes line by line."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditspan_seal.formats import statement as statements
from auditspan_seal.log import segment
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.intake import Intake

NAME = "0123456789abcdef"


def good(number: object, origin: str, **more: object) -> bytes:
    fields = {
        "v": 2,
        "type": "span",
        "origin": origin,
        "segment": NAME,
        "number": number,
        "attributes": {},
        "span_id": "1",
    }
    return statements.encode(fields | more)


HOSTILE = [
    b"", b" ", b"{}", b"[]", b"null", b"nonsense", b"[" * 300, b"{" * 2000, b'"\xff"', b"\xef\xbb\xbf{}",
    b'{"v":2,"v":2}', b'{ "v":2}', b'{"v":2.0,"type":"span"}', b'{"type":"span","v":true}', b'{"type":"span","v":3}',
    b'{"type":1,"v":2}', b'{"n":9007199254740993,"type":"span","v":2}', b'{"n":9007199254740992,"type":"span","v":2}',
    b'{"n":1e5,"type":"span","v":2}', b'{"n":1e16,"type":"span","v":2}', b'{"n":1e+16,"type":"span","v":2}',
    b'{"type":"span","v":2},{"type":"span","v":2}', b'{"type":"span","v":2', b'"x":{}}', b'{"a":1},{"b"', b":2}",
    b'{"type":"genesis","v":2}', b'{"type":"erasure","v":2}', b'{"type":"revocation","v":2}',
]  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    return open_directory(tmp_path_factory.mktemp("log"), create=True)


@pytest.fixture(autouse=True)
def same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_many_lines_become_what_each_becomes(data: st.DataObject) -> None:
    root = Path("/tmp/unused")  # never opened
    directory = Directory(root, "test/log")
    origin = directory.origin
    lines = []
    for number in range(1, data.draw(st.integers(1, 40)) + 1):
        lines.append(
            data.draw(
                st.sampled_from(HOSTILE)
                | st.just(good(number, origin))
                | st.just(good(number, origin) + b'\t{"a":["",1]}')
                | st.sampled_from(
                    [
                        good(number + 1, origin), good(number, "other"), good(number, origin, segment="other"),
                        good(float(number), origin), good(True, origin),
                        good(str(number), origin), good(number, origin, x=2**60),
                        good(number, origin, x=2**53), good(number, origin, attributes={"a": [1e16, -0.0]}),
                        good(number, origin).replace(b":", b": "),
                    ]
                )
                if data.draw(st.integers(0, 9)) == 0
                else st.just(good(number, origin))
            )
        )  # fmt: skip
    one_by_one, together = Intake(directory, {origin}), Intake(directory, {origin})
    expected = [one_by_one._checked(NAME, number, line) for number, line in enumerate(lines, 1)]
    assert together._all_checked(NAME, 0, lines) == expected


def test_what_only_equals_a_running_number_is_none(directory: Directory) -> None:
    intake = Intake(directory, {directory.origin})
    for number, said in ((1, True), (1, 1.0), (0, False)):
        line = statements.encode(orjson.loads(good(number, directory.origin)) | {"number": said})
        (entry,) = intake._all_checked(NAME, number - 1, [line])
        assert orjson.loads(entry)["type"] == "gap"
    assert intake._all_checked(NAME, 0, [good(1, directory.origin)]) == [good(1, directory.origin)]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_hostile_line_comes_into_the_log_among_good_ones(directory: Directory, hostile: bytes) -> None:
    lines = [good(1, directory.origin), hostile, good(3, directory.origin)]
    entries = Intake(directory, {directory.origin})._all_checked(NAME, 0, lines)
    assert [orjson.loads(entry)["type"] for entry in entries] == ["span", "gap", "span"]


@given(
    st.lists(st.binary(max_size=5000).map(lambda b: b.replace(b"\n", b"")), max_size=20),
    st.integers(1, 25),
    st.binary(max_size=9),
)
@settings(max_examples=200, deadline=None)
def test_lines_are_read_in_one_piece_as_they_are_one_by_one(lines: list[bytes], limit: int, tail: bytes) -> None:
    content = b"".join(line + b"\n" for line in lines) + tail.replace(b"\n", b"") + bytes(4000)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        found, offset = segment.read_lines(Path(file.name), 0, limit)
    expected = []
    for line in lines[:limit]:
        if b"\0" in line:
            break
        expected.append(line)
    assert (found, offset) == (expected, sum(map(len, expected)) + len(expected))
