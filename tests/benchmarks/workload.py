# SPDX-License-Identifier: Apache-2.0
"""One measured process: makes spans as an automation would, and prints what that cost as one JSON object.

``python -m tests.benchmarks.workload VARIANT SPANS RATE THREADS``; RATE 0 is as fast as possible. Where spans go is
said by the environment, as for every other program.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from auditspan import schema
from tests.records import audit_attributes

VARIANTS = ("none", "baseline", "auditspan", "unsigned", "agent")
PATIENCE = 120.0  # seconds


def main() -> None:
    variant, spans, rate, threads = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    provider = TracerProvider(shutdown_on_exit=False)
    finish = _prepare(variant, provider, spans)
    tracer = provider.get_tracer("benchmark", "1.0")
    makers = [_Maker(tracer, spans // threads, rate / threads, number) for number in range(threads)]
    wall, process = time.perf_counter(), time.process_time()
    if threads == 1:
        makers[0].run()
    else:
        running = [threading.Thread(target=maker.run) for maker in makers]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    made = time.perf_counter()
    found = finish()
    done, used = time.perf_counter(), time.process_time() - process
    ends = sorted(time for maker in makers for time in maker.ends)
    waiting = sum(maker.waiting for maker in makers)  # CPU of keeping the pace, which no variant is to blame for
    print(
        json.dumps(
            {
                "spans": spans,
                "seconds": done - wall,
                "making": made - wall,
                "process": (used - waiting) / spans * 1e6,
                "thread": sum(maker.used - maker.waiting for maker in makers) / spans * 1e6,
                "end_p50": ends[len(ends) // 2] / 1000,
                "end_p99": ends[len(ends) * 99 // 100] / 1000,
                "end_max": ends[-1] / 1000,
                **found,
            }
        )
    )
    sys.stdout.flush()
    os._exit(0)  # what is after it is not measured


class _Maker:
    """A thread of the application."""

    def __init__(self, tracer: Any, spans: int, rate: float, number: int) -> None:
        self._tracer, self._rate = tracer, rate
        self._fixed = audit_attributes(
            **{schema.CONNECTOR_STREAM: "orders", schema.DATA_COUNT: 3, "code.function.name": "app.sync"}
        )
        self._ids = [str(uuid.uuid4()) for _ in range(spans)]
        self._targets = [f"order {number}-{at}" for at in range(spans)]
        self.ends: list[int] = []
        self.used = self.waiting = 0.0  # seconds of CPU

    def run(self) -> None:
        start_span, fixed, ends, clock = self._tracer.start_span, self._fixed, self.ends, time.perf_counter_ns
        begin, due, waiting = time.thread_time(), time.perf_counter(), 0.0
        for at, record in enumerate(self._ids):
            if self._rate:
                before = time.thread_time()
                due += 1 / self._rate
                if (left := due - time.perf_counter()) > 0:
                    time.sleep(left)
                waiting += time.thread_time() - before
            attributes = fixed | {schema.RECORD_ID: record, schema.TARGET_ID: self._targets[at]}
            span = start_span("update order", attributes=attributes)
            ended = clock()
            span.end()
            ends.append(clock() - ended)
        self.used, self.waiting = time.thread_time() - begin, waiting


def _prepare(variant: str, provider: TracerProvider, spans: int) -> Any:
    """Have spans recorded; returns what waits until all are where they are to go, and says what it found."""
    if variant == "none":
        return dict
    if variant == "baseline":
        return _baseline(provider)
    if variant == "unsigned":
        _unsign()
    from auditspan import boot

    log = boot.activate(provider)
    delivers = "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ and variant != "agent"
    warm = provider.get_tracer("benchmark", "1.0").start_span("first", attributes=audit_attributes())
    warm.end()  # the thread, and becoming the sequencer
    time.sleep(0.5)

    def finish() -> dict[str, Any]:
        if variant == "agent":
            return {"recorded": log.recorded - 1, "lost": log.lost}
        log.flush(PATIENCE)
        delivery = log.directory.delivery
        deadline = time.monotonic() + PATIENCE
        while delivers and _delivered(delivery) < spans + 2:  # genesis and the first span, too
            if time.monotonic() > deadline:
                raise TimeoutError(f"{_delivered(delivery)} of {spans + 2} delivered")
            time.sleep(0.02)
        return {"recorded": log.recorded - 1, "lost": log.lost}

    return finish


def _baseline(provider: TracerProvider) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    time.sleep(0.5)

    def finish() -> dict[str, Any]:
        provider.force_flush(int(PATIENCE * 1000))
        return {}

    return finish


def _unsign() -> None:
    """Our own pipeline without what makes it evidence: no leaf hashes, no tree, no signature."""
    from auditspan_seal.formats.merkle import Frontier
    from auditspan_seal.log import sequencer

    kept: list[Any] = []

    def extend(tree: Any, leaves: Any) -> None:
        tree.size += len(leaves)
        tree._hashes = [bytes(32)] * bin(tree.size).count("1")

    def sign(*signing: Any) -> Any:
        kept[:] = kept or [real(*signing)]
        return kept[0]

    real = sequencer.sign_checkpoint
    sequencer.leaf_hash = lambda entry: bytes(32)
    sequencer.sign_checkpoint = sign
    Frontier.extend = extend  # type: ignore[method-assign]


def _delivered(path: Path) -> int:
    try:
        size: int = json.loads(path.read_bytes())["size"]
    except (OSError, ValueError, KeyError):
        return 0
    return size


if __name__ == "__main__":
    main()
