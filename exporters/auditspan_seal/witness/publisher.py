# SPDX-License-Identifier: Apache-2.0
"""Gives new checkpoints to the second places: has them cosigned by witnesses, and archives them.

Settings: ``AUDITSPAN_ARCHIVE`` (file, folder or URL: see ``archive.py``) and ``AUDITSPAN_WITNESS_POLICY`` (a file in
the form of C2SP tlog-policy, in which each witness has an address). In the log directory it leaves

=================  ===================================================================================
``cosigned.note``  the newest checkpoint that the quorum cosigned: hand it to whoever verifies
``archive.json``   where the newest archived checkpoint stands, to see if somebody changes the archive
=================  ===================================================================================
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from auditspan_seal.errors import AuditspanError, Contradiction, DirectoryError, SecondPlaceError
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.cosignature import Signature
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.formats.witness_policy import Policy
from auditspan_seal.log.directory import Directory
from auditspan_seal.witness.archive import Archive, Receipt
from auditspan_seal.witness.growing import Growing
from auditspan_seal.witness.store import reason

if TYPE_CHECKING:  # with all of HTTP, and only needed where there is a policy: see Publisher._use_policy
    from auditspan_seal.witness.client import WitnessClient

COSIGNED = "cosigned.note"
ARCHIVED = "archive.json"
TIMEOUT = 5.0  # seconds
GRACE = 0.5  # seconds after the timeout of a witness within which its thread has ended
MAX_PAUSE = 60.0  # seconds between attempts with a witness that fails


class Publisher:
    """Brings the checkpoints of one log to their second places. Only the sequencer of the directory may have one.

    Args:
        directory: of the log.
        origin: of the log.
        archive: place of the archive; default: AUDITSPAN_ARCHIVE.
        policy: path of the policy; default: AUDITSPAN_WITNESS_POLICY.
        timeout: seconds that witnesses have, all at once, and then the archive.

    Never raises: what is wrong with the settings is in :attr:`problem`, and what is right of them is used.
    """

    def __init__(
        self,
        directory: Directory,
        origin: str,
        *,
        archive: str | None = None,
        policy: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.problem: str | None = None
        """All that is wrong at present, in words; None: nothing."""
        self._directory = directory.path
        self._timeout = timeout
        self._settings: list[str] = []  # what is wrong with them
        self._growing = Growing(directory.log)
        self._archiving = _Worker("the archive")
        self._archive: Archive | None = None
        self._receipt: Receipt | None = None
        self._policy: Policy | None = None
        self._witnesses: list[_Asked] = []
        place = archive or os.environ.get("AUDITSPAN_ARCHIVE")
        if place:
            self._set_up(self._use_archive, place, "" if archive else "AUDITSPAN_ARCHIVE: ")
        path = policy or os.environ.get("AUDITSPAN_WITNESS_POLICY")
        if path:
            name = "" if policy else "AUDITSPAN_WITNESS_POLICY: "
            self._set_up(lambda text: self._use_policy(text, origin), path, name)
        self._tell([])

    @property
    def active(self) -> bool:
        """Whether there is any second place."""
        return self._archive is not None or self._policy is not None

    def publish(self, batch: Batch) -> None:
        """Bring the checkpoint of the newest batch to all second places; returns within twice the timeout.

        Never raises. What fails is in :attr:`problem`, and is mended by a later call: a newer checkpoint covers all
        before it. A witness that fails is asked again after 1, 2, 4 … 60 seconds.
        """
        if not self.active:
            return
        problems: list[str] = []
        try:
            self._publish(batch, problems)
        except AuditspanError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"The newest cosigned checkpoint could not be kept in {self._directory}: {reason(error)}.")
        except Exception as error:  # the log must not stand still because of its second places
            problems.append(
                f"The newest checkpoint was not given to its second places: {type(error).__name__}: {error}"
            )
        self._tell(problems)

    def close(self) -> None:
        """Close all connections."""
        for asked in self._witnesses:
            asked.client.close()

    # -- settings ----------------------------------------------------------------------------------------------

    def _set_up(self, use: Callable[[str], None], setting: str, name: str = "") -> None:
        try:
            use(setting)
        except AuditspanError as error:
            self._settings.append(f"{name}{error}")
        except Exception as error:  # a store of somebody else
            self._settings.append(f"The second place {setting} cannot be used: {type(error).__name__}: {error}")

    def _use_archive(self, place: str) -> None:
        self._archive = Archive(place)
        receipt = Receipt.load(self._directory / ARCHIVED)
        if receipt is not None and receipt.place == place:
            self._receipt = receipt

    def _use_policy(self, path: str, origin: str) -> None:
        policy = read_policy(Path(path))
        if policy.logs and all(log.key.name != origin for log in policy.logs):
            raise SecondPlaceError(
                f"The policy {path} lists logs, and {origin} is not one of them: it takes no checkpoint of this log.",
                "Add a line 'log' with the content of log.vkey, or remove the others.",
            )
        from auditspan_seal.witness.client import WitnessClient

        self._policy = policy
        for witness in policy.witnesses.values():
            if witness.url is None:
                continue  # it counts, if somebody else brings its cosignature; it cannot be asked
            self._set_up(lambda _, w=witness: self._witnesses.append(_Asked(WitnessClient(w, self._timeout))), path)  # type: ignore[misc]

    def _tell(self, problems: list[str]) -> None:
        self.problem = "\n".join([*self._settings, *problems]) or None

    # -- one checkpoint ----------------------------------------------------------------------------------------

    def _publish(self, batch: Batch, problems: list[str]) -> None:
        note = Note.parse(batch.note)
        checkpoint = Checkpoint.parse(note.text)
        found: list[Signature] = []
        if self._witnesses:
            try:
                found = self._ask(note, batch)
            except AuditspanError as error:
                problems.append(str(error))
        cosigned = Note(note.text, (*note.signatures, *found))
        if self._archive is not None:
            self._archive_note(self._archive, cosigned, problems)
        problems += [asked.problem for asked in self._witnesses if asked.problem]
        if self._policy is None:
            return
        if self._policy.satisfied(cosigned) is not None:
            _replace(self._directory / COSIGNED, str(cosigned))
            return
        cosigners = self._policy.cosigners(cosigned)
        if self._policy.reached(cosigners):
            problems.append(
                f"The policy does not take the checkpoint of size {checkpoint.size}: no key in its lines 'log' signed "
                "it. After a rotation of the key, add a line with the new log.vkey."
            )
        else:
            problems.append(
                f"The checkpoint of size {checkpoint.size} is not cosigned by the policy's quorum, only by: "
                f"{', '.join(cosigners) or 'none'}."
            )

    def _ask(self, note: Note, batch: Batch) -> list[Signature]:
        """Ask all witnesses that are due, at once; return the cosignatures that came in time."""
        try:
            self._growing.follow(batch)
        except AuditspanError:
            # proof() says it again to each witness that needs what could not be read
            self._growing = Growing(self._growing.folder)
            self._growing.follow(batch)
        started = [asked for asked in self._witnesses if asked.start(note, self._growing.proof)]
        deadline = time.monotonic() + self._timeout + GRACE
        for asked in started:
            asked.wait(deadline)
        self._growing.forget_all_but({asked.client.size or 0 for asked in self._witnesses})
        return [signature for asked in started for signature in asked.answer(note)]

    def _archive_note(self, archive: Archive, note: Note, problems: list[str]) -> None:
        def add() -> None:
            receipt = self._receipt
            intact = receipt is None or archive.holds(receipt)
            written = archive.add(note)
            if receipt is not None and not intact:
                # The old receipt stays: this is said until somebody has looked into it.
                raise Contradiction(
                    f"The archive {archive.place} no longer has the checkpoint of size {receipt.size} as it was "
                    "written: somebody shortened or changed it. Newer ones are archived all the same.",
                    f"Restore it, find out who can do more there than add, then remove {self._directory / ARCHIVED}.",
                )
            self._receipt = written
            written.save(self._directory / ARCHIVED)

        worker = self._archiving
        if worker.start(add):
            worker.wait(time.monotonic() + self._timeout)
        if worker.running:
            problems.append(f"The archive {archive.place} has not answered for {worker.seconds:.0f} s.")
        elif isinstance(worker.error, AuditspanError):
            problems.append(str(worker.error))
        elif worker.error is not None:
            problems.append(f"The archive {archive.place} fails: {type(worker.error).__name__}: {worker.error}")


class _Worker:
    """Runs one thing at a time in a thread, so that whoever waits for it can stop waiting."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self.error: Exception | None = None  # of the last run

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def seconds(self) -> float:
        """How long the present run takes already."""
        return time.monotonic() - self._since

    def start(self, work: Callable[[], None]) -> bool:
        """Begin; False if the last run has not ended."""
        if self.running:
            return False

        def run() -> None:
            try:
                work()
                self.error = None
            except Exception as error:
                self.error = error

        self._since = time.monotonic()
        self._thread = threading.Thread(target=run, name=f"auditspan: {self._name}", daemon=True)
        self._thread.start()
        return True

    def wait(self, deadline: float) -> None:
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - time.monotonic()))


