# SPDX-License-Identifier: Apache-2.0
"""The verifier: takes checkpoints and entries from any source, in any order, and says what is wrong with them."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.verify.items import CheckpointItem, EntryItem
from auditspan_seal.verify.personal import Erased, check, erasures
from auditspan_seal.verify.report import Code, Finding, Report
from auditspan_seal.verify.visible import mismatches


class Verifier:
    """Collects checkpoints and entries, then judges.

    Args:
        source: what is being read, for the report.
        keys: the keys to trust, each for the log of its name (a key without a name: for every log). None given: take
            the one that each log names in its genesis entry (trust on first use).
    """

    def __init__(self, source: str, *keys: VerifierKey) -> None:
        self.report = Report(source, "pinned" if keys else "first_use")
        self._keys = keys
        self._checkpoints: dict[str, list[CheckpointItem]] = defaultdict(list)
        self._entries: list[EntryItem] = []

    def add_checkpoint(self, item: CheckpointItem) -> None:
        """Add a checkpoint."""
        self._checkpoints[item.origin].append(item)

    def add_entry(self, item: EntryItem) -> None:
        """Add an entry."""
        self._entries.append(item)

    def finish(self) -> Report:
        """Judge everything that was added."""
        if not self._entries and not self._checkpoints:
            self._find(Code.NOTHING_FOUND, "There is nothing to verify: no audit record and no checkpoint was found.")
            return self.report
        claims: dict[str, dict[int, bytes]] = defaultdict(dict)
        for item in self._entries:
            if item.origin is not None and item.index is not None and item.statement is not None:
                claims[item.origin].setdefault(item.index, leaf_hash(item.statement))
        logs = {origin: _Log(origin, items, claims[origin], self) for origin, items in self._checkpoints.items()}
        places = {leaf: (log, index) for log in logs.values() for leaf, index in log.leaves.items()}
        found: dict[tuple[str, int], EntryItem] = {}
        for item in self._entries:
            self._place(item, logs, places, found)
        for log in logs.values():
            log.judge({index: item for (origin, index), item in found.items() if origin == log.origin})
        for origin in {item.origin for item in self._entries if item.origin and item.origin not in logs}:
            self._find(
                Code.NO_CHECKPOINT, f"Records claim to be of the log {origin}, of which no checkpoint is there.", origin
            )
        for key in self._keys:
            if key.name and key.name not in logs:
                self._find(
                    Code.NO_CHECKPOINT,
                    f"A key for the log {key.name} was given, of which no checkpoint is there.",
                    key.name,
                )
        self.report.findings.sort(key=lambda f: (f.origin or "", f.index if f.index is not None else -1, f.code.value))
        return self.report

    def _place(
        self,
        item: EntryItem,
        logs: Mapping[str, _Log],
        places: Mapping[bytes, tuple[_Log, int]],
        found: dict[tuple[str, int], EntryItem],
    ) -> None:
        """Find the entry's place by its leaf hash: what a document says about its own place proves nothing."""
        if item.statement is None:
            self._find(
                Code.FOREIGN_DOCUMENT,
                "A document without a statement is among the sealed ones: it was put there, or its statement was "
                "removed. It is not evidence.",
                item.origin, item.index, item.span_id, item.document_id, "attributes.audit.statement",
            )  # fmt: skip
            return
        place = places.get(leaf_hash(item.statement))
        if place is None:
            log = logs.get(item.origin or "")
            if log is not None and item.index is not None and item.index >= log.size:
                self._find(
                    Code.ENTRY_UNCOVERED,
                    f"The record at index {item.index} is not covered by a checkpoint yet ({log.size} entries are).",
                    item.origin, item.index, item.span_id, item.document_id,
                )  # fmt: skip
            elif log is not None and item.index is not None and log.cannot_prove(item.index):
                pass  # said once for the whole range
            elif log is not None or item.origin is None:
                if log is not None and item.index is not None:
                    log.altered.add(item.index)
                self._find(
                    Code.STATEMENT_ALTERED,
                    "The statement is not the one that was signed for this index: it was altered or forged.",
                    item.origin, item.index, item.span_id, item.document_id,
                    "attributes.audit.statement" if item.document is not None else None,
                )  # fmt: skip
            return
        log, index = place
        other = found.get((log.origin, index))
        if other is not None:
            # The same ID in another backing index is an honest second delivery after a rollover.
            if other.document_id != item.document_id or other.container == item.container:
                self._find(
                    Code.DUPLICATE_DOCUMENT,
                    f"The record at index {index} is there twice; the other document is {other.document_id}.",
                    log.origin, index, item.span_id, item.document_id,
                )  # fmt: skip
            return
        found[log.origin, index] = item

    def key_for(self, origin: str) -> VerifierKey | None:
        """Return the key to trust for a log, among those that were given."""
        by_name = {key.name: key for key in self._keys}
        key = by_name.get(origin) or by_name.get("")
        return VerifierKey(origin, key.public) if key is not None else None

    def _find(
        self,
        code: Code,
        message: str,
        origin: str | None = None,
        index: int | None = None,
        span_id: str | None = None,
        document_id: str | None = None,
        field: str | None = None,
    ) -> None:
        self.report.findings.append(Finding(code, message, origin, index, span_id, document_id, field))


