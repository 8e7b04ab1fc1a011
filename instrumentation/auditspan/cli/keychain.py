# SPDX-License-Identifier: Apache-2.0
"""The keys of a log as its own entries tell them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.keychange import REVOCATION, ROTATION, Revocation, Rotation, key_of, moment_of
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.verify.trust import KeyRing

_MARKS = tuple(f'"type":"{kind}"'.encode() for kind in ("genesis", ROTATION, REVOCATION))


@dataclass(frozen=True)
class Link:
    """One key.

    Attributes:
        key: it.
        index: of the entry that it came with.
        time: that the entry states, in nanoseconds since the epoch.
        not_after: when it expires, likewise; None: never.
        reason: why it came; empty: not said.
        revoked_since: since when it is not to be trusted, likewise; None: it is.
    """

    key: VerifierKey
    index: int
    time: int
    not_after: int | None = None
    reason: str = ""
    revoked_since: int | None = None


@dataclass
class Chain:
    """All keys of a log, in order.

    Attributes:
        links: they.
        size: number of entries in the log.
        problems: key entries that do not count, and why.
    """

    links: list[Link] = field(default_factory=list)
    size: int = 0
    problems: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Directory) -> Chain:
        """Read those of a log directory.

        Raises:
            DirectoryError: the log cannot be read.
        """
        chain = cls()
        ring = KeyRing(directory.origin)
        for block in reader.batches(directory.log):
            for offset, statement in enumerate(block.statements[: len(block.batch.leaves)]):
                if any(mark in statement for mark in _MARKS) and leaf_hash(statement) == block.batch.leaves[offset]:
                    chain._take(block.batch.first + offset, statement, ring)
            chain.size = block.batch.size
        return chain

    def _take(self, index: int, statement: bytes, ring: KeyRing) -> None:
        try:
            fields = statements.decode(statement)
            problems = [message for _, message in ring.entry(index, fields)]
            self.problems += problems
            if problems:
                return
            if fields["type"] == "genesis":
                end = moment_of(fields, "not_after") if "not_after" in fields else None
                origin = str(fields.get("origin"))
                self.links.append(Link(key_of(fields, "key", origin), index, moment_of(fields, "time"), end))
            elif fields["type"] == ROTATION:
                rotation = Rotation.parse(fields)
                self.links.append(Link(rotation.new, index, rotation.time, rotation.not_after, rotation.reason))
            elif fields["type"] == REVOCATION:
                revocation = Revocation.parse(fields)
                self.links = [
                    replace(link, revoked_since=min(revocation.since, link.revoked_since or revocation.since))
                    if link.key == revocation.key
                    else link
                    for link in self.links
                ]
        except FormatError as error:
            self.problems.append(f"The entry at index {index} does not count: {error.what}")
