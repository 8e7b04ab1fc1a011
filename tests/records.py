# SPDX-License-Identifier: Apache-2.0
"""Records for tests that need some, whatever they say: each follows the registry like every other."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auditspan import schema
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import open_directory

ON_PURPOSE = "nonconformant-on-purpose"
"""A file of this name in a log directory says that its records break the registry because a test is about that."""


def audit_attributes(**more: Any) -> dict[str, Any]:
    """Return the attributes of a conformant record with an identity of its own, and `more`."""
    return {
        schema.RECORD_ID: str(uuid.uuid4()),
        schema.RECORD_SCHEMA_VERSION: schema.SCHEMA_VERSION,
        schema.EVENT_TYPE: schema.EventType.DATA_UPDATE.value,
        schema.ACTION: "UPDATE",
        schema.OUTCOME: schema.Outcome.SUCCESS.value,
        schema.ACTOR_ID: "tester",
        schema.ACTOR_TYPE: schema.ActorType.SYSTEM.value,
        schema.ACTOR_EVIDENCE: schema.ActorEvidence.DECLARED.value,
        schema.TARGET_ID: "row",
        schema.TARGET_TYPE: "test.row",
        schema.RUN_ID: "test-run",
        schema.WORKFLOW_NAME: "test",
        schema.TRIGGER_TYPE: schema.TriggerType.MANUAL.value,
        schema.TRIGGER_RULE: "pytest",
        schema.SCRIPT_VERSION: "1",
        schema.SCRIPT_VERSION_SOURCE: schema.ScriptVersionSource.DECLARED.value,
        schema.MESSAGE: "updated test.row 'row'",
        **more,
    }


def directories(below: Path) -> Iterator[Path]:
    """Find the log directories that tests left behind."""
    for origin in below.rglob("origin"):
        if (origin.parent / "segments").is_dir():
            yield origin.parent


def recorded(path: Path) -> Iterator[dict[str, Any]]:
    """Read the statements of all audit spans of a log directory, sequenced or not; damaged ones are left out."""
    directory = open_directory(path)
    lines: list[bytes] = []
    # Segments first: what goes from there into the log meanwhile is seen twice, and not never.
    for name in segment.names(directory.segments):
        with contextlib.suppress(FileNotFoundError):
            lines += segment.read_lines(segment.path_of(directory.segments, name), 0, 1_000_000)[0]
    found = [line.partition(PRIVATE_MARK)[0] for line in lines]
    found += [line for block in reader.batches(directory.log) for line in block.statements]
    for line in dict.fromkeys(found):
        try:
            fields = statements.decode(line)
        except FormatError:
            continue
        if fields["type"] == "span" and "audit.record.id" in fields.get("attributes", {}):
            yield fields  # what has no record ID is no audit span, but a bare line of a test of the log itself
