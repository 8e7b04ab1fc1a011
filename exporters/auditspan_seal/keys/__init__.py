# SPDX-License-Identifier: Apache-2.0
"""The keys that sign a log: a file or a command, which one is in use, and the change from one to the next."""

from __future__ import annotations

from auditspan_seal.keys.command import CommandSigner
from auditspan_seal.keys.file import KeyFileSigner
from auditspan_seal.keys.public import read_verifier_key, read_verifier_keys
from auditspan_seal.keys.signer import Signer, sign_checkpoint

__all__ = ["CommandSigner", "KeyFileSigner", "Signer", "read_verifier_key", "read_verifier_keys", "sign_checkpoint"]
