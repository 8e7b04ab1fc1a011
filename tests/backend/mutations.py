# SPDX-License-Identifier: Apache-2.0
"""What somebody can do to honest documents, at random, each with what verification must say about it.

Two kinds. Of those that concern one or two documents (`SINGLE`), many are done at a time, to documents far from each
other: each must be found, by its document or its place and with its reason, and nothing else may be said. Of those
that concern a log (`WHOLE`) one is done at a time.
"""

from __future__ import annotations

import base64
import copy
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from auditspan_seal import spans
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note, VerifierKey
from auditspan_seal.verify import elasticsearch as subject
from auditspan_seal.verify.report import Claim, Code, Finding, Report, Verdict
from auditspan_seal.witness.trusted import TrustedCheckpoint
from tests.backend.honest import Hit
from tests.backend.honest import Log as Directory

OWN = ("audit.", "automation.")
Path = tuple[str | int, ...]


def verify(hits: Sequence[Hit], keys: Sequence[VerifierKey] = (), trusted: Sequence[TrustedCheckpoint] = ()) -> Report:
    """Verify documents as the command does, with the keys and the checkpoints that are to be trusted."""
    if "trusted" in inspect.signature(subject.verify_documents).parameters:
        return subject.verify_documents(hits, "mutations", *keys, trusted=trusted)  # type: ignore[call-arg]
    from auditspan_seal.verify.core import Trust

    return subject.verify_documents(hits, "mutations", trust=Trust(keys=keys, checkpoints=trusted))


# -- the honest documents ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Log:
    """The documents of one log.

    Attributes:
        entries: by index.
        checkpoints: by tree size.
        key: its public key.
        private: its private key, for the thief.
    """

    entries: list[Hit]
    checkpoints: list[Hit]
    key: VerifierKey
    private: Ed25519PrivateKey

    @property
    def origin(self) -> str:
        return self.key.name

    @property
    def hits(self) -> list[Hit]:
        return [*self.entries, *self.checkpoints]

    def trusted(self, at: int) -> TrustedCheckpoint:
        """Return one of its checkpoints as a second place has it."""
        parsed = Checkpoint.parse(Note.parse(attributes(self.checkpoints[at])[spans.NOTE]).text)
        return TrustedCheckpoint(self.origin, parsed.size, parsed.root, "the archive of the test", None, ())


def attributes(hit: Hit) -> dict[str, Any]:
    found: dict[str, Any] = hit["_source"]["attributes"]
    return found


def kind_of(hit: Hit) -> str:
    """Return what a document is: span, entry or checkpoint."""
    return str(attributes(hit).get(spans.DOCUMENT, "span"))


def logs_of(hits: Sequence[Hit], directories: Sequence[Directory]) -> list[Log]:
    """Put documents that were read back in order."""
    found = []
    for directory in directories:
        own = [hit for hit in hits if attributes(hit)[spans.ORIGIN] == directory.origin]
        entries = [hit for hit in own if kind_of(hit) != "checkpoint"]
        checkpoints = [hit for hit in own if kind_of(hit) == "checkpoint"]
        private = load_pem_private_key((directory.directory.path / "key.pem").read_bytes(), None)
        assert isinstance(private, Ed25519PrivateKey)
        found.append(
            Log(
                sorted(entries, key=lambda hit: attributes(hit)[spans.INDEX]),
                sorted(checkpoints, key=lambda hit: attributes(hit)[spans.SIZE]),
                directory.key,
                private,
            )
        )
    return found


# -- what is expected -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """One thing that must be said.

    Attributes:
        codes: with one of these codes (none: nothing must be said),
        documents: of one of these documents,
        places: or of one of these places (log and index).
        field: and, if not empty, of this field.
        also: what may be said of the same documents and places besides.
    """

    codes: frozenset[Code]
    documents: frozenset[str] = frozenset()
    places: frozenset[tuple[str | None, int | None]] = frozenset()
    field: str = ""
    also: frozenset[Code] = frozenset()

    def concerns(self, finding: Finding) -> bool:
        return finding.document_id in self.documents or (finding.origin, finding.index) in self.places

    def meets(self, finding: Finding) -> bool:
        at = not self.field or finding.field == self.field
        return self.concerns(finding) and finding.code in self.codes and at

    def allows(self, finding: Finding) -> bool:
        return self.concerns(finding) and finding.code in self.codes | self.also


@dataclass
class Mutation:
    """One thing done to one or two documents.

    Attributes:
        what: said when it is not found.
        replaced: document ID → what is there instead; nothing: it was deleted.
        expected: all that must be said.
    """

    what: str
    replaced: dict[str, list[Hit]]
    expected: list[Expected]


def expect(
    *codes: Code, hits: Sequence[Hit] = (), at: Sequence[Hit] = (), field: str = "", also: Sequence[Code] = ()
) -> Expected:
    """Expect a code of some documents, or at the places of some documents."""
    places = {(attributes(hit)[spans.ORIGIN], attributes(hit)[spans.INDEX]) for hit in at}
    return Expected(frozenset(codes), frozenset(hit["_id"] for hit in hits), frozenset(places), field, frozenset(also))


def misses(findings: Sequence[Finding], mutations: Sequence[Mutation]) -> list[str]:
    """Say what should have been found and was not, and what was said without reason."""
    wrong = []
    expected = [(mutation, item) for mutation in mutations for item in mutation.expected]
    for mutation, item in expected:
        if item.codes and not any(item.meets(finding) for finding in findings):
            concerned = [(f.code.value, f.field) for f in findings if item.concerns(f)]
            codes = "/".join(sorted(code.value for code in item.codes))
            wrong.append(f"not found as {codes} {item.field} (but as {concerned}): {mutation.what}")
    for finding in findings:
        if not any(item.allows(finding) for _, item in expected):
            near = [mutation.what for mutation, item in expected if item.concerns(finding)]
            wrong.append(f"said without reason: {finding} (near: {near})")
    return wrong


# -- values -----------------------------------------------------------------------------------------------------------


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Return every value in a document that is not made of others, with its path."""
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    elif isinstance(value, list) and value:
        for at, item in enumerate(value):
            yield from leaves(item, (*path, at))
    else:
        yield path, value


