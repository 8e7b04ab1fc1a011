# SPDX-License-Identifier: Apache-2.0
"""Who can send, and what else is judged once for a configuration and not for each way of a record."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

from auditspan.collector_lint import ottl
from auditspan.collector_lint.flow import Flow
from auditspan.collector_lint.source import UNREAD, Configuration

Find = Callable[..., None]
_DEFAULT = {"grpc": "localhost:4317", "http": "localhost:4318"}


def check(configuration: Configuration, flow: Flow, find: Find) -> None:
    """Judge receivers, connectors and the Collector's own telemetry.

    Args:
        configuration: the configuration.
        flow: its pipelines.
        find: takes rule, what, and path.
    """
    for name in flow.receivers:
        kind = name.partition("/")[0]
        if kind == "otlp":
            _otlp(configuration, name, find)
        elif kind == "kafka":
            _kafka(configuration, name, find)
    _limits(flow, find)
    for connector, position in flow.undecided():
        condition, context = flow.table(connector)[position]
        named = ", ".join(dict.fromkeys(ottl.claims(condition))) or condition
        what = f"{connector} decides by {named} ({context})"
        find("routed-by-claim", what, "connectors", connector, "table", str(position))
    if configuration.get("service", "telemetry", "metrics", "level") == "none":
        find("no-metrics", "the Collector has no metrics", "service", "telemetry", "metrics", "level")
    for path in _unread(configuration.content, ()):
        find("not-readable", "a value from a provider", *path)
    for pipeline in flow.pipelines:
        for part in ("receivers", "processors", "exporters"):
            known = configuration.section(part) | (configuration.section("connectors") if part != "processors" else {})
            for name in flow.parts(pipeline, part):
                if name not in known:
                    what = f"{pipeline} names {name} in its {part}, and there is none"
                    find("undefined", what, "service", "pipelines", pipeline, part)


def _otlp(configuration: Configuration, name: str, find: Find) -> None:
    path = ("receivers", name, "protocols")
    for protocol, settings in configuration.section(*path).items():
        said: dict[str, Any] = settings if isinstance(settings, dict) else {}
        here = (*path, protocol)
        if said.get("include_metadata"):
            find("metadata-header", f"{name} hands on the headers of {protocol} senders", *here, "include_metadata")
        endpoint = str(said.get("endpoint") or _DEFAULT.get(protocol, ""))
        if said.get("transport") == "unix" or endpoint.startswith("unix:") or _loopback(endpoint):
            continue
        tls = configuration.section(*here, "tls")
        if not tls:
            find("listener-open", f"{name} listens at {endpoint} without TLS", *here, "endpoint")
        elif not tls.get("client_ca_file") and not said.get("auth"):
            find("listener-anonymous", f"{name} asks senders at {endpoint} for nothing", *here, "endpoint")


def _loopback(endpoint: str) -> bool:
    host = endpoint.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _kafka(configuration: Configuration, name: str, find: Find) -> None:
    path = ("receivers", name)
    marking = configuration.section(*path, "message_marking")
    if marking.get("after") is not True or marking.get("on_error") or marking.get("on_permanent_error"):
        find("kafka-marks-early", f"{name} marks messages before they are stored", *path, "message_marking")
    backoff = configuration.section(*path, "error_backoff")
    if backoff.get("enabled") is not True or str(backoff.get("max_elapsed_time", "")).rstrip("smh") != "0":
        find("kafka-marks-early", f"{name} gives up on a message that is refused", *path, "error_backoff")


def _limits(flow: Flow, find: Find) -> None:
    seen = False
    for pipeline in flow.pipelines:
        processors = flow.parts(pipeline, "processors")
        kinds = [name.partition("/")[0] for name in processors]
        if "memory_limiter" not in kinds:
            continue
        seen = True
        received = any(name in flow.receivers for name in flow.parts(pipeline, "receivers"))
        if kinds[0] != "memory_limiter" or not received:
            what = f"{processors[kinds.index('memory_limiter')]} is not the first thing in {pipeline} that records meet"
            find("memory-limiter-late", what, "service", "pipelines", pipeline, "processors")
    if not seen and flow.pipelines:
        find("no-memory-limit", "no memory_limiter", "service", "pipelines")


def _unread(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _unread(item, (*path, str(key)))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _unread(item, (*path, str(position)))
    elif isinstance(value, str) and UNREAD in value:
        yield path
