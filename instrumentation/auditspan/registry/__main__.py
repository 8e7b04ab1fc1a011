# SPDX-License-Identifier: Apache-2.0
"""``python -m auditspan.registry``: writes everything that is derived from ``registry.yaml``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from auditspan.registry import derived
from auditspan.registry.load import SOURCE, load, source_tree
from auditspan_seal.errors import AuditspanError

_OUTDATED = 1
_UNREADABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=derived.COMMAND,
        description="Write everything that is derived from registry.yaml: names, builders, rules, mapping, pages.",
        epilog="exit codes: 0 all is up to date, 1 something is not (with --check), 2 the registry cannot be read",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, name what is not up to date")
    check = parser.parse_args(arguments).check
    root = source_tree()
    if root is None:
        print("This is not a source tree: nothing is derived here.", file=sys.stderr)
        return _UNREADABLE
    try:
        wanted = derived.files(load(SOURCE))
    except AuditspanError as error:
        print(f"error: {error}", file=sys.stderr)
        return _UNREADABLE
    if check:
        changed = derived.outdated(wanted, root)
        for path in changed:
            print(f"not up to date: {path}", file=sys.stderr)
        if changed:
            print(f"Run `{derived.COMMAND}`.", file=sys.stderr)
            return _OUTDATED
    else:
        changed = derived.write(wanted, root)
        for path in changed:
            print(f"wrote {path}")
    if not changed:
        print(f"{len(wanted)} files are up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
