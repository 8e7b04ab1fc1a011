# SPDX-License-Identifier: Apache-2.0
"""A run that dies is seen: its beginning is in the log, and that it was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
from auditspan.cli import main
from auditspan_seal.formats import statement as statements
from auditspan_seal.log import sequencer as sequencing
from auditspan_seal.log.directory import Directory, open_directory
from auditspan_seal.log.sequencer import Sequencer
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.proof import entries_of
from auditspan_seal.verify.report import Verdict
from tests.seal.crashing import counted, forked

Instrumented = Callable[..., "subprocess.CompletedProcess[str]"]

DYING = """
import os, signal, sys, time
import auditspan
from auditspan.capture.actor import os_actor
from auditspan.capture.recorder import Event, Recorder, Target
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.schema import TriggerType
from auditspan.schema.events import DataWrite, WorkflowFinished
recorder = Recorder("test", "1")
def run(name):
    event = Event(f"run {name}", WorkflowFinished(task_name=name), os_actor(), Target(name, "test.job"))
    script = ScriptVersion("1.0", "declared", name)
    return recorder.record(event, opens=Run(f"run-{name}", name, TriggerType.MANUAL, "by hand", script))
with run("done"):
    pass
with run("outer"):
    with recorder.record(Event("write", DataWrite(), os_actor(), Target("rows", "test.table"))):
        pass
    with run("inner"):
        what = sys.argv[1] if len(sys.argv) > 1 else "kill"
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "exit":
            os._exit(3)
        print("living", flush=True)
        time.sleep(60)
