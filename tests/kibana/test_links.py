# SPDX-License-Identifier: Apache-2.0
"""Links to Kibana in what the command prints; and verification that is on record."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan.cli import links, main, verification
from auditspan_seal.formats import statement as statements
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.verify.proof import entries_of
from auditspan_seal.verify.report import Claim, Code, Finding, Report
from tests.conftest import BIN, QUIET

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_without_a_kibana_nothing_is_said(
    make_records: Callable[..., Directory], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = make_records(1)
    for command in (["runs"], ["show", "test-run"], ["verify"]):
        assert main([*command, str(directory.path)]) == 0
        assert "http" not in capsys.readouterr().out
        assert main([command[0], "--json", *command[1:], str(directory.path)]) == 0
        assert '"apm":' not in capsys.readouterr().out


@pytest.mark.parametrize(("where", "view"), [("", "auditspan-records"), ("/s/ops", "auditspan-records-ops")])
def test_a_trace_is_linked_to(
    make_records: Callable[..., Directory], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    where: str, view: str,
) -> None:  # fmt: skip
    directory = make_records(1)
    monkeypatch.setenv(links.URL, f"https://me:secret@kibana.example:5601{where}/")
    assert main(["show", "--json", "test-run", str(directory.path)]) == 0
    run = json.loads(capsys.readouterr().out)
    (link,) = run["links"]
    assert link["trace_id"] == run["trace_ids"][0]
    base = f"https://kibana.example:5601{where}"
    assert link["apm"].startswith(f"{base}/app/apm/link-to/trace/{link['trace_id']}?rangeFrom=20")
    assert link["discover"].startswith(f"{base}/app/discover#/?_g=(time:(from:'20")
    discover = urllib.parse.unquote(link["discover"])
    assert f"(dataViewId:'{view}',type:dataView)" in discover
    assert f"query:'trace_id : \"{link['trace_id']}\"'" in discover
    assert main(["show", "test-run", str(directory.path)]) == 0
    shown = capsys.readouterr().out
    assert link["apm"] in shown
    assert link["discover"] in shown
    assert main(["runs", "--json", str(directory.path)]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["links"] == [link]
    assert main(["runs", str(directory.path)]) == 0
    assert f"{base}/app/dashboards#/view/auditspan-automation" in capsys.readouterr().out
    assert main(["verify", "--json", str(directory.path)]) == 0
    found = json.loads(capsys.readouterr().out)["links"][directory.origin]
    assert urllib.parse.unquote(found).endswith(f'audit.log.origin : "{directory.origin}"\'))')
    assert main(["verify", str(directory.path)]) == 0
    assert found in capsys.readouterr().out


def test_texts_cannot_break_out_of_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(links.URL, "http://k")
    link = urllib.parse.unquote(str(links.of_origin("it's! here")))
    assert "it!'s!! here" in link
    monkeypatch.setenv(links.URL, "javascript:alert(1)")
    assert links.of_origin("x") is None


def test_of_many_traces_the_first_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(links.URL, "http://k")
    found = links.of_traces([TRACE] * 5, 10**18, 10**18)
    assert len(links.lines(found)) == 7
    assert "2 more traces" in links.lines(found)[-1]


# -- verification on record ----------------------------------------------------------------------------------------


def verified(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it records, and a process has one log."""
    command = [str(BIN / "auditspan"), "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/bin:/bin", **QUIET})


def recorded(path: Path) -> list[dict[str, Any]]:
    found = []
    for statement, _ in entries_of(open_directory(path)):
        fields = statements.decode(statement)
        if fields["type"] == "span" and fields["attributes"]["audit.action"] == "VERIFY":
            found.append(fields["attributes"])
    return found


def test_each_log_has_its_own_verdict() -> None:
    altered = Finding(Code.STATEMENT_ALTERED, "altered", "a")
    gap = Finding(Code.GAP_ENTRY, "lost", "b")

    def said(*findings: Finding, logs: str = "abc", **more: Any) -> dict[str, str]:
        report = Report("here", logs=dict.fromkeys(logs, 1), findings=list(findings), **more)
        found = {origin: (verdict.value, reason) for origin, verdict, reason in verification._of_logs(report)}
        assert all(reason.startswith(verdict) for verdict, reason in found.values())
        return {origin: reason for origin, (_, reason) in found.items()}

    assert said() == dict.fromkeys("abc", "PASSED")
    assert said(altered, gap) == {"a": "FAILED: statement_altered", "b": "INCOMPLETE: gap_entry", "c": "PASSED"}
    # What is not told of which log may be about any.
    of_none = Finding(Code.FOREIGN_DOCUMENT, "whose?")
    assert said(of_none) == dict.fromkeys("abc", "FAILED: foreign_document")
    assert said(altered, omitted={Code.ENTRY_MISSING: 1})["c"] == "FAILED"
    claim = (Claim.NOTHING_CUT_OFF,)
    assert said(required=claim) == dict.fromkeys("abc", "UNVERIFIABLE")
    assert said(altered, required=claim)["c"] == "UNVERIFIABLE"
    assert said(Finding(Code.NOTHING_FOUND, "empty"), logs="") == {"here": "UNVERIFIABLE: nothing_found"}


@pytest.mark.slow
def test_a_verification_is_recorded_whatever_came_of_it(make_records: Callable[..., Directory], tmp_path: Path) -> None:
    directory, mine = make_records(3), tmp_path / "auditor"
    done = verified(str(directory.path), "--record", str(mine))
    assert (done.returncode, done.stdout.split()[0]) == (0, "PASSED"), done.stderr
    tampered = tmp_path / "tampered"
    shutil.copytree(directory.path, tampered)
    (log,) = (tampered / "log").glob("*.log")
    log.write_bytes(log.read_bytes().replace(b'"tester"', b'"nobody"').replace(b"record 1", b"record 7"))
    done = verified(str(tampered), "--record", str(mine))
    assert (done.returncode, done.stdout.split()[0]) == (1, "FAILED"), done.stderr
    said = recorded(mine)
    assert [item["audit.outcome"] for item in said] == ["success", "failure"]
    assert {item["audit.target.id"] for item in said} == {directory.origin}
    assert said[0]["automation.run.reason"] == "PASSED"
    assert said[1]["automation.run.reason"].startswith("FAILED: ")
    assert "statement_altered" in said[1]["automation.run.reason"]
    assert verified(str(mine)).returncode == 0  # it is a log like any other


@pytest.mark.slow
def test_a_verification_that_cannot_be_recorded_says_so(make_records: Callable[..., Directory], tmp_path: Path) -> None:
    directory = make_records(1)
    (tmp_path / "file").touch()
    done = verified(str(directory.path), "--record", str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stdout.startswith("PASSED")
    assert "this verification was not recorded" in done.stderr
    assert "Traceback" not in done.stderr
