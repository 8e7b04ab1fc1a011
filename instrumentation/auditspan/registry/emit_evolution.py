# SPDX-License-Identifier: Apache-2.0
"""Writes the page about how the registry may change: the rules of the comparison, for people."""

from __future__ import annotations

from typing import Final

from auditspan.registry import markdown
from auditspan.registry.compare_rules import RULES
from auditspan.registry.model import Registry

PAGE: Final = "docs/schema-evolution.md"


def files(registry: Registry) -> dict[str, str]:
    """Return the page: path from the root of the repository → content."""
    return {PAGE: _page()}


def _page() -> str:
    breaking = [(name, rule) for name, rule in RULES.items() if rule.breaking]
    rows = [
        [f"`{name}`" + (" **!**" if rule.always else ""), rule.what, rule.why, rule.instead] for name, rule in breaking
    ]
    harmless = [[f"`{name}`", rule.what, rule.why] for name, rule in RULES.items() if not rule.breaking]
    return f"""<!-- Generated from registry/compare_rules.py by `python -m auditspan.registry`. Do not edit. -->
# How the schema changes

Audit records are kept for years. A search, an alert or a report that was right yesterday must not miss records of
today without anybody noticing. So the registry ([records](reference/records.md)) may grow, but what was released
stays as it is.

- Each released version is kept as `instrumentation/auditspan/registry/released/<version>.yaml` and never edited
  again. A record names the version it follows in `audit.schema.version`.
- `auditspan schema check` compares the registry with the last released one. CI runs it. A breaking change is refused
  unless the **major version** is raised; the rules marked **!** are refused even then, because they can always be
  mended.
- `auditspan schema diff 0.2.0 0.3.0` says what changed between any two.
- Before 1.0.0 the same holds: a breaking change of 0.2.0 makes 1.0.0.

To change something: edit `registry.yaml`, raise its version, run `python -m auditspan.registry`, then `auditspan
schema check`. On a release the registry is copied to `released/`.

## Who is protected

| who | relies on |
|---|---|
| programs that record | names in Python, arguments of builders, values that may be said, what they need not say |
| whoever reads: searches, alerts, reports | names, types, units, values, and that what is required is there |
| people in the records | the privacy class under which a value was collected |

Readers are asked two things in return: ignore attributes and event types that you do not know, and treat an unknown
value of an enumeration as `unknown`.

## What breaks somebody

{markdown.table(["rule", "what", "why", "instead"], rows)}

## What breaks nobody

{markdown.table(["rule", "what", "why"], harmless)}
"""
