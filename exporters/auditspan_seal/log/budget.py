# SPDX-License-Identifier: Apache-2.0
"""How much disk a log directory may use, how long it keeps what was delivered, and what happens when it is too much.

=========================  ===========================================================================================
``AUDITSPAN_RETENTION``    days after which a log file goes that Elasticsearch was seen to hold; unset: none goes
``AUDITSPAN_DISK_BUDGET``  bytes (or ``500MB``, ``20GiB``) that the directory may use; beyond that the oldest log files
                           that Elasticsearch was seen to hold go, if they are past the retention (unset: any age)
``AUDITSPAN_OVER_BUDGET``  what happens when that is not enough: ``continue`` (default) records on and says so,
                           ``refuse`` records nothing more until there is room, and counts it in a gap entry
=========================  ===========================================================================================

What Elasticsearch was not seen to hold is never removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from auditspan_seal.errors import AuditspanError, DirectoryError
from auditspan_seal.keys import safe
from auditspan_seal.log.directory import Directory, mode_of
from auditspan_seal.log.pruned import candidates, prune

RETENTION = "AUDITSPAN_RETENTION"
BUDGET = "AUDITSPAN_DISK_BUDGET"
POLICY = "AUDITSPAN_OVER_BUDGET"
EVERY = 10.0  # seconds between two looks at the directory, of the process that signs
_LOOK = 0.5  # seconds between two looks of a process that records
NAME = "over-budget.json"
_DAY = 86400.0
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)

Report = Callable[[str, "str | None"], None]


@dataclass(frozen=True)
class Limits:
    """What the settings say.

    Attributes:
        budget: bytes; None: no limit.
        retention: seconds; None: what was delivered is kept, too.
        refuse: refuse records when there is no room.
    """

    budget: int | None = None
    retention: float | None = None
    refuse: bool = False

    @classmethod
    def from_environment(cls) -> Limits:
        """Read the settings.

        Raises:
            DirectoryError: one of them cannot be understood.
        """
        policy = os.environ.get(POLICY, "").strip() or "continue"
        if policy not in ("continue", "refuse"):
            raise DirectoryError(f"{POLICY} is {policy!r}.", "Set it to continue (default) or refuse.")
        return cls(_bytes(os.environ.get(BUDGET, "")), _days(os.environ.get(RETENTION, "")), policy == "refuse")


def _bytes(text: str) -> int | None:
    if not text.strip():
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None or not (size := _scaled(*found.groups())):
        raise DirectoryError(f"{BUDGET} is {text!r}.", "Set it to a number of bytes, for example 20000000000 or 20GB.")
    return size


def _scaled(number: str, prefix: str, binary: str) -> int:
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(prefix.lower() or " "))


def _days(text: str) -> float | None:
    if not text.strip():
        return None
    with contextlib.suppress(ValueError):
        if (days := float(text)) >= 0:
            return days * _DAY
    raise DirectoryError(f"{RETENTION} is {text!r}.", "Set it to a number of days, for example 30.")


@dataclass(frozen=True)
class Over:
    """The directory uses more than it may, and nothing more may be removed.

    Attributes:
        used: bytes.
        budget: bytes.
        since: seconds since the epoch.
        why: why the oldest log file must stay.
        refuse: no more records are taken.
    """

    used: int
    budget: int
    since: float
    why: str
    refuse: bool

    @classmethod
    def load(cls, directory: Directory) -> Over | None:
        """Read it; None: the directory is within its budget, or it has none."""
        try:
            found = cls(**orjson.loads((directory.path / NAME).read_bytes()))
            float(found.since), int(found.used), int(found.budget)
        except (OSError, orjson.JSONDecodeError, TypeError, ValueError):
            return None
        return found

    def __str__(self) -> str:
        """Say it to people."""
        what = "no more is recorded (refused, and counted)" if self.refuse else "recording goes on"
        return (
            f"the log directory uses {said(self.used)}, more than {BUDGET} allows ({said(self.budget)}), and nothing "
            f"may be removed: {self.why}; {what}"
        )


def used(directory: Directory) -> int:
    """Return how many bytes of disk the records of a directory take."""
    total = 0
    for folder in (directory.log, directory.segments, directory.control):
        with contextlib.suppress(OSError):
            for item in os.scandir(folder):
                with contextlib.suppress(OSError):
                    total += item.stat().st_blocks * 512
    return total


def said(size: int) -> str:
    """Say a size to people."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 10_000:
            return f"{size} {unit}"
        size //= 1000
    return f"{size} TB"


class Keeper:
    """Keeps a directory within its limits. Only the sequencer of the directory may have one.

    Args:
        directory: the directory.
        report: is told what is wrong, for people; None: nothing any more.
    """

    def __init__(self, directory: Directory, report: Report) -> None:
        self._directory = directory
        self._report = report
        self._next = 0.0
        self._limits = Limits()
        try:
            self._limits = Limits.from_environment()
        except AuditspanError as error:
            report("disk setting", f"{error.what} Nothing is removed, and no budget is kept. {error.advice}")

    def step(self) -> None:
        """Look at the directory, if it is time for that; never raises."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY
        try:
            self._keep()
        except AuditspanError as error:
            self._report("disk budget", str(error))
        except OSError as error:
            self._report("disk budget", f"the disk budget could not be kept: {error.strerror}")

    def _keep(self) -> None:
        directory, limits = self._directory, self._limits
        if limits.retention is not None:
            prune(directory, limits.retention)
        over = None
        if limits.budget is not None and (size := used(directory)) > limits.budget:
            prune(directory, limits.retention or 0.0, size - limits.budget)
            if (size := used(directory)) > limits.budget:
                why = next((item.kept for item in candidates(directory, limits.retention or 0.0) if item.kept), "")
                before = Over.load(directory)
                since = before.since if before is not None else time.time()
                over = Over(size, limits.budget, since, why or "nothing is signed yet", limits.refuse)
        path = directory.path / NAME
        if over is not None:
            safe.replace(path, orjson.dumps(asdict(over)), mode_of(directory.path) | 0o044)
        else:
            path.unlink(missing_ok=True)
        self._report("disk budget", None if over is None else str(over))


class Gate:
    """Tells a process that records whether it may.

    Args:
        path: the log directory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / NAME
        self._next = 0.0
        self.shut = False
        """Whether records were to be refused when that was looked at last."""

    @property
    def closed(self) -> bool:
        """Whether records are to be refused; never raises."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LOOK
            self.shut = self._look()
        return self.shut

    def _look(self) -> bool:
        try:
            return orjson.loads(self._path.read_bytes()).get("refuse") is True
        except FileNotFoundError:
            return False
        except (OSError, orjson.JSONDecodeError, AttributeError):
            return self.shut  # it may not be read: as before