class _Log:
    """One log: its checkpoints chained into one tree, then its entries held against it."""

    def __init__(
        self, origin: str, items: list[CheckpointItem], claims: Mapping[int, bytes], verifier: Verifier
    ) -> None:
        self.origin = origin
        self._claims = claims  # index -> leaf hash, as the documents say; good only where it leads to a signed root
        self.leaves: dict[bytes, int] = {}
        self.altered: set[int] = set()
        """Indexes that a document with an altered statement claims: what was signed there is not simply missing."""
        self._verifier = verifier
        self._notes: list[tuple[Note, CheckpointItem]] = []
        self._roots: dict[int, bytes] = {0: Frontier().root()}
        self._tree = Frontier()
        self._erased: Erased = {}
        self._origins = {origin}
        self._unproven: list[tuple[int, int]] = []
        readable = [item for item in items if item.batch is not None]
        for item in items:
            if item.batch is None:
                self._find(Code.CHECKPOINT_INVALID, f"A checkpoint cannot be read: {item.problem}", item)
        for item in sorted(readable, key=lambda i: (i.batch.first, i.batch.size)):  # type: ignore[union-attr]
            try:
                self._chain(item)
            except FormatError as error:
                self._find(Code.CHECKPOINT_INVALID, f"A checkpoint cannot be used: {error.what}", item)

    @property
    def size(self) -> int:
        """Tree size of the last good checkpoint."""
        return self._tree.size

    def cannot_prove(self, index: int) -> bool:
        """Tell whether the checkpoint for an index is missing and nothing else proves what was there."""
        return any(begin <= index < end for begin, end in self._unproven)

    def judge(self, entries: Mapping[int, EntryItem]) -> None:
        """Hold the entries that were found against the tree."""
        report = self._verifier.report
        self._check_signatures(entries.get(0))
        if self._tree.size == 0 and not self._notes:
            self._verifier._find(Code.NO_CHECKPOINT, "No checkpoint of this log could be used.", self.origin)
        missing = [index for index in self.leaves.values() if index not in entries]
        for index in sorted(set(missing) - self.altered):
            self._verifier._find(
                Code.ENTRY_MISSING,
                f"The record at index {index} is signed for but not there: its document was deleted.",
                self.origin,
                index,
            )
        streams: dict[str, set[int]] = defaultdict(set)
        self._erased = erasures(_decoded(entries))
        for index, item in sorted(entries.items()):
            self._judge_entry(index, item, streams)
        if not missing and not self._unproven:  # else the numbers of what is missing would be missing too
            for stream, numbers in streams.items():
                for number in sorted(set(range(1, max(numbers) + 1)) - numbers)[:100]:
                    self._verifier._find(
                        Code.RECORD_MISSING,
                        f"Record number {number} of the process stream {stream} was never put into the log.",
                        self.origin,
                    )
        report.logs[self.origin] = self._tree.size

    def _judge_entry(self, index: int, item: EntryItem, streams: dict[str, set[int]]) -> None:
        assert item.statement is not None
        try:
            fields = statements.decode(item.statement)
            if fields["type"] == "span":
                self._verifier.report.records += 1
                streams[str(fields["segment"])].add(int(fields["number"]))
                self._judge_personal(index, fields, item)
            elif fields["type"] == "erasure":
                streams[str(fields["segment"])].add(int(fields["number"]))
            elif fields["type"] == "gap":
                if fields.get("number"):
                    streams[str(fields["segment"])].add(int(fields["number"]))
                self._entry_finding(Code.GAP_ENTRY, f"Something was lost here: {fields.get('reason')}", index, item)
            if index == 0 and isinstance(predecessor := fields.get("predecessor"), dict):
                # A process that began with the log that this one replaces may still have recorded under its name.
                self._origins.add(str(predecessor.get("origin")))
            if fields.get("origin") not in self._origins:
                self._entry_finding(
                    Code.STATEMENT_ALTERED, f"The statement is of another log, {fields.get('origin')}.", index, item
                )
            if item.document is not None:
                self._verifier.report.compared = True
                for name, expected, seen in mismatches(fields, self.origin, index, item.document):
                    self._entry_finding(
                        Code.FIELD_MISMATCH,
                        f"The document says {_short(seen)} where the signed statement says {_short(expected)}.",
                        index,
                        item,
                        name,
                    )
        except (FormatError, KeyError, TypeError, ValueError) as error:
            self._entry_finding(
                Code.STATEMENT_ALTERED,
                f"The entry is signed but not a statement ({type(error).__name__}).",
                index,
                item,
            )

    def _judge_personal(self, index: int, fields: dict[str, Any], item: EntryItem) -> None:
        report = self._verifier.report
        bad = set()
        for code, name, message in check(index, fields, item, self._erased):
            bad.add(name)
            self._entry_finding(code, message, index, item, f"attributes.{name}")
        gone = {name: at for (where, name), at in self._erased.items() if where == index and name not in bad}
        report.erased += len(gone)
        if gone:
            report.erasures[self.origin] = sorted({*report.erasures.get(self.origin, []), *gone.values()})

    def _chain(self, item: CheckpointItem) -> None:
        batch = item.batch
        assert batch is not None
        note = Note.parse(batch.note)
        checkpoint = batch.checkpoint()
        tree = batch.tree()
        if checkpoint.origin != self.origin:
            self._find(Code.CHECKPOINT_INVALID, f"A checkpoint is of another log, {checkpoint.origin}.", item)
            return
        if checkpoint.size != batch.size or checkpoint.root != tree.root():
            self._find(
                Code.CHECKPOINT_INVALID,
                f"The hashes beside the checkpoint of size {checkpoint.size} do not lead to the root that is signed.",
                item,
            )
            return
        if batch.first < self._tree.size:
            if self._roots.get(checkpoint.size) != checkpoint.root:
                self._find(
                    Code.CHECKPOINT_CONFLICT,
                    f"Two checkpoints contradict each other at size {checkpoint.size}: this log has two histories.",
                    item,
                )
            return
        if batch.first > self._tree.size:
            self._bridge(batch, item)
        elif tuple(batch.frontier) != self._tree.hashes:
            self._find(
                Code.CHECKPOINT_CONFLICT,
                f"The checkpoint of size {checkpoint.size} does not continue the history before index {batch.first}.",
                item,
            )
            return
        for offset, leaf in enumerate(batch.leaves):
            self.leaves[leaf] = batch.first + offset
        self._tree = tree
        self._roots[tree.size] = checkpoint.root
        self._notes.append((note, item))

    def _bridge(self, batch: Batch, item: CheckpointItem) -> None:
        """Get over a missing checkpoint: the next one's frontier proves the entries, if they are all there."""
        begin, end = self._tree.size, batch.first
        tree = self._tree.copy()
        # No longer than what was found: the range comes from a document and may be a lie.
        leaves = [self._claims.get(index) for index in range(begin, min(end, begin + len(self._claims) + 1))]
        for leaf in leaves:
            tree.append(leaf or b"")
        proven = tree.size == end and None not in leaves and tree.hashes == batch.frontier
        if proven:
            self.leaves |= {leaf: begin + offset for offset, leaf in enumerate(leaves) if leaf is not None}
        else:
            self._unproven.append((begin, end))
        outcome = "its records are proven by the next one" if proven else "records in that range are not proven"
        if begin == 0 and not proven:
            self._find(
                Code.PREFIX_MISSING,
                f"The beginning of the log, the indexes 0 to {end - 1}, is not there (removed by retention, or "
                f"deleted); {outcome}.",
                item,
            )
        else:
            self._find(
                Code.CHECKPOINT_MISSING,
                f"The checkpoint for the indexes {begin} to {end - 1} is not there though a later one is: its document "
                f"was deleted; {outcome}.",
                item,
            )

    def _check_signatures(self, genesis: EntryItem | None) -> None:
        given = bool(self._verifier._keys)
        key = self._verifier.key_for(self.origin) if given else _genesis_key(genesis)
        if key is None:
            if self._notes:
                self._verifier._find(
                    Code.NO_KEY,
                    f"None of the keys that were given is for the log {self.origin}: give its log.vkey with --key, or "
                    "leave the log out with --origin."
                    if given
                    else "No key was given, and the entry that names the key (index 0) is not there.",
                    self.origin,
                )
            return
        wrong = 0
        for note, item in self._notes:
            signed = note.signed_by(key)
            if signed is None:
                wrong += 1
            elif not signed:
                self._find(Code.CHECKPOINT_INVALID, "The signature of the checkpoint is not valid.", item)
            else:
                self._verifier.report.checkpoints += 1
        if wrong:
            ids = sorted({key_id.hex() for note, _ in self._notes for _, key_id, _ in note.signatures})
            self._verifier._find(
                Code.WRONG_KEY,
                f"{wrong} of {len(self._notes)} checkpoints are not signed with the trusted key {key.key_id.hex()} but "
                f"with {', '.join(ids)}. Either the wrong key was given, or the log was signed anew by somebody else.",
                self.origin,
            )

    def _entry_finding(self, code: Code, message: str, index: int, item: EntryItem, field: str | None = None) -> None:
        self._verifier._find(code, message, self.origin, index, item.span_id, item.document_id, field)

    def _find(self, code: Code, message: str, item: CheckpointItem) -> None:
        index = item.batch.first if item.batch is not None else None
        self._verifier._find(code, message, self.origin, index, None, item.document_id)


def _decoded(entries: Mapping[int, EntryItem]) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, item in entries.items():
        if item.statement is not None and b'"type":"erasure"' in item.statement:
            with contextlib.suppress(FormatError):
                yield index, statements.decode(item.statement)


def _genesis_key(genesis: EntryItem | None) -> VerifierKey | None:
    if genesis is None or genesis.statement is None:
        return None
    try:
        fields = statements.decode(genesis.statement)
        return VerifierKey.parse(str(fields.get("key"))) if fields["type"] == "genesis" else None
    except FormatError:
        return None


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or more digits than Python converts
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:77]}…"
