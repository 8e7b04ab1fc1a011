# SPDX-License-Identifier: Apache-2.0
"""What the tests of faults share: a slow way to Elasticsearch, load that measures itself, and an agent beside it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.processor import AuditSpanProcessor
from auditspan_seal.service import AuditLog
from tests.backend import honest
from tests.conftest import BIN
from tests.records import audit_attributes


class Proxy:
    """Forwards TCP connections; what a client sends is delayed."""

    def __init__(self, port: int) -> None:
        self.delay = 0.0
        """Seconds by which every piece of a request is late."""
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        """End, with all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _start(self, work: Any, *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._forward, client)

    def _forward(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._to)) as server:
            back = self._start(self._pump, server, client, False)
            self._pump(client, server, True)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket, late: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if late:
                    time.sleep(self.delay)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Load:
    """Records spans in a thread of this process, and measures what that costs the application."""

    def __init__(self, folder: Path, rate: int = 100, **attributes: Any) -> None:
        self.recorded = 0
        self.slowest = 0.0
        """Longest that one span took, in seconds."""
        self.errors: list[BaseException] = []
        self._pause = 1 / rate
        self._attributes = attributes
        self._stopping = threading.Event()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._log = AuditLog(folder)
        self._provider.add_span_processor(AuditSpanProcessor(self._log))
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        return self._log.lost

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._provider.shutdown()

    def _work(self) -> None:
        tracer = self._provider.get_tracer("load")
        try:
            while not self._stopping.wait(self._pause):
                attributes = audit_attributes(number=self.recorded, **self._attributes)
                begin = time.perf_counter()
                with tracer.start_as_current_span("load", attributes=attributes):
                    pass
                self.slowest = max(self.slowest, time.perf_counter() - begin)
                self.recorded += 1
        except BaseException as error:
            self.errors.append(error)


@contextlib.contextmanager
def agent(folder: Path, endpoint: str, elasticsearch: str, every: float = 1.0) -> Iterator[Directory]:
    """Run ``auditspan agent --reconcile`` on a directory."""
    environment = honest.environment(endpoint, AUDITSPAN_DIR=str(folder), AUDITSPAN_ELASTICSEARCH_URL=elasticsearch)
    command = [sys.executable, str(BIN / "auditspan"), "agent", "--reconcile", str(every)]
    with open(folder.with_suffix(".agent"), "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        honest.eventually(lambda: (folder / "checkpoint").exists(), "the agent has begun a log")
        yield open_directory(folder)
    finally:
        process.terminate()
        assert process.wait(60) == 0, folder.with_suffix(".agent").read_text()[-4000:]


def status(directory: Directory) -> tuple[int, dict[str, Any]]:
    """Return exit code and JSON of ``auditspan status``."""
    done = subprocess.run(
        [str(BIN / "auditspan"), "status", str(directory.path), "--json"],
        capture_output=True, text=True, timeout=60, env=honest.environment(),
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found
