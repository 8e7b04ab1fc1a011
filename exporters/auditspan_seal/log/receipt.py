# SPDX-License-Identifier: Apache-2.0
"""The delivery receipt: up to which entry Elasticsearch was seen to hold the log, read back and hashed.

*Delivered* means that the Collector accepted a batch; only the receipt says that it arrived. Pruning rests on it.
"""

from __future__ import annotations

import base64
import contextlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.merkle import MAX_SIZE
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys import safe
from auditspan_seal.log.directory import Directory

NAME = "receipt.json"
VERSION = 1
MAX_OPEN = 1000
"""Ranges that a receipt names; with more, comparing begins anew at the first that it does not name."""


@dataclass(frozen=True)
class Open:
    """A range of the log that Elasticsearch does not hold as the log does.

    Attributes:
        kind: ``entry``, or ``checkpoint`` (then the range is that of the entries that they add).
        first: index of the first entry.
        last: index of the last one.
        state: ``missing``; ``altered`` (another document has its place); ``refused`` (sent again, and not taken).
        why: what is known about the reason, in words.
        count: how many entries or checkpoints it is.
    """

    kind: str
    first: int
    last: int
    state: str
    why: str = ""
    count: int = 1


@dataclass(frozen=True)
class Receipt:
    """What a reconciliation saw.

    Attributes:
        origin: the log.
        size: Elasticsearch holds every entry below this index, and every checkpoint up to this tree size.
        note: the signed checkpoint of that size, with the root hash over all that was compared.
        seen: tree size up to which it was compared.
        begin: index of the first entry that was there to compare: what is before it was pruned.
        base: tree size, at most `size`, up to which documents were counted.
        documents: how many documents of entries from `begin` to `base` Elasticsearch had.
        checkpoints: the same for checkpoints.
        expired: how many entries and checkpoints were not there, as the retention that was stated allows.
        open: what is not there, or not as the log has it.
        place: which Elasticsearch: its URL without a password.
        cluster: name and ID of the cluster, as far as it may be known.
        time: when, in seconds since the epoch.
    """

    origin: str
    size: int = 0
    note: str = ""
    seen: int = 0
    begin: int = 0
    base: int = 0
    documents: int = 0
    checkpoints: int = 0
    expired: int = 0
    open: tuple[Open, ...] = ()
    place: str = ""
    cluster: str = ""
    time: float = 0.0

    @property
    def missing(self) -> int:
        """How many entries and checkpoints are open."""
        return sum(item.count for item in self.open)

    @property
    def root(self) -> str:
        """Root hash over everything that Elasticsearch holds, in base64; empty: it holds nothing."""
        with contextlib.suppress(FormatError):
            return base64.b64encode(Checkpoint.parse(Note.parse(self.note).text).root).decode()
        return ""

    def save(self, directory: Directory) -> None:
        """Write it, as a whole and synced.

        Raises:
            OSError: it cannot be written.
        """
        fields = {"v": VERSION, **asdict(self), "root": self.root}
        safe.replace(path_of(directory), orjson.dumps(fields, option=orjson.OPT_INDENT_2), 0o640)

    @classmethod
    def load(cls, directory: Directory) -> Receipt | None:
        """Read the receipt of the log of a directory; None: there is none, it is damaged, or of another log."""
        try:
            receipt = cls._parse(orjson.loads(path_of(directory).read_bytes()))
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, FormatError):
            return None
        return receipt if receipt.origin == directory.origin else None

    @classmethod
    def _parse(cls, fields: dict[str, Any]) -> Receipt:
        if fields.pop("v") != VERSION:
            raise ValueError
        fields.pop("root")
        fields["open"] = tuple(Open(**item) for item in fields["open"])
        receipt = cls(**fields)
        numbers = (
            receipt.size, receipt.seen, receipt.begin, receipt.base, receipt.documents, receipt.checkpoints,
        )  # fmt: skip
        if not all(type(number) is int and 0 <= number <= MAX_SIZE for number in numbers):
            raise ValueError
        if not all(type(number) is int for item in receipt.open for number in (item.first, item.last, item.count)):
            raise ValueError
        # The size must be that of a checkpoint of this log: it is what pruning rests on.
        if receipt.size:
            checkpoint = Checkpoint.parse(Note.parse(receipt.note).text)
            if (checkpoint.origin, checkpoint.size) != (receipt.origin, receipt.size):
                raise ValueError
        return replace(receipt, time=float(receipt.time))

    @property
    def age(self) -> float:
        """Seconds since it was made; 0 if the clock was set back."""
        return max(0.0, time.time() - self.time)


def path_of(directory: Directory) -> Path:
    """Return the file of the receipt."""
    return directory.path / NAME
