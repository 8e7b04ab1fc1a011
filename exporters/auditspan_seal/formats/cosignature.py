# SPDX-License-Identifier: Apache-2.0
"""Cosignatures: what a witness adds to a checkpoint, https://c2sp.org/tlog-cosignature.

A cosignature is one more signature line of a note. It says: at this time, this was the largest tree of the log that the
witness had seen, and it has all that was in every tree that it saw before. Only the form with Ed25519 (signature type
0x04) is known here; lines of other types are ignored, as signed-note demands.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from auditspan_seal.errors import MalformedNote
from auditspan_seal.formats.note import Note

MAX_TIME = 2**63 - 1
"""The latest time of a cosignature, in seconds since the epoch (tlog-cosignature, "Format")."""

_TYPE = b"\x04"  # signature type of signed-note, "Signature types"
_SIZE = 8 + 64  # timestamped_signature: time, then the Ed25519 signature

Signature = tuple[str, bytes, bytes]  # key name, key ID, signature bytes: as in Note.signatures


@dataclass(frozen=True)
class CosignerKey:
    """The public key of a witness with its name; in text form a *vkey* with the type byte 0x04.

    It is not a `VerifierKey`: the same key ID algorithm byte would let a signature of a log pass for one of a witness.
    """

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """First 4 bytes of SHA-256(name ‖ LF ‖ 0x04 ‖ key) (tlog-cosignature, "Format")."""
        return hashlib.sha256(self.name.encode() + b"\n" + _TYPE + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_TYPE + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> CosignerKey:
        """Parse a vkey of a witness (signed-note, "Verifier keys").

        Raises:
            MalformedNote: it is not one, is for another kind of signature, or its key ID does not fit.
        """
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not _is_name(parts[0]):
            raise MalformedNote("The key of a witness must read name+keyid+key.")
        try:
            raw = base64.b64decode(parts[2], validate=True)
        except (binascii.Error, ValueError):
            raise MalformedNote("The base64 of the key of a witness is malformed.") from None
        if base64.b64encode(raw).decode() != parts[2]:
            raise MalformedNote("The base64 of the key of a witness is not in its one canonical form.")
        if raw[:1] == b"\x01":
            raise MalformedNote("This is the key of a log (type 0x01), not of a witness (type 0x04).")
        if raw[:1] == b"\x06":
            raise MalformedNote("ML-DSA-44 keys of witnesses (type 0x06) are not supported, only Ed25519 (type 0x04).")
        if len(raw) != 33 or raw[:1] != _TYPE:
            raise MalformedNote("The key of a witness is not an Ed25519 key for cosignatures (type 0x04).")
        key = cls(parts[0], raw[1:])
        if key.key_id.hex() != parts[1]:
            raise MalformedNote(f"The key ID of the witness is {parts[1][:16]!r}, {key.key_id.hex()} would fit.")
        return key


def message(text: str, time: int) -> bytes:
    """Return what a witness signs (tlog-cosignature, "Ed25519 signed message").

    Args:
        text: the text of the checkpoint's note, with its last LF.
        time: seconds since the epoch.
    """
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def make(key: CosignerKey, sign: Callable[[bytes], bytes], text: str, time: int) -> Signature:
    """Make a cosignature.

    Args:
        key: of the witness.
        sign: returns an Ed25519 signature (64 bytes) by the private half of `key`.
        text: the text of the checkpoint's note.
        time: seconds since the epoch, from 1 (tlog-witness forbids to leave the time out).

    Returns:
        A signature for :attr:`Note.signatures`.

    Raises:
        MalformedNote: there is no such time.
    """
    if not 1 <= time <= MAX_TIME:
        raise MalformedNote(f"A cosignature cannot have the time {time}: it must be from 1 to 2^63 - 1 seconds.")
    return key.name, key.key_id, time.to_bytes(8, "big") + sign(message(text, time))


def cosigned(note: Note, key: CosignerKey) -> int | None:
    """Tell when a witness cosigned a note.

    Returns:
        Seconds since the epoch, the latest if there are several; None: there is no cosignature by that key.

    Raises:
        MalformedNote: something with name and ID of the key is no valid cosignature of this text. That spoils the
            note (signed-note, "Signatures").
    """
    found = [s for name, key_id, s in note.signatures if name == key.name and key_id == key.key_id]
    return max((_check(note.text, key, signature) for signature in found), default=None)


def _check(text: str, key: CosignerKey, signature: bytes) -> int:
    time = int.from_bytes(signature[:8], "big")
    if len(signature) != _SIZE or not 1 <= time <= MAX_TIME:
        raise MalformedNote(f"A cosignature by {key.name} has no time, or is not {_SIZE} bytes long.")
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature[8:], message(text, time))
    except (InvalidSignature, ValueError):
        raise MalformedNote(f"A cosignature by {key.name} is not of this checkpoint, or was altered.") from None
    return time


def _is_name(name: str) -> bool:
    # half of a surrogate pair has no UTF-8, and so no key ID
    return bool(name) and not any(char == "+" or char.isspace() or "\ud800" <= char <= "\udfff" for char in name)
