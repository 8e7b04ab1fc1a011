# SPDX-License-Identifier: Apache-2.0
"""The keys that sign a log: a file or a command, which one is in use, and the change from one to the next."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditspan_seal.keys.command import CommandSigner
    from auditspan_seal.keys.file import KeyFileSigner
    from auditspan_seal.keys.public import read_verifier_key, read_verifier_keys
    from auditspan_seal.keys.signer import Signer, sign_checkpoint

__all__ = ["CommandSigner", "KeyFileSigner", "Signer", "read_verifier_key", "read_verifier_keys", "sign_checkpoint"]

_PLACES = {
    "CommandSigner": "command",
    "KeyFileSigner": "file",
    "Signer": "signer",
    "read_verifier_key": "public",
    "read_verifier_keys": "public",
    "sign_checkpoint": "signer",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: a process that only records needs no cryptography, whose import takes long.
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{place}"), name)
