# SPDX-License-Identifier: Apache-2.0
"""Which witnesses must have cosigned a checkpoint."""

from __future__ import annotations


class Policy:
    """Which witnesses must have cosigned a checkpoint."""

    @classmethod
    def parse(cls, text: bytes) -> Policy:
        """Read a policy."""
        return cls()
