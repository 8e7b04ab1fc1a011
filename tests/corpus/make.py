# SPDX-License-Identifier: Apache-2.0
"""Makes the corpus of this release: a real log with a record of every event type, kept and verified forever.

    python -m tests.corpus.make

runs the two examples under audit into one directory, lets a record be torn, a value be erased and the key be changed,
has a heartbeat and a close, freezes log and public key in ``tests/corpus/<schema version>``, and writes one record of
each event type for the reference page.
A released corpus is never made again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from auditspan import schema
from auditspan.cli import main as cli
from auditspan_seal.formats import statement as statements
from auditspan_seal.log import segment
from auditspan_seal.log.directory import open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.spans import readable
from auditspan_seal.verify.proof import entries_of
from tests.conftest import OURS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RECORDS = ROOT / "docs" / "reference" / "records"


def main() -> None:
    """Make it."""
    place = HERE / schema.SCHEMA_VERSION
    if place.exists():
        sys.exit(f"{place} is released; raise the version of the registry instead")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log" / "auditspan"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(OURS)} | {
            "AUDITSPAN_DIR": str(log),
            "AUDITSPAN_VALIDATE": "true",
            "OTEL_TRACES_EXPORTER": "none",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=example",
        }
        demo = [sys.executable, "-m", "auditspan.cli", "demo", "--keep", str(log.parent)]
        subprocess.run(demo, check=True, env=environment, stdout=subprocess.DEVNULL)
        own = [sys.executable, str(ROOT / "examples" / "own-actions" / "operations.py"), str(Path(folder) / "office")]
        subprocess.run(own, check=True, env=environment, stdout=subprocess.DEVNULL)
        directory = open_directory(log)
        # A record that a process did not finish writing: it died in the middle.
        segment.path_of(directory.segments, "0123456789abcdef").write_bytes(b'{"attributes":{"audit.action":"REA')
        if cli(["erase", str(log), "--value", "erin@example.com", "--reason", "request 4711"]) != 0:
            sys.exit("the erasure did not work")
        if cli(["keys", "rotate", str(log), "--reason", "request 4712"]) != 0:
            sys.exit("the change of the key did not work")
        sequencer = Sequencer.acquire(directory)
        assert sequencer is not None
        sequencer.promise(600)
        sequencer.end_promise()
        sequencer.close()
        (place / "log").mkdir(parents=True)
        for name in ("origin", "log.vkey"):
            shutil.copy(log / name, place / name)
        for path in directory.log.iterdir():
            shutil.copy(path, place / "log" / path.name)
    _write_records(place)


def _write_records(place: Path) -> None:
    RECORDS.mkdir(parents=True, exist_ok=True)
    written = set()
    for statement, private in entries_of(open_directory(place)):
        attributes = readable(statements.decode(statement)["attributes"], private)
        kind = attributes[schema.EVENT_TYPE]
        if kind in written or schema.missing(attributes):
            continue  # the page shows one record of each type, and one from which nothing is erased
        written.add(kind)
        (RECORDS / f"{kind}.json").write_text(
            json.dumps(dict(sorted(attributes.items())), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    print(f"{len(written)} event types: {', '.join(sorted(written))}")
    left = {event.value for event in schema.EventType} - written
    if left:
        sys.exit(f"no record of {', '.join(sorted(left))}")


if __name__ == "__main__":
    main()
