# SPDX-License-Identifier: Apache-2.0
"""The log directory: where things are, and the name (origin) of the log in it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from auditspan_seal.errors import DirectoryError


@dataclass(frozen=True)
class Directory:
    """A log directory.

    Attributes:
        path: the directory.
        origin: the name of its log, first line of every checkpoint.
    """

    path: Path
    origin: str

    @property
    def segments(self) -> Path:
        """Folder of the segment files, one or more per writing process."""
        return self.path / "segments"

    @property
    def control(self) -> Path:
        """Folder of segments that only the owner of the log may write: erasures and revocations."""
        return self.path / "control"

    @property
    def log(self) -> Path:
        """Folder of the log files."""
        return self.path / "log"

    @property
    def processes(self) -> Path:
        """Folder of what each audited process says about itself."""
        return self.path / "processes"

    @property
    def lock(self) -> Path:
        """The file whose lock makes a process the sequencer."""
        return self.path / "sequencer.lock"

    @property
    def key(self) -> Path:
        """The signing key: AUDITSPAN_KEY_FILE, or a file of the directory."""
        return Path(os.environ.get("AUDITSPAN_KEY_FILE") or self.path / "key.pem")

    @property
    def verifier_key(self) -> Path:
        """The public key, to be copied to whoever verifies."""
        return self.path / "log.vkey"

    @property
    def delivery(self) -> Path:
        """How far delivery is."""
        return self.path / "delivery.json"


def default_path() -> Path:
    """Return AUDITSPAN_DIR, or the platform's state directory (XDG base directory specification)."""
    given = os.environ.get("AUDITSPAN_DIR")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "auditspan"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "auditspan"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "auditspan"


def open_directory(path: Path, *, create: bool = False) -> Directory:
    """Open a log directory.

    Args:
        path: the directory.
        create: make it, with a new origin, if it is not one yet.

    Raises:
        DirectoryError: it is not a log directory, or cannot be read or made.
    """
    origin_file = path / "origin"
    try:
        if create and not origin_file.exists():
            _create(path, origin_file)
        origin = origin_file.read_text(encoding="utf-8").rstrip("\n")
        list_check = os.access(path, os.R_OK | os.X_OK)
    except FileNotFoundError:
        raise DirectoryError(
            f"{path} is not an auditspan directory: it has no file 'origin'.",
            "Give the directory that AUDITSPAN_DIR names for the audited process, or start an audited process first.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its file 'origin' is not text"
        raise DirectoryError(
            f"The directory {path} cannot be {'used' if create else 'read'}: {reason}.",
            "Check the path and its permissions; the audited process and this command must both reach it.",
        ) from None
    if not list_check or not origin or not re.fullmatch(r"[^\s+]+", origin):
        raise DirectoryError(
            f"The directory {path} cannot be read, or its file 'origin' is damaged.",
            "Check its permissions; restore the file 'origin' (first line of any checkpoint) from a backup.",
        )
    return Directory(path, origin)


def _create(path: Path, origin_file: Path) -> None:
    for folder in (path, path / "segments", path / "control", path / "log", path / "processes"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
    # Many processes may start at once: the one whose link is first names the log.
    draft = path / f".origin-{secrets.token_hex(8)}"
    draft.write_text(f"{host}/auditspan/{secrets.token_hex(8)}\n", encoding="utf-8")
    with contextlib.suppress(FileExistsError):
        os.link(draft, origin_file)
    draft.unlink()
