# SPDX-License-Identifier: Apache-2.0
"""Hostile input through every parser: one typed error or a right answer, in bounded time and memory.

The number of inputs, over all parsers together, is ``AUDITSPAN_FUZZ_INPUTS`` (default 250,000). A million, or more::

    make fuzz
    make fuzz INPUTS=20000000 SEED=7

prints for each parser how many inputs it saw, how many it took, and the worst time and memory.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import hashlib
import importlib
import json
import logging
import os
import random
import resource
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from auditspan_seal import spans
from auditspan_seal.delivery import Delivery
from auditspan_seal.errors import AuditspanError, FormatError, KeyFileError, SourceError
from auditspan_seal.formats import batch as batches
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import TlogProof, inclusion
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.elasticsearch import verify_documents
from auditspan_seal.verify.proof import PROOF_SUFFIX, STATEMENT_SUFFIX, VALUES_SUFFIX, verify_proof
from auditspan_seal.verify.report import Verdict
from tests.seal.documents import hits_of
from tests.seal.mutator import OBJECTS, Mutator, other_object
from tests.vectors.builder import ORIGIN, VALUES, Builder, signer, small_log, span
from tests.vectors.generate import rotated

INPUTS = int(os.environ.get("AUDITSPAN_FUZZ_INPUTS", "250000"))
SEED = int(os.environ.get("AUDITSPAN_FUZZ_SEED", "1"))
SLOWEST = 0.5  # seconds of processor time for one mutated input (at most 20,000 bytes)
SMALL = 24 * 1024 * 1024  # bytes of memory for one mutated input
MEMORY = 110  # bytes of memory for a byte of the worst input: 85 in the JSON library, the rest for what is made of it

Parse = Callable[[bytes], object]
"""Takes an input; raises nothing but what a parser may raise; asserts that what it took comes back."""


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        seeds: good inputs.
        make: returns the parser; it may use a folder of its own.
        share: of all inputs, relative to the others.
        errors: what it may raise.
    """

    seeds: Callable[[], list[bytes]]
    make: Callable[[Path], Parse]
    share: float = 1.0
    errors: tuple[type[AuditspanError], ...] = (FormatError,)


@functools.cache
def log() -> Builder:
    return small_log()


def vkey() -> VerifierKey:
    return log().signers[0].verifier_key


def loose_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")  # bytes that are no UTF-8 become half surrogate pairs


# -- the parsers ----------------------------------------------------------------------------------------------


def note(data: bytes) -> object:
    text = loose_text(data)
    parsed = Note.parse(text)
    assert str(parsed) == text
    assert parsed.signed_by(vkey()) in (True, False, None)
    return parsed


def key(data: bytes) -> object:
    text = loose_text(data)
    parsed = VerifierKey.parse(text)
    assert str(parsed) == text.strip(" \t\r\n")
    assert parsed.verifies(b"", bytes(64)) in (True, False)
    return parsed


def checkpoint(data: bytes) -> object:
    text = loose_text(data)
    parsed = Checkpoint.parse(text)
    assert text.startswith(parsed.text())
    return parsed


def statement(data: bytes) -> object:
    fields = statements.decode(data)
    for item in fields.values():
        if isinstance(item, dict):
            for form in item.values():
                plain(form)
    assert statements.encode(fields).replace(b"e+", b"e") == data.replace(b"e+", b"e")
    return fields


def plain(form: Any) -> None:
    try:
        item = statements.plain(form)
    except FormatError:
        return
    if b"commitment" not in (spelt := statements.encode({"x": form})):
        assert statements.encode({"x": statements.value(item)}) == spelt


def batch(data: bytes) -> object:
    parsed = Batch.parse(data)
    assert Batch.parse(parsed.line()) == parsed
    for use in (parsed.checkpoint, parsed.tree):
        with contextlib.suppress(FormatError):
            use()
    return parsed


def hashes(data: bytes) -> object:
    text = loose_text(data)
    found = batches.split(text)
    assert batches.join(found) == text
    return found


def private(data: bytes) -> object:
    found = commitment.decode(data)
    assert commitment.decode(commitment.encode(found)) == found
    for name, (salt, value) in found.items():
        assert commitment.opens("x", name, value, salt) is False
        assert len(commitment.without(data, {name})) == len(data)
    return found


def proof(data: bytes) -> object:
    text = loose_text(data)
    parsed = TlogProof.parse(text)
    assert str(parsed) == text
    parsed.includes(leaf_hash(b""))
    return parsed


