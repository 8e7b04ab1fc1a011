# SPDX-License-Identifier: Apache-2.0
"""auditspan: signed, tamper-evident audit spans for automations, with no code change."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
