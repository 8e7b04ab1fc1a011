# SPDX-License-Identifier: Apache-2.0
"""One harness for all plugin tests: the plugin on the real library, its audit spans in memory, each checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON

from auditspan import schema
from auditspan.capture import faults
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.sampling import AuditSampler


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
            assert schema.missing(record) == [], f"non-conformant record: {record}"
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
def audited() -> Iterator[Audited]:
    """Audit this test; at its end no fault of ours may have been counted (a test of faults forgets them itself)."""
    faults.forget()
    harness = Audited()
    yield harness
    harness.close()
    assert faults.snapshot() == {}