def log_file(folder: Path) -> Parse:
    path = folder / f"{0:020d}.log"

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        found = list(reader.blocks(folder))
        whole = sum(len(line) for block in found if isinstance(block, reader.Block) for line in block.statements)
        assert whole <= len(data)
        return found

    return parse


def segment_file(folder: Path) -> Parse:
    path = folder / "x.seg"

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        lines, offset = segment.read_lines(path, 0, 512)
        assert b"".join(line + b"\n" for line in lines) == data[:offset]
        return [statements.decode(line.partition(b"\t")[0]) for line in lines]

    return parse


def delivery(folder: Path) -> Parse:
    path, empty = folder / "delivery.json", folder / "log"
    empty.mkdir()
    (empty / f"{0:020d}.log").write_bytes(b"E x\n")

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        loaded = Delivery.load(path)
        assert type(loaded.size) is int
        assert isinstance(loaded.since, (int, float, type(None)))
        list(reader.blocks(empty, loaded.cursor))
        loaded.save(path)
        return loaded

    return parse


def key_file(folder: Path) -> Parse:
    path = folder / "key"

    def parse(data: bytes) -> object:
        path.write_bytes(data)
        return read_verifier_key(path)

    return parse


def document(data: bytes) -> object:
    content, _, beside = data.partition(b"\t")
    # What cannot be sent would hold back everything after it: so it must be known before.
    return encode_spans([spans.document_of(content, beside, ORIGIN, 1)]).SerializeToString()


def directory(folder: Path) -> Parse:
    log().write(folder / "x")
    opened = open_directory(folder / "x")
    honest = {name: (opened.log / name).read_bytes() for name in reader.files(opened.log)}
    names, at = sorted(honest), 0

    def parse(data: bytes) -> object:
        nonlocal at
        at += 1
        name = names[at % len(names)]
        (opened.log / name).write_bytes(data)
        report = verify_directory(opened, vkey())
        if report.verdict is Verdict.PASSED:  # then nothing is altered, but at most a tail cut off at a checkpoint
            left = [item for block in reader.batches(opened.log) for item in block.statements]
            assert left == log().statements[: len(left)], data
        (opened.log / name).write_bytes(honest[name])
        return report.as_json()

    return parse


def proof_files(folder: Path) -> Parse:
    places = [folder / f"x{suffix}" for suffix in (PROOF_SUFFIX, STATEMENT_SUFFIX, VALUES_SUFFIX)]

    def parse(data: bytes) -> object:
        for path, part in zip(places, data.split(b"\x1e", 2), strict=False):
            path.write_bytes(part)
        return verify_proof(places[0], vkey()).as_json()

    return parse


# -- good inputs ----------------------------------------------------------------------------------------------


def statement_seeds() -> list[bytes]:
    minimal = [
        statements.encode({"v": 2, "type": "x", "attributes": {"a": statements.value(item)}})
        for item in VALUES.values()
    ]
    huge = [
        b'{"attributes":{"a":1e16,"b":[-1.5e300]},"type":"x","v":2}',
        b'{"attributes":{"a":1e+16},"type":"x","v":2}',
    ]
    return log().statements + minimal + huge


def lines_of_log() -> list[bytes]:
    return [line for lines in log().files.values() for line in lines]


def document_seeds() -> list[bytes]:
    entries = [line[2:-1] for line in lines_of_log() if line.startswith(b"E ")]
    rich = statements.encode(span(1, attributes=statements.values(VALUES)))
    return [*entries, rich]


def private_seeds() -> list[bytes]:
    return [line.partition(b"\t")[2][:-1] for line in lines_of_log() if b"\t" in line] + [
        b'{"a":["AAAAAAAAAAAAAAAAAAAAAA==",[1,"x",{"int":"9007199254740993"}]],"b":["",null]}     '
    ]


def proof_seeds() -> list[bytes]:
    leaves = [leaf_hash(item) for item in log().statements]
    proofs = [TlogProof(index, inclusion(leaves, index), log().notes[-1], b"x" * index) for index in range(len(leaves))]
    return [str(item).encode() for item in proofs]


def proof_file_seeds() -> list[bytes]:
    return [
        b"\x1e".join([text, log().statements[index], private_seeds()[0]]) for index, text in enumerate(proof_seeds())
    ]


def key_seeds() -> list[bytes]:
    return [f"{signer('log', name).verifier_key}\n".encode() for name in ("x", ORIGIN, "ключ")]


