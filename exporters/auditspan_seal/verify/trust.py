# SPDX-License-Identifier: Apache-2.0
"""Whether the keys that signed a log are those that somebody trusts.

A log's keys are a chain: the genesis entry names the first one, each rotation the next one, certified by both. A key
that is *pinned*, which came to the verifier by another way than the log, vouches for the whole chain, wherever it is
in it: the key before it has certified it, and it has certified the key after it.

A *revocation* takes that back for what a key signed from some time on. The log's own times are no help then: who has
the key can write any time. What remains is what something outside of that key has fixed before:

- a checkpoint in a second place, seen there before that time, covers everything up to its tree size;
- a later key that is itself trusted and took over before that time covers everything before it. Trusted it is if it is
  pinned, if a key after it is, or if it certified the revocation that the verifier was given.

An *expired* key is judged by the times that the log states: expiry is a promise to change keys, not a theft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from auditspan_seal.errors import FormatError, KeyFileError, MalformedKeyChange
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.keychange import REVOCATION, ROTATION, Revocation, Rotation, key_of, moment_of
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.verify.eras import Era, Seen, Signed, when
from auditspan_seal.verify.report import Code

__all__ = ["Covered", "KeyRing", "Revocation", "coverage", "read_revocation"]

Said = tuple[Code, str]
Covered = Callable[[int, int], bool]
"""Called with a tree size and a time in nanoseconds since the epoch: whether a trusted checkpoint of at least that
size was seen outside of the log before that time. It must be true for every smaller size, too, and every later time."""

_MAX_FILE = 1_000_000  # bytes of a revocation file
_MAX_REVOCATIONS = 10_000  # that are taken from one log
_SHOWN = 10  # key IDs in a message


def coverage(checkpoints: Iterable[tuple[int, int | None]]) -> Covered:
    """Return what trusted checkpoints cover.

    Args:
        checkpoints: tree size and time of each, in nanoseconds since the epoch, as the second place or the witness
            says. One without a time covers nothing here: whoever stole a key could have put it there afterwards.
    """
    known = [(size, time) for size, time in checkpoints if time is not None]
    return lambda size, before: any(size <= at and time < before for at, time in known)


def read_revocation(path: Path) -> Revocation:
    """Read a revocation file: the statement of a revocation entry.

    Raises:
        KeyFileError: it cannot be read, or is none.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_FILE)
        return Revocation.parse(statements.decode(content.rstrip(b"\n")))
    except OSError as error:
        raise KeyFileError(
            f"The revocation {path} cannot be read: {error.strerror}.", "Check the path given to --revoked."
        ) from None
    except FormatError as error:
        raise KeyFileError(
            f"{path} is no revocation. {error.what}", "Use the file that `auditspan keys revoke --out` wrote."
        ) from None


