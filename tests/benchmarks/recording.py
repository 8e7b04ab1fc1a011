# SPDX-License-Identifier: Apache-2.0
"""The recording path beside the SDK's own: BatchSpanProcessor and OTLP/HTTP protobuf, its queue raised until it loses
nothing. Each measurement is a fresh process; a round has one of each, so that noise of the machine hits all alike.

``python -m tests.benchmarks.recording`` measures this part alone and prints it; ``AUDITSPAN_BENCHMARK=short`` takes a
minute and is good for seeing that it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from auditspan_seal.log.directory import open_directory
from tests.benchmarks.startup import startup
from tests.benchmarks.wire import wire
from tests.seal.go import ROOT, go_command

TITLE = "The recording path"
SHORT = os.environ.get("AUDITSPAN_BENCHMARK") == "short"
BURST = 10_000 if SHORT else 50_000  # spans
PACED = 2_000 if SHORT else 4_000
RATE = 2_000  # spans per second
ROUNDS = 1 if SHORT else 3

Numbers = dict[str, Any]
Row = tuple[str, str, str, str]


def page() -> list[str]:
    """Measure, and return the paragraphs of the page."""
    rows: list[Row] = []
    with running_sink() as address:
        rows += _burst(address)
        rows += _paced(address)
        rows += _threads(address)
        rows += _lost(address)
    with _collector() as address:
        rows += _through_collector(address) if address else []
    rows += wire()
    rows += startup(ROUNDS)
    return [
        f"## {TITLE}",
        f"Spans of 20 attributes, {ROUNDS} rounds of fresh processes, a receiver in another process that keeps\n"
        "nothing. The baseline is the SDK's BatchSpanProcessor with OTLP/HTTP protobuf, unsigned, its queue raised to\n"
        "1,000,000 so that it drops nothing. Ours makes each span survive `kill -9`, signs it, and delivers all.\n"
        "Ratios are paired, round by round: median (min to max). Floor and goal are those of the design.",
        "| what | measured | floor | goal |\n|---|---|---|---|\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows),
    ]


# -- what is measured ------------------------------------------------------------------------------------------
def _burst(address: str) -> list[Row]:
    found = _rounds(
        {
            "baseline": lambda: _run("baseline", BURST, address),
            "auditspan": lambda: _run("auditspan", BURST, address),
            "unsigned": lambda: _run("unsigned", BURST, address),
            "agent": lambda: _run_with_agent(BURST, address),
            "none": lambda: _run("none", BURST, address),
            "python": lambda: _run("auditspan", BURST, address, native=False),
        }
    )
    base, ours, agent = found["baseline"], found["auditspan"], found["agent"]
    rate = [f"{statistics.median(n['spans'] / n['seconds'] for n in some):,.0f}/s" for some in (ours, base)]
    return [
        (
            f"{BURST:,} spans at once: made, kill-safe, signed and shipped, spans/s to baseline",
            f"{_ratio(base, ours, 'seconds')} ({rate[0]} to {rate[1]})", "≥ 1.7", "≥ 2.5",
        ),
        ("… CPU of the process per span", _with_micros(ours, base, "process"), "≤ 0.75", "≤ 0.45"),
        ("… CPU of the application's thread per span", _with_micros(ours, base, "thread"), "≤ 1.25", "≤ 0.9"),
        ("… the same for a span without any processor", _with_micros(found["none"], base, "thread"), "", ""),
        ("… all in Python, with `AUDITSPAN_NATIVE=off`: spans/s", _ratio(base, found["python"], "seconds"), "", ""),
        ("… and CPU of the process per span", _with_micros(found["python"], base, "process"), "", ""),
        ("… with `auditspan agent`: CPU of the application", _with_micros(agent, base, "process"), "≤ 0.40", "≤ 0.22"),
        ("… CPU of application and agent", _with_micros(agent, base, "both"), "≤ 0.75", "≤ 0.45"),
        ("our own pipeline, signed to unsigned", _ratio(found["unsigned"], ours, "seconds"), "≥ 0.85", "≥ 0.95"),
    ]  # fmt: skip


def _paced(address: str) -> list[Row]:
    found = _rounds({name: _running(name, PACED, address, RATE) for name in ("baseline", "auditspan", "none")})
    base, ours, none = found["baseline"], found["auditspan"], found["none"]
    added = [n["end_p50"] - m["end_p50"] for n, m in zip(ours, none, strict=True)]
    of_base = [n["end_p50"] - m["end_p50"] for n, m in zip(base, none, strict=True)]
    said = f"{_span(added, ' µs')}; baseline {statistics.median(of_base):.1f} µs"
    return [
        (f"{RATE:,} spans a second: CPU of the process", _with_micros(ours, base, "process"), "≤ 0.85", "≤ 0.6"),
        ("… CPU of the application's thread per span", _with_micros(ours, base, "thread"), "≤ 1.6", "≤ 1.25"),
        ("… `end()` takes longer than without a processor by, p50", said, "≤ 15 µs", "≤ 6 µs"),
    ]  # fmt: skip


def _threads(address: str) -> list[Row]:
    found = _rounds({name: _running(name, BURST // 2, address, 0, 4) for name in ("baseline", "auditspan")})
    slow = [_span([n["end_p99"] for n in found[name]], " µs") for name in ("auditspan", "baseline")]
    return [("`end()` with 4 threads at full speed, p99", f"{slow[0]}; baseline {slow[1]}", "≤ 500 µs", "≤ 50 µs")]


def _lost(address: str) -> list[Row]:
    _received(address)
    _run("baseline", BURST, address, queue=None)
    lost = BURST - _received(address)[2]
    with tempfile.TemporaryDirectory() as folder:
        _run("auditspan", BURST, address, folder=folder)
        head = open_directory(Path(folder) / "log").checkpoint.read_text().splitlines()
    ours = BURST + 2 - int(head[1])  # genesis, and the first span
    return [(f"lost of {BURST:,} at defaults", f"{ours}; baseline {lost:,} ({lost / BURST:.0%})", "0", "0")]


def _through_collector(address: str) -> list[Row]:
    found = _rounds({name: _running(name, BURST, address) for name in ("baseline", "auditspan")})
    said = _ratio(found["baseline"], found["auditspan"], "seconds")
    return [(f"{BURST:,} spans at once to a real Collector, spans/s to baseline", said, "≥ 1.5", "≥ 2.0")]


# -- how -------------------------------------------------------------------------------------------------------
def _rounds(cases: dict[str, Callable[[], Numbers]]) -> dict[str, list[Numbers]]:
    found: dict[str, list[Numbers]] = {name: [] for name in cases}
    for number in range(ROUNDS):
        order = list(cases.items())
        for name, case in order[number % len(order) :] + order[: number % len(order)]:
            print(f"  round {number + 1}: {name}", file=sys.stderr, flush=True)
            found[name].append(case())
    return found


def _running(variant: str, spans: int, address: str, rate: float = 0, threads: int = 1) -> Callable[[], Numbers]:
    return lambda: _run(variant, spans, address, rate=rate, threads=threads)


def _run(
    variant: str,
    spans: int,
    address: str,
    *,
    rate: float = 0,
    threads: int = 1,
    queue: int | None = 1_000_000,
    folder: str | None = None,
    native: bool = True,
) -> Numbers:
    with contextlib.ExitStack() as stack:
        folder = folder or stack.enter_context(tempfile.TemporaryDirectory())
        command = [sys.executable, "-m", "tests.benchmarks.workload", variant, str(spans), str(rate), str(threads)]
        environment = _environment(Path(folder) / "log", address, queue) | (
            {} if native else {"AUDITSPAN_NATIVE": "off"}
        )
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, f"{variant}: {done.stderr}"
    found: Numbers = json.loads(done.stdout)
    assert found.get("recorded", spans) == spans and not found.get("lost"), found
    return found


def _run_with_agent(spans: int, address: str) -> Numbers:
    """Run the application with `auditspan agent` beside it; `both` has the CPU time of both until all is delivered."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        environment = _environment(path, address, None)
        command = [sys.executable, "-m", "auditspan.cli", "agent", str(path)]
        agent = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _until(lambda: (path / "checkpoint").exists())
            time.sleep(0.5)
            before = _cpu(agent.pid)
            found = _run("agent", spans, address, folder=folder)
            _until(lambda: json.loads((path / "delivery.json").read_bytes())["size"] >= spans + 2)
            found["both"] = found["process"] + (_cpu(agent.pid) - before) / spans * 1e6
        finally:
            agent.terminate()
            agent.wait(30)
    return found


