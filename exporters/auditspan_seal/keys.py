# SPDX-License-Identifier: Apache-2.0
"""The signing key: an Ed25519 key in a file that only its owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auditspan_seal.errors import KeyFileError, MalformedNote
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey


class Signer(Protocol):
    """Something that can sign for a name."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half."""

    def sign(self, message: bytes) -> bytes:
        """Return a signature (64 bytes) over `message`."""


class KeyFileSigner:
    """Signs with a private key read from a PEM file (PKCS #8)."""

    def __init__(self, key: Ed25519PrivateKey, name: str) -> None:
        self._key = key
        self._verifier_key = VerifierKey(name, key.public_key().public_bytes_raw())

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half."""
        return self._verifier_key

    def sign(self, message: bytes) -> bytes:
        """Return an Ed25519 signature over `message`."""
        return self._key.sign(message)

    @classmethod
    def load_or_create(cls, path: Path, name: str) -> KeyFileSigner:
        """Read the key file, or make a new key with mode 0600 if there is none.

        Raises:
            KeyFileError: the file cannot be read or made, is open to others, or holds no Ed25519 key.
        """
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return cls.load(path, name)
        except OSError as error:
            raise KeyFileError(
                f"The signing key {path} could not be made: {error.strerror}.",
                "Give the process write access to that folder, or set AUDITSPAN_KEY_FILE to an existing key.",
            ) from None
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        return cls(key, name)

    @classmethod
    def load(cls, path: Path, name: str) -> KeyFileSigner:
        """Read an existing key file; see :meth:`load_or_create`."""
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            pem = path.read_bytes()
        except OSError as error:
            raise KeyFileError(
                f"The signing key {path} cannot be read: {error.strerror}.",
                "Run as the user that owns the key, or set AUDITSPAN_KEY_FILE to the right file.",
            ) from None
        if mode & 0o077:
            raise KeyFileError(
                f"The signing key {path} can be read by other users (mode {mode:04o}): it may have leaked.",
                f"If nobody else could have copied it, run `chmod 600 {path}`; else make a new key.",
            )
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(
                f"{path} holds no Ed25519 private key in PEM form (PKCS #8).",
                "Point AUDITSPAN_KEY_FILE to the right file, or remove it to have a new key made.",
            )
        return cls(key, name)


def sign_checkpoint(signer: Signer, checkpoint: Checkpoint) -> Note:
    """Sign a checkpoint: a note with one signature."""
    text = checkpoint.text()
    key = signer.verifier_key
    return Note(text, ((key.name, key.key_id, signer.sign(text.encode())),))


def read_verifier_key(path: Path) -> VerifierKey:
    """Read a public key to verify with.

    Args:
        path: a file with a vkey, or with a PEM public key, which has no name of its own (the name is empty then).

    Raises:
        KeyFileError: the file cannot be read or holds neither.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeyFileError(
            f"The key {path} cannot be read: {error.strerror}.", "Check the path given to --key."
        ) from None
    if b"PRIVATE KEY" in content:
        raise KeyFileError(
            f"{path} is a private key. Verifying needs the public one, and the private one should stay where it signs.",
            "Use the file log.vkey of the log directory.",
        )
    if content.startswith(b"-----BEGIN"):
        try:
            public = serialization.load_pem_public_key(content)
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if isinstance(public, Ed25519PublicKey):
            return VerifierKey("", public.public_bytes_raw())
    try:
        return VerifierKey.parse(content.decode())
    except (MalformedNote, UnicodeDecodeError) as error:
        detail = error.what if isinstance(error, MalformedNote) else "It is not text."
        raise KeyFileError(
            f"{path} holds no verifier key. {detail}", "Use the file log.vkey of the log directory, one line of text."
        ) from None
