# SPDX-License-Identifier: Apache-2.0
"""Builds the environments that tests want, before they want them: ``python -m tests.ahead [PART…]``.

``tests/parts.py`` runs it beside the parts, with a low priority: half of the time goes by waiting for a package
index. A test that wants an environment meanwhile waits for it, or builds it itself. Nothing depends on this: what
cannot be built is only told here, and red where it is wanted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from auditspan.devstack.errors import DevStackError
from tests import environments
from tests.backend.kafka_broker import libraries
from tests.parts import PARTS
from tests.runners.environments import RUNNERS, environment_of

WANTED_BY = {
    "notebook": "others",
    "elasticsearch-8": "backend",
    "elastic": "others",
    "contrib": "others",
    "oldest": "others",
    "webhook": "airflow",
}
"""Each of those that have a name → the part that wants it."""
_AT_ONCE = 2


def wanted(parts: Collection[str]) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Return name and builder of the environments that some parts want, in the order in which they want them."""
    found: list[tuple[str, str, Callable[[], Path]]] = [
        (part, name, lambda name=name: environments.named(name))  # type: ignore[misc]
        for name, part in WANTED_BY.items()
    ]
    found += [
        (row.part, f"{row.name}-{row.inside or row.version}", lambda row=row: environment_of(row)) for row in RUNNERS
    ]  # type: ignore[misc]
    found.append(("backend", "kafka", libraries))  # Maven needs 46 s where it has nothing yet
    order = ["others", "beside", "backend", "runners", "airflow"]
    seen: set[str] = set()
    for part, name, build in sorted(found, key=lambda one: order.index(one[0])):
        if part in parts and name not in seen:
            seen.add(name)
            yield name, build


def main() -> int:
    """Build what the parts of the command line want, or all."""

    def build(one: tuple[str, Callable[[], Path]]) -> None:
        begin = time.monotonic()
        try:
            one[1]()
        except (AssertionError, DevStackError) as error:
            print(f"{one[0]} could not be built: {error}", flush=True)
        else:
            print(f"{one[0]} is there after {time.monotonic() - begin:.0f} s", flush=True)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(build, wanted(sys.argv[1:] or list(PARTS))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
