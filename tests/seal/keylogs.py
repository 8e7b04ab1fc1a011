# SPDX-License-Identifier: Apache-2.0
"""Logs whose key changes: real ones, made by the sequencer, and ones that somebody puts together by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.keys import KeyFileSigner, Signer, sign_checkpoint, store
from auditspan_seal.keys.signer import certify_revocation, certify_rotation
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.segment import SegmentWriter
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.verify.report import Code
from auditspan_seal.verify.trust import KeyRing

ORIGIN = "example.com/auditspan/1"
KEY_ENTRIES = ("genesis", "rotation", "revocation")


def new_signer(origin: str = ORIGIN) -> KeyFileSigner:
    return KeyFileSigner(Ed25519PrivateKey.generate(), origin)


def record(directory: Directory, count: int = 1) -> None:
    """Write some entries into a segment; what is in them does not matter here."""
    writer = SegmentWriter(directory.segments)
    for _ in range(count):
        writer.append(
            lambda name, number: statements.encode(
                {
                    "v": 2,
                    "type": "span",
                    "origin": directory.origin,
                    "segment": name,
                    "number": number,
                    "end": str(time.time_ns()),
                }
            )
        )
    writer.close()


def sequence(directory: Directory) -> None:
    sequencer = Sequencer.acquire(directory)
    assert sequencer is not None
    while sequencer.integrate():
        pass
    sequencer.change_key()
    sequencer.close()


def rotating_log(folder: Path, rotations: int, records: int = 1) -> tuple[Directory, list[VerifierKey]]:
    """Make a log with the real sequencer; return it with its keys, oldest first."""
    directory = open_directory(folder, create=True)
    record(directory, records)
    sequence(directory)
    keys = [store.current(directory.path, directory.origin).verifier_key]
    for number in range(rotations):
        keys.append(store.prepare(directory.path, directory.origin, reason=f"change {number}"))
        record(directory, records)
        sequence(directory)
    record(directory, records)
    sequence(directory)
    return directory, keys


def feed(ring: KeyRing, directory: Directory, *, skip: Sequence[int] = ()) -> list[tuple[Code, str]]:
    """Show a log to a key ring, but for the batches that begin at the indexes to skip; return all that it says."""
    said: list[tuple[Code, str]] = []
    for block in reader.batches(directory.log):
        if block.batch.first in skip:
            continue
        entries = [statements.decode(item) for item in block.statements]
        for offset, fields in enumerate(entries):
            if fields["type"] in KEY_ENTRIES:
                said += ring.entry(block.batch.first + offset, fields)
        latest = max(int(fields.get("end") or fields["time"]) for fields in entries)
        said += ring.checkpoint(Note.parse(block.batch.note), block.batch.first, block.batch.size, latest)
    return [*said, *ring.finish()]


class Forge:
    """Puts a log together by hand, with whatever is in it, signed by whoever.

    `time` is what its entries state, in nanoseconds since the epoch.
    """

    def __init__(self, signer: Signer | None = None, *, not_after: int | None = None) -> None:
        self.time = 1_000
        self.batches: list[tuple[list[dict[str, Any]], Note, int, int, int]] = []
        self._tree = Frontier()
        if signer is not None:
            genesis = {"v": 2, "type": "genesis", "origin": ORIGIN, "key": str(signer.verifier_key)}
            genesis |= {"time": str(self.time)} | ({} if not_after is None else {"not_after": str(not_after)})
            self.batch([genesis], signer)

    @property
    def size(self) -> int:
        return self._tree.size

    def batch(self, entries: Sequence[dict[str, Any]], *signers: Signer) -> Forge:
        first = self._tree.size
        for fields in entries:
            self._tree.append(leaf_hash(statements.encode(fields)))
        note = sign_checkpoint(signers[0], Checkpoint(ORIGIN, self.size, self._tree.root()), *signers[1:])
        self.batches.append((list(entries), note, first, self.size, self.time))
        return self

    def span(self, *signers: Signer) -> Forge:
        return self.batch([{"v": 2, "type": "span", "end": str(self.time), "n": self.size}], *signers)

    def rotation(self, old: Signer, new: Signer, **more: Any) -> dict[str, Any]:
        entry = certify_rotation(ORIGIN, more.pop("index", self.size), old, new, time=self.time, **more)
        return statements.decode(entry)

    def rotate(self, old: Signer, new: Signer, **more: Any) -> Forge:
        return self.batch([self.rotation(old, new, **more)], old, new)

    def revocation(self, key: Signer, by: Signer, since: int, **more: Any) -> dict[str, Any]:
        index = more.pop("index", self.size)
        more = {"reason": "stolen", "time": self.time} | more
        return statements.decode(certify_revocation(ORIGIN, index, key.verifier_key, by, since=since, **more))

    def show(self, ring: KeyRing) -> list[tuple[Code, str]]:
        said: list[tuple[Code, str]] = []
        for entries, note, first, size, latest in self.batches:
            for offset, fields in enumerate(entries):
                if fields["type"] in KEY_ENTRIES:
                    said += ring.entry(first + offset, fields)
            said += ring.checkpoint(note, first, size, latest)
        return [*said, *ring.finish()]


def codes(said: list[tuple[Code, str]]) -> list[str]:
    return [code.value for code, _ in said]
