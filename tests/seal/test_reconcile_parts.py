# SPDX-License-Identifier: Apache-2.0
"""The parts of reconciliation that need no Elasticsearch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import main
from auditspan_seal.errors import DirectoryError, SourceError
from auditspan_seal.log import reader
from auditspan_seal.log.attempt import Attempt
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.receipt import Open, Receipt
from auditspan_seal.reconcile import compare, explain, periodic
from auditspan_seal.reconcile.compare import Difference, ranges, windows
from auditspan_seal.reconcile.held import entry_id
from auditspan_seal.reconcile.outcome import Outcome, Settings
from auditspan_seal.reconcile.periodic import Periodic

Make = Callable[..., Directory]


def blocks(directory: Directory) -> list[reader.Block]:
    return list(reader.batches(directory.log))


def receipt(directory: Directory, **more: Any) -> Receipt:
    last = blocks(directory)[-1].batch
    return Receipt(directory.origin, **{"size": last.size, "note": last.note, "time": time.time(), **more})


def test_a_receipt_comes_back_as_it_was_written(make_records: Make) -> None:
    directory = make_records(3)
    written = receipt(directory, seen=4, open=(Open("entry", 1, 2, "missing", "why", 2),), place="p", cluster="c")
    written.save(directory)
    assert Receipt.load(directory) == written
    assert written.missing == 2
    assert len(written.root) == 44


@pytest.mark.parametrize(
    "content", ["", "[]", "null", "{}", '{"v": 1}', '{"v": 1, "root": "", "open": [], "origin": "x", "size": "1"}']
)
def test_a_damaged_receipt_is_none(make_records: Make, content: str) -> None:
    directory = make_records(1)
    (directory.path / "receipt.json").write_text(content)
    assert Receipt.load(directory) is None
    assert main(["status", str(directory.path)]) == 0


def test_differences_become_ranges(make_records: Make) -> None:
    make_records(4)
    directory = make_records(4)
    found = [
        Difference(block, offset, "id")
        for block in blocks(directory)
        for offset in [*range(len(block.statements)), None]
    ]
    size = found[-1].block.batch.size
    assert ranges(reversed(found)) == [
        Open("entry", 0, size - 1, "missing", "", size),
        Open("checkpoint", 0, size - 1, "missing", "", len(blocks(directory))),
    ]
    found[3] = found[3].with_state("refused", "because")
    assert [(item.first, item.last, item.state) for item in ranges(found) if item.kind == "entry"] == [
        (0, found[3].index - 1, "missing"),
        (found[3].index, found[3].index, "refused"),
        (found[3].index + 1, size - 1, "missing"),
    ]


def test_nothing_of_a_log_that_was_altered_is_brought_to_elasticsearch(make_records: Make) -> None:
    directory = make_records(3)
    path = directory.log / reader.files(directory.log)[0]
    path.write_bytes(path.read_bytes().replace(b'"record 1"', b'"record X"'))
    with pytest.raises(DirectoryError, match="not as it was signed"):
        list(windows(directory, 0, 99, 0))


def test_windows_end_where_the_last_comparison_did(make_records: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(6):
        directory = make_records(3)
    sizes = [block.batch.size for block in blocks(directory)]
    monkeypatch.setattr(compare, "WINDOW", 7)
    for known in sizes:
        found = list(windows(directory, 0, sizes[-1], known))
        assert known in [window[-1].batch.size for window in found]
        assert [block.batch.size for window in found for block in window] == sizes
    assert [block.batch.size for window in windows(directory, sizes[1], sizes[3], 0) for block in window] == sizes[2:4]


def test_long_names_become_hashes() -> None:
    assert entry_id("o", 7, b"{}") == "o-7-44136fa355b3678a"
    assert len(entry_id("o" * 300, 7, b"{}")) == 64


@pytest.mark.parametrize(
    ("kind", "fitting", "other"),
    [
        ("long", [1, 2.5, "3"], ["x", True, {}]),
        ("boolean", [True, "true"], ["yes", 1]),
        ("date", ["2026-01-01T00:00:00Z", 0], ["soon", {}]),
        ("ip", ["10.0.0.1", "::1"], ["host"]),
        ("keyword", ["x", 1, True], [{}]),
        ("flattened", [{}], ["x", 1]),
        ("object", [{"a": 1}], ["x"]),
    ],
)
def test_what_fits_a_mapping(kind: str, fitting: list[Any], other: list[Any]) -> None:
    assert [value for value in fitting if not explain._fits(kind, value)] == []
    assert [value for value in other if explain._fits(kind, value)] == []


# -- the agent ---------------------------------------------------------------------------------------------------------
class Rounds:
    """Answers for :func:`~auditspan_seal.reconcile.run.reconcile`: what comes next, and what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Directory) -> None:
        self.next: Receipt | Exception
        self.asked: list[bool] = []
        self.told: dict[str, str | None] = {}
        self._directory = directory
        monkeypatch.setattr(periodic, "reconcile", self._reconcile)
        self.periodic = Periodic("http://es", 5.0, Settings(), self.told.__setitem__)
        self.periodic._directory = directory

    def _reconcile(self, url: str, directory: Directory, resender: Any, settings: Settings) -> Outcome:
        self.asked.append(settings.resend_open)
        if isinstance(self.next, Exception):
            raise self.next
        return Outcome(self.next)


