# SPDX-License-Identifier: Apache-2.0
"""Which logs and witnesses count, and how many: the policy text of https://c2sp.org/tlog-policy.

::

    log example.com/log+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k
    witness w1 <vkey> https://w1.example/
    witness w2 <vkey> https://w2.example/
    witness w3 <vkey> https://w3.example/
    group most 2 w1 w2 w3
    quorum most

A checkpoint is valid if one of the logs signed it (any log, if none is listed) and the quorum of witnesses cosigned it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from auditspan_seal.errors import FormatError, MalformedNote, MalformedPolicy
from auditspan_seal.formats.cosignature import CosignerKey, cosigned
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey

NONE = "none"
"""The quorum that needs no witness."""

MAX_POLICY = 1_000_000  # bytes
MAX_EACH = 256
"""Logs, witnesses and groups, each; tlog-policy, "Implementation limits", wants 32 at least."""


@dataclass(frozen=True)
class Log:
    """A log that counts, with its address if the policy says one."""

    key: VerifierKey
    url: str | None


@dataclass(frozen=True)
class Witness:
    """A witness that may count; the name has a meaning only inside the policy. The address is its submission prefix."""

    name: str
    key: CosignerKey
    url: str | None


@dataclass(frozen=True)
class Group:
    """Members (witnesses and groups defined before it), of which `threshold` are needed."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """A parsed policy. Groups are in the order of their definition; `quorum` names a witness, a group or ``none``."""

    logs: tuple[Log, ...]
    witnesses: Mapping[str, Witness]
    groups: Mapping[str, Group]
    quorum: str

    @classmethod
    def parse(cls, text: bytes) -> Policy:
        """Read a policy file (tlog-policy, "Policy file syntax and structure").

        A last line without its LF is taken as well.

        Raises:
            MalformedPolicy: it is not one; the message names the line.
        """
        if len(text) > MAX_POLICY:
            raise MalformedPolicy(f"The policy is longer than {MAX_POLICY} bytes.")
        builder = _Builder()
        for number, line in enumerate(text.split(b"\n"), 1):
            try:
                if any(byte == 0x7F or (byte < 0x20 and byte != 0x09) for byte in line):
                    raise MalformedPolicy("There is a control character in it (lines must end in LF, not CR LF).")
                # Octets beyond ASCII are opaque: they are kept as they are and compared as they are.
                items = line.replace(b"\t", b" ").decode("utf-8", "surrogateescape").split(" ")
                builder.line([item for item in items if item])
            except FormatError as error:
                raise MalformedPolicy(f"Line {number} of the policy is malformed. {error.what}") from None
        return builder.policy()

    def reached(self, names: Collection[str]) -> bool:
        """Tell whether these witnesses are a quorum."""
        if self.quorum == NONE:
            return True
        found = set(names) & set(self.witnesses)
        for group in self.groups.values():
            if sum(member in found for member in group.members) >= group.threshold:
                found.add(group.name)
        return self.quorum in found

    def cosigners(self, note: Note) -> dict[str, int]:
        """Return which of the witnesses cosigned a note, by name, and when (seconds since the epoch).

        A cosignature that does not verify counts for nothing, and does not spoil those of others: a witness that lies
        must not be able to make a quorum of honest ones worthless.
        """
        found = {}
        for witness in self.witnesses.values():
            try:
                time = cosigned(note, witness.key)
            except MalformedNote:
                continue
            if time is not None:
                found[witness.name] = time
        return found

    def satisfied(self, note: Note) -> tuple[str, ...] | None:
        """Tell which witnesses cosigned a checkpoint.

        Returns:
            Their names, in the order of the policy; None: this policy does not take the checkpoint, because no quorum
            cosigned it or none of the listed logs signed it.

        Raises:
            MalformedNote: the text of the note is not a checkpoint.
        """
        origin = Checkpoint.parse(note.text).origin
        keys = [log.key for log in self.logs if log.key.name == origin]
        signed = [note.signed_by(key) for key in keys]
        if self.logs and (False in signed or True not in signed):
            return None
        names = tuple(self.cosigners(note))
        return names if self.reached(names) else None


class _Builder:
    """Takes the lines of a policy in their order."""

    def __init__(self) -> None:
        self._logs: list[Log] = []
        self._witnesses: dict[str, Witness] = {}
        self._groups: dict[str, Group] = {}
        self._members: set[str] = set()
        self._quorum: str | None = None

    def line(self, items: list[str]) -> None:
        if not items or items[0].startswith("#"):
            return
        kind, *rest = items
        if kind == "log" and len(rest) in (1, 2):
            self._log(rest[0], rest[1] if len(rest) == 2 else None)
        elif kind == "witness" and len(rest) in (2, 3):
            self._witness(rest[0], rest[1], rest[2] if len(rest) == 3 else None)
        elif kind == "group" and len(rest) >= 3:
            self._group(rest[0], rest[1], tuple(rest[2:]))
        elif kind == "quorum" and len(rest) == 1:
            self._set_quorum(rest[0])
        else:
            raise MalformedPolicy(
                "A line must read 'log <vkey> [<url>]', 'witness <name> <vkey> [<url>]', "
                "'group <name> all|any|<number> <name>...' or 'quorum <name>'."
            )

    def policy(self) -> Policy:
        if self._quorum is None:
            raise MalformedPolicy("The policy has no quorum line ('quorum none' would need no witness).")
        keys = {log.key.public for log in self._logs}
        for witness in self._witnesses.values():
            if witness.key.public in keys:
                raise MalformedPolicy(
                    f"The witness {_shown(witness.name)} has the key of a log: it would be no second place."
                )
        return Policy(tuple(self._logs), self._witnesses, self._groups, self._quorum)

    def _log(self, vkey: str, url: str | None) -> None:
        _limit(self._logs, "logs")
        _check_text(vkey)
        key = VerifierKey.parse(vkey)
        if any(log.key.public == key.public for log in self._logs):
            raise MalformedPolicy("The key of this log is there already.")
        self._logs.append(Log(key, url))

    def _witness(self, name: str, vkey: str, url: str | None) -> None:
        _limit(self._witnesses, "witnesses")
        self._check_new(name)
        _check_text(vkey)
        key = CosignerKey.parse(vkey)
        if any(witness.key.public == key.public for witness in self._witnesses.values()):
            raise MalformedPolicy("The key of this witness is there already.")
        self._witnesses[name] = Witness(name, key, url)

    def _group(self, name: str, threshold: str, members: tuple[str, ...]) -> None:
        _limit(self._groups, "groups")
        self._check_new(name)
        for member in members:
            if member not in self._witnesses and member not in self._groups:
                raise MalformedPolicy(f"{_shown(member)} is not defined before it is used.")
            if member in self._members:
                raise MalformedPolicy(f"{_shown(member)} is a member of a group already; it may count once.")
            self._members.add(member)
        needed = {"all": len(members), "any": 1}.get(threshold) or _number(threshold)
        if not 1 <= needed <= len(members):
            raise MalformedPolicy(f"The group has {len(members)} members, of which {needed} cannot be needed.")
        self._groups[name] = Group(name, needed, members)

    def _set_quorum(self, name: str) -> None:
        if self._quorum is not None:
            raise MalformedPolicy("There is a quorum line already.")
        if name != NONE and name not in self._witnesses and name not in self._groups:
            raise MalformedPolicy(f"{_shown(name)} is not defined before it is used.")
        self._quorum = name

    def _check_new(self, name: str) -> None:
        if name == NONE or name in self._witnesses or name in self._groups:
            raise MalformedPolicy(f"The name {_shown(name)} is taken.")


def _limit(items: Collection[object], what: str) -> None:
    if len(items) >= MAX_EACH:
        raise MalformedPolicy(f"There are more than {MAX_EACH} {what}.")


def _check_text(vkey: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in vkey):
        raise MalformedPolicy("The key is not text in UTF-8.")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or text[0] == "0" or len(text) > 9:
        raise MalformedPolicy(f"{_shown(text)} is neither 'all' nor 'any' nor a number.")
    return int(text)


def _shown(name: str) -> str:
    """Return a name for a message; octets that are no text are shown as escapes."""
    return repr(name[:64].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
