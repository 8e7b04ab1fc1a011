# SPDX-License-Identifier: Apache-2.0
"""Which keys may sign the checkpoints of a log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from auditspan_seal.errors import FormatError, KeyFileError
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.verify.report import Code

Covered = Callable[[int, int], bool]


class Revocation:
    """A key that is not to be trusted any more."""

    origin = ""


def coverage(checkpoints: Iterable[tuple[int, int | None]]) -> Covered:
    """Return what trusted checkpoints cover."""
    known = [(size, time) for size, time in checkpoints if time is not None]
    return lambda size, before: any(size <= at and time < before for at, time in known)


def read_revocation(path: Path) -> Revocation:
    """Read a revocation file."""
    raise KeyFileError(f"{path} is no revocation.", "Use the file that `auditspan keys revoke --out` wrote.")


class KeyRing:
    """The keys of one log, walked along with it.

    Args:
        origin: the log.
        pinned: the keys to trust; one without a name counts for every log. None: the key that the log names itself.
        revocations: keys that are not to be trusted any more.
        covered: what is fixed outside of the log.
    """

    def __init__(
        self,
        origin: str,
        pinned: Sequence[VerifierKey] = (),
        revocations: Sequence[Revocation] = (),
        covered: Covered = lambda size, before: False,
    ) -> None:
        by_name = {key.name: key for key in pinned}
        self._origin = origin
        self._given = bool(pinned)
        self._key = by_name.get(origin) or by_name.get("")
        if self._key is not None:
            self._key = VerifierKey(origin, self._key.public)
        self._ids: set[str] = set()
        self._count = self._wrong = self.verified = 0

    @property
    def trust(self) -> str:
        """What the keys rest on."""
        if self._given:
            return "pinned"
        return "first_use" if self._key is not None else "none"

    def entry(self, index: int, fields: Mapping[str, Any]) -> Iterator[tuple[Code, str]]:
        """Take a proven entry that speaks of keys."""
        if fields.get("type") == "genesis" and not self._given:
            try:
                self._key = VerifierKey.parse(str(fields.get("key")))
            except FormatError:
                self._key = None
        yield from ()

    def checkpoint(self, note: Note, first: int, size: int, latest: int | None) -> Iterator[tuple[Code, str]]:
        """Take a checkpoint, after the entries of its batch."""
        self._count += 1
        if self._key is None:
            return
        self._ids |= {key_id.hex() for _, key_id, _ in note.signatures}
        signed = note.signed_by(self._key)
        if signed is None:
            self._wrong += 1
        elif not signed:
            yield Code.CHECKPOINT_INVALID, "The signature of the checkpoint is not valid."
        else:
            self.verified += 1

    def finish(self) -> Iterator[tuple[Code, str]]:
        """Say what is left at the end."""
        if self._key is None and self._count:
            yield (
                Code.NO_KEY,
                f"None of the keys that were given is for the log {self._origin}: give its log.vkey with --key, or "
                "leave the log out with --origin."
                if self._given
                else "No key was given, and the entry that names the key (index 0) is not there.",
            )
        elif self._key is not None and self._wrong:
            yield (
                Code.WRONG_KEY,
                f"{self._wrong} of {self._count} checkpoints are not signed with the trusted key "
                f"{self._key.key_id.hex()} but with {', '.join(sorted(self._ids))}. Either the wrong key was given, or "
                "the log was signed anew by somebody else.",
            )
