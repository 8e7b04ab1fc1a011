# SPDX-License-Identifier: Apache-2.0
"""A small witness: https://c2sp.org/tlog-witness over HTTP, for tests and for one site.

Per log it remembers the newest checkpoint that it has cosigned, and cosigns only what continues it. The folder of a
witness has

======================  ==========================================================================
``name``                its name, one line
``witness.pem``         its private key, readable by its owner only
``witness.vkey``        its public key, for policies
``witness.lock``        whoever holds an exclusive ``flock`` on it is the witness
``logs/<hash>.note``    the newest cosigned checkpoint of a log; <hash> is SHA-256 of its origin
======================  ==========================================================================

A witness that forgets would cosign a second history: what it remembers is on disk before it answers, a damaged file
stops it, and a folder without its key is not begun anew by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import socket
from typing import Any

from auditspan_seal.errors import DirectoryError, FormatError, KeyFileError
from auditspan_seal.formats import add_checkpoint as protocol
from auditspan_seal.formats.cosignature import CosignerKey, cosigned, make
from auditspan_seal.formats.merkle import EMPTY_ROOT
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.proof import verify_consistency
from auditspan_seal.keys import KeyFileSigner, safe
from auditspan_seal.witness.store import reason

MAX_CONNECTIONS = 64
IDLE = 15.0  # seconds after which a silent connection is closed
_TEXT = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]  # HTTP status, content type, body


def load_key(folder: Path, name: str | None = None) -> tuple[KeyFileSigner, CosignerKey]:
    """Return the key of the witness in a folder.

    Args:
        folder: of the witness.
        name: if given, a witness of this name is begun, if there is none yet.

    Raises:
        DirectoryError: there is no witness, one of another name, or the folder cannot be used.
        KeyFileError: the key cannot be used.
    """
    path = folder / "name"
    try:
        if name is not None and not path.exists():
            _begin(folder, name)
        own = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        raise DirectoryError(
            f"There is no witness in {folder}.",
            "Begin one: `auditspan witness keys FOLDER --name witness.example/w1`; the name is for good.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DirectoryError(
            f"The folder of the witness {folder} cannot be used: {error}.", "Check the path and its permissions."
        ) from None
    if name not in (None, own):
        raise DirectoryError(f"The witness in {folder} is called {own}, not {name}.", "Use another folder.")
    try:
        signer = KeyFileSigner.load(folder / "witness.pem", own)
    except KeyFileError as error:
        raise KeyFileError(
            error.what, "Give it mode 0600 and its owner, or restore it from a backup, or begin a witness elsewhere."
        ) from None
    return signer, CosignerKey(own, signer.verifier_key.public)


def _begin(folder: Path, name: str) -> None:
    if not re.fullmatch(r"[^\s+]+", name):
        raise DirectoryError(
            f"{name!r} cannot be the name of a witness: it must have no spaces and no '+'.",
            "Use an address without scheme, such as witness.example/w1.",
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    signer = KeyFileSigner.load_or_create(folder / "witness.pem", name)
    key = CosignerKey(name, signer.verifier_key.public)
    safe.replace(folder / "witness.vkey", f"{key}\n".encode(), 0o644)
    safe.replace(folder / "name", f"{name}\n".encode(), 0o644)  # last: a witness without it is not begun


class Witness:
    """The witness in a folder. It is the only one there while it lives.

    Args:
        folder: see the module.
        logs: keys of the logs that it knows; a log may have several (after a rotation).
        clock: seconds since the epoch.

    Raises:
        DirectoryError: another process is this witness, or what it remembers is damaged.
        KeyFileError: its key cannot be used.
    """

    def __init__(self, folder: Path, logs: Sequence[VerifierKey], clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        self._mutex = threading.Lock()
        self._signer, self.key = load_key(folder)
        self._logs: dict[str, list[VerifierKey]] = {}
        for key in logs:
            self._logs.setdefault(key.name, []).append(key)
        self._lock = self._acquire()
        try:
            self._newest = {origin: self._remembered(origin) for origin in self._logs}
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def sizes(self) -> dict[str, int]:
        """Tree size of the newest cosigned checkpoint of each log; 0: none."""
        return {origin: _checkpoint(note).size if note else 0 for origin, note in self._newest.items()}

    def close(self) -> None:
        """Give the folder back."""
        os.close(self._lock)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Answer a request as tlog-witness says ("add-checkpoint").

        Raises:
            OSError: the checkpoint could not be remembered, and so was not cosigned.
        """
        try:
            request = protocol.Request.parse(body)
        except FormatError as error:
            return _refuse(http.client.BAD_REQUEST, error.what)
        note, checkpoint = request.note, request.checkpoint()
        keys = self._logs.get(checkpoint.origin)
        if keys is None:
            return _refuse(http.client.NOT_FOUND, "This witness does not know the log.")
        signed = [note.signed_by(key) for key in keys]
        if False in signed or True not in signed:
            return _refuse(http.client.FORBIDDEN, "The checkpoint is not signed by a known key of the log.")
        if request.old > checkpoint.size:
            return _refuse(http.client.BAD_REQUEST, "The old size is beyond the size of the checkpoint.")
        # From here to the file on disk one request at a time, or an older one would undo a newer one.
        with self._mutex:
            newest = self._newest[checkpoint.origin]
            before = _checkpoint(newest) if newest else Checkpoint(checkpoint.origin, 0, EMPTY_ROOT)
            if request.old != before.size:
                return http.client.CONFLICT, protocol.SIZE_TYPE, protocol.size_body(before.size)
            if problem := _inconsistent(before, checkpoint, request.proof):
                return _refuse(http.client.UNPROCESSABLE_ENTITY, problem)
            cosignature = make(self.key, self._signer.sign, note.text, int(self._clock()))
            kept = tuple(
                signature for key in keys for signature in note.signatures if signature[:2] == (key.name, key.key_id)
            )
            remembered = Note(note.text, (*kept, cosignature))
            safe.replace(self._file(checkpoint.origin), str(remembered).encode(), 0o644)
            self._newest[checkpoint.origin] = remembered
        return http.client.OK, _TEXT, protocol.signatures_body(Note(note.text, (cosignature,)))

    def newest(self, origin: str) -> Answer:
        """Return the newest cosigned checkpoint of a log (tlog-witness, "Monitor Retrieval Mechanism").

        Args:
            origin: SHA-256 of the log's origin, hexadecimal.
        """
        for name, note in self._newest.items():
            if note is not None and protocol.origin_hash(name) == origin:
                return http.client.OK, _TEXT, str(note).encode()
        return _refuse(http.client.NOT_FOUND, "This witness has never cosigned such a log.")

    def _acquire(self) -> int:
        try:
            lock = os.open(self._folder / "witness.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DirectoryError(
                f"The folder of the witness {self._folder} cannot be locked: {reason(error)}.", "Check its permissions."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise DirectoryError(
                f"Another process is the witness in {self._folder} already.",
                "Stop it first: two with one memory could cosign two histories.",
            ) from None
        return lock

    def _file(self, origin: str) -> Path:
        return self._folder / "logs" / f"{protocol.origin_hash(origin)}.note"

    def _remembered(self, origin: str) -> Note | None:
        path = self._file(origin)
        try:
            note = Note.parse(path.read_bytes().decode())
            if _checkpoint(note).origin == origin and cosigned(note, self.key) is not None:
                return note
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, FormatError):
            pass
        raise DirectoryError(
            f"What the witness remembers of the log {origin} cannot be read, or is not what it cosigned ({path}).",
            "Restore the newest copy of that file. Without it, begin a witness of another name and key: this one could "
            "cosign a second history.",
        )


