# SPDX-License-Identifier: Apache-2.0
"""Asks a witness for its cosignature: the client side of https://c2sp.org/tlog-witness."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from auditspan_seal.errors import AuditspanError, Contradiction, FormatError, SecondPlaceError
from auditspan_seal.formats import add_checkpoint as protocol
from auditspan_seal.formats.cosignature import Signature, cosigned
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.formats.witness_policy import Witness

TIMEOUT = 5.0  # seconds that one exchange, with its repetition, may take


class WitnessClient:
    """Talks to one witness, over one connection that is kept open. For one thread at a time.

    Args:
        witness: of the policy, with an address.
        timeout: seconds that :meth:`submit` may take at most.

    Raises:
        SecondPlaceError: the address is not http:// or https:// with a host.
    """

    def __init__(self, witness: Witness, timeout: float = TIMEOUT) -> None:
        self.witness = witness
        self.size: int | None = None
        """Tree size that the witness has cosigned last, as far as is known here."""
        self._timeout = timeout
        self._make, self._prefix = _address(witness)
        self._connection: http.client.HTTPConnection | None = None

    def submit(self, note: Note, prove: Callable[[int], tuple[bytes, ...]]) -> tuple[Signature, ...]:
        """Have a checkpoint cosigned.

        Args:
            note: the signed checkpoint.
            prove: returns the consistency proof from a size (1 or more, at most that of the checkpoint) to it.

        Returns:
            The cosignatures by the key of the witness, verified; others in its answer are ignored.

        Raises:
            Contradiction: the witness has seen a larger tree, or another one.
            SecondPlaceError: it does not answer in time, refuses, or answers wrongly.
            AuditspanError: what `prove` raises.
        """
        checkpoint = Checkpoint.parse(note.text)
        deadline = time.monotonic() + self._timeout
        old = self.size or 0
        for _ in range(2):
            proof = prove(old) if 0 < old < checkpoint.size else ()
            status, body = self._post(protocol.Request(old, proof, note).encode(), deadline)
            if status != http.client.CONFLICT:
                break
            seen = self._seen(body)
            if seen > checkpoint.size:
                raise Contradiction(
                    f"The witness {self._name} has cosigned {seen} entries of this log, and there are only "
                    f"{checkpoint.size} here: the log was set back (restored from a copy?) or is signed in two places.",
                    "Verify both: `auditspan verify` with this witness as a second place shows what is missing.",
                )
            if seen == old:
                raise self._error(f"says that it does not know {old} entries, and that it does")
            old = self.size = seen
        if status != http.client.OK:
            raise self._refusal(status, checkpoint, old)
        found = self._cosignatures(body, note)
        self.size = checkpoint.size
        return found

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @property
    def _name(self) -> str:
        return f"{self.witness.name} ({self.witness.key.name})"

    def _error(self, what: str, advice: str = "") -> SecondPlaceError:
        return SecondPlaceError(f"The witness {self._name} {what.removesuffix('.')}.", advice or "Ask whoever runs it.")

    def _post(self, body: bytes, deadline: float) -> tuple[int, bytes]:
        while True:
            reused = self._connection is not None
            try:
                return self._exchange(body, deadline)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.close()
                late = time.monotonic() >= deadline
                # A connection that was kept may have been closed there; asking again is harmless.
                if late or not reused or not isinstance(error, ConnectionError):
                    raise self._away("it took too long" if late else _words(error)) from None

    def _exchange(self, body: bytes, deadline: float) -> tuple[int, bytes]:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("it took too long")
        if self._connection is None:
            self._connection = self._make(remaining)
        connection = self._connection
        connection.timeout = remaining
        if connection.sock is not None:
            connection.sock.settimeout(remaining)
        # The timeout of a socket is for each piece of the answer; this one is for the whole.
        alarm = threading.Timer(remaining, _shut, (connection,))
        alarm.daemon = True
        alarm.start()
        try:
            connection.request(
                "POST",
                self._prefix + protocol.PATH,
                body,
                {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "auditspan"},
            )
            with connection.getresponse() as response:
                answer = response.read(protocol.MAX_ANSWER + 1)
                # Without these, an answer that was cut off, by the alarm or by somebody, would pass for a whole one.
                if time.monotonic() >= deadline:
                    raise TimeoutError("it took too long")
                if response.length and len(answer) <= protocol.MAX_ANSWER:
                    raise http.client.IncompleteRead(answer, response.length)
                if response.will_close or len(answer) > protocol.MAX_ANSWER:
                    self.close()
                return response.status, answer
        finally:
            alarm.cancel()

    def _away(self, why: str) -> SecondPlaceError:
        return SecondPlaceError(
            f"The witness {self._name} at {self.witness.url} does not answer: {why}.",
            "It is asked again, with growing pauses; the next checkpoint that it cosigns covers all before it.",
        )

    def _seen(self, body: bytes) -> int:
        try:
            return protocol.parse_size(body)
        except FormatError as error:
            raise self._error(f"answers 409 without the size that it saw last. {error.what}") from None

    def _refusal(self, status: int, checkpoint: Checkpoint, old: int) -> AuditspanError:
        if status == http.client.UNPROCESSABLE_ENTITY:
            return Contradiction(
                f"The witness {self._name} refuses the checkpoint of size {checkpoint.size}: it does not continue the "
                f"{old} entries that it cosigned before. Entries of this log were changed or removed, or it is signed "
                "in two places.",
                "Verify the log with this witness as a second place, and find out who could write to its directory.",
            )
        if status == http.client.NOT_FOUND:
            return self._error(f"does not know the log {checkpoint.origin}", "Have log.vkey of this log added there.")
        if status == http.client.FORBIDDEN:
            return self._error(
                "does not take the signature of this log's key",
                "If the key was rotated, have the new verifier key added there.",
            )
        if status == http.client.CONFLICT:
            return self._error("gives another size each time")
        return self._error(f"answers with the HTTP status {status}")

    def _cosignatures(self, body: bytes, note: Note) -> tuple[Signature, ...]:
        key = self.witness.key
        try:
            answer = protocol.parse_signatures(body, note.text)
            time = cosigned(answer, key)
        except FormatError as error:
            raise self._error(f"answers with something that is no cosignature. {error.what}") from None
        if time is None:
            raise self._error(
                "answers without a signature of the key in the policy",
                "Compare the witness's key in the policy with what `auditspan witness keys` shows there.",
            )
        return tuple(item for item in answer.signatures if item[:2] == (key.name, key.key_id))


def _address(witness: Witness) -> tuple[Callable[[float], http.client.HTTPConnection], str]:
    try:
        parts = urlsplit(witness.url or "")
        host, port = parts.hostname or "", parts.port
        usable = parts.scheme in ("http", "https") and bool(host) and not parts.query and not parts.fragment
        parts.path.encode("ascii")
        host.encode("idna")
    except ValueError:
        usable = False
    if not usable or parts.username is not None or any(char <= " " for char in parts.path):
        raise SecondPlaceError(
            f"The witness {witness.name} has no address in the policy that it could be asked at ({witness.url}).",
            "Write its submission prefix, such as https://witness.example, at the end of its line.",
        )
    if parts.scheme == "http":
        return lambda timeout: http.client.HTTPConnection(host, port, timeout=timeout), parts.path.rstrip("/")
    return lambda timeout: http.client.HTTPSConnection(host, port, timeout=timeout), parts.path.rstrip("/")


def _shut(connection: http.client.HTTPConnection) -> None:
    """Make whoever waits for the connection go on."""
    sock = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"what it says is not HTTP ({type(error).__name__})"
