# SPDX-License-Identifier: Apache-2.0
"""Does the visible document say what its statement says?

Strict on content, tolerant of what the Collector and Elasticsearch are known to do to an honest span (bytes become
hexadecimal text, NaN becomes null, doubles may come back with 32 bits, empty lists and nulls may disappear, control
attributes of the exporter are removed, processors add attributes). Under synthetic source the time comes back as
Elasticsearch has understood it, lists as sorted sets, and a list of one as its element; only these forms are taken.

Elasticsearch reads ``{"a.b": 1}`` and ``{"a": {"b": 1}}`` as the same field, and attributes as fields of the document
itself. So a lie can stand beside the truth: a second spelling of a field is a mismatch, wherever it is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import orjson

from auditspan_seal import spans
from auditspan_seal.errors import FormatError
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import Batch
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.verify.forms import duration_of, removed, same, time_of

_KINDS = {
    "INTERNAL": "Internal",
    "SERVER": "Server",
    "CLIENT": "Client",
    "PRODUCER": "Producer",
    "CONSUMER": "Consumer",
}
_STATUS = {"UNSET": None, "OK": "Ok", "ERROR": "Error"}
_OWN = ("audit.", "automation.")
_PLACE = frozenset({spans.STATEMENT, spans.ORIGIN, spans.INDEX})
_ADDED = _PLACE | {spans.STREAM, spans.NUMBER, spans.PRIVATE}
_ADDED_ENTRY = _PLACE | {spans.DOCUMENT}
_ADDED_CHECKPOINT = frozenset(
    {spans.DOCUMENT, spans.ORIGIN, spans.NOTE, spans.FIRST, spans.SIZE, spans.FRONTIER, spans.LEAVES}
)
_PARTS: dict[str, set[str] | None] = {  # what the exporter writes into objects of a document; None: anything
    "attributes": None,
    "status": {"code", "message"},
    "resource": {"attributes", "schema_url", "dropped_attributes_count"},
    "scope": {"name", "version", "attributes", "schema_url", "dropped_attributes_count"},
}
_DROPPED = {
    "dropped_attributes_count": "attributes", "dropped_events_count": "events", "dropped_links_count": "links"
}  # fmt: skip
_KNOWN = frozenset(
    {
        "@timestamp", "data_stream", "trace_id", "span_id", "parent_span_id", "trace_state", "name", "kind", "duration",
        "links", *_PARTS, *_DROPPED,
    }
)  # fmt: skip
_KNOWN_OTLP = _KNOWN | {"events"}  # Elasticsearch's exporter makes documents of their own of them
_PLAIN = _KNOWN - _DROPPED.keys()
_PLAIN_OTLP = _KNOWN_OTLP - _DROPPED.keys()
_PLAIN_RESOURCE, _PLAIN_SCOPE, _PLAIN_STATUS = (
    frozenset(_PARTS[name] or ()) - _DROPPED.keys() for name in ("resource", "scope", "status")
)
_PLAIN_ADDED = _ADDED - {spans.PRIVATE}
_SINGLE = (str, int, bool)
_NOTHING: Mapping[str, Any] = {}
_FIELDS = (
    f"attributes.{spans.STREAM}", f"attributes.{spans.NUMBER}", "trace_id", "span_id", "parent_span_id", "trace_state",
    "name", "kind", "@timestamp", "duration", "status.code", "status.message", "scope.name", "scope.version",
    "scope.schema_url",
)  # fmt: skip

Mismatch = tuple[str, Any, Any]
"""Field, what the statement says, what the document says."""


def mismatches(fields: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare a document with the statement it carries. Its place (log and index) is not in the statement.

    Args:
        fields: the decoded statement.
        document: the ``_source`` of the document.
    """
    if fields["type"] == "span" and _agrees(fields, document):
        return
    attributes = _mapping(document.get("attributes"))
    yield from _shape(document, attributes)
    if fields["type"] != "span":
        yield from _entry(fields, document, attributes)
        return
    get = document.get
    scope, status, resource = _mapping(get("scope")), _mapping(get("status")), _mapping(get("resource"))
    said, stated = fields["scope"], fields["status"]
    expected = (
        fields["segment"], fields["number"], fields["trace_id"] or None, fields["span_id"] or None,
        fields["parent_span_id"] or None, fields["trace_state"] or None, fields["name"] or None,
        _KINDS.get(fields["kind"]), int(fields["start"]), int(fields["end"]) - int(fields["start"]),
        _STATUS.get(stated["code"]), stated["message"] or None, said["name"] or None, said["version"] or None,
        said["schema_url"] or None,
    )  # fmt: skip
    found = (
        attributes.get(spans.STREAM), attributes.get(spans.NUMBER), get("trace_id") or None, get("span_id") or None,
        get("parent_span_id") or None, get("trace_state") or None, get("name") or None,
        get("kind"), time_of(expected[8], get("@timestamp"), "events" in document),
        duration_of(expected[9], get("duration")),
        status.get("code"), status.get("message") or None, scope.get("name") or None, scope.get("version") or None,
        scope.get("schema_url") or None,
    )  # fmt: skip
    if expected != found or tuple(map(type, expected)) != tuple(map(type, found)):
        for name, one, other in zip(_FIELDS, expected, found, strict=True):
            yield from _one(name, one, other)
    yield from _attributes("attributes", fields["attributes"], attributes, added=_ADDED)
    yield from _attributes(
        "resource.attributes", fields["resource"]["attributes"], _mapping(resource.get("attributes"))
    )
    if fields["resource"]["schema_url"]:  # where the process said none, a Collector may
        yield from _one("resource.schema_url", fields["resource"]["schema_url"], resource.get("schema_url"))
    if said["attributes"] or "attributes" in scope:
        yield from _attributes("scope.attributes", said["attributes"], _mapping(scope.get("attributes")))
    if fields["links"] or get("links"):
        yield from _links(fields["links"], get("links"))
    if spans.PRIVATE in attributes and not _salts_as_written(attributes[spans.PRIVATE]):
        yield f"attributes.{spans.PRIVATE}", "salts as JSON", "something else"  # never a salt
    if "events" in document:
        if "data_stream" in document:
            yield "events", None, get("events")
        yield from _events(fields["events"], get("events"))
    if not _DROPPED.keys().isdisjoint(document):
        for name, what in _DROPPED.items():
            if get(name) is not None and get(name) != 0:
                yield from _one(name, fields["dropped"][what], get(name))


