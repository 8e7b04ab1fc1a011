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
    HISTORY_REWRITTEN = "history_rewritten"
    ENTRY_NOT_ALLOWED = "entry_not_allowed"
    LOG_SILENT = "log_silent"
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
    Code.LOG_SILENT: Verdict.INCOMPLETE,
    Code.NO_CHECKPOINT: Verdict.UNVERIFIABLE,
    Code.NO_KEY: Verdict.UNVERIFIABLE,
    Code.NOTHING_FOUND: Verdict.UNVERIFIABLE,
}
MAX_FINDINGS = 10_000
"""Findings of one code that a report holds; the rest is counted. What a report says must not outgrow memory."""
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


class Claim(str, Enum):
    """What a verification can show, one by one."""

    RECORDS_UNALTERED = "records_unaltered"
    NONE_MISSING = "none_missing"
    NOTHING_CUT_OFF = "nothing_cut_off"
    HISTORY_NOT_REWRITTEN = "history_not_rewritten"
    SIGNED_BY_WHOM_YOU_TRUST = "signed_by_whom_you_trust"
    DOCUMENTS_AGREE = "documents_agree"


_UNPROVEN = (Code.NO_CHECKPOINT, Code.NO_KEY, Code.NOTHING_FOUND)
_KEYS = (Code.WRONG_KEY, Code.KEY_REVOKED, Code.KEY_EXPIRED, Code.KEY_CHANGE_INVALID)
_AGAINST: dict[Claim, tuple[Code, ...]] = {
    Claim.RECORDS_UNALTERED: (
        Code.STATEMENT_ALTERED, Code.CHECKPOINT_INVALID, Code.CHECKPOINT_CONFLICT, Code.LOG_DAMAGED,
        Code.ENTRY_NOT_ALLOWED, Code.ENTRY_UNCOVERED, *_KEYS, *_UNPROVEN,
    ),
    Claim.NONE_MISSING: (
        Code.ENTRY_MISSING, Code.RECORD_MISSING, Code.CHECKPOINT_MISSING, Code.PREFIX_MISSING, Code.GAP_ENTRY,
        Code.RECORDED_NOT_SEQUENCED, Code.TORN_TAIL, Code.LOG_DAMAGED, Code.CHECKPOINT_CONFLICT,
        Code.CHECKPOINT_INVALID, *_UNPROVEN,
    ),
    Claim.NOTHING_CUT_OFF: (Code.LOG_TRUNCATED, Code.LOG_SILENT),
    Claim.HISTORY_NOT_REWRITTEN: (Code.HISTORY_REWRITTEN, Code.CHECKPOINT_CONFLICT),
    Claim.SIGNED_BY_WHOM_YOU_TRUST: (Code.CHECKPOINT_INVALID, *_KEYS, *_UNPROVEN),
    Claim.DOCUMENTS_AGREE: (
        Code.FIELD_MISMATCH, Code.FOREIGN_DOCUMENT, Code.DUPLICATE_DOCUMENT, Code.VALUE_REMOVED,
        Code.ERASED_VALUE_PRESENT,
    ),
}  # fmt: skip
_HOLDS = {
    Claim.RECORDS_UNALTERED: "every record is the one that was signed, in its place",
    Claim.NONE_MISSING: "none is missing up to the last checkpoint seen",
    Claim.NOTHING_CUT_OFF: "the log still has all that the second place knows of",
    Claim.HISTORY_NOT_REWRITTEN: "the log still is what the second place has seen: a stolen key could not rewrite it",
    Claim.SIGNED_BY_WHOM_YOU_TRUST: "every checkpoint is signed with the key that was given",
    Claim.DOCUMENTS_AGREE: "every visible document says what its signed statement says",
}


