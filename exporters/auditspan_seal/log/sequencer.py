# SPDX-License-Identifier: Apache-2.0
"""The sequencer: gives every recorded entry its index, and signs checkpoints. One at a time per directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

from auditspan_seal.errors import DirectoryError
from auditspan_seal.formats import entry
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK, Batch, Position
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys import Signer, safe, sign_checkpoint, store
from auditspan_seal.log import reader, recovery, segment
from auditspan_seal.log.directory import Directory, mode_of, open_directory, rename_log
from auditspan_seal.log.intake import Intake

BATCH_SIZE = 512  # entries per checkpoint at most
ROLL_SIZE = 64 * 1024 * 1024  # bytes of a log file after which the next batch begins a new one


class Sequencer:
    """Holds the directory's lock while it lives; make one with :meth:`acquire`.

    Attributes:
        directory: the directory; its origin is another one than before if a lost log was replaced.
        open: the log promises heartbeats.
        newest: the newest batch.
    """

    def __init__(self, directory: Directory, lock: int) -> None:
        self.directory = directory
        self.open = False
        self.newest: Batch | None = None
        self._lock = lock
        self._tree = Frontier()
        self._positions: dict[str, Position] = {}
        self._file: Path | None = None
        self._descriptor = -1
        self._end = 0  # bytes of the log file that are good
        self._doubtful = False  # an attempt to write after them has failed
        self._signer: Signer
        self._intake: Intake

    @classmethod
    def acquire(cls, directory: Directory) -> Sequencer | None:
        """Become the sequencer of a directory, recovering what a predecessor left; None if there is one already.

        There is one, too, if the directory is another user's and this process may only write records: that user's
        agent signs them.

        Raises:
            KeyFileError: the signing key cannot be used.
            DirectoryError: the directory cannot be used, or its log does not continue with this key.
        """
        try:
            lock = os.open(directory.lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if isinstance(error, PermissionError) and _is_of_another_user(directory.path):
                return None
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
            # The origin may have changed since the caller read it: a lost log was replaced.
            sequencer.directory = open_directory(directory.path)
            sequencer._recover()
        except BaseException:
            sequencer.close()
            raise
        return sequencer

    @property
    def size(self) -> int:
        """Tree size: number of entries in the log."""
        return self._tree.size

    @property
    def positions(self) -> Mapping[str, Position]:
        """How far each segment is in the log: signed, and synced to disk."""
        return self._positions

    @property
    def unreadable(self) -> Mapping[Path, str]:
        """Segments that could not be read the last time, and why; what is in them waits there."""
        return self._intake.unreadable

    def has(self, name: str, number: int) -> bool:
        """Tell whether a record is in the log, signed and synced, with all that its process recorded before.

        Args:
            name: its segment.
            number: its running number there; 0: none.
        """
        at = self._positions.get(name)
        if at is None:  # nothing of it is, or all: then it is gone
            return number == 0 or not segment.path_of(self.directory.segments, name).exists()
        return at.number >= number

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
            KeyFileError: the checkpoint could not be signed; the same.
        """
        entries, positions = self._intake.collect(self._positions, BATCH_SIZE)
        if entries:
            self._publish(entries, positions)
        else:
            segment.remove_empty(self.directory.segments, self._positions)
        gone, told = self._intake.finished(self._positions)
        try:
            # Before it is forgotten how far they are in the log: one that a power cut brings back would come in again.
            for folder in {segment.find(self.directory, name).parent for name in gone}:
                safe.sync_folder(folder)
        except OSError as error:
            raise self._unwritable(error) from error
        for name in gone:
            del self._positions[name]
        return len(entries) + (self.integrate() if told else 0)

    def change_key(self) -> bool:
        """Go over to the next key, if one is prepared: the entry is certified, and its checkpoint signed, by both.

        Returns:
            Whether the key was changed.

        Raises:
            KeyFileError: the next key cannot be used; the current one goes on.
            DirectoryError: see :meth:`integrate`.
        """
        prepared = store.prepared(self.directory.path, self.directory.origin)
        if prepared is None:
            return False
        published = prepared.verifier_key == self._signer.verifier_key  # and could not be completed then
        if not published:
            self._publish([prepared.entry(self._tree.size, self._signer)], self._positions, prepared.signer)
            self._signer = prepared.signer
        store.complete(self.directory.path, self.directory.origin)
        return True

    def promise(self, following: int) -> None:
        """Write a heartbeat: from now on until the log is closed, an entry follows every so many seconds.

        Args:
            following: seconds.

        Raises:
            DirectoryError: see :meth:`integrate`.
        """
        self._publish([entry.heartbeat(self.directory.origin, time.time_ns(), following)], self._positions)
        self.open = True

    def end_promise(self) -> None:
        """Write the entry that closes the log, if heartbeats are promised.

        Raises:
            DirectoryError: see :meth:`integrate`.
        """
        if self.open:
            self._publish([entry.close(self.directory.origin, time.time_ns())], self._positions)
            self.open = False

    # -- recovery ----------------------------------------------------------------------------------------------

    def _recover(self) -> None:
        found = recovery.look(self.directory)
        self.open = found.open
        if found.last is None:
            self._begin(found)
            return
        self._intake = Intake(self.directory, found.origins)
        self._signer = store.settle(self.directory.path, self.directory.origin, Note.parse(found.last.batch.note))
        self._tree = found.last.batch.tree()
        self._positions = dict(found.last.batch.segments)
        self._intake.recall(self._positions)
        self._reopen(found.last)
        self.newest = found.last.batch
        self._show(found.last.batch.note)

    def _reopen(self, last: reader.Block) -> None:
        end = last.after
        for name in reader.files(self.directory.log):
            if name > end.file:
                (self.directory.log / name).unlink()  # a batch that was never published, in a new file
        self._file = self.directory.log / end.file
        try:
            self._sync_again(self._file, max(0, last.begin - 1), end.offset)  # with the LF of the batch before
            self._descriptor = self._open(self._file)
            self._end = end.offset
            os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            raise self._unwritable(error) from error

    def _sync_again(self, path: Path, begin: int, end: int) -> None:
        """Have a part of a log file on disk whose fsync may have failed before.

        After that the kernel holds its pages for clean: they can be read, but another fsync would do nothing with them.
        So they are written anew. For all before the last batch an fsync is known to have been successful.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            # The last byte is an LF, which a power cut may have taken: see _append.
            data = os.pread(descriptor, end - begin - 1, begin) + b"\n"
            written = 0
            while written < len(data):
                written += os.pwrite(descriptor, data[written:], begin + written)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        safe.sync_folder(path.parent)

    def _begin(self, found: recovery.Found) -> None:
        """Start the log with its genesis entry."""
        for name in reader.files(self.directory.log):
            (self.directory.log / name).unlink()  # a crash before the first checkpoint: never published
        predecessor = found.predecessor
        origins = found.origins
        if predecessor is not None:
            origins |= {predecessor["origin"]}
            if predecessor["origin"] == self.directory.origin:
                # Of that log only the last checkpoint is left. The same name again would be a second history of it.
                with contextlib.suppress(FileNotFoundError):
                    self.directory.delivery.unlink()
                with contextlib.suppress(FileNotFoundError):  # moved already, when a crash came before the new name
                    self.directory.checkpoint.replace(self.directory.predecessor)
                self.directory = rename_log(self.directory)
        self.directory.log.mkdir(mode=0o700, exist_ok=True)
        safe.sync_folder(self.directory.path)
        self._intake = Intake(self.directory, origins | {self.directory.origin})
        self._signer = store.current(self.directory.path, self.directory.origin, create=True)
        key = str(self._signer.verifier_key)
        safe.replace(self.directory.verifier_key, f"{key}\n".encode(), self._public_mode())
        self._publish([entry.genesis(self.directory.origin, key, time.time_ns(), predecessor)], {})

    # -- writing -----------------------------------------------------------------------------------------------

    def _publish(self, entries: list[bytes], positions: dict[str, Position], *also: Signer) -> None:
        tree = self._tree.copy()
        leaves = tuple(leaf_hash(entry.partition(PRIVATE_MARK)[0]) for entry in entries)
        tree.extend(leaves)
        checkpoint = Checkpoint(self.directory.origin, tree.size, tree.root())
        note = str(sign_checkpoint(self._signer, checkpoint, *also))
        batch = Batch(note, self._tree.size, self._tree.hashes, leaves, positions)
        data = ENTRY + (b"\n" + ENTRY).join(entries) + b"\n" + batch.line() + b"\n"
        try:
            self._append(data)
        except OSError as error:
            raise self._unwritable(error) from error
        self._tree, self._positions, self.newest = tree, dict(positions), batch
        self._show(note)

    def _append(self, data: bytes) -> None:
        if self._file is not None and self._end and (self._doubtful or self._end >= ROLL_SIZE):
            self._sync_again(self._file, self._end - 1, self._end)  # the LF of the batch before
        self._doubtful = True
        if self._file is None or self._end >= ROLL_SIZE:
            file = self.directory.log / f"{self._tree.size:020d}{reader.SUFFIX}"
            descriptor = self._open(file)
            try:
                safe.sync_folder(self.directory.log)
            except OSError:
                # Made anew the next time: a second fsync of the folder would not do, and a file needs its name.
                os.close(descriptor)
                file.unlink()
                raise
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._file, self._descriptor, self._end = file, descriptor, 0
        # Also after an attempt that failed: what it left would stand between two batches. Written anew, it is synced
        # anew, too; a second fsync alone would not do (after a failed one the kernel takes the pages for clean).
        os.ftruncate(self._descriptor, self._end)
        written, synced = 0, len(data) - 1
        while written < synced:
            written += os.write(self._descriptor, data[written:synced])
        os.fsync(self._descriptor)
        # The last LF lets readers see the batch: not before the rest is on disk, for what somebody has seen must never
        # be signed in another way. It is synced with the next batch: one that lacks only that is taken for whole.
        os.write(self._descriptor, data[synced:])
        self._end += len(data)
        self._doubtful = False

    def _unwritable(self, error: OSError) -> DirectoryError:
        return DirectoryError(
            f"The log in {self.directory.log} could not be written: {error.strerror}.",
            "Free disk space or repair the volume; what was recorded stays in the segments and is tried again.",
        )

    def _show(self, note: str) -> None:
        """Put the newest checkpoint where people and witnesses look for it. A copy: the log does not depend on it."""
        with contextlib.suppress(OSError):
            safe.show(self.directory.checkpoint, note.encode(), self._public_mode())

    def _public_mode(self) -> int:
        return mode_of(self.directory.path) | 0o044

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _is_of_another_user(path: Path) -> bool:
    try:
        return path.stat().st_uid != os.geteuid()
    except OSError:
        return False
