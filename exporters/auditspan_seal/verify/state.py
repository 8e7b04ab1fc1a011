# SPDX-License-Identifier: Apache-2.0
"""Remembers how far verification came, so that it goes on there: after an interruption, or when there is more.

Only a point up to which everything was in its place is remembered. From there a later verification begins anew, so
that what was missing then is looked for again. What was seen must still be there: a log that has become shorter, or
has another history, is found by the size and root hash that are kept here. So keep the file where whoever may write
the log cannot write it.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats.note import Note
from auditspan_seal.verify.account import KeyEvent, Misfits
from auditspan_seal.verify.core import Log, Trust
from auditspan_seal.verify.report import Code, Finding
from auditspan_seal.verify.source import Source
from auditspan_seal.verify.tally import Held
from auditspan_seal.verify.walk import Walk
from auditspan_seal.witness.trusted import TrustedCheckpoint

VERSION = 2


class StateFile:
    """What is remembered, in a file.

    Args:
        path: the file; it need not be there yet.

    Raises:
        SourceError: it cannot be read, or is none.
    """

    def __init__(self, path: Path) -> None:
        self.notes: list[str] = []
        """What is to be said about it."""
        self._path = path
        self._logs: dict[str, dict[str, Any]] = {}
        self._trust = ""
        try:
            content = orjson.loads(path.read_bytes())
            if content["version"] != VERSION:
                raise ValueError
            self._logs, self._trust = dict(content["logs"]), str(content["trust"])
            self._seen = [self._checkpoint(origin, log) for origin, log in self._logs.items()]
        except FileNotFoundError:
            self._seen = []
        except OSError as error:
            raise SourceError(
                f"The state {path} cannot be read: {error.strerror}.", "Check the path given to --state."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SourceError(
                f"{path} is not the state of a verification.",
                "Give another path; or remove the file, and everything is verified from the beginning.",
            ) from None

    def _checkpoint(self, origin: str, log: dict[str, Any]) -> TrustedCheckpoint:
        root = base64.b64decode(log["root"])
        return TrustedCheckpoint(origin, int(log["size"]), root, f"the verification before ({self._path})", None, ())

    def trusting(self, trust: Trust) -> Trust:
        """Return the trust, with what was seen of the logs before."""
        if self._logs and self._trust != _digest(trust):
            self._logs = {}
            self.notes.append("other keys or revocations than last time: everything is verified from the beginning")
        return replace(trust, checkpoints=[*trust.checkpoints, *self._seen])

    def resume(self, log: Log, misfits: Misfits, trust: Trust, source: Source) -> int:
        """Go on with a log where the last verification ended.

        Returns:
            the index to begin with; 0 if nothing is remembered.

        Raises:
            SourceError: what is remembered makes no sense.
        """
        origin = log.walk.origin
        saved = self._logs.get(origin)
        if not saved or not saved["size"]:
            return 0
        size = int(saved["size"])
        walk = Walk(
            origin, trust.checkpoints, misfits, copies=source.copies, lines=source.lines, adopt=True, known=size
        )
        account = walk.account
        try:
            account.numbers.last = {str(name): int(number) for name, number in saved["numbers"].items()}
            account.numbers.first = {str(name): int(number) for name, number in saved["first"].items()}
            account.numbers.whole, account.numbers.lost = bool(saved["whole"]), bool(saved["lost"])
            account.numbers.gaps = [(str(name), int(low), int(high)) for name, low, high in saved["gaps"]]
            account.values.held = {(int(index), str(name)): Held(*held) for index, name, held in saved["held"]}
            account.values.doubtful = {(int(index), str(name)): int(at) for index, name, at in saved["doubtful"]}
            account.values.erased, account.values.at = int(saved["erased"]), set(saved["erasures"])
            account.findings = [Finding(**{**item, "code": Code(item["code"])}) for item in saved["findings"]]
            account.omitted = {Code(code): int(count) for code, count in saved["omitted"].items()}
            account.records, account.copies = int(saved["records"]), int(saved["copies"])
            account.compared, account.control = bool(saved["compared"]), bool(saved["control"])
            account.promise = tuple(saved["promise"]) if saved["promise"] else None
            account.latest, account.replaces = int(saved["latest"]), saved["replaces"]
            events = [_event(item) for item in saved["keys"]]
        except (ValueError, KeyError, TypeError, AttributeError, FormatError):
            raise SourceError(f"{self._path} is damaged.", "Remove it; everything is then verified anew.") from None
        log.walk, log.resumed, log.before = walk, True, int(saved["checkpoints"])
        told = len(account.findings)
        account.events = events
        log.tell()
        log.before = max(0, log.before - log.ring.verified - 1)  # the last one is looked at once more
        del account.findings[told:]  # was found then already
        return size - 1

    def save(self, log: Log, misfits: Misfits, trust: Trust) -> None:
        """Remember how far a log is, if everything was in its place up to there; the file is replaced as a whole.

        Raises:
            SourceError: the file cannot be written.
        """
        walk, account = log.walk, log.walk.account
        clean = not (account.missing or account.unproven or misfits.facts or misfits.more or walk.irregular)
        if not clean or walk.chain.size < walk.judge.known:
            return
        self._trust = _digest(trust)
        self._logs[walk.origin] = {
            "size": walk.chain.size,
            "root": base64.b64encode(walk.chain.root).decode(),
            "frontier": base64.b64encode(b"".join(walk.chain.tree.hashes)).decode(),
            "checkpoints": log.before + log.ring.verified,
            "numbers": account.numbers.last,
            "first": account.numbers.first,
            "whole": account.numbers.whole,
            "lost": account.numbers.lost,
            "gaps": account.numbers.gaps,
            "held": [
                [index, name, [held.gone, held.message, held.span_id, held.document_id]]
                for (index, name), held in account.values.held.items()
            ],
            "doubtful": [[index, name, at] for (index, name), at in account.values.doubtful.items()],
            "erased": account.values.erased,
            "erasures": sorted(account.values.at),
            "findings": [
                asdict(finding) | {"code": finding.code.value} for finding in [*account.findings, *account.of_others()]
            ],
            "omitted": {code.value: count for code, count in account.omitted.items()},
            "records": account.records,
            "copies": account.copies,
            "compared": account.compared,
            "control": account.control,
            "promise": account.promise,
            "latest": account.latest,
            "replaces": account.replaces,
            "keys": [_saved(event) for event in log.keys],
        }
        content = orjson.dumps({"version": VERSION, "trust": self._trust, "logs": self._logs})
        draft = self._path.with_name(self._path.name + ".new")
        try:
            with open(draft, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path)
        except OSError as error:
            raise SourceError(
                f"The state {self._path} cannot be written: {error.strerror}.", "Check the path given to --state."
            ) from None


def _saved(event: KeyEvent) -> list[Any]:
    statement = event.statement.decode() if event.statement is not None else None
    note = str(event.note) if event.note is not None else None
    return [statement, note, event.index, event.size, event.latest, event.document_id]


def _event(item: list[Any]) -> KeyEvent:
    statement, note, index, size, latest, document_id = item
    return KeyEvent(
        statement.encode() if statement is not None else None,
        Note.parse(note) if note is not None else None,
        int(index), int(size), latest, document_id,
    )  # fmt: skip


def _digest(trust: Trust) -> str:
    """Return what stands for the keys and revocations: with others, signatures must be looked at anew."""
    parts = sorted(map(str, trust.keys)) + sorted(map(repr, trust.revocations))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
