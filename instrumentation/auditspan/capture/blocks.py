# SPDX-License-Identifier: Apache-2.0
"""Hooks around a ``with`` block of the library: for a function that returns a context manager, asynchronous or not.

::

    def run_context(call: Call, block: Block) -> Hook:
        record = ...                  # the library's own block has been entered
        with inside(record):
            yield                     # the body of the block runs
        if block.raised is None: ...  # the library's own block has been left

A patch of the function alone would see the context manager being made, and not what happens in its block. As with
every hook: whatever it does, the body and the library get what they would have got without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from auditspan.capture import faults
from auditspan.capture.hooks import Call, Hook, HookFunction

BlockHook = Callable[..., Hook]
NotEntered = Callable[[Call, BaseException], None]


def around(hook: BlockHook, where: str, not_entered: NotEntered | None = None) -> HookFunction:
    """Return a hook for a patch table.

    Args:
        hook: gets the call and the block, and yields once, where the body of the block runs.
        where: for the name of the place in fault counts, for example ``prefect: run_context``.
        not_entered: called when the library's own block cannot be entered; there is no body then, and no hook.
    """

    def patched(call: Call) -> Hook:
        function = call.function
        call.function = lambda *args, **kwargs: Block(function(*args, **kwargs), hook, call, where, not_entered)
        yield

    return patched


class Block:
    """The library's context manager with a hook inside of it.

    Attributes:
        error: what left the body: known before the library's own end of the block; None: nothing, or not yet.
        raised: what left the block; None: nothing, because the library has dealt with it.
    """

    def __init__(self, manager: Any, hook: BlockHook, call: Call, where: str, not_entered: NotEntered | None) -> None:
        self.error: BaseException | None = None
        self.raised: BaseException | None = None
        self._manager = manager
        self._make = (hook, call)
        self._where = where
        self._not_entered = not_entered
        self._hook: Hook | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def __enter__(self) -> Any:
        """Enter the library's block, then begin the hook."""
        try:
            value = self._manager.__enter__()
        except BaseException as error:
            self._refused(error)
            raise
        self._begin()
        return value

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> Any:
        """Leave the library's block, then end the hook."""
        self.error = error
        try:
            dealt_with = self._manager.__exit__(kind, error, traceback)
        except BaseException as raised:
            self._end(raised)
            raise
        self._end(None if dealt_with else error)
        return dealt_with

    async def __aenter__(self) -> Any:
        """Enter the library's block, then begin the hook."""
        try:
            value = await self._manager.__aenter__()
        except BaseException as error:
            self._refused(error)
            raise
        self._begin()
        return value

    async def __aexit__(self, kind: Any, error: BaseException | None, traceback: Any) -> Any:
        """Leave the library's block, then end the hook."""
        self.error = error
        try:
            dealt_with = await self._manager.__aexit__(kind, error, traceback)
        except BaseException as raised:
            self._end(raised)
            raise
        self._end(None if dealt_with else error)
        return dealt_with

    def _refused(self, error: BaseException) -> None:
        if self._not_entered is not None:
            with faults.contained(self._where):
                self._not_entered(self._make[1], error)

    def _begin(self) -> None:
        with faults.contained(self._where):
            make, call = self._make
            hook = make(call, self)
            try:
                next(hook)
            except StopIteration:
                return  # it has nothing to say about this block
            self._hook = hook

    def _end(self, raised: BaseException | None) -> None:
        self.raised = raised
        hook, self._hook = self._hook, None
        if hook is None:
            return
        with faults.contained(self._where):
            try:
                next(hook)
            except StopIteration:
                return
            hook.close()
            raise RuntimeError("the hook yielded more than once")
