# SPDX-License-Identifier: Apache-2.0
"""How a run of Prefect 3 ended: what its final state says, in our words."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from auditspan.schema import Details, Outcome
from auditspan.schema.events import WorkflowCancelled, WorkflowFinished, WorkflowInterrupted, WorkflowSkipped

TIMED_OUT = "TimedOut"


@dataclass(frozen=True)
class Ending:
    """The end of a run.

    Attributes:
        outcome: how it ended.
        error: what failed; None: nothing.
        details: what it turned out to be; None: a run that ran to its end.
    """

    outcome: Outcome
    error: BaseException | str | None = None
    details: Details | None = None


def ending_of(
    engine: Any, state: Any, raised: BaseException | None, executed: bool, error: BaseException | None
) -> Ending:
    """Return how a run ended.

    Args:
        engine: Prefect's.
        state: the run's last state, as this process knows it.
        raised: what left the engine; None: nothing.
        executed: whether the user's function was called, or was to be.
        error: what the last attempt raised; None: nothing.
    """
    if state is None:
        return Ending(Outcome.UNKNOWN, raised, WorkflowInterrupted(run_reason="it has no state"))
    named = f"prefect.state.{state.name or state.type.value}"
    if state.is_completed():
        if not executed:
            return Ending(Outcome.SUCCESS, None, WorkflowSkipped(run_reason="it had already been completed"))
        if state.name == "Cached":
            return Ending(Outcome.SUCCESS, None, WorkflowSkipped(run_reason="cached: an earlier result was used"))
        return Ending(Outcome.SUCCESS)
    if state.name == TIMED_OUT:
        return Ending(Outcome.FAILURE, f"prefect.state.{TIMED_OUT}")
    if state.is_failed():
        # Before an attempt (a parameter is not valid) only the engine knows what was raised.
        return Ending(Outcome.FAILURE, error or (_raised(engine) if not executed else None) or named)
    if state.is_crashed():
        why = WorkflowInterrupted(run_reason="crashed: its process was told to end, or gave up")
        return Ending(Outcome.FAILURE, raised or error or named, why)
    if state.is_cancelled() or state.is_cancelling() or _intent(raised) == "cancel":
        return Ending(Outcome.FAILURE, "prefect.state.Cancelled", WorkflowCancelled(run_reason="cancelled in Prefect"))
    if state.is_paused():
        return Ending(Outcome.UNKNOWN, None, WorkflowFinished(run_reason="suspended: it may be resumed"))
    if not executed:
        why_not = {"NotReady": "what it waits for has failed"}.get(state.name, "Prefect did not let it run")
        return Ending(Outcome.FAILURE, raised or named, WorkflowSkipped(run_reason=why_not))
    return Ending(Outcome.UNKNOWN, raised or named, WorkflowInterrupted(run_reason="it left no final state"))


def _raised(engine: Any) -> BaseException | None:
    raised = getattr(engine, "_raised", None)
    return raised if isinstance(raised, BaseException) else None


def _intent(raised: BaseException | None) -> str | None:
    """Return why a runner has told this process to end; None: it did not say, or is too old to say (before 3.7)."""
    if raised is None:
        return None
    try:
        from prefect._internal.control_listener import get_intent
    except ImportError:
        return None
    intent = get_intent()
    return None if intent is None else str(intent)


def failure_of(error: BaseException | None) -> BaseException | str:
    """Return what failed in an attempt that is to be made again, from what was raised in it."""
    if isinstance(error, asyncio.CancelledError):
        return f"prefect.state.{TIMED_OUT}"  # how a timeout stops a coroutine: nothing else of the kind is tried again
    return error or "prefect.state.Failed"
