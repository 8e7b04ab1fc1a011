# SPDX-License-Identifier: Apache-2.0
"""The part in C does what Python's code does, byte for byte, or leaves it to that: of whatever it is given."""

from __future__ import annotations

import base64
import copy
import os
import random
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from auditspan.capture import secret_detection
from auditspan.capture.privacy import Guard
from auditspan_seal import recording, salts
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK
from auditspan_seal.log.interrupted import MARKS
from auditspan_seal.native import NATIVE, Native, Recorder
from auditspan_seal.otlp import as_json
from auditspan_seal.otlp.parcel import Entry, Item
from auditspan_seal.recording import StatementMaker
from auditspan_seal.verify import entries as verify_entries
from auditspan_seal.verify.entries import Entries
from auditspan_seal.verify.facts import Extra
from tests.records import audit_attributes
from tests.seal import test_otlp, test_recording

EXAMPLES = int(os.environ.get("AUDITSPAN_FUZZ_INPUTS", "10000")) // 100
HOSTILE = 40 * EXAMPLES

ROOT = Path(__file__).parent.parent.parent
needs_native = pytest.mark.skipif(NATIVE is None, reason="it is not built here: there is no compiler")


def test_it_is_built_where_there_is_a_compiler() -> None:
    assert NATIVE is not None or os.environ.get("AUDITSPAN_NATIVE") or not (shutil.which("cc") or shutil.which("gcc"))


def test_it_can_be_switched_off() -> None:
    program = "from auditspan_seal.native import NATIVE; print(NATIVE)"
    for value in ("off", "False", "0"):
        environment = {**os.environ, "AUDITSPAN_NATIVE": value}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("None\n", "")


@needs_native
def test_one_that_was_built_of_older_sources_is_not_used() -> None:
    program = """
import auditspan_seal._native as built
built.VERSION -= 1
from auditspan_seal.native import NATIVE
print(NATIVE)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("None\n", "")


@pytest.fixture
def native() -> Native:
    assert NATIVE is not None
    return NATIVE


# -- lines of spans --------------------------------------------------------------------------------------------------
usual_texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
usual_values = (
    st.none() | st.booleans() | usual_texts | st.integers(-(2**53) - 2, 2**53 + 2) | st.lists(usual_texts).map(tuple)
)
usual_attributes = st.dictionaries(
    usual_texts.filter(bool) | st.sampled_from(["audit.actor.id", "client.address", "user.name", "é", "a\tb"]),
    usual_values,
    max_size=30,
)


class Salts:
    """Salts of a line made in C, which draws new ones each time, for Python's code to make the same line with."""

    left: ClassVar[list[str]] = []

    @classmethod
    def of(cls, line: bytes) -> None:
        """Take those of a line."""
        private = line.partition(PRIVATE_MARK)[2]
        cls.left = [salt for salt, _ in orjson.loads(private or b"{}").values()]

    @classmethod
    def take(cls, _: object) -> tuple[bytes, str]:
        written = cls.left.pop(0) if cls.left else "A" * 22 + "=="
        return base64.b64decode(written), written


@pytest.fixture
def same_salts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(salts.Salts, "take", lambda self: Salts.take(self))
    yield


def lines_of(span: ReadableSpan) -> tuple[bytes, bytes]:
    """Return the line of a span made in C where that can be, and that made without."""
    guard = Guard()
    maker = StatementMaker("origin", guard)
    maker.line(span, "segment", 7)  # as for the first record of its kind: names, resource and scope are written once
    made = maker.line(span, "segment", 7)
    Salts.of(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording, "NATIVE", None)
        return made, StatementMaker("origin", guard).line(span, "segment", 7)


@needs_native
@pytest.mark.usefixtures("same_salts")
@settings(max_examples=EXAMPLES)
@given(span=test_recording.spans, attributes=usual_attributes)
def test_a_line_is_the_same(span: ReadableSpan, attributes: dict[str, Any]) -> None:
    for given_ in (span.attributes, attributes):
        other = copy.copy(span)
        other._attributes = BoundedAttributes(attributes={"x": "y"}) if given_ is attributes else given_  # type: ignore[assignment]
        if given_ is attributes:
            other._attributes._dict = dict(attributes)  # type: ignore[union-attr]
        made, plain = lines_of(other)
        assert made == plain


