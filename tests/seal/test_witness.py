# SPDX-License-Identifier: Apache-2.0
"""Witnesses as real processes, asked over HTTP: honest ones, dead ones, lying ones; and a log that lies to them."""

from __future__ import annotations

import http.client
import json
import random
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from auditspan.cli import main
from auditspan_seal.errors import Contradiction, SecondPlaceError
from auditspan_seal.formats import add_checkpoint as protocol
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.cosignature import cosigned
from auditspan_seal.formats.merkle import EMPTY_ROOT, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.formats.proof import consistency
from auditspan_seal.formats.witness_policy import Policy, Witness
from auditspan_seal.keys import sign_checkpoint
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.witness import store as stores
from auditspan_seal.witness.client import WitnessClient
from auditspan_seal.witness.publisher import Publisher
from auditspan_seal.witness.store import FolderStore
from auditspan_seal.witness.trusted import load
from tests.seal.second_places import LOG, Cosigner, LogOnDisk, WitnessProcess

pytestmark = pytest.mark.slow

Answer = tuple[int, str | None, bytes]


@pytest.fixture
def log(tmp_path: Path) -> LogOnDisk:
    log = LogOnDisk(tmp_path / "log-directory")
    for count in (1, 4, 7):
        log.add(count)
    return log


@pytest.fixture
def witness(tmp_path: Path, log: LogOnDisk) -> Iterator[WitnessProcess]:
    with WitnessProcess(tmp_path / "w1", [log.vkey]) as witness:
        yield witness


