# SPDX-License-Identifier: Apache-2.0
"""What a signer is, and what is signed with one: checkpoints and changes of keys."""

from __future__ import annotations

from typing import Protocol

from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.keychange import (
    Revocation,
    Rotation,
    revocation_entry,
    revocation_text,
    rotation_entry,
    rotation_text,
)
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey


class Signer(Protocol):
    """Something that can sign for a name."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half."""

    def sign(self, message: bytes) -> bytes:
        """Return a signature (64 bytes, Ed25519) over `message`.

        Raises:
            SignerError: it cannot sign now.
        """


def sign_checkpoint(signer: Signer, checkpoint: Checkpoint, *more: Signer) -> Note:
    """Sign a checkpoint: a note with one signature by each signer, in this order.

    Args:
        signer: who signs; for a rotation the old key.
        checkpoint: what.
        more: who signs, too; for a rotation the new key.

    Raises:
        SignerError: one of them cannot sign now; nothing is signed by half.
    """
    text = checkpoint.text()
    signatures = []
    for each in (signer, *more):
        key = each.verifier_key
        signatures.append((key.name, key.key_id, each.sign(text.encode())))
    return Note(text, tuple(signatures))


def certify_rotation(
    origin: str,
    index: int,
    old: Signer,
    new: Signer,
    *,
    time: int,
    not_after: int | None = None,
    reason: str = "",
    actor: str = "",
) -> bytes:
    """Return the statement of a rotation, certified by both keys.

    Args:
        origin: name of the log.
        index: that the entry will have.
        old: the current key.
        new: the next one.
        time: now, in nanoseconds since the epoch.
        not_after: nanoseconds since the epoch from which the new key must not sign any more.
        reason: why, for people.
        actor: the account that asked for it.

    Raises:
        SignerError: one of the two cannot sign now.
        MalformedKeyChange: this would be no rotation, for example because both keys are the same.
    """
    text = rotation_text(origin, index, old.verifier_key, new.verifier_key, not_after)
    rotation = Rotation(
        origin,
        index,
        old.verifier_key,
        new.verifier_key,
        (old.sign(text), new.sign(text)),
        time,
        not_after,
        statements.text(reason),
    )
    entry = rotation_entry(rotation, statements.text(actor))
    Rotation.parse(statements.decode(entry))  # what is wrong with it must be known before it is in the log for good
    return entry


def certify_revocation(
    origin: str,
    index: int,
    key: VerifierKey,
    signer: Signer,
    *,
    since: int,
    reason: str,
    time: int,
    actor: str = "",
) -> bytes:
    """Return the statement of a revocation, certified by the current key.

    Args:
        origin: name of the log.
        index: number of entries in the log now.
        key: the key to revoke.
        signer: the current key.
        since: nanoseconds since the epoch; what was signed then or later is not to be trusted.
        reason: why, for people; it is public.
        time: now, in nanoseconds since the epoch.
        actor: the account that asked for it.

    Raises:
        SignerError: the current key cannot sign now.
        MalformedKeyChange: this would be no revocation, for example because the reason is too long.
    """
    reason = statements.text(reason)
    text = revocation_text(origin, index, key, since, reason)
    revocation = Revocation(origin, index, key, since, reason, signer.sign(text), time)
    entry = revocation_entry(revocation, statements.text(actor))
    Revocation.parse(statements.decode(entry))
    return entry