def _agrees(fields: Mapping[str, Any], document: Mapping[str, Any]) -> bool:
    """Tell whether a document says word for word what the statement of its span says, and nothing more.

    Nearly all do, and this costs a quarter of looking at field after field, which is done to say what does not agree.
    """
    get = document.get
    attributes, resource, scope, status = get("attributes"), get("resource"), get("scope"), get("status")
    said, stated, meant, signed = fields["scope"], fields["status"], fields["resource"], fields["attributes"]
    if not (
        attributes.__class__ is resource.__class__ is scope.__class__ is status.__class__ is dict
        and document.keys() <= (_PLAIN if "data_stream" in document else _PLAIN_OTLP)
        and resource.keys() <= _PLAIN_RESOURCE
        and scope.keys() <= _PLAIN_SCOPE
        and status.keys() <= _PLAIN_STATUS
    ):
        return False
    start, number, duration = int(fields["start"]), attributes.get(spans.NUMBER), get("duration")
    time = time_of(start, get("@timestamp"), "events" in document)
    return (
        number.__class__ is duration.__class__ is time.__class__ is int  # of the others none equals another type
        and fields["number"].__class__ is int
        and (number, time, duration) == (fields["number"], start, int(fields["end"]) - start)
        and (
            attributes.get(spans.STREAM), get("trace_id"), get("span_id"), get("parent_span_id") or "",
            get("trace_state") or "", get("name"), get("kind"), status.get("code"), status.get("message") or "",
            scope.get("name"), scope.get("version") or "", scope.get("schema_url") or "",
            resource.get("schema_url") or "", get("links", []), get("events", []),
        ) == (
            fields["segment"], fields["trace_id"], fields["span_id"], fields["parent_span_id"], fields["trace_state"],
            fields["name"], _KINDS.get(fields["kind"]), _STATUS.get(stated["code"]), stated["message"],
            said["name"], said["version"], said["schema_url"], meant["schema_url"], fields["links"], fields["events"],
        )
        and not fields["links"]
        and not fields["events"]
        and _equal(signed, attributes, _ADDED if spans.PRIVATE in attributes else _PLAIN_ADDED)
        and (spans.PRIVATE not in attributes or _salts_as_written(attributes[spans.PRIVATE]))
        and _equal(meant["attributes"], resource.get("attributes"))
        and _equal(said["attributes"], scope.get("attributes") or {})
    )  # fmt: skip