def post(witness: WitnessProcess, body: bytes, path: str = protocol.PATH) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=10)
    try:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def get(witness: WitnessProcess, path: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def request(log: LogOnDisk, old: int, at: int = -1) -> bytes:
    """Return an honest request: from a size to a batch."""
    size = log.batches[at].size
    leaves = [leaf_hash(entry) for entry in log.entries[:size]]
    return protocol.Request(old, consistency(leaves, old) if 0 < old < size else (), log.note(at)).encode()


OPEN: list[WitnessClient | Publisher] = []


@pytest.fixture(autouse=True)
def close_what_was_opened() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def client_to(name: str, key: Cosigner | WitnessProcess, url: str | None, **more: float) -> WitnessClient:
    client = WitnessClient(Witness(name, key.key, url), **more)
    OPEN.append(client)
    return client


def client_of(witness: WitnessProcess) -> WitnessClient:
    return client_to("w1", witness, witness.url)


def publisher_of(log: LogOnDisk, **settings: Any) -> Publisher:
    publisher = Publisher(log.directory, log.directory.origin, **settings)
    OPEN.append(publisher)
    return publisher


def policy_file(folder: Path, *lines: str) -> str:
    path = folder / "policy"
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


# -- the protocol ------------------------------------------------------------------------------------------------
def test_a_witness_cosigns_what_continues_what_it_has_seen(log: LogOnDisk, witness: WitnessProcess) -> None:
    before = int(time.time())
    for old, at in ((0, 0), (1, 1), (5, 2)):
        status, kind, body = post(witness, request(log, old, at))
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        note = protocol.parse_signatures(body, log.note(at).text)
        assert len(note.signatures) == 1
        at_time = cosigned(note, witness.key)
        assert at_time is not None
        assert before <= at_time <= time.time()
    status, _, body = get(witness, f"/{protocol.origin_hash(LOG)}/checkpoint")
    newest = Note.parse(body.decode())
    assert status == 200
    assert Checkpoint.parse(newest.text).size == 12
    assert newest.signed_by(log.signer.verifier_key) is True
    assert cosigned(newest, witness.key)


def test_the_same_checkpoint_is_cosigned_again(log: LogOnDisk, witness: WitnessProcess) -> None:
    assert post(witness, request(log, 0))[0] == 200
    assert post(witness, request(log, 12))[0] == 200


def test_a_wrong_old_size_is_answered_with_the_right_one(log: LogOnDisk, witness: WitnessProcess) -> None:
    assert post(witness, request(log, 0, 1))[0] == 200
    for old in (0, 1, 12):
        assert post(witness, request(log, old)) == (409, "text/x.tlog.size", b"5\n")


def test_rollback_is_refused(log: LogOnDisk, witness: WitnessProcess) -> None:
    assert post(witness, request(log, 0))[0] == 200
    assert post(witness, request(log, 0, 1)) == (409, "text/x.tlog.size", b"12\n")
    assert post(witness, request(log, 5, 1)) == (409, "text/x.tlog.size", b"12\n")
    assert post(witness, protocol.Request(12, (), log.note(1)).encode())[0] == 400, "old is beyond the checkpoint"


def test_split_views_are_refused(log: LogOnDisk, witness: WitnessProcess, tmp_path: Path) -> None:
    fork = log.other_copy(tmp_path / "fork", 2)
    same_size, larger = fork.add(7, "forged"), fork.add(3, "forged")
    assert post(witness, request(log, 0))[0] == 200
    assert same_size.size == 12
    assert larger.size == 15
    status, _, body = post(witness, request(fork, 12, 2))
    assert (status, b"another root hash" in body) == (422, True)
    status, _, body = post(witness, request(fork, 12, 3))
    assert (status, b"does not show" in body) == (422, True)
    assert post(witness, request(log, 12))[0] == 200, "the refused ones have left nothing behind"


@pytest.mark.parametrize("alter", ["none", "more", "order", "bit"])
def test_a_proof_that_does_not_hold_is_refused(log: LogOnDisk, witness: WitnessProcess, alter: str) -> None:
    assert post(witness, request(log, 0, 1))[0] == 200
    good = protocol.Request.parse(request(log, 5))
    proof = list(good.proof)
    assert len(proof) > 1
    if alter == "none":
        proof = []
    elif alter == "more":
        proof.append(bytes(32))
    elif alter == "order":
        proof.reverse()
    else:
        proof[0] = bytes([proof[0][0] ^ 1]) + proof[0][1:]
    assert post(witness, protocol.Request(5, tuple(proof), good.note).encode())[0] == 422
    assert post(witness, good.encode())[0] == 200


def test_of_the_empty_tree_nothing_is_to_be_proven(log: LogOnDisk, witness: WitnessProcess) -> None:
    status, _, body = post(witness, protocol.Request(0, (bytes(32),), log.note()).encode())
    assert (status, b"Nothing has to be proven" in body) == (422, True)
    wrong = sign_checkpoint(log.signer, Checkpoint(LOG, 0, bytes(32)))
    status, _, body = post(witness, protocol.Request(0, (), wrong).encode())
    assert (status, b"not that of the empty tree" in body) == (422, True)
    empty = sign_checkpoint(log.signer, Checkpoint(LOG, 0, EMPTY_ROOT))
    assert post(witness, protocol.Request(0, (), empty).encode())[0] == 200
    assert post(witness, request(log, 0))[0] == 200


def test_only_known_logs_and_keys_are_cosigned(log: LogOnDisk, witness: WitnessProcess, tmp_path: Path) -> None:
    stranger = LogOnDisk(tmp_path / "stranger", "stranger.example/log")
    stranger.add(2)
    assert post(witness, request(stranger, 0))[0] == 404
    thief = LogOnDisk(tmp_path / "thief")
    thief.add(2)
    assert post(witness, request(thief, 0))[0] == 403
    note = log.note()
    spoilt = Note(note.text, (*note.signatures, (*note.signatures[0][:2], bytes(64))))
    assert post(witness, protocol.Request(0, (), spoilt).encode())[0] == 403
    elsewhere = Note(log.note(0).text, note.signatures)
    assert post(witness, protocol.Request(0, (), elsewhere).encode())[0] == 403
    # signatures of unknown keys are ignored
    more = Note(note.text, (*thief.note().signatures, *note.signatures, *Cosigner("x").on(note).signatures[-1:]))
    assert post(witness, protocol.Request(0, (), more).encode())[0] == 200
    _, _, body = get(witness, f"/{protocol.origin_hash(LOG)}/checkpoint")
    assert [name for name, _, _ in Note.parse(body.decode()).signatures] == [LOG, witness.name]


def test_a_log_goes_on_with_another_key_once_the_witness_knows_it(log: LogOnDisk, tmp_path: Path) -> None:
    rotated = LogOnDisk(tmp_path / "rotated")  # the same origin, another key
    rotated.entries = list(log.entries)
    rotated.add(3)
    proof = protocol.Request.parse(request(rotated, 12)).proof
    by_new = rotated.note()
    by_both = Note(by_new.text, (*log.signatures_on(by_new.text), *by_new.signatures))
    with WitnessProcess(tmp_path / "w", [log.vkey]) as witness:
        assert post(witness, request(log, 0))[0] == 200
        assert post(witness, protocol.Request(12, proof, by_new).encode())[0] == 403
        assert post(witness, protocol.Request(12, proof, by_both).encode())[0] == 200
        rotated.add(2)
        assert post(witness, request(rotated, 15))[0] == 403
        witness.stop()
        witness.logs = [log.vkey, rotated.vkey]
        witness.start()
        assert post(witness, request(rotated, 15))[0] == 200


def test_malformed_requests_are_refused_and_harm_nobody(log: LogOnDisk, witness: WitnessProcess) -> None:
    for body in (b"", b"old 0\n", b"old 00\n\n" + str(log.note()).encode(), b"\xff" * 100, b"\n" * 1000):
        assert post(witness, body)[0] == 400
    assert post(witness, b"x" * (protocol.MAX_REQUEST + 1))[0] == 413
    assert post(witness, request(log, 0), "/other")[0] == 404
    assert get(witness, "/")[0] == 404
    assert get(witness, f"/{'0' * 64}/checkpoint")[0] == 404
    assert get(witness, f"/{protocol.origin_hash(LOG)}/checkpoint")[0] == 404
    for text in (
        b"POST /add-checkpoint HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 1e3\r\n\r\n",
        b"\x16\x03\x01nonsense\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", witness.port), timeout=10) as connection:
            connection.sendall(text)
            answer = connection.recv(1000)
            assert answer and b"200" not in answer.partition(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", witness.port), timeout=10) as connection:
        connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 500\r\n\r\nold 0\n")  # and nothing more
        assert post(witness, request(log, 0))[0] == 200
    assert witness.stop() == 0
    chance = random.Random(1)
    witness.start()
    good = request(log, 12)
    for _ in range(300):
        at = chance.randrange(len(good))
        assert post(witness, good[:at] + chance.randbytes(2) + good[at + 1 :])[0] in (400, 403, 404, 409, 422)
    assert post(witness, good)[0] == 200


def test_many_at_once_get_one_history(log: LogOnDisk, witness: WitnessProcess) -> None:
    """All want to be the next; for each step one is, and the others are told where the log is."""
    for number in range(3, 30):
        log.add(number)
    bodies = [request(log, before.size, at) for at, before in enumerate(log.batches[:-1], 1)]
    assert post(witness, request(log, 0, 0))[0] == 200

    def push(seed: int) -> list[int]:
        answers = []
        chance = random.Random(seed)
        for at in range(len(bodies)):
            answers += [post(witness, bodies[min(len(bodies) - 1, max(0, at + chance.randrange(-2, 3)))])[0]]
            answers += [post(witness, bodies[at])[0]]
        return answers

    with ThreadPoolExecutor(8) as pool:
        answers = [status for found in pool.map(push, range(8)) for status in found]
    assert set(answers) == {200, 409}
    assert answers.count(200) == len(bodies), "each step was taken once"


# -- its memory --------------------------------------------------------------------------------------------------
def test_it_remembers_over_restarts(log: LogOnDisk, witness: WitnessProcess) -> None:
    assert post(witness, request(log, 0, 1))[0] == 200
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        code = witness.stop(number)
        assert code == (-9 if number == signal.SIGKILL else 0)
        assert witness.start()["logs"] == {LOG: 5}
        assert post(witness, request(log, 0)) == (409, "text/x.tlog.size", b"5\n")


def test_two_servers_never_have_one_memory(log: LogOnDisk, witness: WitnessProcess) -> None:
    done = subprocess.run(
        [*witness._program, "witness", "serve", str(witness.folder), "--log", str(log.vkey), "--listen", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "Another process is the witness" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damage", ["empty", "cut", "altered", "other log's"])
def test_a_damaged_memory_stops_it(log: LogOnDisk, witness: WitnessProcess, damage: str) -> None:
    assert post(witness, request(log, 0))[0] == 200
    witness.stop()
    (path,) = (witness.folder / "logs").iterdir()
    content = path.read_text()
    if damage == "empty":
        path.write_text("")
    elif damage == "cut":
        path.write_text(content[:-10])
    elif damage == "altered":
        path.write_text(content.replace("\n12\n", "\n13\n"))
    else:
        path.write_text(content.replace(LOG, "log.example/other"))
    with pytest.raises(AssertionError, match="is not what it cosigned"):
        witness.start()


def test_its_key_is_for_its_owner_only(log: LogOnDisk, witness: WitnessProcess) -> None:
    key = witness.folder / "witness.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(witness.folder.stat().st_mode) == 0o700
    witness.stop()
    key.chmod(0o640)
    with pytest.raises(AssertionError, match="can be read by other users"):
        witness.start()
    key.unlink()
    with pytest.raises(AssertionError, match="cannot be read"):
        witness.start()
    assert not key.exists(), "a new key would be another witness"


FAULT = """
import os, signal, sys
count, step = 0, int(os.environ["DIE_AT"])
def counted(name):
    real = getattr(os, name)
    def call(*arguments, **named):
        global count
        if sys.argv[1:3] == ["witness", "serve"] and any("logs" in str(a) for a in arguments) or name == "fsync":
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(os, name, call)
for name in ("open", "fsync", "replace"):
    counted(name)
from auditspan.cli import main
sys.exit(main())
"""


def test_killed_at_each_step_it_never_forgets_what_it_cosigned(log: LogOnDisk, tmp_path: Path) -> None:
    """Steps of a request: a draft is made, synced, put in place, the folder opened and synced, the answer sent."""
    fork = log.other_copy(tmp_path / "fork", 1)
    fork.add(4, "forged")
    outcomes = []
    for step in range(1, 8):
        folder = tmp_path / f"killed-{step}"
        program = (sys.executable, "-c", FAULT)
        with WitnessProcess(folder, [log.vkey], program=program, env={"DIE_AT": "1000"}) as witness:
            assert post(witness, request(log, 0, 0))[0] == 200
            witness.stop(signal.SIGKILL)
            witness._env = {"DIE_AT": str(step)}
            witness.start()
            try:
                status = post(witness, request(log, 1, 1))[0]
            except (ConnectionError, http.client.HTTPException):
                status = 0
            if status == 0:
                assert witness.ended() == -9
            else:
                witness.stop(signal.SIGKILL)
            witness._env = {"DIE_AT": "1000"}
            size = witness.start()["logs"][LOG]
            outcomes.append((status, size))
            assert size == 5 if status == 200 else size in (1, 5)
            # whatever it remembers: the honest log goes on, and a fork of what it may have cosigned does not
            assert post(witness, request(log, size))[0] == 200
            assert post(witness, request(fork, 5, 1))[0] == 409
            assert not [item for item in (folder / "logs").iterdir() if item.suffix == ".tmp"]
    assert (0, 1) in outcomes
    assert (0, 5) in outcomes, "between the file and the answer"
    assert (200, 5) in outcomes


def test_killed_at_any_time_it_never_forgets_what_it_cosigned(log: LogOnDisk, witness: WitnessProcess) -> None:
    chance = random.Random(11)
    for _ in range(120):
        log.add(1)
    client = client_of(witness)
    cosigned_size, answers, kills = 0, 0, 0
    for at, batch in enumerate(log.batches):
        killer = threading.Timer(chance.uniform(0, 0.008), witness.process.kill)
        if at % 3 == 0:
            killer.start()
        try:
            client.submit(log.note(at), proofs_of(log, at))
            cosigned_size, answers = batch.size, answers + 1
        except SecondPlaceError as error:
            assert "does not answer" in error.what
        if at % 3 == 0:
            killer.join()
            assert witness.ended() == -9
            kills += 1
            assert witness.start()["logs"][LOG] >= cosigned_size, "it forgot what it cosigned"
    assert (kills, len(log.batches)) == (41, 123)
    assert len(log.batches) > answers > 82, "some were killed before they answered, some after"


# -- the client --------------------------------------------------------------------------------------------------
def proofs_of(log: LogOnDisk, at: int = -1) -> Callable[[int], tuple[bytes, ...]]:
    leaves = [leaf_hash(entry) for entry in log.entries[: log.batches[at].size]]
    return lambda first: consistency(leaves, first)


def test_the_client_learns_where_the_witness_is(log: LogOnDisk, witness: WitnessProcess) -> None:
    client = client_of(witness)
    assert client.size is None
    for at in (0, 2):
        (signature,) = client.submit(log.note(at), proofs_of(log, at))
        assert cosigned(Note(log.note(at).text, (signature,)), witness.key)
        assert client.size == log.batches[at].size
    again = client_of(witness)
    log.add(5)
    again.submit(log.note(), proofs_of(log))
    assert again.size == 17
    client.size = 3  # what nobody ever cosigned
    client.submit(log.note(), proofs_of(log))


def test_the_client_says_what_a_refusal_means(log: LogOnDisk, witness: WitnessProcess, tmp_path: Path) -> None:
    fork = log.other_copy(tmp_path / "fork", 2)
    fork.add(9, "forged")
    client = client_of(witness)
    client.submit(log.note(), proofs_of(log))
    with pytest.raises(Contradiction, match="has cosigned 12 entries of this log, and there are only 5 here"):
        client_of(witness).submit(log.note(1), proofs_of(log, 1))
    with pytest.raises(Contradiction, match="does not continue the 12 entries"):
        client_of(witness).submit(fork.note(), proofs_of(fork))
    thief = LogOnDisk(tmp_path / "thief")
    thief.add(20)
    with pytest.raises(SecondPlaceError, match="signature of this log's key"):
        client.submit(thief.note(), proofs_of(thief))
    stranger = LogOnDisk(tmp_path / "stranger", "stranger.example/log")
    stranger.add(20)
    with pytest.raises(SecondPlaceError, match=r"does not know the log stranger\.example/log"):
        client.submit(stranger.note(), proofs_of(stranger))
    client.submit(log.note(), proofs_of(log))


def test_the_client_keeps_its_connection_and_survives_a_restart(log: LogOnDisk, witness: WitnessProcess) -> None:
    client = client_of(witness)
    client.submit(log.note(0), proofs_of(log, 0))
    kept = client._connection
    client.submit(log.note(1), proofs_of(log, 1))
    assert client._connection is kept is not None
    witness.stop(signal.SIGKILL)
    with pytest.raises(SecondPlaceError, match="does not answer"):
        client.submit(log.note(2), proofs_of(log, 2))
    witness.start()
    client.submit(log.note(1), proofs_of(log, 1))
    witness.stop()
    witness.start()
    client.submit(log.note(2), proofs_of(log, 2))  # over a connection that the witness has closed meanwhile


class Liar:
    """Something that answers every request as it is told."""

    def __init__(self, answer: Callable[[bytes], tuple[int, bytes]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, content = answer(body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.key = Cosigner("witness.example/liar")
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


OTHER = Cosigner("witness.example/other")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda note, key: (200, b""), "no cosignature"),
        (lambda note, key: (200, b"nonsense\n"), "no cosignature"),
        (lambda note, key: (200, b"\xff" * 70_000), "no cosignature"),
        (lambda note, key: (200, protocol.signatures_body(OTHER.on(note))), "without a signature of the key"),
        (
            lambda note, key: (
                200,
                protocol.signatures_body(
                    Note(note.text, key.on(Note("a\n0\n" + "A" * 43 + "=\n", ())).signatures)
                ),
            ),
            "not of this checkpoint",
        ),
        (lambda note, key: (200, str(key.on(note)).encode()), "empty line"),
        (lambda note, key: (409, b""), "409 without the size"),
        (lambda note, key: (409, b"many\n"), "409 without the size"),
        (lambda note, key: (409, b"0\n"), "does not know 0 entries, and that it does"),
        (lambda note, key: (409, b"9999\n"), "only 12 here"),
        (lambda note, key: (403, b""), "signature of this log's key"),
        (lambda note, key: (418, b""), "HTTP status 418"),
        (lambda note, key: (301, b""), "HTTP status 301"),
        (lambda note, key: (500, b"x"), "HTTP status 500"),
    ],
)  # fmt: skip
def test_wrong_answers_are_typed_errors(log: LogOnDisk, answer: Callable[..., tuple[int, bytes]], why: str) -> None:
    def lie(body: bytes) -> tuple[int, bytes]:
        return answer(log.note(), liar.key)

    with Liar(lie) as liar:
        client = client_to("liar", liar.key, liar.url)
        with pytest.raises(SecondPlaceError, match=why):
            client.submit(log.note(), proofs_of(log))


def test_a_witness_that_names_another_size_each_time_is_asked_twice_only(log: LogOnDisk) -> None:
    asked: list[bytes] = []

    def lie(body: bytes) -> tuple[int, bytes]:
        asked.append(body)
        return 409, b"%d\n" % len(asked)

    with Liar(lie) as liar:
        client = client_to("liar", liar.key, liar.url)
        with pytest.raises(SecondPlaceError, match="another size each time"):
            client.submit(log.note(), proofs_of(log))
    assert len(asked) == 2


@pytest.mark.parametrize("behaviour", ["silent", "dripping header", "dripping body", "not HTTP", "closing"])
def test_a_witness_that_does_not_come_to_an_end_is_left(log: LogOnDisk, behaviour: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(100_000)
                    if behaviour == "closing":
                        continue
                    if behaviour == "not HTTP":
                        connection.sendall(b"220 mail.example ready\r\n")
                        continue
                    if behaviour == "dripping body":
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
                    elif behaviour == "dripping header":
                        connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not stopping.wait(0.05):
                        if behaviour.startswith("dripping"):
                            connection.sendall(b"x: y\r\n" if behaviour.endswith("header") else b"x")
                except OSError:
                    continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        client = client_to("slow", OTHER, url, timeout=0.7)
        begin = time.monotonic()
        with pytest.raises(SecondPlaceError, match="does not answer") as caught:
            client.submit(log.note(), proofs_of(log))
        assert time.monotonic() - begin < 2.5
        if behaviour in ("silent", "dripping header", "dripping body"):
            assert "it took too long" in caught.value.what
    finally:
        stopping.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_over_https_the_certificate_must_be_known(
    log: LogOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = tmp_path / "certificate.pem"
    with Liar(lambda body: (200, protocol.signatures_body(liar.key.on(log.note())))) as liar:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.write_bytes(self_signed("localhost"))
        context.load_cert_chain(certificate)
        liar.server.socket = context.wrap_socket(liar.server.socket, server_side=True)
        port = liar.server.server_address[1]
        with pytest.raises(SecondPlaceError, match=r"does not answer: .*certificate"):
            client_to("w", liar.key, f"https://localhost:{port}").submit(log.note(), proofs_of(log))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert client_to("w", liar.key, f"https://localhost:{port}").submit(log.note(), proofs_of(log))
        with pytest.raises(SecondPlaceError, match=r"does not answer: .*certificate"):
            client_to("w", liar.key, f"https://127.0.0.1:{port}").submit(log.note(), proofs_of(log))


def self_signed(host: str) -> bytes:
    """Return a certificate for a host with its private key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "url",
    [None, "", "witness.example", "ftp://witness.example", "http://", "http://h:port/", "http://h:99999/",
     "http://user:secret@h/", "http://h/?x=1", "http://h/ä", "http://[::1", "http://" + "x" * 70 + ".example/"],
)  # fmt: skip
def test_addresses_that_cannot_be_asked(url: str | None) -> None:
    with pytest.raises(SecondPlaceError, match="has no address"):
        client_to("w1", OTHER, url)


# -- the publisher: k of n ---------------------------------------------------------------------------------------
@pytest.fixture
def three(tmp_path: Path, log: LogOnDisk) -> Iterator[list[WitnessProcess]]:
    found = [WitnessProcess(tmp_path / f"w{n}", [log.vkey], f"witness.example/w{n}") for n in (1, 2, 3)]
    yield found
    for witness in found:
        witness.__exit__()


def two_of(tmp_path: Path, witnesses: list[WitnessProcess], *more: str) -> str:
    lines = [witness.policy_line(f"w{n}") for n, witness in enumerate(witnesses, 1)]
    return policy_file(tmp_path, *(more or lines), "group most 2 w1 w2 w3", "quorum most")


def test_checkpoints_are_cosigned_and_archived(
    log: LogOnDisk, three: list[WitnessProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDITSPAN_WITNESS_POLICY", two_of(tmp_path, three))
    monkeypatch.setenv("AUDITSPAN_ARCHIVE", str(tmp_path / "archive"))
    publisher = publisher_of(log)
    assert publisher.active
    for batch in (*log.batches, log.add(9), log.add(2)):
        publisher.publish(batch)
        assert publisher.problem is None
    policy = Policy.parse((tmp_path / "policy").read_bytes())
    found = load(str(tmp_path / "archive"), policy, [log.signer.verifier_key])
    assert found.rejected == []
    assert [c.size for c in found.checkpoints] == [1, 5, 12, 21, 23]
    assert {c.witnesses for c in found.checkpoints} == {("w1", "w2", "w3")}
    assert all(c.time is not None and abs(c.time / 1e9 - time.time()) < 120 for c in found.checkpoints)
    (newest,) = load(str(log.directory.path / "cosigned.note"), policy, []).checkpoints
    assert newest.size == 23
    for witness in three:
        (asked,) = load(witness.url, None, [log.signer.verifier_key]).checkpoints
        assert (asked.size, asked.root) == (23, log.tree().root())


def test_one_witness_that_is_down_is_said_and_does_not_matter(
    log: LogOnDisk, three: list[WitnessProcess], tmp_path: Path
) -> None:
    publisher = publisher_of(log, policy=two_of(tmp_path, three))
    publisher.publish(log.batches[0])
    assert publisher.problem is None
    three[1].stop(signal.SIGKILL)
    publisher.publish(log.batches[1])
    assert publisher.problem is not None
    assert "The witness w2 (witness.example/w2)" in publisher.problem
    assert "quorum" not in publisher.problem
    policy = Policy.parse((tmp_path / "policy").read_bytes())
    (newest,) = load(str(log.directory.path / "cosigned.note"), policy, []).checkpoints
    assert (newest.size, newest.witnesses) == (5, ("w1", "w3"))
    three[1].start()
    deadline = time.monotonic() + 20
    while publisher.problem and time.monotonic() < deadline:
        publisher.publish(log.add(3))
        time.sleep(0.2)
    assert publisher.problem is None, "it has caught up by itself, from what it had seen last"
    three[0].stop(signal.SIGKILL)
    three[2].stop(signal.SIGKILL)
    before = (log.directory.path / "cosigned.note").read_text()
    publisher.publish(log.add(3))
    assert "is not cosigned by the policy's quorum, only by: w2" in (publisher.problem or "")
    assert (log.directory.path / "cosigned.note").read_text() == before


def test_one_witness_that_lies_does_not_count(log: LogOnDisk, three: list[WitnessProcess], tmp_path: Path) -> None:
    """Its signature is of another checkpoint: one that a verifier would not accept either."""

    def lie(body: bytes) -> tuple[int, bytes]:
        note = protocol.Request.parse(body).note
        other = Note(note.text.replace("\n5\n", "\n6\n").replace("\n1\n", "\n2\n"), note.signatures)
        return 200, protocol.signatures_body(Note(other.text, liar.key.on(other).signatures[-1:]))

    with Liar(lie) as liar:
        lines = [f"witness w1 {liar.key.key} {liar.url}", three[1].policy_line("w2"), three[2].policy_line("w3")]
        publisher = publisher_of(log, policy=two_of(tmp_path, three, *lines))
        publisher.publish(log.batches[0])
        assert "w1" in (publisher.problem or "")
        assert "not of this checkpoint" in (publisher.problem or "")
        policy = Policy.parse((tmp_path / "policy").read_bytes())
        (newest,) = load(str(log.directory.path / "cosigned.note"), policy, []).checkpoints
        assert newest.witnesses == ("w2", "w3")
        three[1].stop(signal.SIGKILL)
        publisher.publish(log.batches[1])
        assert "only by: w3" in (publisher.problem or "")


def test_after_a_rotation_the_policy_must_know_the_new_key(log: LogOnDisk, tmp_path: Path) -> None:
    rotated = LogOnDisk(tmp_path / "rotated")  # the same origin, another key
    batch = rotated.add(3)
    with WitnessProcess(tmp_path / "w", [log.vkey, rotated.vkey]) as witness:
        lines = [witness.policy_line("w1"), "quorum w1", f"log {log.signer.verifier_key}"]
        publisher = publisher_of(rotated, policy=policy_file(tmp_path, *lines))
        publisher.publish(batch)
        assert "add a line with the new log.vkey" in (publisher.problem or "")
        assert "only by" not in (publisher.problem or "")
        lines.append(f"log {rotated.signer.verifier_key}")
        publisher = publisher_of(rotated, policy=policy_file(tmp_path, *lines))
        publisher.publish(batch)
        assert publisher.problem is None


def test_a_log_that_was_set_back_is_told_so(log: LogOnDisk, three: list[WitnessProcess], tmp_path: Path) -> None:
    policy = two_of(tmp_path, three)
    publisher_of(log, policy=policy).publish(log.batches[2])
    restored = log.other_copy(tmp_path / "restored", 1)
    publisher = publisher_of(restored, policy=policy)
    publisher.publish(restored.batches[0])
    assert "has cosigned 12 entries of this log, and there are only 1 here" in (publisher.problem or "")
    assert not (restored.directory.path / "cosigned.note").exists()


def test_a_thief_of_the_key_who_rewrites_everything_gets_no_quorum(
    log: LogOnDisk, three: list[WitnessProcess], tmp_path: Path
) -> None:
    policy = two_of(tmp_path, three)
    honest = publisher_of(log, policy=policy, archive=str(tmp_path / "archive"))
    for batch in log.batches:
        honest.publish(batch)
    forged = log.other_copy(tmp_path / "forged", 1)
    forged.add(20, "forged")
    thief = publisher_of(forged, policy=policy, archive=str(tmp_path / "archive"))
    thief.publish(forged.batches[-1])
    assert "does not continue the 12 entries" in (thief.problem or "")
    found = load(str(tmp_path / "archive"), Policy.parse(Path(policy).read_bytes()), [log.signer.verifier_key])
    assert [c.size for c in found.checkpoints] == [1, 5, 12]
    assert len(found.rejected) == 1
    assert [c.size for c in load(str(tmp_path / "archive"), None, [log.signer.verifier_key]).checkpoints] == [
        1,
        5,
        12,
        21,
    ]


def test_a_publisher_that_begins_late_catches_up(make_records: Callable[..., Directory], tmp_path: Path) -> None:
    """A real log of many batches; each publisher knows nothing of the one before."""
    directory = make_records(600)
    with WitnessProcess(tmp_path / "w1", [directory.verifier_key]) as witness:
        policy = policy_file(tmp_path, witness.policy_line("w1"), "quorum w1")
        for _ in range(3):
            batches: list[Batch] = [block.batch for block in reader.batches(directory.log)]
            publisher = Publisher(directory, directory.origin, policy=policy)
            OPEN.append(publisher)
            publisher.publish(batches[-1])
            assert publisher.problem is None
            (seen,) = load(str(directory.path / "cosigned.note"), None, []).checkpoints
            assert seen.size == batches[-1].size
            make_records(600)


# -- the publisher: whatever happens -----------------------------------------------------------------------------
def test_without_settings_there_is_nothing_to_do(log: LogOnDisk) -> None:
    publisher = publisher_of(log)
    assert not publisher.active
    publisher.publish(log.batches[0])
    assert publisher.problem is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "cannot be read"),
        ("nonsense\n", "Line 1 of the policy"),
        (f"witness w {OTHER.key} ftp://x\nquorum w\n", "has no address"),
        ("log other+3e5bd9d1+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nquorum none\n", "is not one of them"),
    ],
)
def test_wrong_settings_are_a_problem_and_no_exception(
    log: LogOnDisk, tmp_path: Path, text: str | None, why: str
) -> None:
    path = tmp_path / "policy"
    if text is not None:
        path.write_text(text)
    if text and text.startswith("log"):
        from auditspan_seal.formats.note import VerifierKey

        path.write_text(f"log {VerifierKey('other', bytes(32))}\nquorum none\n")
    publisher = publisher_of(log, policy=str(path), archive=str(tmp_path / "archive"))
    assert why in (publisher.problem or "")
    publisher.publish(log.batches[0])
    assert why in (publisher.problem or ""), "it is said as long as it lasts"
    assert len(load(str(tmp_path / "archive"), None, []).checkpoints) == 1, "what is right of the settings is used"
    assert "no archive store" in (publisher_of(log, archive="s3://bucket").problem or "")


def test_a_publisher_never_raises_and_never_takes_long(log: LogOnDisk, tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))  # accepts, and never answers
    dead = socket.create_server(("127.0.0.1", 0))
    free = dead.getsockname()[1]
    dead.close()
    lines = [
        f"witness w1 {Cosigner('w1').key} http://127.0.0.1:{listening.getsockname()[1]}/",
        f"witness w2 {Cosigner('w2').key} http://127.0.0.1:{free}/",
        f"witness w3 {Cosigner('w3').key} http://name.invalid/",
    ]
    released = threading.Event()

    class Stuck(FolderStore):
        def put(self, name: str, content: bytes) -> bool:
            released.wait()
            return super().put(name, content)

    stores.register("stuck", lambda url: Stuck(tmp_path / "archive"))
    publisher = publisher_of(log, policy=two_of(tmp_path, [], *lines), archive="stuck://a", timeout=0.5)
    for batch in log.batches:
        begin = time.monotonic()
        publisher.publish(batch)
        assert time.monotonic() - begin < 3
        assert all(f"witness w{n}" in (publisher.problem or "") for n in (1, 2, 3))
        assert "The archive stuck://a has not answered" in (publisher.problem or "")
    released.set()
    publisher.publish(Batch("nonsense", 0, (), ()))
    assert "signature block" in (publisher.problem or "")
    publisher.publish(Batch(log.batches[0].note, 3, (), ()))
    assert "frontier" in (publisher.problem or "")
    deadline = time.monotonic() + 20
    while "The archive" in (publisher.problem or "") and time.monotonic() < deadline:
        publisher.publish(log.batches[-1])
    assert "The archive" not in (publisher.problem or "")
    listening.close()
    del stores._schemes["stuck"]


def test_a_witness_that_fails_is_not_asked_at_every_checkpoint(log: LogOnDisk, tmp_path: Path) -> None:
    asked: list[bytes] = []

    def refuse(body: bytes) -> tuple[int, bytes]:
        asked.append(body)
        return 500, b""

    with Liar(refuse) as liar:
        policy = policy_file(tmp_path, f"witness w1 {liar.key.key} {liar.url}", "quorum w1")
        publisher = publisher_of(log, policy=policy)
        for _ in range(20):
            publisher.publish(log.add(1))
            assert "HTTP status 500" in (publisher.problem or "")
        assert len(asked) <= 2


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_archive_that_others_shorten_is_said_until_somebody_looks(log: LogOnDisk, tmp_path: Path, kind: str) -> None:
    place = str(tmp_path / "archive") + ("/" if kind == "folder" else "")
    publisher = publisher_of(log, archive=place)
    for batch in log.batches:
        publisher.publish(batch)
        assert publisher.problem is None
    if kind == "file":
        lines = Path(place).read_bytes().splitlines(keepends=True)
        Path(place).write_bytes(b"".join(lines[:-1]))
    else:
        sorted(Path(place).rglob("*.note"))[-1].unlink()
    for _ in range(2):
        publisher = publisher_of(log, archive=place)
        publisher.publish(log.add(2))
        assert "no longer has the checkpoint of size 12" in (publisher.problem or "")
    assert max(c.size for c in load(place, None, []).checkpoints) == 16, "it goes on archiving"
    (log.directory.path / "archive.json").unlink()
    publisher = publisher_of(log, archive=place)
    publisher.publish(log.add(2))
    assert publisher.problem is None


def test_a_publisher_with_only_an_archive_reads_no_log_files(log: LogOnDisk, tmp_path: Path) -> None:
    publisher = publisher_of(log, archive=str(tmp_path / "archive"))
    newest = log.add(5)
    for path in log.directory.log.iterdir():
        path.unlink()
    publisher.publish(newest)
    assert publisher.problem is None
    assert not (log.directory.path / "cosigned.note").exists()


# -- the command -------------------------------------------------------------------------------------------------
def test_the_command_shows_the_key_of_a_witness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "w"
    assert main(["witness", "keys", str(folder)]) == 2
    assert "There is no witness" in capsys.readouterr().err
    assert main(["witness", "keys", str(folder), "--name", "bad name"]) == 2
    assert main(["witness", "keys", str(folder), "--name", "witness.example/w1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["witness", "keys", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == made
    assert main(["witness", "keys", str(folder), "--name", "witness.example/w2"]) == 2
    assert "is called witness.example/w1" in capsys.readouterr().err
    assert main(["witness", "keys", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert made["policy_line"] in shown
    policy = Policy.parse(f"{made['policy_line']} http://127.0.0.1:1/\nquorum witness.example/w1".encode())
    assert str(policy.witnesses["witness.example/w1"].key) == made["key"]


@pytest.mark.parametrize(
    "arguments", [["--log", "absent"], ["--listen", "nowhere"], ["--listen", "127.0.0.1:x"], ["--listen", ":1"]]
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, log: LogOnDisk, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["witness", "keys", str(tmp_path / "w"), "--name", "w"]) == 0
    assert main(["witness", "serve", str(tmp_path / "w"), "--log", str(log.vkey), *arguments]) == 2
    assert "What to do" in capsys.readouterr().err


def test_an_address_in_use_is_said(tmp_path: Path, log: LogOnDisk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["witness", "keys", str(tmp_path / "w"), "--name", "w"]) == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["witness", "serve", str(tmp_path / "w"), "--log", str(log.vkey), "--listen", listen]) == 2
    assert "cannot listen" in capsys.readouterr().err
