# SPDX-License-Identifier: Apache-2.0
"""What verification costs beside reading and parsing the same bytes, in one process and in two; and its memory.

``python -m tests.benchmarks.verify`` measures this part alone and prints it.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson

from auditspan_seal.formats.batch import PRIVATE_MARK
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.files import verify_files
from auditspan_seal.verify.report import Report, Verdict
from tests.benchmarks.logs import export, make_log

TITLE = "Verification"
RECORDS = 200_000
ROUNDS = 7
MEMORY = (10_000, 1_000_000)  # records
_PEAK = """
import sys
from pathlib import Path
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from tests.benchmarks.harness import memory
report = verify_directory(open_directory(Path(sys.argv[1])), jobs=1)
assert report.exit_code == 0, report
print(round(memory("VmHWM")))
"""


def page() -> list[str]:
    """Measure, and return the paragraphs of the page."""
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder) / "plain", "", "", personal=False)
        cases |= _cases(Path(folder) / "personal", ", each with a personal value", "that ", personal=True)
        measured = _measure(cases)
    return [
        f"## {TITLE}",
        f"{RECORDS:,} records, {ROUNDS} rounds. Parsing is reading each line and `orjson.loads`, no more;\n"
        "the share is of parsing the same bytes, paired round by round, by the clock and by processor time.",
        _table(measured),
        "Peak memory of verifying a log directory: "
        + ", ".join(f"{size} MB for {records:,} records" for records, size in _memory())
        + ".",
    ]


def _cases(folder: Path, what: str, that: str, *, personal: bool) -> dict[str, Callable[[], object]]:
    """Make a log and a file with it, and return what is measured of them.

    Args:
        folder: where.
        what: is said of them where they are parsed.
        that: names them where they are verified.
        personal: each record has a personal value.
    """
    directory = make_log(folder / "log", RECORDS, personal=personal)
    file = folder / "traces.json"
    export(directory, file)
    return {
        f"parse log files{what}": lambda: _parse_log(directory),
        f"verify {that}log directory": lambda: _passed(verify_directory(directory, jobs=1)),
        f"verify {that}log directory, 2 processes": lambda: _passed(verify_directory(directory, jobs=2)),
        f"parse OTLP/JSON{what}": lambda: _parse(file),
        f"verify {that}OTLP/JSON": lambda: _passed(verify_files([file], jobs=1)),
        f"verify {that}OTLP/JSON, 2 processes": lambda: _passed(verify_files([file], jobs=2)),
    }


def _measure(cases: Mapping[str, Callable[[], object]]) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds that each case took in each round, and those of processor time in this process."""
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
    for number in range(ROUNDS):
        order = list(cases.items())
        for name, case in order if number % 2 == 0 else reversed(order):
            gc.collect()
            begin, worked = time.perf_counter(), time.process_time()
            case()
            measured[name].append((time.perf_counter() - begin, time.process_time() - worked))
    return measured


def _table(measured: Mapping[str, list[tuple[float, float]]]) -> str:
    rows = [
        "| case | records/s, median (min to max) | share of parsing | by processor time | of one process |",
        "|---|---|---|---|---|",
    ]
    base = single = base_work = [0.0]
    for name, taken in measured.items():
        seconds, work = [one for one, _ in taken], [one for _, one in taken]
        if name.startswith("parse"):
            base = single = seconds
            base_work = work
        elif "processes" not in name:
            single = seconds
        rates = sorted(RECORDS / one for one in seconds)
        rate = f"{statistics.median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        share = _span([one / other for one, other in zip(base, seconds, strict=True)])
        worked = _span([one / other for one, other in zip(base_work, work, strict=True)])
        if "processes" in name:
            worked = ""  # that of others is not known before they are gone
        times = _span([one / other for one, other in zip(single, seconds, strict=True)]) if single != seconds else ""
        rows.append(f"| {name} | {rate} | {share} | {worked} | {times} |")
    return "\n".join(rows)


def _span(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _memory() -> list[tuple[int, int]]:
    found = []
    for records in MEMORY:
        with tempfile.TemporaryDirectory() as folder:
            make_log(Path(folder), records)
            done = subprocess.run(
                [sys.executable, "-c", _PEAK, folder], check=True, capture_output=True, text=True
            )  # fmt: skip
            found.append((records, int(done.stdout)))
    return found


def _parse_log(directory: Directory) -> None:
    for name in reader.files(directory.log):
        with open(directory.log / name, "rb") as file:
            for line in file:
                orjson.loads(line[2:].partition(PRIVATE_MARK)[0])


def _parse(path: Path) -> None:
    with open(path, "rb") as file:
        for line in file:
            orjson.loads(line)


def _passed(report: Report) -> None:
    assert (report.verdict, report.records) == (Verdict.PASSED, RECORDS), report.findings[:3]


if __name__ == "__main__":
    print("\n\n".join(page()))
