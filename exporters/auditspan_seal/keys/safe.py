# SPDX-License-Identifier: Apache-2.0
"""Files that others must not read or change: read with care, written whole, destroyed when they are done with."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from auditspan_seal.errors import KeyFileError

READABLE_BY_OTHERS = 0o077
WRITABLE_BY_OTHERS = 0o022
_MAX_SIZE = 65_536  # bytes
_MAX_LINKS = 10


def read(path: Path, what: str, forbidden: int) -> bytes:
    """Read a file that only its owner may have had a hand in.

    Symbolic links are followed one by one, as secrets are mounted by links; each must be in a folder that others
    cannot write, as must the file itself.

    Args:
        path: the file.
        what: what it is, for messages: ``The signing key``.
        forbidden: mode bits that must not be set: :data:`READABLE_BY_OTHERS` or :data:`WRITABLE_BY_OTHERS`.

    Returns:
        Its content, 64 KiB at most.

    Raises:
        KeyFileError: it cannot be read, is no file, or others could read or replace it.
    """
    try:
        real = _follow(path, what)
        # Not blocking: a named pipe would wait for a writer.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            _check_file(path, what, status, forbidden)
            _check_owner(real, what, status)
            with os.fdopen(os.dup(descriptor), "rb") as file:
                content = file.read(_MAX_SIZE + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyFileError(
            f"{what} {path} cannot be read: {error.strerror}.",
            "Run as the user that owns it, or set AUDITSPAN_KEY_FILE to the right file.",
        ) from None
    if not content:
        raise KeyFileError(
            f"{what} {path} is empty: the disk was full, or something cut it.",
            "Restore it from a backup. If the log has not begun yet, remove it and a new one is made.",
        )
    if len(content) > _MAX_SIZE:
        raise KeyFileError(f"{what} {path} is longer than {_MAX_SIZE} bytes.", "Point to the right file.")
    return content


def _follow(path: Path, what: str) -> Path:
    for _ in range(_MAX_LINKS):
        check_folder(path, what)
        if not path.is_symlink():
            return path
        path = path.parent / os.readlink(path)
    raise KeyFileError(f"{what} {path} is a symbolic link that leads through too many others.", "Name the file itself.")


def check_folder(path: Path, what: str) -> None:
    """Refuse a folder in which others could put another file in the place of this one.

    Raises:
        KeyFileError: others could.
        OSError: there is no such folder.
    """
    folder = path.parent
    status = os.stat(folder)
    # In a folder with the sticky bit (/tmp, mounted secrets) others may add files but not replace those of somebody.
    if status.st_mode & WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
        raise KeyFileError(
            f"{what} {path} is in a folder that other users can write (mode {stat.S_IMODE(status.st_mode):04o}): they "
            "could put another one in its place.",
            f"Run `chmod go-w {folder}`, or keep the key in a folder of its own and set AUDITSPAN_KEY_FILE.",
        )
    user = os.geteuid()
    if user and status.st_uid not in (0, user):
        raise KeyFileError(
            f"{what} {path} is in a folder of another user (user number {status.st_uid}), who could replace it.",
            "Keep the key in a folder of the user that signs.",
        )


def _check_file(path: Path, what: str, status: os.stat_result, forbidden: int) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        raise KeyFileError(f"{what} {path} is a folder.", "Name the file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{what} {path} is not a regular file but a pipe or device.", "Name a regular file.")
    if mode & forbidden & 0o055:
        raise KeyFileError(
            f"{what} {path} can be read by other users (mode {mode:04o}): it may have leaked.",
            f"If nobody else could have copied it, run `chmod 600 {path}`; else make a new key.",
        )
    if mode & forbidden:
        raise KeyFileError(
            f"{what} {path} can be written by other users (mode {mode:04o}): it may have been replaced.",
            f"If it is still yours, run `chmod go-w {path}`; else make a new one.",
        )


def _check_owner(path: Path, what: str, status: os.stat_result) -> None:
    user = os.geteuid()
    # Root may read for the user that owns both the file and its folder: `sudo auditspan keys show`.
    allowed = (0, user) if user else (0, os.stat(path.parent).st_uid)
    if status.st_uid not in allowed:
        raise KeyFileError(
            f"{what} {path} belongs to another user (user number {status.st_uid}), who may have put it there.",
            "Make the user that signs its owner, if it is the right one.",
        )


def create(path: Path, content: bytes) -> bool:
    """Make a file with mode 0600 that is there as a whole or not at all.

    Returns:
        False if there is one already, or a symbolic link of that name.

    Raises:
        OSError: it cannot be made.
    """
    draft = _draft(path, content, 0o600)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        os.unlink(draft)
    sync_folder(path.parent)
    return True


def show(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole, for others to read; not synced, so only for what can be made again.

    Args:
        path: the file.
        data: its content.
        mode: who may read it, whatever the umask is.

    Raises:
        OSError: it cannot be written; the one before it is still there.
    """
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
    os.rename(draft, path)


def replace(path: Path, content: bytes, mode: int) -> None:
    """Make or replace a file, as a whole or not at all.

    Raises:
        OSError: it cannot be made.
    """
    draft = _draft(path, content, mode)
    try:
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    sync_folder(path.parent)


def _draft(path: Path, content: bytes, mode: int) -> Path:
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
    except OSError:
        os.unlink(draft)
        raise
    return draft


def destroy(path: Path) -> None:
    """Overwrite a file with zeros and remove it; one that is gone is fine.

    The blocks are overwritten where they are as far as the file system does that. One that copies on writing, an SSD
    and a backup may keep the old ones.

    Raises:
        OSError: it cannot be overwritten or removed.
    """
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.unlink(path)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk.

    Raises:
        OSError: it cannot be done.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
