# SPDX-License-Identifier: Apache-2.0
"""Some of everything, printed: what it prints must be the same with and without us. Nothing here knows of auditspan."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.context import get_run_context
from prefect.states import Failed

calls: list[str] = []


@task(retries=2)
def flaky() -> int:
    calls.append("flaky")
    if calls.count("flaky") < 2:
        raise LookupError("the first time")
    return get_run_context().task_run.run_count


@task
async def later(number: int) -> int:
    await asyncio.sleep(0)
    return number


@task
def broken() -> None:
    raise KeyError("broken")


@flow
def numbers(up_to: int = 3) -> Iterator[int]:
    """Count."""
    yield from range(up_to)
    return


@flow
async def numbers_later() -> AsyncIterator[int]:
    for number in range(3):
        yield await later(number)


@flow(retries=1)
def again() -> int:
    calls.append("again")
    if calls.count("again") < 2:
        raise LookupError
    return calls.count("again")


@flow
def returned() -> Any:
    return Failed(message="as it says")


@flow
def everyday(number: int = 2) -> Any:
    get_run_logger().debug("nothing of ours")
    futures = later.map([number, 5])
    return [flaky(), sum(future.result() for future in futures), list(numbers(2)), broken(return_state=True).name]


async def consume() -> list[int]:
    return [number async for number in numbers_later()]


def raised(function: Any, *arguments: Any) -> Any:
    """Return what a function raises, and through which functions, without those of libraries that wrap it."""
    try:
        return function(*arguments)
    except Exception as error:
        frames = [
            f"{frame.filename.rpartition('/')[2]}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
        own = [frame for frame in frames if frame.startswith(("everyday.py", "callables.py", "flow_engine.py"))]
        return type(error).__name__, error.args, own, type(error.__cause__).__name__


if __name__ == "__main__":
    print(everyday())
    print(everyday.fn.__name__, everyday.name, inspect.signature(everyday), inspect.signature(numbers), numbers.__doc__)
    print(list(numbers()), asyncio.run(consume()), again())
    print(returned(return_state=True).message)
    print(raised(broken))
    print(raised(everyday, "not a number"))
    values = numbers()
    print(next(values), values.close(), list(values))
    print(asyncio.run(later(4)), calls)
