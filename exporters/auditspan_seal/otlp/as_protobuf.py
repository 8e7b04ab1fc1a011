# SPDX-License-Identifier: Apache-2.0
"""OTLP/protobuf requests, made by the encoder of OpenTelemetry's own exporters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from auditspan_seal import forks, spans
from auditspan_seal.errors import FormatError
from auditspan_seal.otlp.parcel import Entry, Item, Request

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

CONTENT_TYPE = "application/x-protobuf"


def encode(origin: str, items: Sequence[Item]) -> Request:
    """Make a request; see :func:`auditspan_seal.otlp.as_json.encode`."""
    message, count, left_out = message_of(origin, items)
    return Request(message.SerializeToString(), count, left_out)


def message_of(origin: str, items: Sequence[Item]) -> tuple[ExportTraceServiceRequest, int, list[tuple[int, str]]]:
    """Make the message; see :class:`auditspan_seal.otlp.parcel.Request` for what comes with it."""
    with forks.kept_out():  # protobuf: only where it is used
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    found, left_out = [], []
    for item in items:
        if isinstance(item, Entry):
            try:
                found.append(spans.document_of(item.statement, item.private, origin, item.place))
            except FormatError as error:
                left_out.append((item.place, error.what))
        else:
            found.append(spans.checkpoint_document(item.batch, origin, item.time))
    return encode_spans(found), len(found), left_out
