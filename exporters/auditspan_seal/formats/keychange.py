# SPDX-License-Identifier: Apache-2.0
"""Changes of a log's key, as entries of the log: a rotation is certified by both keys, a revocation by the current one.

What is certified is a text of its own, never the entry: the signature must be in the entry. Its first line says what
it is for, and its third line is a decimal number, where a checkpoint has the base64 of a root hash: no certificate
can be taken for the signature of a checkpoint, nor the other way round.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditspan_seal.errors import MalformedKeyChange, MalformedNote
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.entry import own_attributes
from auditspan_seal.formats.note import VerifierKey

ROTATION = "rotation"
REVOCATION = "revocation"
MAX_REASON = 1000  # characters
_ROTATION_TEXT = "auditspan/key-rotation/v1"
_REVOCATION_TEXT = "auditspan/key-revocation/v1"
_SIGNATURE_SIZE = 64  # bytes, RFC 8032 §5.1.6
_MAX_VKEY = 10_000  # characters


def rotation_text(origin: str, index: int, old: VerifierKey, new: VerifierKey, not_after: int | None) -> bytes:
    """Return what both keys sign for a rotation.

    Args:
        origin: name of the log.
        index: of the rotation entry.
        old: the key until then.
        new: the key from then on.
        not_after: nanoseconds since the epoch from which the new key must not sign any more; None: no such time.
    """
    return _lines(_ROTATION_TEXT, origin, index, old, new, "-" if not_after is None else not_after)


def revocation_text(origin: str, index: int, key: VerifierKey, since: int, reason: str) -> bytes:
    """Return what the current key signs for a revocation.

    Args:
        origin: name of the log.
        index: number of entries in the log when it was certified.
        key: the key that is revoked.
        since: nanoseconds since the epoch; what was signed then or later is not to be trusted.
        reason: why; it is bound by its hash, so that it cannot add lines.
    """
    return _lines(_REVOCATION_TEXT, origin, index, key, since, hashlib.sha256(reason.encode()).hexdigest())


def _lines(*lines: object) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


@dataclass(frozen=True)
class Rotation:
    """A change from one key to the next.

    Attributes:
        origin: name of the log, also that of both keys.
        index: of the entry.
        old: the key until then.
        new: the key from then on.
        certificates: signatures over :func:`rotation_text` by the old and by the new key, 64 bytes each.
        time: when, in nanoseconds since the epoch.
        not_after: nanoseconds since the epoch from which the new key must not sign any more; None: no such time.
        reason: why, for people; empty: not said.
    """

    origin: str
    index: int
    old: VerifierKey
    new: VerifierKey
    certificates: tuple[bytes, bytes]
    time: int
    not_after: int | None = None
    reason: str = ""

    def text(self) -> bytes:
        """Return what both keys sign."""
        return rotation_text(self.origin, self.index, self.old, self.new, self.not_after)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Rotation:
        """Read the fields of a rotation entry, and check both certificates.

        Raises:
            MalformedKeyChange: it is not one, or not certified by both keys.
        """
        origin = _head(fields, ROTATION)
        certificates = fields.get("certificates")
        if not isinstance(certificates, Mapping):
            raise MalformedKeyChange("The rotation has no certificates.")
        rotation = cls(
            origin,
            _index(fields, 1),
            key_of(fields, "old", origin),
            key_of(fields, "new", origin),
            (_signature(certificates, "old"), _signature(certificates, "new")),
            moment_of(fields, "time"),
            moment_of(fields, "not_after") if "not_after" in fields else None,
            _reason(fields, required=False),
        )
        if rotation.old.public == rotation.new.public:
            raise MalformedKeyChange("The rotation replaces a key by itself.")
        for which, key, signature in zip(
            ("old", "new"), (rotation.old, rotation.new), rotation.certificates, strict=True
        ):
            if not key.verifies(rotation.text(), signature):
                raise MalformedKeyChange(
                    f"The rotation is not certified by the {which} key {key.key_id.hex()}: its signature is not valid."
                )
        return rotation


@dataclass(frozen=True)
class Revocation:
    """A key that is not to be trusted any more.

    Attributes:
        origin: name of the log.
        index: number of entries in the log when it was certified. The entry is put there, or later.
        key: the key that is revoked.
        since: nanoseconds since the epoch; what was signed then or later is not to be trusted.
        reason: why, for people.
        certificate: signature over :func:`revocation_text` by the key that was current at `index`, 64 bytes.
        time: when it was revoked, in nanoseconds since the epoch.
    """

    origin: str
    index: int
    key: VerifierKey
    since: int
    reason: str
    certificate: bytes
    time: int

    def text(self) -> bytes:
        """Return what the current key signs."""
        return revocation_text(self.origin, self.index, self.key, self.since, self.reason)

    def certified_by(self, key: VerifierKey) -> bool:
        """Tell whether the certificate is by this key."""
        return key.verifies(self.text(), self.certificate)

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Revocation:
        """Read the fields of a revocation entry. Who had to certify it depends on the log: see :meth:`certified_by`.

        Raises:
            MalformedKeyChange: it is not one.
        """
        origin = _head(fields, REVOCATION)
        return cls(
            origin,
            _index(fields, 1),
            key_of(fields, "key", origin),
            moment_of(fields, "since"),
            _reason(fields, required=True),
            _signature(fields, "certificate"),
            moment_of(fields, "time"),
        )


def rotation_entry(rotation: Rotation, actor: str = "") -> bytes:
    """Return the statement of a rotation.

    Args:
        rotation: the change, with its certificates.
        actor: the account that asked for it; empty: not known.
    """
    old, new = rotation.old.key_id.hex(), rotation.new.key_id.hex()
    said = own_attributes(
        "log.key.change", "ROTATE", rotation.origin, f"changed signing key {old}, replaced by {new}"
    ) | {
        "audit.key.id": old,
        "audit.key.successor.id": new,
    }
    fields = {
        "old": str(rotation.old),
        "new": str(rotation.new),
        "certificates": dict(zip(("old", "new"), map(_base64, rotation.certificates), strict=True)),
    }
    if rotation.not_after is not None:
        fields["not_after"] = str(rotation.not_after)
    if rotation.reason:
        fields["reason"] = rotation.reason
    return _entry(ROTATION, rotation, fields, said, actor)


def revocation_entry(revocation: Revocation, actor: str = "") -> bytes:
    """Return the statement of a revocation; the same bytes are the revocation file that an auditor keeps.

    Args:
        revocation: the revocation, with its certificate.
        actor: the account that asked for it; empty: not known.
    """
    key = revocation.key.key_id.hex()
    said = own_attributes("log.key.change", "REVOKE", revocation.origin, f"changed signing key {key}") | {
        "audit.key.id": key
    }
    fields = {
        "key": str(revocation.key),
        "since": str(revocation.since),
        "reason": revocation.reason,
        "certificate": _base64(revocation.certificate),
    }
    return _entry(REVOCATION, revocation, fields, said, actor)


def _entry(
    kind: str, change: Rotation | Revocation, fields: Mapping[str, Any], said: dict[str, Any], actor: str
) -> bytes:
    if change.reason:
        said["audit.rationale"] = change.reason
    if actor:
        said |= {"audit.actor.id": actor, "audit.actor.type": "user", "audit.actor.evidence": "os_user"}
    return statements.encode(
        {
            "v": statements.VERSION,
            "type": kind,
            "origin": change.origin,
            "index": change.index,
            "time": str(change.time),
            "attributes": statements.values(said),
            **fields,
        }
    )


# -- fields ----------------------------------------------------------------------------------------------------------
def key_of(fields: Mapping[str, Any], name: str, origin: str) -> VerifierKey:
    """Read a field with a verifier key of this log.

    Raises:
        MalformedKeyChange: it is none in its one spelling, or has another name.
    """
    text = _text(fields, name)
    try:
        key = VerifierKey.parse(text[:_MAX_VKEY])
    except MalformedNote as error:
        raise MalformedKeyChange(f"The field {name!r} is no verifier key. {error.what}") from None
    if str(key) != text:
        raise MalformedKeyChange(f"The verifier key in the field {name!r} is not in its one form.")
    if key.name != origin:
        raise MalformedKeyChange(f"The key in the field {name!r} is of another log, {key.name}.")
    return key


def moment_of(fields: Mapping[str, Any], name: str) -> int:
    """Read a field with a time: nanoseconds since the epoch as a decimal string.

    Raises:
        MalformedKeyChange: it is none.
    """
    text = _text(fields, name)
    if not (text.isascii() and text.isdecimal()) or (len(text) > 1 and text[0] == "0") or len(text) > 19:
        raise MalformedKeyChange(f"The field {name!r} is not a number of nanoseconds, as a decimal string.")
    if int(text) >= 2**63:
        raise MalformedKeyChange(f"The time in the field {name!r} is beyond 2^63 - 1 nanoseconds.")
    return int(text)


def _head(fields: Mapping[str, Any], kind: str) -> str:
    if fields.get("type") != kind:
        raise MalformedKeyChange(f"The entry is not a {kind}.")
    return _text(fields, "origin")


def _text(fields: Mapping[str, Any], name: str) -> str:
    text = fields.get(name)
    if not isinstance(text, str):
        raise MalformedKeyChange(f"The field {name!r} is not there, or not a text.")
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise MalformedKeyChange(f"The field {name!r} is not Unicode text: it has half of a surrogate pair.")
    return text


def _reason(fields: Mapping[str, Any], *, required: bool) -> str:
    reason = _text(fields, "reason") if required or "reason" in fields else ""
    if len(reason) > MAX_REASON:
        raise MalformedKeyChange(f"The reason is longer than {MAX_REASON} characters.")
    return reason


def _index(fields: Mapping[str, Any], least: int) -> int:
    index = fields.get("index")
    if type(index) is not int or not least <= index < 2**63:
        raise MalformedKeyChange("The index is not a number of an entry after the first one.")
    return index


def _signature(fields: Mapping[str, Any], name: str) -> bytes:
    text = _text(fields, name)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedKeyChange(f"The certificate {name!r} is not base64.") from None
    if len(raw) != _SIGNATURE_SIZE or _base64(raw) != text:
        raise MalformedKeyChange(f"The certificate {name!r} is not a signature of {_SIGNATURE_SIZE} bytes.")
    return raw


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
