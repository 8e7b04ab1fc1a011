# SPDX-License-Identifier: Apache-2.0
"""Makes logs with fixed keys, times and salts, so that the same bytes come out every time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK, Batch, Position
from auditspan_seal.formats.entry import own_attributes
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.keys import KeyFileSigner

ORIGIN = "vectors.example/auditspan/0123456789abcdef"
TIME = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z in ns
SEGMENT = "aaaaaaaaaaaaaaaa"


def signer(name: str, key_name: str = ORIGIN) -> KeyFileSigner:
    """Return the signer whose private key is the SHA-256 of a name. For test vectors only."""
    seed = hashlib.sha256(b"auditspan test vector key " + name.encode()).digest()
    return KeyFileSigner(Ed25519PrivateKey.from_private_bytes(seed), key_name)


def salt(number: int) -> bytes:
    """Return a salt that is none: everybody knows it."""
    return hashlib.sha256(b"auditspan test vector salt %d" % number).digest()[: commitment.SALT_SIZE]


def span(number: int, segment: str = SEGMENT, **more: Any) -> dict[str, Any]:
    """Return the fields of a span's statement.

    Args:
        number: running number in the segment.
        segment: name of the segment.
        more: fields that are something else.
    """
    return {
        "v": statements.VERSION,
        "type": "span",
        "origin": ORIGIN,
        "segment": segment,
        "number": number,
        "trace_id": f"{0xABC0 + number:032x}",
        "span_id": f"{0xDEF0 + number:016x}",
        "parent_span_id": "",
        "parent_is_remote": False,
        "trace_flags": 1,
        "trace_state": "",
        "name": f"record {number}",
        "kind": "INTERNAL",
        "start": str(TIME + number),
        "end": str(TIME + number + 5),
        "status": {"code": "UNSET", "message": ""},
        "attributes": {"audit.record.id": f"00000000-0000-4000-8000-{number:012x}", "audit.action": "UPDATE"},
        "events": [],
        "links": [],
        "dropped": {"attributes": 0, "events": 0, "links": 0},
        "resource": {"attributes": {"service.name": "vectors"}, "schema_url": ""},
        "scope": {"name": "vectors", "version": "1", "schema_url": "", "attributes": {}},
    } | more


class Builder:
    """A log in memory.

    Args:
        key: name of the key that signs it.
        origin: name of the log.
    """

    def __init__(self, key: str = "log", origin: str = ORIGIN) -> None:
        self.origin = origin
        self.signers = [signer(key, origin)]
        self.files: dict[str, list[bytes]] = {}
        self.statements: list[bytes] = []
        self.notes: list[str] = []
        self.tree = Frontier()
        self._vkey = str(self.signers[0].verifier_key)
        self._pending: list[bytes] = []
        self._segments: dict[str, Position] = {}
        self._salts = 0

    @property
    def size(self) -> int:
        """Entries so far, with those that no checkpoint covers yet."""
        return len(self.statements)

    def log_entry(self, kind: str, action: str, event_type: str, **fields: Any) -> None:
        """Append an entry that the log writes about itself."""
        self.raw(
            statements.encode(
                {
                    "v": statements.VERSION,
                    "type": kind,
                    "origin": self.origin,
                    "time": str(TIME + self.size),
                    "attributes": own_attributes(event_type, action, self.origin, f"{kind} of a test vector")
                    | {"audit.schema.version": "0.3.0"},  # a later one does not change the vectors
                }
                | fields
            )
        )

    def genesis(self, **fields: Any) -> None:
        """Append the entry that begins a log."""
        self.log_entry("genesis", "CREATE", "log.started", key=self._vkey, **fields)

    def record(self, fields: dict[str, Any], personal: Mapping[str, Any] | None = None) -> None:
        """Append a span, some of whose attributes are personal."""
        private: commitment.Private = {}
        fields = fields | {"attributes": dict(fields["attributes"])}
        for name, item in (personal or {}).items():
            self._salts += 1
            fields["attributes"][name] = {"commitment": commitment.commit(name, item, salt(self._salts))}
            private[name] = (statements.value(salt(self._salts))["bytes"], item)
        self.raw(statements.encode(fields), commitment.encode(private))

    def raw(self, statement: bytes, private: bytes = b"") -> None:
        """Append any bytes as an entry."""
        self.statements.append(statement)
        self._pending.append(statement + (PRIVATE_MARK + private if private else b""))

    def checkpoint(self) -> None:
        """Sign what was appended since the last checkpoint."""
        before, tree = self.tree, self.tree.copy()
        leaves = tuple(leaf_hash(item.partition(PRIVATE_MARK)[0]) for item in self._pending)
        for leaf in leaves:
            tree.append(leaf)
        text = Checkpoint(self.origin, tree.size, tree.root()).text()
        keys = [(item.verifier_key, item.sign(text.encode())) for item in self.signers]
        note = str(Note(text, tuple((key.name, key.key_id, signature) for key, signature in keys)))
        batch = Batch(note, before.size, before.hashes, leaves, dict(self._segments))
        if not self.files:
            self.new_file()
        lines = self.files[max(self.files)]
        lines += [ENTRY + item + b"\n" for item in self._pending]
        lines.append(batch.line() + b"\n")
        self.notes.append(note)
        self.tree, self._pending = tree, []

    def new_file(self) -> None:
        """Go on in another log file."""
        self.files[f"{self.tree.size:020d}.log"] = []

    def write(self, folder: Path) -> None:
        """Write the log directory, as far as a verifier of log files needs it."""
        write(folder, self.origin, self._vkey, self.files)


def write(folder: Path, origin: str, vkey: str, files: Mapping[str, list[bytes]]) -> None:
    """Write a log directory of lines that end in LF."""
    (folder / "log").mkdir(parents=True)
    (folder / "origin").write_bytes(origin.encode() + b"\n")
    (folder / "log.vkey").write_bytes(vkey.encode() + b"\n")
    for name, lines in files.items():
        (folder / "log" / name).write_bytes(b"".join(lines))


VALUES: dict[str, Any] = {
    "null": None,
    "true": True,
    "false": False,
    "text": "a",
    "text.empty": "",
    "text.number": "1",
    "text.true": "true",
    "text.non.ascii": "Grüße, 世界, 🐍",
    "text.controls": "\x00\x01\b\t\n\f\r\x1f\x7f",
    "text.marks": "\"\\/<>&'",
    "text.line.separators": "\u2028\u2029\u0085\ufeff",
    "text.half.a.surrogate.pair": "a\ud800b",
    "integer": 1,
    "integer.zero": 0,
    "integer.negative": -1,
    "integer.largest.bare": 2**53,
    "integer.beyond": 2**53 + 1,
    "integer.beyond.negative": -(2**53) - 1,
    "integer.64.bits": 2**63 - 1,
    "integer.200.digits": 10**199,
    "double": 1.5,
    "double.whole": 1.0,
    "double.negative.zero": -0.0,
    "double.shortest": 0.1,
    "double.small": 0.00001,
    "double.smaller": 0.000001,
    "double.smallest": 5e-324,
    "double.16.digits": 9007199254740993.0,
    "double.nan": float("nan"),
    "double.infinity": float("inf"),
    "double.negative.infinity": float("-inf"),
    "bytes": b"\x00\x01\xff",
    "bytes.empty": b"",
    "list": [1, 1.0, "1", True, None],
    "list.empty": [],
    "map": {"b": 1, "a": {"int": "1"}, "ä": [2**60]},
    "map.empty": {},
    "z\u00e9": "sorted by code point",
    "z\U0001f40d": "after U+FFFD",
    "z\ufffd": "before U+1F40D, though UTF-16 would sort it after",
}
"""Attributes with a value of every kind. Doubles from 1e16 on are left out: see docs/formats.md, Numbers."""


def small_log() -> Builder:
    """Return a log that has everything: values of all kinds, personal ones, an erasure, a gap, two log files."""
    log = Builder()
    log.genesis()
    log.checkpoint()
    log.record(span(1), {"client.address": "203.0.113.7", "audit.actor.id": "alice"})
    log.record(
        span(
            2,
            attributes=statements.values(VALUES),
            events=[{"name": "event", "time": str(TIME), "attributes": statements.values({"n": 2**60})}],
            links=[{"trace_id": f"{7:032x}", "span_id": f"{8:016x}", "trace_state": "", "attributes": {"a": 1}}],
            status={"code": "ERROR", "message": "it failed"},
            parent_span_id=f"{9:016x}",
            trace_state="a=b",
            kind="CLIENT",
        )
    )
    log.record(span(3), {"client.address": "198.51.100.9"})
    log.checkpoint()
    log.new_file()
    log.record(span(4))
    log.log_entry(
        "erasure",
        "ERASE",
        "privacy.erasure",
        segment="bbbbbbbbbbbbbbbb",
        number=1,
        erased=[[1, "audit.actor.id"]],
        reason="request 4711",
    )
    log.checkpoint()
    log.record(span(5))
    log.record(span(6), {"session.id": ["a", 1, True, "世界"]})
    log.record(span(7))
    log.checkpoint()
    _erase(log, 1, "audit.actor.id")
    return log


def _erase(log: Builder, index: int, name: str) -> None:
    for lines in log.files.values():
        for number, line in enumerate(lines):
            statement, mark, private = line.removeprefix(ENTRY).rstrip(b"\n").partition(PRIVATE_MARK)
            if mark and statement == log.statements[index]:
                lines[number] = ENTRY + statement + mark + commitment.without(private, {name}) + b"\n"
