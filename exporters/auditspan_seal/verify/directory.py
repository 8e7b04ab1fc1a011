# SPDX-License-Identifier: Apache-2.0
"""Verifies a log directory on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace

from auditspan_seal.delivery import Delivery
from auditspan_seal.errors import FormatError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.pruned import Pruned
from auditspan_seal.verify import parallel
from auditspan_seal.verify.account import Misfits
from auditspan_seal.verify.core import Log, Trust, Verifier
from auditspan_seal.verify.facts import Fact
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.journey import Going, Journey
from auditspan_seal.verify.lines import Block, blocks
from auditspan_seal.verify.progress import SILENT, Progress
from auditspan_seal.verify.report import Code, Finding, Report
from auditspan_seal.verify.source import Buffer, Pick, says_control


class LogFiles:
    """The log files of a directory, as a source.

    Args:
        directory: the directory; it may be in use.
    """

    copies = False
    lines = True

    def __init__(self, directory: Directory) -> None:
        self.findings: list[Finding] = []
        """What is wrong with the files themselves."""
        self.size = 0
        """Tree size of the last checkpoint read."""
        self.positions: dict[str, int] = {}
        """Segment → bytes of it that the last checkpoint covers."""
        self.damaged = False
        """Whether a log file could not be read on."""
        self._directory = directory

    def origins(self) -> Sequence[str]:
        """See :class:`.source.Source`."""
        return [self._directory.origin] if reader.files(self._directory.log) else []

    def read(self, origin: str, begin: int = 0) -> tuple[Iterator[CheckpointItem], Buffer]:
        """See :class:`.source.Source`."""
        return self.part(self.cursor(begin), None, begin)

    def part(
        self, start: reader.Cursor, stop: reader.Cursor | None, begin: int = 0, known: int = 0
    ) -> tuple[Iterator[CheckpointItem], Buffer]:
        """Return the checkpoints and entries from one place to another, in order.

        Args:
            start: a place between two batches.
            stop: another; None: the end.
            begin: leave out batches that end before this index.
            known: entries below this index need not be judged.
        """
        buffer = Buffer()

        def checkpoints() -> Iterator[CheckpointItem]:
            origin = self._directory.origin
            try:
                for block in blocks(self._directory.log, origin, start, stop, None, known):
                    if isinstance(block, reader.Tail):
                        self.findings.append(_tail(self._directory, block))
                        continue
                    self.size = block.batch.size
                    self.positions = {name: at.offset for name, at in block.batch.segments.items()}
                    if block.batch.size > begin:
                        buffer.put(block.entries)
                        yield block.item(origin)
            except FormatError as error:
                message = f"The log file cannot be read on from index {self.size}: {error.what}"
                self.findings.append(Finding(Code.LOG_DAMAGED, message, origin, self.size))
                self.damaged = True

        return checkpoints(), buffer

    def cursor(self, index: int) -> reader.Cursor:
        """Return the beginning of the log file that has an index: its name is the index of its first entry."""
        return reader.cursor_of(self._directory.log, index)

    def checkpoints(self, origin: str) -> Iterator[CheckpointItem]:
        """See :class:`.source.Source`."""
        return (block.item(origin) for block in self._blocks(pick=lambda statement: False))

    def _blocks(self, begin: int = 0, pick: Pick | None = None) -> Iterator[Block]:
        return (block for block in self._blocks_from(self.cursor(begin), pick) if block.batch.size > begin)

    def _blocks_from(self, start: reader.Cursor, pick: Pick | None = None) -> Iterator[Block]:
        with contextlib.suppress(FormatError):  # is said where everything is read
            for block in blocks(self._directory.log, self._directory.origin, start, pick=pick):
                if isinstance(block, Block):
                    yield block

    def at(self, origin: str, indexes: Sequence[int]) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        wanted = set(indexes)
        for block in self._blocks(min(wanted, default=0)):
            yield from (fact for fact in block.facts if fact.index in wanted)

    def first_since(self, origin: str, moment: int) -> int:
        """See :class:`.source.Source`."""
        begin = 0
        for name in reader.files(self._directory.log):
            block = next(self._blocks_from(reader.Cursor(name)), None)
            if block is None or max(block.entries.times, default=0) >= moment:
                break
            begin = block.batch.first
        last = 0
        for block in self._blocks(begin):
            last = block.batch.first
            for fact in block.facts:
                if fact.time >= moment:
                    return fact.index
        return last

    def loose(self) -> Iterator[Fact]:
        """See :class:`.source.Source`."""
        return iter(())

    def picked(
        self, origin: str, pick: Pick, before: int | None = None
    ) -> Iterator[tuple[CheckpointItem | None, list[Fact]]]:
        """See :class:`.source.Source`."""
        for block in self._blocks(pick=pick):
            if before is not None and block.batch.first >= before:
                return
            facts = [fact for fact in block.facts if before is None or fact.index < before]
            if facts:
                yield block.item(origin), facts


def verify_directory(
    directory: Directory,
    *keys: VerifierKey,
    trust: Trust | None = None,
    jobs: int | None = None,
    progress: Progress = SILENT,
    journey: Journey | None = None,
) -> Report:
    """Verify a log directory.

    Args:
        directory: the directory; it may be in use.
        keys: the keys to trust; none: the one that the log names itself.
        trust: what else to trust; instead of `keys`.
        jobs: how many processes to use; None: as many as there are processors, for large logs.
        progress: is told how far it is.
        journey: where to begin, and what to remember; None: everything is looked at.

    Raises:
        DirectoryError: it cannot be read.
        SourceError: what is remembered cannot be read or written.
    """
    journey = journey or Journey()
    trust = journey.trusting(trust or Trust(keys)).of(directory.origin)
    report = trust.report(str(directory.path))
    source = LogFiles(directory)
    going = Going(journey, trust, progress, jobs)
    Verifier(source, report, trust, lambda log, misfits: _walk(directory, source, log, misfits, going)).run()
    if journey.run is not None:
        journey.report(report)
        return report
    report.findings = [_explained(directory, finding) for finding in report.findings] + source.findings
    _check_delivery(directory, source.size, report.findings)
    _check_segments(directory, source.positions, report.findings)
    report.order()
    journey.report(report)
    return report


def _walk(directory: Directory, source: LogFiles, log: Log, misfits: Misfits, going: Going) -> None:
    """Walk along the log, range by range; in several processes if that pays."""
    journey, trust, progress, jobs = going.journey, going.trust, going.progress, going.jobs
    if journey.run is not None:
        journey.one_run(source, log, misfits)
        return
    start = journey.begin(source, log, misfits, trust)
    work = list(parallel.ranges(directory.log, source.cursor(start)))
    whole = sum(part.size for part in work)
    jobs = parallel.default_jobs(whole) if jobs is None else jobs
    control = jobs > 1 and says_control(source, directory.origin)
    done = 0

    def submit(pool: ProcessPoolExecutor, part: parallel.Range) -> Future[parallel.Part | None]:
        known = [*trust.keys, *log.named_keys()]
        arguments = (directory.log, directory.origin, part, trust.checkpoints, control, known)
        return pool.submit(parallel.walk_range, *arguments)

    several = jobs > 1 and len(work) > 1
    buffer = Buffer()
    for part, result in parallel.in_order(jobs, work, submit) if several else ((part, None) for part in work):
        if result is not None and log.join(result, control):
            source.size, source.positions = log.walk.chain.size, result.positions
            journey.reached(log, misfits, trust)
        else:
            checkpoints, buffer = source.part(part.start, part.stop, start, log.walk.judge.known)
            for item in checkpoints:
                log.walk.step(item, buffer)
                log.tell()
                journey.reached(log, misfits, trust)
                progress.at(log.walk.account.records, (done + part.size / 2) / whole)
            if source.damaged:
                break
        done += part.size
        progress.at(log.walk.account.records, done / whole)
    journey.reached(log, misfits, trust, last=True)
    log.walk.rest(buffer)


def _explained(directory: Directory, finding: Finding) -> Finding:
    """Say of a missing beginning whether it was pruned: then it is known what went, and where it still is."""
    pruned = Pruned.load(directory)
    if finding.code is not Code.PREFIX_MISSING or pruned is None:
        return finding
    if finding.index != pruned.size:
        also = f" Only the indexes below {pruned.size} were pruned: somebody has removed more."
        return replace(finding, message=finding.message + also)
    return replace(
        finding,
        message=f"The indexes 0 to {pruned.size - 1} were pruned from this directory, after {pruned.place} was seen to "
        "hold them: verify them there, with --elasticsearch. What is here is proven from there on.",
    )


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
    for name, path in segment.all_of(directory):
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
            waiting += segment.waiting(path, offset)
        except FileNotFoundError:
            continue
        except OSError as error:
            findings.append(
                Finding(
                    Code.RECORDED_NOT_SEQUENCED,
                    f"The segment {path} cannot be read ({error.strerror}): whether records wait there is not known. "
                    "Verify as a user who may read it, or check the disk.",
                    directory.origin,
                )
            )
    if waiting:
        findings.append(
            Finding(
                Code.RECORDED_NOT_SEQUENCED,
                f"{waiting} records are written but not signed yet. They are signed when an audited process runs, or "
                f"now with `auditspan agent --once {directory.path}`.",
                directory.origin,
            )
        )
