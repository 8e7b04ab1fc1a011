# SPDX-License-Identifier: Apache-2.0
"""Writes the test vectors: ``python -m tests.vectors.generate``. They are frozen: a test compares them with this.

A vector that changes means that logs which exist are read in another way than before. Add new ones instead.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from auditspan_seal.formats import commitment
from auditspan_seal.formats import statement as statements
from auditspan_seal.formats.batch import ENTRY, PRIVATE_MARK, Batch
from auditspan_seal.formats.merkle import Frontier, leaf_hash
from auditspan_seal.formats.note import Checkpoint, Note
from auditspan_seal.formats.proof import TlogProof, consistency, inclusion
from tests.vectors.builder import ORIGIN, VALUES, Builder, salt, signer, small_log, span, write

FOLDER = Path(__file__).parent
Lines = dict[str, list[bytes]]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=True) + "\n").encode()


# -- statements -------------------------------------------------------------------------------------------------


def statement_vectors() -> dict[str, Any]:
    """Return statements that are canonical, and byte strings that are none."""
    good = {
        "genesis": small_log().statements[0],
        "span": small_log().statements[1],
        "span with values of all kinds": small_log().statements[2],
        "erasure": small_log().statements[5],
        "version 1": statements.encode({"v": 1, "type": "span", "origin": ORIGIN}),
        "254 levels": b'{"attributes":{"a":' + b"[" * 252 + b"]" * 252 + b'},"type":"span","v":2}',
        "a positive exponent with +": b'{"attributes":{"a":[1e+16,-1.5e+300]},"type":"span","v":2}',
        "a positive exponent without +": b'{"attributes":{"a":[1e16,-1.5e300]},"type":"span","v":2}',
        "640 digits": b'{"attributes":{"a":{"int":"' + b"9" * 640 + b'"}},"type":"span","v":2}',
    }
    good |= {f"value {name}": _one(statements.value(item)) for name, item in VALUES.items()}
    plain = _one(1)
    bad = {
        "empty": b"",
        "not JSON": b"nonsense",
        "not an object": b"[]",
        "not UTF-8": plain.replace(b'"a"', b'"\xff"'),
        "overlong UTF-8": plain.replace(b'"a"', b'"\xc0\xaf"'),
        "half a surrogate pair in UTF-8": plain.replace(b'"a"', b'"\xed\xa0\x80"'),
        "half a surrogate pair escaped": plain.replace(b'"a"', b'"\\ud800"'),
        "byte order mark": b"\xef\xbb\xbf" + plain,
        "space": plain.replace(b",", b", "),
        "line break at the end": plain + b"\n",
        "keys not sorted": b'{"v":2,"type":"span"}',
        "keys sorted as UTF-16": '{"\U0001f40d":1,"\ufffd":2,"type":"span","v":2}'.encode(),
        "key twice": b'{"type":"span","v":2,"v":2}',
        "key twice, nested": b'{"attributes":{"a":1,"a":1},"type":"span","v":2}',
        "escape without need": plain.replace(b'"a"', b'"\\u0061"'),
        "escaped slash": plain.replace(b'"a"', b'"\\/"'),
        "escape in upper case": plain.replace(b'"a"', b'"\\u001F"'),
        "long escape of a tab": plain.replace(b'"a"', b'"\\u0009"'),
        "raw control character": plain.replace(b'"a"', b'"\x01"'),
        "U+2028 escaped": plain.replace(b'"a"', b'"\\u2028"'),
        "version 3": plain.replace(b'"v":2', b'"v":3'),
        "version as text": plain.replace(b'"v":2', b'"v":"2"'),
        "version as double": plain.replace(b'"v":2', b'"v":2.0'),
        "version true": plain.replace(b'"v":2', b'"v":true'),
        "no version": b'{"type":"span"}',
        "no type": b'{"v":2}',
        "type is a number": b'{"type":1,"v":2}',
        "255 levels": b'{"attributes":{"a":' + b"[" * 253 + b"]" * 253 + b'},"type":"span","v":2}',
        "exponents with and without +": b'{"attributes":{"a":[1e16,1e+17]},"type":"span","v":2}',
    }  # fmt: skip
    for spelt in (
        "01", "-0", "+1", "1.", ".5", "1e0", "1E16", "1.0e16", "1e016", "1.50", "0.10", "1e-5", "0.000001", "10000000000000000.0", "12e15",
        "0.1000000000000000055511151231257827", "9007199254740993", "-9007199254740993", "18446744073709551616", "1e400", "NaN", "Infinity",
        '{"int":"1"}', '{"int":"09007199254740993"}', '{"int":"+9007199254740993"}', '{"int":" 9007199254740993"}', '{"int":9007199254740993}',
        '{"int":"9_007_199_254_740_993"}', '{"int":"\u0669\u0660\u0660\u0667\u0661\u0669\u0669\u0662\u0665\u0664\u0667\u0664\u0660\u0669\u0669\u0663"}',
        '{"double":"nan"}', '{"double":1.5}', '{"bytes":"AB=="}', '{"bytes":"AA"}', '{"bytes":"AA=\\n="}', '{"map":[]}', '{"commitment":"AAAA"}',
        "{}", '{"unknown":"x"}', '{"bytes":"","int":"9007199254740993"}',
    ):  # fmt: skip
        bad[f"value {spelt}"] = plain.replace(b":1}", b":" + spelt.encode() + b"}", 1)
    bad["value of 641 digits"] = plain.replace(b":1}", b':{"int":"' + b"9" * 641 + b'"}}', 1)
    return {
        "statements": [
            {"name": name, "statement": _b64(data), "leaf_hash": leaf_hash(data).hex()} for name, data in good.items()
        ],
        "refused": [{"name": name, "statement": _b64(data)} for name, data in bad.items()],
    }


def _one(form: Any) -> bytes:
    return statements.encode({"attributes": {"a": form}, "type": "span", "v": 2})


def commitment_vectors() -> list[dict[str, Any]]:
    """Return personal values with what is committed to."""
    values: list[Any] = ["203.0.113.7", "", "Grüße \u2028 🐍", 42, True, False, ["a", 1, True], [], "9007199254740993"]
    return [
        {
            "name": name,
            "salt": _b64(salt(number)),
            "value": item,
            "value_bytes": _b64(statements.encode({"": item})[4:-1]),
            "commitment": commitment.commit(name, item, salt(number)),
        }
        for number, item in enumerate(values)
        for name in ("client.address", "имя")
    ]


# -- trees, notes, proofs --------------------------------------------------------------------------------------------


def tree_vectors() -> list[dict[str, Any]]:
    """Return trees of the entries "0", "1", …, with proofs."""
    found = []
    for size in (*range(18), 31, 32, 33, 63, 64, 65, 127, 128, 129):
        leaves = [leaf_hash(b"%d" % number) for number in range(size)]
        tree = Frontier()
        for leaf in leaves:
            tree.append(leaf)
        found.append(
            {
                "size": size,
                "root": tree.root().hex(),
                "frontier": [item.hex() for item in tree.hashes],
                "inclusion": {
                    str(index): [item.hex() for item in inclusion(leaves, index)]
                    for index in sorted({0, size // 2, size - 1} & set(range(size)))
                },
                "consistency": {
                    str(first): [item.hex() for item in consistency(leaves, first)]
                    for first in sorted({1, size // 2, size - 1, size} & set(range(1, size + 1)))
                },
            }
        )
    return found


def note_vectors() -> dict[str, Any]:
    """Return notes with the keys that signed them, and texts that are none."""
    key, other = signer("log"), signer("other", "other.example/log")
    root = Frontier(1, [leaf_hash(b"0")]).root()
    texts = {
        "checkpoint": Checkpoint(ORIGIN, 1, root).text(),
        "checkpoint of the empty tree": Checkpoint(ORIGIN, 0, Frontier().root()).text(),
        "checkpoint with an extension line": Checkpoint(ORIGIN, 1, root).text() + "extension\n",
        "not a checkpoint": "any text\n\nwith an empty line, \u2028 and \x7f\n",
    }
    notes = [
        {"name": name, "note": _note(text, key), "vkey": str(key.verifier_key), "signed": True}
        for name, text in texts.items()
    ]
    text = texts["checkpoint"]
    two = _note(text, key, other)
    bad = Note(text, ((ORIGIN, key.verifier_key.key_id, bytes(64)),))
    notes += [
        {"name": "two signatures, the first key", "note": two, "vkey": str(key.verifier_key), "signed": True},
        {"name": "two signatures, the second key", "note": two, "vkey": str(other.verifier_key), "signed": True},
        {
            "name": "by a key that is not known",
            "note": _note(text, other),
            "vkey": str(key.verifier_key),
            "signed": None,
        },
        {"name": "the signature does not verify", "note": str(bad), "vkey": str(key.verifier_key), "signed": False},
        {
            "name": "a good and a bad one by the same key",
            "note": _note(text, key) + str(bad).rpartition("\n\n")[2],
            "vkey": str(key.verifier_key),
            "signed": False,
        },
    ]
    good = _note(text, key)
    line = good.rpartition("\n\n")[2]
    refused = {
        "empty": "",
        "no signature": text + "\n",
        "no empty line": text + line,
        "CR LF": good.replace("\n", "\r\n"),
        "a control character": good.replace(ORIGIN, ORIGIN + "\t", 1),
        "a hyphen instead of a dash": good.replace("—", "-"),
        "no line break at the end": good[:-1],
        "a short signature": f"{text}\n— {ORIGIN} AAAA\n",
        "base64 that is not canonical": good[:-3] + chr(ord(good[-3]) + 1) + good[-2:],
        "a space too many": good.replace("— ", "—  "),
        "a name with +": good.replace(f"— {ORIGIN}", "— a+b"),
        "a name with U+2028": good.replace(f"— {ORIGIN}", "— a\u2028b"),
    }
    checkpoints = {
        "leading zero": f"{ORIGIN}\n01\n{_b64(root)}\n",
        "sign": f"{ORIGIN}\n+1\n{_b64(root)}\n",
        "digits of another script": f"{ORIGIN}\n\u0661\n{_b64(root)}\n",
        "2^63": f"{ORIGIN}\n{2**63}\n{_b64(root)}\n",
        "no origin": f"\n1\n{_b64(root)}\n",
        "short root hash": f"{ORIGIN}\n1\n{_b64(root[:31])}\n",
        "no root hash": f"{ORIGIN}\n1\n",
        "empty extension line": f"{ORIGIN}\n1\n{_b64(root)}\n\n",
    }
    return {
        "notes": notes,
        "refused_notes": [{"name": name, "note": item} for name, item in refused.items()],
        "refused_checkpoints": [{"name": name, "text": item} for name, item in checkpoints.items()],
        "vkeys": [str(key.verifier_key), str(other.verifier_key), str(signer("log", "ключ").verifier_key)],
        "refused_vkeys": [
            "", "x", "x+00000000+AAAA", str(key.verifier_key).replace(ORIGIN, "another"), f"+{str(key.verifier_key).partition('+')[2]}",
            str(key.verifier_key).upper(), f"a b+{str(key.verifier_key).partition('+')[2]}",
        ],
    }  # fmt: skip


def _note(text: str, *signers: Any) -> str:
    return str(Note(text, tuple((s.verifier_key.name, s.verifier_key.key_id, s.sign(text.encode())) for s in signers)))


def proof_files() -> Iterator[tuple[str, bytes]]:
    """Return a proof bundle, with the statement and disclosed values."""
    log = small_log()
    leaves = [leaf_hash(item) for item in log.statements]
    index = 3
    yield "record.tlog-proof", str(TlogProof(index, inclusion(leaves, index), log.notes[-1])).encode()
    yield "record.statement.json", log.statements[index]
    line = next(
        line for lines in log.files.values() for line in lines if line.startswith(ENTRY + log.statements[index])
    )
    yield "record.values.json", line[:-1].partition(PRIVATE_MARK)[2]
    yield "log.vkey", str(log.signers[0].verifier_key).encode() + b"\n"


# -- logs -------------------------------------------------------------------------------------------------------------

Expected = tuple[str, list[str]]


def logs() -> Iterator[tuple[str, str, Lines, Expected]]:
    """Return log directories: name, vkey, log files, verdict and reason codes."""
    honest = small_log()
    vkey = str(honest.signers[0].verifier_key)
    first, second = sorted(honest.files)

    def files() -> Lines:
        return {name: list(lines) for name, lines in honest.files.items()}

    def altered(old: bytes, new: bytes) -> Lines:
        found = {name: [line.replace(old, new) for line in lines] for name, lines in honest.files.items()}
        assert found != honest.files
        return found

    yield "honest", vkey, files(), ("PASSED", [])
    yield "altered-statement", vkey, altered(b"record 3", b"record X"), ("FAILED", ["statement_altered"])
    yield "altered-personal-value", vkey, altered(b"203.0.113.7", b"203.0.113.8"), ("FAILED", ["field_mismatch"])
    moved = altered(b'\t{"session.id"', b'\t{"another"')
    yield "moved-personal-value", vkey, moved, ("FAILED", ["field_mismatch", "value_removed"])
    lines = files()
    lines[first] = [line.partition(PRIVATE_MARK)[0].rstrip(b"\n") + b"\n" for line in lines[first]]
    yield "removed-personal-values", vkey, lines, ("FAILED", ["value_removed"])
    lines = files()
    back = commitment.encode({"audit.actor.id": (_b64(salt(2)), "alice")})[1:-1]
    lines[first] = [line.replace(b'\t{"client.address"', b"\t{" + back + b',"client.address"') for line in lines[first]]
    yield "erased-value-is-back", vkey, _with_one(lines, first, files()), ("INCOMPLETE", ["erased_value_present"])
    lines = files()
    del lines[second][0]
    yield "removed-entry", vkey, lines, ("FAILED", ["entry_missing"])
    lines = files()
    lines[second].insert(1, lines[second][0])
    yield "repeated-entry", vkey, lines, ("FAILED", ["duplicate_document"])
    lines = files()
    lines[second].insert(0, ENTRY + statements.encode(span(99)) + b"\n")
    yield "inserted-entry", vkey, lines, ("FAILED", ["statement_altered"])
    lines = files()
    del lines[second]
    yield "cut-off-with-an-erasure", vkey, lines, ("FAILED", ["value_removed"])
    lines = files()
    del lines[second][3:]
    yield "cut-at-a-checkpoint", vkey, lines, ("PASSED", [])
    lines = files()
    lines[second][-1] = lines[second][-1][:-40]
    yield "cut-in-a-checkpoint", vkey, lines, ("INCOMPLETE", ["torn_tail"])
    lines = files()
    del lines[first]
    yield "pruned-beginning", vkey, lines, ("INCOMPLETE", ["prefix_missing"])
    lines = files()
    lines[second][-1] = b"C {}\n"
    yield "damaged-checkpoint", vkey, lines, ("FAILED", ["log_damaged"])
    lines = files()
    batch = Batch.parse(lines[second][-1][:-1])
    forged = Batch(batch.note.replace("\n9\n", "\n8\n"), batch.first, batch.frontier, batch.leaves)
    lines[second][-1] = forged.line() + b"\n"
    yield "altered-checkpoint", vkey, lines, ("FAILED", ["checkpoint_invalid", "entry_uncovered"])
    yield "another-key", str(signer("other").verifier_key), files(), ("FAILED", ["wrong_key"])
    yield (
        "key-of-another-log",
        str(signer("log", "another/log").verifier_key),
        files(),
        ("UNVERIFIABLE", ["no_checkpoint", "no_key"]),
    )
    yield "nothing", vkey, {}, ("UNVERIFIABLE", ["nothing_found"])

    log = Builder()
    log.genesis()
    log.record(span(1))
    log.record(span(3))
    log.checkpoint()
    yield "number-left-out", vkey, log.files, ("FAILED", ["record_missing"])

    log = Builder()
    log.genesis()
    log.record(span(1))
    log.log_entry(
        "gap", "LOSE", "log.gap", segment="aaaaaaaaaaaaaaaa", number=2, reason="damaged", bytes=10, sha256="00" * 32
    )
    log.checkpoint()
    yield "gap", vkey, log.files, ("INCOMPLETE", ["gap_entry"])

    log = Builder()
    log.genesis()
    log.raw(statements.encode(span(1)).replace(b",", b", "))
    log.checkpoint()
    yield "signed-but-not-canonical", vkey, log.files, ("FAILED", ["statement_altered"])

    log, fork = Builder(), Builder()
    for item, name in ((log, "one history"), (fork, "another history")):
        item.genesis()
        item.checkpoint()
        item.record(span(1, name=name))
        item.record(span(2, name=name))
        item.checkpoint()
    name = next(iter(log.files))
    yield "two-histories", vkey, {name: [*log.files[name], fork.files[name][-1]]}, ("FAILED", ["checkpoint_conflict"])


def _with_one(lines: Lines, name: str, honest: Lines) -> Lines:
    """Keep what was altered in the first line that differs, and nothing else."""
    at = next(number for number, line in enumerate(lines[name]) if line != honest[name][number])
    return honest | {name: [*honest[name][:at], lines[name][at], *honest[name][at + 1 :]]}


def rotated(*, both_sign: bool = True, certified: bool = True, back: bool = False) -> Builder:
    """Return a log whose key changes once, or twice."""
    log = Builder()
    log.genesis()
    log.record(span(1))
    log.checkpoint()
    for number, name in enumerate(["second", "log" if back else "third"], 1):
        old, new = log.signers[-1], signer(name)
        lines = ["auditspan/key-rotation/v1", ORIGIN, log.size, old.verifier_key, new.verifier_key, "-"]
        text = "".join(f"{line}\n" for line in lines).encode()
        witness = new if certified else old
        log.log_entry(
            "rotation", "ROTATE", "key.change", index=log.size, old=str(old.verifier_key), new=str(new.verifier_key),
            certificates={"old": _b64(old.sign(text)), "new": _b64(witness.sign(text))},
        )  # fmt: skip
        log.signers = [old, new] if both_sign else [new]
        log.checkpoint()
        log.signers = [new]
        log.record(span(number + 1))
        log.checkpoint()
    return log


def rotation_logs() -> Iterator[tuple[str, str, Lines, Expected]]:
    """Return logs with key changes, as docs/formats.md §9 says."""
    first, last = str(signer("log").verifier_key), str(signer("third").verifier_key)
    yield "rotated", first, rotated().files, ("PASSED", [])
    yield "rotated-last-key-pinned", last, rotated().files, ("PASSED", [])
    yield "rotated-first-use", "", rotated().files, ("PASSED", [])
    yield "rotated-not-signed-by-both", first, rotated(both_sign=False).files, ("FAILED", ["key_change_invalid"])
    yield (
        "rotated-not-certified-by-both",
        first,
        rotated(certified=False).files,
        ("FAILED", ["key_change_invalid", "wrong_key"]),
    )


# -- files ------------------------------------------------------------------------------------------------------------


def files() -> Iterator[tuple[str, bytes]]:
    """Return path and content of every file but the log directories."""
    yield "statements.json", _json(statement_vectors())
    yield "commitments.json", _json(commitment_vectors())
    yield "trees.json", _json(tree_vectors())
    yield "notes.json", _json(note_vectors())
    for name, content in proof_files():
        yield f"proof/{name}", content
    for folder, cases in (("logs", logs()), ("rotation", rotation_logs())):
        expected = {
            name: {"vkey": vkey, "verdict": verdict, "codes": codes} for name, vkey, _, (verdict, codes) in cases
        }
        yield f"{folder}/expected.json", _json(expected)


def write_all(folder: Path) -> None:
    """Write all test vectors."""
    for name, content in files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for kind, cases in (("logs", logs()), ("rotation", rotation_logs())):
        for name, _, lines, _ in cases:
            write(folder / kind / name, ORIGIN, str(signer("log").verifier_key), lines)


if __name__ == "__main__":
    for kind in ("logs", "rotation", "proof"):
        shutil.rmtree(FOLDER / kind, ignore_errors=True)
    write_all(FOLDER)
