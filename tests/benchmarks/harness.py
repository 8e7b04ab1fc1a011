# SPDX-License-Identifier: Apache-2.0
"""Measures cases side by side: every round runs each case once, so that noise of the machine hits all of them alike.

What is said is a ratio to the first case, from the same round. Times are there to give an idea, and are of one machine.
"""

from __future__ import annotations

import contextlib
import gc
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """One case: microseconds of one call in each round, and the ratio to the baseline in the same round."""

    name: str
    micros: list[float]
    ratios: list[float]


def compare(cases: Mapping[str, Callable[[], object]], *, rounds: int = 15, calls: int = 2000) -> list[Result]:
    """Measure cases.

    Args:
        cases: name → what is called; the first is the baseline.
        rounds: how often each case is measured; the order alternates.
        calls: calls of a case in a round.
    """
    for case in cases.values():  # caches, lazy imports
        for _ in range(50):
            case()
    measured: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        order = list(cases.items())
        for name, case in order if number % 2 == 0 else reversed(order):
            gc.collect()
            begin = time.process_time_ns()
            for _ in range(calls):
                case()
            measured[name].append((time.process_time_ns() - begin) / calls / 1000)
    baseline = measured[next(iter(cases))]
    return [
        Result(name, micros, [one / base for one, base in zip(micros, baseline, strict=True)])
        for name, micros in measured.items()
    ]


def table(results: list[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| case | µs, median (min to max) | ratio, median (min to max) |", "|---|---|---|"]
    for result in results:
        micros = f"{statistics.median(result.micros):.2f} ({min(result.micros):.2f} to {max(result.micros):.2f})"
        ratios = f"{statistics.median(result.ratios):.2f} ({min(result.ratios):.2f} to {max(result.ratios):.2f})"
        lines.append(f"| {result.name} | {micros} | {ratios} |")
    return "\n".join(lines)


def memory(which: str, process: int | str = "self") -> float:
    """Return what a process says of its memory in /proc, in MB; 0 if it is gone.

    Unlike getrusage this does not know of the process that it was forked from.

    Args:
        which: ``VmRSS``, or ``VmHWM`` for the most there ever was.
        process: its number.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{which}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def machine() -> str:
    """Say what it was measured on."""
    sdk = metadata.version("opentelemetry-sdk")
    return f"Python {platform.python_version()}, opentelemetry-sdk {sdk}, {platform.machine()}, {platform.system()}"
