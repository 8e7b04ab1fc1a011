# SPDX-License-Identifier: Apache-2.0
"""What auto-instrumentation cannot know, said by the program itself, in a few lines::

    with auditspan.action("UPDATE", target="row-1", target_type="crm.contact", before=row) as done:
        row = crm.save(row, stage="won")
        done.after(row)

    @auditspan.action("DELETE", target=lambda contact_id: contact_id, target_type="crm.contact")
    def forget(contact_id): ...

Nothing here raises into the program: what cannot be recorded as it was said is recorded as well as possible, counted,
and shown by ``auditspan status``.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from auditspan import __version__, schema
from auditspan.capture import faults
from auditspan.capture.actor import Actor, os_actor
from auditspan.capture.recorder import Event, Record, Recorder, Target, inside
from auditspan.capture.state import StateNotHashable, state_hash
from auditspan.capture.version import ScriptVersion, script_version
from auditspan.schema import ActorEvidence, ActorType, Decision, Details, EventType, Outcome
from auditspan.schema.events import BUILDERS

Function = TypeVar("Function", bound=Callable[..., Any])

_TYPES = {
    "READ": EventType.DATA_READ,
    "WRITE": EventType.DATA_WRITE,
    "CREATE": EventType.DATA_CREATE,
    "UPDATE": EventType.DATA_UPDATE,
    "DELETE": EventType.DATA_DELETE,
    "EXPORT": EventType.DATA_EXPORT,
    "IMPORT": EventType.DATA_IMPORT,
    "START": EventType.WORKFLOW_STARTED,
    "RETRY": EventType.WORKFLOW_RETRIED,
    "SKIP": EventType.WORKFLOW_SKIPPED,
    "CANCEL": EventType.WORKFLOW_CANCELLED,
    "GRANT": EventType.PERMISSION_CHANGE,
    "REVOKE": EventType.PERMISSION_CHANGE,
    "DEPLOY": EventType.TEMPLATE_DEPLOYMENT,
    "ROLLBACK": EventType.TEMPLATE_DEPLOYMENT,
    "INSTALL": EventType.PACKAGE_INSTALL,
    "UNINSTALL": EventType.PACKAGE_INSTALL,
    "CONNECT": EventType.COMPONENT_WIRING,
    "DISCONNECT": EventType.COMPONENT_WIRING,
    "EVALUATE": EventType.POLICY_EVALUATION,
    "APPROVE": EventType.POLICY_EVALUATION,
    "REJECT": EventType.POLICY_EVALUATION,
    "OVERRIDE": EventType.POLICY_EVALUATION,
    "RESCIND": EventType.POLICY_EVALUATION,
}
"""The event type that a verb means; any other verb is a step of the workflow."""

_EVENT_TYPES, _DECISIONS, _ACTOR_TYPES = (
    frozenset(member.value for member in enumeration) for enumeration in (EventType, Decision, ActorType)
)
_FIELDS = 50  # names of changed fields that are recorded at most


def action(
    verb: str,
    *,
    target: str | Callable[..., str],
    target_type: str,
    type: str | None = None,
    actor: str | None = None,
    actor_type: str = "user",
    on_behalf_of: str | None = None,
    before: Any = None,
    after: Any = None,
    rationale: str | None = None,
    decision_path: Sequence[str] | None = None,
    attributes: Mapping[str, Any] | None = None,
    **details: Any,
) -> Action:
    """Record something that the program does: as a context manager, or as a decorator of a function.

    Success is recorded, or failure if an exception passes through, which goes on unchanged.

    Args:
        verb: what is done, upper case: READ, WRITE, CREATE, UPDATE, DELETE, EXPORT, IMPORT, APPROVE, DEPLOY, …
        target: identity of what it is done to. Of a decorated function: also a callable that takes its arguments.
        target_type: kind of the target, dotted, for example ``crm.contact``.
        type: event type, where the verb does not tell it, for example ``configuration.change``
            (`auditspan schema show` lists them).
        actor: who does it; default: the operating-system user of the process.
        actor_type: ``user``, ``service`` or ``system``; only with `actor`.
        on_behalf_of: the person for whom it is done.
        before: state of the target before. Only a hash of it is recorded, and which fields changed. A callable is
            called when the action begins.
        after: state of the target after. A callable is called when the action has ended.
        rationale: why. Required for APPROVE, REJECT, OVERRIDE and RESCIND.
        decision_path: the steps that led to a decision, in order. Required for the same verbs.
        attributes: more attributes of the registry, or of your own, by name.
        details: what the event type has a place for, by the names of its builder in :mod:`auditspan.schema.events`,
            for example ``data_count=3`` or ``policy_name="payouts"``.
    """
    acting = os_actor() if actor is None else _declared(actor, actor_type)
    if on_behalf_of is not None:
        acting = replace(acting, behalf=Actor(on_behalf_of, ActorType.USER, ActorEvidence.DECLARED))
    return Action(
        _Said(
            verb=verb,
            kind=type,
            target=target,
            target_type=target_type,
            actor=acting,
            before=before,
            after=after,
            details={**details, "rationale": rationale, "decision_path": decision_path},
            attributes=attributes or {},
            script=_caller(sys._getframe(1)),
        )
    )


@dataclass(frozen=True)
class _Said:
    """What a program said of an action when it made it."""

    verb: str
    kind: str | None
    target: str | Callable[..., str]
    target_type: str
    actor: Actor
    before: Any
    after: Any
    details: Mapping[str, Any]
    attributes: Mapping[str, Any]
    script: ScriptVersion


class Action:
    """One action, or, as a decorator, one for each call. Made by :func:`action`."""

    def __init__(self, said: _Said) -> None:
        self._said = said
        self._after = said.after
        self._record: Record | None = None
        self._outcome = Outcome.SUCCESS
        self._covered = ExitStack()
        self._state_before: Any = None

    # -- while it goes on --------------------------------------------------------------------------------------
    def after(self, state: Any) -> None:
        """Say the state of the target after the action; only a hash and the names of changed fields are recorded."""
        self._after = state

    def set(self, name: str, value: Any) -> None:
        """Set one attribute of the record, by its name."""
        with faults.contained("api: action"):
            if self._record is not None:
                self._record.set(name, value)

    def rationale(self, text: str, *path: str) -> None:
        """Say why, and the steps of the decision in order."""
        self.set(schema.RATIONALE, text)
        self.set(schema.DECISION_PATH, list(path) or None)

    def failed(self, reason: str | None = None) -> None:
        """Say that it failed though no exception is raised; `reason` is a type of error, not a text with data."""
        self._outcome = Outcome.FAILURE
        self.set(schema.ERROR_TYPE, reason)

    def unknown(self) -> None:
        """Say that it is not known how it ended."""
        self._outcome = Outcome.UNKNOWN

    # -- context manager ---------------------------------------------------------------------------------------
    def __enter__(self) -> Action:
        with faults.contained("api: action"):
            self._begin()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        with faults.contained("api: action"):
            self._end(error)

    # -- decorator ---------------------------------------------------------------------------------------------
    def __call__(self, function: Function) -> Function:
        """Return `function`, each call of which is one action; also of coroutine and generator functions."""
        audited: Any
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def audited(*args: Any, **kwargs: Any) -> Any:
                with self._of_call(function, args, kwargs):
                    return await function(*args, **kwargs)

        elif inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                f"auditspan.action cannot decorate the generator function {function.__qualname__}: when it is done is "
                "up to whoever iterates over it. Use `with auditspan.action(...)` inside of it."
            )
        else:

            @functools.wraps(function)
            def audited(*args: Any, **kwargs: Any) -> Any:
                with self._of_call(function, args, kwargs):
                    return function(*args, **kwargs)

        result: Function = audited
        return result

    def _of_call(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Action:
        said = self._said
        with faults.contained("api: action"):
            said = replace(said, script=script_version(function), target=_target_of(said.target, args, kwargs))
        return Action(said)

    # -- the record --------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        said = self._said
        details, rest = _details(said.verb, said.kind, said.details)
        self._state_before = _state(said.before)
        target = said.target if isinstance(said.target, str) else schema.UNKNOWN
        event = Event(
            name=f"{said.verb.lower()} {said.target_type}",
            details=details,
            actor=said.actor,
            target=Target(target, said.target_type),
            script=said.script,
            attributes={**rest, **said.attributes, schema.STATE_BEFORE_HASH: _hash(self._state_before)},
        )
        self._record = _recorder().start(event)
        self._covered.enter_context(inside(self._record))

    def _end(self, error: BaseException | None) -> None:
        self._covered.close()
        record = self._record
        if record is None:
            return
        with faults.contained("api: state after"):
            after = _state(self._after)
            record.set(schema.STATE_AFTER_HASH, _hash(after))
            record.set(schema.CHANGE_FIELDS, _changed(self._state_before, after))
        record.finish(self._outcome if error is None else Outcome.FAILURE, error)


@functools.lru_cache(maxsize=1)
def _recorder() -> Recorder:
    # The tracer is a proxy until there is a provider: it is right also when auditing starts later.
    return Recorder("auditspan.api", __version__)


def _declared(actor: str, kind: str) -> Actor:
    known = kind in _ACTOR_TYPES
    return Actor(str(actor), ActorType(kind) if known else ActorType.SYSTEM, ActorEvidence.DECLARED)


def _details(verb: str, kind: str | None, said: Mapping[str, Any]) -> tuple[Details, dict[str, Any]]:
    """Return the builder for what was said, and what it has no place for.

    A builder wants its required arguments; what was not said is missing from the record, which says so itself.
    """
    known = kind in _EVENT_TYPES
    if kind is not None and not known:
        faults.count(f"api: action({verb!r}): the registry has no event type of that name", KeyError())
    builder = BUILDERS.get(EventType(kind) if known else _TYPES.get(verb, EventType.WORKFLOW_FINISHED))
    if builder is None:  # an event type of the log itself
        builder = BUILDERS[EventType.WORKFLOW_FINISHED]
    said = {name: value for name, value in said.items() if value is not None}
    if "decision" in builder.NAMES and verb.lower() in _DECISIONS:
        said.setdefault("decision", verb.lower())
    fields: dict[str, Any] = dict.fromkeys(builder.NAMES)
    fields |= {name: value for name, value in said.items() if name in builder.NAMES}
    rest = {_NAMES.get(name, name): value for name, value in said.items() if name not in builder.NAMES}
    return builder(action=verb, **fields), rest


_NAMES = {name.lower(): getattr(schema, name) for name in schema.names.__all__ if name.isupper()}
"""Names of the builders' fields → attributes, for what an event type takes only as one of every record."""