def key_file_seeds() -> list[bytes]:
    pem = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="
    return [*key_seeds(), f"-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n".encode()]


def delivery_seeds() -> list[bytes]:
    name = f"{0:020d}.log"
    return [
        json.dumps({"file": name, "offset": 2, "size": 9, "since": 1.5, "error": "x"}).encode(),
        json.dumps({"file": "", "offset": 0, "size": 0, "since": None, "error": None}).encode(),
    ]


def joined_seeds() -> list[bytes]:
    return [batches.join(tuple(bytes([at]) * 32 for at in range(count))).encode() for count in (0, 1, 2, 5)]


def fixed(parse: Parse) -> Callable[[Path], Parse]:
    return lambda folder: parse


TARGETS = {
    "Note.parse": Target(lambda: [item.encode() for item in log().notes], fixed(note), 1.5),
    "VerifierKey.parse": Target(key_seeds, fixed(key)),
    "Checkpoint.parse": Target(lambda: [item.partition("\n\n")[0].encode() + b"\n" for item in log().notes], fixed(checkpoint)),
    "statement.decode, plain": Target(statement_seeds, fixed(statement), 3),
    "Batch.parse": Target(lambda: [line[:-1] for line in lines_of_log() if line.startswith(b"C ")], fixed(batch), 1.5),
    "batch.split": Target(joined_seeds, fixed(hashes)),
    "commitment.decode, without, opens": Target(private_seeds, fixed(private), 1.5),
    "TlogProof.parse": Target(proof_seeds, fixed(proof), 1.5),
    "log.reader.blocks": Target(lambda: [b"".join(lines) for lines in log().files.values()], log_file, 0.4),
    "segment.read_lines": Target(lambda: [line[2:] for line in lines_of_log() if line.startswith(b"E ")], segment_file, 0.4),
    "Delivery.load": Target(delivery_seeds, delivery, 0.2),
    "read_verifier_key": Target(key_file_seeds, key_file, 0.2, (KeyFileError,)),
    "spans.document_of": Target(document_seeds, fixed(document), 0.4),
    "verify_proof": Target(proof_file_seeds, proof_files, 0.1, (SourceError,)),
    "verify_directory": Target(lambda: [b"".join(lines) for lines in log().files.values()], directory, 0.08),
}  # fmt: skip
DOCUMENTS = 0.08  # share of verify_documents, which takes parsed JSON


def optional_targets() -> dict[str, Target]:
    """Parsers of witnesses and key changes, as far as they are there."""
    found: dict[str, Target] = {}
    for name, (module, seeds, make) in OPTIONAL.items():
        try:
            loaded: Any = importlib.import_module(f"auditspan_seal.formats.{module}")
        except ModuleNotFoundError:
            continue
        found[name] = Target(seeds, fixed(make(loaded)))
    return found


def key_changes() -> list[bytes]:
    key = signer("log").verifier_key
    revocation = {
        "v": 2, "type": "revocation", "origin": ORIGIN, "index": 3, "key": str(key), "since": "5", "reason": "stolen",
        "certificate": base64.b64encode(bytes(64)).decode(), "time": "7", "attributes": {},
    }  # fmt: skip
    rotations = [item for item in rotated().statements if b'"type":"rotation"' in item]
    return [*rotations, statements.encode(revocation)]


def changed_key(module: Any) -> Parse:
    def parse(data: bytes) -> object:
        fields = statements.decode(data)
        kind = module.Revocation if fields["type"] == "revocation" else module.Rotation
        return kind.parse(fields).text()

    return parse


def witness_key() -> str:
    public = b"\x04" + signer("witness").verifier_key.public
    name = "witness.example"
    key_id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
    return f"{name}+{key_id.hex()}+{base64.b64encode(public).decode()}"


def policies() -> list[bytes]:
    lines = [
        f"log {vkey()} https://log.example/",
        f"witness w {witness_key()} https://w.example/",
        "group g 1 w",
        "quorum g",
    ]
    return ["\n".join(lines).encode() + b"\n", b"# nothing\nquorum none\n"]


def requests() -> list[bytes]:
    proofs = [b"", base64.b64encode(bytes(32)) + b"\n", (base64.b64encode(bytes(32)) + b"\n") * 5]
    return [b"old %d\n%s\n%s" % (number, item, log().notes[-1].encode()) for number, item in enumerate(proofs)]