class KeyRing:
    """The keys of one log. Fed in the order of the log: the key entries of a batch, then its checkpoint.

    All methods do their work when they are called, whether or not what they return is looked at.

    Args:
        origin: name of the log.
        pinned: the keys to trust; those of other logs are left out, one without a name counts for every log. None
            given: trust on first use.
        revocations: what the verifier was given; those of other logs are left out. They count whoever certified
            them: a forged log lacks the key that did.
        covered: what is fixed outside of the log; nothing, if it is not given. See :data:`Covered`, :func:`coverage`.
    """

    def __init__(
        self,
        origin: str,
        pinned: Sequence[VerifierKey] = (),
        revocations: Sequence[Revocation] = (),
        covered: Covered = lambda size, before: False,
    ) -> None:
        self._origin = origin
        self._given = bool(pinned)
        self._pinned = {key.public for key in pinned if key.name in ("", origin)}
        self._covered = covered
        self._given_revocations = [revocation for revocation in revocations if revocation.origin == origin]
        self._own_revocations: list[Revocation] = []
        self._chain: list[Era] = []
        self._before: list[Seen] = []  # checkpoints from before the first key of the chain is known
        self._due = 0  # rotations at the end of the chain that no checkpoint covers yet
        self._good = 0
        self._wrong = Signed()
        self._strangers: set[str] = set()

    @property
    def trust(self) -> str:
        """What the keys rest on: ``pinned``, ``first_use``, or ``none`` if there is nothing that they could rest on."""
        if self._given:
            return "pinned" if self._vouching() else "none"
        return "first_use" if self._chain else "none"

    @property
    def verified(self) -> int:
        """How many checkpoints have the signatures that they must have; none as long as there is no trust at all."""
        return 0 if self.trust == "none" else self._good

    @property
    def chain(self) -> list[tuple[int | None, VerifierKey]]:
        """The keys in their order, each with the index of the entry that it came with (None: not seen)."""
        return [(era.begin, era.key) for era in self._chain]

    # -- entries -------------------------------------------------------------------------------------------------
    def entry(self, index: int, fields: Mapping[str, Any]) -> Iterator[Said]:
        """Take in a genesis, rotation or revocation entry that the tree proves; anything else is ignored.

        Args:
            index: of the entry.
            fields: its statement, decoded.
        """
        found: list[Said] = []
        try:
            if fields.get("type") == "genesis":
                self._genesis(index, fields)
            elif fields.get("type") == ROTATION:
                found += self._rotation(index, Rotation.parse(fields))
            elif fields.get("type") == REVOCATION:
                self._revocation(index, Revocation.parse(fields))
        except MalformedKeyChange as error:
            found.append(
                (Code.KEY_CHANGE_INVALID, f"The {fields['type']} at index {index} does not count: {error.what}")
            )
        return iter(found)

    def _genesis(self, index: int, fields: Mapping[str, Any]) -> None:
        if index != 0 or self._chain:
            raise MalformedKeyChange("A log begins once, at index 0.")
        key = key_of(fields, "key", self._origin)
        time = moment_of(fields, "time")
        self._start(Era(key, 0, time, moment_of(fields, "not_after") if "not_after" in fields else None))

    def _rotation(self, index: int, rotation: Rotation) -> list[Said]:
        self._is_own(rotation.origin)
        if rotation.index != index:
            raise MalformedKeyChange(f"It was made for the index {rotation.index}.")
        found: list[Said] = []
        if not self._chain:
            found += self._start(Era(rotation.old, None))
        now = self._chain[-1].key
        if rotation.old.public != now.public:
            raise MalformedKeyChange(
                f"It replaces the key {rotation.old.key_id.hex()}, but {now.key_id.hex()} is the current one."
            )
        if any(era.key.public == rotation.new.public for era in self._chain):
            raise MalformedKeyChange(
                f"It brings back the key {rotation.new.key_id.hex()}, which was replaced before and is not guarded."
            )
        self._chain.append(Era(rotation.new, index, rotation.time, rotation.not_after))
        self._due += 1
        return found

    def _revocation(self, index: int, revocation: Revocation) -> None:
        self._is_own(revocation.origin)
        if revocation.index > index:
            raise MalformedKeyChange(f"It was made for the index {revocation.index} or later.")
        known = [era for era in self._chain if era.begin is None or era.begin < revocation.index]
        if known and not revocation.certified_by(known[-1].key):
            raise MalformedKeyChange(f"It is not certified by the key that was current then, {known[-1]}.")
        if len(self._own_revocations) < _MAX_REVOCATIONS:
            self._own_revocations.append(revocation)

    def _is_own(self, origin: str) -> None:
        if origin != self._origin:
            raise MalformedKeyChange(f"It is of another log, {origin}.")

    # -- checkpoints ---------------------------------------------------------------------------------------------
    def checkpoint(self, note: Note, first: int, size: int, latest: int | None) -> Iterator[Said]:
        """Take in a checkpoint that continues the log, after the key entries of its batch.

        Args:
            note: the signed checkpoint.
            first: index of the first entry of its batch.
            size: its tree size.
            latest: the latest time that an entry of the batch states, in nanoseconds since the epoch.
        """
        seen = Seen(note, first, size, latest)
        if not self._chain:
            # The beginning of the log is not there. A pinned key that signed this is as good a beginning.
            keys = [VerifierKey(self._origin, public) for public in sorted(self._pinned)]
            key = next((key for key in keys if note.signed_by(key)), None)
            if key is None:
                self._before.append(seen)
                return iter(())
            return iter([*self._start(Era(key, None)), *self._check(seen)])
        return iter(self._check(seen))

    def _start(self, era: Era) -> list[Said]:
        """Begin the chain, and check what was waiting for that."""
        self._chain.append(era)
        waiting, self._before = self._before, []
        return [said for seen in waiting for said in self._check(seen)]

    def _check(self, seen: Seen) -> list[Said]:
        # The checkpoint that covers a rotation is signed by both keys. If that one is not there, the next one is not.
        size = len(self._chain)
        due = [p for p in range(size - self._due, size) if (self._chain[p].begin or 0) >= seen.first]
        eras = self._chain[due[0] - 1 if due else -1 :]
        self._due = 0
        signed = [seen.note.signed_by(era.key) for era in eras]
        if False in signed:
            bad = eras[signed.index(False)]
            return [
                (
                    Code.CHECKPOINT_INVALID,
                    f"The signature of the checkpoint of size {seen.size} by the key {bad} is not valid.",
                )
            ]
        if not any(signed):
            self._wrong.add(seen.size)
            if len(self._strangers) < _SHOWN:
                self._strangers |= {key_id.hex() for name, key_id, _ in seen.note.signatures if name == self._origin}
            return []
        if None in signed:
            absent = eras[signed.index(None)]
            return [
                (
                    Code.KEY_CHANGE_INVALID,
                    f"The checkpoint of size {seen.size} covers a change of the key and must be signed by the old and "
                    f"by the new key, but {absent} has not signed it.",
                )
            ]
        self._good += 1
        for era in eras:
            era.signed.add(seen.size)
            if era.not_after is not None and seen.latest is not None and seen.latest >= era.not_after:
                era.late.add(seen.size)
        return []

    # -- the end -------------------------------------------------------------------------------------------------
    def finish(self) -> Iterator[Said]:
        """Say what can only be said when all of the log was seen."""
        found = list(self._strange())
        if not self._given or self._pinned:
            revoked = self._revoked()
            anchors = self._anchors(revoked)
            for position, era in enumerate(self._chain):
                found += self._judge_revoked(position, revoked, anchors)
                found += self._judge_expired(era)
        return iter(found)

    def _vouching(self) -> list[int]:
        """Return the places in the chain of the keys that are pinned."""
        return [position for position, era in enumerate(self._chain) if era.key.public in self._pinned]

    def _revoked(self) -> dict[bytes, int]:
        """Return since when which public key is revoked."""
        revoked: dict[bytes, int] = {}
        for revocation in (*self._given_revocations, *self._own_revocations):
            public = revocation.key.public
            revoked[public] = min(revocation.since, revoked.get(public, revocation.since))
        return revoked

    def _anchors(self, revoked: Mapping[bytes, int]) -> set[int]:
        """Return the places in the chain of the keys that are trusted without the word of another one.

        On first use the log's own word is all there is, also about who revoked a key.
        """
        said = self._given_revocations if self._given else [*self._given_revocations, *self._own_revocations]
        return {
            position
            for position, era in enumerate(self._chain)
            if era.key.public not in revoked
            and (era.key.public in self._pinned or any(revocation.certified_by(era.key) for revocation in said))
        }

    def _strange(self) -> Iterator[Said]:
        anything = bool(self._chain or self._before)
        if self._given and not self._pinned and anything:
            yield (
                Code.NO_KEY,
                f"None of the keys that were given is for the log {self._origin}: give its log.vkey with --key, or "
                "leave the log out with --origin.",
            )
        elif self._given and anything and not self._vouching():
            trusted = ", ".join(sorted(VerifierKey(self._origin, public).key_id.hex() for public in self._pinned))
            early = {key_id.hex() for seen in self._before for _, key_id, _ in seen.note.signatures}
            signers = [*map(str, self._chain), *sorted(early)]
            whole = self._chain and self._chain[0].begin == 0
            yield (
                Code.WRONG_KEY,
                f"The log is not signed with a trusted key ({trusted}), nor with one that follows from it, but with "
                f"{', '.join(signers[:_SHOWN])}. Either the wrong key was given, or the log was signed anew by "
                "somebody else"
                + ("." if whole else ", or the trusted key was replaced in a part of the log that is not there."),
            )
        elif self._before:
            yield (
                Code.NO_KEY,
                "No key was given, and the entry that names the key (index 0) is not there: give log.vkey with --key.",
            )
        if self._wrong.count:
            replaced = sorted(str(era) for era in self._chain[:-1] if str(era) in self._strangers)
            yield (
                Code.WRONG_KEY,
                f"{self._wrong.count} checkpoints, of the tree sizes {self._wrong.first} to {self._wrong.last}, are "
                f"signed not with the key that was current there but with "
                f"{', '.join(sorted(self._strangers)) or 'none of this log'}"
                + (f" ({', '.join(replaced)} was replaced before)" if replaced else "")
                + ". They are by somebody else, or by somebody who kept an old key.",
            )

    def _judge_revoked(self, position: int, revoked: Mapping[bytes, int], anchors: set[int]) -> Iterator[Said]:
        era = self._chain[position]
        since = revoked.get(era.key.public)
        if since is None:
            return
        later = range(position + 1, len(self._chain))
        heir = next((p for p in later if self._chain[p].key.public not in revoked), None)
        if heir is not None and any(p >= heir for p in anchors) and self._chain[heir].time < since:
            return
        left = era.signed.uncovered(lambda size: self._covered(size, since))
        if left is not None:
            yield (
                Code.KEY_REVOKED,
                f"The key {era} is revoked since {when(since)}. Nothing outside of the log shows that its checkpoints "
                f"of the tree sizes {left[0]} to {left[1]} were made before: who stole the key can have made them. "
                "A second place (--checkpoints) that saw them before would.",
            )
        if not later or not self._vouching() or any(p in anchors for p in later):
            return
        follower = self._chain[position + 1]
        if follower.begin is not None and not self._covered(follower.begin + 1, since):
            yield (
                Code.KEY_REVOKED,
                f"The change from the revoked key {era} to {follower}, at index {follower.begin}, can have been made "
                f"by who stole {era}, and no later key is trusted by itself. Give the key that is used now with --key.",
            )

    def _judge_expired(self, era: Era) -> Iterator[Said]:
        if era.not_after is None:
            return
        end = era.not_after
        left = era.late.uncovered(lambda size: self._covered(size, end))
        if left is not None:
            yield (
                Code.KEY_EXPIRED,
                f"The key {era} expired at {when(end)}, and still signed checkpoints of the tree sizes {left[0]} to "
                f"{left[1]}, whose entries state later times. The key should have been changed before; who finds an "
                "old key must not be able to use it.",
            )