def _state(state: Any) -> Any:
    is_function = isinstance(
        state, (types.FunctionType, types.MethodType, functools.partial, types.BuiltinFunctionType)
    )
    return state() if is_function else state


def _hash(state: Any) -> str | None:
    if state is None:
        return None
    try:
        return state_hash(state)
    except StateNotHashable as error:
        faults.count("api: hash of a state", error)
        return None


def _changed(before: Any, after: Any) -> list[str] | None:
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    names = sorted({*map(str, before), *map(str, after)})
    missing = object()
    return [name for name in names if _differs(before.get(name, missing), after.get(name, missing))][:_FIELDS]


def _differs(one: Any, other: Any) -> bool:
    try:
        return state_hash(one) != state_hash(other)
    except StateNotHashable:
        return one is not other


def _target_of(target: str | Callable[..., str], args: Any, kwargs: Any) -> str:
    if isinstance(target, str):
        return target
    with faults.contained("api: target of an action"):
        return str(target(*args, **kwargs))
    return schema.UNKNOWN


def _caller(frame: types.FrameType) -> ScriptVersion:
    try:
        known = _callers.get(frame.f_code)
        if known is None:
            if len(_callers) >= _CALLERS:
                _callers.clear()
            known = _callers[frame.f_code] = _of_code(frame.f_code, frame.f_globals)
        return known
    except Exception as error:
        faults.count("api: version of the calling script", error)
        return ScriptVersion(schema.UNKNOWN, schema.UNKNOWN, schema.UNKNOWN)


_CALLERS = 1024
_callers: dict[types.CodeType, ScriptVersion] = {}


def _of_code(code: types.CodeType, module: dict[str, Any]) -> ScriptVersion:
    """Return the version of the script that a piece of code is in: as if it were a function of its own."""
    cells = tuple(types.CellType() for _ in code.co_freevars)
    function = types.FunctionType(code, module, code.co_name, None, cells or None)
    return script_version(function)
