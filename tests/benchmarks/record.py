# SPDX-License-Identifier: Apache-2.0
"""What building and judging a record costs, beside a plain span of the SDK with the same attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from auditspan import schema
from auditspan.capture import conformance
from auditspan.capture.actor import os_actor
from auditspan.capture.privacy import minimise
from auditspan.capture.recorder import Event, Recorder, Target
from auditspan.capture.run import Run
from auditspan.capture.state import state_hash
from auditspan.capture.version import ScriptVersion
from auditspan.schema.events import DataRead
from tests.benchmarks.harness import Result, compare
from tests.records import audit_attributes

Suite = tuple[str, str, Mapping[str, Callable[[], object]]]

SCRIPT = ScriptVersion("1.0", "declared", "flow")
RUN = Run("run-1", "flow", schema.TriggerType.SCHEDULE, "cron[hour='3']", SCRIPT)
STATE = {"bookmarks": {f"stream-{i}": {"replication_key": "date", "replication_key_value": i} for i in range(20)}}


def suites() -> Iterator[Suite]:
    """Return what is measured: title, what it means, cases."""
    recorder = Recorder("benchmark", "1", TracerProvider(shutdown_on_exit=False))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("benchmark")
    attributes = audit_attributes(**{schema.CONNECTOR_STREAM: "orders", schema.CONNECTOR_ROWS_READ: 3})
    number = iter(range(10**9))

    def plain() -> None:
        span = tracer.start_span("read orders", attributes=attributes)
        span.set_attribute(schema.OUTCOME, "success")
        span.end()

    def recorded(whole: bool) -> Callable[[], None]:
        def make() -> None:
            conformance.validate_whole(whole)
            event = Event(
                "read orders",
                DataRead(connector_stream="orders", connector_rows_read=3),
                os_actor(),
                Target("orders", "table"),
                SCRIPT,
            )
            recorder.start(event, opens=RUN).finish(schema.Outcome.SUCCESS)
            conformance.validate_whole(False)

        return make

    yield (
        "A record",
        f"A span of the SDK with {len(attributes)} attributes, against a record with as many: run, actor, ancestor,\n"
        "baggage, privacy, message. In production a record is judged by one comparison of sets; looking at every\n"
        "value is for tests.",
        {
            "span of the SDK, same attributes": plain,
            "record, as in production": recorded(False),
            "record, every value validated": recorded(True),
        },
    )
    good = dict(attributes)
    yield (
        "Parts of it",
        "One call each, for one record.",
        {
            "what is missing (production)": lambda: schema.missing(good),
            "all violations (tests)": lambda: schema.violations(good),
            "message": lambda: schema.message_of(good),
            "minimise and look for secrets, texts seen before": lambda: minimise(dict(good), "table"),
            "minimise and look for secrets, a new text each time": lambda: minimise(
                {**good, schema.TARGET_ID: f"order {next(number)}"}, "table"
            ),
            "state hash of a bookmark of 20 streams": lambda: state_hash(STATE),
        },
    )


def measure(cases: Mapping[str, Callable[[], Any]]) -> list[Result]:
    """Measure one suite."""
    return compare(cases)
