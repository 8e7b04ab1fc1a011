# SPDX-License-Identifier: Apache-2.0
"""The Collector, built with Go from ``collector-config/distribution``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from auditspan.devstack import system
from auditspan.devstack.errors import DevStackError

VERSION = "0.156.0"
_STOP_SECONDS = 10.0


class Ports:
    """Where a Collector listens, always on loopback."""

    def __init__(self, grpc: int, http: int, health: int, metrics: int) -> None:
        """Store the four ports."""
        self.grpc, self.http, self.health, self.metrics = grpc, http, health, metrics

    @property
    def all(self) -> tuple[int, int, int, int]:
        """All four."""
        return self.grpc, self.http, self.health, self.metrics

    @property
    def health_url(self) -> str:
        """What answers when the Collector is ready."""
        return f"http://127.0.0.1:{self.health}/"


def environment(elasticsearch_url: str, queue: Path, ports: Ports) -> dict[str, str]:
    """Return the variables that ``collector.yaml`` reads."""
    return {
        "AUDITSPAN_ELASTICSEARCH_URL": elasticsearch_url,
        "AUDITSPAN_COLLECTOR_QUEUE": str(queue),
        "AUDITSPAN_OTLP_GRPC": f"127.0.0.1:{ports.grpc}",
        "AUDITSPAN_OTLP_HTTP": f"127.0.0.1:{ports.http}",
        "AUDITSPAN_COLLECTOR_HEALTH": f"127.0.0.1:{ports.health}",
        "AUDITSPAN_COLLECTOR_METRICS_PORT": str(ports.metrics),
    }


class CollectorProcess:
    """A Collector that runs as a child process."""

    def __init__(
        self, directory: Path, elasticsearch_url: str, ports: Ports, detached: bool, overlay: Path | None = None
    ) -> None:
        """Build the binary unless the cache has it; start nothing yet.

        Args:
            directory: gets queue and log.
            elasticsearch_url: where it writes.
            ports: where it listens.
            detached: leave it running when this process ends.
            overlay: a second configuration file, merged over ``collector.yaml`` (its lists replace).
        """
        self._binary = _build()
        self._directory = directory
        self._detached = detached
        self._ports = ports
        self._configurations = [system.configuration_folder() / "collector.yaml", *([overlay] if overlay else [])]
        self._log = directory / "collector.log"
        self._environment = environment(elasticsearch_url, directory / "collector-queue", ports)
        self._process: subprocess.Popen[bytes] | None = None
        self.description = f"{VERSION} built with go"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self._process is not None:
            return
        for port in self._ports.all:
            system.require_free(port)
        self._process = system.spawn(
            [str(self._binary), *(f"--config={path}" for path in self._configurations)],
            {**os.environ, **self._environment},
            self._directory,
            self._log,
            self._detached,
        )
        try:
            system.wait_for("the Collector", self._ports.health_url, self._process, self._log, 60)
        except DevStackError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it with SIGTERM.

        While Elasticsearch is away the Collector does not end by itself: it waits for its batches in flight. Killing it
        then is safe, because a batch leaves the queue on disk only when it is delivered.
        """
        process, self._process = self._process, None
        if process is not None and not system.end(process, _STOP_SECONDS):
            system.say("the Collector waited for Elasticsearch and was killed; its queue on disk is complete")

    def close(self) -> None:
        """Stop it for good."""
        self.stop()

    def state(self) -> dict[str, object]:
        """Return its process id and when it started."""
        if self._process is None:
            return {}
        return {"pid": self._process.pid, "started": system.started_at(self._process.pid)}


def binary() -> Path:
    """Return the Collector that is built from ``collector-config/distribution``; build it unless the cache has it.

    Raises:
        DevStackError: it cannot be built.
    """
    return _build()


def _build() -> Path:
    """Return the binary, built for exactly this source."""
    source = system.configuration_folder() / "distribution"
    cache = system.cache_folder()
    folder = cache / f"collector-{VERSION}-{_content_hash(source)}"
    binary = folder / "auditspan-collector"
    with system.exclusively(cache):
        if not binary.exists():
            _require_go()
            folder.mkdir(exist_ok=True)
            unfinished = folder / "unfinished"
            system.run(
                "building the Collector with go (about 2 minutes the first time)",
                ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(unfinished), "."],
                folder / "build.log",
                source,
                # The files around may belong to another version control system or user; it adds nothing here.
                {"GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -buildvcs=false".strip()},
            )
            unfinished.rename(binary)
    return binary


def _content_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _require_go() -> None:
    if shutil.which("go") is None:
        raise DevStackError(
            "There is no Collector: AUDITSPAN_COLLECTOR_ENDPOINT is not set, no Docker engine answers, "
            "`go` is missing.",
            "The Collector can be used, pulled as an image or built, and none of the three is possible.",
            "Install Go 1.25 or newer, or start a Docker engine, or name a running Collector by that variable.",
        )
