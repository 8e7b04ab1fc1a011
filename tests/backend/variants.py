# SPDX-License-Identifier: Apache-2.0
"""Collectors of their own, with the configurations of collector-config layered as an operator does it."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from auditspan.devstack import collector, system
from tests.conftest import OURS
from tests.environments import ROOT

FOLDER = ROOT / "collector-config"
NO_ELASTICSEARCH = "http://127.0.0.1:1"


class Running:
    """A Collector that runs.

    Args:
        folder: gets its queue and its output; survives a restart.
        names: configurations, in order, without ``.yaml``.
        settings: more variables.
        elasticsearch: where it writes.
    """

    def __init__(self, folder: Path, *names: str, elasticsearch: str = NO_ELASTICSEARCH, **settings: str) -> None:
        self.folder = folder
        self.ports = collector.Ports(*system.free_ports(4))
        self.log = folder / "collector.log"
        self._names = names
        self.settings: dict[str, str] = settings
        self._elasticsearch = elasticsearch
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        own = collector.environment(self._elasticsearch, self.folder / "queue", self.ports)
        self._process = system.spawn(
            [str(collector.binary()), *arguments(*self._names)], variables(own | self.settings), self.folder, self.log,
            detached=False,
        )  # fmt: skip
        system.wait_for("the Collector", self.ports.health_url, self._process, self.log, 60)

    def stop(self, seconds: float = 5) -> None:
        """End it; kill it if it waits for somebody who does not answer."""
        process, self._process = self._process, None
        if process is not None:
            system.end(process, seconds)

    def kill(self) -> None:
        """SIGKILL; its queue stays."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def metrics(self) -> str:
        return httpx.get(f"http://127.0.0.1:{self.ports.metrics}/metrics").text

    def count(self, metric: str, **labels: str) -> float:
        """Sum of a metric over all series with these labels."""
        return total(self.metrics(), metric, **labels)

    @property
    def http(self) -> str:
        return f"127.0.0.1:{self.ports.http}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports.grpc}"


def total(text: str, metric: str, **labels: str) -> float:
    found = 0.0
    for line in text.splitlines():
        name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
        if name == metric and all(f'{key}="{item}"' in rest for key, item in labels.items()):
            found += float(line.rpartition(" ")[2])
    return found


def names_of(text: str) -> set[str]:
    """Names of the metrics in a scrape."""
    return set(re.findall(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)[{ ]", text, re.MULTILINE))


def arguments(*names: str) -> list[str]:
    return [f"--config={FOLDER / name}.yaml" for name in names]


def variables(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a Collector, with nothing from whoever runs the tests."""
    return {name: text for name, text in os.environ.items() if not name.startswith(OURS)} | dict(more)


@contextlib.contextmanager
def running(*collectors: Running) -> Iterator[None]:
    """Start Collectors; stop them in the other order."""
    with contextlib.ExitStack() as stack:
        for item in collectors:
            stack.callback(item.stop)
            item.start()
        yield
