# SPDX-License-Identifier: Apache-2.0
"""The files of the keys of a log directory, and which of them counts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from auditspan_seal.errors import KeyFileError

KEY_FILE = "AUDITSPAN_KEY_FILE"
"""Setting: a key file somewhere else than in the directory."""


@dataclass(frozen=True)
class Places:
    """The files of the keys of a directory.

    Attributes:
        directory: the log directory.
        key: the private key of the current signer, if it is a file.
        signer: the description of the current signer, if it is a command; None: AUDITSPAN_KEY_FILE rules that out.
    """

    directory: Path
    key: Path
    signer: Path | None

    @classmethod
    def of(cls, directory: Path) -> Places:
        """Return those of a directory, in this environment."""
        given = os.environ.get(KEY_FILE)
        if given:
            return cls(directory, Path(given), None)
        return cls(directory, directory / "key.pem", directory / "signer.json")

    @property
    def verifier_key(self) -> Path:
        """The public key, for those who verify."""
        return self.directory / "log.vkey"

    @property
    def next_key(self) -> Path:
        """The private key of the next signer, if it is a file."""
        return self.key.with_name(f"next-{self.key.name}")

    @property
    def next_signer(self) -> Path | None:
        """The description of the next signer, if it is a command."""
        return self.signer and self.signer.with_name(f"next-{self.signer.name}")

    @property
    def change(self) -> Path:
        """What is to be said about the change."""
        return self.directory / "next-change.json"

    @property
    def old_key(self) -> Path:
        """A private key that is done with and to be destroyed; a second name of it, until then."""
        return self.key.with_name(f"old-{self.key.name}")

    @property
    def current(self) -> Path:
        """The file that decides about the current signer; it may not be there."""
        return self.command or self.key

    @property
    def command(self) -> Path | None:
        """The description of the command that signs now; None: a key file does."""
        return self.signer if self.signer is not None and there(self.signer) else None

    @property
    def next(self) -> Path | None:
        """The file that decides about the next signer; None: there is none."""
        found = [path for path in (self.next_signer, self.next_key) if path is not None and there(path)]
        if len(found) > 1:
            raise KeyFileError(
                f"Two next keys are prepared: {found[0]} and {found[1]}.",
                "Remove the one that is not wanted; `auditspan keys show` tells their key IDs.",
            )
        return found[0] if found else None


def there(path: Path) -> bool:
    """Tell whether there is something of that name, be it a dangling link."""
    return os.path.lexists(path)


def same(one: Path, other: Path) -> bool:
    """Tell whether two names are of one file."""
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except FileNotFoundError:
        return False
