# SPDX-License-Identifier: Apache-2.0
"""Object stores for archives: what one must be able to do, how one is made known, and a folder as one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from auditspan_seal.errors import SourceError
from auditspan_seal.keys.safe import sync_folder

SUFFIX = ".note"
MAX_OBJECT = 5_000_000  # bytes: the longest note, each of its characters of four bytes
ENTRY_POINTS = "auditspan_archive_store"
"""Entry point group: name = URL scheme, object = a function that takes the URL and returns a :class:`Store`."""


@dataclass(frozen=True)
class Stored:
    """An object of a store.

    Attributes:
        name: path below the place, parts joined by ``/``.
        time: nanoseconds since the epoch when it was put there, by the clock of the store, not of the writer; None:
            the store does not vouch for a time.
    """

    name: str
    time: int | None = None


class Store(Protocol):
    """What an object store must be able to do. Register one with :func:`register` or by an entry point.

    Every method raises ``OSError`` (or a subclass) if the store cannot be reached or refuses; nothing else. Calls must
    end by themselves (set timeouts).
    """

    def put(self, name: str, content: bytes) -> bool:
        """Write an object, durable when this returns, unless there is one of that name: then return False.

        Whether it is there must be decided by the store (``If-None-Match: *``, generation 0, ``O_EXCL``).
        """

    def list(self, prefix: str) -> Iterator[Stored]:
        """Return all objects whose name begins with `prefix`, in any order."""

    def get(self, name: str) -> bytes:
        """Return the content of an object."""


class FolderStore:
    """A folder as a store: on a volume that others own, or synchronised to one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, name: str, content: bytes) -> bool:
        """Write an object; see :class:`Store`."""
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.parent / f".{target.name}.{secrets.token_hex(8)}"
        try:
            with open(draft, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(draft, 0o444)
            os.link(draft, target)  # unlike a rename, this replaces nothing
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(draft)
        sync_folder(target.parent)
        return True

    def list(self, prefix: str) -> Iterator[Stored]:
        """Return the objects; see :class:`Store`. Times of files are what their writer says: there are none."""
        if not self._path.is_dir():
            raise FileNotFoundError(2, "There is no such folder", str(self._path))
        for folder, _, files in os.walk(self._path, onerror=_raise):
            for file in files:
                name = (Path(folder) / file).relative_to(self._path).as_posix()
                if name.startswith(prefix) and name.endswith(SUFFIX):
                    yield Stored(name)

    def get(self, name: str) -> bytes:
        """Return the content of an object."""
        with open(self._path / name, "rb") as file:
            return file.read(MAX_OBJECT)


_schemes: dict[str, Callable[[str], Store]] = {}


def register(scheme: str, open_store: Callable[[str], Store]) -> None:
    """Make a kind of store known in this process.

    Args:
        scheme: of its URLs, such as ``s3``.
        open_store: takes the whole URL and returns the store; may raise ``OSError`` or ``ValueError``.
    """
    _schemes[scheme] = open_store


def store_of(place: str) -> Store | None:
    """Return the store at a place; None if the place is a file.

    Args:
        place: a URL of a registered scheme; a folder that exists or a path that ends in ``/``; else a file.

    Raises:
        SourceError: no store is registered for the scheme, or it does not take the URL.
    """
    place = place.removeprefix("file://")
    scheme, separator, _ = place.partition("://")
    if separator:
        make = _schemes.get(scheme)
        if make is None:
            from importlib.metadata import entry_points  # slow to import, and needed for this only

            for point in entry_points(group=ENTRY_POINTS, name=scheme):
                make = point.load()
        if make is None:
            raise SourceError(
                f"There is no archive store for the addresses {scheme}://….",
                f"Install a package with an entry point {ENTRY_POINTS!r} named {scheme!r}, or give a file or folder.",
            )
        try:
            return make(place)
        except (OSError, ValueError) as error:
            raise SourceError(f"The archive {place} cannot be opened: {error}.", "Check the address.") from None
    return FolderStore(Path(place)) if place.endswith("/") or Path(place).is_dir() else None


def reason(error: OSError) -> str:
    """Return why a system call failed, in words."""
    return error.strerror or str(error) or type(error).__name__


def _raise(error: OSError) -> None:
    raise error
