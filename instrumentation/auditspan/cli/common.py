# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: arguments, consoles."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from auditspan_seal.log.directory import Directory, default_path, open_directory
from auditspan_seal.log.pruned import Pruned

Verbs = Any  # argparse has no public name for what add_subparsers returns


def console() -> Console:
    """Return the console for results (standard output)."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 150)


def progress(text: str) -> None:
    """Tell what is going on, on standard error."""
    print(f"auditspan: {text}", file=sys.stderr, flush=True)


def add_verb(
    verbs: Verbs, name: str, run: Any, summary: str, example: str, codes: str, *, inner: bool = False
) -> argparse.ArgumentParser:
    """Add a verb, or a command `inner` to one, with its help: a summary, an example and its exit codes.

    The ``--json`` of an inner command has no default, so that one before the command is not undone.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}\n\nexit codes:\n  {codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    default = argparse.SUPPRESS if inner else False
    parser.add_argument("--json", action="store_true", default=default, help="print one JSON object")
    return parser


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where to read from."""
    parser.add_argument(
        "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
    )
    parser.add_argument("--elasticsearch", metavar="URL", help="read the documents in this Elasticsearch instead")


def directory_of(options: argparse.Namespace) -> Directory:
    """Open the directory that the arguments name."""
    return open_directory(options.directory or default_path())


def say_pruned(directory: Directory) -> None:
    """Say on standard error that the beginning of a log is no longer in its directory, if that is so."""
    pruned = Pruned.load(directory)
    if pruned is not None:
        progress(
            f"the indexes below {pruned.size} were pruned from {directory.path}; they are in {pruned.place} "
            "(--elasticsearch)"
        )


def print_json(value: Any) -> None:
    """Print one JSON object."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
