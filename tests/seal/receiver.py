# SPDX-License-Identifier: Apache-2.0
"""An OTLP receiver that makes the faults that a real one makes only sometimes."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import zstandard
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

JSON, PROTOBUF = "application/json", "application/x-protobuf"


@dataclass(frozen=True)
class Reply:
    """What to answer. Status 0: close the connection with a reset; -1: never answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


RESET, HANG = Reply(0), Reply(-1)


@dataclass(frozen=True)
class Received:
    """A request."""

    path: str
    headers: Mapping[str, str]
    body: bytes  # decompressed

    @property
    def indexes(self) -> list[int]:
        """Return the indexes of the entries in it."""
        return [at for at in map(index_of, spans_of(self)) if at is not None]


def spans_of(request: Received) -> list[Any]:
    """Return the spans of a request, as they are in its encoding."""
    if request.headers["content-type"] == JSON:
        scopes = [scope for part in orjson.loads(request.body)["resourceSpans"] for scope in part["scopeSpans"]]
        return [span for scope in scopes for span in scope["spans"]]
    message = ExportTraceServiceRequest.FromString(request.body)
    return [span for part in message.resource_spans for scope in part.scope_spans for span in scope.spans]


def index_of(span: Any) -> int | None:
    """Return the index in the log of the entry that a span is the document of; None: it is a checkpoint."""
    if isinstance(span, dict):
        found = [int(a["value"]["intValue"]) for a in span["attributes"] if a["key"] == "audit.log.index"]
    else:
        found = [a.value.int_value for a in span.attributes if a.key == "audit.log.index"]
    return found[0] if found else None


class Receiver:
    """The running receiver.

    Attributes:
        requests: all that came.
        accepted: those of them that were answered with success.
        reply: decides about the answer to a request.
        limit: bytes; a larger request breaks the connection while it is sent.
    """

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.accepted: list[Received] = []
        self.reply: Callable[[Received], Reply] = lambda request: Reply()
        self.url = ""
        self.connections = 0
        self.limit = sys.maxsize
        self._released = threading.Event()

    def then(self, *replies: Reply) -> None:
        """Answer so, one after the other, and with success from then on."""
        waiting = list(replies)
        self.reply = lambda request: waiting.pop(0) if waiting else Reply()

    @property
    def indexes(self) -> list[int]:
        """Return the indexes of all entries accepted, in the order of arrival."""
        return [index for request in self.accepted for index in request.indexes]


@contextmanager
def receiving(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            receiver.connections += 1
            super().setup()

        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            if length > receiver.limit:
                self.break_off()
                return
            body = self.rfile.read(length)
            decode = {"gzip": gzip.decompress, "deflate": zlib.decompress, "zstd": zstandard.decompress}
            body = decode.get(self.headers.get("content-encoding", ""), bytes)(body)
            headers = {name.lower(): text for name, text in self.headers.items()}
            request = Received(self.path, headers, body)
            receiver.requests.append(request)
            reply = receiver.reply(request)
            if reply.status == HANG.status:
                receiver._released.wait(60)
            if reply.status <= 0:
                self.break_off()
                return
            if 200 <= reply.status < 300:
                receiver.accepted.append(request)
            kind = headers["content-type"]
            content = reply.body or (b"{}" if reply.status == 200 and kind == JSON else b"")
            self.send_response(reply.status)
            for name, text in {"content-type": kind, "content-length": str(len(content)), **reply.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

        def break_off(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

        def finish(self) -> None:
            if self.connection.fileno() >= 0:
                super().finish()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that goes away is part of the tests

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        receiver.url = f"{'https' if tls else 'http'}://localhost:{server.server_address[1]}"
        try:
            yield receiver
        finally:
            receiver._released.set()
            server.shutdown()
            thread.join()
