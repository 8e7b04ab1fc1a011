# SPDX-License-Identifier: Apache-2.0
"""Where and how to send, as ``OTEL_EXPORTER_OTLP_*`` say.

They mean what they mean to OpenTelemetry's own exporters (https://opentelemetry.io/docs/specs/otel/protocol/exporter/):
what is set for traces replaces what is set for all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from auditspan_seal.errors import AuditspanError

logger = logging.getLogger("auditspan")

PROTOCOLS = ("http/json", "http/protobuf", "grpc")
TIMEOUT = 10.0  # seconds, if none is set
_COMPRESSIONS = {"http": ("none", "gzip", "deflate", "zstd"), "grpc": ("none", "gzip", "deflate")}


@dataclass(frozen=True)
class Settings:
    """How to send.

    Attributes:
        protocol: one of :data:`PROTOCOLS`; None: none is set, so the fastest that is understood there.
        endpoint: the URL to send to (for gRPC: host and port).
        headers: sent with every request.
        compression: none, gzip, deflate or zstd. If none is set: none within a machine, gzip to another one.
        timeout: seconds to wait for the answer to a request.
        certificate: file of the certificates that the receiver's is checked against; None: those of the system.
        client: files of our certificate and its key; the second is None if the first has both.
        secure: for gRPC: whether to use TLS.
    """

    protocol: str | None
    endpoint: str
    headers: Mapping[str, str]
    compression: str
    timeout: float
    certificate: str | None
    client: tuple[str, str | None] | None
    secure: bool


def endpoint() -> str | None:
    """Return where spans are sent according to the environment; None: nowhere, the directory is the product."""
    return _get("ENDPOINT")


def protocol() -> str | None:
    """Return one of :data:`PROTOCOLS`; None: none is set.

    Raises:
        AuditspanError: the protocol is not known.
    """
    given = _get("PROTOCOL")
    if given is not None and given not in PROTOCOLS:
        raise AuditspanError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {given!r}, which auditspan cannot send; nothing is delivered.",
            f"Set it to {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}. Records stay in the directory and are "
            "delivered after a restart.",
        )
    return given


def load() -> Settings:
    """Read the environment; what cannot be understood is logged, and as if it were not set.

    Raises:
        AuditspanError: the protocol is not known.
    """
    chosen = protocol()
    certificate, key = _get("CLIENT_CERTIFICATE"), _get("CLIENT_KEY")
    target, secure = _grpc_target() if chosen == "grpc" else (_url(), False)
    return Settings(
        protocol=chosen,
        endpoint=target,
        headers=parse_env_headers(_get("HEADERS") or "", liberal=True),
        compression=_compression(chosen == "grpc", target),
        timeout=_timeout(),
        certificate=_get("CERTIFICATE"),
        client=(certificate, key) if certificate else None,
        secure=secure,
    )


def shown(url: str) -> str:
    """Return a URL as it may be shown: without the password that may be in it."""
    before, at, after = url.rpartition("@")
    scheme, slashes, _ = before.partition("//")
    return f"{scheme}{slashes}…@{after}" if at else url


def _get(name: str) -> str | None:
    for variable in (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"):
        if found := os.environ.get(variable, "").strip():
            return found
    return None


def _url() -> str:
    """Return the endpoint for traces as it is, or ``v1/traces`` below the endpoint for all."""
    if given := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return given
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip() or "http://localhost:4318"
    return f"{base.removesuffix('/')}/v1/traces"


def _grpc_target() -> tuple[str, bool]:
    given = _get("ENDPOINT") or "http://localhost:4317"
    parts = urlsplit(given)
    if parts.scheme == "https":
        secure = True
    elif insecure := _get("INSECURE"):
        secure = insecure.lower() != "true"
    else:
        secure = parts.scheme != "http"
    return parts.netloc or given, secure


def _compression(grpc: bool, target: str) -> str:
    given = (_get("COMPRESSION") or "").lower()
    if not given:
        # The specification leaves the default to whoever knows better. Within a machine bytes cost less than the time
        # to compress them; anywhere else they are a tenth, and every receiver takes gzip.
        host = urlsplit(target if "//" in target else f"//{target}").hostname or ""
        return "none" if host in ("localhost", "::1") or host.startswith("127.") else "gzip"
    known = _COMPRESSIONS["grpc" if grpc else "http"]
    if given == "zstd" and "zstd" in known and find_spec("zstandard") is None:
        logger.warning("auditspan: zstd needs the package zstandard (pip install 'auditspan[zstd]'); gzip is used.")
        return "gzip"
    if given in known:
        return given
    logger.warning(
        "auditspan: OTEL_EXPORTER_OTLP_COMPRESSION is %r; known are %s. Nothing is compressed.", given, ", ".join(known)
    )
    return "none"


def _timeout() -> float:
    """Return seconds, as all of OpenTelemetry's Python exporters take it (the specification says milliseconds)."""
    given = _get("TIMEOUT")
    if given is None:
        return TIMEOUT
    try:
        seconds = float(given)
        if 0 < seconds < float("inf"):
            return seconds
    except ValueError:
        pass
    logger.warning(
        "auditspan: OTEL_EXPORTER_OTLP_TIMEOUT is %r, not a number of seconds; %s are taken.", given, TIMEOUT
    )
    return TIMEOUT
