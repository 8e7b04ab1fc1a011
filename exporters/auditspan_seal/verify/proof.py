# SPDX-License-Identifier: Apache-2.0
"""One record, proven to a third party: two small files and the public key, nothing else.

``X.statement.json`` is the statement, byte for byte; ``X.tlog-proof`` is https://c2sp.org/tlog-proof, with the signed
checkpoint in it. Personal values are not in the statement; ``X.values.json`` discloses them, if that is wanted.
Any tool that knows C2SP can check the first two: leaf hash = SHA-256(0x00 ‖ statement).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from auditspan_seal.errors import FormatError, SourceError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.commitment import Private
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.formats.proof import TlogProof, inclusion
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.items import EntryItem
from auditspan_seal.verify.personal import State, states
from auditspan_seal.verify.report import Code, Finding, Report

PROOF_SUFFIX = ".tlog-proof"
STATEMENT_SUFFIX = ".statement.json"
VALUES_SUFFIX = ".values.json"


def find(candidates: Iterable[tuple[bytes, Private]], wanted: str) -> tuple[bytes, Private]:
    """Find the statement of a span among statements, and the personal values that stand beside it.

    Args:
        candidates: statements with their personal values.
        wanted: its span ID (16 hexadecimal digits) or its ``audit.record.id``.

    Raises:
        SourceError: there is none.
    """
    for statement, private in candidates:
        try:
            fields = statements.decode(statement)
        except FormatError:
            continue
        if wanted in (fields.get("span_id"), fields.get("attributes", {}).get("audit.record.id")):
            return statement, private
    raise SourceError(
        f"There is no record with the span ID or record ID {wanted!r}.",
        "`auditspan show RUN --json` lists both for every record of a run.",
    )


def entries_of(directory: Directory) -> Iterator[tuple[bytes, Private]]:
    """Read the statements of a log directory, each with the personal values that stand beside it."""
    for block in reader.batches(directory.log):
        for statement, private in zip(block.statements, block.private, strict=True):
            try:
                yield statement, commitment.decode(private)
            except FormatError:
                yield statement, {}


def batches_of(directory: Directory) -> Iterator[Batch]:
    """Read the checkpoints of a log directory."""
    return (block.batch for block in reader.batches(directory.log))


def prove(batches: Iterable[Batch], statement: bytes) -> TlogProof:
    """Prove that a statement is in the log, under the first checkpoint that covers it.

    Args:
        batches: the checkpoints of the log, from the first on, in order.
        statement: the entry.

    Raises:
        SourceError: no checkpoint covers it, or one before it is not there.
    """
    wanted = leaf_hash(statement)
    leaves: list[bytes] = []
    for batch in batches:
        if batch.first != len(leaves):
            raise SourceError(
                f"The checkpoint for index {len(leaves)} is not there; the proof needs every one before the record.",
                "Prove from the log directory, or restore the document.",
            )
        leaves += batch.leaves
        if wanted in batch.leaves:
            index = batch.first + batch.leaves.index(wanted)
            return TlogProof(index, inclusion(leaves, index), batch.note)
    raise SourceError("No checkpoint covers this record yet.", "Try again when `auditspan status` shows it as signed.")


def write(
    folder: Path, name: str, statement: bytes, proof: TlogProof, disclosed: Private | None = None
) -> tuple[Path, ...]:
    """Write the files; returns where they are: statement, proof and, if values are disclosed, those.

    Raises:
        SourceError: they cannot be written.
    """
    places: tuple[Path, ...] = folder / f"{name}{STATEMENT_SUFFIX}", folder / f"{name}{PROOF_SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        places[0].write_bytes(statement)
        places[1].write_text(str(proof), encoding="utf-8", newline="\n")
        if disclosed is not None:
            places = (*places, folder / f"{name}{VALUES_SUFFIX}")
            places[2].write_bytes(commitment.encode(disclosed) or b"{}")
    except OSError as error:
        raise SourceError(f"The proof cannot be written to {folder}: {error.strerror}.", "Check --out.") from None
    return places


def verify_proof(path: Path, *keys: VerifierKey) -> Report:
    """Verify a proof and the statement beside it, offline.

    Args:
        path: the ``.tlog-proof`` file.
        keys: the keys to trust; a proof names none itself, so without any it is UNVERIFIABLE.

    Raises:
        SourceError: one of the two files cannot be read.
    """
    report = Report(str(path), "pinned" if keys else "none")
    beside = path.with_name(path.name.removesuffix(PROOF_SUFFIX) + STATEMENT_SUFFIX)
    try:
        statement, text = beside.read_bytes(), path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{error.filename} cannot be read: {error.strerror}.",
            "A proof is two files, NAME.tlog-proof and NAME.statement.json, in the same folder.",
        ) from None
    try:
        proof = TlogProof.parse(text.decode())
        checkpoint, note = proof.checkpoint(), Note.parse(proof.note)
        included = proof.includes(leaf_hash(statement))
    except (FormatError, UnicodeDecodeError) as error:
        what = error.what if isinstance(error, FormatError) else "It is not text."
        report.findings.append(Finding(Code.CHECKPOINT_INVALID, f"The proof cannot be read: {what}"))
        return report
    origin = checkpoint.origin
    report.scope = {"index": proof.index, "limit": "anything but this one record: a proof is of one"}
    report.logs[origin] = checkpoint.size
    key = next((key for key in keys if key.name in ("", origin)), None)
    if key is None:
        message = f"No key for the log {origin} was given: a proof does not say whom to trust. Give --key log.vkey."
        report.findings.append(Finding(Code.NO_KEY, message, origin, proof.index))
    elif (signed := note.signed_by(VerifierKey(origin, key.public))) is None:
        report.findings.append(
            Finding(Code.WRONG_KEY, "The checkpoint is not signed with that key.", origin, proof.index)
        )
    elif not signed:
        message = "The signature of the checkpoint is not valid."
        report.findings.append(Finding(Code.CHECKPOINT_INVALID, message, origin, proof.index))
    else:
        report.checkpoints = 1
    if included:
        report.records = 1
    else:
        message = "The statement is not the one that the log has at this index: it was altered, or the proof was."
        report.findings.append(Finding(Code.STATEMENT_ALTERED, message, origin, proof.index))
    values = path.with_name(path.name.removesuffix(PROOF_SUFFIX) + VALUES_SUFFIX)
    if included and values.exists():
        _check_values(values, statement, proof.index, report, origin)
    return report


def _check_values(path: Path, statement: bytes, index: int, report: Report, origin: str) -> None:
    """Hold disclosed values against the statement; those that are not disclosed are not asked for."""
    try:
        openings = commitment.decode(path.read_bytes())
        fields = statements.decode(statement)
        fields["attributes"] = {name: fields["attributes"].get(name) for name in openings}
        item = EntryItem(statement, origin, index, openings=dict(openings))
        wrong = [
            (Code.VALUE_REMOVED if state is State.GONE else Code.FIELD_MISMATCH, name, message)
            for name, state, message in states(fields, item)
            if state is not State.PRESENT
        ]
    except (OSError, FormatError, KeyError, TypeError, AttributeError):
        wrong = [(Code.FIELD_MISMATCH, "values", f"The file {path.name} cannot be read as disclosed values.")]
    report.findings += [
        Finding(code, message, origin, index, field=f"attributes.{name}") for code, name, message in wrong
    ]
    report.compared = True
