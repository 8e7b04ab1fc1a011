# SPDX-License-Identifier: Apache-2.0
"""Which version of which script ran: declared > package > VCS revision > source hash. Computed once, never guessed."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from auditspan.capture import version_content, version_release
from auditspan.capture.version_content import Content
from auditspan.capture.version_origin import Origin, origin_of
from auditspan.schema import UNKNOWN

_LIMIT = 1024  # answers that are kept
_HASHED = {"source": "sha256", "bytecode": "bytecode-sha256", "binary": "binary-sha256"}


@dataclass(frozen=True)
class ScriptVersion:
    """A version and where it is known from.

    Attributes:
        version: the version text: what is declared, ``<package> <release>``, ``git:<commit>`` or ``sha256:<hash>`` of
            the source (``bytecode-sha256:``, ``binary-sha256:`` of what there is if there is no source).
        source: ``declared``, ``package``, ``vcs``, ``source_hash`` or ``unknown``.
        name: the script: a dotted function name, a package or a file.
    """

    version: str
    source: str
    name: str


def script_version(function: Callable[..., Any]) -> ScriptVersion:
    """Find the version of the code behind `function` (decorators, partials and bound methods are looked through).

    Declared is what the module, or the nearest package that it is in, has as ``__version__``. A class, or an object
    that can be called, has the version of the module that its class is in. What was changed on disk after it was loaded
    has none, unless it declares one: the file no longer says what runs, and nor do git and the installed package.
    """
    origin = origin_of(function)
    version, source = _resolved(origin)
    name = origin.name
    if origin.in_cell:
        name += " (notebook cell)"
    elif origin.filename.startswith("<") and not origin.filename.startswith("<frozen "):
        name += " (made at run time)"
    return ScriptVersion(version, source, name)


def package_version(distribution: str, declared: str | None = None) -> ScriptVersion:
    """Return the version of an installed distribution, or the `declared` one where a library declares its own."""
    if declared:
        return ScriptVersion(declared, "declared", distribution)
    try:
        return ScriptVersion(metadata.version(distribution), "package", distribution)
    except metadata.PackageNotFoundError:
        return ScriptVersion(UNKNOWN, UNKNOWN, distribution)


# -- once per code, and what costs most once per file -----------------------------------------------------------------
# By identity and not by name: a module that is loaded anew has new code under the old names.
_answers: dict[tuple[int, str], tuple[weakref.ref[Any], tuple[str, str]]] = {}
_releases: dict[tuple[str, str | None, bytes], tuple[str, str] | None] = {}


def _resolved(origin: Origin) -> tuple[str, str]:
    key = (id(origin.subject), origin.module)
    known = _answers.get(key)
    if known is not None and known[0]() is origin.subject:
        return known[1]
    answer = _resolve(origin)
    while len(_answers) >= _LIMIT:
        _answers.pop(next(iter(_answers), key), None)
    with contextlib.suppress(TypeError):  # not all that is compiled can be referred to weakly
        _answers[key] = (weakref.ref(origin.subject), answer)
    return answer


def _resolve(origin: Origin) -> tuple[str, str]:
    declared = _declared(origin)
    if declared is not None:
        return declared, "declared"
    content = version_content.loaded(origin)
    come_from = getattr(origin.namespace.get("__spec__"), "origin", None)
    if version_content.vouched(origin) and version_release.is_interpreters(origin.module, come_from, content):
        return version_release.interpreter(), "package"
    if content is None:
        return UNKNOWN, UNKNOWN
    release = _release(content)
    if release is not None:
        return release
    if content.data is None:
        return UNKNOWN, UNKNOWN
    return f"{_HASHED[content.kind]}:{hashlib.sha256(content.data).hexdigest()}", "source_hash"


def _declared(origin: Origin) -> str | None:
    if not version_content.vouched(origin):
        return None  # what is executed in a module's namespace is not what the module declares
    namespace, name = origin.namespace, origin.module
    while True:
        # Not by getattr: a module's __getattr__ is the application's code, and may warn.
        version = namespace.get("__version__")
        if isinstance(version, str) and version:
            return version
        name = name.rpartition(".")[0]
        if not name:
            return None
        parent = sys.modules.get(name)
        namespace = vars(parent) if isinstance(parent, ModuleType) else {}


def _release(content: Content) -> tuple[str, str] | None:
    if content.path is None:
        return None
    key = (content.path, content.inside, hashlib.sha256(content.data or b"").digest())
    if key not in _releases:
        while len(_releases) >= _LIMIT:
            _releases.pop(next(iter(_releases), key), None)
        _releases[key] = _find_release(content)
    return _releases[key]


def _find_release(content: Content) -> tuple[str, str] | None:
    distribution = version_release.distribution_of(content)
    if distribution is not None:
        return distribution, "package"
    commit = version_release.commit_of(content)
    return (commit, "vcs") if commit is not None else None
