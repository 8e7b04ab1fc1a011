# SPDX-License-Identifier: Apache-2.0
"""Context across the start of a process: W3C trace context and baggage in environment variables.

Variable names follow the OpenTelemetry specification "Environment Variables as Context Propagation Carriers":
the propagator's field names in upper case (``TRACEPARENT``, ``TRACESTATE``, ``BAGGAGE``).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from auditspan.capture import run as runs

# Always W3C, whatever OTEL_PROPAGATORS says: both ends of this carrier are ours.
_W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


def carrier(context: Context | None = None) -> dict[str, str]:
    """Return the environment variables that hand `context` (default: the current one) to a child process."""
    fields: dict[str, str] = {}
    _W3C.inject(fields, context)
    return {name.upper().replace("-", "_"): value for name, value in fields.items()}


def extract(environment: Mapping[str, str]) -> Context:
    """Return the context that a parent process handed over by environment variables."""
    lowered = {
        name.lower(): environment[name] for name in ("TRACEPARENT", "TRACESTATE", "BAGGAGE") if name in environment
    }
    return runs.trusted(_W3C.extract(lowered, Context()))


@functools.lru_cache(maxsize=1)
def _process_context() -> Context | None:
    """Return what our parent handed over; only if it was an audited run: other people's variables are not ours."""
    handed = extract(os.environ)
    return handed if runs.ancestor(handed) is not None else None


def parent_context(context: Context | None = None) -> Context:
    """Return `context` or the current one; where nothing is going on in it, what the parent process handed over."""
    if context is None:
        context = otel_context.get_current()
    if runs.is_from_outside(context):
        return context  # a request is caused by its sender, not by what started this server
    if not trace.get_current_span(context).get_span_context().is_valid and runs.current(context) is None:
        return _process_context() or context
    return context


def forget() -> None:
    """Read the environment again at the next use (for tests)."""
    _process_context.cache_clear()