def test_what_stays_missing_is_sent_again_less_and_less_often(
    make_records: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_records(1)
    rounds = Rounds(monkeypatch, directory)
    rounds.next = receipt(directory, open=(Open("entry", 1, 1, "refused", "its attribute x"),))
    for _ in range(200):
        rounds.periodic.round()
    sent = [number for number, resent in enumerate(rounds.asked) if resent]
    pauses = [later - earlier - 1 for earlier, later in itertools.pairwise(sent)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64]
    assert "(refused: its attribute x)" in str(rounds.told["reconciliation"])
    # As soon as all is there, the next loss is mended at once.
    rounds.next = receipt(directory)
    rounds.periodic.round()
    assert rounds.told["reconciliation"] is None
    rounds.next = receipt(directory, open=(Open("entry", 1, 1, "missing"),))
    rounds.periodic.round()
    assert rounds.asked[-1] is True


def test_a_round_that_fails_is_not_the_last_one_and_status_says_since_when(
    make_records: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(1)
    rounds = Rounds(monkeypatch, directory)
    for failure in (SourceError("Elasticsearch does not answer.", "Start it."), RuntimeError("boo")):
        rounds.next = failure
        rounds.periodic.round()
        assert failure.args[0] in str(rounds.told["reconciliation"])
    attempt = Attempt.load(directory)
    assert attempt is not None
    assert attempt.since is not None
    assert attempt.since < attempt.time
    assert main(["status", str(directory.path)]) == 3
    assert "nobody could compare Elasticsearch with the log since" in capsys.readouterr().out
    rounds.next = receipt(directory)
    rounds.periodic.round()
    assert main(["status", str(directory.path)]) == 0


def test_an_agent_that_no_longer_compares_is_seen(make_records: Make, capsys: pytest.CaptureFixture[str]) -> None:
    directory = make_records(1)
    Attempt.ended(directory, None, 5.0)
    assert main(["status", str(directory.path)]) == 0
    path = directory.path / "reconciliation.json"
    path.write_text(path.read_text().replace('"time":', '"time":1.0,"x":', 1).replace(',"x":', ',"since":null,"y":', 1))
    attempt = Attempt.load(directory)
    assert attempt is None  # unknown fields: not one of ours
    path.write_text('{"time": 1.0, "error": null, "since": null, "every": 5.0}')
    assert main(["status", str(directory.path)]) == 3
    assert "see whether it runs" in capsys.readouterr().out


def test_status_says_that_nobody_has_looked(make_records: Make, capsys: pytest.CaptureFixture[str]) -> None:
    directory = make_records(1)
    directory.delivery.write_text('{"file": "x.log", "offset": 0, "size": 2, "since": null, "error": null}')
    assert main(["status", str(directory.path)]) == 0
    assert "not known: nobody has compared" in capsys.readouterr().out
    receipt(directory, seen=1, size=0, note="").save(directory)
    assert main(["status", str(directory.path)]) == 0
    assert "everything below index 0, read back and hashed 0 s ago, 1 delivered since" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--reconcile", "0"], "more than 0 seconds"), (["--reconcile", "5"], "No Elasticsearch")]
)
def test_an_agent_that_cannot_reconcile_does_not_start(
    log_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.delenv("AUDITSPAN_ELASTICSEARCH_URL", raising=False)
    assert main(["agent", str(log_folder), *arguments]) == 2
    assert said in capsys.readouterr().err
