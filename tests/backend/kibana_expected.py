# SPDX-License-Identifier: Apache-2.0
"""What each panel must show of the incident, said by hand over its ledger: nothing here comes from our queries."""

from __future__ import annotations

import datetime as dt
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from auditspan.kibana.panels import Metric, Panel
from tests.backend.incident_data import Fact

Which = Callable[[Fact], bool]


def kind(*names: str) -> Which:
    return lambda fact: fact.get("audit.event.type") in names


def has(name: str) -> Which:
    return lambda fact: name in fact


def is_done(fact: Fact) -> bool:
    return fact.get("audit.event.type") != "workflow.execution.started"


def is_failure(fact: Fact) -> bool:
    return fact.get("audit.outcome") == "failure"


def is_check(fact: Fact) -> bool:
    return fact.get("audit.action") == "VERIFY"


def is_end(fact: Fact) -> bool:
    return fact.get("audit.action") == "EXECUTE"


def is_change(fact: Fact) -> bool:
    return str(fact.get("audit.event.type")).startswith(("template.", "package.", "component.")) or str(
        fact.get("audit.event.type")
    ).endswith(".change")


def failed_end(fact: Fact) -> bool:
    return is_end(fact) and is_failure(fact)


def is_claim(fact: Fact) -> bool:
    return bool(fact.get("automation.parent.run.claimed"))


def is_override(fact: Fact) -> bool:
    return fact.get("audit.action") == "OVERRIDE"


BAD_ENDS = tuple(f"workflow.execution.{how}" for how in ("retried", "skipped", "cancelled", "interrupted"))
INTERRUPTED = kind("workflow.execution.interrupted")

PANELS: dict[str, dict[str, Which]] = {
    "auditspan-activity": {
        "Records": is_done,
        "Runs": is_done,
        "Actors": is_done,
        "Failed": lambda fact: is_done(fact) and is_failure(fact),
        "Hosts": lambda fact: True,
        "Last record": lambda fact: True,
        "What happened when": is_done,
        "How it ended": is_done,
        "Where": is_done,
        "Actions": is_done,
        "Who": is_done,
        "On what": is_done,
        "By automation": is_done,
    },
    "auditspan-users": {
        "Who acts": is_done,
        "Actors over time": is_done,
        "Who runs what": is_done,
        "How sure": is_done,
        "On whose behalf": is_done,
        "From where": is_done,
        "What was read or exported": lambda fact: fact.get("audit.action") in ("READ", "EXPORT"),
        "Decisions": has("audit.decision"),
    },
    "auditspan-automation": {
        "Runs": is_end,
        "Failed runs": failed_end,
        "Retries": kind("workflow.execution.retried"),
        "Skipped": kind("workflow.execution.skipped"),
        "Interrupted": INTERRUPTED,
        "Slowest 5 %": is_end,
        "Ends over time": is_end,
        "Duration": is_end,
        "Triggers": is_end,
        "What did not end well": kind(*BAD_ENDS),
        "By automation": is_end,
        "Retries by automation": kind("workflow.execution.retried"),
        "Rules": is_end,
        "Errors": failed_end,
        "Versions": is_end,
    },
    "auditspan-integrity": {
        "Last passed": lambda fact: is_check(fact) and fact["audit.outcome"] == "success",
        "Failed checks": lambda fact: is_check(fact) and is_failure(fact),
        "Gaps": kind("log.gap"),
        "Not conformant": has("audit.nonconformant"),
        "Interrupted": INTERRUPTED,
        "Claims": is_claim,
        "Checks": is_check,
        "Logs": lambda fact: True,
        "Checkpoints": lambda fact: fact.get("audit.log.document") == "checkpoint",
        "What logs say of themselves": lambda fact: fact.get("audit.log.document") == "entry",
        "Gaps, one by one": kind("log.gap"),
        "Why not conformant": has("audit.nonconformant"),
        "Interrupted runs": INTERRUPTED,
        "Claims by automation": is_claim,
        "Signatures of deliveries": lambda fact: fact.get("audit.action") == "RECEIVE",
        "Erasures": kind("log.erasure"),
    },
    "auditspan-changes": {
        "Permissions": lambda fact: fact.get("audit.action") in ("GRANT", "REVOKE"),
        "Settings": has("audit.configuration.key"),
        "Policies": kind("policy.change"),
        "Deployed": lambda fact: fact.get("audit.action") in ("DEPLOY", "INSTALL"),
        "Overrides": is_override,
        "Keys": kind("log.key.change"),
        "Changes over time": is_change,
        "Who changes": is_change,
        "Granted": lambda fact: fact.get("audit.action") == "GRANT",
        "Revoked": lambda fact: fact.get("audit.action") == "REVOKE",
        "Settings, one by one": has("audit.configuration.key"),
        "Policies, one by one": kind("policy.change"),
        "Templates": has("audit.template.name"),
        "Packages": has("audit.package.name"),
        "Set aside": is_override,
        "Wiring": has("audit.wiring.from"),
    },
}
METRICS: dict[str, Which] = {"Failures": is_failure}
"""Of metrics that have a filter of their own."""

SEARCHES: dict[str, Which] = {
    "auditspan-search-activity": is_done,
    "auditspan-search-failures": is_failure,
    "auditspan-search-changes": is_change,
    "auditspan-search-log": lambda fact: fact.get("audit.log.document") == "entry",
    "auditspan-search-integrity": lambda fact: "audit.nonconformant" in fact or is_claim(fact) or INTERRUPTED(fact),
}


def of_view(view: str, facts: list[Fact]) -> list[Fact]:
    wanted = {"auditspan-records": ("record",), "auditspan-log": ("log",), "auditspan-all": ("record", "log")}[view]
    return [fact for fact in facts if fact["is"] in wanted]


def rows(panel: Panel, facts: list[Fact]) -> dict[tuple[Any, ...], list[list[Fact]]]:
    """Return what a panel must show: values of what it is split by → the facts behind each metric."""
    groups: dict[tuple[Any, ...], list[Fact]] = defaultdict(list)
    for fact in facts:
        for key in itertools.product(*(_values(fact, name) for name in panel.by)):
            groups[key].append(fact)
    if not panel.by:
        groups.setdefault((), [])
    return {
        key: [[fact for fact in group if not one.where or METRICS[one.label](fact)] for one in panel.metrics]
        for key, group in groups.items()
    }


def _values(fact: Fact, name: str) -> list[Any]:
    if name not in fact:
        return []
    if name == "@timestamp":
        day = dt.datetime.fromtimestamp(fact[name] // 10**9, tz=dt.timezone.utc).date()
        return [f"{day}T00:00:00.000Z"]
    value = fact[name]
    return list(value) if isinstance(value, list) else [str(value).lower() if isinstance(value, bool) else value]


def agrees(metric: Metric, found: Any, facts: list[Fact]) -> bool:
    """Tell whether what Elasticsearch computed is what the ledger comes to."""
    if metric.of is None:
        return bool(found == len(facts))
    values = [value for fact in facts for value in ([fact[metric.of]] if metric.of in fact else [])]
    if metric.what == "distinct":
        return bool(found == len(set(values)))
    if not values:
        return found is None
    if metric.what == "latest":  # Elasticsearch reads the nanoseconds as a fraction: see docs/visible-documents.md
        return bool(abs(found - max(values) / 1e6) <= 1)
    if metric.what == "highest":
        return bool(found == max(values))
    if metric.what == "median":
        return min(values) <= found <= max(values) and (len(values) > 2 or found == statistics.median(values))
    assert metric.what == "p95"
    return bool(statistics.median(values) <= found <= max(values))
