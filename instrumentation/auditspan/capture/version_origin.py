# SPDX-License-Identifier: Apache-2.0
"""What is behind a callable: the code that it runs and the module that this is in. No file is looked at here."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_LAYERS = 100  # of decorators and partials that are looked through
_CELL = re.compile(r"(?:^<|[\\/])ipython-input-|[\\/]ipykernel_\d+[\\/][^\\/]+\.py$")


@dataclass(frozen=True)
class Origin:
    """Where a callable comes from.

    Attributes:
        name: dotted name.
        subject: the object that stays the same as long as the version does.
        namespace: the names of the module that the code is in; empty: it is in none that is known.
        code: compiled Python code; None: there is none, or it is not to be had.
        native: it is no Python code.
    """

    name: str
    subject: Any
    namespace: Mapping[str, Any]
    code: CodeType | None
    native: bool = False

    @property
    def module(self) -> str:
        """Name that the module was loaded as, also of one that runs as ``__main__``."""
        return getattr(self.namespace.get("__spec__"), "name", None) or self.namespace.get("__name__") or ""

    @property
    def loader(self) -> Any:
        """What loaded the module; None: not known."""
        return self.namespace.get("__loader__") or getattr(self.namespace.get("__spec__"), "loader", None)

    @property
    def file(self) -> str | None:
        """The module's file, as the module says."""
        file = self.namespace.get("__file__")
        return file if isinstance(file, str) else None

    @property
    def filename(self) -> str:
        """The name that the code was compiled under, empty if there is no code."""
        return self.code.co_filename if self.code is not None else ""

    @property
    def in_cell(self) -> bool:
        """Whether the code is a cell of a notebook (or of IPython in a terminal)."""
        return is_cell(self.filename)


def is_cell(filename: str) -> bool:
    """Say whether a code's file name is one that IPython and its kernel make up for a cell, from its content."""
    return _CELL.search(filename) is not None


def origin_of(function: Any) -> Origin:
    """Find the origin of a callable, looking through decorators, partials and methods.

    A decorator that leaves no ``__wrapped__`` hides what it decorates: then the origin is that of the decorator's
    function, and named so.
    """
    thing = _innermost(function)
    if isinstance(thing, FunctionType):
        return _of_function(thing)
    if isinstance(thing, type):
        return _of_class(thing, thing.__qualname__)
    for letter in ("gi", "cr", "ag"):  # a generator, a coroutine, an asynchronous generator that has begun
        code = inspect.getattr_static(thing, f"{letter}_code", None) and getattr(thing, f"{letter}_code")
        if isinstance(code, CodeType):
            frame = getattr(thing, f"{letter}_frame")
            namespace = frame.f_globals if frame is not None else {}
            return Origin(_dotted(namespace.get("__name__"), thing.__qualname__), code, namespace, code)
    # The second: functions as compilers make them, such as Cython.
    if inspect.isroutine(thing) or inspect.getattr_static(thing, "__code__", None) is not None:
        return _of_native(thing)
    call = ".__call__" if hasattr(type(thing), "__call__") else ""  # noqa: B004 (asked of the class)
    return _of_class(type(thing), type(thing).__qualname__ + call)


def _innermost(thing: Any) -> Any:
    for _ in range(_LAYERS):
        inner = _inside(thing)
        if inner is None:
            break
        thing = inner
    return thing


def _inside(thing: Any) -> Any:
    """Return what a callable only passes on to; None: it does something itself."""
    if isinstance(thing, FunctionType):
        own = vars(thing)
        # A partial method, asked for at its class, is a function that refers to it (the name has changed in 3.13).
        return own.get("__wrapped__") or own.get("__partialmethod__") or own.get("_partialmethod")
    if isinstance(thing, type):
        return None
    if isinstance(thing, (functools.partial, functools.partialmethod)):
        return thing.func
    if isinstance(thing, (MethodType, staticmethod, classmethod)):
        return thing.__func__
    # Statically: a proxy may answer for any name, and an application's __getattr__ is not ours to run.
    if inspect.getattr_static(thing, "__wrapped__", None) is not None:
        inner = getattr(thing, "__wrapped__", None)
        return inner if callable(inner) else None
    return None


def _of_function(function: FunctionType) -> Origin:
    code, namespace = function.__code__, function.__globals__
    module, name = namespace.get("__name__"), function.__qualname__
    if function.__module__ != module:
        # Named after another function, as old decorators do. The version is that of this one's code: so is the name.
        name = getattr(code, "co_qualname", code.co_name)
    return Origin(_dotted(module, name), code, namespace, code)


def _of_class(kind: type, qualname: str) -> Origin:
    name = _dotted(kind.__module__, qualname)
    for function in _methods(kind):
        its_own = function.__globals__.get("__name__") == function.__module__ == kind.__module__
        if its_own and function.__qualname__.rpartition(".")[0] == kind.__qualname__:
            filename = function.__code__.co_filename
            if is_cell(filename) or not filename.startswith("<"):  # "<string>": made by dataclasses, for example
                return Origin(name, kind, function.__globals__, function.__code__)
    return Origin(name, kind, _namespace(kind.__module__), None)


def _methods(kind: type) -> Iterator[FunctionType]:
    for member in tuple(vars(kind).values()):
        if isinstance(member, property):
            member = member.fget
        elif isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if isinstance(member, FunctionType):
            yield member


def _of_native(thing: Any) -> Origin:
    """Describe a built-in function, a method of a built-in type, or a function of an extension module."""
    owner = getattr(thing, "__self__", None)
    kind = getattr(thing, "__objclass__", None) or (owner if isinstance(owner, type) else type(owner))
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    module = getattr(thing, "__module__", None) or kind.__module__
    if isinstance(owner, ModuleType):
        module = owner.__name__
    namespace = _namespace(module)
    if not str(namespace.get("__file__", "")).endswith(tuple(EXTENSION_SUFFIXES)):
        namespace = _extension_with(thing, module) or namespace
    return Origin(_dotted(module, name), thing, namespace, None, native=True)


def _extension_with(thing: Any, module: str) -> Mapping[str, Any] | None:
    """Return the extension module of the same package that has this very object: packages give theirs out as their own.

    That is an identity, no likeness; None: there is none.
    """
    top = module.partition(".")[0]
    for name, candidate in tuple(sys.modules.items()):
        if name.partition(".")[0] == top and isinstance(candidate, ModuleType):
            namespace = vars(candidate)
            file = namespace.get("__file__")
            native = isinstance(file, str) and file.endswith(tuple(EXTENSION_SUFFIXES))
            if native and any(value is thing for value in tuple(namespace.values())):
                return namespace
    return None


def _namespace(module: str | None) -> Mapping[str, Any]:
    found = sys.modules.get(module or "")
    return vars(found) if isinstance(found, ModuleType) else {}


def _dotted(module: str | None, name: str) -> str:
    return f"{module}.{name}" if module else name
