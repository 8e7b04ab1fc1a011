# SPDX-License-Identifier: Apache-2.0
"""Delivery: sends what is published to the Collector, in order, again and again until it is accepted.

The log on disk is the queue: the cursor in ``delivery.json`` moves only after the Collector accepted a batch. What is
sent twice (a crash between acceptance and the moved cursor) is refused as a duplicate by Elasticsearch, because the
Collector derives the document ID from origin, index and statement.

All ``OTEL_EXPORTER_OTLP_*`` settings are those of OpenTelemetry's own exporters, which do the sending.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from auditspan_seal import spans
from auditspan_seal.errors import AuditspanError, FormatError
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory

_MAX_BACKOFF = 30.0  # seconds


def endpoint() -> str | None:
    """Return where spans are sent according to the environment; None: nowhere, the directory is the product."""
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None


def make_exporter() -> SpanExporter:
    """Make OpenTelemetry's OTLP exporter for the protocol that the environment names (default http/protobuf).

    Raises:
        AuditspanError: the protocol is not known.
    """
    protocol = (
        os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    ).strip()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    raise AuditspanError(
        f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, which auditspan cannot send; nothing is delivered.",
        "Set it to http/protobuf or grpc. Records stay in the directory and are delivered after a restart.",
    )


@dataclass(frozen=True)
class Delivery:
    """How far delivery is.

    Attributes:
        cursor: the place in the log up to which everything is accepted.
        size: number of entries accepted.
        since: when the present failure began, seconds since the epoch; None: there is none.
        error: the present failure in words.
    """

    cursor: reader.Cursor = field(default_factory=reader.Cursor)
    size: int = 0
    since: float | None = None
    error: str | None = None

    @classmethod
    def load(cls, path: Path) -> Delivery:
        """Read the state; a missing or damaged file means: from the start (duplicates are refused downstream)."""
        try:
            fields: dict[str, Any] = orjson.loads(path.read_bytes())
            file, offset, size = fields["file"], fields["offset"], fields["size"]
            since, error = fields.get("since"), fields.get("error")
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
            return cls()
        numbers = all(type(number) is int and 0 <= number < 2**63 for number in (offset, size))
        if not (numbers and isinstance(file, str) and "/" not in file):
            return cls()
        return cls(
            reader.Cursor(file, offset),
            size,
            float(since) if isinstance(since, (int, float)) and not isinstance(since, bool) else None,
            error if isinstance(error, str) else None,
        )

    def save(self, path: Path) -> None:
        """Write the state, atomically."""
        draft = path.with_suffix(".new")
        draft.write_bytes(
            orjson.dumps(
                {
                    "file": self.cursor.file,
                    "offset": self.cursor.offset,
                    "size": self.size,
                    "since": self.since,
                    "error": self.error,
                }
            )
        )
        os.replace(draft, path)


class Shipper:
    """Sends the log of a directory. Only the sequencer of the directory may have one."""

    def __init__(self, directory: Directory, exporter: SpanExporter) -> None:
        self._directory = directory
        self._exporter = exporter
        self._delivery = Delivery.load(directory.delivery)
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Make :meth:`ship` return soon."""
        self._stopping.set()

    def ship(self) -> bool:
        """Send everything that is published.

        Returns:
            Whether all of it was accepted; False: try again later.
        """
        for block in reader.blocks(self._directory.log, self._delivery.cursor):
            if self._stopping.is_set():
                return False
            if not isinstance(block, reader.Block):
                break  # a batch that is being written
            if not self._send(self._documents(block)):
                return False
            self._delivery = Delivery(block.after, block.batch.size)
            self._delivery.save(self._directory.delivery)
        return True

    def close(self) -> None:
        """Close the exporter."""
        with contextlib.suppress(Exception):
            self._exporter.shutdown()

    def _documents(self, block: reader.Block) -> list[ReadableSpan]:
        origin = self._directory.origin
        documents = []
        for offset, (statement, private) in enumerate(zip(block.statements, block.private, strict=True)):
            try:
                documents.append(spans.document_of(statement, private, origin, block.batch.first + offset))
            except FormatError as error:
                # An entry of a later version, or a damaged line: the rest must not wait for it.
                self._note(f"The entry at index {block.batch.first + offset} cannot be shipped: {error.what}")
        documents.append(spans.checkpoint_document(block.batch, origin, time.time_ns()))
        return documents

    def _send(self, documents: list[ReadableSpan]) -> bool:
        # Our own requests are not part of the automation: HTTP instrumentations must leave them alone.
        token = otel_context.attach(otel_context.set_value(otel_context._SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            accepted = self._exporter.export(documents) is SpanExportResult.SUCCESS
            problem = None if accepted else f"The Collector at {endpoint()} did not accept the records."
        except Exception as error:
            accepted, problem = False, f"{type(error).__name__} while sending to {endpoint()}"
        finally:
            otel_context.detach(token)
        if problem is not None:
            self._note(problem)
        return accepted

    def _note(self, problem: str) -> None:
        since = self._delivery.since or time.time()
        self._delivery = Delivery(self._delivery.cursor, self._delivery.size, since, problem)
        with contextlib.suppress(OSError):
            self._delivery.save(self._directory.delivery)


def backoff(failures: int) -> float:
    """Return how long to wait after so many failures in a row, in seconds: 0.5, 1, 2 … 30; there is no last try."""
    return float(min(_MAX_BACKOFF, 0.5 * 2 ** min(failures - 1, 10)))
