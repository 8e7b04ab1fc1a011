# SPDX-License-Identifier: Apache-2.0
"""What a verification says: a verdict, what it rests on, and findings with stable codes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any


class Verdict(str, Enum):
    """The answer; its exit code is in :data:`EXIT_CODES`."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    INCOMPLETE = "INCOMPLETE"
    UNVERIFIABLE = "UNVERIFIABLE"


EXIT_CODES = {Verdict.PASSED: 0, Verdict.FAILED: 1, Verdict.INCOMPLETE: 3, Verdict.UNVERIFIABLE: 4}


class Code(str, Enum):
    """Reason codes. The name of a code never changes its meaning."""

    FIELD_MISMATCH = "field_mismatch"
    VALUE_REMOVED = "value_removed"
    ERASED_VALUE_PRESENT = "erased_value_present"
    STATEMENT_ALTERED = "statement_altered"
    ENTRY_MISSING = "entry_missing"
    RECORD_MISSING = "record_missing"
    DUPLICATE_DOCUMENT = "duplicate_document"
    FOREIGN_DOCUMENT = "foreign_document"
    CHECKPOINT_INVALID = "checkpoint_invalid"
    CHECKPOINT_CONFLICT = "checkpoint_conflict"
    WRONG_KEY = "wrong_key"
    KEY_REVOKED = "key_revoked"
    KEY_EXPIRED = "key_expired"
    KEY_CHANGE_INVALID = "key_change_invalid"
    LOG_TRUNCATED = "log_truncated"
    LOG_DAMAGED = "log_damaged"
    CHECKPOINT_MISSING = "checkpoint_missing"
    PREFIX_MISSING = "prefix_missing"
    ENTRY_UNCOVERED = "entry_uncovered"
    RECORDED_NOT_SEQUENCED = "recorded_not_sequenced"
    TORN_TAIL = "torn_tail"
    GAP_ENTRY = "gap_entry"
    NO_CHECKPOINT = "no_checkpoint"
    NO_KEY = "no_key"
    NOTHING_FOUND = "nothing_found"


VERDICT_OF = {
    **dict.fromkeys(Code, Verdict.FAILED),
    Code.PREFIX_MISSING: Verdict.INCOMPLETE,
    Code.ERASED_VALUE_PRESENT: Verdict.INCOMPLETE,
    Code.ENTRY_UNCOVERED: Verdict.INCOMPLETE,
    Code.RECORDED_NOT_SEQUENCED: Verdict.INCOMPLETE,
    Code.TORN_TAIL: Verdict.INCOMPLETE,
    Code.GAP_ENTRY: Verdict.INCOMPLETE,
    Code.NO_CHECKPOINT: Verdict.UNVERIFIABLE,
    Code.NO_KEY: Verdict.UNVERIFIABLE,
    Code.NOTHING_FOUND: Verdict.UNVERIFIABLE,
}
_WORST_FIRST = (Verdict.FAILED, Verdict.UNVERIFIABLE, Verdict.INCOMPLETE)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. What is not known of it is None."""

    code: Code
    message: str
    origin: str | None = None
    index: int | None = None
    span_id: str | None = None
    document_id: str | None = None
    field: str | None = None


@dataclass
class Report:
    """The result of a verification.

    Attributes:
        source: what was read.
        trust: what the keys rest on: ``pinned``, or ``first_use`` if the key was taken from the log itself.
        logs: origin → tree size that was verified.
        records: audit spans that were verified.
        checkpoints: signed checkpoints that were verified.
        findings: everything that is not as it should be.
        erased: personal values that were erased on record.
        erasures: origin → indexes of the erasure records that say so.
        compared: whether visible documents were compared with their statements.
    """

    source: str
    trust: str = "none"
    logs: dict[str, int] = field(default_factory=dict)
    records: int = 0
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)
    erased: int = 0
    erasures: dict[str, list[int]] = field(default_factory=dict)
    compared: bool = False

    @property
    def verdict(self) -> Verdict:
        """The worst that any finding means."""
        found = {VERDICT_OF[finding.code] for finding in self.findings}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), Verdict.PASSED)

    @property
    def exit_code(self) -> int:
        """Exit code for the verdict."""
        return EXIT_CODES[self.verdict]

    def not_proven(self) -> list[str]:
        """Say what this verification could not know."""
        limits = ["that nothing was cut off after the last checkpoint seen (compare with a checkpoint kept elsewhere)"]
        if self.trust == "first_use":
            limits.append("who signed: the key came with the log (give the public key that you trust with --key)")
        return limits

    def as_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "verdict": self.verdict.value,
            "trust": self.trust,
            "source": self.source,
            "logs": self.logs,
            "records": self.records,
            "checkpoints": self.checkpoints,
            "erased": self.erased,
            "erasures": self.erasures,
            "findings": [asdict(finding) | {"code": finding.code.value} for finding in self.findings],
            "not_proven": self.not_proven(),
        }
