# SPDX-License-Identifier: Apache-2.0
"""What the tests of second places share: a log that can be made to lie, cosigners, witnesses as real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan.cli import main
from auditspan_seal.formats.batch import ENTRY, Batch
from auditspan_seal.formats.cosignature import CosignerKey, Signature, make
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys import KeyFileSigner, sign_checkpoint
from auditspan_seal.log.directory import Directory
from tests.conftest import BIN

LOG = "log.example/auditspan/0123456789abcdef"


class Cosigner:
    """A witness's key, for notes that need no witness."""

    def __init__(self, name: str) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.key = CosignerKey(name, self._private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)

    def on(self, note: Note, time: int = 1_700_000_000) -> Note:
        """Return the note with one more cosignature."""
        return Note(note.text, (*note.signatures, make(self.key, self.sign, note.text, time)))


class LogOnDisk:
    """A log whose files are as the sequencer writes them, and whose owner may sign whatever he likes."""

    def __init__(self, path: Path, origin: str = LOG, signer: KeyFileSigner | None = None) -> None:
        self.directory = Directory(path, origin)
        self.signer = signer or KeyFileSigner(Ed25519PrivateKey.generate(), origin)
        self.entries: list[bytes] = []
        self.batches: list[Batch] = []
        self._file: Path | None = None
        self.directory.log.mkdir(parents=True)
        self.vkey = path / "log.vkey"
        self.vkey.write_text(f"{self.signer.verifier_key}\n")

    def add(self, count: int, word: str = "entry", new_file: bool = False) -> Batch:
        """Sequence a batch of so many entries."""
        tree = self.tree()
        before = tree.copy()
        added = [b"%s %d" % (word.encode(), len(self.entries) + number) for number in range(count)]
        for entry in added:
            tree.append(leaf_hash(entry))
        note = sign_checkpoint(self.signer, Checkpoint(self.directory.origin, tree.size, tree.root()))
        batch = Batch(str(note), before.size, before.hashes, tuple(map(leaf_hash, added)))
        if self._file is None or new_file:
            self._file = self.directory.log / f"{before.size:020d}.log"
        with open(self._file, "ab") as file:
            file.write(b"".join(ENTRY + entry + b"\n" for entry in added) + batch.line() + b"\n")
        self.entries += added
        self.batches.append(batch)
        return batch

    def signatures_on(self, text: str) -> tuple[Signature, ...]:
        """Return the signature of this log on any text."""
        key = self.signer.verifier_key
        return ((key.name, key.key_id, self.signer.sign(text.encode())),)

    def tree(self, size: int | None = None) -> Frontier:
        tree = Frontier()
        for entry in self.entries[:size]:
            tree.append(leaf_hash(entry))
        return tree

    def note(self, at: int = -1) -> Note:
        return Note.parse(self.batches[at].note)

    def other_copy(self, path: Path, batches: int) -> LogOnDisk:
        """Return a second log of the same name and key that shares only so many batches."""
        copy = LogOnDisk(path, self.directory.origin, self.signer)
        for batch in self.batches[:batches]:
            copy.add(len(batch.leaves))
        assert [b.note for b in copy.batches] == [b.note for b in self.batches[:batches]]
        return copy


class WitnessProcess:
    """``auditspan witness serve`` in a process of its own."""

    def __init__(
        self, folder: Path, logs: Sequence[Path], name: str = "witness.example/w1", port: int = 0,
        program: Sequence[str] = (str(BIN / "auditspan"),), env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.logs, self.name, self.port = folder, logs, name, port
        self._program, self._env = program, env
        assert main(["witness", "keys", str(folder), "--name", name, "--json"]) == 0
        self.key = CosignerKey.parse((folder / "witness.vkey").read_text())
        self.process: subprocess.Popen[str]
        self.start()

    def start(self) -> dict[str, Any]:
        """Start it (again, at the same address)."""
        arguments = [f"--log={path}" for path in self.logs] + [f"--listen=127.0.0.1:{self.port}", "--json"]
        self.process = subprocess.Popen(
            [*self._program, "witness", "serve", str(self.folder), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (self._env or {}),
        )  # fmt: skip
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        started: dict[str, Any] = json.loads(line)
        self.url = started["url"]
        self.port = int(self.url.rpartition(":")[2])
        return started

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; return its exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait until it has ended; return its exit code."""
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.process.communicate(timeout=20)
        return self.process.returncode

    def policy_line(self, name: str) -> str:
        return f"witness {name} {self.key} {self.url}"

    def __enter__(self) -> WitnessProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)
