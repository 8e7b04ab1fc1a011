# SPDX-License-Identifier: Apache-2.0
"""The composition root: joins capture and seal in a process, at the start, with no code change.

``opentelemetry-instrument`` calls :func:`pre_instrument` after the user's distro made the tracer provider and before
the plugins are loaded.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from opentelemetry import context, trace
from opentelemetry.instrumentation.dependencies import DependencyConflictError
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from auditspan import metrics, selfcheck
from auditspan.capture import conformance, environ, faults, instrumentor, privacy, recorder
from auditspan.capture.sampling import AuditSampler
from auditspan_seal import interrupts
from auditspan_seal.errors import AuditspanError, NotActive
from auditspan_seal.log.directory import default_path
from auditspan_seal.processor import AuditSpanProcessor, is_audit_span
from auditspan_seal.service import AuditLog

logger = logging.getLogger("auditspan")

_log: AuditLog | None = None


def pre_instrument() -> None:
    """Start auditing under ``opentelemetry-instrument``; says loudly when it cannot."""
    try:
        activate()
    except Exception as error:
        # OpenTelemetry would swallow it and go on; the self-check decides what is done about it.
        selfcheck.failed(str(error) if isinstance(error, AuditspanError) else f"{type(error).__name__}: {error}")


def activate(provider: trace.TracerProvider | None = None) -> AuditLog:
    """Record the audit spans of a tracer provider. A second call does nothing.

    Args:
        provider: default: the global one.

    Returns:
        The log that this process records into.

    Raises:
        NotActive: there is no SDK tracer provider, or the SDK is switched off.
        DirectoryError: the log directory cannot be used.
    """
    global _log
    if _log is not None:
        return _log
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise NotActive("OTEL_SDK_DISABLED=true switches all spans off, audit spans too.", "Unset it.")
    provider = provider or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider):
        provider = _start_sdk()
    if not isinstance(provider, TracerProvider):
        raise NotActive(
            f"OpenTelemetry has no SDK tracer provider in this process ({type(provider).__name__}).",
            "Start the program under `opentelemetry-instrument`, or call this after the provider is set.",
        )
    log = AuditLog(default_path(), _describe, privacy.Guard())
    privacy.use_key(log.directory.path / "pseudonym.key")
    provider.sampler = AuditSampler(provider.sampler)
    provider.add_span_processor(AuditSpanProcessor(log))
    recorder.on_begin(log.begin)
    faults.on_fault(log.publish_status)
    faults.let_through_by(interrupts.let_through)
    os.register_at_fork(after_in_child=_forget_counts)
    _join_parent_process()
    metrics.watch(log)
    _log = log
    selfcheck.active = True
    return log


def install(provider: trace.TracerProvider | None = None) -> None:
    """Start auditing in a program that is not started under ``opentelemetry-instrument``: call it first of all.

    The plugins are loaded too. A second call does nothing.

    Args:
        provider: whose audit spans are recorded; default: the global one, which is made if there is none yet.

    Raises:
        NotActive: the SDK is switched off, or the provider is not one of the SDK.
        DirectoryError: the log directory cannot be used.
    """
    if _log is not None:
        return
    activate(provider)
    disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    for point in metadata.entry_points(group="opentelemetry_instrumentor"):
        if point.name.startswith("auditspan_") and point.name not in disabled:
            with faults.contained(f"install: {point.name}"), contextlib.suppress(DependencyConflictError):
                # As opentelemetry-instrument does: a library that is not there is no fault.
                point.load()().instrument(
                    tracer_provider=provider, skip_dep_check=True, raise_exception_on_conflict=True
                )


def _start_sdk() -> trace.TracerProvider:
    """Start the SDK as `OTEL_*` says, where no distro is installed that would have done it."""
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator

    configurator: Any = _OTelSDKConfigurator
    configurator().configure()
    return trace.get_tracer_provider()


def _join_parent_process() -> None:
    """Continue the trace of an audited run that started this process (see :mod:`auditspan.capture.environ`)."""
    handed = environ.parent_context()
    if handed is not context.get_current():
        context.attach(handed)


def _forget_counts() -> None:
    faults.forget()
    conformance.forget()


def _describe() -> Mapping[str, Any]:
    return {
        "nonconformant": {
            plugin: {"count": found.count, "last": found.last} for plugin, found in conformance.snapshot().items()
        },
        "plugins": dict(instrumentor.active),
        "faults": {where: {"count": fault.count, "last": fault.last} for where, fault in faults.snapshot().items()},
        "python": sys.version.split()[0],
    }


class AuditSpanExporter(SpanExporter):
    """The traces exporter ``auditspan``, for people who configure by exporter name or configuration file.

    Recording is the processor's work, because the SDK's batch processor in front of an exporter drops spans when it
    is full. This exporter makes sure that the processor is there, and records what came before it was.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record the audit spans among `spans` if auditing was not active yet; else they are recorded already."""
        if _log is not None:
            return SpanExportResult.SUCCESS
        try:
            log = activate()
        except AuditspanError as error:
            selfcheck.failed(str(error))
            return SpanExportResult.FAILURE
        for span in spans:
            if is_audit_span(span):
                log.record(span)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing: the processor closes the log."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is held here."""
        return True
