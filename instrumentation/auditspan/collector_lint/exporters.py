# SPDX-License-Identifier: Apache-2.0
"""What each kind of exporter does with records: queue, retries, and what it lets a sender choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditspan.collector_lint.source import UNREAD
from auditspan.collector_lint.trail import Trail

NOWHERE = ("nop", "debug", "logging")
"""Exporters that keep nothing."""
HANDING_ON = ("otlp", "otlp_grpc", "otlphttp", "otlp_http", "kafka")
"""Exporters that hand records to somebody else who keeps them."""
ARCHIVES = ("file", "awss3", "googlecloudstorage", "azureblob")
"""Exporters that keep a copy, which nobody searches."""
_WITHOUT_QUEUE = ("file",)
_MENDED_BY_THE_SERVER = {429, 502, 503, 504}
_MENDED_BY_PEOPLE = {401, 403, 404, 408, 500}
_ENOUGH_RETRIES = 1_000_000
_VOLATILE = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run")  # noqa: S108 - what to warn of


def check(trail: Trail, name: str) -> None:
    """Judge one exporter at the end of a way.

    Args:
        trail: the record that arrives.
        name: id of the exporter, e.g. ``elasticsearch/audit``.
    """
    kind = name.partition("/")[0]
    settings = trail.configuration.section("exporters", name)
    if kind not in _WITHOUT_QUEUE and _queue(trail, name, kind, settings) and kind != "elasticsearch":
        _retries(trail, name, settings)
    if kind == "elasticsearch":
        _elasticsearch(trail, name, settings)
    elif kind == "file":
        _file(trail, name, settings)
    elif kind == "kafka":
        _kafka(trail, name, settings)


def _queue(trail: Trail, name: str, kind: str, settings: dict[str, Any]) -> bool:
    """Judge the queue; return whether there is one."""
    path = ("exporters", name, "sending_queue")
    queue = trail.configuration.section(*path)
    if queue.get("enabled", True) is False:
        return False  # senders wait for the answer of the next hop, and keep what they have until then
    storage = queue.get("storage")
    if not storage:
        trail.find("queue-not-durable", f"{name} has its queue in memory", *path)
    else:
        _storage(trail, name, str(storage))
    if queue.get("block_on_overflow") is not True:
        trail.find("queue-not-blocking", f"{name} does not set block_on_overflow: true", *path, "block_on_overflow")
    if "queue_size" not in queue:
        trail.find("queue-size", f"{name} says no queue_size", *path)
    if kind in HANDING_ON[:4] and (settings.get("auth") or _authorised_by_header(settings)):
        trail.find("refusal-drops", f"{name} authenticates with a token", "exporters", name, "auth")
    if kind == "kafka":
        trail.find("refusal-drops", f"{name} drops from its queue what it has no right to write", *path)
    return True


def _authorised_by_header(settings: dict[str, Any]) -> bool:
    headers = settings.get("headers")
    return isinstance(headers, Mapping) and any(str(key).lower() == "authorization" for key in headers)


def _storage(trail: Trail, name: str, storage: str) -> None:
    configuration = trail.configuration
    if storage == UNREAD:
        return
    started = _list(configuration.get("service", "extensions"))
    if storage not in configuration.section("extensions") or storage not in started:
        what = f"{name} names {storage}, which is not an extension that is started"
        trail.find("storage-absent", what, "exporters", name, "sending_queue", "storage")
        return
    if storage.partition("/")[0] != "file_storage":
        return
    path = ("extensions", storage)
    settings = configuration.section(*path)
    if settings.get("fsync") is not True:
        trail.find("storage-no-fsync", f"{storage} does not set fsync: true", *path, "fsync")
    folder = str(settings.get("directory") or "")
    if folder.startswith(tuple(f"{place}/" for place in _VOLATILE)) or folder in _VOLATILE:
        trail.find("storage-volatile", f"{storage} is in {folder}", *path, "directory")
    if settings.get("recreate"):
        trail.find("storage-volatile", f"{storage} begins anew when its file is damaged", *path, "recreate")


def _retries(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    path = ("exporters", name, "retry_on_failure")
    retry = trail.configuration.section(*path)
    longest = retry.get("max_elapsed_time", "300s")
    if retry.get("enabled", True) is False:
        trail.find("retry-bounded", f"{name} does not retry", *path, "enabled")
    elif str(longest).rstrip("smh") != "0":
        trail.find("retry-bounded", f"{name} gives up after {longest}", *path, "max_elapsed_time")


def _elasticsearch(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    path = ("exporters", name)
    configuration = trail.configuration
    retry = configuration.section(*path, "retry")
    if retry.get("enabled", True) is False:
        trail.find("retry-bounded", f"{name} does not retry", *path, "retry", "enabled")
    elif not _number(retry.get("max_retries", 2)) >= _ENOUGH_RETRIES:
        what = f"{name} gives up after {retry.get('max_retries', 2)} retries"
        trail.find("retry-bounded", what, *path, "retry", "max_retries")
    given = retry.get("retry_on_status", [429])
    missing = sorted((_MENDED_BY_THE_SERVER | _MENDED_BY_PEOPLE) - {int(_number(item)) for item in _list(given)})
    if missing:
        what = f"{name} does not retry {', '.join(map(str, missing))}"
        trail.find("retry-status", what, *path, "retry", "retry_on_status")
    if str(settings.get("timeout", "90s")).rstrip("smh") != "0":
        trail.find(
            "timeout-bounds-retries", f"{name} has a timeout of {settings.get('timeout', '90s')}", *path, "timeout"
        )
    if _list(configuration.get(*path, "mapping", "allowed_modes")) != ["otel"]:
        trail.find("mapping-mode", f"{name} does not allow otel alone", *path, "mapping", "allowed_modes")
    if left := sorted({f"{key} ({context})" for context, key in trail.senders}):
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        trail.find("control-attributes", f"{name} gets from senders {shown}", *path)
    dynamic = configuration.get(*path, "traces_dynamic_id", "enabled") is True
    if not dynamic or ("span", "elasticsearch.document_id") not in trail.ours:
        what = "does not enable traces_dynamic_id" if not dynamic else "gets no elasticsearch.document_id that is ours"
        trail.find("id-not-dynamic", f"{name} {what} for {trail.kind.name}", *path, "traces_dynamic_id")
    fixed = settings.get("traces_index") or any(
        (context, key) in trail.ours
        for context in ("span", "scope", "resource")
        for key in ("data_stream.dataset", "elasticsearch.index")
    )
    if not fixed:
        trail.find("stream-not-fixed", f"{name} gets no data stream for {trail.kind.name}", *path)


def _kafka(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    path = ("exporters", name)
    if trail.configuration.get(*path, "producer", "required_acks") not in (-1, "all"):
        trail.find("kafka-acks", f"{name} does not ask for all", *path, "producer", "required_acks")
    if settings.get("topic_from_attribute"):
        trail.find("routed-by-claim", f"{name} takes the topic from an attribute", *path, "topic_from_attribute")


def _file(trail: Trail, name: str, settings: dict[str, Any]) -> None:
    path = ("exporters", name)
    if "rotation" in settings:
        kept = _number(trail.configuration.get(*path, "rotation", "max_backups", default=100))
        days = _number(trail.configuration.get(*path, "rotation", "max_days", default=0))
        if kept or days:
            trail.find("archive-deletes", f"{name} keeps {kept:g} files", *path, "rotation")
    elif settings.get("append") is not True:
        trail.find("archive-truncates", f"{name} sets neither append nor rotation", *path)
    if trail.configuration.get(*path, "group_by", "enabled"):
        trail.find("routed-by-claim", f"{name} takes a part of the path from a resource attribute", *path, "group_by")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
