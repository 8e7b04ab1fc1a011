# SPDX-License-Identifier: Apache-2.0
"""Which release or commit some content belongs to: an installed distribution, the interpreter, a git repository."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from auditspan.capture import ungreen
from auditspan.capture.version_content import Content, untouched

_GIT_TIMEOUT = 1.0  # seconds that the audited application may have to wait for git
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CEILING_DIRECTORIES")
_SITE = ("site-packages", "dist-packages")


def distribution_of(content: Content) -> str | None:
    """Name the installed distribution that a file belongs to, and its version.

    Only by the distribution's own list of its files: an editable install does not list them, and its version says
    nothing about what they are now. Neither does a version that was installed after this process began.
    """
    if content.path is None:
        return None
    full = os.path.join(content.path, content.inside) if content.inside else content.path
    for entry in _entries(full):
        inside = os.path.relpath(full, entry).replace(os.sep, "/")
        try:
            with _opened(entry, content) as folder:
                found = _listing(folder, inside)
                if found is None:
                    continue
                listed = content.path if content.inside else os.path.join(entry, found.name, "RECORD")
                if not untouched(listed):
                    return None
                distribution = metadata.PathDistribution(found)  # takes a path in a zip, too
                return f"{distribution.metadata['Name']} {distribution.version}"
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
    return None


def _entries(full: str) -> Iterator[str]:
    """Return the places on the module search path that a file is inside of, nearest first."""
    entries = {os.path.abspath(entry or os.curdir) for entry in sys.path}
    parts = Path(full).parts
    entries |= {str(Path(*parts[: at + 1])) for at, part in enumerate(parts) if part in _SITE}
    yield from sorted((entry for entry in entries if full.startswith(entry + os.sep)), key=len, reverse=True)


@contextmanager
def _opened(entry: str, content: Content) -> Iterator[Path | zipfile.Path]:
    if content.inside is None or content.path is None:
        yield Path(entry)
        return
    with zipfile.ZipFile(content.path) as archive:
        within = os.path.relpath(entry, content.path).replace(os.sep, "/")
        yield zipfile.Path(archive, "" if within == "." else within + "/")


def _listing(folder: Path | zipfile.Path, inside: str) -> Path | zipfile.Path | None:
    """Return the ``.dist-info`` folder whose ``RECORD`` lists a file."""
    top = _normal(inside.partition("/")[0].partition(".")[0])
    infos = [child for child in folder.iterdir() if child.name.endswith(".dist-info")]
    # Most distributions are named as their package: that one first, for there may be hundreds.
    for info in sorted(infos, key=lambda info: _normal(info.name.partition("-")[0]) != top):
        try:
            record = (info / "RECORD").read_text(encoding="utf-8")
        except (OSError, KeyError, UnicodeDecodeError):
            continue
        if f"\n{inside}," in f"\n{record}":
            return info
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def interpreter() -> str:
    """Name the interpreter and its version: the release that its own modules belong to."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def is_interpreters(module: str, origin: str | None, content: Content | None) -> bool:
    """Say whether a module is one of the interpreter itself: built in, frozen into it, or of its standard library.

    Args:
        module: name of the module.
        origin: where its specification says that it is from.
        content: what was loaded; None: not known.
    """
    if module.partition(".")[0] not in sys.stdlib_module_names:
        return False
    if origin in ("built-in", "frozen"):
        return True
    path = content.path if content is not None else None
    if path is None or set(Path(path).parts) & set(_SITE):
        return False
    places = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
    return any(path.startswith(place + os.sep) for place in places if place)


def commit_of(content: Content) -> str | None:
    """Return ``git:<commit>`` if the file is in the commit that is checked out exactly as it was loaded.

    Git is asked once, for at most a second, and only what the commit has: comparing is ours. So git neither looks at
    the working tree nor locks the application's repository, and what is loaded is compared, not what is there now.
    """
    if content.path is None:
        return None
    path = os.path.realpath(content.path)
    folder, name = os.path.split(path)
    env = {key: value for key, value in os.environ.items() if key not in _MISLEADING}
    try:
        with ungreen.popen()(
            ["git", "-C", folder, "rev-parse", "HEAD", f"HEAD:./{name}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        ) as git:
            try:
                said, _ = git.communicate(timeout=_GIT_TIMEOUT)
            except BaseException:
                git.kill()
                raise
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return None
    answer = said.split()
    if git.returncode or len(answer) != 2:
        return None
    commit, blob = answer
    try:
        data = content.data if content.inside is None else Path(path).read_bytes()
    except OSError:
        return None
    # A checkout may have turned line endings into those of Windows.
    if data is not None and blob in (_blob(data, len(blob)), _blob(data.replace(b"\r\n", b"\n"), len(blob))):
        return f"git:{commit}"
    return None


def _blob(data: bytes, digits: int) -> str:
    """Hash a file's content as git does; repositories have SHA-1 or, with 64 digits, SHA-256."""
    content = b"blob %d\0" % len(data) + data
    if digits == 64:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
