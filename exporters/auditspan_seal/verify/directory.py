# SPDX-License-Identifier: Apache-2.0
"""Verifies a log directory on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.ship import Delivery
from auditspan_seal.verify.core import Trust, Verifier
from auditspan_seal.verify.facts import Fact, of_line
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.report import Code, Finding, Report
from auditspan_seal.verify.source import Buffer, Pick


class LogFiles:
    """The log files of a directory, as a source.

    Args:
        directory: the directory; it may be in use.
    """

    copies = False

    def __init__(self, directory: Directory) -> None:
        self.findings: list[Finding] = []
        """What is wrong with the files themselves."""
        self.size = 0
        """Tree size of the last checkpoint read."""
        self.positions: dict[str, int] = {}
        """Segment → bytes of it that the last checkpoint covers."""
        self._directory = directory

    def origins(self) -> Sequence[str]:
        """See :class:`.source.Source`."""
        return [self._directory.origin] if reader.files(self._directory.log) else []

    def read(self, origin: str, begin: int = 0) -> tuple[Iterator[CheckpointItem], Buffer]:
        """See :class:`.source.Source`."""
        buffer = Buffer()
        return self._read(buffer, begin), buffer

    def _read(self, buffer: Buffer, begin: int) -> Iterator[CheckpointItem]:
        origin = self._directory.origin
        try:
            for block in reader.blocks(self._directory.log, self._cursor(begin)):
                if isinstance(block, reader.Tail):
                    self.findings.append(_tail(self._directory, block))
                    continue
                self.size = block.batch.size
                self.positions = {name: at.offset for name, at in block.batch.segments.items()}
                if block.batch.size > begin:
                    buffer.put(facts_of(block, origin))
                    yield CheckpointItem(origin, block.batch, f"log/{block.after.file}")
        except FormatError as error:
            message = f"The log file cannot be read on from index {self.size}: {error.what}"
            self.findings.append(Finding(Code.LOG_DAMAGED, message, origin, self.size))

    def _cursor(self, index: int) -> reader.Cursor:
        """Return the beginning of the log file that has an index: its name is the index of its first entry."""
        names = [name for name in reader.files(self._directory.log) if name <= f"{index:020d}{reader.SUFFIX}"]
        return reader.Cursor(names[-1]) if names else reader.Cursor()

    def checkpoints(self, origin: str) -> Iterator[CheckpointItem]:
        """See :class:`.source.Source`."""
        for block in self._blocks():
            yield CheckpointItem(origin, block.batch, f"log/{block.after.file}")

    def _blocks(self, begin: int = 0) -> Iterator[reader.Block]:
        with contextlib.suppress(FormatError):  # was said at the first reading
            for block in reader.blocks(self._directory.log, self._cursor(begin)):
                if isinstance(block, reader.Block) and block.batch.size > begin:
                    yield block

    def at(self, origin: str, indexes: Sequence[int]) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        wanted = set(indexes)
        for block in self._blocks(min(wanted, default=0)):
            if not wanted.isdisjoint(range(block.batch.first, block.batch.size)):
                yield from (fact for fact in facts_of(block, origin) if fact.index in wanted)

    def loose(self) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        return iter(())

    def picked(
        self, origin: str, pick: Pick, before: int | None = None
    ) -> Iterator[tuple[CheckpointItem | None, list[Fact]]]:
        """See :class:`.source.Source`."""
        for block in self._blocks():
            if before is not None and block.batch.first >= before:
                return
            facts = list(facts_of(block, origin, pick))
            if before is not None:
                facts = [fact for fact in facts if fact.index < before]
            if facts:
                yield CheckpointItem(origin, block.batch, f"log/{block.after.file}"), facts


def facts_of(block: reader.Block, origin: str, pick: Pick | None = None) -> Iterator[Fact]:
    """Judge the entries of a batch by themselves.

    If there are more than the checkpoint covers, those before its batch have lost their own checkpoint, or some were
    put in; which it is their leaf hashes tell.
    """
    place = f"log/{block.after.file}"
    index = block.batch.first - max(0, len(block.statements) - len(block.batch.leaves))
    for statement, private in zip(block.statements, block.private, strict=True):
        if pick is None or pick(statement):
            yield of_line(statement, private, origin, index, place)
        index += 1


def verify_directory(directory: Directory, *keys: VerifierKey, trust: Trust | None = None) -> Report:
    """Verify a log directory.

    Args:
        directory: the directory; it may be in use.
        keys: the keys to trust; none: the one that the log names itself.
        trust: what else to trust; instead of `keys`.

    Raises:
        DirectoryError: it cannot be read.
    """
    trust = (trust or Trust(keys)).of(directory.origin)
    report = trust.report(str(directory.path))
    source = LogFiles(directory)
    verifier = Verifier(source, report, trust)
    verifier.run()
    report.findings += source.findings
    _check_delivery(directory, source.size, report.findings)
    _check_segments(directory, source.positions, report.findings)
    report.order()
    return report


def _tail(directory: Directory, tail: reader.Tail) -> Finding:
    return Finding(
        Code.TORN_TAIL,
        f"{tail.file} has {tail.size} bytes after its last checkpoint (at byte {tail.offset}): a batch that is being "
        "written, the remains of a crash, or a cut file. Start an audited process once, which completes it, and verify "
        "again.",
        directory.origin,
    )


def _check_delivery(directory: Directory, size: int, findings: list[Finding]) -> None:
    delivered = Delivery.load(directory.delivery).size
    if delivered > size:
        findings.append(
            Finding(
                Code.LOG_TRUNCATED,
                f"{delivered} entries were delivered but the log has only {size}: its end was cut off. The delivered "
                "documents still hold it: verify them with --elasticsearch.",
                directory.origin,
                size,
            )
        )


def _check_segments(directory: Directory, positions: dict[str, int], findings: list[Finding]) -> None:
    waiting = 0
    for name in segment.names(directory.segments):
        path = segment.path_of(directory.segments, name)
        offset = positions.get(name, 0)
        try:
            length = path.stat().st_size
            if length < offset:
                findings.append(
                    Finding(
                        Code.LOG_TRUNCATED,
                        f"The segment {path} has {length} bytes, but {offset} were already read from it: it was cut. "
                        "What was read before is in the log; what came after is lost. Keep a copy of the directory and "
                        "find out who shortened the file.",
                        directory.origin,
                    )
                )
                continue
        except FileNotFoundError:
            continue
        waiting += segment.waiting(path, offset)
    if waiting:
        findings.append(
            Finding(
                Code.RECORDED_NOT_SEQUENCED,
                f"{waiting} records are written but not signed yet. They are signed when an audited process runs, or "
                f"now with `auditspan agent --once {directory.path}`.",
                directory.origin,
            )
        )
