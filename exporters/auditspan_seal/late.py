# SPDX-License-Identifier: Apache-2.0
"""What signs and sends takes long to import: it is imported with the first record, in a thread of ours."""

from __future__ import annotations

from auditspan_seal import forks


def load() -> None:
    """Import what a process needs that signs and sends."""
    with forks.kept_out():
        import auditspan_seal.driver
        import auditspan_seal.keys.command
        import auditspan_seal.keys.file
        import auditspan_seal.keys.signer
        import auditspan_seal.standing  # noqa: F401
        from auditspan_seal import ship

        ship.load()