def _environment(path: Path, address: str, queue: int | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AUDITSPAN_"))}
    return {
        **kept,
        "AUDITSPAN_DIR": str(path),
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        **({"OTEL_BSP_MAX_QUEUE_SIZE": str(queue)} if queue else {}),
    }


def _until(there: Callable[[], bool], patience: float = 120.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError, ValueError):
            if there():
                return
        assert time.monotonic() < deadline, "it does not come to an end"
        time.sleep(0.02)


def _cpu(process: int) -> float:
    """Return the seconds of CPU that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running_sink() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "sink"
        source = Path(__file__).parent / "sink"
        subprocess.run([go_command(), "build", "-o", str(program), "."], cwd=source, check=True)
        process = subprocess.Popen([str(program)], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _received(address: str) -> list[int]:
    """Return bytes, requests and spans that the receiver got since it was asked last."""
    with urllib.request.urlopen(f"{address}/received") as answer:
        return [int(part) for part in answer.read().split()]


@contextlib.contextmanager
def _collector() -> Iterator[str | None]:
    """Run our Collector with nothing behind it; None where there is none and none can be built."""
    from auditspan.devstack import collector
    from auditspan.devstack.errors import DevStackError

    try:
        program = collector._build()
    except DevStackError:
        yield None
        return
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "collector.yaml"
        configuration.write_text(
            f"receivers: {{otlp: {{protocols: {{http: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n"
            "exporters: {nop: {}}\n"
            "service:\n  telemetry: {metrics: {level: none}}\n"
            "  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}\n"
        )
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen([str(program), f"--config={configuration}"], stderr=log, stdout=log)
        try:
            _until(lambda: _answers(port), 60)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


# -- numbers ---------------------------------------------------------------------------------------------------
def _ratio(over: Sequence[Numbers], under: Sequence[Numbers], name: str) -> str:
    return _span([one[name] / other[name] for one, other in zip(over, under, strict=True)])


def _with_micros(ours: Sequence[Numbers], base: Sequence[Numbers], name: str) -> str:
    of_base = name if name in base[0] else "process"
    ratios = [one[name] / other[of_base] for one, other in zip(ours, base, strict=True)]
    micros = [statistics.median(n[field] for n in some) for some, field in ((ours, name), (base, of_base))]
    return f"{_span(ratios)}; {micros[0]:.1f} µs of {micros[1]:.1f}"


def _span(values: Sequence[float], unit: str = "") -> str:
    digits = 1 if unit else 2
    return f"{statistics.median(values):.{digits}f}{unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    if shutil.which("go") is None:
        raise SystemExit("There is no `go`, which the receiver is built with.")
    print("\n\n".join(page()))
