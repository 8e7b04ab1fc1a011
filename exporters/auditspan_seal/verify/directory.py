# SPDX-License-Identifier: Apache-2.0
"""Verifies a log directory on disk."""

from __future__ import annotations

from auditspan_seal.errors import FormatError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.log import reader, segment
from auditspan_seal.log.directory import Directory
from auditspan_seal.ship import Delivery
from auditspan_seal.verify.core import Verifier
from auditspan_seal.verify.items import CheckpointItem, EntryItem, openings_of
from auditspan_seal.verify.report import Code, Finding, Report


def verify_directory(directory: Directory, *keys: VerifierKey) -> Report:
    """Verify a log directory.

    Args:
        directory: the directory; it may be in use.
        keys: the keys to trust; none: the one that the log names itself.

    Raises:
        DirectoryError: it cannot be read.
    """
    verifier = Verifier(str(directory.path), *keys)
    findings = verifier.report.findings
    size = 0
    positions: dict[str, int] = {}
    try:
        for block in reader.blocks(directory.log):
            if isinstance(block, reader.Tail):
                findings.append(_tail(directory, block))
                continue
            verifier.add_checkpoint(CheckpointItem(directory.origin, block.batch, f"log/{block.after.file}"))
            place = f"log/{block.after.file}"
            for offset, (statement, private) in enumerate(zip(block.statements, block.private, strict=True)):
                index = block.batch.first + offset
                verifier.add_entry(
                    EntryItem(statement, directory.origin, index, None, place, None, openings_of(private))
                )
            size = block.batch.size
            positions = {name: at.offset for name, at in block.batch.segments.items()}
    except FormatError as error:
        findings.append(
            Finding(
                Code.LOG_DAMAGED,
                f"The log file cannot be read on from index {size}: {error.what}",
                directory.origin,
                size,
            )
        )
    _check_delivery(directory, size, findings)
    _check_segments(directory, positions, findings)
    return verifier.finish()


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
