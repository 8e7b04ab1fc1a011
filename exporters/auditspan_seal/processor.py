# SPDX-License-Identifier: Apache-2.0
"""The way in: a span processor that records audit spans, sampled or not, and leaves every other span alone."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from auditspan_seal.interrupts import let_through
from auditspan_seal.recording import RECORD_ID
from auditspan_seal.service import AuditLog


def is_audit_span(span: ReadableSpan) -> bool:
    """Tell whether a span is to be recorded."""
    attributes = span.attributes
    return attributes is not None and RECORD_ID in attributes


class AuditSpanProcessor(SpanProcessor):
    """Records every ended span that has ``audit.record.id``; adds nothing to the others but one look-up."""

    def __init__(self, log: AuditLog) -> None:
        self.log = log
        self._quick = log.quick

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Record an audit span."""
        quick = self._quick
        try:
            if quick is not None and quick(span):
                return
        except Exception as error:
            let_through(error)  # else it is as if it had not been tried
        if is_audit_span(span):
            self.log.record(span)

    def shutdown(self) -> None:
        """Sequence and deliver what is recorded."""
        self.log.close()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Wait until what is recorded is in the log, signed."""
        return self.log.flush(timeout_millis / 1000)
