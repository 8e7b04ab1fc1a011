# SPDX-License-Identifier: Apache-2.0
"""The event model: names, enumerations, typed builders and rules of the audit record. Pure data, no I/O.

``names``, ``events`` and ``rules`` are generated from ``auditspan/registry/registry.yaml``, the one source; the
reference for people is ``docs/reference/records.md``.
"""

from __future__ import annotations

from auditspan.schema import names
from auditspan.schema.details import UNKNOWN, WITHHELD, Details
from auditspan.schema.names import *  # noqa: F403 (the generated names; `__all__` of that module says which)
from auditspan.schema.validation import bounded, has_form, is_personal, message_of, missing, violations

__all__ = [
    "UNKNOWN",
    "WITHHELD",
    "Details",
    "bounded",
    "has_form",
    "is_personal",
    "message_of",
    "missing",
    "names",
    "violations",
]
