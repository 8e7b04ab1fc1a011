# SPDX-License-Identifier: Apache-2.0
"""The one error of this package."""

from __future__ import annotations


class DevStackError(Exception):
    """A part of the stack could not be had, started or stopped.

    Attributes:
        happened: what was seen.
        meaning: what follows from it.
        advice: what to do.
    """

    def __init__(self, happened: str, meaning: str, advice: str) -> None:
        """Store the three sentences; ``str()`` of the error is all of them."""
        super().__init__(f"{happened}\n  {meaning}\n  {advice}")
        self.happened = happened
        self.meaning = meaning
        self.advice = advice