def dotted(path: Path) -> str:
    """Return a path as findings name fields."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def changed(hit: Hit, path: Path, value: Any) -> Hit:
    """Return a document with one value changed; the rest is shared."""
    return {**hit, "_source": _with(hit["_source"], path, value)}


REMOVED = object()


def _with(holder: Any, path: Path, value: Any) -> Any:
    step, rest = path[0], path[1:]
    made = holder.copy()
    if rest:
        made[step] = _with(holder[step], rest, value)
    elif value is REMOVED:
        del made[step]
    else:
        made[step] = value
    return made


def said(hit: Hit, **values: Any) -> Hit:
    """Return a document with some of the attributes that the log adds changed."""
    return {**hit, "_source": {**hit["_source"], "attributes": {**attributes(hit), **values}}}


def another(chance: random.Random, value: Any) -> Any:
    """Return something that is not `value`: near it, far from it, or of another type."""
    if isinstance(value, bool):
        return chance.choice([not value, int(value), str(value).lower(), None, [value, value]])
    if isinstance(value, int):
        near = [value + 1, value - 1, value ^ (1 << chance.randrange(40)), -value - 1, value * 10 + 1]
        return chance.choice(
            [*near, chance.randrange(2**40) + value + 1, str(value), float(value) + 0.5, None, [value, 1]]
        )
    if isinstance(value, float):
        return chance.choice([value + 1, -value - 1, value * 1.001 + 0.1, str(value), None, True])
    if isinstance(value, str):
        return _text(chance, value)
    if value == []:
        return chance.choice([["x"], [{}], "x", {"x": 1}, 0])
    if value == {}:
        return chance.choice([{"x": 1}, ["x"], "x", 5])
    return chance.choice([1, "x", True])


LOOKALIKES = str.maketrans("aceopxyiABCEHKMOPTX0-./", "асеорхуіАВСЕНКМОРТХО‐․∕")  # noqa: RUF001


def _text(chance: random.Random, value: str) -> Any:
    at = chance.randrange(len(value) + 1)
    made: list[Any] = [
        value[:at] + chance.choice("x0 é漢\u200b\u202e\n") + value[at:],
        value[: chance.randrange(len(value))] if value else "x",
        value[: at - 1] + value[at:] if at else value + " ",
        value.swapcase() + ("" if value.swapcase() != value else "x"),
        value.translate(LOOKALIKES) if value.translate(LOOKALIKES) != value else value + "\u00ad",
        value[::-1] if value[::-1] != value else value + "x",
        f" {value}", f"{value} ", value + "\0", "", None, [value, value], {"": value},
    ]  # fmt: skip
    if value.isascii() and value.isdigit():
        made += [int(value), str(int(value) + 1), "0" + value]
    choice = chance.choice(made)
    return choice if choice != value else value + "x"


def empty_alike(value: Any, other: Any) -> bool:
    """Tell whether two values are both nothing to every reader: null, no value, an empty list or object."""
    return all(item is None or item is REMOVED or item in ([], {}) for item in (value, other))


# -- one document -----------------------------------------------------------------------------------------------------

Single = Callable[[random.Random, Hit, Hit], Mutation | None]
"""Does something to one document, or to two; None: it cannot be done to these."""

# Where a document is kept is not what it says: the exporter writes these by its routing.
NOT_EVIDENCE = ("data_stream.type", "data_stream.dataset", "data_stream.namespace")
_STATEMENT: Path = ("attributes", spans.STATEMENT)


def fields_of(hit: Hit) -> list[tuple[Path, Any]]:
    """Return every value of a document that is evidence, but its statement."""
    return [
        (path, value)
        for path, value in leaves(hit["_source"])
        if path != _STATEMENT and dotted(path) not in NOT_EVIDENCE
    ]


def edit_field(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Edit any field."""
    path, value = chance.choice(fields_of(hit))
    return edit_one(hit, path, value, chance.choice(TIMES)(value) if path == _TIME else another(chance, value))


def edit_one(hit: Hit, path: Path, value: Any, new: Any) -> Mutation | None:
    """Edit one field, unless that is no edit, or makes of a list what synthetic source would."""
    if empty_alike(value, new) or new == value:
        return None
    if isinstance(path[-1], int):
        old, made = _at(hit["_source"], path[:-1]), _at(changed(hit, path, new)["_source"], path[:-1])
        texts = all(isinstance(item, str) for item in old)
        if made == sorted(set(old), key=str.encode if texts else None):
            return None
    return _edited(hit, path, value, new)


def _at(holder: Any, path: Path) -> Any:
    for step in path:
        holder = holder[step]
    return holder


_TIME: Path = ("@timestamp",)


def _moment(value: str) -> tuple[int, str]:
    milliseconds, _, rest = value.partition(".")
    return int(milliseconds), rest or "0"


# Other times, and other spellings of the same time that somebody may read otherwise.
TIMES: list[Callable[[str], Any]] = [
    lambda value: _moment(value)[0] * 1_000_000 + int(_moment(value)[1]),
    lambda value: _moment(value)[0],
    lambda value: float(value) if len(_moment(value)[1]) > 3 else None,
    lambda value: f"0{value}",
    lambda value: f"{value}0" if len(_moment(value)[1]) < 6 else f"{value}00",
    lambda value: f"{_moment(value)[0]}.0{_moment(value)[1]}",
    lambda value: f"{_moment(value)[0] + 1}.{_moment(value)[1]}",
    lambda value: f"{_moment(value)[0]}.{int(_moment(value)[1]) + 1}",
    lambda value: f"{_moment(value)[0] - 3_600_000}.{_moment(value)[1]}",
    lambda value: f" {value}",
    lambda value: [value],
    lambda value: "2026-01-01T00:00:00.000Z",
    lambda value: "",
    lambda value: None,
]


