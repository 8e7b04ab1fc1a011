# SPDX-License-Identifier: Apache-2.0
"""The plugin contract: whatever a hook does, the application gets what it would have got without it."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from auditspan.capture import faults
from auditspan.capture.hooks import Call, Hook, Patch, apply
from auditspan_seal import interrupts


class Library:
    """Stands for a library under audit."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def work(self, a: int, b: int = 0) -> int:
        """Add."""
        self.calls.append((a, b))
        if a < 0:
            raise ValueError("negative")
        return a + b

    async def later(self, a: int) -> int:
        await asyncio.sleep(0)
        return self.work(a)

    @classmethod
    def made(cls) -> str:
        return cls.__name__


@pytest.fixture(autouse=True)
def module() -> Iterator[None]:
    faults.forget()
    holder = types.ModuleType("audited_library")
    holder.Library = Library  # type: ignore[attr-defined]
    sys.modules["audited_library"] = holder
    yield
    del sys.modules["audited_library"]
    faults.forget()


@pytest.fixture
def patch() -> Iterator[Callable[..., None]]:
    removals = []

    def with_hook(hook: Callable[[Call], Hook], attribute: str = "Library.work") -> None:
        removals.append(apply(Patch("audited_library", attribute, hook), "test"))

    yield with_hook
    for remove in reversed(removals):
        remove()


def broken_before(call: Call) -> Hook:
    call.args = ("half", "made")
    raise RuntimeError("before")
    yield


def broken_after(call: Call) -> Hook:
    yield
    raise RuntimeError("after")


def broken_on_error(call: Call) -> Hook:
    try:
        yield
    finally:
        raise RuntimeError("instead")


def swallows(call: Call) -> Hook:
    with contextlib.suppress(ValueError):
        yield


def never_yields(call: Call) -> Hook:
    return
    yield


def yields_twice(call: Call) -> Hook:
    yield
    yield


def not_a_generator(call: Call) -> Any:
    return None


HOOKS = [broken_before, broken_after, broken_on_error, swallows, never_yields, yields_twice, not_a_generator]


@pytest.mark.parametrize("hook", HOOKS)
def test_no_hook_changes_what_the_application_gets(hook: Any, patch: Callable[..., None]) -> None:
    patch(hook)
    patch(hook, "Library.later")
    library = Library()
    assert library.work(1, b=2) == 3
    with pytest.raises(ValueError, match=r"^negative$"):
        library.work(-1)
    assert asyncio.run(library.later(4)) == 4
    assert library.calls == [(1, 2), (-1, 0), (4, 0)], "each call reached the library exactly once"
    assert bool(faults.snapshot()) is (hook not in (swallows, never_yields))


def test_a_fault_is_counted_logged_once_and_without_the_applications_words(
    patch: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    patch(broken_after)
    for _ in range(3):
        Library().work(1)
    assert faults.snapshot() == {"test: Library.work": faults.Fault(3, "RuntimeError")}
    assert len(caplog.records) == 1
    assert "auditspan status" in caplog.text


def test_a_hook_sees_arguments_result_and_error(patch: Callable[..., None]) -> None:
    seen: list[Any] = []

    def hook(call: Call) -> Hook:
        seen.append((call.argument(0, "a"), call.argument(1, "b"), call.argument(2, "c", "default")))
        try:
            seen.append((yield))
        except ValueError as error:
            seen.append(error)
            raise

    patch(hook)
    Library().work(1, b=2)
    with pytest.raises(ValueError, match="negative") as raised:
        Library().work(-1)
    assert seen == [(1, 2, "default"), 3, (-1, None, "default"), raised.value]


def test_the_function_looks_the_same(patch: Callable[..., None]) -> None:
    before = (inspect.signature(Library.work), Library.work.__doc__, Library.work.__qualname__)
    patch(never_yields)
    patch(never_yields, "Library.later")
    patch(never_yields, "Library.made")
    assert (inspect.signature(Library.work), Library.work.__doc__, Library.work.__qualname__) == before
    assert inspect.iscoroutinefunction(Library.later)
    assert Library.made() == "Library"


def test_removal_restores_and_spares_what_others_put_on_top() -> None:
    import wrapt

    original = inspect.getattr_static(Library, "work")
    remove = apply(Patch("audited_library", "Library.work", broken_after), "test")
    remove()
    assert inspect.getattr_static(Library, "work") is original
    remove = apply(Patch("audited_library", "Library.work", broken_after), "test")
    wrapt.wrap_function_wrapper(Library, "work", lambda wrapped, i, a, k: wrapped(*a, **k) * 10)
    remove()
    assert Library().work(1) == 10
    assert faults.snapshot() == {}
    Library.work = original  # type: ignore[method-assign]


def test_a_function_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError):
        apply(Patch("audited_library", "Library.gone", never_yields), "test")
    with pytest.raises(ImportError):
        apply(Patch("no_such_library", "x", never_yields), "test")


class TimeLimit(Exception):
    """What an application's signal handler raises, as Celery's soft time limit does."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    def over(*_: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def busy() -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        pass


def before_it(call: Call) -> Hook:
    busy()
    yield


def after_it(call: Call) -> Hook:
    yield
    busy()


@pytest.mark.parametrize("hook", [before_it, after_it])
def test_a_time_limit_that_strikes_in_a_hook_is_the_applications(hook: Any, patch: Callable[..., None]) -> None:
    faults.let_through_by(interrupts.let_through)
    patch(hook)
    with pytest.raises(TimeLimit), limited(0.05):
        Library().work(1)
    assert sum(fault.count for fault in faults.snapshot().values()) == 1  # the record may be missing: it is said


def test_a_time_limit_that_strikes_in_a_contained_part_is_the_applications() -> None:
    faults.let_through_by(interrupts.let_through)
    with pytest.raises(TimeLimit), limited(0.05), faults.contained("test: busy"):
        busy()
    with faults.contained("test: a fault of our own"):
        raise TimeLimit
    assert set(faults.snapshot()) == {"test: busy", "test: a fault of our own"}
