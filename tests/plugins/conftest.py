# SPDX-License-Identifier: Apache-2.0
"""One harness for all plugin tests: the plugin on the real library, its audit spans in memory, each checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from auditspan import schema
from auditspan.capture import conformance, faults
from auditspan.capture.actor import Actor
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Event, Record, Recorder, Target
from auditspan.capture.run import Run
from auditspan.capture.sampling import AuditSampler
from auditspan.capture.version import ScriptVersion
from auditspan.schema.events import WorkflowFinished


class Audited(SpanProcessor):
    """Collects ended spans; `records` are the audit spans among them, in the order of their end."""

    def __init__(self) -> None:
        self.provider = TracerProvider(sampler=AuditSampler(DEFAULT_ON))
        self.provider.add_span_processor(self)
        self.spans: list[ReadableSpan] = []
        self._on: list[AuditInstrumentor] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The attributes of every audit span, each checked for what every record must say."""
        found = [dict(span.attributes or {}) for span in self.spans if schema.RECORD_ID in (span.attributes or {})]
        for record in found:
            assert schema.violations(record) == [], f"non-conformant record: {record}"
        return found

    def instrument(self, *plugins: type[AuditInstrumentor]) -> None:
        for plugin in plugins:
            instance = plugin()
            instance.instrument(tracer_provider=self.provider)
            self._on.append(instance)

    def close(self) -> None:
        for instance in self._on:
            instance.uninstrument()
        self.provider.shutdown()


@pytest.fixture
def in_run(audited: Audited) -> Callable[..., AbstractContextManager[Record]]:
    """Open a run like any other plugin would, around a ``with`` block."""
    script = ScriptVersion("7", "declared", "outer")
    event = Event(
        name="outer",
        details=WorkflowFinished(),
        actor=Actor("test", schema.ActorType.SYSTEM, schema.ActorEvidence.DECLARED),
        target=Target("outer", "test.outer"),
        script=script,
    )

    def open_run(run_id: str = "outer-run") -> AbstractContextManager[Record]:
        run = Run(run_id, "outer", schema.TriggerType.WEBHOOK, "delivery", script)
        return Recorder("test", "1", audited.provider).record(event, opens=run)

    return open_run


@pytest.fixture
def audited() -> Iterator[Audited]:
    """Audit this test; at its end no fault of ours may have been counted (a test of faults forgets them itself)."""
    faults.forget()
    conformance.forget()
    harness = Audited()
    yield harness
    harness.close()
    assert harness.records is not None  # also those that the test did not look at are checked
    assert faults.snapshot() == {}
    assert conformance.snapshot() == {}, "a plugin made records that do not follow the registry"