def cosigned(module: Any) -> Parse:
    key = module.CosignerKey.parse(witness_key())

    def parse(data: bytes) -> object:
        module.cosigned(Note.parse(loose_text(data)), key)
        return str(Note.parse(loose_text(data)))

    return parse


def cosigner_key(module: Any) -> Parse:
    return lambda data: str(module.CosignerKey.parse(loose_text(data)))


Optional = tuple[str, Callable[[], list[bytes]], Callable[[Any], Parse]]
OPTIONAL: dict[str, Optional] = {
    "keychange.Rotation, Revocation": ("keychange", key_changes, changed_key),
    "cosignature.CosignerKey.parse": ("cosignature", lambda: [witness_key().encode()], cosigner_key),
    "cosignature.cosigned": ("cosignature", lambda: [item.encode() for item in log().notes], cosigned),
    "witness_policy.Policy.parse": ("witness_policy", policies, lambda module: module.Policy.parse),
    "add_checkpoint.Request.parse": ("add_checkpoint", requests, lambda module: module.Request.parse),
    "add_checkpoint.parse_size": ("add_checkpoint", lambda: [b"0\n", b"4711\n"], lambda module: module.parse_size),
    "add_checkpoint.parse_signatures": (
        "add_checkpoint",
        lambda: [item.rpartition("\n\n")[2].encode() for item in log().notes],
        lambda module: lambda data: str(module.parse_signatures(data, "x\n")),
    ),
}
TARGETS |= optional_targets()


# -- the run --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder in memory where there is one: a million files need not reach a disk."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="auditspan-fuzz-", dir=memory) as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """OpenTelemetry logs what it cannot encode, a traceback each time."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(name: str, inputs: Iterator[Any], count: int, parse: Callable[[Any], object], errors: Any) -> None:
    """Parse many inputs; say which one was not taken as it should."""
    taken, slowest, began = 0, 0.0, time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(count):
        data = next(inputs)
        before = time.thread_time()
        try:
            parse(data)
            taken += 1
        except errors as error:
            assert isinstance(error.what, str) and len(error.what) < 1000, data
        except Exception as error:
            pytest.fail(f"{name}, input {number} of seed {SEED}: {type(error).__name__}: {error}\n{str(data)[:3000]}")
        slowest = max(slowest, time.thread_time() - before)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(
        f"\n{name}: {count} inputs, {taken} taken, {count - taken} refused, {time.monotonic() - began:.1f} s, "
        f"slowest {slowest * 1000:.1f} ms, process grew by {grown / 1024:.1f} MiB",
        end="",
    )
    assert slowest < SLOWEST
    assert grown < 256 * 1024  # KiB
    assert taken or count < 1000, "a run in which nothing is taken tests little"


def share_of(target: float) -> int:
    return max(1, round(INPUTS * target / (sum(item.share for item in TARGETS.values()) + DOCUMENTS)))


