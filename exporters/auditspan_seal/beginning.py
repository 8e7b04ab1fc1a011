# SPDX-License-Identifier: Apache-2.0
"""The span that says that another one has begun, so that it is recorded like every other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from auditspan_seal.errors import MalformedStatement
from auditspan_seal.salts import SALTS


class _Said(dict[str, Any]):
    """Attributes in the form in which a span of the SDK has its own."""

    dropped = 0

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        super().__init__(attributes)
        self._dict = dict(attributes)


def beginning_of(span: ReadableSpan, attributes: Mapping[str, Any]) -> ReadableSpan:
    """Return the span that says that one has begun: a record of its own, below that, without duration.

    Args:
        span: the span, not ended.
        attributes: what the record says.

    Raises:
        MalformedStatement: it cannot be recorded.
    """
    above = span.get_span_context()
    if above is None:
        raise MalformedStatement("A span without a context cannot be recorded.")
    own = int.from_bytes(SALTS.take()[0][:8], "big") or 1
    return ReadableSpan(
        name=span.name,
        context=SpanContext(above.trace_id, own, False, above.trace_flags, above.trace_state),
        parent=above,
        resource=span.resource,
        attributes=_Said(attributes),
        status=span.status,
        start_time=span.start_time,
        end_time=span.start_time,
        instrumentation_scope=span.instrumentation_scope,
    )
