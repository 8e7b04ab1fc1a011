# SPDX-License-Identifier: Apache-2.0
"""The command ``auditspan``. One module per verb; every error is one message and an exit code, never a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from auditspan import __version__
from auditspan_seal.errors import AuditspanError, SourceError

USAGE_ERROR = 2
VERBS = {
    "demo": "demo",
    "status": "status",
    "verify": "verify",
    "prove": "prove",
    "runs": "runs",
    "show": "runs",
    "erase": "erase",
    "keys": "keys",
    "schema": "schema",
    "agent": "agent",
    "backend": "backend",
    "prune": "prune",
    "witness": "witness",
}
"""Each verb → the module that has it, and is loaded only for it: most of the time of a short command is loading."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program name; default: those of the process.

    Returns:
        The exit code: 0 all is well; 2 wrong usage or a source that cannot be read; the verbs document their own.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="auditspan",
        description="Signed, tamper-evident audit spans for automations.",
        epilog="Start your program under `opentelemetry-instrument` to have it audited; no code changes.",
    )
    parser.add_argument("--version", action="version", version=f"auditspan {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    wanted = [VERBS[given[0]]] if given and given[0] in VERBS else list(dict.fromkeys(VERBS.values()))
    for module in wanted:
        import_module(f"{__name__}.{module}").register(verbs)
    options = parser.parse_args(given)
    try:
        return int(options.run(options))
    except AuditspanError as error:
        print(f"auditspan: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("auditspan: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); the interpreter must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        said = SourceError(
            f"{error.filename or 'A file or a connection'} cannot be used: {error.strerror or error}.",
            "Check that it is what it should be, and that this user may use it.",
        )
        print(f"auditspan: {said}", file=sys.stderr)
        return USAGE_ERROR
