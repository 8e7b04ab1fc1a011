# SPDX-License-Identifier: Apache-2.0
"""The one error of this package."""

from __future__ import annotations

from auditspan_seal.errors import AuditspanError


class DevStackError(AuditspanError):
    """A part of the stack could not be had, started or stopped.

    Args:
        happened: what was seen.
        meaning: what follows from it.
        advice: what to do.
    """

    def __init__(self, happened: str, meaning: str, advice: str) -> None:
        super().__init__(f"{happened} {meaning}", advice)
