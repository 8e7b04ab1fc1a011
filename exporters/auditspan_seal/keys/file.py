# SPDX-License-Identifier: Apache-2.0
"""A signing key in a file that only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan_seal.errors import KeyFileError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import safe

_WHAT = "The signing key"


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
    def generate(cls, name: str) -> tuple[KeyFileSigner, bytes]:
        """Make a new key; return it with its PEM text, which is nowhere else yet."""
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return cls(key, name), pem

    @classmethod
    def load_or_create(cls, path: Path, name: str) -> KeyFileSigner:
        """Read the key file, or make a new key with mode 0600 if there is none.

        Raises:
            KeyFileError: the file cannot be read or made, is open to others, or holds no Ed25519 key.
        """
        if not os.path.lexists(path):
            try:
                safe.check_folder(path, _WHAT)
                signer, pem = cls.generate(name)
                if safe.create(path, pem):
                    return signer
            except OSError as error:
                raise KeyFileError(
                    f"The signing key {path} could not be made: {error.strerror}.",
                    "Give the process write access to that folder, or set AUDITSPAN_KEY_FILE to an existing key.",
                ) from None
        return cls.load(path, name)

    @classmethod
    def load(cls, path: Path, name: str) -> KeyFileSigner:
        """Read an existing key file; see :meth:`load_or_create`."""
        pem = safe.read(path, _WHAT, safe.READABLE_BY_OTHERS)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise KeyFileError(
                f"The signing key {path} is encrypted with a passphrase, which nobody is there to type.",
                "Use a key file without one, or keep the key where a command can use it: `auditspan keys new --help`.",
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            kind = "" if key is None else f" but a key of another kind ({type(key).__name__.strip('_')})"
            raise KeyFileError(
                f"{path} holds no Ed25519 private key in PEM form (PKCS #8){kind}.",
                "Point AUDITSPAN_KEY_FILE to the right file, or remove it to have a new key made.",
            )
        return cls(key, name)
