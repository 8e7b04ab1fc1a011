# SPDX-License-Identifier: Apache-2.0
"""Signed notes and checkpoints: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from auditspan_seal.errors import MalformedNote
from auditspan_seal.formats.merkle import HASH_SIZE

_ED25519 = b"\x01"  # signature type of signed-note
MAX_NOTE = 1_000_000  # characters
MAX_SIGNATURES = 100
MAX_KEY = 10_000  # characters of a vkey
# What a note must not have: control characters other than LF (signed-note), and what is no UTF-8.
_NOT_IN_NOTES = re.compile("[\x00-\x09\x0b-\x1f\ud800-\udfff]")
_DASH = "— "  # EM DASH and a space, as signed-note has it


@dataclass(frozen=True)
class VerifierKey:
    """A public key with the name it signs under; in text form a *vkey*: ``name+keyid+base64``."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name ‖ LF ‖ type ‖ key)."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Parse a vkey.

        Raises:
            MalformedNote: it is not one, or its key ID does not fit.
        """
        if len(text) > MAX_KEY:
            raise MalformedNote(f"The verifier key is longer than {MAX_KEY} characters.")
        parts = text.strip(" \t\r\n").split("+", 2)
        if len(parts) != 3 or not _is_name(parts[0]):
            raise MalformedNote("A verifier key must read name+keyid+key.")
        raw = _decode(parts[2], "the key of the verifier key")
        if len(raw) != 33 or raw[:1] != _ED25519:
            raise MalformedNote("The verifier key is not an Ed25519 key.")
        key = cls(parts[0], raw[1:])
        if key.key_id.hex() != parts[1]:
            raise MalformedNote(f"The key ID of the verifier key is {parts[1][:16]!r}, {key.key_id.hex()} would fit.")
        return key

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` (64 bytes) over `message` is by this key."""
        # Here, because a process that only records imports this module and verifies nothing.
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Note:
    """A text (ends in LF) and its signatures as (key name, key ID, signature bytes)."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def __str__(self) -> str:
        lines = [f"{_DASH}{n} {base64.b64encode(i + s).decode()}\n" for n, i, s in self.signatures]
        return f"{self.text}\n{''.join(lines)}"

    @classmethod
    def parse(cls, note: str) -> Note:
        """Parse a signed note.

        Raises:
            MalformedNote: it is not one.
        """
        if len(note) > MAX_NOTE:
            raise MalformedNote(f"The note is longer than {MAX_NOTE} characters.")
        if _NOT_IN_NOTES.search(note):
            raise MalformedNote("The note has control characters, or half of a surrogate pair.")
        text, separator, block = note.rpartition("\n\n")
        if not separator or not block.endswith("\n"):
            raise MalformedNote("The note has no signature block.")
        lines = block[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise MalformedNote(f"A note has 1 to {MAX_SIGNATURES} signatures, this one {len(lines)}.")
        signatures = []
        for line in lines:
            name, space, encoded = line.removeprefix(_DASH).partition(" ")
            if not line.startswith(_DASH) or not space or not _is_name(name):
                raise MalformedNote("A signature line of the note is malformed.")
            raw = _decode(encoded, "a signature of the note")
            if len(raw) < 5:
                raise MalformedNote("A signature of the note is too short.")
            signatures.append((name, raw[:4], raw[4:]))
        return cls(text + "\n", tuple(signatures))

    def signed_by(self, key: VerifierKey) -> bool | None:
        """Tell whether the note is signed by `key`: None if there is no signature of that name and key ID."""
        found = [s for name, key_id, s in self.signatures if name == key.name and key_id == key.key_id]
        if not found:
            return None
        # A bad signature by a known key spoils the note, whatever else is on it (signed-note, "Verifying").
        return all(key.verifies(self.text.encode(), signature) for signature in found)


@dataclass(frozen=True)
class Checkpoint:
    """Origin, tree size and root hash: all that a log commits to."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the note text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Parse the text of a checkpoint; extension lines are allowed and ignored, as tlog-checkpoint says.

        Raises:
            MalformedNote: it is not one.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] != "" or not lines[0]:
            raise MalformedNote("A checkpoint must have an origin, a tree size and a root hash, one per line.")
        size = lines[1]
        # isdecimal alone would let other scripts' digits and leading zeros through
        if not (size.isascii() and size.isdecimal()) or (len(size) > 1 and size[0] == "0") or len(size) > 19:
            raise MalformedNote("The tree size of the checkpoint is not a decimal number.")
        if int(size) >= 2**63:
            raise MalformedNote("The tree size of the checkpoint is beyond 2^63 - 1.")
        if "" in lines[3:-1]:
            raise MalformedNote("A checkpoint has an empty extension line.")
        root = _decode(lines[2], "the root hash of the checkpoint")
        if len(root) != HASH_SIZE:
            raise MalformedNote(f"The root hash of the checkpoint is not {HASH_SIZE} bytes long.")
        return cls(lines[0], int(size), root)


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() or "\ud800" <= c <= "\udfff" for c in name)


def _decode(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedNote(f"The base64 of {what} is malformed.") from None
    if base64.b64encode(raw).decode() != text:
        raise MalformedNote(f"The base64 of {what} is not in its one canonical form.")
    return raw
