# SPDX-License-Identifier: Apache-2.0
"""The plugin contract: a hook is a generator that yields once, where the library's own function runs.

::

    @hook
    def sync_all(call: Call) -> Hook:
        with recorder.record(...) as record:      # before
            result = yield                        # the library's own function runs, exactly once
            record.set(ROWS, result.rows)         # after; an exception of the library is raised at the yield

Whatever the hook does, the application gets what it would have got without it: the library's return value or the
library's exception, unchanged. A fault of the hook is contained and counted (:mod:`auditspan.capture.faults`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import wrapt

from auditspan.capture import faults

Hook = Generator[None, Any, None]


@dataclass
class Call:
    """One call of a patched function. A hook may replace `function`, `args` and `kwargs` before it yields.

    Attributes:
        instance: the object whose method is called; None for a plain function.
        args: positional arguments, without the instance.
        kwargs: keyword arguments.
        function: what is called at the yield; for the few hooks that must work inside the call and not only around it.
    """

    instance: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    function: Callable[..., Any]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument that may be given by position or by name."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(name, default)


HookFunction = Callable[[Call], Hook]


@dataclass(frozen=True)
class Patch:
    """One row of a plugin's patch table.

    Attributes:
        module: module to patch, for example ``singer_sdk.tap_base``.
        attribute: function in it, for example ``Tap.sync_all``.
        hook: what runs around it.
        lazy: patch when the application imports the module; it is then not imported for the sake of the patch alone.
    """

    module: str
    attribute: str
    hook: HookFunction
    lazy: bool = False


def apply(patch: Patch, plugin: str) -> Callable[[], None]:
    """Patch one function.

    Args:
        patch: what to patch.
        plugin: for the name of the place in fault counts.

    Returns:
        A function that switches the hook off again. Wrappers that others put on top stay in place.

    Raises:
        ImportError: there is no such module.
        AttributeError: there is no such function in it.
    """
    if patch.lazy and patch.module not in sys.modules:
        return _apply_when_imported(patch, plugin)
    owner: Any = import_module(patch.module)
    *path, name = patch.attribute.split(".")
    for step in path:
        owner = getattr(owner, step)
    switch = _Switch()
    make = _async_wrapper if inspect.iscoroutinefunction(getattr(owner, name)) else _sync_wrapper
    wrapper = make(patch.hook, f"{plugin}: {patch.attribute}", switch)
    wrapt.wrap_function_wrapper(owner, name, wrapper)

    def remove() -> None:
        switch.on = False
        # Taken off only if it is still the outermost layer; under a foreign wrapper it stays, switched off.
        layer = inspect.getattr_static(owner, name)
        if getattr(layer, "_self_wrapper", None) is wrapper:
            setattr(owner, name, layer.__wrapped__)

    return remove


def _apply_when_imported(patch: Patch, plugin: str) -> Callable[[], None]:
    removals: list[Callable[[], None]] = []
    switch = _Switch()

    def imported(module: Any) -> None:
        # We are inside the application's import statement: what is wrong here is our fault and stays with us.
        with faults.contained(f"{plugin}: patch {patch.module}:{patch.attribute}"):
            if switch.on:
                removals.append(apply(patch, plugin))

    wrapt.register_post_import_hook(imported, patch.module)

    def remove() -> None:
        switch.on = False
        for undo in removals:
            undo()

    return remove


class _Switch:
    """Lets a wrapper that cannot be taken off be switched off."""

    __slots__ = ("on",)

    def __init__(self) -> None:
        self.on = True


class _Driver:
    """Runs one hook around one call and keeps its faults away from the application."""

    __slots__ = ("_hook", "_where", "call")

    def __init__(self, hook: HookFunction, where: str, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> None:
        self._where = where
        self._hook: Hook | None = None
        self.call = Call(instance, args, kwargs, wrapped)
        original = (args, dict(kwargs))
        try:
            generator = hook(self.call)
            next(generator)
            self._hook = generator
        except StopIteration:
            pass  # a hook that does not yield has nothing to say about this call
        except Exception as error:
            faults.count(where, error)
            # Half-made changes are taken back.
            self.call.function, (self.call.args, self.call.kwargs) = wrapped, original

    def returned(self, result: Any) -> None:
        if self._hook is not None:
            try:
                self._hook.send(result)
            except StopIteration:
                return
            except Exception as error:
                faults.count(self._where, error)
                return
            self._hook.close()
            faults.count(self._where, RuntimeError("the hook yielded more than once"))

    def raised(self, error: BaseException) -> None:
        if self._hook is not None:
            traceback = error.__traceback__
            try:
                self._hook.throw(error)
            except StopIteration:
                pass  # the hook looked at it and was content; the application still gets it
            except BaseException as other:
                if other is not error:
                    faults.count(self._where, other)
            error.__traceback__ = traceback  # without the hook's own frames


class _Signature:
    """Tells whether arguments fit a patched function; its signature is read at the first call."""

    __slots__ = ("_bind",)

    def __init__(self) -> None:
        self._bind: Callable[..., Any] | None = None

    def __call__(self, wrapped: Any, args: Any, kwargs: Any) -> bool:
        try:
            if self._bind is None:
                self._bind = inspect.signature(wrapped).bind
            self._bind(*args, **kwargs)
        except TypeError:
            return False
        except ValueError:
            self._bind = _anything  # there is no signature to be had
        return True


def _anything(*args: Any, **kwargs: Any) -> None:
    """Take any arguments."""


def _sync_wrapper(hook: HookFunction, where: str, switch: _Switch) -> Any:
    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        if not switch.on:
            return wrapped(*args, **kwargs)
        driver = _Driver(hook, where, wrapped, instance, args, kwargs)
        try:
            result = driver.call.function(*driver.call.args, **driver.call.kwargs)
        except BaseException as error:
            driver.raised(error)
            raise
        driver.returned(result)
        return result

    return wrapper


def _async_wrapper(hook: HookFunction, where: str, switch: _Switch) -> Any:
    fits = _Signature()

    async def run(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        driver = _Driver(hook, where, wrapped, instance, args, kwargs)
        try:
            result = await driver.call.function(*driver.call.args, **driver.call.kwargs)
        except BaseException as error:
            driver.raised(error)
            raise
        driver.returned(result)
        return result

    def wrapper(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        # Wrong arguments are refused by the call itself, not by the `await`: uvicorn calls every application without
        # arguments to see whether it is a factory, and takes one that then returns a coroutine for ASGI 2.
        if not switch.on or not fits(wrapped, args, kwargs):
            return wrapped(*args, **kwargs)
        return run(wrapped, instance, args, kwargs)

    return wrapper
