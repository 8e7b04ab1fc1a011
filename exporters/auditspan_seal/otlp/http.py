# SPDX-License-Identifier: Apache-2.0
"""OTLP over HTTP, with ``requests``, as OpenTelemetry's own exporter does it."""

from __future__ import annotations

import gzip
import logging
import os
import ssl
import zlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import orjson
from opentelemetry.util._importlib_metadata import entry_points

from auditspan_seal import forks
from auditspan_seal.errors import AuditspanError
from auditspan_seal.otlp import as_json, as_protobuf
from auditspan_seal.otlp.answer import Answer, Encoded, Kind, seconds_of
from auditspan_seal.otlp.parcel import Item, Request
from auditspan_seal.otlp.settings import Settings, shown

if TYPE_CHECKING:
    import requests

logger = logging.getLogger("auditspan")

_SOON = frozenset({429, 502, 503, 504})
_LONGEST_ANSWER = 65_536  # bytes that are read of an answer
_SHOWN = 300  # characters of an answer that are told
_CREDENTIALS = (
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)


class HttpSender:
    """Sends OTLP/JSON or OTLP/protobuf to a URL.

    If the environment does not say which, JSON is tried first, because it costs a fraction; a receiver that does not
    take it is sent protobuf from then on.

    Args:
        settings: how to send.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._place = shown(settings.endpoint)
        self._encoding: ModuleType = as_protobuf if settings.protocol == "http/protobuf" else as_json
        self._undecided = settings.protocol is None
        self._compression = settings.compression
        self._compress = _compressor(self._compression)
        self._session: requests.Session | None = None

    def encode(self, origin: str, items: Sequence[Item]) -> Encoded:
        """Make a request; see :class:`auditspan_seal.otlp.answer.Sender`."""
        return self._encode(origin, items, self._encoding)

    def send(self, origin: str, items: Sequence[Item], encoded: Encoded | None = None) -> Answer:
        """Send items; see :class:`auditspan_seal.otlp.answer.Sender`."""
        if encoded is None or encoded.encoding is not self._encoding:
            encoded = self.encode(origin, items)
        answer, status = self._send(encoded)
        if self._undecided:
            if status in (400, 415) and answer.kind is Kind.REFUSED:
                other, _ = self._send(self._encode(origin, items, as_protobuf))
                if other.kind is Kind.ACCEPTED:
                    logger.warning(
                        "auditspan: %s does not take OTLP/JSON (HTTP %s), which costs less; protobuf is sent from now "
                        "on. OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf does so at once.",
                        self._place,
                        status,
                    )
                    self._encoding, self._undecided = as_protobuf, False
                    return other
            elif answer.kind is Kind.ACCEPTED:
                self._undecided = False
        return answer

    def close(self) -> None:
        """Give connections back."""
        if self._session is not None:
            self._session.close()

    def _encode(self, origin: str, items: Sequence[Item], encoding: ModuleType) -> Encoded:
        request: Request = encoding.encode(origin, items)
        return Encoded(items, encoding, self._compress(request.body), request.spans, request.left_out)

    def _send(self, request: Encoded) -> tuple[Answer, int | None]:
        """Return what came of it, and the status of the answer; None: there was no answer."""
        kind: str = request.encoding.CONTENT_TYPE  # type: ignore[attr-defined]
        if not request.spans:
            return Answer(Kind.ACCEPTED, left_out=request.left_out), None
        try:
            status, headers, content = self._post(request.content, kind)
        except Exception as error:
            return Answer(Kind.BROKEN if _broke(error) else Kind.LATER, f"{self._place} {_said(error)}"), None
        if 200 <= status < 300:
            rejected, reason = _partial(content, headers.get("content-type") or kind)
            if reason and not rejected:
                logger.warning("auditspan: %s accepted the records and says: %s", self._place, reason)
            return Answer(Kind.ACCEPTED, rejected=rejected, reason=reason, left_out=request.left_out), status
        said = _message(content, headers.get("content-type") or "")
        if 300 <= status < 400:
            said = f"it is elsewhere, and redirects are not followed: {shown(headers.get('location') or '')[:_SHOWN]}"
        problem = f"{self._place} answers HTTP {status}" + (f": {said}" if said else "")
        if status == 413 or (status == 400 and "too large" in said.lower()):
            return Answer(Kind.TOO_LARGE, problem), status
        if status in _SOON:
            return Answer(Kind.LATER, problem, seconds_of(headers.get("retry-after"))), status
        return Answer(Kind.REFUSED, problem, seconds_of(headers.get("retry-after"))), status

    def _post(self, body: bytes, content_type: str) -> tuple[int, Any, bytes]:
        with forks.kept_out():
            import requests  # as late as it can be: an audited process that ends at once does without it

            if self._session is None:
                self._session = _session()
        headers = {"Content-Type": content_type, "User-Agent": "auditspan"}
        if self._compression != "none":
            headers["Content-Encoding"] = self._compression
        headers |= self._settings.headers
        try:
            response = self._once(body, headers)
        except requests.exceptions.Timeout:
            raise
        except requests.exceptions.ConnectionError:
            # Mostly a connection kept from before, which the receiver has closed since.
            response = self._once(body, headers)
        try:
            content = response.raw.read(_LONGEST_ANSWER, decode_content=True) or b""
            if not response.raw.read(1):  # read to its end, the connection can be used again
                response.raw.release_conn()
        finally:
            response.close()
        return response.status_code, response.headers, content

    def _once(self, body: bytes, headers: dict[str, str]) -> requests.Response:
        assert self._session is not None
        settings = self._settings
        client: Any = settings.client
        if settings.client is not None and settings.client[1] is None:
            client = settings.client[0]
        return self._session.post(
            self._settings.endpoint,
            data=body,
            headers=headers,
            timeout=settings.timeout,
            verify=settings.certificate,  # said here, REQUESTS_CA_BUNDLE does not come before it
            cert=client,
            allow_redirects=False,  # a redirect that is followed becomes a GET, and looks like success
            stream=True,
        )


def _session() -> requests.Session:
    """Make a session, or have it made by the credential provider that OpenTelemetry's exporters would take."""
    import requests

    name = next((found for variable in _CREDENTIALS if (found := os.environ.get(variable))), None)
    if name is None:
        return requests.Session()
    for point in entry_points(group="opentelemetry_otlp_credential_provider", name=name):
        session = point.load()()
        if isinstance(session, requests.Session):
            return session
    raise AuditspanError(f"There is no credential provider {name!r} that makes a session of requests.")


