# SPDX-License-Identifier: Apache-2.0
"""What a source hands to the verifier: checkpoints and entries, as they were found, nothing believed yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from auditspan_seal.errors import FormatError
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch


@dataclass(frozen=True)
class CheckpointItem:
    """A checkpoint as it was found.

    Attributes:
        origin: the log it claims to be of.
        batch: note and hashes; None if the document could not be read as one.
        document_id: where it was found.
        problem: why `batch` is None.
    """

    origin: str
    batch: Batch | None
    document_id: str | None = None
    problem: str = ""


@dataclass(slots=True)  # frozen costs a microsecond to make, and one is made for each document
class EntryItem:
    """An entry as it was found.

    Attributes:
        statement: its statement; None if the document has none.
        origin: the log it claims to be in.
        index: the index that it claims.
        document: the visible document; None where there is none (a log file).
        document_id: where it was found.
        container: the index or file that holds the document.
        openings: attribute → salt (base64) and value of the personal values that stand beside the statement; None
            where only one of the two is there.
    """

    statement: bytes | None
    origin: str | None = None
    index: int | None = None
    document: Mapping[str, Any] | None = None
    document_id: str | None = None
    container: str | None = None
    openings: Mapping[str, tuple[str | None, Any]] = field(default_factory=dict)

    @property
    def span_id(self) -> str | None:
        """The span ID that is visible, or else the one in the statement."""
        if self.document is not None:
            seen = self.document.get("span_id")
        elif self.statement is not None:
            try:
                seen = statements.decode(self.statement).get("span_id")
            except FormatError:
                return None
        else:
            return None
        return seen if isinstance(seen, str) else None


def openings_of(private: bytes) -> dict[str, tuple[str | None, Any]]:
    """Read the private part of a line; what is damaged opens nothing, and verification says so."""
    try:
        return dict(commitment.decode(private))
    except FormatError:
        return {"": (None, None)}
