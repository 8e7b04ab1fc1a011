# SPDX-License-Identifier: Apache-2.0
"""What the tests of verification share: logs with entries of any type, signed as the sequencer signs them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, Batch
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint
from auditspan_seal.keys import KeyFileSigner, read_verifier_key, sign_checkpoint
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.verify.core import Trust
from auditspan_seal.verify.report import Code, Report
from auditspan_seal.witness.trusted import TrustedCheckpoint


class Log:
    """A log directory that is written by hand.

    Args:
        folder: where.
        genesis: more fields of the genesis entry.
    """

    def __init__(self, folder: Path, **genesis: Any) -> None:
        self.directory = open_directory(folder, create=True)
        self._signer = KeyFileSigner.load_or_create(self.directory.key, self.directory.origin)
        key = str(self._signer.verifier_key)
        self.directory.verifier_key.write_text(f"{key}\n")
        self.tree = Frontier()
        self._numbers: dict[str, int] = {}
        self.add([self.entry("genesis", key=key, attributes={}, **genesis)])

    def entry(self, kind: str, **fields: Any) -> bytes:
        origin = self.directory.origin
        return statements.encode({"v": 2, "type": kind, "origin": origin, "time": "1", "attributes": {}, **fields})

    def span(self, segment: str = "0123456789abcdef", **more: Any) -> bytes:
        number = self._numbers[segment] = self._numbers.get(segment, 0) + 1
        return statements.encode(
            {
                "v": 2, "type": "span", "origin": self.directory.origin, "segment": segment, "number": number,
                "trace_id": "0" * 31 + "1", "span_id": f"{self.tree.size * 1000 + number:016x}", "parent_span_id": "",
                "parent_is_remote": False, "trace_flags": 1, "trace_state": "", "name": "n", "kind": "INTERNAL",
                "start": "1", "end": str(number), "status": {"code": "UNSET", "message": ""}, "attributes": {},
                "events": [], "links": [], "dropped": {"attributes": 0, "events": 0, "links": 0},
                "resource": {"attributes": {}, "schema_url": ""},
                "scope": {"name": "s", "version": "", "schema_url": "", "attributes": {}},
                **more,
            }
        )  # fmt: skip

    def spans(self, count: int, **more: Any) -> list[bytes]:
        return [self.span(**more) for _ in range(count)]

    def add(self, entries: Iterable[bytes]) -> None:
        """Add a batch."""
        entries = list(entries)
        before, first = self.tree.hashes, self.tree.size
        leaves = tuple(map(leaf_hash, entries))
        for leaf in leaves:
            self.tree.append(leaf)
        note = str(sign_checkpoint(self._signer, self.checkpoint()))
        line = Batch(note, first, before, leaves).line()
        with open(self.directory.log / f"{0:020d}.log", "ab") as file:
            file.write(b"".join(ENTRY + entry + b"\n" for entry in entries) + line + b"\n")

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.directory.origin, self.tree.size, self.tree.root())

    def seen(self) -> TrustedCheckpoint:
        """Return the present checkpoint as a second place would have it."""
        return TrustedCheckpoint(self.directory.origin, self.tree.size, self.tree.root(), "the archive", None, ())

    def trust(self, *seen: TrustedCheckpoint, **more: Any) -> Trust:
        return Trust([read_verifier_key(self.directory.verifier_key)], checkpoints=seen, **more)


def lines(directory: Directory) -> list[bytes]:
    return (directory.log / reader.files(directory.log)[0]).read_bytes().splitlines(keepends=True)


def write(directory: Directory, content: list[bytes]) -> None:
    (directory.log / reader.files(directory.log)[0]).write_bytes(b"".join(content))


def entries(content: list[bytes]) -> list[int]:
    """Line numbers of the entries; the n-th is at index n."""
    return [number for number, line in enumerate(content) if line.startswith(ENTRY)]


def codes(report: Report) -> set[tuple[Code, int | None]]:
    return {(finding.code, finding.index) for finding in report.findings}


def requests(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, found: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(request, separators=(",", ":")) + "\n" for request in found))