def _compressor(name: str) -> Callable[[bytes], bytes]:
    if name == "gzip":
        return lambda body: gzip.compress(
            body, 1, mtime=0
        )  # a quarter of the time of the usual 9, for half as many bytes more
    if name == "deflate":
        return lambda body: zlib.compress(body, 1)
    if name == "zstd":
        with forks.kept_out():
            import zstandard

        # One for each request: requests are made in two threads, and a compressor that both use crashes the process.
        return lambda body: zstandard.ZstdCompressor(level=1).compress(body)
    return lambda body: body


def _broke(error: BaseException | None) -> bool:
    """Tell whether a connection that was there has broken.

    A receiver that finds a request too large answers and closes the connection while the rest is still being sent. Of
    that answer nothing arrives over TLS, and not always otherwise.
    """
    for _ in range(10):
        if isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)):
            return True  # also http.client.RemoteDisconnected
        if error is None:
            break
        error = error.__cause__ or error.__context__
    return False


def _said(error: Exception) -> str:
    import requests

    if isinstance(error, requests.exceptions.ConnectTimeout):
        return "cannot be reached: no connection in time"
    if isinstance(error, requests.exceptions.Timeout):
        return "does not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return f"cannot be reached safely: {str(error)[:_SHOWN]}"
    if isinstance(error, requests.exceptions.ConnectionError):
        return f"cannot be reached: {_innermost(error)}"
    return f"cannot be sent to: {type(error).__name__}: {str(error)[:_SHOWN]}"


def _innermost(error: BaseException) -> str:
    """Return the reason below the layers of libraries."""
    seen = 0
    while seen < 10:
        below = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(below, BaseException):
            break
        error, seen = below, seen + 1
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:_SHOWN]


def _partial(content: bytes, content_type: str) -> tuple[int, str]:
    """Read a partial success: spans rejected, and why."""
    try:
        if "json" in content_type:
            said = orjson.loads(content or b"{}").get("partialSuccess") or {}
            return max(0, int(said.get("rejectedSpans") or 0)), str(said.get("errorMessage") or "")[:_SHOWN]
        if "protobuf" in content_type:
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

            message = ExportTraceServiceResponse.FromString(content).partial_success
            return max(0, message.rejected_spans), message.error_message[:_SHOWN]
    except Exception:
        logger.debug("auditspan: an answer that cannot be read: %r", content[:_SHOWN], exc_info=True)
    return 0, ""


def _message(content: bytes, content_type: str) -> str:
    """Read the message of an error: a google.rpc.Status in JSON or protobuf, or whatever text there is."""
    try:
        if "json" in content_type:
            return str(orjson.loads(content)["message"])[:_SHOWN]
        if "protobuf" in content_type:
            from google.rpc.status_pb2 import Status

            return str(Status.FromString(content).message)[:_SHOWN]
    except Exception:
        logger.debug("auditspan: an answer that cannot be read: %r", content[:_SHOWN], exc_info=True)
    return " ".join(content.decode("utf-8", "replace").split())[:_SHOWN] if "text" in content_type else ""
