# SPDX-License-Identifier: Apache-2.0
"""auditspan: signed, tamper-evident audit spans for automations.

Most programs need none of this: ``opentelemetry-instrument`` does it without a code change. What only the program
knows it can say with :func:`action`; without ``opentelemetry-instrument`` it can start auditing with :func:`install`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditspan.api import Action, action
    from auditspan.boot import install

__version__ = "0.1.0"
__all__ = ["Action", "__version__", "action", "install"]


def __getattr__(name: str) -> Any:
    # Imported when first used: importing a part of the package must stay cheap for the audited process.
    if name in ("Action", "action"):
        from auditspan import api

        return getattr(api, name)
    if name == "install":
        from auditspan.boot import install

        return install
    raise AttributeError(f"module 'auditspan' has no attribute {name!r}")
