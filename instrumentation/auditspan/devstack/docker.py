# SPDX-License-Identifier: Apache-2.0
"""Both parts as Docker containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from auditspan.devstack import collector, elasticsearch, system
from auditspan.devstack.errors import DevStackError


def engine_version() -> str:
    """Return the version of the Docker engine; empty if none answers."""
    if shutil.which("docker") is None:
        return ""
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


class Container:
    """A container that can be stopped and started again with its data."""

    def __init__(
        self, name: str, options: Sequence[str], image: str, arguments: Sequence[str], ready: str, log: Path
    ) -> None:
        """Store how to create it; create nothing yet."""
        self._name, self._ready, self._log = name, ready, log
        self._create = ["docker", "create", "--name", name, *options, image, *arguments]
        self._created = False
        self.description = f"{image} in Docker"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if not self._created:
            system.run(f"creating the container {self._name}", self._create, self._log, self._log.parent)
            self._created = True
        _docker("start", self._name)
        system.wait_for(self._name, self._ready, None, self._log, 180)

    def stop(self) -> None:
        """Stop it; its data stays."""
        if self._created:
            _docker("stop", "--time", "10", self._name)

    def close(self) -> None:
        """Remove it with its data."""
        if self._created:
            _docker("rm", "--force", "--volumes", self._name)
            self._created = False

    def state(self) -> dict[str, object]:
        """Return its name."""
        return {"container": self._name}


def elasticsearch_container(directory: Path, port: int, version: str = elasticsearch.VERSION) -> Container:
    """Return an Elasticsearch that is published on a loopback port."""
    return Container(
        f"auditspan-elasticsearch-{port}",
        [
            "--publish", f"127.0.0.1:{port}:9200", "--env", "discovery.type=single-node",
            "--env", "xpack.security.enabled=false", "--env", "ES_JAVA_OPTS=-Xms1g -Xmx1g",
            "--env", "path.repo=/tmp/snapshots",
        ],
        f"elasticsearch:{version}",
        [],
        elasticsearch.health_url(f"http://127.0.0.1:{port}"),
        directory / "elasticsearch.log",
    )  # fmt: skip


def collector_container(directory: Path, url: str, ports: collector.Ports, overlay: Path | None = None) -> Container:
    """Return a Collector in the network of the host, so that loopback means the same inside and outside."""
    queue = directory / "collector-queue"
    queue.mkdir(exist_ok=True)
    configuration = system.configuration_folder() / "collector.yaml"
    variables = collector.environment(url, Path("/queue"), ports)
    return Container(
        f"auditspan-collector-{ports.http}",
        [
            "--network", "host", "--user", f"{os.getuid()}:{os.getgid()}",
            "--volume", f"{configuration}:/auditspan/collector.yaml:ro", "--volume", f"{queue}:/queue",
            *(() if overlay is None else ("--volume", f"{overlay.resolve()}:/auditspan/overlay.yaml:ro")),
            *(item for name, value in variables.items() for item in ("--env", f"{name}={value}")),
        ],
        f"otel/opentelemetry-collector-contrib:{collector.VERSION}",
        ["--config=/auditspan/collector.yaml", *(() if overlay is None else ("--config=/auditspan/overlay.yaml",))],
        ports.health_url,
        directory / "collector.log",
    )  # fmt: skip


def remove(name: str) -> None:
    """Remove a container of an earlier process."""
    _docker("rm", "--force", "--volumes", name)


def _docker(*arguments: str) -> None:
    answer = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise DevStackError(
            f"`docker {' '.join(arguments)}` failed: {answer.stderr.strip()[:400]}",
            "The container is not in the state that was wanted.",
            "Look at `docker ps --all` and the state of the Docker engine.",
        )