class _Asked:
    """A witness, and how it does."""

    def __init__(self, client: WitnessClient) -> None:
        self.client = client
        self.problem = ""
        self._worker = _Worker(client.witness.name)
        self._failures = 0
        self._due = 0.0  # monotonic time
        self._found: tuple[str, tuple[Signature, ...]] = ("", ())

    def start(self, note: Note, prove: Callable[[int], tuple[bytes, ...]]) -> bool:
        """Begin to ask, unless the witness is still busy or failed a moment ago."""
        if time.monotonic() < self._due:
            return False

        def ask() -> None:
            # The text is kept with the answer: one that comes too late belongs to an older checkpoint.
            self._found = (note.text, self.client.submit(note, prove))

        return self._worker.start(ask)

    def wait(self, deadline: float) -> None:
        """Wait for the answer, and note how it went."""
        self._worker.wait(deadline)
        error = self._worker.error
        if self._worker.running:
            self.problem = f"The witness {self.client.witness.name} at {self.client.witness.url} takes too long."
        elif error is None:
            self.problem, self._failures = "", 0
            return
        elif isinstance(error, AuditspanError):
            self.problem = str(error)
        else:
            self.problem = f"Asking the witness {self.client.witness.name} failed: {type(error).__name__}: {error}"
        self._failures += 1
        self._due = time.monotonic() + min(MAX_PAUSE, 2.0 ** min(self._failures - 1, 10))

    def answer(self, note: Note) -> tuple[Signature, ...]:
        """Return the cosignatures of this checkpoint."""
        text, signatures = self._found
        return signatures if text == note.text and not self._worker.running else ()


def read_policy(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        DirectoryError: it cannot be read.
        MalformedPolicy: it is not a policy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DirectoryError(
            f"The policy {path} cannot be read: {reason(error)}.", "Check the path and its permissions."
        ) from None
    return Policy.parse(content)


def _replace(path: Path, content: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(content, encoding="utf-8")
    os.replace(draft, path)
