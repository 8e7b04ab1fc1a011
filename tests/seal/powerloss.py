# SPDX-License-Identifier: Apache-2.0
"""A disk that forgets what was not synced: what a folder holds after the power was cut.

It is strict: the content of a file is on disk only as of its last fsync, a name only as of the last fsync of its
folder, what is stored into a mapping never. After an fsync that failed, the pages it was for are gone even if a later
one is successful, unless they were written anew (as Linux does it: https://lwn.net/Articles/752063/).
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PAGE = 4096


class Disk:
    """What is on disk of a folder. Also for forked processes: all is kept in files.

    Args:
        root: the folder; what is in it now is on disk.
        store: a folder on the same file system, for the bookkeeping.
        fails: tells of a path whether its fsync fails now.
    """

    def __init__(self, root: Path, store: Path, fails: Callable[[Path], bool] = lambda path: False) -> None:
        self.root = root
        self.fails = fails
        self._store = store
        self._real = {name: getattr(os, name) for name in ("fsync", "write", "pwrite", "ftruncate")}
        for name in ("content", "folders", "kept", "lost"):
            (store / name).mkdir(parents=True)
        for folder, _, files in os.walk(root):
            for path in (Path(folder), *(Path(folder) / name for name in files)):
                self._sync(path, path.stat())

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let what happens inside go to this disk, in this process and those that it forks."""

        def fsync(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path != self.root and self.root not in path.parents:
                return
            status = os.fstat(descriptor)
            if self.fails(path):
                self._lose(status, path)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self._sync(path, status)

        def write(descriptor: int, data: bytes) -> int:
            done = int(self._real["write"](descriptor, data))
            self._rewritten(descriptor, lambda size: (size - done, size))
            return done

        def pwrite(descriptor: int, data: bytes, offset: int) -> int:
            done = int(self._real["pwrite"](descriptor, data, offset))
            self._rewritten(descriptor, lambda _: (offset, offset + done))
            return done

        def ftruncate(descriptor: int, length: int) -> None:
            self._real["ftruncate"](descriptor, length)
            self._rewritten(descriptor, lambda _: (length, 1 << 62))

        changed: dict[str, Any] = {"fsync": fsync, "write": write, "pwrite": pwrite, "ftruncate": ftruncate}
        for name, function in changed.items():
            setattr(os, name, function)
        try:
            yield
        finally:
            for name, function in self._real.items():
                setattr(os, name, function)

    def cut(self, target: Path, chance: random.Random | None = None) -> None:
        """Write what is on disk to another folder.

        Args:
            target: the folder.
            chance: of what was not synced a part is on disk all the same, page by page and name by name; None: nothing.
        """
        self._rebuild(self.root, self.root.stat().st_ino, target, chance)

    # -- what is on disk ---------------------------------------------------------------------------------------

    def _sync(self, path: Path, status: os.stat_result) -> None:
        if stat.S_ISDIR(status.st_mode):
            names = {}
            for item in os.scandir(path):
                found = item.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    names[item.name] = [stat.S_ISDIR(found.st_mode), found.st_ino]
                    self._keep(Path(item.path), found)
            self._save(self._store / "folders" / str(status.st_ino), json.dumps(names).encode())
            return
        self._keep(path, status)
        content = bytearray(path.read_bytes())
        lost = self._store / "lost" / str(status.st_ino)
        if lost.exists():
            before = self._content(status.st_ino)
            for page in json.loads(lost.read_text()):
                begin, end = page * PAGE, min((page + 1) * PAGE, len(content))
                content[begin:end] = before[begin:end].ljust(max(0, end - begin), b"\0")
        self._save(self._store / "content" / str(status.st_ino), bytes(content))

    def _lose(self, status: os.stat_result, path: Path) -> None:
        """Forget, as the kernel does after a write-back that failed, that pages differ from what is on disk."""
        if stat.S_ISREG(status.st_mode):
            now, before = path.read_bytes(), self._content(status.st_ino)
            pages = [
                page
                for page in range((len(now) + PAGE - 1) // PAGE)
                if now[page * PAGE : (page + 1) * PAGE] != before[page * PAGE : (page + 1) * PAGE]
            ]
            self._save(self._store / "lost" / str(status.st_ino), json.dumps(pages).encode())

    def _rewritten(self, descriptor: int, what: Callable[[int], tuple[int, int]]) -> None:
        status = os.fstat(descriptor)
        lost = self._store / "lost" / str(status.st_ino)
        if lost.exists():
            begin, end = what(status.st_size)
            left = [page for page in json.loads(lost.read_text()) if (page + 1) * PAGE <= begin or page * PAGE >= end]
            self._save(lost, json.dumps(left).encode())

    def _keep(self, path: Path, status: os.stat_result) -> None:
        """Hold on to a file, so that its number is not given to another one."""
        kept = self._store / "kept" / str(status.st_ino)
        if stat.S_ISREG(status.st_mode) and not kept.exists():
            try:
                os.link(path, kept)
            except FileExistsError:
                pass
            except FileNotFoundError:  # renamed or removed meanwhile: by its number, then, it is not found either
                pass

    def _content(self, number: int) -> bytes:
        path = self._store / "content" / str(number)
        return path.read_bytes() if path.exists() else b""

    def _save(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f"{path.name}.{os.getpid()}.{random.getrandbits(32)}")
        draft.write_bytes(content)
        draft.rename(path)

    # -- after the cut -----------------------------------------------------------------------------------------

    def _rebuild(self, now: Path, number: int, target: Path, chance: random.Random | None) -> None:
        target.mkdir(mode=0o700)
        listing = self._store / "folders" / str(number)
        on_disk = json.loads(listing.read_text()) if listing.exists() else {}
        present = {}
        if chance is not None and now.is_dir() and now.stat().st_ino == number:
            for item in sorted(os.scandir(now), key=lambda item: item.name):
                found = item.stat(follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    present[item.name] = [stat.S_ISDIR(found.st_mode), found.st_ino]
        for name in sorted({*on_disk, *present}):
            entry = on_disk.get(name)
            if chance is not None and entry != present.get(name) and chance.random() < 0.5:
                entry = present.get(name)
            if entry is None:
                continue
            if entry[0]:
                self._rebuild(now / name, entry[1], target / name, chance)
            else:
                (target / name).touch(mode=0o600)
                (target / name).write_bytes(self._after_cut(now / name, entry[1], chance))

    def _after_cut(self, now: Path, number: int, chance: random.Random | None) -> bytes:
        before = self._content(number)
        if chance is None or (chance.random() < 0.3):
            return before
        kept = self._store / "kept" / str(number)
        source = kept if kept.exists() else now
        if not source.exists() or source.stat().st_ino != number:
            return before
        content = source.read_bytes()
        mixed = bytearray(max(len(before), len(content)))
        for begin in range(0, len(mixed), PAGE):
            chosen = content if chance.random() < 0.5 else before
            mixed[begin : begin + PAGE] = chosen[begin : begin + PAGE].ljust(min(PAGE, len(mixed) - begin), b"\0")
        sizes = sorted((len(before), len(content)))
        return bytes(mixed[: chance.choice((*sizes, chance.randint(*sizes)))])


def forget(store: Path) -> None:
    """Remove the bookkeeping."""
    shutil.rmtree(store)
