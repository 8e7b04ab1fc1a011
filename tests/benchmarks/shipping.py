# SPDX-License-Identifier: Apache-2.0
"""What delivery costs: a log that is there already is sent to a receiver that discards it."""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import pytest

from auditspan_seal import ship
from auditspan_seal.log.directory import Directory
from tests.benchmarks.harness import Result, table
from tests.benchmarks.logs import make_log
from tests.benchmarks.recording import running_sink

TITLE = "Delivery"
_SPANS = 10_000
_ROUNDS = 5
_CASES = {
    "protobuf, by the SDK's encoder": ("http/protobuf", "none"),
    "JSON, from the statements": ("http/json", "none"),
    "the same with gzip": ("http/json", "gzip"),
    "the same with zstd": ("http/json", "zstd"),
}


def page() -> list[str]:
    """Return the section, measured now."""
    return [
        f"## {TITLE}",
        "CPU of one span from the log to a receiver that discards it: read, written as a request, compressed, sent.\n"
        "In the audited process this is the work of a thread; with `auditspan agent` it is another process.",
        table(measure()),
    ]


def measure(spans: int = _SPANS, rounds: int = _ROUNDS) -> list[Result]:
    """Send a log in each way, round by round."""
    measured: dict[str, list[float]] = {name: [] for name in _CASES}
    with tempfile.TemporaryDirectory() as folder, running_sink() as address, pytest.MonkeyPatch.context() as patch:
        log = make_log(Path(folder) / "log", spans)
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        for number in range(rounds):
            order = list(_CASES.items())
            for name, (protocol, compression) in order if number % 2 == 0 else reversed(order):
                patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
                patch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
                measured[name].append(_send(log) / spans * 1e6)
    baseline = measured[next(iter(_CASES))]
    return [
        Result(name, micros, [one / base for one, base in zip(micros, baseline, strict=True)])
        for name, micros in measured.items()
    ]


def _send(log: Directory) -> float:
    """Return the seconds of CPU that it takes."""
    log.delivery.unlink(missing_ok=True)
    shipper = ship.Shipper(log, ship.make_sender())
    gc.collect()
    begin = time.process_time()
    assert shipper.ship()
    found = time.process_time() - begin
    shipper.close()
    return found


if __name__ == "__main__":
    print(table(measure()))