"""


def records(directory: Directory) -> list[dict[str, Any]]:
    found = []
    for statement, private in entries_of(directory):
        fields = statements.decode(statement)
        if fields["type"] == "span":
            said = {name: statements.plain(form) for name, form in fields["attributes"].items()}
            opened = {name: value for name, (_, value) in private.items()}
            found.append(fields | {"attributes": said | opened})
    return found


def kinds(directory: Directory) -> list[tuple[str, str]]:
    return [(r["attributes"]["audit.event.type"], r["attributes"]["audit.target.id"]) for r in records(directory)]


EXPECTED = [
    ("workflow.execution.started", "done"),
    ("workflow.execution.finished", "done"),
    ("workflow.execution.started", "outer"),
    ("data.write", "rows"),
    ("workflow.execution.started", "inner"),
    ("workflow.execution.interrupted", "outer"),
    ("workflow.execution.interrupted", "inner"),
]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_run_whose_process_is_killed(
    instrumented: Instrumented, log_folder: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    done = instrumented(DYING.replace('"kill"', f'"{how}"', 1))
    assert done.returncode == (-signal.SIGKILL if how == "kill" else 3), done.stderr
    assert main(["agent", str(log_folder), "--once"]) == 0
    directory = open_directory(log_folder)
    assert kinds(directory) == EXPECTED
    found = {(r["attributes"]["audit.event.type"], r["attributes"]["audit.target.id"]): r for r in records(directory)}
    began = found["workflow.execution.started", "outer"]
    died = found["workflow.execution.interrupted", "outer"]
    for record in found.values():
        assert schema.violations(record["attributes"]) == []
    for name in ("automation.run.id", "automation.script.version", "automation.trigger.rule", "audit.actor.id"):
        assert died["attributes"][name] == began["attributes"][name]
    assert died["attributes"]["audit.message"] == "test.job 'outer' was interrupted: its process ended before it did"
    assert (died["trace_id"], died["parent_span_id"]) == (began["trace_id"], began["parent_span_id"])
    assert died["span_id"] != began["span_id"]
    report = verify_directory(directory)
    assert (report.verdict, report.records) == (Verdict.PASSED, 7)
    assert list(directory.segments.iterdir()) == list(directory.control.iterdir()) == []
    capsys.readouterr()
    assert main(["runs", str(log_folder), "--json"]) == 0
    outcomes = {run["run"]: run["outcome"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert outcomes == {"run-done": "success", "run-outer": "interrupted", "run-inner": "interrupted"}
    assert main(["show", "run-outer", str(log_folder)]) == 0
    assert "INTERRUPT test.job outer" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_goes_on_is_running_and_not_interrupted(
    tmp_path: Path, log_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "program.py"
    script.write_text(DYING)
    environment = {**os.environ, "AUDITSPAN_DIR": str(log_folder), "OTEL_TRACES_EXPORTER": "none"}
    command = [str(Path(sys.executable).parent / "opentelemetry-instrument"), sys.executable, str(script), "live"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "living\n"
            deadline = time.monotonic() + 20
            while len(kinds(open_directory(log_folder))) < 5 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert kinds(open_directory(log_folder)) == EXPECTED[:5]
            main(["runs", str(log_folder), "--json"])
            outcomes = {run["run"]: run["outcome"] for run in json.loads(capsys.readouterr().out)["runs"]}
            assert outcomes == {"run-done": "success", "run-outer": "running", "run-inner": "running"}
        finally:
            process.kill()
    # The next process to come notices.
    assert main(["agent", str(log_folder), "--once"]) == 0
    assert kinds(open_directory(log_folder)) == EXPECTED


@pytest.mark.slow
def test_it_is_said_once_wherever_the_sequencer_dies(
    instrumented: Instrumented, log_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequencing, "BATCH_SIZE", 2)
    instrumented(DYING, env={"AUDITSPAN_TEST": "1"})
    import shutil

    segments = list((log_folder / "segments").iterdir())
    if not segments:
        pytest.fail("the process has sequenced everything before it died; the test needs a segment")

    def sequence(path: Path) -> None:
        one = Sequencer.acquire(open_directory(path))
        assert one is not None
        while one.integrate():
            pass
        one.close()

    def count() -> None:
        with counted(1_000_000) as seen:
            sequence(tmp_path / "count")
        (tmp_path / "steps").write_text(str(len(seen)))

    shutil.copytree(log_folder, tmp_path / "count")
    assert forked(count) == 0
    steps = int((tmp_path / "steps").read_text())
    assert steps > 10
    for limit in range(1, steps + 1):
        path = tmp_path / f"at-{limit}"
        shutil.copytree(log_folder, path)

        def die(path: Path = path, limit: int = limit) -> None:
            with counted(limit):
                sequence(path)

        assert forked(die) != 0
        sequence(path)
        directory = open_directory(path)
        assert kinds(directory) == EXPECTED, limit
        assert verify_directory(directory).verdict is Verdict.PASSED
        assert list(directory.segments.glob("*.seg")) == list(directory.control.glob("*.seg")) == []


def test_what_another_process_says_is_not_said_again(log_folder: Path) -> None:
    """Whoever kills a process that works for it records why; in whatever order the two come into the log."""
    from auditspan_seal.log.interrupted import OpenRuns

    def see(runs: OpenRuns, segment: str, kind: str, attempt: object, span: str, parent: str = "") -> None:
        attributes = {
            "audit.event.type": f"workflow.execution.{kind}",
            "automation.run.id": "run",
            "automation.run.attempt": attempt,
            "automation.task.run.id": "task",
        }
        fields = {"span_id": span, "parent_span_id": parent, "attributes": attributes}
        runs.see(segment, fields, json.dumps(fields).replace(": ", ":").encode())

    for kind in ("cancelled", "interrupted"):
        runs = OpenRuns()
        see(runs, "child-1", "started", 1, "a", "begun-1")
        see(runs, "child-1", "started", 2, "b", "begun-2")
        see(runs, "main-1", kind, 1, "c")
        assert len(runs.of("child")) == 1, kind  # that of the other attempt
        see(runs, "main-1", kind, 3, "d")
        see(runs, "child-1", "started", 3, "e", "begun-3")
        assert len(runs.of("child")) == 1, kind
        see(runs, "child-1", "started", 3, "f", "begun-4")  # delivered again: it has not been said of this one
        assert len(runs.of("child")) == 2, kind
    runs = OpenRuns()
    see(runs, "child-1", "started", {"commitment": "x"}, "a", "begun-1")
    see(runs, "main-1", "cancelled", {"commitment": "x"}, "c")
    assert len(runs.of("child")) == 1  # what the policy hides cannot be compared
    see(runs, "main-1", "finished", 1, "d")
    assert len(runs.of("child")) == 1
