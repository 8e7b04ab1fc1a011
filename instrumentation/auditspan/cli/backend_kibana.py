# SPDX-License-Identifier: Apache-2.0
"""``auditspan backend kibana``: data views, searches, dashboards and alert rules, into a Kibana or into files."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import Any

from rich.markup import escape

from auditspan.cli import common
from auditspan.cli.links import URL

_MARKS = {"create": "[bold green]+[/]", "update": "[bold yellow]~[/]", "unchanged": "[dim]=[/]"}
_DONE = {"create": "created", "update": "updated", "unchanged": "unchanged"}


def register(commands: common.Verbs) -> None:
    """Add the command to ``auditspan backend``."""
    parser = common.add_verb(
        commands,
        "kibana",
        run,
        "Install data views, searches, dashboards and alert rules in Kibana 8.19 or newer, or write them as files.",
        "auditspan backend kibana --kibana https://kibana.example:5601 --parameters parameters.yaml",
        "0 done (a second time: nothing to do), 2 wrong usage, or Kibana does not answer or take it",
        inner=True,
    )
    parser.add_argument(
        "--kibana",
        metavar="URL",
        help=f"the Kibana (default: {URL}); credentials as https://user:password@host, or an API key in KIBANA_API_KEY "
        "or ELASTIC_API_KEY",
    )
    parser.add_argument("--space", default="default", help="the space to install into (default: default)")
    parser.add_argument(
        "--parameters",
        type=Path,
        metavar="FILE",
        help="quiet hours, approved actors, scopes, versions… for alert rules",
    )
    parser.add_argument("--without-rules", action="store_true", help="install no alert rules")
    parser.add_argument("--dry-run", action="store_true", help="only show what would change")
    parser.add_argument("--force", action="store_true", help="also write over what people have changed in Kibana")
    parser.add_argument("--ca-file", metavar="FILE", help="certificates of a private authority")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write files instead of installing")


def run(options: argparse.Namespace) -> int:
    """Run the command."""
    from auditspan.kibana import parameters, rules
    from auditspan.kibana.errors import KibanaError
    from auditspan.kibana.install import files, install, write
    from auditspan.kibana.objects import Names

    names = Names(options.space)
    said = parameters.read(options.parameters) if options.parameters else parameters.Parameters()
    left_out = {} if options.without_rules else rules.left_out(said)
    if options.export is not None:
        made = files(names, said)
        write(options.export, made)
        if options.json:
            common.print_json({"folder": str(options.export), "files": sorted(made), "left_out": left_out})
        else:
            common.console().print(f"{len(made)} files in {escape(str(options.export))}")
            _say_left_out(left_out)
        return 0
    from auditspan.kibana.client import Kibana

    url = options.kibana or os.environ.get(URL)
    if not url:
        raise KibanaError("No Kibana is named.", f"Give --kibana https://host:5601, or set {URL}; or --export DIR.")
    kibana = Kibana(url, names, options.ca_file)
    changes: list[dict[str, Any]] = []
    try:
        version = kibana.version()
        if not options.json:
            common.console().print(f"Kibana {version} at {escape(kibana.url)}, space {names.space}", style="dim")
        for change in install(
            kibana, names, None if options.without_rules else said, dry_run=options.dry_run, force=options.force
        ):
            changes.append(dataclasses.asdict(change))
            if not options.json:
                why = f": {escape(', '.join(change.differences))}" if change.differences else ""
                common.console().print(f"{_MARKS[change.what]} {change.kind} [bold]{escape(change.title)}[/]{why}")
    finally:
        kibana.close()
    count = {word: sum(change["what"] == what for change in changes) for what, word in _DONE.items()}
    if options.json:
        common.print_json(
            {
                "kibana": kibana.url, "version": version, "space": names.space, "dry_run": options.dry_run, **count,
                "changes": changes, "left_out": left_out,
            }
        )  # fmt: skip
    else:
        would = "would be " if options.dry_run else ""
        common.console().print(", ".join(f"{number} {would}{word}" for word, number in count.items()))
        _say_left_out(left_out)
    return 0


def _say_left_out(left_out: dict[str, str]) -> None:
    for name, parameter in left_out.items():
        common.console().print(f"  no rule {name}: it needs {parameter} in the --parameters file", style="dim")
