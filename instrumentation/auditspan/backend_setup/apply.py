# SPDX-License-Identifier: Apache-2.0
"""Does what the plan says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from auditspan.backend_setup import compare
from auditspan.backend_setup.artefacts import STREAMS
from auditspan.backend_setup.plan import Plan, State, Step, optional
from auditspan.backend_setup.server import Server, named
from auditspan_seal.errors import SourceError


def apply(server: Server, plan: Plan, progress: Callable[[str], None] = lambda text: None) -> None:
    """Put what is missing or differs; nothing if anything is refused.

    Args:
        server: the Elasticsearch.
        plan: what to do; the state of a step that this server does not know becomes *unsupported*.
        progress: is told what is done.

    Raises:
        SourceError: Elasticsearch does not answer, or refuses. What was put before stays; the next run goes on.
    """
    if plan.refused:
        return
    for at, step in enumerate(plan.steps):
        if step.state not in (State.CREATE, State.UPDATE):
            continue
        progress(f"putting {step.artefact.title}")
        plan.steps[at] = _put(server, step)


def _put(server: Server, step: Step) -> Step:
    artefact = step.artefact
    answer = server.ask("PUT", artefact.path, compare.marked(artefact))
    if answer.done:
        return step
    if optional(artefact) and answer.status == 400:
        return replace(step, state=State.UNSUPPORTED, why=answer.reason)
    advice = "See what it says there; what was put before stays, and the next run goes on from here."
    if answer.refused:
        advice = (
            "Use an account with the role auditspan_administrator (for roles one that has manage_security); an API key "
            "as ELASTIC_API_KEY."
        )
    elif answer.absent:
        advice = "This Elasticsearch has no such thing: leave the flag out that asks for it."
    raise SourceError(f"Elasticsearch does not take the {artefact.title}: {answer.reason}.", advice)


def outdated(server: Server) -> list[str]:
    """Return the data streams whose live backing index differs from what the template makes.

    Raises:
        SourceError: Elasticsearch does not answer, or refuses.
    """
    found = []
    for stream in STREAMS.values():
        live = _live(server, stream)
        if live is not None and difference(live, made(server, stream)):
            found.append(stream)
    return found


def live_difference(server: Server, stream: str) -> list[compare.Change]:
    """Return in what the live backing index of a data stream falls short of its template.

    Raises:
        SourceError: Elasticsearch does not answer, or refuses.
    """
    live = _live(server, stream)
    return [] if live is None else difference(live, made(server, stream))


def made(server: Server, stream: str) -> dict[str, Any]:
    """Return what the next backing index of a data stream would be; empty: no template matches.

    Raises:
        SourceError: Elasticsearch does not answer, or refuses.
    """
    answer = server.expect("POST", f"/_index_template/_simulate_index/{named(stream)}", "tell what would be in effect")
    found: dict[str, Any] = (answer or {}).get("template") or {}
    return found


def difference(live: Mapping[str, Any], template: Mapping[str, Any]) -> list[compare.Change]:
    """Return in what an index falls short of a template.

    What it has beyond that is no difference: documents bring new fields.
    """
    found = []
    ignored = compare.flat_settings(live.get("settings") or {}).get("index.mapping.ignore_malformed") == "true"
    for flat, key, prefix in (
        (compare.flat_mapping, "mappings", "mappings."), (compare.flat_settings, "settings", "settings."),
    ):  # fmt: skip
        there, wanted = flat(live.get(key) or {}), flat(template.get(key) or {})
        found += [
            compare.Change(prefix + path, there.get(path), value)
            for path, value in sorted(wanted.items())
            if there.get(path) != value
            and not path.startswith("index.routing.allocation")
            # Elasticsearch leaves out of a mapping what the settings say already.
            and not (ignored and value == "true" and path not in there and path.endswith(".ignore_malformed"))
        ]
    return found


def roll_over(server: Server, stream: str) -> None:
    """Give a data stream a new backing index.

    Raises:
        SourceError: Elasticsearch does not answer, or refuses.
    """
    answer = server.ask("POST", f"/{named(stream)}/_rollover")
    if not answer.done:
        raise SourceError(
            f"The data stream {stream} was not rolled over: {answer.reason}.",
            "Use an account that may (role auditspan_administrator), and run the command again.",
        )


def _live(server: Server, stream: str) -> dict[str, Any] | None:
    """Return mapping and settings of the backing index that a data stream writes to; None: there is none."""
    name = write_index(server, stream)
    if name is None:
        return None
    mapping = server.get(f"/{named(name)}/_mapping") or {}
    settings = server.get(f"/{named(name)}/_settings") or {}
    if name not in mapping or name not in settings:
        return None
    return {"mappings": mapping[name]["mappings"], "settings": settings[name]["settings"]}


def write_index(server: Server, stream: str) -> str | None:
    """Return the backing index that a data stream writes to; None: there is no such data stream.

    Raises:
        SourceError: Elasticsearch does not answer, or refuses.
    """
    found = server.get(f"/_resolve/index/{named(stream)}") or {}
    for item in found.get("data_streams", []):
        if item["name"] == stream:
            return str(item["backing_indices"][-1])
    return None
