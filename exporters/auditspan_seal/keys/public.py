# SPDX-License-Identifier: Apache-2.0
"""Public keys, as those who verify are given them."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from auditspan_seal.errors import KeyFileError, MalformedNote
from auditspan_seal.formats.note import VerifierKey

_MAX_SIZE = 1_000_000  # bytes of a file of keys


def read_verifier_key(path: Path) -> VerifierKey:
    """Read a public key to verify with.

    Args:
        path: a file with a vkey, or with a PEM public key, which has no name of its own (the name is empty then).

    Raises:
        KeyFileError: the file cannot be read or holds neither, or more than one.
    """
    keys = read_verifier_keys(path)
    if len(keys) > 1:
        raise KeyFileError(f"{path} holds {len(keys)} verifier keys where one is needed.", "Give a file with one key.")
    return keys[0]


def read_verifier_keys(path: Path) -> list[VerifierKey]:
    """Read public keys to verify with.

    Args:
        path: a file with vkeys, one per line (empty lines and lines that begin with ``#`` say nothing), or with one
            PEM public key, which has no name of its own (the name is empty then).

    Raises:
        KeyFileError: the file cannot be read or holds none of this.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_SIZE)
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
            return [VerifierKey("", public.public_bytes_raw())]
    try:
        lines = [line.strip() for line in content.decode().splitlines()]
        return [VerifierKey.parse(line) for line in lines if line and not line.startswith("#")] or [
            VerifierKey.parse("")
        ]
    except (MalformedNote, UnicodeDecodeError) as error:
        detail = error.what if isinstance(error, MalformedNote) else "It is not text."
        raise KeyFileError(
            f"{path} holds no verifier key. {detail}", "Use the file log.vkey of the log directory, one line of text."
        ) from None