def peak(parse: Callable[[Any], object], data: Any, errors: Any) -> int:
    """Return the bytes that parsing takes at its peak."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with contextlib.suppress(errors):
            parse(data)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_every_parser_gives_a_typed_error_or_a_right_answer(name: str, folder: Path, tmp_path: Path) -> None:
    target = TARGETS[name]
    own = Path(tempfile.mkdtemp(dir=folder))
    mutator = Mutator(SEED, target.seeds())
    parse = target.make(own)
    for data in target.seeds():
        parse(data)  # what is good is taken
    count = share_of(target.share)
    run(name, iter(mutator.next, None), count, parse, target.errors)
    worst = max(peak(parse, mutator.next(), target.errors) for _ in range(min(count, 300)))
    print(f", at most {worst / 2**20:.2f} MiB for an input", end="")
    assert worst < SMALL


@pytest.mark.slow
def test_hostile_documents_give_findings_not_exceptions(folder: Path) -> None:
    path = folder / "documents"
    log().write(path)
    honest = hits_of(open_directory(path))
    assert verify_documents(honest, "x", vkey()).verdict is Verdict.PASSED
    chance = random.Random(SEED)
    kept = copy.deepcopy(honest)

    def hostile() -> Iterator[list[dict[str, Any]]]:
        while True:
            hits = list(honest)
            for _ in range(1 + int(chance.expovariate(1))):
                at = chance.randrange(len(hits))
                # A hit is what the client makes: an object with an ID. What is in it, is anybody's.
                hits[at] = {**hits[at], "_source": other_object(chance, hits[at]["_source"])}
                if chance.random() < 0.1:
                    hits[at] = {**hits[at], "_source": {"attributes": chance.choice(OBJECTS)}}
            yield hits

    def parse(hits: list[dict[str, Any]]) -> object:
        report = verify_documents(hits, "x", vkey())
        return json.dumps(report.as_json())

    count = share_of(DOCUMENTS)
    run("verify_documents", hostile(), count, parse, (SourceError,))
    assert honest == kept


# -- the largest inputs ---------------------------------------------------------------------------------------

CAP = statements.MAX_SIZE
LARGE: dict[str, list[Callable[[int], bytes]]] = {
    "statement.decode, plain": [
        lambda cap: b'{"a":[' + b"[]," * (cap // 3 - 20) + b'1],"type":"x","v":2}',
        lambda cap: b'{"a":"' + b"a" * (cap - 40) + b'","type":"x","v":2}',
        lambda cap: b'{"attributes":{"a":{"int":"' + b"9" * (cap - 80) + b'"}},"type":"x","v":2}',
        lambda cap: b'{"attributes":{"a":{"bytes":"' + b"A" * (4 * (cap // 5)) + b'"}},"type":"x","v":2}',
        lambda cap: b'{"a":' + b"9" * (cap - 40) + b',"type":"x","v":2}',
        lambda cap: b'{"a":0.' + b"9" * (cap - 40) + b',"type":"x","v":2}',
        lambda cap: b'{"a":1e' + b"9" * (cap - 40) + b',"type":"x","v":2}',
        lambda cap: b"[" * cap,
        lambda cap: b'{"":' * (cap // 4),
        lambda cap: b'{"a":[' + b"1e16," * (cap // 5 - 20) + b'1],"type":"x","v":2}',
        lambda cap: b"{" + b",".join(b'"%07d":0' % number for number in range(cap // 14)) + b',"type":"x","v":2}',
    ],
    "Batch.parse": [
        lambda cap: b'C {"note":"' + b"a" * (cap - 100) + b'","first":0,"frontier":"","leaves":"","segments":{}}',
        lambda cap: b'C {"note":"","first":0,"frontier":"","leaves":"' + b"A" * (cap - 100) + b'","segments":{}}',
        lambda cap: b'C {"note":"","first":0,"frontier":"' + b"A" * (4 * 700_000) + b'","leaves":"","segments":{}}',
        lambda cap: b'C {"note":"","first":0,"frontier":"","leaves":"","segments":{'
        + b",".join(b'"%d":[0,0]' % number for number in range(cap // 19))
        + b"}}",
        lambda cap: b'C {"first":' + b"[" * (cap - 50),
    ],
    "batch.split": [lambda cap: b"A" * cap, lambda cap: b"A" * (4 * 699_050) + b"AA==", lambda cap: "\u0661".encode() * (cap // 2)],
    "commitment.decode, without, opens": [
        lambda cap: b"{" + b",".join(b'"%d":["",0]' % number for number in range(100)) + b" " * (cap // 2) + b"}",
        lambda cap: b'{"a":["",[' + b"[]," * (cap // 12) + b"1]]}",
        lambda cap: b" " * cap,
        lambda cap: b'{"a":["' + b"A" * (cap - 40) + b'",1]}',
    ],
    "Note.parse": [
        lambda cap: b"a\n" * 499_000 + b"\n" + "— x AAAAAAAA\n".encode(),
        lambda cap: b"a\n\n" + "— x AAAAAAAA\n".encode() * 70_000,
        lambda cap: b"\n" * 999_999,
        lambda cap: b"a\n\n" + "— ".encode() + b"x" * 900_000 + b" AAAAAAAA\n",
        lambda cap: b"a\n\n" + "— x ".encode() + b"A" * 900_000 + b"\n",
        lambda cap: "— ".encode() * 499_000 + b"\n\n",
    ],
    "VerifierKey.parse": [lambda cap: b"+" * cap, lambda cap: b"x" * cap, lambda cap: b"x+00000000+" + b"A" * 9_000],
    "Checkpoint.parse": [lambda cap: b"a\n" + b"9" * 900_000 + b"\n", lambda cap: b"\n" * 1_000_000, lambda cap: b"a\n1\n" + b"A" * 900_000],
    "TlogProof.parse": [
        lambda cap: b"c2sp.org/tlog-proof@v1\nindex 0\n" + b"AAAA\n" * 590_000 + b"\n" + log().notes[0].encode(),
        lambda cap: b"c2sp.org/tlog-proof@v1\nextra " + b"A" * 2_900_000 + b"\nindex 0\n\n" + log().notes[0].encode(),
        lambda cap: b"c2sp.org/tlog-proof@v1\nindex " + b"9" * 2_900_000 + b"\n\n" + log().notes[0].encode(),
    ],
    "log.reader.blocks": [lambda cap: b"E " + b"x" * cap + b"\n", lambda cap: b"E \n" * (cap // 16), lambda cap: b"\n" * 1_000_000],
    "segment.read_lines": [lambda cap: b"\n" * (cap // 16), lambda cap: b"x" * cap],
    "Delivery.load": [lambda cap: b"[" * cap, lambda cap: b'{"file":"","offset":0,"size":"' + b"9" * cap + b'"}'],
    "spans.document_of": [
        lambda cap: statements.encode(span(1, trace_state="a" * 5_000_000)),
        lambda cap: statements.encode(span(1, trace_state="a=b," * 1_000_000)),
        lambda cap: statements.encode(span(1, trace_id="f" * 5_000_000)),
        lambda cap: statements.encode(span(1, start="9" * 5_000_000)),
        lambda cap: statements.encode(span(1, events=[[]] * (cap // 16))),
    ],
}  # fmt: skip


PARSERS: dict[str, Parse] = {
    "statement.decode, plain": lambda data: [
        statements.plain(item) for item in statements.decode(data).get("attributes", {}).values()
    ],
    "Batch.parse": Batch.parse,
    "commitment.decode, without, opens": lambda data: [
        len(commitment.decode(data)),
        len(commitment.without(data, {"a"})),
    ],
    "spans.document_of": lambda data: spans.document_of(data, b"", ORIGIN, 1),
}
"""The parsers alone, without what the tests above do with what they return."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "cases"), LARGE.items(), ids=list(LARGE))
def test_the_largest_inputs_take_bounded_time_and_memory(
    name: str, cases: list[Callable[[int], bytes]], tmp_path: Path
) -> None:
    """Time is taken of the largest input there may be; memory, which is in proportion, of one of a sixteenth of that."""
    target = TARGETS[name]
    parse = PARSERS.get(name) or target.make(tmp_path)
    longest, worst = 0.0, 0.0
    for make in cases:
        data = make(CAP)
        before = time.thread_time()
        with contextlib.suppress(target.errors):
            parse(data)
        took = time.thread_time() - before
        data = make(CAP // 16)
        memory = peak(parse, data, target.errors)
        assert took < 20, data[:60]
        assert memory < MEMORY * len(data) + 2**20, data[:60]
        longest, worst = max(longest, took), max(worst, memory / len(data))
    print(
        f"\n{name}: the largest inputs take at most {longest:.2f} s, and {worst:.0f} bytes of memory for each of theirs",
        end="",
    )


# -- by hypothesis --------------------------------------------------------------------------------------------

flat: Any = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None))
nested: Any = flat | st.lists(flat, max_size=5) | st.dictionaries(st.text(), flat, max_size=5)
any_json: Any = nested | st.lists(nested, max_size=5) | st.dictionaries(st.text(), nested, max_size=5)
any_text: Any = st.text(st.characters(codec=None)) | st.text(alphabet="—abc+ \n\t=AB19\x00\u2028\ud800")


@settings(max_examples=500, deadline=None)
@given(any_text | st.binary())
def test_hypothesis_finds_nothing_in_the_pure_parsers(data: str | bytes) -> None:
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    for name, target in TARGETS.items():
        if name in PURE:
            with contextlib.suppress(target.errors):
                target.make(Path())(raw)


PURE = {name for name, target in TARGETS.items() if name.partition(".")[0] not in ("log", "segment", "Delivery")} - {
    "read_verifier_key", "verify_proof", "verify_directory",
}  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(span(1))), any_json), st.dictionaries(st.text(), any_json))
def test_hypothesis_finds_nothing_in_signed_nonsense(fields: dict[str, Any], attributes: dict[str, Any]) -> None:
    """What is canonical and signed may still be anything: the process that writes it need not be ours."""
    nonsense = span(1) | fields | {"v": 2, "type": "span"}
    if attributes:
        nonsense["attributes"] = attributes
    try:
        content = statements.encode(nonsense)
        statements.decode(content)
    except FormatError:
        return
    with contextlib.suppress(FormatError):
        document(content)