def same_surroundings(
    meant: Mapping[str, Any], said: Mapping[str, Any], resource: Mapping[str, Any], scope: Mapping[str, Any]
) -> bool:
    """Tell whether :func:`mismatches` has nothing to say of resource and scope.

    Args:
        meant: the resource in the statement of a span.
        said: the scope there.
        resource: what a document has of `attributes` and `schema_url`, no more.
        scope: the same, `name` and `version`.
    """
    get = scope.get
    stated = said["name"] or None, said["version"] or None, said["schema_url"] or None
    seen = get("name") or None, get("version") or None, get("schema_url") or None
    return (
        stated == seen
        and tuple(map(type, stated)) == tuple(map(type, seen))
        and (not meant["schema_url"] or meant["schema_url"] == resource.get("schema_url"))
        and type(meant["schema_url"]) is str
        and not any(_attributes("", meant["attributes"], _mapping(resource.get("attributes"))))
        and not any(_attributes("", said["attributes"], _mapping(scope.get("attributes"))))
    )


def _equal(expected: Mapping[str, Any], found: Any, added: frozenset[str] = frozenset()) -> bool:
    """Tell whether attributes are texts and numbers, and the same as others, which have some more.

    Personal values are held against their commitments elsewhere (verify/personal.py): only that one is there matters.
    """
    if found.__class__ is not dict or len(found) != len(expected) + len(added):
        return False
    for name, value in expected.items():
        other = found.get(name)
        if value.__class__ is dict and name in found and _committed(value):
            continue
        if value != other or value.__class__ is not other.__class__ or value.__class__ not in _SINGLE:
            return False
    return all(map(found.__contains__, added)) and (not added or added.isdisjoint(expected))


def _committed(value: Mapping[str, Any]) -> bool:
    try:
        return isinstance(statements.plain(value), statements.Commitment)
    except FormatError:
        return False


