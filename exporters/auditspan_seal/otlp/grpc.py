# SPDX-License-Identifier: Apache-2.0
"""OTLP over gRPC, with the encoder and the service stub of OpenTelemetry's own exporter."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditspan_seal import forks
from auditspan_seal.otlp import as_protobuf
from auditspan_seal.otlp.answer import LONGEST_WAIT, Answer, Encoded, Kind
from auditspan_seal.otlp.parcel import Item
from auditspan_seal.otlp.settings import Settings

logger = logging.getLogger("auditspan")

# https://opentelemetry.io/docs/specs/otlp/#failures; RESOURCE_EXHAUSTED is one of them if it says when to try again.
_SOON = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
_SHOWN = 300  # characters of an answer that are told


class GrpcSender:
    """Sends OTLP over gRPC.

    Args:
        settings: how to send.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channel: Any = None
        self._export: Any = None

    def encode(self, origin: str, items: Sequence[Item]) -> Encoded:
        """Make a request; see :class:`auditspan_seal.otlp.answer.Sender`."""
        message, count, left_out = as_protobuf.message_of(origin, items)
        return Encoded(items, as_protobuf, message, count, left_out)

    def send(self, origin: str, items: Sequence[Item], encoded: Encoded | None = None) -> Answer:
        """Send items; see :class:`auditspan_seal.otlp.answer.Sender`."""
        with forks.kept_out():
            import grpc  # as late as it can be: it is large

        encoded = encoded or self.encode(origin, items)
        message, left_out = encoded.content, encoded.left_out
        if not encoded.spans:
            return Answer(Kind.ACCEPTED, left_out=left_out)
        try:
            if self._export is None:
                self._connect(grpc)
            headers = tuple((name.lower(), text) for name, text in self._settings.headers.items())
            said = self._export(message, metadata=headers, timeout=self._settings.timeout).partial_success
        except grpc.RpcError as error:
            return self._failed(error)
        except Exception as error:  # a certificate that cannot be read, a header that is none
            problem = f"{self._settings.endpoint} cannot be sent to: {type(error).__name__}: {str(error)[:_SHOWN]}"
            return Answer(Kind.REFUSED, problem)
        reason = said.error_message[:_SHOWN]
        if reason and not said.rejected_spans:
            logger.warning("auditspan: %s accepted the records and says: %s", self._settings.endpoint, reason)
        return Answer(Kind.ACCEPTED, rejected=max(0, said.rejected_spans), reason=reason, left_out=left_out)

    def close(self) -> None:
        """Close the channel."""
        channel, self._channel, self._export = self._channel, None, None
        if channel is not None:
            channel.close()

    def _connect(self, grpc: Any) -> None:
        with forks.kept_out():
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

        settings = self._settings
        chosen = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}
        compression = chosen.get(settings.compression, grpc.Compression.NoCompression)
        options = (("grpc.primary_user_agent", "auditspan"),)
        if settings.secure:
            certificate, key = settings.client or (None, None)
            credentials = grpc.ssl_channel_credentials(
                _read(settings.certificate), _read(key or certificate), _read(certificate)
            )
            self._channel = grpc.secure_channel(settings.endpoint, credentials, options, compression)
        else:
            self._channel = grpc.insecure_channel(settings.endpoint, options, compression)
        self._export = TraceServiceStub(self._channel).Export  # type: ignore[no-untyped-call]

    def _failed(self, error: Any) -> Answer:
        code, details = error.code().name, str(error.details() or "")[:_SHOWN]
        problem = f"{self._settings.endpoint} answers {code}: {details}"
        if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:
            return Answer(Kind.TOO_LARGE, problem)
        if code == "UNAVAILABLE":
            self.close()  # a channel waits longer and longer before it tries to connect again
        wait = _retry_delay(error)
        if code in _SOON or code == "RESOURCE_EXHAUSTED":
            return Answer(Kind.LATER, problem, wait)
        return Answer(Kind.REFUSED, problem, wait)


def _retry_delay(error: Any) -> float | None:
    """Return the seconds of the RetryInfo in the status of an answer; None: there is none."""
    try:
        from google.rpc.error_details_pb2 import RetryInfo
        from google.rpc.status_pb2 import Status

        for name, content in error.trailing_metadata() or ():
            info = RetryInfo()
            if name == "google.rpc.retryinfo-bin":
                info.ParseFromString(content)
            elif name != "grpc-status-details-bin" or not any(
                detail.Unpack(info) for detail in Status.FromString(content).details
            ):
                continue
            return float(min(LONGEST_WAIT, max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9)))
    except Exception:
        logger.debug("auditspan: details of an answer that cannot be read", exc_info=True)
    return None


def _read(path: str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None
