# SPDX-License-Identifier: Apache-2.0
"""Why a flow run of Prefect 3 came about, and who asked for it: what Prefect says, in our words."""

from __future__ import annotations

from typing import Any

from auditspan import schema
from auditspan.capture.actor import NOBODY_KNOWN, Actor, os_actor
from auditspan.capture.run import Run
from auditspan.schema import ActorEvidence, ActorType, TriggerType

_DEPLOYMENTS_REMEMBERED = 256


def trigger_of(run: Any, parent: Run | None, deployments: Deployments) -> tuple[TriggerType, str]:
    """Return what set a flow run in motion: the server's word first, then what called it."""
    by: Any = getattr(run, "created_by", None)
    kind = getattr(by, "type", None)
    if kind == "SCHEDULE" or (by is None and run.auto_scheduled):
        return TriggerType.SCHEDULE, deployments.schedule(run.deployment_id, by)
    if kind == "AUTOMATION":
        return TriggerType.EVENT, f"automation {by.display_value or by.id}"
    if parent is not None:
        return TriggerType.PARENT_RUN, parent.workflow
    if run.parent_task_run_id is not None:
        return TriggerType.PARENT_RUN, schema.UNKNOWN  # its parent is not audited
    if run.deployment_id is not None:
        # The open-source server does not say whether a person in the UI, the command line or a program asked.
        return TriggerType.API, "create_flow_run"
    return TriggerType.MANUAL, "direct call"


def actor_of(run: Any) -> Actor:
    """Return who asked for a flow run: the server's word; else whoever runs the process that called it."""
    by = getattr(run, "created_by", None)
    if by is not None and (by.id or by.display_value):
        kind = {"USER": ActorType.USER, "SERVICE": ActorType.SERVICE}.get(str(by.type), ActorType.SYSTEM)
        name = str(by.display_value or by.id)
        return Actor(f"prefect.{str(by.type).lower()}:{name}", kind, ActorEvidence.LIBRARY)
    return NOBODY_KNOWN if run.deployment_id is not None else os_actor()


class Deployments:
    """What was read of deployments in this process anyway: nothing is asked of the server for our sake."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def remember(self, deployment: Any) -> None:
        """Remember a deployment that was read."""
        self._known.pop(str(deployment.id), None)
        self._known[str(deployment.id)] = deployment
        while len(self._known) > _DEPLOYMENTS_REMEMBERED:
            self._known.pop(next(iter(self._known)))

    def name(self, deployment_id: object) -> str | None:
        """Return the name of a deployment; None: it was not read."""
        known = self._known.get(str(deployment_id))
        return str(known.name) if known is not None else None

    def version(self, deployment_id: object) -> str | None:
        """Return the version of a deployment; None: it has none, or was not read."""
        known = self._known.get(str(deployment_id))
        return str(known.version) if known is not None and known.version else None

    def schedule(self, deployment_id: object, by: Any) -> str:
        """Return the text of the schedule that a run was made by; else what the server calls it, or `unknown`."""
        for known in getattr(self._known.get(str(deployment_id)), "schedules", None) or ():
            if by is not None and known.id == by.id:
                return _text(known.schedule)
        return str(by.display_value) if by is not None and by.display_value else schema.UNKNOWN


def _text(schedule: Any) -> str:
    zone = getattr(schedule, "timezone", None)
    for kind in ("cron", "rrule"):
        text = getattr(schedule, kind, None)
        if text:
            return f"{kind}[{text}]" + (f" {zone}" if zone else "")
    return f"interval[{schedule.interval}]"