def _inconsistent(before: Checkpoint, now: Checkpoint, proof: tuple[bytes, ...]) -> str:
    """Return why a checkpoint does not continue the one before it; empty: it does."""
    if now.size == 0 and now.root != EMPTY_ROOT:
        return "The root hash is not that of the empty tree."
    if before.size == 0:
        return "Nothing has to be proven of the empty tree." if proof else ""
    if before.size == now.size and before.root != now.root:
        return "The tree of this size had another root hash."
    try:
        verified = verify_consistency(before.size, now.size, before.root, now.root, proof)
    except FormatError as error:
        return error.what
    return "" if verified else "The proof does not show that the tree has all that it had."


def _checkpoint(note: Note) -> Checkpoint:
    return Checkpoint.parse(note.text)


def _refuse(status: int, why: str) -> Answer:
    return status, _TEXT, f"{why}\n".encode()


class Server(ThreadingHTTPServer):
    """Serves a witness over HTTP.

    Args:
        witness: what answers.
        host: name or address to listen at.
        port: to listen at; 0: any that is free.
        log: takes one line about each request.

    Raises:
        DirectoryError: that address cannot be listened at.
    """

    daemon_threads = True
    block_on_close = False  # a silent connection must not hold up the end

    def __init__(self, witness: Witness, host: str, port: int, log: Callable[[str], None] | None = None) -> None:
        self.witness = witness
        self.log = log or (lambda line: None)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise DirectoryError(
                f"The witness cannot listen at {host}:{port}: {reason(error)}.", "Choose another address: --listen."
            ) from None

    @property
    def url(self) -> str:
        """The submission and monitoring prefix."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread; one too many waits a moment, and is closed."""
        if not self._places.acquire(timeout=1.0):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Say in one line that a connection broke."""
        self.log(f"{client_address[0]} {type(sys.exc_info()[1]).__name__}")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    timeout = IDLE
    # Head and body of an answer in one piece: as two, the second waits for the client's acknowledgement (40 ms).
    wbufsize = protocol.MAX_ANSWER
    disable_nagle_algorithm = True
    server_version = "auditspan-witness"
    sys_version = ""
    server: Server

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        self.close_connection = True  # unless the body was read
        if self.path != protocol.PATH:
            self._answer(_refuse(http.client.NOT_FOUND, f"Checkpoints go to {protocol.PATH}."))
        elif not (length.isascii() and length.isdecimal() and len(length) < 10):
            self._answer(_refuse(http.client.LENGTH_REQUIRED, "The request must say its length."))
        elif int(length) > protocol.MAX_REQUEST:
            self._answer(_refuse(http.client.REQUEST_ENTITY_TOO_LARGE, f"At most {protocol.MAX_REQUEST} bytes."))
        else:
            body = self.rfile.read(int(length))
            self.close_connection = self.headers.get("Connection", "").lower() == "close"
            try:
                answer = self.server.witness.add_checkpoint(body)
            except OSError as error:
                answer = _refuse(http.client.INTERNAL_SERVER_ERROR, f"It could not be remembered: {reason(error)}.")
            self._answer(answer)

    def do_GET(self) -> None:
        match = re.fullmatch(r"/([0-9a-f]{64})/checkpoint", self.path)
        if match:
            self._answer(self.server.witness.newest(match[1]))
        else:
            self._answer(_refuse(http.client.NOT_FOUND, "There is only /<hash of a log>/checkpoint."))

    def _answer(self, answer: Answer) -> None:
        status, kind, body = answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say in one line what was asked and answered, without anything that a client could write into it."""
        command = self.command if self.command in ("GET", "POST") else "?"
        self.server.log(f"{self.client_address[0]} {command} {int(code)}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: :meth:`log_request` has said it."""
