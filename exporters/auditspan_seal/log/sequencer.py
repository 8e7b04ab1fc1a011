# SPDX-License-Identifier: Apache-2.0
"""The sequencer: gives every recorded entry its index, and signs checkpoints. One at a time per directory."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from pathlib import Path

from auditspan_seal.errors import AuditspanError, DirectoryError, FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK, Batch, Position
from auditspan_seal.formats.entry import own_attributes
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys import Signer, sign_checkpoint, store
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory

BATCH_SIZE = 512  # entries per checkpoint at most
ROLL_SIZE = 64 * 1024 * 1024  # bytes of a log file after which the next batch begins a new one


class Sequencer:
    """Holds the directory's lock while it lives; make one with :meth:`acquire`."""

    def __init__(self, directory: Directory, lock: int) -> None:
        self._directory = directory
        self._lock = lock
        self._tree = Frontier()
        self._positions: dict[str, Position] = {}
        self._file: Path | None = None
        self._descriptor = -1
        self._signer: Signer

    @classmethod
    def acquire(cls, directory: Directory) -> Sequencer | None:
        """Become the sequencer of a directory, recovering what a predecessor left; None if there is one already.

        Raises:
            KeyFileError: the signing key cannot be used.
            DirectoryError: the directory cannot be used, or its log does not continue with this key.
        """
        try:
            lock = os.open(directory.lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DirectoryError(
                f"The directory {directory.path} cannot be locked: {error.strerror}.", "Check its permissions."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        sequencer = cls(directory, lock)
        try:
            sequencer._recover()
        except BaseException:
            sequencer.close()
            raise
        return sequencer

    @property
    def size(self) -> int:
        """Tree size: number of entries in the log."""
        return self._tree.size

    def close(self) -> None:
        """Give the lock back."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def integrate(self) -> int:
        """Put one batch of recorded entries into the log.

        Returns:
            How many entries were added; 0 if there was nothing to do.

        Raises:
            DirectoryError: the log could not be written; nothing was published and it may be tried again.
        """
        entries, positions = self._collect()
        if entries:
            self._publish(entries, positions)
        self._remove_finished()
        return len(entries) + self._rotate()

    # -- recovery ----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        fresh = not reader.files(self._directory.log)
        last = self._last_block()
        if last is None:
            self._signer = store.current(self._directory.path, self._directory.origin, create=fresh)
            self._begin()
            return
        self._signer = store.settle(self._directory.path, self._directory.origin, Note.parse(last.batch.note))
        self._tree = last.batch.tree()
        self._positions = dict(last.batch.segments)
        self._reopen(last.after)

    def _last_block(self) -> reader.Block | None:
        """Return the last whole batch.

        Only the very last batch may be incomplete: it was being written when a process or the machine died, was
        never published, and its entries are still in their segments. Damage before it is no crash, and going on
        from there would sign a second history.
        """
        names = reader.files(self._directory.log)
        for name in reversed(names):
            last: reader.Block | None = None
            damaged: reader.Block | None = None
            for block in reader.blocks(self._directory.log, reader.Cursor(name)):
                if not isinstance(block, reader.Block) or block.after.file != name:
                    break
                whole = _is_whole(block)
                if damaged is not None or (name != names[-1] and not whole):
                    raise DirectoryError(
                        f"The log file {self._directory.log / name} was altered before its last checkpoint.",
                        f"Run `auditspan verify {self._directory.path}` to see what changed; restore the file, or "
                        "start a new directory (AUDITSPAN_DIR). Until then records stay in the segments, unsigned.",
                    )
                if whole:
                    last = block
                else:
                    damaged = block
            if last is not None:
                return last
        return None

    def _reopen(self, end: reader.Cursor) -> None:
        for name in reader.files(self._directory.log):
            if name > end.file:
                (self._directory.log / name).unlink()
        self._file = self._directory.log / end.file
        self._descriptor = self._open(self._file)
        os.ftruncate(self._descriptor, end.offset)

    def _begin(self) -> None:
        """Start the log with its genesis entry."""
        key = str(self._signer.verifier_key)
        _write_once(self._directory.verifier_key, f"{key}\n")
        genesis = {
            "v": statements.VERSION,
            "type": "genesis",
            "origin": self._directory.origin,
            "key": key,
            "time": str(time.time_ns()),
            "attributes": own_attributes(
                "log.started", "CREATE", self._directory.origin, f"the log {self._directory.origin} begins"
            ),
        }
        for name in reader.files(self._directory.log):
            (self._directory.log / name).unlink()  # a crash before the first checkpoint: never published
        self._publish([statements.encode(genesis)], {})

    # -- integration -------------------------------------------------------------------------------------------

    def _collect(self) -> tuple[list[bytes], dict[str, Position]]:
        entries: list[bytes] = []
        positions = dict(self._positions)
        for name in [*segment.names(self._directory.control), *segment.names(self._directory.segments)]:
            at = positions.get(name, Position(0, 0))
            try:
                lines, offset = segment.read_lines(self._segment(name), at.offset, BATCH_SIZE - len(entries))
            except FileNotFoundError:
                continue
            if lines:
                entries += [self._checked(name, at.number + i, line) for i, line in enumerate(lines, 1)]
                positions[name] = Position(offset, at.number + len(lines))
            elif torn := self._torn_tail(name, offset):
                entries.append(self._gap(name, 0, torn, "The process died while it wrote this record."))
                positions[name] = Position(offset + len(torn), at.number)
            if len(entries) >= BATCH_SIZE:
                break
        return entries, positions

    def _segment(self, name: str) -> Path:
        path = segment.path_of(self._directory.control, name)
        return path if path.exists() else segment.path_of(self._directory.segments, name)

    def _torn_tail(self, name: str, offset: int) -> bytes:
        """Return what a writer that is gone left after its last complete line."""
        path = self._segment(name)
        if path.stat().st_size <= offset or segment.has_writer(path):
            return b""
        lines, _ = segment.read_lines(path, offset, 1)
        if lines:  # completed in the meantime
            return b""
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(statements.MAX_SIZE)

    def _checked(self, name: str, number: int, line: bytes) -> bytes:
        """Return the line if it is a statement; else an entry that says that something there was lost."""
        try:
            statements.decode(line.partition(PRIVATE_MARK)[0])
        except FormatError as error:
            return self._gap(name, number, line, error.what)
        return line

    def _gap(self, name: str, number: int, lost: bytes, reason: str) -> bytes:
        return statements.encode(
            {
                "v": statements.VERSION,
                "type": "gap",
                "origin": self._directory.origin,
                "segment": name,
                "number": number,
                "reason": reason,
                "bytes": len(lost),
                "sha256": hashlib.sha256(lost).hexdigest(),
                "time": str(time.time_ns()),
                "attributes": own_attributes(
                    "log.gap", "LOSE", self._directory.origin, f"something recorded was lost: {reason}", "failure"
                ),
            }
        )

    def _rotate(self) -> int:
        """Go over to the next key, if one is prepared: the entry is certified, and its checkpoint signed, by both."""
        prepared = store.prepared(self._directory.path, self._directory.origin)
        if prepared is None:
            return 0
        published = prepared.verifier_key == self._signer.verifier_key  # and could not be completed then
        if not published:
            self._publish([prepared.entry(self._tree.size, self._signer)], self._positions, prepared.signer)
            self._signer = prepared.signer
        store.complete(self._directory.path, self._directory.origin)
        return 0 if published else 1

    def _publish(self, entries: list[bytes], positions: dict[str, Position], *also: Signer) -> None:
        tree = self._tree.copy()
        leaves = tuple(leaf_hash(entry.partition(PRIVATE_MARK)[0]) for entry in entries)
        for leaf in leaves:
            tree.append(leaf)
        checkpoint = Checkpoint(self._directory.origin, tree.size, tree.root())
        note = str(sign_checkpoint(self._signer, checkpoint, *also))
        batch = Batch(note, self._tree.size, self._tree.hashes, leaves, positions)
        data = b"".join(ENTRY + entry + b"\n" for entry in entries) + batch.line() + b"\n"
        try:
            self._append(data)
        except OSError as error:
            raise DirectoryError(
                f"The log in {self._directory.log} could not be written: {error.strerror}.",
                "Free disk space or repair the volume; what was recorded stays in the segments and is tried again.",
            ) from error
        self._tree, self._positions = tree, positions

    def _append(self, data: bytes) -> None:
        if self._file is None or os.fstat(self._descriptor).st_size >= ROLL_SIZE:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._file = self._directory.log / f"{self._tree.size:020d}{reader.SUFFIX}"
            self._descriptor = self._open(self._file)
            _sync_folder(self._directory.log)
        before = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, before)
            raise

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _remove_finished(self) -> None:
        """Remove segments that are in the log to their end and will not grow: their writer is gone."""
        for name, at in list(self._positions.items()):
            path = self._segment(name)
            try:
                # The order matters: first the writer is seen to be gone, then that it left nothing more.
                if not segment.has_writer(path) and path.stat().st_size <= at.offset:
                    path.unlink()
                    del self._positions[name]
            except FileNotFoundError:
                del self._positions[name]


def _is_whole(block: reader.Block) -> bool:
    """Tell whether a batch is on disk as it was signed (a power cut may write the end and lose the middle)."""
    try:
        checkpoint = block.batch.checkpoint()
        return (
            tuple(leaf_hash(entry) for entry in block.statements) == block.batch.leaves
            and checkpoint.size == block.batch.size
            and checkpoint.root == block.batch.tree().root()
        )
    except AuditspanError:
        return False


def _write_once(path: Path, content: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(content, encoding="utf-8")
    os.replace(draft, path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
