# SPDX-License-Identifier: Apache-2.0
"""Verifies OTLP/JSON files: reads them in pieces, in several processes if that pays, and sorts what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from auditspan_seal.errors import SourceError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.verify import cycles
from auditspan_seal.verify.core import Trust, Verifier
from auditspan_seal.verify.facts import SPAN, Fact
from auditspan_seal.verify.items import CheckpointItem
from auditspan_seal.verify.journey import Going, Journey
from auditspan_seal.verify.otlp import items_of, opened
from auditspan_seal.verify.parallel import default_jobs, in_order
from auditspan_seal.verify.progress import SILENT, Progress
from auditspan_seal.verify.report import Report
from auditspan_seal.verify.runs import Row, in_runs
from auditspan_seal.verify.sorter import Sorter, row_of

PIECE = 8 * 1024 * 1024  # bytes of a file to a piece
CHUNK = 4000  # spans that are handed on together
_SAID = 20  # problems that are said; the rest is counted
_UNPACKED = (".gz", ".zst")


@dataclass(frozen=True)
class Piece:
    """A part of a file, from line to line."""

    path: Path
    begin: int
    end: int
    first: int


@dataclass(frozen=True)
class Found:
    """What is in a piece: rows of entries, runs of them, checkpoints, lines that cannot be read, how many spans."""

    rows: list[Row]
    runs: list[Row]
    checkpoints: list[CheckpointItem]
    problems: list[str]
    records: int


def verify_files(
    paths: Sequence[Path],
    *keys: VerifierKey,
    trust: Trust | None = None,
    jobs: int | None = None,
    progress: Progress = SILENT,
    journey: Journey | None = None,
) -> Report:
    """Verify OTLP/JSON files, together: a log may be spread over several.

    Args:
        paths: the files.
        keys: the keys to trust, each for the log of its name; none: the one that each log names itself.
        trust: what else to trust; instead of `keys`.
        jobs: how many processes to use; None: as many as there are processors, for large files.
        progress: is told how far it is.
        journey: where to begin, and what to remember; None: everything is looked at.

    Raises:
        SourceError: a file cannot be read, or what is in it cannot be sorted.
    """
    journey = journey or Journey()
    trust = journey.trusting(trust or Trust(keys))
    report = trust.report(", ".join(map(str, paths)))
    sorter = Sorter(copies=True)
    sorter.filtered = journey.run is not None
    try:
        sort(paths, sorter, report, jobs, progress, journey.run)
        going = Going(journey, trust, progress)
        Verifier(sorter, report, trust, lambda log, misfits: going.along(sorter, log, misfits)).run()
    finally:
        sorter.close()
    journey.report(report)
    return report


def sort(
    paths: Sequence[Path], sorter: Sorter, report: Report, jobs: int | None, progress: Progress, run: str | None = None
) -> None:
    """Read files and put what is in them into a sorter.

    Raises:
        SourceError: a file cannot be read.
    """
    pieces = [piece for path in paths for piece in _pieces(path)]
    whole = sum(piece.end - piece.begin for piece in pieces) or 1
    jobs = default_jobs(whole) if jobs is None else jobs
    records = done = problems = 0
    for piece, found in _read(pieces, jobs, run):
        for row in found.rows:
            sorter.add_row(row)
        for one in found.runs:
            sorter.add_run(one)
        for item in found.checkpoints:
            sorter.add_checkpoint(item)
        problems += len(found.problems)
        report.notes += found.problems[: max(0, _SAID - len(report.notes))]
        records += found.records
        done += piece.end - piece.begin if found.rows or found.runs or found.checkpoints else 0
        progress.at(records, done / whole)
    if problems > _SAID:
        report.notes.append(f"{problems - _SAID} more lines are not JSON")


def read_piece(piece: Piece, run: str | None = None) -> Found:
    """Read a piece of a file, in whatever process."""
    return next(_chunks(piece, 1 << 62, run))


def _pieces(path: Path) -> Iterator[Piece]:
    """Cut a file into pieces; a packed one is one piece."""
    try:
        size = path.stat().st_size
        if path.name.endswith(_UNPACKED) or size <= PIECE:
            yield Piece(path, 0, size, 1)
            return
        begin, first = 0, 1
        with open(path, "rb") as file:
            while begin < size:
                file.seek(begin + PIECE)
                file.readline()
                end = min(max(file.tell(), begin + 1), size)
                yield Piece(path, begin, end, first)
                begin, first = end, 0
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}.", "Check the path and its permissions.") from None


def _read(pieces: Sequence[Piece], jobs: int, run: str | None) -> Iterator[tuple[Piece, Found]]:
    if jobs <= 1 or len(pieces) <= 1:
        for piece in pieces:
            for found in _chunks(piece, CHUNK, run):
                yield piece, found
        return

    def submit(pool: ProcessPoolExecutor, piece: Piece) -> Future[Found]:
        return pool.submit(read_piece, piece, run)

    for piece, result in in_order(jobs, pieces, submit):
        yield piece, read_piece(piece, run) if result is None else result


def _chunks(piece: Piece, size: int, run: str | None) -> Iterator[Found]:
    """Read a piece in chunks of so many spans."""
    rows: list[Row] = []
    checkpoints: list[CheckpointItem] = []
    problems: list[str] = []
    records = 0
    name = piece.path.name
    pick = Journey(run=run).pick() if run is not None else None
    with opened(piece.path) as file, cycles.left_alone():
        packed = name.endswith(_UNPACKED)
        if not packed:
            file.seek(piece.begin)

        def lines() -> Iterator[bytes]:
            at = piece.begin
            for line in file:
                at += len(line)
                yield line
                if not packed and at >= piece.end:
                    return

        first = piece.first or 1_000_000_000  # lines are counted from the beginning of the first piece only
        for item in items_of(lines(), name, first, file.read, problems.append, pick):
            if isinstance(item, tuple):
                rows.append(item)
                records += 1
            elif isinstance(item, Fact):
                rows.append(row_of(item))
                records += item.kind == SPAN
            else:
                checkpoints.append(item)
            if len(rows) >= size:
                yield Found(*in_runs(rows), checkpoints, problems, records)
                rows, checkpoints, problems, records = [], [], [], 0
    yield Found(*in_runs(rows), checkpoints, problems, records)
