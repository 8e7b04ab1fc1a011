# SPDX-License-Identifier: Apache-2.0
"""The run: one causal story, opened by what triggers it and joined by everything that it causes, in any process.

Inside a process a run travels in the OpenTelemetry context; between processes in W3C baggage beside the trace
context (https://www.w3.org/TR/baggage/). Baggage from outside is untrusted input: bounded, of known form, and marked
as claimed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from opentelemetry import baggage, context
from opentelemetry.context import Context

from auditspan import schema
from auditspan.capture.version import ScriptVersion
from auditspan.schema import rules

_RUN_KEY = context.create_key("auditspan-run")
_ANCESTOR_KEY = context.create_key("auditspan-ancestor")
_TRUSTED_KEY = context.create_key("auditspan-trusted-baggage")

_LIMIT = 512  # characters of one baggage value: enough for a rule, too little to flood a record
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Run:
    """One automation run.

    Attributes:
        id: run ID; the runner's own where it has one, else made by the plugin.
        workflow: the name of the automation.
        trigger: what set it in motion.
        rule: the cron text, the event filter, the route…; ``unknown`` if not known.
        script: version of the script that the run was opened for.
        parent_id: the run that caused this one, if it is another one.
        claimed: whether the parent was named by an untrusted sender; of a run without a parent: whether it was itself.
        attempt: 1 for the first attempt.
    """

    id: str
    workflow: str
    trigger: schema.TriggerType
    rule: str
    script: ScriptVersion
    parent_id: str | None = None
    claimed: bool = False
    attempt: int = 1

    @property
    def is_claim(self) -> bool:
        """Whether all that is known of this run is what an untrusted sender says."""
        return self.claimed and self.parent_id is None


def current(in_context: Context | None = None) -> Run | None:
    """Return the run of a context (default: the current one), or None outside of any run."""
    run = context.get_value(_RUN_KEY, in_context)
    if isinstance(run, Run):
        return run
    return _from_baggage(in_context)


def enter(run: Run, in_context: Context | None = None) -> Context:
    """Return a context in which `run` is the current one, here and, by baggage, in every process it calls."""
    if in_context is not None and context.get_value(_RUN_KEY, in_context) is run:
        return in_context  # it is the current one already, and so is its baggage
    result = context.set_value(_RUN_KEY, run, in_context)
    for key, value in (
        (schema.RUN_ID, run.id),
        (schema.WORKFLOW_NAME, run.workflow),
        (schema.TRIGGER_TYPE, run.trigger.value),
        (schema.TRIGGER_RULE, run.rule),
        (schema.SCRIPT_VERSION, run.script.version),
        (schema.SCRIPT_VERSION_SOURCE, run.script.source),
        (schema.SCRIPT_NAME, run.script.name),
    ):
        result = baggage.set_baggage(key, value[:_LIMIT], result)
    return result


def child_of(parent: Run | None, run: Run) -> Run:
    """Return `run` with `parent` named as the one that caused it."""
    if parent is None or parent.id == run.id:
        return run
    return replace(run, parent_id=parent.id, claimed=parent.is_claim)


def ancestor(in_context: Context | None = None) -> str | None:
    """Return the record ID of the nearest audit ancestor, in this process or, by baggage, in the calling one."""
    value = context.get_value(_ANCESTOR_KEY, in_context)
    if isinstance(value, str):
        return value
    if current(in_context) is None:
        return None  # a record that names no run cannot be marked as claimed by a stranger, so it is not believed
    sent = _bounded(baggage.get_baggage(schema.RECORD_ID, in_context))
    return sent if sent is not None and schema.has_form("uuid", sent) else None


def with_ancestor(record_id: str, in_context: Context) -> Context:
    """Return a context whose nearest audit ancestor is `record_id`."""
    return baggage.set_baggage(schema.RECORD_ID, record_id, context.set_value(_ANCESTOR_KEY, record_id, in_context))


def trusted(in_context: Context) -> Context:
    """Mark the baggage of a context as coming from our own parent process and not from a stranger."""
    return context.set_value(_TRUSTED_KEY, True, in_context)


def from_outside(in_context: Context) -> Context:
    """Mark a context as that of a request from outside: its baggage is a stranger's, whatever surrounds it here."""
    return context.set_value(_TRUSTED_KEY, False, in_context)


def is_from_outside(in_context: Context) -> bool:
    """Tell whether a context was marked by :func:`from_outside`."""
    return context.get_value(_TRUSTED_KEY, in_context) is False


def _from_baggage(in_context: Context | None) -> Run | None:
    def read(key: str) -> str | None:
        return _bounded(baggage.get_baggage(key, in_context))

    run_id = read(schema.RUN_ID)
    if run_id is None:
        return None
    try:
        trigger = schema.TriggerType(read(schema.TRIGGER_TYPE) or schema.UNKNOWN)
    except ValueError:
        trigger = schema.TriggerType.UNKNOWN
    source = read(schema.SCRIPT_VERSION_SOURCE)
    return Run(
        id=run_id,
        workflow=read(schema.WORKFLOW_NAME) or schema.UNKNOWN,
        trigger=trigger,
        rule=read(schema.TRIGGER_RULE) or schema.UNKNOWN,
        script=ScriptVersion(
            read(schema.SCRIPT_VERSION) or schema.UNKNOWN,
            source if source in rules.ENUMERATIONS["script_version_source"] else schema.UNKNOWN,
            read(schema.SCRIPT_NAME) or schema.UNKNOWN,
        ),
        claimed=context.get_value(_TRUSTED_KEY, in_context) is not True,
    )


def _bounded(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return _UNSAFE.sub("?", value[:_LIMIT])
