# SPDX-License-Identifier: Apache-2.0
"""Asks the live Elasticsearch whether the promises hold; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from auditspan.backend_setup import apply, compare, numbers, plan
from auditspan.backend_setup.artefacts import COMPONENT, INDEX, STREAMS, Artefact
from auditspan.backend_setup.check_result import Check, failed, ok, unknown
from auditspan.backend_setup.plan import State
from auditspan.backend_setup.server import Server, named
from auditspan_seal.errors import SourceError

OLDEST: Final = (8, 19)
_SHOWN: Final = 3
_ADMIN: Final = "Ask again with an account that has the role auditspan_administrator."


def checks(server: Server, artefacts: Sequence[Artefact]) -> Iterator[Check]:
    """Check everything that needs no other account than that of who asks.

    Args:
        server: the Elasticsearch.
        artefacts: what there should be.

    Raises:
        SourceError: Elasticsearch does not answer.
    """
    yield _version(server)
    yield _security(server)
    yield from _templates(server, artefacts)
    for template, stream in STREAMS.items():
        yield _in_effect(server, artefacts, template, stream)
        index = apply.write_index(server, stream)
        if index is None:
            yield unknown(f"live:{stream}", "there is no such data stream yet", "Send something, and check again.")
            continue
        yield _live(server, stream)
        yield _source(server, stream)
        yield _failures(server, stream)
        yield from numbers.unchanged(server, stream)


def _version(server: Server) -> Check:
    answer = server.ask("GET", "/_nodes?filter_path=nodes.*.version")
    if not answer.done:
        return unknown("version", f"its version is not told: {answer.reason}", _ADMIN)
    versions = sorted({node["version"] for node in answer.body.get("nodes", {}).values()})
    old = [version for version in versions if tuple(map(int, version.split(".")[:2])) < OLDEST]
    if old:
        return failed("version", f"Elasticsearch {old[0]}", "auditspan works with 8.19 and newer: upgrade.")
    return ok("version", f"Elasticsearch {', '.join(versions)}")


def _security(server: Server) -> Check:
    answer = server.ask("GET", "/_security/_authenticate")
    if answer.done:
        return ok("security", f"security is on; asked as {answer.body.get('username')}")
    if answer.status == 401:
        raise SourceError(
            f"Elasticsearch does not accept this account: {answer.reason}",
            "Name user and password in the URL, or set ELASTIC_API_KEY.",
        )
    return failed(
        "security",
        "security is off: whoever reaches this Elasticsearch can change and delete everything",
        "Set xpack.security.enabled: true, and make the accounts of docs/elasticsearch.md.",
    )


def _templates(server: Server, artefacts: Sequence[Artefact]) -> Iterator[Check]:
    try:
        steps = plan.make(server, artefacts).steps
    except SourceError as error:
        yield unknown("templates", error.what, error.advice)
        return
    for step in steps:
        if step.artefact.kind not in (COMPONENT, INDEX):
            continue
        name = f"template:{step.artefact.name}"
        if step.state is State.UNCHANGED:
            yield ok(name, "installed as it is shipped")
        elif plan.optional(step.artefact):
            yield unknown(
                name,
                "not installed: a document that Elasticsearch refuses is lost here",
                "Run `auditspan backend setup`; 8.19 and 9.1 know it.",
            )
        elif step.state is State.CREATE:
            yield failed(name, "not installed", "Run `auditspan backend setup`.")
        else:
            found = step.why or "differs from what is shipped"
            yield failed(
                name, f"{found}: {_few(step.changes)}", "Run `auditspan backend setup --dry-run` to see all of it."
            )


def _in_effect(server: Server, artefacts: Sequence[Artefact], template: str, stream: str) -> Check:
    """Would the next backing index of the stream be as ours says?"""
    name = f"in_effect:{stream}"
    try:
        made = apply.made(server, stream)
    except SourceError as error:
        return unknown(name, error.what, error.advice)
    if not made:
        return failed(name, "no index template matches", "Run `auditspan backend setup`.")
    missing = apply.difference(made, _composed(artefacts, template))
    if missing:
        return failed(
            name,
            f"the next backing index would not be as shipped: {_few(missing)}",
            "Another index template wins, or auditspan@custom overrides: `auditspan backend setup --dry-run` names it.",
        )
    return ok(name, f"{template} is in effect for the next backing index")


def _composed(artefacts: Sequence[Artefact], template: str) -> dict[str, Any]:
    """Return mapping and settings that the shipped parts of a template make together."""
    bodies = {item.name: item.body for item in artefacts if item.kind == COMPONENT}
    index = next(item.body for item in artefacts if item.name == template)
    found: dict[str, Any] = {}
    for part in index["composed_of"]:
        _merge(found, bodies.get(part, {}).get("template", {}))
    return found


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = _copy(value)


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _live(server: Server, stream: str) -> Check:
    name = f"live:{stream}"
    try:
        differences = apply.live_difference(server, stream)
    except SourceError as error:
        return unknown(name, error.what, error.advice)
    if differences:
        return failed(
            name,
            f"the live backing index is not as the template would make it: {_few(differences)}",
            "Run `auditspan backend setup --rollover`: the next backing index gets it.",
        )
    return ok(name, "the live backing index has mapping and settings of the template")


def _source(server: Server, stream: str) -> Check:
    """Is `_source` kept as it was sent, in every backing index?"""
    name = f"source:{stream}"
    settings = server.ask("GET", f"/{named(stream)}/_settings")
    mappings = server.ask("GET", f"/{named(stream)}/_mapping")
    if not settings.done or not mappings.done:
        return unknown(name, f"settings are not told: {settings.reason}", "Use the role auditspan_auditor.")
    bad = []
    for index, body in settings.body.items():
        mode = compare.flat_settings(body["settings"]).get("index.mapping.source.mode")
        enabled = mappings.body.get(index, {}).get("mappings", {}).get("_source", {})
        if mode != "stored" or enabled.get("enabled") is False or enabled.get("excludes") or enabled.get("includes"):
            bad.append(f"{index} ({mode or 'default'})")
    if bad:
        return failed(
            name,
            f"not kept as it was sent: {', '.join(bad[:_SHOWN])}",
            "Run `auditspan backend setup --rollover`. Verification knows what synthetic source does to a document.",
        )
    return ok(name, f"kept as it was sent, in {len(settings.body)} backing indices")


def _failures(server: Server, stream: str) -> Check:
    """Is there anything that Elasticsearch refused?"""
    name = f"failure_store:{stream}"
    answer = server.ask("GET", f"/_data_stream/{named(stream)}")
    if answer.absent:
        return unknown(
            name,
            "this Elasticsearch has no _data_stream API, so no failure store",
            "Watch `otelcol.elasticsearch.docs.processed` of the Collector: what is refused is only counted there.",
        )
    if not answer.done:
        return unknown(name, f"whether it is on is not told: {answer.reason}", "Use the role auditspan_auditor.")
    if not (answer.body["data_streams"][0].get("failure_store") or {}).get("enabled"):
        return unknown(name, "it is off: what is refused is lost", "Run `auditspan backend setup`.")
    count = server.ask("GET", f"/{named(stream)}::failures/_search?size=0&track_total_hits=true")
    if not count.done:
        return unknown(name, f"it may not be read: {count.reason}", "Use the role auditspan_auditor.")
    total = count.body["hits"]["total"]["value"]
    if total:
        return failed(
            name,
            f"{total} documents were refused",
            f"Look into {stream}::failures for the reason; mend it, then run `auditspan backend reconcile`.",
        )
    return ok(name, "nothing was refused")


def _few(changes: Sequence[compare.Change]) -> str:
    more = f" and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
    return "; ".join(map(str, changes[:_SHOWN])) + more
