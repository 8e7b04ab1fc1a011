# SPDX-License-Identifier: Apache-2.0
"""The bytes that a callable's code was loaded from: only what is known to have been loaded, not what is there now.

A file that has not been touched since this process began is what was loaded. One that is newer may be, or may have been
changed since, which Python does not note. It counts only with evidence: the bytecode file that an import leaves must be
of this source, and the module's functions that are in memory must all be in it, to the line. So a script that is run
itself has none, and neither has anything where bytecode is not written (PYTHONDONTWRITEBYTECODE) or an archive.

What cannot be known, and is taken for unchanged: a newer file that was changed after its import in nothing but
statements outside of functions, if it has been imported once more since (by another process, perhaps); a file that was
changed before this process began, within a second and to the same size, which Python itself takes for the one that its
bytecode is of; and what was changed before this module was loaded, where the application is loaded before it.
"""

from __future__ import annotations
import __future__

import importlib.util
import linecache
import marshal
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from types import CodeType, FunctionType
from typing import Any

from auditspan.capture.version_origin import Origin

_STARTED = time.time_ns()
"""When this module was loaded: when the interpreter starts, under auto-instrumentation, before the application."""

_HEADER = 16  # bytes of a bytecode file before the code
_UNCHECKED = 0b01  # flags in it: has the hash of the source, which is not looked at
_FUTURE = 0
for _feature in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _feature).compiler_flag


@dataclass(frozen=True)
class Content:
    """What was loaded.

    Attributes:
        kind: ``source``, ``bytecode`` or ``binary``.
        data: the bytes; None: what they are is not known, only which file they came with.
        path: the file on disk, which may be an archive; None: it was never in a file.
        inside: path in the archive.
    """

    kind: str
    data: bytes | None
    path: str | None = None
    inside: str | None = None


def untouched(path: str) -> bool:
    """Say whether a file is as it was when this process began, by its times of change."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    # The change of the inode counts, too: a file that is moved into place keeps its older time of modification.
    return max(found.st_mtime_ns, found.st_ctime_ns) <= _STARTED


def vouched(origin: Origin) -> bool:
    """Say whether the code is the module's own: not one that was only executed in its namespace."""
    file, filename = origin.file, origin.filename
    if origin.code is None or origin.in_cell or file == filename:
        return True
    if getattr(origin.namespace.get("__spec__"), "origin", None) == "frozen" or origin.loader is None:
        return filename.startswith("<frozen ")
    if file is None:
        return False
    if file.endswith(tuple(EXTENSION_SUFFIXES)):
        return True
    if file.endswith(".pyc"):  # has the name of the source, wherever that was compiled
        data = _read(origin, file)
        return data is not None and _has(_unmarshalled(data), origin.code)
    return not os.path.isabs(filename) and file.endswith(os.sep + os.path.normpath(filename))


def loaded(origin: Origin) -> Content | None:
    """Return what the code was loaded from; None: not known, or it has been changed since."""
    if origin.in_cell:
        return _in_memory(origin)  # its name is made from its content: it needs no proof
    own = vouched(origin)
    path = origin.file if own else origin.filename
    if not path:
        return None
    if path.endswith(tuple(EXTENSION_SUFFIXES)):
        data = _read(origin, path) if untouched(path) else None
        return Content("binary", data, path) if data is not None else None
    if origin.native:
        return Content("binary", None, path) if untouched(path) else None
    archive = getattr(origin.loader, "archive", None) if own else None
    inside = None
    if isinstance(archive, str) and path.startswith(archive + os.sep):
        inside = path[len(archive) + 1 :]
    elif not os.path.isfile(path):
        return _of_loader(origin) if own else _in_memory(origin)
    data = _read(origin, path)
    if data is None:
        return None
    on_disk = archive if inside is not None and isinstance(archive, str) else path
    kind = "bytecode" if path.endswith(".pyc") else "source"
    if not untouched(on_disk) or not os.path.isabs(path):
        known = kind == "source" and own and inside is None and _left_by_import(origin, data, path)
    elif own:
        known = not _of_other_source(origin, data)
    else:  # any code may be compiled under any name
        known = _has(_compiled(data, path, origin), origin.code)
    return Content(kind, data, os.path.abspath(on_disk), inside) if known else None


# -- where bytes come from --------------------------------------------------------------------------------------------
def _read(origin: Origin, path: str) -> bytes | None:
    try:
        if getattr(origin.loader, "archive", None) and path == origin.file:
            data = origin.loader.get_data(path)
            return data if isinstance(data, bytes) else None
        with open(path, "rb") as file:
            return file.read()
    except Exception:  # an archive that has been exchanged fails in many ways
        return None