@dataclass
class Report:
    """The result of a verification.

    Attributes:
        source: what was read.
        trust: what the keys rest on: ``pinned``, or ``first_use`` if the key was taken from the log itself.
        logs: origin → tree size that was verified.
        records: audit spans that were verified.
        checkpoints: signed checkpoints that were verified.
        findings: everything that is not as it should be, of each code at most :data:`MAX_FINDINGS`.
        omitted: code → how many more there are.
        erased: personal values that were erased on record.
        erasures: origin → indexes of the erasure records that say so.
        compared: whether visible documents were compared with their statements.
        copies: second deliveries of the same document, which are honest.
        anchors: origin → tree size up to which a second place vouches for the log.
        scope: what was looked at, if that is not everything.
        required: claims that must not be left open.
        notes: what else is to be said.
    """

    source: str
    trust: str = "none"
    logs: dict[str, int] = field(default_factory=dict)
    records: int = 0
    checkpoints: int = 0
    findings: list[Finding] = field(default_factory=list)
    omitted: dict[Code, int] = field(default_factory=dict)
    erased: int = 0
    erasures: dict[str, list[int]] = field(default_factory=dict)
    compared: bool = False
    copies: int = 0
    anchors: dict[str, int] = field(default_factory=dict)
    scope: dict[str, Any] | None = None
    required: tuple[Claim, ...] = ()
    notes: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        add_bounded(self.findings, self.omitted, finding)

    def order(self) -> None:
        """Put the findings in the order of the log; those of copies in that of where they were found."""

        def place(finding: Finding) -> tuple[str, int, str, str]:
            index = finding.index if finding.index is not None else -1
            return finding.origin or "", index, finding.code.value, finding.document_id or ""

        self.findings.sort(key=place)

    @property
    def verdict(self) -> Verdict:
        """The worst that any finding means; UNVERIFIABLE if a claim that is required is left open."""
        found = {VERDICT_OF[finding.code] for finding in self.findings}
        if self.required:
            found |= {verdict for claim, verdict, _ in self.claims() if claim in self.required}
        return next((verdict for verdict in _WORST_FIRST if verdict in found), Verdict.PASSED)

    @property
    def exit_code(self) -> int:
        """Exit code for the verdict."""
        return EXIT_CODES[self.verdict]

    def claims(self) -> list[tuple[Claim, Verdict, str]]:
        """Judge each claim: claim, verdict and why."""
        return [(claim, *self._judge(claim)) for claim in Claim]

    def _judge(self, claim: Claim) -> tuple[Verdict, str]:
        codes = {finding.code for finding in self.findings} & set(_AGAINST[claim])
        found = {VERDICT_OF[code] for code in codes}
        verdict = next((verdict for verdict in _WORST_FIRST if verdict in found), Verdict.PASSED)
        if verdict is Verdict.FAILED:
            return verdict, ", ".join(sorted(code.value for code in codes))
        if open_question := self._open(claim):
            return Verdict.UNVERIFIABLE, open_question
        if verdict is not Verdict.PASSED:
            return verdict, ", ".join(sorted(code.value for code in codes))
        where = ""
        if claim in (Claim.NOTHING_CUT_OFF, Claim.HISTORY_NOT_REWRITTEN):
            where = "; it vouches up to " + ", ".join(
                f"entry {size} of {self.logs.get(origin, 0)} of {origin}" for origin, size in self.anchors.items()
            )
        return verdict, _HOLDS[claim] + where

    def _open(self, claim: Claim) -> str:
        """Say why a claim can neither hold nor fail; empty if it can."""
        if claim in (Claim.NOTHING_CUT_OFF, Claim.HISTORY_NOT_REWRITTEN):
            if not self.anchors:
                return "nothing in a log can show it: compare with checkpoints kept elsewhere (--checkpoints)"
            if alone := sorted(self.logs.keys() - self.anchors.keys()):
                return f"no checkpoint of {', '.join(alone)} was kept elsewhere"
        if claim is Claim.SIGNED_BY_WHOM_YOU_TRUST and self.trust != "pinned":
            return "the key came with the log: give the public key that you trust (--key)"
        if claim is Claim.DOCUMENTS_AGREE and not self.compared:
            return "no visible document was read"
        if claim is Claim.NONE_MISSING and self.scope is not None:
            return str(self.scope.get("limit", "only a part was looked at"))
        return ""

    def not_proven(self) -> list[str]:
        """Say what this verification could not know."""
        limits = []
        if not self.anchors:
            limits.append(
                "that nothing was cut off after the last checkpoint seen (compare with a checkpoint kept elsewhere)"
            )
        if self.trust == "first_use":
            limits.append("who signed: the key came with the log (give the public key that you trust with --key)")
        if self.scope is not None:
            limits.append(str(self.scope.get("limit", "")))
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
            "copies": self.copies,
            "scope": self.scope,
            "claims": [
                {"claim": claim.value, "verdict": verdict.value, "because": because}
                for claim, verdict, because in self.claims()
            ],
            "findings": [asdict(finding) | {"code": finding.code.value} for finding in self.findings],
            "findings_omitted": {code.value: count for code, count in self.omitted.items()},
            "not_proven": self.not_proven(),
            "notes": self.notes,
        }


def add_bounded(findings: list[Finding], omitted: dict[Code, int], finding: Finding) -> None:
    """Add a finding to a list that holds at most :data:`MAX_FINDINGS` of each code; the rest is counted."""
    if len(findings) >= MAX_FINDINGS and (
        finding.code in omitted or sum(other.code is finding.code for other in findings) >= MAX_FINDINGS
    ):
        omitted[finding.code] = omitted.get(finding.code, 0) + 1
    else:
        findings.append(finding)