def remove_field(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Remove any field, or all that is below it."""
    path, value = chance.choice(fields_of(hit))
    if len(path) > 1 and chance.random() < 0.05:
        path = path[:1]  # all attributes, the whole resource, ...
        if path == ("data_stream",):
            return None
        new = changed(hit, path, REMOVED)
        if path == ("attributes",):
            return Mutation(
                f"{hit['_id']}: remove {dotted(path)}", {hit["_id"]: [new]},
                [expect(Code.FOREIGN_DOCUMENT, hits=[hit]), expect(Code.ENTRY_MISSING, at=[hit])],
            )  # fmt: skip
        if not any(item not in (None, [], {}) for _, item in leaves(hit["_source"][path[0]])):
            return None
        return Mutation(
            f"{hit['_id']}: remove {dotted(path)}", {hit["_id"]: [new]}, [expect(Code.FIELD_MISMATCH, hits=[hit])]
        )
    return edit_one(hit, path, value, REMOVED)


def _edited(hit: Hit, path: Path, value: Any, new: Any) -> Mutation:
    what = f"{hit['_id']}: {dotted(path)} from {value!r} to {'nothing' if new is REMOVED else repr(new)}"
    made = changed(hit, path, new)
    name = dotted(path)
    if name == f"attributes.{spans.DOCUMENT}" and new == "checkpoint":
        return Mutation(
            what, {hit["_id"]: [made]},
            [expect(Code.CHECKPOINT_INVALID, hits=[hit]), expect(Code.ENTRY_MISSING, at=[hit])],
        )  # fmt: skip
    expected = [expect(Code.FIELD_MISMATCH, hits=[hit], field=_named(path))]
    if name == f"attributes.{spans.PRIVATE}" or path == ("status",):  # of salts it is the values that do not open then
        expected = [expect(Code.FIELD_MISMATCH, hits=[hit])]
    elif name == f"attributes.{spans.ORIGIN}" and isinstance(new, str):
        expected.append(  # it may be said, too, that nothing is known of the log that it claims to be of
            Expected(frozenset(), places=frozenset({(new, None)}), also=frozenset({Code.NO_CHECKPOINT}))
        )
    return Mutation(what, {hit["_id"]: [made]}, expected)


def _named(path: Path) -> str:
    """Return the field that a finding names for a value: of lists in attributes, the whole attribute."""
    if "attributes" in path:
        at = path.index("attributes")
        return dotted(path[: at + 2])
    if path[0] == "links":
        return dotted(path) if len(path) > 2 else ""
    return dotted(path)


def add_field(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Add a field that was never there: of ours, a second spelling of one that is there, or one of the exporter's."""
    own = [name for name in attributes(hit) if name.startswith(OWN) and name not in (spans.STATEMENT, spans.PRIVATE)]
    name = chance.choice(own)
    lie: Any = chance.choice(["a lie", 7, True, ["a", "lie"]])
    shape = chance.randrange(10)
    source: dict[str, Any] = copy.copy(hit["_source"])
    held = copy.copy(source["attributes"])
    first, rest = name.split(".", 1)
    if shape == 0:  # a record says something that no record of it ever said
        held[chance.choice(["audit.approved.by", "automation.outcome", "audit.rationale.more", "audit.x"])] = lie
    elif shape == 1:  # the same field twice: dotted, and as an object
        held[first] = _nested(rest.split("."), lie)
    elif shape == 2:
        head, last = name.rsplit(".", 1)
        held[head] = {last: lie}
    elif shape == 3:  # the same from outside the attributes
        source[f"attributes.{name}"] = lie
    elif shape == 4:
        source["attributes." + first] = _nested(rest.split("."), lie)
    elif shape == 5:  # attributes are fields of the document itself, too (passthrough)
        source[name] = lie
    elif shape == 6:
        source[first] = _nested(rest.split("."), lie)
    elif shape == 7:
        spelled = chance.choice(
            ["status.code", "scope.name", "resource.attributes.service.name", "resource.attributes"]
        )
        source[spelled] = {"service.name": lie} if spelled == "resource.attributes" else lie
    elif shape == 8:
        place = chance.choice(["scope", "resource"])
        inner = {**source.get(place, {})}
        inner["attributes"] = {**inner.get("attributes", {}), name: lie}
        source[place] = inner
    else:
        count = chance.choice(["dropped_attributes_count", "dropped_events_count", "dropped_links_count"])
        if source.get(count):
            return None
        source[count] = chance.randint(2, 99)
    source["attributes"] = held
    return Mutation(
        f"{hit['_id']}: add {name} in shape {shape}", {hit["_id"]: [{**hit, "_source": source}]},
        [expect(Code.FIELD_MISMATCH, hits=[hit])],
    )  # fmt: skip


def _nested(steps: list[str], value: Any) -> dict[str, Any]:
    return {steps[0]: _nested(steps[1:], value) if len(steps) > 1 else value}


def edit_statement(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Edit the statement: any value in it, written as a statement is written, or any character."""
    text = attributes(hit)[spans.STATEMENT]
    if chance.random() < 0.5:
        fields = orjson.loads(text)
        path, value = chance.choice(list(leaves(fields)))
        new = another(chance, value)
        made = orjson.dumps(_with(fields, path, new), option=orjson.OPT_SORT_KEYS).decode()
        what = f"{dotted(path)} from {value!r} to {new!r}"
    else:
        at = chance.randrange(len(text))
        char = chance.choice('x0"{}[],: \n\t\\é')
        made = chance.choice(
            [text[:at] + char + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + char + text[at:], text[:at],
             text + " ", "\ufeff" + text, text + text]
        )  # fmt: skip
        what = f"at character {at}"
    if made == text:
        return None
    return Mutation(
        f"{hit['_id']}: statement {what}", {hit["_id"]: [said(hit, **{spans.STATEMENT: made})]},
        [expect(Code.STATEMENT_ALTERED, hits=[hit])],
    )  # fmt: skip


def edit_both(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Edit a field and say the same in the statement."""
    fields = orjson.loads(attributes(hit)[spans.STATEMENT])
    names = [
        name
        for name, value in fields["attributes"].items()
        if isinstance(value, (str, int)) and attributes(hit).get(name) == value
    ]
    name = chance.choice(names)
    new = another(chance, fields["attributes"][name])
    fields["attributes"][name] = new
    made = said(hit, **{name: new, spans.STATEMENT: orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()})
    return Mutation(
        f"{hit['_id']}: {name} to {new!r}, also in the statement", {hit["_id"]: [made]},
        [expect(Code.STATEMENT_ALTERED, hits=[hit])],
    )  # fmt: skip


def remove_statement(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Remove the statement, or put something else than text there."""
    new = chance.choice([REMOVED, None, 5, True, {}, {"x": 1}, [attributes(hit)[spans.STATEMENT]]])
    return Mutation(
        f"{hit['_id']}: statement {'removed' if new is REMOVED else new!r}",
        {hit["_id"]: [changed(hit, _STATEMENT, new)]},
        [expect(Code.FOREIGN_DOCUMENT, hits=[hit]), expect(Code.ENTRY_MISSING, at=[hit])],
    )


def delete(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Delete a document."""
    return Mutation(f"{hit['_id']}: deleted", {hit["_id"]: []}, [expect(Code.ENTRY_MISSING, at=[hit])])


def duplicate(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Put a copy beside a document: before or after it, in the same index or in another one."""
    twin = {**hit, "_id": f"{hit['_id']}-copy"}
    if chance.random() < 0.5:
        twin["_index"] = hit["_index"].replace("-000001", "-000002")
    pair = [hit, twin] if chance.random() < 0.5 else [twin, hit]
    return Mutation(f"{hit['_id']}: copied", {hit["_id"]: pair}, [expect(Code.DUPLICATE_DOCUMENT, hits=[hit, twin])])


def edit_copy(chance: random.Random, hit: Hit, other: Hit) -> Mutation | None:
    """Put what looks like an honest second delivery (same ID, other index) beside a document, and edit that."""
    made = edit_field(chance, hit, other)
    if made is None or made.expected[0].codes != {Code.FIELD_MISMATCH}:
        return None
    (edited,) = made.replaced[hit["_id"]]
    twin = {**edited, "_index": hit["_index"].replace("-000001", "-000002")}
    made.replaced[hit["_id"]] = [hit, twin] if chance.random() < 0.5 else [twin, hit]
    made.expected[0] = Expected(
        made.expected[0].codes | {Code.DUPLICATE_DOCUMENT}, made.expected[0].documents, also=made.expected[0].codes
    )
    made.what = f"second delivery, and there {made.what}"
    return made


_NUMBER = iter(range(10**9))


def forge(chance: random.Random, hit: Hit, _: Hit) -> Mutation | None:
    """Insert a document that nobody recorded, modelled on one that is there."""
    fields = orjson.loads(attributes(hit)[spans.STATEMENT])
    fields["attributes"] = {**fields["attributes"], "audit.record.id": f"forged-{chance.getrandbits(64):x}"}
    text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
    made = said(hit, **{spans.STATEMENT: text, "audit.record.id": fields["attributes"]["audit.record.id"]})
    made["_id"] = f"forged-{next(_NUMBER)}"
    shape = chance.randrange(7)
    expected = expect(Code.STATEMENT_ALTERED, hits=[made])
    if shape == 1:
        made = said(made, **{spans.INDEX: chance.choice([-1, -7, None, True, "5", 2.5, 2**70])})
    elif shape == 2:
        made = said(made, **{spans.INDEX: 100_000 + chance.randrange(2**40)})
        expected = expect(Code.ENTRY_UNCOVERED, hits=[made])
    elif shape == 3:
        made = changed(made, _STATEMENT, REMOVED)
        expected = expect(Code.FOREIGN_DOCUMENT, hits=[made])
    elif shape == 4:
        origin = f"elsewhere/auditspan/{chance.getrandbits(64):016x}"
        made = said(made, **{spans.ORIGIN: origin})
        expected = Expected(frozenset({Code.NO_CHECKPOINT}), places=frozenset({(origin, None)}))
    elif shape == 5:
        made = changed(made, ("attributes", spans.ORIGIN), chance.choice([REMOVED, None, 5]))
    elif shape == 6:
        made = said(made, **{spans.STATEMENT: chance.choice(["", "{}", "[]", "null", "nonsense", "[" * 500])})
    # Where the forged one is read before the honest one, it must not take its place.
    pair = [hit, made] if chance.random() < 0.5 else [made, hit]
    return Mutation(f"{hit['_id']}: forged beside it, in shape {shape}", {hit["_id"]: pair}, [expected])


# -- personal values --------------------------------------------------------------------------------------------------


def personal_of(hit: Hit) -> dict[str, str]:
    """Return the salts of the personal values of a document."""
    found: dict[str, str] = orjson.loads(attributes(hit).get(spans.PRIVATE) or "{}")
    return found


def edit_personal(chance: random.Random, hit: Hit, other: Hit) -> Mutation | None:
    """Alter, remove, exchange or bring back a personal value, or its salt."""
    salts = personal_of(hit)
    fields = orjson.loads(attributes(hit)[spans.STATEMENT])
    gone = [
        name
        for name, value in fields["attributes"].items()
        if isinstance(value, dict) and "commitment" in value and name not in salts
    ]
    what, code = "", Code.FIELD_MISMATCH
    new = {**attributes(hit)}
    if gone and chance.random() < 0.8:  # erased on record; whatever is put there now must not look like it
        name = chance.choice(gone)
        new[name] = "somebody"
        if chance.random() < 0.5:
            new[spans.PRIVATE] = orjson.dumps({**salts, name: base64.b64encode(chance.randbytes(16)).decode()}).decode()
        what, code = f"{name} is there again", Code.ERASED_VALUE_PRESENT
    elif not salts:
        return None
    else:
        name = chance.choice(list(salts))
        shape = chance.randrange(6)
        if shape == 0:
            new[name] = another(chance, new[name])
            if new[name] is None:
                return None
            what = f"{name} to {new[name]!r}"
        elif shape == 1:
            salts[name] = base64.b64encode(chance.randbytes(16)).decode()
            what = f"the salt of {name} to another"
        elif shape == 2:
            del new[name]
            del salts[name]
            what, code = f"{name} and its salt removed", Code.VALUE_REMOVED
        elif shape == 3:
            del salts[name]
            what = f"the salt of {name} removed"
        elif shape == 4:
            theirs = personal_of(other)
            if name not in theirs or name not in attributes(other) or attributes(other)[name] == new[name]:
                return None
            new[name], salts[name] = attributes(other)[name], theirs[name]
            what = f"{name} with its salt from {other['_id']}"
        else:
            salts[f"audit.{chance.getrandbits(32):x}"] = salts[name]
            name, what = next(reversed(salts)), "a salt for a value that was never there"
        new[spans.PRIVATE] = orjson.dumps(salts).decode()
        if not salts:
            del new[spans.PRIVATE]
    made = {**hit, "_source": {**hit["_source"], "attributes": new}}
    return Mutation(
        f"{hit['_id']}: {what}", {hit["_id"]: [made]}, [expect(code, hits=[hit], field=f"attributes.{name}")]
    )


# -- two documents ----------------------------------------------------------------------------------------------------


def swap_statements(chance: random.Random, hit: Hit, other: Hit) -> Mutation | None:
    """Exchange the statements of two documents, alone or with some of the attributes that the log adds."""
    names = [spans.STATEMENT]
    for name in (spans.INDEX, spans.STREAM, spans.NUMBER, spans.ORIGIN, spans.PRIVATE):
        if chance.random() < 0.3:
            names.append(name)
    one, two = _exchanged(hit, other, names)
    return Mutation(
        f"{hit['_id']}, {other['_id']}: exchange {names}", {hit["_id"]: [one], other["_id"]: [two]},
        [expect(Code.FIELD_MISMATCH, hits=[one], also=_PERSONAL) for one in (hit, other)],
    )  # fmt: skip


_PERSONAL = (Code.VALUE_REMOVED, Code.ERASED_VALUE_PRESENT)


def _exchanged(hit: Hit, other: Hit, names: Sequence[str]) -> tuple[Hit, Hit]:
    here, there = attributes(hit), attributes(other)
    one = {**here, **{name: there[name] for name in names if name in there}}
    two = {**there, **{name: here[name] for name in names if name in here}}
    return said(hit, **one), said(other, **two)


def move_statement(chance: random.Random, hit: Hit, other: Hit) -> Mutation | None:
    """Put the statement of one document into another, which loses its own; the first stays, or goes."""
    text = attributes(hit)[spans.STATEMENT]
    moved = said(other, **{spans.STATEMENT: text})
    gone = expect(Code.ENTRY_MISSING, at=[other])
    if chance.random() < 0.5:
        return Mutation(
            f"{hit['_id']}: statement copied to {other['_id']}", {other["_id"]: [moved], hit["_id"]: [hit]},
            [expect(Code.DUPLICATE_DOCUMENT, hits=[hit, other], also=(Code.FIELD_MISMATCH, *_PERSONAL)), gone],
        )  # fmt: skip
    return Mutation(
        f"{hit['_id']}: statement moved to {other['_id']}", {other["_id"]: [moved], hit["_id"]: []},
        [expect(Code.FIELD_MISMATCH, hits=[other], also=_PERSONAL), gone],
    )  # fmt: skip


def reorder(chance: random.Random, hit: Hit, other: Hit) -> Mutation | None:
    """Exchange what says where two documents belong: index, number, time, or all of them."""
    names = chance.choice([[spans.INDEX], [spans.NUMBER], [spans.INDEX, spans.NUMBER, spans.STREAM], ["@timestamp"]])
    if names == ["@timestamp"]:
        one = changed(hit, ("@timestamp",), other["_source"]["@timestamp"])
        two = changed(other, ("@timestamp",), hit["_source"]["@timestamp"])
        if one["_source"]["@timestamp"] == two["_source"]["@timestamp"]:
            return None
    else:
        one, two = _exchanged(hit, other, names)
        if all(attributes(one)[name] == attributes(hit)[name] for name in names):
            return None
    return Mutation(
        f"{hit['_id']}, {other['_id']}: exchange {names}", {hit["_id"]: [one], other["_id"]: [two]},
        [expect(Code.FIELD_MISMATCH, hits=[hit]), expect(Code.FIELD_MISMATCH, hits=[other])],
    )  # fmt: skip


SINGLE: dict[str, Single] = {
    "edit a field of a document": edit_field,
    "remove a field of a document": remove_field,
    "add a field to a document": add_field,
    "edit a statement": edit_statement,
    "edit document and statement alike": edit_both,
    "remove a statement": remove_statement,
    "delete a document": delete,
    "duplicate a document": duplicate,
    "edit a second delivery": edit_copy,
    "insert a forged document": forge,
    "edit a personal value": edit_personal,
    "swap two statements": swap_statements,
    "move a statement": move_statement,
    "reorder": reorder,
}


def apply(hits: Sequence[Hit], mutations: Sequence[Mutation]) -> list[Hit]:
    """Return the documents with the mutations done to them."""
    replaced: dict[str, list[Hit]] = {}
    for mutation in mutations:
        replaced |= mutation.replaced
    return [new for hit in hits for new in replaced.get(hit["_id"], (hit,))]


# -- whole logs -------------------------------------------------------------------------------------------------------


@dataclass
class Attack:
    """One thing done to a log.

    Attributes:
        what: said when it is not found.
        hits: all documents afterwards.
        codes: one of these must be found; nothing in it: nothing can be found in the documents themselves.
        document: and it must name this document, if not empty.
        trusted: what a second place has seen, for the thief's attacks.
        caught: what must be found with the checkpoints of the second place.
        open: claims that must not be held to be proven without them.
        keys: the keys that the auditor has; None: that of the log.
    """

    what: str
    hits: list[Hit]
    codes: frozenset[Code]
    document: str = ""
    trusted: TrustedCheckpoint | None = None
    caught: frozenset[Code] = frozenset()
    open: tuple[Claim, ...] = ()
    keys: tuple[VerifierKey, ...] | None = None


Whole = Callable[[random.Random, Log], Attack | None]

_CUT = (Claim.NOTHING_CUT_OFF,)
_REWRITTEN = (Claim.HISTORY_NOT_REWRITTEN,)
_BROKEN = frozenset({Code.CHECKPOINT_INVALID, Code.CHECKPOINT_CONFLICT, Code.WRONG_KEY})
# When the exporter wrote the document of a checkpoint proves nothing: no statement says it.
NOT_EVIDENCE_OF_CHECKPOINTS = (*NOT_EVIDENCE, "@timestamp")


def attack_misses(attack: Attack, log: Log) -> list[str]:
    """Say what verification should have said of an attack and did not."""
    keys = (log.key,) if attack.keys is None else attack.keys
    wrong = []
    report = verify(attack.hits, keys)
    codes = {finding.code for finding in report.findings}
    named = {finding.document_id for finding in report.findings if finding.code in attack.codes}
    if attack.codes and not codes & attack.codes:
        wrong.append(f"found {sorted(codes)}, not one of {sorted(attack.codes)}: {attack.what}")
    elif attack.document and attack.document not in named:
        wrong.append(f"found in {named}, not in {attack.document}: {attack.what}")
    if attack.codes and report.verdict is Verdict.PASSED:
        wrong.append(f"PASSED: {attack.what}")
    claims = {claim: verdict for claim, verdict, _ in report.claims()}
    wrong += [
        f"{claim.value} is called proven: {attack.what}" for claim in attack.open if claims[claim] is Verdict.PASSED
    ]
    if not attack.codes and codes:
        wrong.append(f"nothing in the documents can show it, but {sorted(codes)}: {attack.what}")
    if attack.trusted is not None:
        report = verify(attack.hits, keys, [attack.trusted])
        codes = {finding.code for finding in report.findings}
        if not codes & attack.caught or report.verdict is not Verdict.FAILED:
            wrong.append(f"with {attack.trusted}: {report.verdict.value}, {sorted(codes)}: {attack.what}")
    return wrong


def edit_checkpoint(chance: random.Random, log: Log) -> Attack | None:
    """Edit, remove or add a field of a checkpoint."""
    hit = chance.choice(log.checkpoints)
    fields = [
        (path, value) for path, value in leaves(hit["_source"]) if dotted(path) not in NOT_EVIDENCE_OF_CHECKPOINTS
    ]
    path, value = chance.choice(fields)
    if chance.random() < 0.4:  # more often what verification rests on than a name
        path = ("attributes", chance.choice([spans.NOTE, spans.FIRST, spans.SIZE, spans.FRONTIER, spans.LEAVES]))
        value = attributes(hit)[path[1]]
    new = _hashes(chance, value) if path[-1] in (spans.FRONTIER, spans.LEAVES) else another(chance, value)
    codes = _BROKEN
    if chance.random() < 0.1:
        new = REMOVED
    if chance.random() < 0.1:
        path, new = ("attributes", chance.choice(["audit.outcome", "audit.checkpoint.x", "automation.y"])), "a lie"
    if empty_alike(value, new) and path[-1] in ("links", "status", spans.FRONTIER):
        return None
    made = changed(hit, path, new)
    if path[-1] == spans.DOCUMENT:
        codes = frozenset({Code.FOREIGN_DOCUMENT})
    hits = [made if other is hit else other for other in log.hits]
    document = hit["_id"]
    if path[-1] == spans.NOTE and isinstance(new, str) and new.partition("\n")[0] != log.origin:
        document = ""  # it may count for the log that it now says it is of
        codes |= {Code.CHECKPOINT_MISSING, Code.NO_KEY, Code.ENTRY_UNCOVERED, Code.PREFIX_MISSING}
    return Attack(f"{hit['_id']}: {dotted(path)} from {value!r} to {new!r}", hits, codes, document)


def _hashes(chance: random.Random, value: str) -> Any:
    """Return other hashes: one altered, removed, added, or two exchanged."""
    raw = base64.b64decode(value)
    parts = [raw[at : at + 32] for at in range(0, len(raw), 32)]
    shape = chance.randrange(5)
    if shape == 0 and parts:
        parts[chance.randrange(len(parts))] = chance.randbytes(32)
    elif shape == 1 and parts:
        del parts[chance.randrange(len(parts))]
    elif shape == 2 and len(parts) > 1:
        one, two = chance.sample(range(len(parts)), 2)
        parts[one], parts[two] = parts[two], parts[one]
    elif shape == 3:
        return another(chance, value)
    else:
        parts.insert(chance.randrange(len(parts) + 1), chance.randbytes(32))
    return base64.b64encode(b"".join(parts)).decode()


def delete_checkpoint(chance: random.Random, log: Log) -> Attack | None:
    """Delete one or several checkpoints."""
    gone = chance.sample(log.checkpoints, chance.choice([1, 1, 2, 3, len(log.checkpoints) - 1]))
    codes = frozenset({Code.CHECKPOINT_MISSING, Code.PREFIX_MISSING, Code.ENTRY_UNCOVERED})
    what = [attributes(hit)[spans.SIZE] for hit in gone]
    return Attack(f"checkpoints {what} deleted", [hit for hit in log.hits if hit not in gone], codes)


def exchange_checkpoints(chance: random.Random, log: Log) -> Attack | None:
    """Exchange something between two checkpoints, or put an older note into a newer document."""
    one, two = chance.sample(log.checkpoints, 2)
    names = [spans.NOTE, spans.FIRST, spans.SIZE, spans.FRONTIER, spans.LEAVES]
    names = chance.sample(names, chance.randint(1, len(names) - 1))
    here, there = _exchanged(one, two, names)
    if here["_source"] == one["_source"]:
        return None
    pair = {one["_id"]: here} if chance.random() < 0.5 else {one["_id"]: here, two["_id"]: there}
    hits = [pair.get(hit["_id"], hit) for hit in log.hits]
    return Attack(f"{names} of {one['_id']} and {two['_id']} exchanged ({len(pair)})", hits, _BROKEN)


def edit_entry(chance: random.Random, log: Log) -> Attack | None:
    """Edit any field of a document of an entry that is no span: genesis, erasure."""
    entries = [hit for hit in log.entries if kind_of(hit) == "entry"]
    hit = chance.choice(entries)
    way = chance.choice([edit_field, remove_field, add_field, edit_statement, edit_both, remove_statement, duplicate])
    made = way(chance, hit, hit)
    if made is None or not made.expected:
        return None
    codes = frozenset(code for item in made.expected for code in item.codes)
    if any(path in made.what for path in ("audit.log.document from",)):
        codes |= {Code.FIELD_MISMATCH}
    hits = apply(log.hits, [made])
    return Attack(made.what, hits, codes, "" if way is duplicate else hit["_id"])


def delete_entry(chance: random.Random, log: Log) -> Attack | None:
    """Delete an entry that is no span: the erasure that others rest on, or the beginning of the log."""
    hit = chance.choice([hit for hit in log.entries if kind_of(hit) == "entry"])
    hits = [other for other in log.hits if other is not hit]
    return Attack(f"{hit['_id']} deleted", hits, frozenset({Code.ENTRY_MISSING}))


def delete_many(chance: random.Random, log: Log) -> Attack | None:
    """Delete a range, or many documents here and there."""
    size = len(log.entries)
    if chance.random() < 0.5:
        begin = chance.randrange(size)
        gone = log.entries[begin : begin + chance.randint(1, size)]
    else:
        gone = chance.sample(log.entries, chance.randint(2, size - 1))
    ids = {hit["_id"] for hit in gone}
    return Attack(
        f"{len(gone)} entries deleted, the first is {gone[0]['_id']}",
        [hit for hit in log.hits if hit["_id"] not in ids], frozenset({Code.ENTRY_MISSING}),
    )  # fmt: skip


def _cut(log: Log, size: int, checkpoints: int) -> list[Hit]:
    return [*log.entries[:size], *log.checkpoints[:checkpoints]]


def cut_at_checkpoint(chance: random.Random, log: Log) -> Attack | None:
    """Cut the tail at a checkpoint: entries and checkpoints after it."""
    keep = chance.randint(1, len(log.checkpoints) - 1)
    size = attributes(log.checkpoints[keep - 1])[spans.SIZE]
    trusted = log.trusted(chance.randrange(keep, len(log.checkpoints)))
    hits = _cut(log, size, keep)
    erased = any(kind_of(hit) == "entry" for hit in log.entries[size:])  # what was erased on record then is just gone
    codes = frozenset({Code.VALUE_REMOVED} if erased and _gone(hits) else ())
    return Attack(
        f"cut at the checkpoint of size {size}", hits, codes,
        "", trusted, frozenset({Code.LOG_TRUNCATED}), _CUT,
    )  # fmt: skip


def _gone(hits: Sequence[Hit]) -> bool:
    """Tell whether a personal value is gone from one of these documents."""
    for hit in hits:
        if kind_of(hit) == "span":
            fields = orjson.loads(attributes(hit)[spans.STATEMENT])["attributes"]
            salts = personal_of(hit)
            if any(
                isinstance(item, dict) and "commitment" in item and name not in salts for name, item in fields.items()
            ):
                return True
    return False


def cut_off_checkpoint(chance: random.Random, log: Log) -> Attack | None:
    """Cut the tail anywhere else: with all checkpoints left, or with those that cover nothing that is cut."""
    size = chance.randint(1, len(log.entries) - 1)
    sizes = [attributes(hit)[spans.SIZE] for hit in log.checkpoints]
    if size in sizes:
        return None
    keep = sum(item <= size for item in sizes)
    codes = frozenset({Code.ENTRY_UNCOVERED})
    if not keep or chance.random() < 0.5:
        keep, codes = chance.randint(keep + 1, len(sizes)), frozenset({Code.ENTRY_MISSING})
    later = [at for at, item in enumerate(sizes) if at >= keep]
    trusted = log.trusted(chance.choice(later)) if later else None
    return Attack(
        f"cut to {size} entries and {keep} checkpoints", _cut(log, size, keep), codes,
        "", trusted, frozenset({Code.LOG_TRUNCATED}), _CUT,
    )  # fmt: skip


def cut_whole(chance: random.Random, log: Log) -> Attack | None:
    """Cut a whole log, or all but some of its entries or its checkpoints."""
    shape = chance.randrange(4)
    hits: list[Hit] = []
    codes = frozenset({Code.NO_CHECKPOINT, Code.NOTHING_FOUND})
    if shape == 1:
        hits = chance.sample(log.entries, chance.randint(1, 20))
    elif shape == 2:
        hits, codes = list(log.checkpoints), frozenset({Code.ENTRY_MISSING})
    elif shape == 3:
        hits, codes = [chance.choice(log.checkpoints)], frozenset({Code.ENTRY_MISSING})
    trusted = log.trusted(chance.randrange(len(log.checkpoints)))
    full = trusted.size == len(log.entries) or shape == 2
    caught = (
        frozenset({Code.LOG_TRUNCATED, Code.ENTRY_MISSING})
        if not full or shape > 1
        else frozenset({Code.LOG_TRUNCATED})
    )
    keys = chance.choice([(), (log.key,)])
    if not keys and shape > 1:
        codes |= {Code.NO_KEY}
    return Attack(f"whole log cut, shape {shape}", hits, codes, "", trusted, caught, _CUT + _REWRITTEN, keys)


def replay_checkpoint(chance: random.Random, log: Log) -> Attack | None:
    """Replay an old checkpoint as the newest one; the entries after it stay, or go with it."""
    keep = chance.randint(1, len(log.checkpoints) - 1)
    old = log.checkpoints[keep - 1]
    size = attributes(old)[spans.SIZE]
    again = {**old, "_id": log.checkpoints[-1]["_id"]}  # in the place of the newest
    trusted = log.trusted(chance.randrange(keep, len(log.checkpoints)))
    entries = log.entries if chance.random() < 0.5 else log.entries[:size]
    hits = [*entries, *log.checkpoints[: keep - 1], again]
    codes = frozenset({Code.ENTRY_UNCOVERED}) if entries is log.entries else frozenset[Code]()
    if not codes and _gone(entries):
        codes = frozenset({Code.VALUE_REMOVED})
    return Attack(
        f"the checkpoint of size {size} as the newest, {len(entries)} entries", hits, codes,
        "", trusted, frozenset({Code.LOG_TRUNCATED}), _CUT,
    )  # fmt: skip


# -- signed anew ------------------------------------------------------------------------------------------------------


def rewritten(chance: random.Random, log: Log, private: Ed25519PrivateKey, own_genesis: bool) -> tuple[list[Hit], int]:
    """Return a log whose documents, statements, tree and checkpoints were all made to fit a lie, and where it begins.

    Args:
        chance: what is made of it.
        log: the honest log.
        private: signs the checkpoints.
        own_genesis: let the log name the public key of `private` itself.
    """
    entries = list(log.entries)
    spans_of = [at for at, hit in enumerate(entries) if kind_of(hit) == "span"]
    begin = len(entries)
    for at in chance.sample(spans_of, chance.randint(1, 3)):
        fields = orjson.loads(attributes(entries[at])[spans.STATEMENT])
        name, value = chance.choice(
            [("audit.outcome", "failure"), ("audit.action", "APPROVE"), ("audit.message", "nothing happened"),
             ("audit.target.id", "somebody else's")]
        )  # fmt: skip
        if fields["attributes"].get(name) == value:
            value += "!"
        fields["attributes"][name] = value
        text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
        entries[at] = said(entries[at], **{name: value, spans.STATEMENT: text})
        begin = min(begin, at)
    public = private.public_key().public_bytes_raw()
    key = VerifierKey(log.origin, public)
    if own_genesis:
        fields = orjson.loads(attributes(entries[0])[spans.STATEMENT])
        fields["key"] = str(key)
        text = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()
        entries[0] = _identified(said(entries[0], **{spans.STATEMENT: text}), text)
        begin = 0
    made = []
    tree = Frontier()
    for hit in log.checkpoints:
        first, size = attributes(hit)[spans.FIRST], attributes(hit)[spans.SIZE]
        if first == attributes(log.checkpoints[0])[spans.FIRST]:
            tree = Frontier()
        frontier = b"".join(tree.hashes)
        hashes = [leaf_hash(attributes(entry)[spans.STATEMENT].encode()) for entry in entries[first:size]]
        for leaf in hashes:
            tree.append(leaf)
        text = Checkpoint(log.origin, size, tree.root()).text()
        note = str(Note(text, ((log.origin, key.key_id, private.sign(text.encode())),)))
        values = {
            spans.NOTE: note, spans.FRONTIER: base64.b64encode(frontier).decode(),
            spans.LEAVES: base64.b64encode(b"".join(hashes)).decode(),
        }  # fmt: skip
        made.append(_identified(said(hit, **values), note))
    return [*entries, *made], begin


def _identified(hit: Hit, text: str) -> Hit:
    digest = leaf_hash(text.encode())
    return {**hit, "_source": {**hit["_source"], "trace_id": digest[:16].hex(), "span_id": digest[16:24].hex()}}


def _second_place(chance: random.Random, log: Log, begin: int) -> TrustedCheckpoint:
    """Return what a second place has seen after the entry where the lie begins."""
    later = [at for at, hit in enumerate(log.checkpoints) if attributes(hit)[spans.SIZE] > begin]
    return log.trusted(chance.choice(later))


def sign_with_another_key(chance: random.Random, log: Log) -> Attack | None:
    """Rewrite the log and sign it with another key, which it may name as its own."""
    own_genesis = chance.random() < 0.5
    pinned = chance.random() < 0.5
    private = Ed25519PrivateKey.from_private_bytes(chance.randbytes(32))
    hits, begin = rewritten(chance, log, private, own_genesis)
    found = pinned or not own_genesis
    return Attack(
        f"another key, {'named by the log itself' if own_genesis else 'not named'}, auditor has {pinned}", hits,
        frozenset({Code.WRONG_KEY}) if found else frozenset(), "", _second_place(chance, log, begin),
        frozenset({Code.HISTORY_REWRITTEN}), (*_REWRITTEN, Claim.SIGNED_BY_WHOM_YOU_TRUST),
        (log.key,) if pinned else (),
    )  # fmt: skip


def sign_with_stolen_key(chance: random.Random, log: Log) -> Attack | None:
    """Rewrite the log and sign everything with the log's own key; all of it, or with honest checkpoints left in it."""
    hits, begin = rewritten(chance, log, log.private, False)
    codes = frozenset[Code]()
    what = f"stolen key, from entry {begin}"
    if chance.random() < 0.3:  # some of the old checkpoints are forgotten
        old = chance.sample(log.checkpoints, chance.randint(1, 3))
        old = [hit for hit in old if attributes(hit)[spans.SIZE] > begin]
        hits = [*hits, *({**hit, "_id": f"{hit['_id']}-old"} for hit in old)]
        codes = frozenset({Code.CHECKPOINT_CONFLICT}) if old else codes
        what += f", {len(old)} old checkpoints left"
    return Attack(
        what, hits, codes, "", _second_place(chance, log, begin),
        frozenset({Code.HISTORY_REWRITTEN}), _REWRITTEN if not codes else (),
    )  # fmt: skip


WHOLE: dict[str, Whole] = {
    "edit a checkpoint": edit_checkpoint,
    "delete checkpoints": delete_checkpoint,
    "exchange checkpoints": exchange_checkpoints,
    "edit an entry that is no span": edit_entry,
    "delete an entry that is no span": delete_entry,
    "delete many documents": delete_many,
    "cut the tail at a checkpoint": cut_at_checkpoint,
    "cut the tail off a checkpoint": cut_off_checkpoint,
    "cut a whole log": cut_whole,
    "replay an old checkpoint": replay_checkpoint,
    "re-sign with another key": sign_with_another_key,
    "re-sign everything with the stolen key": sign_with_stolen_key,
}
