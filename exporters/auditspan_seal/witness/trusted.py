# SPDX-License-Identifier: Apache-2.0
"""Reads checkpoints back from a second place, for whoever verifies a log against them."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats.add_checkpoint import origin_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.formats.witness_policy import Policy
from auditspan_seal.witness.archive import Item, read

MAX_MESSAGES = 100
"""Messages about what was not taken; more are only counted."""

_MAX_NOTE = 1_000_000  # bytes
_TIMEOUT = 30.0  # seconds
_SECOND = 1_000_000_000  # nanoseconds


@dataclass(frozen=True)
class TrustedCheckpoint:
    """What a second place says a log was.

    Attributes:
        origin: of the log.
        size: of the tree.
        root: root hash of the tree, 32 bytes.
        source: where it was found, for messages.
        time: nanoseconds since the epoch when it existed, as a second place vouches for: the latest time of its
            cosignatures, else the time of a store that has a clock of its own; None: nobody vouches for a time.
        witnesses: names (of the policy) of the witnesses that cosigned it.
        note: the signed note.
    """

    origin: str
    size: int
    root: bytes
    source: str
    time: int | None
    witnesses: tuple[str, ...]
    note: str = field(default="", repr=False)


@dataclass
class Trusted:
    """What was found in a second place.

    Attributes:
        checkpoints: in the order in which they were found.
        rejected: one message for each thing that was not taken, or that somebody did to the place.
    """

    checkpoints: list[TrustedCheckpoint] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    _more: int = 0

    def reject(self, message: str) -> None:
        """Add a message; only so many are kept, the last of which counts the others."""
        if len(self.rejected) < MAX_MESSAGES:
            self.rejected.append(message)
            return
        self._more += 1
        self.rejected[MAX_MESSAGES:] = [f"… and {self._more} more"]


def load(place: str, policy: Policy | None, log_keys: Sequence[VerifierKey]) -> Trusted:
    """Read the checkpoints in a second place.

    Args:
        place: an archive (file, folder, URL of a store), a file with one note such as ``cosigned.note``, or the
            ``http(s)://`` address of a witness (its monitoring prefix), which is asked for the newest checkpoint of
            each log that `log_keys` or the policy name.
        policy: if given, only checkpoints that it takes are taken.
        log_keys: keys of logs; one without a name is for every log. A checkpoint of a log for which there are keys
            here or in the policy must be signed by one of them. Of a log without any key, and without cosignatures,
            no more is known than that it is in that place.

    Raises:
        SourceError: the place cannot be read.
    """
    found = Trusted()
    keys = [*log_keys, *(log.key for log in policy.logs)] if policy else list(log_keys)
    seen: set[str] = set()
    items = _ask(place, keys) if place.startswith(("http://", "https://")) else read(place)
    for item in items:
        if item.problem:
            found.reject(item.problem)
        if not item.content or item.content in seen:
            continue
        seen.add(item.content)
        try:
            found.checkpoints.append(_take(item, policy, keys))
        except _NotTaken as error:
            found.reject(f"{item.where}: {error}")
        except FormatError as error:
            found.reject(f"{item.where} is no signed checkpoint. {error.what}")
    return found


class _NotTaken(Exception):
    """Why a checkpoint does not count."""


def _take(item: Item, policy: Policy | None, keys: Sequence[VerifierKey]) -> TrustedCheckpoint:
    note = Note.parse(item.content)
    checkpoint = Checkpoint.parse(note.text)
    origin, size = checkpoint.origin, checkpoint.size
    _check_signature(note, origin, size, keys)
    cosigners: dict[str, int] = {}
    if policy is not None:
        cosigners = policy.cosigners(note)
        if policy.logs and all(log.key.name != origin for log in policy.logs):
            raise _NotTaken(f"the log {origin} is not one of the policy.")
        if not policy.reached(cosigners):
            by = ", ".join(cosigners) or "none of its witnesses"
            raise _NotTaken(
                f"the checkpoint of size {size} is cosigned by {by}, which is not the quorum of the policy."
            )
    # Whoever wants a checkpoint to look older than it is needs all of the witnesses, not one that lies.
    time = max(cosigners.values()) * _SECOND if cosigners else item.time
    return TrustedCheckpoint(origin, size, checkpoint.root, item.where, time, tuple(cosigners), item.content)


def _check_signature(note: Note, origin: str, size: int, keys: Sequence[VerifierKey]) -> None:
    mine = [VerifierKey(origin, key.public) for key in keys if key.name in (origin, "")]
    verdicts = [note.signed_by(key) for key in mine]
    if False in verdicts:
        raise _NotTaken(f"the signature of the checkpoint of size {size} does not verify: it was altered or forged.")
    if mine and True not in verdicts:
        ids = ", ".join(key_id.hex() for name, key_id, _ in note.signatures if name == origin) or "none"
        raise _NotTaken(
            f"the checkpoint of size {size} of {origin} is not signed by a key that was given (key IDs on it: {ids}). "
            "After a rotation, give the new key, too."
        )
    if not mine and all(name != origin for name, _, _ in note.signatures):
        raise _NotTaken(f"the checkpoint of size {size} has no signature in the name of its log {origin}.")


def _ask(prefix: str, keys: Sequence[VerifierKey]) -> Iterator[Item]:
    """Ask a witness for what it has cosigned last (tlog-witness, "Monitor Retrieval Mechanism")."""
    origins = sorted({key.name for key in keys} - {""})
    if not origins:
        raise SourceError(
            f"Without the key of a log, the witness {prefix} cannot be asked: it finds a log by its name.",
            "Give the log.vkey of the log with --key, or a policy with a line for the log.",
        )
    for origin in origins:
        url = f"{prefix.rstrip('/')}/{origin_hash(origin)}/checkpoint"
        where = f"the newest checkpoint of {origin} at {prefix}"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:  # noqa: S310 (http and https only, see load)
                content = response.read(_MAX_NOTE)
            yield Item(where, content.decode())
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.NOT_FOUND:
                yield Item(where, "", problem=f"The witness {prefix} has never cosigned the log {origin}.")
                continue
            raise SourceError(
                f"The witness {prefix} answers with the HTTP status {error.code}.", "Try again."
            ) from None
        except UnicodeDecodeError:
            yield Item(where, "", problem=f"{where} is not text.")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise SourceError(
                f"The witness {prefix} cannot be asked: {error}.", "Check the address, and try again."
            ) from None
