# SPDX-License-Identifier: Apache-2.0
"""What signs and sends takes long to import: it is imported with the first record, in a thread of ours.

A child that is forked while a thread imports a module can never import that module: it would wait for a thread that it
does not have. So a fork first waits until these imports are done.
"""

from __future__ import annotations

import contextlib
import os

_begun = _done = False


def load() -> None:
    """Import what a process needs that signs and sends. To be called from one thread."""
    global _begun, _done
    _begun = True
    import auditspan_seal.driver
    import auditspan_seal.keys.command
    import auditspan_seal.keys.file
    import auditspan_seal.keys.signer
    import auditspan_seal.standing  # noqa: F401
    from auditspan_seal import ship

    ship.load()
    _done = True


def _finish() -> None:
    if _begun and not _done:
        with contextlib.suppress(Exception):  # the thread says what is wrong
            load()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_finish)
