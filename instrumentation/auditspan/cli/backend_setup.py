# SPDX-License-Identifier: Apache-2.0
"""``auditspan backend setup``: puts templates, retention and roles into Elasticsearch."""

from __future__ import annotations

import argparse
from typing import Any

from rich.markup import escape

from auditspan.cli import common
from auditspan_seal.errors import SourceError

_REFUSED = 1
_TO_DO = 3
_SHOWN = 12
_SIGNS = {"create": "[bold green]+[/]", "update": "[bold yellow]~[/]", "unchanged": "[dim]=[/]",
          "refused": "[bold red]✗[/]", "unsupported": "[dim]?[/]"}  # fmt: skip


def register(commands: common.Verbs, url: str) -> None:
    """Add the command."""
    parser = common.add_verb(
        commands,
        "setup",
        run,
        "Put index templates, and if asked for retention and roles, into Elasticsearch. May be run again: what is "
        "there as it should be is left alone, and nothing is made weaker than it is.",
        "auditspan backend setup --elasticsearch https://admin:secret@es.example:9200 --retention 365 --dry-run",
        "0 done, or nothing to do; 1 something would have been weakened, so nothing was done; 2 wrong usage or "
        "unreachable; 3 with --dry-run: there is something to do",
        inner=True,
    )
    parser.add_argument("--elasticsearch", metavar="URL", help=f"the Elasticsearch (default: {url})")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
    parser.add_argument(
        "--retention", type=float, metavar="DAYS",
        help="keep records so long that all of the last DAYS days can be verified (default: leave retention as it is)",
    )  # fmt: skip
    parser.add_argument(
        "--ilm",
        action="store_true",
        help="with --retention: by index lifecycle management, not by data stream lifecycle",
    )
    parser.add_argument(
        "--roles", action="store_true", help="the roles of docs/reference/elasticsearch-roles.md as well"
    )
    parser.add_argument(
        "--reader", action="append", default=[], metavar="NAME:TENANT:ENVIRONMENT",
        help="a role auditspan_reader_NAME that sees only these rows, and nothing personal; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--hide", action="append", default=[], metavar="ATTRIBUTE",
        help="with --reader: an attribute that your policy calls personal; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--priority", type=int, default=0, metavar="N", help="priority of the index templates, if 250 is not enough"
    )
    parser.add_argument(
        "--replace", action="append", default=[], metavar="NAME",
        help="replace what is there under this name, whatever it is; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--rollover", action="store_true",
        help="give data streams that are not as their template says a new backing index now",
    )  # fmt: skip
    parser.add_argument(
        "--development", action="store_true", help="templates for ordinary spans too, for a server that brings none"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from auditspan.backend_setup import apply, plan
    from auditspan.backend_setup.artefacts import load
    from auditspan.backend_setup.server import Server
    from auditspan.cli.backend import url_of
    from auditspan.devstack.system import configuration_folder

    artefacts = load(configuration_folder() / "elasticsearch", _wanted(options))
    with Server.of_environment(url_of(options)) as server:
        made = plan.make(server, artefacts, options.replace)
        if not options.dry_run:
            apply.apply(server, made, common.progress)
        if not made.refused:
            made.rollovers = apply.outdated(server)
        rolled = made.rollovers if options.rollover and not options.dry_run and not made.refused else []
        for stream in rolled:
            apply.roll_over(server, stream)
    to_do = options.dry_run and (made.open or (options.rollover and made.rollovers))
    code = _REFUSED if made.refused else _TO_DO if to_do else 0
    if options.json:
        common.print_json(as_json(made, options.dry_run, rolled))
    else:
        _show(made, options, rolled)
    return code


def _wanted(options: argparse.Namespace) -> Any:
    from auditspan.backend_setup.artefacts import Wanted

    if options.retention is not None and not options.retention >= 1:
        raise SourceError("--retention must be 1 day or more.", "Leave it out to leave retention as it is.")
    if options.ilm and options.retention is None:
        raise SourceError("--ilm says how long to keep records only together with --retention.", "Give both.")
    if options.hide and not options.reader:
        raise SourceError("--hide says what the roles of --reader do not see.", "Give both.")
    readers = [tuple(item.split(":")) for item in options.reader]
    if any(len(item) != 3 or not all(item) or not item[0].replace("_", "").isalnum() for item in readers):
        raise SourceError(
            "--reader wants NAME:TENANT:ENVIRONMENT.",
            "For example --reader acme:acme-corp:production, for the role auditspan_reader_acme.",
        )
    return Wanted(
        retention=options.retention,
        ilm=options.ilm,
        roles=options.roles,
        readers=tuple(readers),
        hide=tuple(options.hide),
        priority=options.priority,
        development=options.development,
    )


def as_json(made: Any, dry_run: bool, rolled: list[str]) -> dict[str, Any]:
    """Return what was done, as ``--json`` prints it."""
    return {
        "state": "refused" if made.refused else "planned" if dry_run else "done",
        "dry_run": dry_run,
        "steps": [
            {
                "kind": step.artefact.kind,
                "name": step.artefact.name,
                "state": step.state.value,
                "changes": [{"path": item.path, "old": item.old, "new": item.new} for item in step.changes],
                "why": step.why,
                "advice": step.advice,
            }
            for step in made.steps
        ],
        "outdated_streams": [stream for stream in made.rollovers if stream not in rolled],
        "rolled_over": rolled,
    }


def _show(made: Any, options: argparse.Namespace, rolled: list[str]) -> None:
    console = common.console()
    for step in made.steps:
        console.print(
            f"  {_SIGNS[step.state.value]} {step.artefact.kind} [bold]{escape(step.artefact.name)}[/]", end=""
        )
        console.print(f"  {step.state.value}", style="dim")
        for change in step.changes[:_SHOWN]:
            console.print(f"      {escape(str(change))}", style="dim")
        if len(step.changes) > _SHOWN:
            console.print(f"      … and {len(step.changes) - _SHOWN} more; --json has them", style="dim")
        if step.why:
            console.print(f"      {escape(step.why)}")
        if step.advice:
            console.print(f"      What to do: {escape(step.advice)}")
    for stream in made.rollovers:
        if stream in rolled:
            console.print(f"  [bold green]↻[/] {stream} was rolled over: its new backing index is as the template says")
        else:
            console.print(
                f"  [bold yellow]![/] {stream}: its live backing index is not as the template says; the next one will "
                "be. `--rollover` makes it now."
            )
    if made.refused:
        console.print(f"[bold red]REFUSED[/]  {len(made.refused)} would have been weakened; nothing was changed")
    elif options.dry_run:
        console.print(f"[bold]PLANNED[/]  {len(made.open)} to be put; nothing was changed (--dry-run)")
    else:
        console.print(
            f"[bold green]DONE[/]  {len(made.open)} put, {len(made.steps) - len(made.open)} left as they were"
        )