def _in_memory(origin: Origin) -> Content | None:
    """Return the source that is kept for tracebacks, under the name that the code was compiled with."""
    entry = linecache.cache.get(origin.filename)
    if entry is None or len(entry) != 4:
        return None
    text = "".join(entry[2])
    # Names such as "<string>" are everyone's: there the text must be shown to be this code's.
    if origin.in_cell or _has(_compiled(text, origin.filename, origin), origin.code):
        return Content("source", text.encode("utf-8", "surrogatepass"))
    return None


def _of_loader(origin: Origin) -> Content | None:
    """Return the source of a module that its loader has from elsewhere than a file."""
    try:
        text = origin.loader.get_source(origin.module)
    except Exception:  # it is someone else's, or has no such method
        return None
    if isinstance(text, str) and _has_functions(text, origin.filename or origin.module, origin):
        return Content("source", text.encode("utf-8", "surrogatepass"))
    return None


# -- whether they are what was loaded ---------------------------------------------------------------------------------
def _of_other_source(origin: Origin, source: bytes) -> bool:
    """Say whether the module came from bytecode that is never compared with its source, and was not made from it."""
    header = _bytecode(origin)[:_HEADER]
    if len(header) < _HEADER or int.from_bytes(header[4:8], "little") != _UNCHECKED:
        return False
    return header[8:] != importlib.util.source_hash(source)


def _bytecode(origin: Origin) -> bytes:
    """Return the bytecode file that the import of the module read or wrote; empty: there is none."""
    cached = getattr(origin.namespace.get("__spec__"), "cached", None)
    if not isinstance(cached, str) or origin.file == cached or getattr(origin.loader, "archive", None):
        return b""
    try:
        with open(cached, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _left_by_import(origin: Origin, source: bytes, path: str) -> bool:
    """Say whether the module was imported from this very source."""
    bytecode = _bytecode(origin)
    return bool(bytecode) and _made_from(bytecode, source, path) and _has_functions(source, path, origin)


def _made_from(bytecode: bytes, source: bytes, path: str) -> bool:
    header = bytecode[:_HEADER]
    if int.from_bytes(header[4:8], "little"):
        return header[8:] == importlib.util.source_hash(source)
    try:
        found = os.stat(path)
    except OSError:
        return False
    wanted = (int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    return (int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")) == wanted


def _has_functions(source: bytes | str, path: str, origin: Origin) -> bool:
    """Say whether the module's functions and methods that are in memory are all in a source."""
    whole = _compiled(source, path, origin)
    if whole is None:
        return False
    there = {_fingerprint(code) for code in _nested(whole)}
    return all(_fingerprint(code) in there for code in _functions(origin))


def _functions(origin: Origin) -> list[CodeType]:
    found = [origin.code] if origin.code is not None else []
    for value in tuple(origin.namespace.values()):
        members: tuple[Any, ...] = (value,)
        if isinstance(value, type):
            members = tuple(vars(value).values()) if value.__module__ == origin.namespace.get("__name__") else ()
        for member in members:
            if isinstance(member, FunctionType) and member.__globals__ is origin.namespace:
                found.append(member.__code__)
    # What is made at run time, by dataclasses for example, is in no file.
    return [c for c in found if c.co_filename == (origin.filename or c.co_filename) and c.co_filename[:1] != "<"]


def _compiled(source: bytes | str, path: str, origin: Origin) -> CodeType | None:
    try:
        if hasattr(origin.loader, "source_to_code") and origin.file == path:
            code = origin.loader.source_to_code(source, path)  # import hooks compile in their own ways
        else:
            flags = origin.code.co_flags & _FUTURE if origin.code is not None else 0
            code = compile(source, path, "exec", flags, dont_inherit=True)
    except Exception:
        return None
    return code if isinstance(code, CodeType) else None


def _unmarshalled(bytecode: bytes) -> CodeType | None:
    try:
        code = marshal.loads(bytecode[_HEADER:])  # noqa: S302 (the interpreter has run it already)
    except (EOFError, ValueError, TypeError):
        return None
    return code if isinstance(code, CodeType) else None


def _has(whole: CodeType | None, code: CodeType | None) -> bool:
    if whole is None or code is None:
        return False
    wanted = _fingerprint(code)
    return any(_fingerprint(each) == wanted for each in _nested(whole) if each.co_name == code.co_name)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _fingerprint(code: CodeType) -> tuple[Any, ...]:
    """Return what makes a code what it is, but for the name of its file.

    Comparing the objects would not do: that takes 1 and True for one constant, and some releases of Python compare what
    the interpreter has optimised while it ran.
    """
    return (
        code.co_name, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_code,
        code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, tuple(code.co_lines()),
        tuple(_constant(constant) for constant in code.co_consts),
    )  # fmt: skip


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return _fingerprint(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    if isinstance(value, frozenset):
        return frozenset(map(_constant, value))
    return type(value), repr(value)
