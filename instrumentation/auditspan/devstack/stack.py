# SPDX-License-Identifier: Apache-2.0
"""The two parts together."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from auditspan.devstack import collector, docker, elasticsearch, system
from auditspan.devstack.errors import DevStackError

ELASTICSEARCH_VARIABLE = "AUDITSPAN_ELASTICSEARCH_URL"
COLLECTOR_VARIABLE = "AUDITSPAN_COLLECTOR_ENDPOINT"


class _External:
    """A running service that was named to us: used, never started or stopped."""

    def __init__(self, variable: str, url: str) -> None:
        self._variable = variable
        self.description = f"running at {url}, named by {variable}"

    def start(self) -> None:
        """Do nothing: it runs."""

    def stop(self) -> None:
        """Refuse."""
        raise DevStackError(
            f"The service named by {self._variable} is not ours to stop.",
            "It may serve others too.",
            f"Unset {self._variable} to get a service that can be stopped.",
        )

    def close(self) -> None:
        """Leave it running."""

    def state(self) -> dict[str, object]:
        """Return nothing: there is nothing to end."""
        return {}


class Stack:
    """A running Collector and Elasticsearch; use it as a context manager.

    Attributes:
        parts: what each part is, by name.
    """

    def __init__(self, directory: Path) -> None:
        """Use `Stack.start`."""
        self._directory = directory
        self._services: dict[str, system.Part] = {}
        self._urls: dict[str, str] = {}

    @classmethod
    def start(
        cls,
        directory: str | os.PathLike[str],
        elasticsearch: bool = True,
        collector: bool = True,
        *,
        fixed_ports: bool = False,
        detached: bool = False,
        version: str | None = None,
        overlay: Path | None = None,
    ) -> Stack:
        """Start the parts.

        Args:
            directory: gets data, queue and logs of the parts; made if absent.
            elasticsearch: start an Elasticsearch.
            collector: start a Collector. Without Elasticsearch it queues for one that never comes.
            fixed_ports: 9200, 4317 and 4318 instead of free ones.
            detached: leave the parts running when this process ends.
            version: of Elasticsearch; default: the newest that is known to work. A server that is named to us by
                environment variable is used whatever its version.
            overlay: a second configuration file for the Collector, merged over ``collector.yaml``.

        Raises:
            DevStackError: a part cannot be had or does not start.
        """
        stack = cls(Path(directory).resolve())
        try:
            stack._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DevStackError(
                f"The folder {directory} cannot be created: {error.strerror}.",
                "Data, queue and logs of the stack have no place.",
                "Name another folder.",
            ) from None
        if not detached:
            atexit.register(stack.close)
        try:
            if elasticsearch:
                stack._add_elasticsearch(9200 if fixed_ports else system.free_ports(1)[0], detached, version)
            if collector:
                ports = (4317, 4318, 13133, 8888) if fixed_ports else system.free_ports(4)
                stack._add_collector(_ports(*ports), detached, overlay)
        except BaseException:
            stack.close()
            raise
        return stack

    def __enter__(self) -> Stack:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop everything."""
        self.close()

    @property
    def parts(self) -> dict[str, str]:
        """What each part is, e.g. ``{"elasticsearch": "9.5.0 from Maven coordinates"}``."""
        return {name: part.description for name, part in self._services.items()}

    @property
    def directory(self) -> Path:
        """Folder with data, queue and logs."""
        return self._directory

    @property
    def elasticsearch_url(self) -> str:
        """Base URL of Elasticsearch."""
        return self._url("elasticsearch")

    @property
    def otlp_http_endpoint(self) -> str:
        """Base URL for OTLP over HTTP (``/v1/traces`` is added by exporters)."""
        return self._url("otlp_http")

    @property
    def otlp_grpc_endpoint(self) -> str:
        """URL for OTLP over gRPC."""
        return self._url("otlp_grpc")

    @property
    def urls(self) -> dict[str, str]:
        """All URLs by name."""
        return dict(self._urls)

    def state(self) -> dict[str, dict[str, object]]:
        """Return what another process needs to end the parts."""
        return {name: part.state() for name, part in self._services.items()}

    def start_collector(self) -> None:
        """Start the Collector again: same queue folder, same ports."""
        self._part("collector").start()

    def stop_collector(self) -> None:
        """Stop the Collector; what it has accepted stays in its queue on disk."""
        self._part("collector").stop()

    def start_elasticsearch(self) -> None:
        """Start Elasticsearch again: same data, same port."""
        self._part("elasticsearch").start()

    def stop_elasticsearch(self) -> None:
        """Stop Elasticsearch; its data stays."""
        self._part("elasticsearch").stop()

    def close(self) -> None:
        """Stop all parts, the Collector first so that it can still deliver. May be called again."""
        atexit.unregister(self.close)
        while self._services:
            _, part = self._services.popitem()
            part.close()

    def _add_elasticsearch(self, port: int, detached: bool, version: str | None) -> None:
        version = version or elasticsearch.VERSION
        url = os.environ.get(ELASTICSEARCH_VARIABLE, "").rstrip("/")
        if url:
            _require_answer(ELASTICSEARCH_VARIABLE, url, elasticsearch.health_url(url))
        self._urls["elasticsearch"] = url or f"http://127.0.0.1:{port}"
        self._add(
            "elasticsearch",
            ELASTICSEARCH_VARIABLE,
            url,
            lambda: docker.elasticsearch_container(self._directory, port, version),
            lambda: elasticsearch.ElasticsearchProcess(self._directory, port, detached, version),
        )
        elasticsearch.install_templates(self.elasticsearch_url)

    def _add_collector(self, ports: collector.Ports, detached: bool, overlay: Path | None) -> None:
        endpoint = os.environ.get(COLLECTOR_VARIABLE, "").rstrip("/")
        target = self._urls.get("elasticsearch", "http://127.0.0.1:9200")
        self._urls["otlp_http"] = endpoint or f"http://127.0.0.1:{ports.http}"
        # Of a named Collector only the HTTP endpoint is known; the port for gRPC is the registered one.
        host = urlsplit(endpoint).hostname or "127.0.0.1"
        self._urls["otlp_grpc"] = f"http://{host}:{4317 if endpoint else ports.grpc}"
        self._add(
            "collector",
            COLLECTOR_VARIABLE,
            endpoint,
            lambda: docker.collector_container(self._directory, target, ports, overlay),
            lambda: collector.CollectorProcess(self._directory, target, ports, detached, overlay),
        )

    def _add(
        self,
        name: str,
        variable: str,
        url: str,
        in_docker: Callable[[], system.Part],
        from_registries: Callable[[], system.Part],
    ) -> None:
        part: system.Part
        if url:
            part, reason = _External(variable, url), "the variable is set"
        elif engine := docker.engine_version():
            part, reason = in_docker(), f"{variable} is not set and Docker engine {engine} answers"
        else:
            part, reason = from_registries(), f"{variable} is not set and no Docker engine answers"
        system.say(f"{name}: {part.description} ({reason})")
        self._services[name] = part
        part.start()

    def _part(self, name: str) -> system.Part:
        if name not in self._services:
            raise _absent(name)
        return self._services[name]

    def _url(self, name: str) -> str:
        if name not in self._urls:
            raise _absent(name)
        return self._urls[name]


def _absent(name: str) -> DevStackError:
    return DevStackError(
        f"This stack has no {name}.", "It was started without that part.", "Start it with both parts (the default)."
    )


def _require_answer(variable: str, url: str, probe: str) -> None:
    if not system.answers(probe):
        raise DevStackError(
            f"Nothing answers at {url}, which {variable} names.",
            "A service that is named is used and never replaced by another.",
            f"Start it, or unset {variable}.",
        )


# `Stack.start` has parameters of the same names as these modules.
_ports = collector.Ports
