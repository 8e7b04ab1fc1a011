# SPDX-License-Identifier: Apache-2.0
"""Which version of which script ran: declared > package > VCS revision > source hash. Computed once, never guessed."""

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from auditspan.schema import UNKNOWN

_GIT_TIMEOUT = 1.0  # seconds that the audited application may have to wait for git


@dataclass(frozen=True)
class ScriptVersion:
    """A version and where it is known from.

    Attributes:
        version: the version text.
        source: ``declared``, ``package``, ``vcs``, ``source_hash`` or ``unknown``.
        name: the script: a dotted function name, a package or a file.
    """

    version: str
    source: str
    name: str


def script_version(function: Callable[..., Any]) -> ScriptVersion:
    """Find the version of the code behind `function` (decorators, partials and bound methods are looked through).

    A class has the version of the module that it is defined in.
    """
    if inspect.isclass(function):
        file = getattr(sys.modules.get(function.__module__), "__file__", None)
        return _resolve(function.__module__, f"{function.__module__}.{function.__qualname__}", file)
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__code__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004 (it is known to be callable)
    module = getattr(function, "__module__", None) or ""
    qualname = getattr(function, "__qualname__", type(function).__name__)
    code = getattr(function, "__code__", None)
    return _resolve(module, f"{module}.{qualname}", code.co_filename if code else None)


def package_version(distribution: str, declared: str | None = None) -> ScriptVersion:
    """Return the version of an installed distribution, or the `declared` one where a library declares its own."""
    if declared:
        return ScriptVersion(declared, "declared", distribution)
    try:
        return ScriptVersion(metadata.version(distribution), "package", distribution)
    except metadata.PackageNotFoundError:
        return ScriptVersion(UNKNOWN, UNKNOWN, distribution)


@functools.lru_cache(maxsize=1024)
def _resolve(module: str, name: str, filename: str | None) -> ScriptVersion:
    top = module.partition(".")[0]
    declared = getattr(sys.modules.get(module), "__version__", None) or getattr(
        sys.modules.get(top), "__version__", None
    )
    if isinstance(declared, str) and declared:
        return ScriptVersion(declared, "declared", name)
    path = Path(filename) if filename else None
    if path is not None and path.is_file():
        distribution = _distribution_of(top, path)
        if distribution is not None:
            return ScriptVersion(f"{distribution[0]} {distribution[1]}", "package", name)
        revision = _vcs_revision(path)
        if revision is not None:
            return ScriptVersion(revision, "vcs", name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return ScriptVersion(f"sha256:{digest}", "source_hash", name)
    return ScriptVersion(UNKNOWN, UNKNOWN, name)


def _distribution_of(top: str, path: Path) -> tuple[str, str] | None:
    """Name the installed distribution that owns the file: only by its own file list, never by a like-sounding name."""
    if "site-packages" not in path.parts and "dist-packages" not in path.parts:
        return None
    for name in metadata.packages_distributions().get(top, ()):
        for file in metadata.files(name) or ():
            if file.name == path.name and os.path.abspath(str(file.locate())) == os.path.abspath(path):
                return name, metadata.version(name)
    return None


def _vcs_revision(path: Path) -> str | None:
    """Return ``git:<commit>`` if git tracks the file and it is unchanged since that commit, else None."""
    # One call, because the first delivery to an endpoint waits for it; once per file and process.
    question = ["status", "--porcelain=v2", "--branch", "--untracked-files=all", "--ignored=matching", "--", str(path)]
    try:
        done = subprocess.run(
            ["git", "-C", str(path.parent), *question], capture_output=True, text=True, timeout=_GIT_TIMEOUT
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), "(initial)")
    # A line that is no header says that the file is changed, untracked or ignored.
    if done.returncode or commit == "(initial)" or any(not line.startswith("# ") for line in lines):
        return None
    return f"git:{commit}"