@needs_native
@pytest.mark.usefixtures("same_salts")
def test_the_usual_record_is_made_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("scope", "1")
    made_of = audit_attributes(number=3, some=["a", "b"], yes=True)
    maker = StatementMaker("origin", Guard())
    with (
        tracer.start_as_current_span("outer", attributes=made_of) as outer,
        tracer.start_as_current_span("inner") as inner,
    ):
        inner.set_attributes(made_of)
    readable: list[Any] = [span._readable_span() for span in (inner, outer)]  # type: ignore[attr-defined]
    for span in readable:
        made, plain = lines_of(span)
        assert made == plain
        assert b'"commitment"' in made and PRIVATE_MARK in made
        maker.parts(span, "segment")  # names, resources and scopes are written once in Python
    monkeypatch.setattr(StatementMaker, "_quick", None)
    assert all(maker.parts(span, "segment") is not None for span in readable)


RESOURCE = Resource({"service.name": "s"})
CONTEXTS = [test_recording.SpanContext(2**127 + 5, 2**63 + 7, False)]


@needs_native
def test_a_secret_is_never_let_through(native: Native) -> None:
    secret = "AKIA" + "Z7QRT2W4XK9PLM3V"
    span = ReadableSpan(
        "n", attributes={"note": f"key {secret}", "x": "y"}, context=CONTEXTS[0], start_time=1, end_time=2
    )
    for _ in range(3):
        made, plain = lines_of(span)
        assert made == plain
        assert secret.encode() not in made