def _entry(fields: Mapping[str, Any], document: Mapping[str, Any], attributes: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare the document of an entry that is no span; all of it follows from the statement."""
    digest = leaf_hash(statements.encode(fields))
    yield from _of_log(f"log {fields['type']}", digest, int(fields.get("time") or 0), document)
    yield from _one(f"attributes.{spans.DOCUMENT}", "entry", attributes.get(spans.DOCUMENT))
    # Entries of version 1 had no attributes; nothing was shown of them.
    yield from _attributes("attributes", fields.get("attributes", _NOTHING), attributes, _ADDED_ENTRY)


def checkpoint_mismatches(batch: Batch, document: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare the document of a checkpoint with its note. When it was delivered is no evidence.

    Args:
        batch: what the document says, as far as verification uses it.
        document: the ``_source`` of the document.
    """
    attributes = _mapping(document.get("attributes"))
    yield from _shape(document, attributes)
    yield from _of_log("log checkpoint", leaf_hash(batch.note.encode("utf-8", "replace")), None, document)
    yield from _one(f"attributes.{spans.ORIGIN}", batch.checkpoint().origin, attributes.get(spans.ORIGIN))
    yield from _one(f"attributes.{spans.SIZE}", batch.size, attributes.get(spans.SIZE))
    yield from _attributes("attributes", _NOTHING, attributes, _ADDED_CHECKPOINT)


def _of_log(name: str, digest: bytes, moment: int | None, document: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Compare what all documents of the log itself have (see :func:`auditspan_seal.spans.document_of`)."""
    get = document.get
    yield from _one("trace_id", digest[:16].hex(), get("trace_id"))
    yield from _one("span_id", digest[16:24].hex(), get("span_id"))
    yield from _one("name", name, get("name"))
    yield from _one("kind", "Internal", get("kind"))
    yield from _one("duration", 0, get("duration"))
    if moment is not None:
        yield from _one("@timestamp", moment, time_of(moment, get("@timestamp"), "events" in document))
    for empty in ("parent_span_id", "trace_state", "status", "links", *_DROPPED):
        if get(empty):
            yield empty, None, get(empty)
    scope, resource = _mapping(get("scope")), _mapping(get("resource"))
    yield from _one("scope.name", spans.LOG_SCOPE, scope.get("name"))
    yield from _attributes("scope.attributes", _NOTHING, _mapping(scope.get("attributes")))
    yield from _attributes("resource.attributes", spans.LOG_RESOURCE, _mapping(resource.get("attributes")))


def _shape(document: Mapping[str, Any], attributes: Mapping[str, Any]) -> Iterator[Mismatch]:
    """Find second spellings of fields outside the attributes, and parts that are no objects."""
    for name, inner in _PARTS.items():
        part = document.get(name)
        if part is None:
            continue
        if not isinstance(part, Mapping):
            yield name, "an object", part
        elif inner is not None and not part.keys() <= inner:
            yield from ((f"{name}.{other}", None, part[other]) for other in part.keys() - inner)
    links = document.get("links")
    if links is not None and not isinstance(links, (list, Mapping)):
        yield "links", "a list", links
    if document.keys() <= _KNOWN or (document.keys() <= _KNOWN_OTLP and "data_stream" not in document):
        return
    for name in document.keys() - _KNOWN:
        for path in _paths(name, document[name]):
            # Others may add fields of their own, for example an ingest pipeline.
            if path.split(".")[0] in _KNOWN or f"{path}.".startswith(_OWN) or path in attributes:
                yield path, None, document[name]


def _paths(name: str, value: Any) -> Iterator[str]:
    """Return the names that Elasticsearch knows the values under a field by."""
    if isinstance(value, Mapping) and value:
        for inner, item in value.items():
            yield from _paths(f"{name}.{inner}", item)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for item in value:
            yield from _paths(name, item)
    else:
        yield name


def _salts_as_written(text: Any) -> bool:
    """Tell whether the salts of a document are in the form that we write them in, so that none is there twice."""
    try:
        salts = orjson.loads(text) if isinstance(text, str) else None
        return (
            isinstance(salts, dict)
            and bool(salts)
            and (text == orjson.dumps(salts).decode() or text == json.dumps(salts, separators=(",", ":")))
            and all(base64.b64encode(base64.b64decode(salt, validate=True)).decode() == salt for salt in salts.values())
        )
    except (ValueError, TypeError, binascii.Error):
        return False


def _one(name: str, expected: Any, found: Any) -> Iterator[Mismatch]:
    if type(expected) is not type(found) or expected != found:
        yield name, expected, found


def _attributes(
    prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any], added: Collection[str] = ()
) -> Iterator[Mismatch]:
    values = list(expected.values())
    seen = list(map(found.get, expected))
    types = list(map(type, values))
    # Single values of the same types are the same if they are equal; lists and tagged values are looked into.
    if values != seen or types != list(map(type, seen)) or dict in types or list in types:
        yield from _one_by_one(prefix, expected, found)
    others = found.keys() - expected.keys()
    others.difference_update(added)
    if not others:
        return
    known = {path for name, item in expected.items() for path in _paths(name, _shown(item))}.union(added)
    for name in others:
        # Others may add attributes of their own; ours can only come from the statement, and each only once.
        for path in _paths(name, found[name]):
            if f"{path}.".startswith(_OWN) or path in known:
                yield f"{prefix}.{name}", None, found[name]
                break


def _shown(item: Any) -> Any:
    """Return a mapping as one; what else a value is does not matter here."""
    return item["map"] if isinstance(item, dict) and isinstance(item.get("map"), dict) else None


def _one_by_one(prefix: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Mismatch]:
    for name, item in expected.items():
        if item.__class__ in _SINGLE and item.__class__ is found.get(name).__class__ and item == found[name]:
            continue  # nearly all
        value = statements.plain(item)
        if isinstance(value, statements.Commitment) or (
            name not in found and removed(name, expected, found, prefix == "attributes")
        ):
            continue  # personal values are held against their commitments (verify/personal.py)
        if not same(value, found.get(name)):
            yield f"{prefix}.{name}", value, found.get(name)


def _links(expected: list[Any], found: Any) -> Iterator[Mismatch]:
    links = found if isinstance(found, list) else [found] if isinstance(found, Mapping) else []
    if len(links) != len(expected):
        yield "links", len(expected), len(links)
        return
    for position, (link, other) in enumerate(zip(expected, links, strict=True)):
        other = _mapping(other)
        for name in ("trace_id", "span_id"):
            yield from _one(f"links[{position}].{name}", link[name], other.get(name))
        if other.get("trace_state"):  # the SDK's exporter leaves it out
            yield from _one(f"links[{position}].trace_state", link["trace_state"], other["trace_state"])
        for name in other.keys() - {"trace_id", "span_id", "trace_state", "attributes"}:
            if other[name]:
                yield f"links[{position}].{name}", None, other[name]
        yield from _attributes(f"links[{position}].attributes", link["attributes"], _mapping(other.get("attributes")))


def _events(expected: list[Any], found: Any) -> Iterator[Mismatch]:
    events = found if isinstance(found, list) else []
    if len(events) != len(expected):
        yield "events", len(expected), len(events)
        return
    for position, (event, other) in enumerate(zip(expected, events, strict=True)):
        other = _mapping(other)
        yield from _one(f"events[{position}].name", event["name"], other.get("name"))
        yield from _one(f"events[{position}].time", int(event["time"]), other.get("time"))
        yield from _attributes(f"events[{position}].attributes", event["attributes"], _mapping(other.get("attributes")))


def _mapping(item: Any) -> Mapping[str, Any]:
    return item if isinstance(item, dict) else {}
