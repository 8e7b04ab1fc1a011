# SPDX-License-Identifier: Apache-2.0
"""Audit spans are recorded whatever the sampler says; everyone else's spans are decided as before."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

from auditspan.schema import RECORD_ID


class AuditSampler(Sampler):
    """Wraps the user's sampler: DROP becomes RECORD_ONLY for audit spans.

    A RECORD_ONLY span reaches processors but is not marked as sampled, so the user's own exporters skip it and its
    children are decided as if it were not there.
    """

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Ask the user's sampler; see the class for what is changed."""
        # The SDK leaves trace_state out; samplers take it from the parent. Passing it on only when given keeps
        # samplers with the older, shorter signature working.
        if trace_state is None:
            result = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links)
        else:
            result = self.inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if not attributes or RECORD_ID not in attributes:
            return result
        if result.decision is not Decision.DROP and result.attributes == attributes:
            return result
        decision = Decision.RECORD_ONLY if result.decision is Decision.DROP else result.decision
        # A span starts with the attributes of the sampling result. A dropping sampler returns none, and the SDK's
        # composite samplers (elastic-opentelemetry's default) forget the given ones: an audit span keeps its own.
        kept = dict(attributes) | dict(result.attributes or {})
        return SamplingResult(decision, kept, result.trace_state)

    def get_description(self) -> str:
        """Name the wrapped sampler too: what people look for in a trace is theirs."""
        return f"AuditSampler{{{self.inner.get_description()}}}"