@needs_native
def test_a_text_that_is_equal_to_another_is_looked_at(native: Native) -> None:
    class Sly(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash("harmless")

    secret_detection.scrub_text("harmless")
    Guard().attributes({"note": "harmless"}, "span")
    assert parts_of({"note": "harmless"}) is not None
    assert parts_of({"note": Sly("AKIA" + "Z7QRT2W4XK9PLM3V")}) is None


def recorder_of(maker: StatementMaker, **other: Any) -> Recorder:
    """Return a recorder with arguments as a maker of statements gives them, but for some."""
    assert NATIVE is not None
    state = other.pop("state", maker._trace_state)
    arguments = {
        "type": ReadableSpan, "record_id": "audit.record.id", "kinds": recording._KINDS, "codes": recording._CODES,
        "written": maker._names, "fixed": maker._templates, "origin": b'"o"', "version": b"}", "place": None,
    }  # fmt: skip
    recorder = NATIVE.Recorder(*(arguments | other).values())
    recorder.state = state
    return recorder


def parts_of(attributes: dict[str, Any], span: Any = None, **other: Any) -> tuple[bytes, bytes] | None:
    """Have the parts of a span of some attributes made, by a recorder that is as usual but for some arguments."""
    maker = StatementMaker("origin", Guard())
    maker.parts(plain_span(attributes), "segment")  # so that it knows how names, resources and scopes are written
    texts, names, look, personal, alike = Guard().usual() or (set(), set(), str, frozenset(), bool)
    usual = {"texts": texts, "names": names | {tuple(attributes)}, "look": look, "personal": personal, "alike": alike}
    changed = {name: other.pop(name) for name in tuple(other) if name in usual}
    recorder = recorder_of(maker, **other)
    recorder.learn(*(usual | changed).values())
    return recorder.parts(plain_span(attributes) if span is None else span, "segment")


def plain_span(attributes: dict[str, Any]) -> ReadableSpan:
    bounded: Any = BoundedAttributes(attributes=attributes)
    return ReadableSpan("n", attributes=bounded, context=CONTEXTS[0], resource=RESOURCE, start_time=1, end_time=2)


@needs_native
def test_what_it_cannot_take_is_an_exception(native: Native) -> None:
    maker = StatementMaker("origin", Guard())
    for wrong in ((), (1,), (1,) * 8, (1,) * 9, (1,) * 10):
        with pytest.raises(TypeError):
            native.Recorder(*wrong)
    for name in ("type", "record_id", "kinds", "codes", "written", "fixed", "origin", "version", "place"):
        for wrong_ in (1, [b"x"], b"x" if name not in ("origin", "version") else "x"):
            with pytest.raises(TypeError):
                recorder_of(maker, **{name: wrong_})
    recorder = recorder_of(maker)
    for usual in (
        (1,),
        (set(), set(), str, set()),
        (set(), set(), str, None, 1),
        (set(), 1, str, set(), 1),
        (set(), set(), 1, set(), 1),
    ):
        with pytest.raises(TypeError):
            recorder.learn(*usual)
    for arguments in ((), (1,), (1, 2), (plain_span({}), b"segment")):
        with pytest.raises(TypeError):
            recorder.parts(*arguments)
    assert recorder.parts(plain_span({}), "segment") is None  # it has not learned anything
    del recorder.state
    recorder.learn(*(Guard().usual() or ()))
    assert recorder.parts(plain_span({}), "segment") is None
    assert parts_of({"a": "b"}) is not None
    for name, wrong_s in {
        "kinds": ((), ((1,),), ((1, 2),)), "codes": ((), ((1, 2),)), "written": ({}, {"n": 1}), "fixed": ({}, {1: 2}),
        "state": (None, 1, (), (1,), (1, 2), [1, 2]),
    }.items():  # fmt: skip
        for wrong_ in wrong_s:
            assert parts_of({"a": "b"}, **{name: wrong_}) is None


@needs_native
def test_a_place_takes_what_has_room(native: Native, tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        native.Place(1)
    place = native.Place()
    assert (place.segment, place.size, place.lines, place.mapped, place.held) == ("", 0, 0, False, False)
    with pytest.raises(ValueError):
        place.append(b"line\n")
    with open(tmp_path / "file", "w+b") as file:
        file.truncate(8192)
        for wrong in ((-1, 0, 1), (file.fileno(), 5, 4096)):
            with pytest.raises(OSError):
                place.map(*wrong)
        for wrong in ((file.fileno(), -4096, 1), (file.fileno(), 0, 0), (file.fileno(), 2**62, 2**62)):
            with pytest.raises(ValueError):
                place.map(*wrong)
        place.map(file.fileno(), 0, 4096)
        place.append(b"one\n")
        place.append(b"\n")
        with pytest.raises(ValueError):
            place.append(b"x" * 4091 + b"\n")
        place.append(b"x" * 4090 + b"\n")
        assert (place.size, place.lines) == (4096, 3)
        for size in (-1, 2**62, 5000):
            place.size = size
            with pytest.raises(ValueError):
                place.append(b"\n")
        place.size = 4096
        for wrong_ in (b"", "x\n", None):
            with pytest.raises(TypeError):
                place.append(wrong_)
        place.map(file.fileno(), 4096, 4096)
        place.append(b"two\n")
        place.unmap()
        place.unmap()
        with pytest.raises(ValueError):
            place.append(b"\n")
    found = (tmp_path / "file").read_bytes()
    assert found == b"one\n\n" + b"x" * 4090 + b"\n" + b"two\n" + bytes(4092)


@needs_native
@pytest.mark.usefixtures("same_salts")
@given(value=st.text(max_size=300), name=st.sampled_from(["audit.actor.id", "client.address"]))
def test_a_commitment_is_to_the_value(value: str, name: str) -> None:
    made, plain = lines_of(plain_span({name: value}))
    assert made == plain
    fields, _, private = made.partition(PRIVATE_MARK)
    (salt, form) = commitment.decode(private)[name]
    assert commitment.opens(orjson.loads(fields)["attributes"][name]["commitment"], name, form, salt)


@needs_native
def test_a_short_text_that_differs_only_in_digits_is_not_looked_at_again(native: Native) -> None:
    looked: list[str] = []
    maker = StatementMaker("origin", Guard())
    maker.parts(plain_span({"a": "b"}), "segment")
    _, names, look, personal, alike = Guard().usual() or ()
    recorder = recorder_of(maker)
    recorder.learn(set(), names | {("a",)}, lambda text: looked.append(text) or look(text), personal, alike)
    for text in (
        "order 17",
        "order 99",
        "order 123",
        "order 4567890",
        "pin= 17",
        "pin= 18",
        "é 17",
        "é 18",
        "x" * 13 + "77",
    ):
        assert (recorder.parts(plain_span({"a": text}), "segment") is None) == (look(text) is not text)
    assert looked == ["order 17", "order 123", "order 4567890", "pin= 17", "pin= 18", "é 17", "é 18", "x" * 13 + "77"]


@needs_native
def test_no_salt_comes_twice(native: Native) -> None:
    maker = StatementMaker("origin", Guard())
    span = plain_span({"audit.actor.id": "somebody"})
    for _ in range(2):
        maker.parts(span, "segment")
    assert maker.quick is not None

    def drawn() -> list[bytes]:
        assert maker.quick is not None
        parts = [maker.quick.parts(span, "segment") or (b"", b"") for _ in range(50)]
        return [private for _, after in parts for private in [after.partition(PRIVATE_MARK)[2]]]

    reading, writing = os.pipe()
    drawn()
    child = os.fork()
    if child == 0:
        os.write(writing, b"\n".join(drawn()))
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 65536).split(b"\n")
    os.close(reading), os.close(writing)
    every = theirs + drawn()
    assert len(theirs) == 50 and len(set(every)) == 100 and b"" not in every


PARTS = "_attributes _context _end_time _events _kind _links _name _parent _resource _start_time _status"
PARENTS = ((-1, 2, True, 4, 5), (2**130, 2, True, 4, 5))  # of a parent, only the second and the third are asked for
USUAL = {
    "_parent": (None, *PARENTS), "_end_time": (1,), "_start_time": (1,), "_links": ((),), "_events": ((),),
    "_instrumentation_scope": (None,),
}  # fmt: skip


@needs_native
@pytest.mark.parametrize("name", (*PARTS.split(), "_instrumentation_scope"))
def test_a_span_that_is_not_as_it_is_known(name: str) -> None:
    for wrong in (None, 1, -1, 2**70, "x", (), (1, 2, 3, 4, 5), *PARENTS, object(), [1]):
        span = copy.copy(plain_span({"a": "b"}))
        setattr(span, name, wrong)
        made = parts_of({"a": "b"}, span=span)
        assert made is None or wrong in USUAL.get(name, ())
    span = copy.copy(plain_span({"a": "b"}))
    delattr(span, name)
    assert parts_of({"a": "b"}, span=span) is None


@needs_native
def test_an_exception_of_python_goes_through() -> None:
    def fails(*_: Any) -> Any:
        raise LookupError("as asked for")

    person = {"audit.actor.id": "x"}
    assert parts_of(person) is not None
    with pytest.raises(LookupError):
        parts_of(person, look=fails, texts=set())
    with pytest.raises(LookupError):
        parts_of({"a": "b 17"}, alike=fails)


@needs_native
def test_attributes_that_change_meanwhile() -> None:
    span: Any = plain_span({f"n{i}": f"value {i}" for i in range(50)})

    def look(text: str) -> str:
        span._attributes._dict.clear()
        return text

    found = parts_of({f"n{i}": f"value {i}" for i in range(50)}, span=span, look=look, texts=set())
    assert found is not None and found[0].count(b"value ") == 50


# -- requests --------------------------------------------------------------------------------------------------------
def requests_of(items: list[Item], origin: str = test_otlp.ORIGIN) -> tuple[bytes, bytes]:
    """Return a request made in C where that can be, and the same made without."""
    found = [as_json.encode(origin, items)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(as_json, "NATIVE", None)
        found.append(as_json.encode(origin, items))
    assert found[0].spans == found[1].spans and found[0].left_out == found[1].left_out
    return found[0].body, found[1].body


@needs_native
@settings(max_examples=EXAMPLES)
@given(found=st.lists(test_otlp.entries(), max_size=6))
def test_a_request_says_the_same(found: list[tuple[bytes, bytes]]) -> None:
    made, plain = requests_of([Entry(index, *pair) for index, pair in enumerate(found)])
    # Spans of one resource come together in both; which comes first among resources may be another order.
    assert test_otlp.content(test_otlp.parsed(made)) == test_otlp.content(test_otlp.parsed(plain))
    if len(found) == 1:
        assert made == plain


def recorded(count: int = 40) -> list[bytes]:
    """Lines of a segment as the recorder makes them, one after the other."""
    maker = StatementMaker("origin", Guard())
    found = []
    for number in range(1, count + 1):
        attributes = audit_attributes(number=number, text=f'"ü\\{number}\n', some=["a", "b"], note="x" * number)
        span = ReadableSpan("name", attributes=attributes, context=CONTEXTS[0], start_time=10**18, end_time=10**18 + 1)
        found.append(maker.line(span, "segment", number))
    return found


def mutated(line: bytes, dice: random.Random) -> bytes:
    """Change something at random: a byte, a piece, or two pieces for each other."""
    text = bytearray(line)
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        at, to = sorted((dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)))
        kind = dice.randrange(7)
        if kind == 0 and text:
            text[at % len(text)] = dice.randrange(256)
        elif kind == 1 and text:
            text[at % len(text)] = dice.choice(b'"\\{}[]:,0123456789-.eEu \ttfn\x80\xff')
        elif kind == 2:
            del text[at : min(to, at + dice.randrange(1, 12))]
        elif kind == 3:
            text[at:at] = text[at : min(to, at + 40)]
        elif kind == 4:
            text[at:at] = dice.choice(
                (b"\\u0041", b"\\n", b'"', b"\\", b" ", b"1e5", b"-0", b"\xc3\xbc", b"\xed\xa0\x80", b"\0")
            )
        elif kind == 5:
            del text[at:]
        else:
            text[at:at] = dice.choice(
                (b'"a":1,', b'"number":3,', b"{}", b"[[[[", b'{"commitment":"x"}', b"null", b"99999999999999999999")
            )
        if not text:
            text += b"{"
    return bytes(text)


@needs_native
@pytest.mark.parametrize("seed", range(4))
def test_hostile_entries_are_sent_as_without_it(seed: int) -> None:
    dice = random.Random(seed)
    lines = recorded()
    for _ in range(HOSTILE):
        line = mutated(dice.choice(lines), dice)
        statement, _, private = line.partition(PRIVATE_MARK)
        made, plain = requests_of([Entry(5, statement, private)], "origin")
        if made != plain:  # only what is not canonical may be written otherwise, and says the same
            with pytest.raises(FormatError):
                statements.decode(statement)
            assert orjson.loads(made) == orjson.loads(plain), line


@needs_native
@pytest.mark.parametrize("seed", range(4))
def test_only_what_is_canonical_and_in_its_place_is_taken_at_once(native: Native, seed: int) -> None:
    dice = random.Random(seed)
    lines = recorded()
    taken = 0
    for _ in range(HOSTILE):
        number = dice.randrange(len(lines))
        line = mutated(lines[number], dice)
        count, spans = native.usual([line], b'"segment"', number + 1, b'"origin"', MARKS)
        if count:
            taken += 1
            fields = statements.decode(line.partition(PRIVATE_MARK)[0])
            assert (fields["type"], fields["segment"], fields["number"]) == ("span", "segment", number + 1)
            assert fields["origin"] == "origin" and fields["span_id"].encode() == spans
    assert taken  # some changes are in a value


@needs_native
def test_whole_lines_are_taken_at_once(native: Native) -> None:
    lines = recorded()
    assert native.usual(lines, b'"segment"', 1, b'"origin"', MARKS) == (40, b"8000000000000007" * 40)
    assert native.usual(lines, b'"segment"', 2, b'"origin"', MARKS)[0] == 0
    assert native.usual(lines, b'"another"', 1, b'"origin"', MARKS)[0] == 0
    assert native.usual(lines, b'"segment"', 1, b'"another"', MARKS)[0] == 0
    assert native.usual([*lines[:7], lines[8]], b'"segment"', 1, b'"origin"', MARKS)[0] == 7
    for mark in MARKS:
        begun = lines[3].replace(b'"data.update"', mark)
        assert native.usual([*lines[:3], begun], b'"segment"', 1, b'"origin"', MARKS)[0] == 3
        assert native.usual([*lines[:3], begun], b'"segment"', 1, b'"origin"', ())[0] == 4


def judged(lines: list[bytes]) -> list[tuple[Any, ...]]:
    """Return what the verifier knows of lines of a log file."""
    entries = Entries("origin", "log/0")
    entries.read([b"e " + line + b"\n" for line in lines])
    return [
        (fact.leaf, fact.origin, fact.kind, fact.segment, fact.number, fact.time, told(fact.extra))
        for fact in entries.facts()
    ]


def told(extra: Extra | None) -> Any:
    return extra and (extra.present, extra.flaws, extra.values, extra.stated, extra.shown, extra.span_id)


@needs_native
@pytest.mark.parametrize("seed", range(4))
def test_the_verifier_judges_hostile_lines_as_without_it(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    dice = random.Random(seed)
    lines = recorded()
    assert all(PRIVATE_MARK in line for line in lines)
    plain = 0
    for _ in range(HOSTILE // 4):
        some = [mutated(line, dice) if dice.random() < 0.7 else line for line in dice.sample(lines, 4)]
        some = [line for line in some if b"\n" not in line]
        with monkeypatch.context() as patch:
            made = judged(some)
            patch.setattr(verify_entries, "NATIVE", None)
            assert judged(some) == made, some
        plain += sum(kind == "span" for _, _, kind, *_ in made)
    assert plain > HOSTILE // 4


@needs_native
def test_the_verifier_takes_plain_lines_at_once(native: Native) -> None:
    lines = recorded()
    hashed, segments, numbers, times, personal = native.plain(lines, 0, b'"origin"')
    assert hashed == [b"\0" + line.partition(PRIVATE_MARK)[0] for line in lines]
    assert (segments, numbers) == (["segment"] * 40, list(range(1, 41))) and times == [10**18 + 1] * 40
    assert personal == [(at, ("audit.actor.id",), "8000000000000007") for at in range(40)]
    assert len(native.plain(lines, 7, b'"origin"')[0]) == 33
    statement, _, private = lines[0].partition(PRIVATE_MARK)
    salted = orjson.loads(private)
    value = salted["audit.actor.id"]
    for wrong in (
        statement, statement + b"\t", statement + b"\t{}", lines[0].replace(value[1].encode(), b"else"),
        statement + b"\t" + orjson.dumps({"other": value}), statement + b"\t" + orjson.dumps(salted | {"other": value}),
        statement + b"\t" + orjson.dumps({"audit.actor.id": [value[0].replace("==", "=="[:1]), value[1]]}),
        statement + b"\t" + orjson.dumps({"audit.actor.id": [value[0], [value[1]]]}),
        lines[0].replace(b'"number":1,', b'"number":0,'), lines[0].replace(b'"end":"1', b'"end":"99999'),
        lines[0].replace(b'"v":2', b'"v":3'), lines[0].replace(b'"type":"span"', b'"type":"gap"'),
    ):  # fmt: skip
        assert wrong != lines[0]
        assert [len(column) for column in native.plain([lines[1], wrong, lines[2]], 0, b'"origin"')[:4]] == [1] * 4
    for arguments in ((), (1, 0, b"x"), (lines, 0, "x"), (lines, None, b"x")):
        with pytest.raises(TypeError):
            native.plain(*arguments)
    assert native.plain([1, lines[0]], 0, b'"origin"') == ([], [], [], [], [])


@needs_native
def test_many_entries_of_several_resources_keep_their_order() -> None:
    lines = [line.partition(PRIVATE_MARK) for line in recorded()]
    items: list[Item] = []
    for index, (statement, _, private) in enumerate(lines):
        if index % 7 == 3:
            statement = statement.replace(b'"scope":{', b'"scope":{"a":1.5,')  # not canonical, and not known
        if index % 5 == 4:
            statement = statement.replace(b'"service.name":"', b'"service.name":"other')
        items.append(Entry(index, statement, private))
    made, plain = requests_of(items, "origin")
    assert orjson.loads(made) == orjson.loads(plain)


@pytest.mark.slow
@needs_native
@pytest.mark.timeout(600)
def test_under_the_sanitizers(tmp_path: Path) -> None:
    """The same hostile input once more, with a build that ends at the first byte read or written out of bounds."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no compiler with sanitizers here")
    package = tmp_path / "auditspan_seal"
    shutil.copytree(
        ROOT / "exporters" / "auditspan_seal", package, ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    subprocess.run(
        [
            compiler, "-g", "-O1", "-fPIC", "-shared", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
            f"-I{sysconfig.get_path('include')}", str(ROOT / "exporters/native/module.c"),
            "-o", str(package / "_native.abi3.so"),
        ],
        check=True,
    )  # fmt: skip
    library = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "AUDITSPAN_FUZZ_INPUTS": "3000",  # each costs many times more here
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter itself never frees what it keeps to its end
        "PYTHONMALLOC": "malloc",  # so that each object of Python's has bounds of its own
    }
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", __file__,
            "-k", "not sanitizers and not switched",
        ],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "skipped" not in done.stdout
