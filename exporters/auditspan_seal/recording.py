# SPDX-License-Identifier: Apache-2.0
"""From a finished span to its statement.

:meth:`StatementMaker.fields` says what a statement is made of. It runs for the rare span; :meth:`StatementMaker._quick`
makes the same bytes for the usual one, whose values are of the exact types that JSON has, at a quarter of the cost: on
each value nothing is called, what is the same for many spans is encoded once, and whatever the encoder refuses
(lone surrogates, integers beyond 53 bits) is left to the other. See docs/decisions/0017.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import orjson
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, Status, StatusCode, TraceState

from auditspan_seal.errors import MalformedStatement
from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import PRIVATE_MARK
from auditspan_seal.formats.commitment import Private
from auditspan_seal.guard import OPEN, Guard, usual_of
from auditspan_seal.interrupts import let_through
from auditspan_seal.log.place import Place
from auditspan_seal.native import NATIVE, Recorder
from auditspan_seal.salts import SALTS

RECORD_ID = "audit.record.id"
"""The attribute that makes a span an audit span."""

_STRICT = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_EXACT = frozenset({str, int, bool, type(None)})
"""Types that orjson writes as :func:`statements.value` says, if it writes them; of subclasses it is not asked."""
_UNSET = b'{"code":"UNSET","message":""}'
_CODES = tuple((code, b'{"code":"%b","message":""}' % code.name.encode()) for code in StatusCode)
_KINDS = tuple((kind, b'"%b"' % kind.name.encode()) for kind in SpanKind)
_LAST = b',"v":%d}' % statements.VERSION
_KEPT = 256  # templates and names that are kept


class StatementMaker:
    """Makes the statements of a log's spans. Safe for threads.

    Args:
        origin: name of the log.
        guard: what it asks about privacy; it must not raise.
        place: where :attr:`quick` may record; None: nowhere.

    Attributes:
        quick: makes the lines of usual spans in C; None: there is no such thing here.
    """

    def __init__(self, origin: str, guard: Guard = OPEN, place: Place | None = None) -> None:
        self._origin = origin
        self._written_origin = orjson.dumps(origin)
        self._guard = guard
        self._usual = usual_of(guard)
        # The same for nearly every span of a process: looked at and converted once. What is kept under an identity
        # holds on to the object, so that the identity stays its own.
        self._resources: dict[int, tuple[Resource, dict[str, Any]]] = {}
        self._scopes: dict[int, tuple[InstrumentationScope | None, dict[str, Any]]] = {}
        self._templates: dict[tuple[int, int, str], tuple[object, object, bytes]] = {}
        self._trace_state: tuple[TraceState | None, bytes] = (None, b"")
        self._names: dict[str, bytes] = {}  # names of spans in which there is no secret → how they are written
        self._learned: object = None  # of what the guard says, as `quick` knows it
        self.quick: Recorder | None = None
        if NATIVE is not None:
            self.quick = NATIVE.Recorder(
                ReadableSpan,
                RECORD_ID,
                _KINDS,
                _CODES,
                self._names,
                self._templates,
                self._written_origin,
                _LAST,
                place,
            )

    @property
    def recorded(self) -> int:
        """How many spans :attr:`quick` has recorded by itself."""
        return 0 if self.quick is None else self.quick.count

    def forked(self) -> None:
        """Begin to count anew: called in the child after a fork."""
        if self.quick is not None:
            self.quick.count = 0

    def line(self, span: ReadableSpan, segment: str, number: int) -> bytes:
        """Return the line of a segment for a finished span: its statement and, after a TAB, its private part.

        Args:
            span: the span.
            segment: name of the segment file.
            number: its running number there, from 1.

        Raises:
            MalformedStatement: it cannot be recorded.
        """
        parts = self.parts(span, segment)
        return _line(*self.fields(span, segment, number)) if parts is None else b"%b%d%b" % (parts[0], number, parts[1])

    def parts(self, span: ReadableSpan, segment: str) -> tuple[bytes, bytes] | None:
        """Return what stands before and after the running number in the line of a usual span.

        So a line can be made before it is known which number it has: who waits for a number should wait for nothing
        else.

        Returns:
            None: the span is not as usual; whether it can be recorded :meth:`line` says.
        """
        try:
            quick = self._learned_quick()
            if quick is not None and (made := quick.parts(span, segment)) is not None:
                return made
            return self._quick(span, segment)
        except Exception as error:
            let_through(error)
            return None

    def record(self, span: ReadableSpan) -> bool:
        """Record a usual span in one step; tell whether that is done. It may raise."""
        quick = self._learned_quick()
        return quick is not None and quick.record(span)

    def _learned_quick(self) -> Recorder | None:
        """Return :attr:`quick`, knowing what the guard says by now; None: it says that it must be asked everything."""
        usual = self._usual() if self.quick is not None else None
        if self.quick is not None and usual != self._learned:
            self.quick.learn(*(usual or ()))
            self._learned = usual
        return None if usual is None else self.quick

    def fields(self, span: ReadableSpan, segment: str, number: int) -> tuple[dict[str, Any], Private]:
        """Return the fields of the statement of a span, and the personal values that it only commits to."""
        context = span.get_span_context()
        if context is None:
            raise MalformedStatement("A span without a context cannot be recorded.")
        guard = self._guard
        attributes, private = self._attributes(span.attributes)
        fields = {
            "v": statements.VERSION,
            "type": "span",
            "origin": self._origin,
            "segment": segment,
            "number": number,
            "trace_id": f"{context.trace_id:032x}",
            "span_id": f"{context.span_id:016x}",
            "parent_span_id": f"{span.parent.span_id:016x}" if span.parent is not None else "",
            "parent_is_remote": span.parent is not None and span.parent.is_remote,
            "trace_flags": int(context.trace_flags),
            "trace_state": context.trace_state.to_header(),
            "name": statements.text(guard.text(span.name)),
            "kind": span.kind.name,
            # Nanoseconds since the epoch are beyond 2^53: decimal strings (otherwise many JSON readers round them).
            "start": str(span.start_time or 0),
            "end": str(span.end_time or 0),
            "status": self._status(span.status),
            "attributes": attributes,
            "events": self._events(span),
            "links": self._links(span),
            "dropped": {
                "attributes": span.dropped_attributes,
                "events": span.dropped_events,
                "links": span.dropped_links,
            },
            "resource": self._resource_of(span.resource),
            "scope": self._scope_of(span.instrumentation_scope),
        }
        return fields, private

    def _status(self, status: Status) -> dict[str, str]:
        message = statements.text(self._guard.text(status.description or ""))
        return {"code": status.status_code.name, "message": message}

    def _events(self, span: ReadableSpan) -> list[dict[str, Any]]:
        return [
            {
                "name": statements.text(self._guard.text(event.name)),
                "time": str(event.timestamp),
                "attributes": statements.values(self._guard.attributes(event.attributes, "event")),
            }
            for event in span.events
        ]

    def _links(self, span: ReadableSpan) -> list[dict[str, Any]]:
        return [
            {
                "trace_id": f"{link.context.trace_id:032x}",
                "span_id": f"{link.context.span_id:016x}",
                "trace_state": link.context.trace_state.to_header(),
                "attributes": statements.values(self._guard.attributes(link.attributes, "link")),
            }
            for link in span.links
        ]

    def _attributes(self, attributes: Mapping[str, Any] | None) -> tuple[dict[str, Any], Private]:
        private: Private = {}
        found = statements.values(self._guard.attributes(attributes, "span"))
        personal = self._guard.personal(found.keys())
        for name in [name for name in found if name in personal]:
            form = found[name]
            if form is not None and form != []:  # of nothing there is nothing to hide; and stores drop it
                found[name], private[name] = _committed(name, _personal(form))
        return found, private

    def _resource_of(self, resource: Resource) -> dict[str, Any]:
        known = self._resources.get(id(resource))
        if known is None:
            form = {
                "attributes": statements.values(self._guard.attributes(resource.attributes, "resource")),
                "schema_url": resource.schema_url or "",
            }
            known = _kept(self._resources, id(resource), (resource, form))
        return known[1]

    def _scope_of(self, scope: InstrumentationScope | None) -> dict[str, Any]:
        known = self._scopes.get(id(scope))
        if known is None:
            form = {
                "name": scope.name if scope else "",
                "version": (scope.version if scope else None) or "",
                "schema_url": (scope.schema_url if scope else None) or "",
                "attributes": statements.values(self._guard.attributes(scope.attributes if scope else None, "scope")),
            }
            known = _kept(self._scopes, id(scope), (scope, form))
        return known[1]

    # -- the usual span ----------------------------------------------------------------------------------------
    def _quick(self, span: ReadableSpan, segment: str) -> tuple[bytes, bytes] | None:
        """Return the line of a span but for its running number, as :meth:`fields` makes it; None: not in this way.

        Raises:
            TypeError, ValueError, LookupError, AttributeError: the same.
        """
        context = span.get_span_context()
        start, end = span.start_time, span.end_time
        if context is None or type(start) is not int or type(end) is not int:
            return None
        parent = span.parent
        parent_id, remote = b"", b"false"
        if parent is not None:
            if parent.is_remote is not True and parent.is_remote is not False:
                return None
            parent_id, remote = b"%016x" % parent.span_id, b"true" if parent.is_remote else b"false"
        # The SDK's mapping is written in Python; its own copy() is one call instead of two for each attribute.
        given: Any = span.attributes
        given = given.copy() if type(given) is MappingProxyType else dict(given or {})
        attributes, private = self._quick_attributes(given)
        kind, name, status, resource = span.kind, span.name, span.status, span.resource
        scope = span.instrumentation_scope
        trace_state, written_state = self._trace_state
        if context.trace_state is not trace_state:
            trace_state = context.trace_state
            written_state = orjson.dumps(trace_state.to_header())
            self._trace_state = (trace_state, written_state)
            if self.quick is not None:
                self.quick.state = self._trace_state
        events, links = span._events, span._links  # only whether there are any; the properties make copies
        known = self._templates.get((id(resource), id(scope), segment))
        before = (
            b'{"attributes":%b,"dropped":{"attributes":%d,"events":%d,"links":%d},"end":"%d","events":%b,"kind":%b,'
            b'"links":%b,"name":%b,"number":'
        ) % (
            attributes,
            span.dropped_attributes,
            span.dropped_events,
            span.dropped_links,
            end,
            orjson.dumps(self._events(span), option=_STRICT) if len(events) else b"[]",
            b'"INTERNAL"' if kind is SpanKind.INTERNAL else orjson.dumps(kind.name),
            orjson.dumps(self._links(span), option=_STRICT) if len(links) else b"[]",
            self._names.get(name) or self._name(name),
        )
        after = (
            b',"origin":%b,"parent_is_remote":%b,"parent_span_id":"%b",%b,"span_id":"%016x","start":"%d","status":%b,'
            b'"trace_flags":%d,"trace_id":"%032x","trace_state":%b,"type":"span"%b'
        ) % (
            self._written_origin,
            remote,
            parent_id,
            known[2] if known is not None else self._fixed(resource, scope, segment),
            context.span_id,
            start,
            _UNSET if status.status_code is StatusCode.UNSET and not status.description
            else orjson.dumps(self._status(status), option=_STRICT),
            context.trace_flags,
            context.trace_id,
            written_state,
            _LAST,
        )  # fmt: skip
        return before, after + PRIVATE_MARK + commitment.encode(private) if private else after

    def _quick_attributes(self, given: Any) -> tuple[bytes, Private]:
        found = self._guard.attributes(given, "span")
        if found is not given or type(found) is not dict:
            found = dict(found)
        if not _EXACT.issuperset(map(type, found.values())):
            for name, item in found.items():
                if type(item) not in _EXACT:
                    found[name] = statements.value(item)
        private: Private = {}
        personal = self._guard.personal(found.keys())
        for name in personal if len(personal) == 1 else [name for name in found if name in personal]:
            form = found[name]
            if form is not None and form != []:
                if type(form) is not str:
                    form = _personal(statements.value(form) if type(form) is int else form)
                found[name], private[name] = _committed(name, form)
        return orjson.dumps(found, option=_STRICT), private

    def _fixed(self, resource: Resource, scope: InstrumentationScope | None, segment: str) -> bytes:
        """Return what is the same in the statements of all spans of a resource and a scope in a segment."""
        made = b'"resource":%b,"scope":%b,"segment":%b' % (
            statements.encode(self._resource_of(resource)),
            statements.encode(self._scope_of(scope)),
            orjson.dumps(segment),
        )
        _kept(self._templates, (id(resource), id(scope), segment), (resource, scope, made))
        return made

    def _name(self, name: str) -> bytes:
        clean = self._guard.text(name)
        written = orjson.dumps(clean)
        if clean is name and type(name) is str and len(name) <= 256:
            _kept(self._names, name, written)
        return written


def _kept(kept: dict[Any, Any], key: Any, item: Any) -> Any:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[key] = item
    return item


def _line(fields: Mapping[str, Any], private: Private) -> bytes:
    statement = statements.encode(fields)
    return statement + PRIVATE_MARK + commitment.encode(private) if private else statement


def _sealed(name: str, form: Any) -> tuple[str, str]:
    """Commit to a personal value; returns the digest and the salt, in base64."""
    salt, written = SALTS.take()
    return commitment.commit(name, form, salt), written


def _committed(name: str, form: Any) -> tuple[dict[str, str], tuple[str, Any]]:
    """Commit to a personal value; returns what stands in the statement, and what stands beside it."""
    digest, salt = _sealed(name, form)
    return {"commitment": digest}, (salt, form)


def _personal(form: Any) -> Any:
    """Return a value as it can be committed to: texts, whole numbers and lists of them come back from every store."""
    if isinstance(form, list):
        return [_personal(item) for item in form]
    return form if isinstance(form, (str, bool, int)) else str(statements.plain(form))
