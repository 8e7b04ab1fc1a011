# SPDX-License-Identifier: Apache-2.0
"""``python -m auditspan.kibana``: writes ``collector-config/kibana`` from the descriptions in this package."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from auditspan.kibana import install
from auditspan.kibana.objects import Names
from auditspan.kibana.parameters import Parameters
from auditspan.registry import derived
from auditspan.registry.load import source_tree
from auditspan_seal.errors import AuditspanError

_OUTDATED = 1
_UNUSABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m auditspan.kibana",
        description="Write the saved objects and rules for Kibana.",
        epilog="exit codes: 0 all is up to date, 1 something is not (with --check), 2 a description is wrong",
    )
    parser.add_argument("--check", action="store_true", help="write nothing, name what is not up to date")
    check = parser.parse_args(arguments).check
    root = source_tree()
    if root is None:
        print("This is not a source tree: nothing is written here.", file=sys.stderr)
        return _UNUSABLE
    folder = root / "collector-config" / "kibana"
    try:
        wanted = install.files(Names(), Parameters())
    except AuditspanError as error:
        print(f"error: {error}", file=sys.stderr)
        return _UNUSABLE
    changed = outdated(folder, wanted)
    if check:
        for name in changed:
            print(f"not up to date: collector-config/kibana/{name}", file=sys.stderr)
        return _OUTDATED if changed else 0
    if changed:
        shutil.rmtree(folder / "rules", ignore_errors=True)
        install.write(folder, wanted)
    for name in changed:
        print(f"wrote collector-config/kibana/{name}")
    if not changed:
        print(f"{len(wanted)} files are up to date.")
    return 0


def outdated(folder: Path, wanted: dict[str, str]) -> list[str]:
    """Return the names of files that are not as they are to be, or are to be gone."""
    there = {path.relative_to(folder).as_posix() for path in folder.glob("rules/*.json")} - wanted.keys()
    return sorted({*there, *derived.outdated(wanted, folder)})


if __name__ == "__main__":
    sys.exit(main())
