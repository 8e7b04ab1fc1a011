# SPDX-License-Identifier: Apache-2.0
"""What a log and a witness say to each other: ``add-checkpoint`` of https://c2sp.org/tlog-witness.

The log sends its new checkpoint, the size that the witness saw last, and a proof of consistency between the two; the
witness answers with its cosignature, or with what it saw last.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from auditspan_seal.errors import MalformedMessage
from auditspan_seal.formats.merkle import HASH_SIZE
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.formats.proof import MAX_PROOF

PATH = "/add-checkpoint"
"""After the submission prefix."""

SIZE_TYPE = "text/x.tlog.size"
"""Content type of the answer 409."""

MAX_REQUEST = 64 * 1024
"""Bytes of a request: 63 proof lines and a note with well over 16 signatures, also post-quantum ones of 5 kB."""

MAX_ANSWER = 64 * 1024
"""Bytes of an answer."""


@dataclass(frozen=True)
class Request:
    """Body of a request.

    Attributes:
        old: tree size that the witness is thought to have seen last; 0: none.
        proof: consistency proof from `old` to the checkpoint; none if `old` is 0 or its size.
        note: the signed checkpoint.
    """

    old: int
    proof: tuple[bytes, ...]
    note: Note

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint in the note. Its signature is not verified.

        Raises:
            MalformedNote: it is not one.
        """
        return Checkpoint.parse(self.note.text)

    def encode(self) -> bytes:
        """Return the body."""
        lines = [f"old {self.old}", *(base64.b64encode(item).decode() for item in self.proof), "", str(self.note)]
        return "\n".join(lines).encode()

    @classmethod
    def parse(cls, body: bytes) -> Request:
        """Read a body.

        Raises:
            MalformedMessage: it is not one.
            MalformedNote: it does not end in a signed checkpoint.
        """
        if len(body) > MAX_REQUEST:
            raise MalformedMessage(f"The request is longer than {MAX_REQUEST} bytes.")
        # No line before the checkpoint is empty, so the first empty line is where it begins.
        head, separator, note = _text(body, "request").partition("\n\n")
        first, *lines = head.split("\n")
        if not separator or not first.startswith("old "):
            raise MalformedMessage("A request must begin with the line 'old <size>' and have a checkpoint.")
        if len(lines) > MAX_PROOF:
            raise MalformedMessage(f"The request has {len(lines)} proof lines, at most {MAX_PROOF} are allowed.")
        request = cls(_size(first.removeprefix("old ")), tuple(map(_hash, lines)), Note.parse(note))
        request.checkpoint()
        return request


def parse_size(body: bytes) -> int:
    """Read the answer 409: the size that the witness saw last.

    Raises:
        MalformedMessage: it is not a size and LF.
    """
    text = _text(body[: MAX_ANSWER + 1], "answer")
    if not text.endswith("\n"):
        raise MalformedMessage("The answer with the size that the witness saw last does not end in a line feed.")
    return _size(text[:-1])


def size_body(size: int) -> bytes:
    """Return the body of the answer 409."""
    return f"{size}\n".encode()


def parse_signatures(body: bytes, text: str) -> Note:
    """Read the answer 200: the witness's signature lines.

    Args:
        body: of the answer.
        text: the text of the checkpoint that was sent.

    Returns:
        A note of that text with these signatures, none of them verified.

    Raises:
        MalformedMessage: it is too long or not text.
        MalformedNote: it is not lines of signatures.
    """
    if len(body) > MAX_ANSWER:
        raise MalformedMessage(f"The answer of the witness is longer than {MAX_ANSWER} bytes.")
    lines = _text(body, "answer")
    if "\n\n" in lines or lines.startswith("\n"):
        # With an empty line in it, the answer would be read as the text of another note.
        raise MalformedMessage("The answer of the witness has an empty line.")
    return Note.parse(f"{text}\n{lines}")


def signatures_body(note: Note) -> bytes:
    """Return the body of the answer 200: the signature lines of a note."""
    return str(note)[len(note.text) + 1 :].encode()


def origin_hash(origin: str) -> str:
    """Return the name of a log in the address of its latest checkpoint (tlog-witness, "Monitor Retrieval")."""
    return hashlib.sha256(origin.encode()).hexdigest()


def _text(body: bytes, what: str) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise MalformedMessage(f"The {what} is not text in UTF-8.") from None


def _size(text: str) -> int:
    # isdecimal alone would let other scripts' digits through; int() alone signs, spaces and underscores
    if not (text.isascii() and text.isdecimal()) or (len(text) > 1 and text[0] == "0") or len(text) > 19:
        raise MalformedMessage("A tree size is not a decimal number.")
    if int(text) >= 2**63:
        raise MalformedMessage("A tree size is beyond 2^63 - 1.")
    return int(text)


def _hash(line: str) -> bytes:
    try:
        raw = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessage("The base64 of a proof line is malformed.") from None
    if len(raw) != HASH_SIZE or base64.b64encode(raw).decode() != line:
        raise MalformedMessage(f"A proof line is not the canonical base64 of a hash of {HASH_SIZE} bytes.")
    return raw
