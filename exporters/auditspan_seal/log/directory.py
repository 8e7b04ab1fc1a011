# SPDX-License-Identifier: Apache-2.0
"""The log directory: where things are, and the name (origin) of the log in it."""

from __future__ import annotations

import os
import re
import secrets
import socket
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from auditspan_seal.errors import DirectoryError
from auditspan_seal.keys import safe
from auditspan_seal.keys.places import Places


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
        """Folder of segments like those of processes, for what only the log's owner may say (erasure, revocation)."""
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
        return Places.of(self.path).key

    @property
    def verifier_key(self) -> Path:
        """The public key, to be copied to whoever verifies."""
        return Places.of(self.path).verifier_key

    @property
    def checkpoint(self) -> Path:
        """The newest published checkpoint, a signed note (the name is that of C2SP tlog-tiles)."""
        return self.path / "checkpoint"

    @property
    def predecessor(self) -> Path:
        """The last checkpoint of the log that the next one in this directory replaces; a signed note."""
        return self.path / "predecessor"

    @property
    def bell(self) -> Path:
        """The file by which the sequencer is asked for an answer in :attr:`signed`: whoever waits appends a byte."""
        return self.path / "wake"

    @property
    def signed(self) -> Path:
        """What the sequencer answers to those who wait for a signed checkpoint."""
        return self.path / "signed.json"

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


def rename_log(directory: Directory) -> Directory:
    """Give the log that begins in this directory a new origin: the one it had is that of a log that is lost."""
    origin = _new_origin()
    safe.replace(directory.path / "origin", f"{origin}\n".encode(), mode_of(directory.path))
    return Directory(directory.path, origin)


_SHARED = stat.S_ISGID | stat.S_IXGRP


def mode_of(folder: Path) -> int:
    """Return the mode for a new file in a folder: readable by the group if :func:`share` has opened it to that."""
    return 0o640 if folder.stat().st_mode & _SHARED == _SHARED else 0o600


def share(directory: Directory, group: int) -> None:
    """Let the processes of a group record into the directory, and no more: only its owner signs, or reads the key.

    Args:
        directory: the directory; this process is of the user who owns it.
        group: ID of the group.

    Raises:
        DirectoryError: this user may not give it to the group.
    """
    # The set-group-ID bit gives new files to the group; the sticky bit keeps others from removing them.
    modes = {
        directory.path: 0o2750,
        directory.segments: 0o3770,
        directory.processes: 0o3770,
        directory.control: 0o700,
        directory.log: 0o700,
    }
    secret = directory.path / "pseudonym.key"  # all processes need it, and none of them may make it there
    try:
        for folder, mode in modes.items():
            folder.mkdir(mode=0o700, exist_ok=True)
            if mode != 0o700:
                os.chown(folder, -1, group)
            os.chmod(folder, mode)
        if not secret.exists():
            safe.replace(secret, secrets.token_hex(32).encode(), 0o600)
        for path in (directory.path / "origin", secret):
            os.chown(path, -1, group)
            os.chmod(path, 0o640)
    except OSError as error:
        raise DirectoryError(
            f"The directory {directory.path} cannot be shared with the group {group}: {error.strerror}.",
            "Run the agent as the user who owns the directory, and make that user a member of the group.",
        ) from None


def _create(path: Path, origin_file: Path) -> None:
    above = [parent for parent in path.absolute().parents if not parent.exists()]
    for folder in (path, path / "segments", path / "control", path / "log", path / "processes"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (path.absolute(), *above):
        if os.access(folder.parent, os.R_OK):
            safe.sync_folder(folder.parent)  # else a power cut could take the whole directory away
    # Many processes may start at once: the first of them names the log.
    safe.create(origin_file, f"{_new_origin()}\n".encode())


def _new_origin() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
    return f"{host}/auditspan/{secrets.token_hex(8)}"
