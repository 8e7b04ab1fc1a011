# SPDX-License-Identifier: Apache-2.0
"""A real server, a runner that serves deployments, and a child process for each run: counted by Prefect's own API.

All cases run at the same time and are looked at when the last one has ended: see `run_everything`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
from auditspan.capture.actor import os_actor
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Verdict
from tests.conftest import BIN
from tests.runners.prefect_runner.reported import Api, Line, how
from tests.runners.prefect_runner.serving import (
    HERE,
    INSTRUMENTED,
    audited,
    environment,
    printed,
    process,
    read,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = HERE.parents[2] / "docs" / "plugins" / "prefect.md"
CASES = {
    "scheduled": "the schedule of a deployment, every ten seconds",
    "manual": "`leaf(5)` in a program",
    "API": "`create_flow_run_from_deployment` of a program that is not audited",
    "command line": "`prefect deployment run`",
    "automation": "an automation, because of an event",
    "parent": "API; calls the two below",
    "subflow": "called by the flow `outer`",
    "run_deployment": "`run_deployment` of the flow `outer`",
    "retried": "API; the first attempt fails",
    "failed": "API; raises `LookupError`",
    "cancelled": "API; set to `Cancelling` while it runs",
    "killed": "API; `kill -9` of its process",
}


@dataclass
class Runs:
    """What ran, and what is known of it.

    Attributes:
        folder: of the test.
        ids: of the flow runs, by case.
        lines: what the records and the API both say.
        records: of the log, without those of a beginning.
    """

    folder: Path
    ids: dict[str, str] = field(default_factory=dict)
    lines: Counter[Line] = field(default_factory=Counter)
    records: list[dict[str, Any]] = field(default_factory=list)

    def flow(self, case: str) -> list[dict[str, Any]]:
        """Return the records of a case's flow run, by attempt."""
        found = [r for r in self.records if r[schema.TASK_RUN_ID] == self.ids[case]]
        return sorted(found, key=lambda record: int(record[schema.RUN_ATTEMPT]))

    def tasks(self, case: str) -> list[dict[str, Any]]:
        """Return the records of the task runs in a case's flow run, by attempt."""
        of_it = [r for r in self.records if r[schema.RUN_ID] == self.ids[case]]
        tasks = [r for r in of_it if r[schema.TARGET_TYPE] == "prefect.task"]
        return sorted(tasks, key=lambda record: int(record[schema.RUN_ATTEMPT]))


@pytest.fixture(scope="module")
def runs(served: tuple[Path, str]) -> Runs:
    folder, url = served
    program = shutil.copy(HERE / "deployed.py", folder)  # deployed from where it is started, as the oldest wants it
    api = Api(url)
    with closing(api), process([*INSTRUMENTED, str(program)], audited(folder, url), folder) as serving:
        runs = run_everything(folder, url, api, serving)
        runs.lines = api.agrees(lambda: read(folder / "log"))
        runs.records = read(folder / "log")
    return runs


def run_everything(folder: Path, url: str, api: Api, serving: subprocess.Popen[bytes]) -> Runs:
    """Have every case run to its end."""
    from prefect.states import Cancelling

    runs, client = Runs(folder), api.client
    before = {run.id for run in api.flow_runs()}  # the server is that of other tests, too

    def deployment(name: str) -> Any:
        def found() -> Any:
            assert serving.poll() is None, printed(folder)
            return next((d for d in client.read_deployments() if f"{flow_of(d)}/{d.name}" == name), None)

        return until(found, 120, f"{name} is deployed")

    def flow_of(deployment: Any) -> str:
        return str(client.read_flow(deployment.flow_id).name)

    def ask(case: str, name: str, parameters: dict[str, Any] | None = None) -> None:
        run = client.create_flow_run_from_deployment(deployment(name).id, parameters=parameters)
        runs.ids[case] = str(run.id)

    # -- one run of the schedule, and no more: each takes from the others
    schedule = deployment("tick/every-ten-seconds").id
    until(
        lambda: any(run.auto_scheduled and not run.state.is_scheduled() for run in api.flow_runs()),
        180,
        "a scheduled run begins",
    )
    client.request("POST", f"/deployments/{schedule}/pause_deployment")

    # -- everything else is asked for at once
    direct = [*INSTRUMENTED, "-c", "import deployed; deployed.leaf(5)"]
    with process(direct, audited(folder, url), folder) as manual:
        for case, name, parameters in (
            ("cancelled", "sleeper/on-request", {"name": "cancelled"}),
            ("killed", "sleeper/on-request", {"name": "killed"}),
            ("API", "leaf/on-request", {}),
            ("parent", "outer/on-request", {}),
            ("retried", "retried/on-request", {}),
            ("failed", "failing/on-request", {}),
        ):
            ask(case, name, parameters)
        asked = subprocess.run(
            [str(BIN / "prefect"), "deployment", "run", "leaf/on-request", "--tag", "command-line"],
            env=environment(folder, PREFECT_API_URL=url), capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert asked.returncode == 0, asked.stdout + asked.stderr
        automate(client, deployment("reacting/on-event"))

        # -- what is done to them
        until((folder / "cancelled.pid").exists, 120, "the run that is to be cancelled begins")
        client.set_flow_run_state(runs.ids["cancelled"], Cancelling())
        until((folder / "killed.pid").exists, 120, "the run that is to be killed begins")
        until(
            # What a process has not yet sent when it is killed, Prefect's server never learns of.
            lambda: any(str(t.flow_run_id) == runs.ids["killed"] and t.state.is_running() for t in api.task_runs()),
            120,
            "the server knows of the task that is to be killed",
        )
        os.kill(int((folder / "killed.pid").read_text()), signal.SIGKILL)
        assert manual.wait(120) == 0, printed(folder)

    def arrived() -> bool:
        happened = {
            "id": str(uuid.uuid4()), "event": "test.file.arrived", "occurred": datetime.now(timezone.utc).isoformat(),
            "resource": {"prefect.resource.id": "test.file"}, "related": [], "payload": {},
        }  # fmt: skip
        client.request("POST", "/events", json=[happened])
        return shortly(lambda: any(getattr(run.created_by, "type", None) == "AUTOMATION" for run in api.flow_runs()))

    until(arrived, 180, "the automation asks for a run")
    until(
        lambda: all(run.state.is_final() or (run.auto_scheduled and not run.run_count) for run in api.flow_runs()),
        300,
        "all runs end",
    )
    for run in api.flow_runs():
        if run.id in before:
            continue
        if run.auto_scheduled and run.run_count:
            runs.ids["scheduled"] = str(run.id)
        elif getattr(run.created_by, "type", None) == "AUTOMATION":
            runs.ids["automation"] = str(run.id)
        elif "command-line" in run.tags:
            runs.ids["command line"] = str(run.id)
        elif run.parent_task_run_id is not None:
            runs.ids["subflow" if run.deployment_id is None else "run_deployment"] = str(run.id)
        elif run.deployment_id is None:
            runs.ids["manual"] = str(run.id)
    return runs


def shortly(happened: Callable[[], bool], seconds: float = 5) -> bool:
    """Tell whether something happens within a few seconds."""
    end = time.monotonic() + seconds
    while not (found := happened()) and time.monotonic() < end:
        time.sleep(0.3)
    return found


def automate(client: Any, deployment: Any) -> None:
    from prefect.automations import Automation
    from prefect.events.actions import RunDeployment
    from prefect.events.schemas.automations import EventTrigger

    automation = Automation(
        name="when a file arrives",
        trigger=EventTrigger(expect={"test.file.arrived"}, threshold=1, within=0),  # type: ignore[arg-type]
        actions=[RunDeployment(source="selected", deployment_id=deployment.id)],
    )
    client.request("POST", "/automations/", json=automation.model_dump(mode="json", exclude={"id"}))


def test_there_are_as_many_records_as_the_api_reports_executions(runs: Runs) -> None:
    counted = how(runs.lines)
    for line in (
        ("flow", "finished success"), ("flow", "finished failure"), ("flow", "retried"), ("flow", "cancelled"),
        ("flow", "interrupted"), ("task", "finished success"), ("task", "retried"), ("task", "interrupted"),
    ):  # fmt: skip
        assert counted[line] > 0, counted
    assert counted["flow", "cancelled"] == counted["flow", "interrupted"] == 1
    assert max(runs.lines.values()) == 1


def test_the_matrix_of_cases_is_that_of_the_page(runs: Runs) -> None:
    """Set WRITE_PREFECT_PAGE to have the page written instead."""
    assert set(runs.ids) == set(CASES)
    lines = [
        "| case | asked for by | run ID | script version | trigger | rule | actor | parent run | attempt: outcome |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, asked_by in CASES.items():
        records = runs.flow(case)
        (known,) = {tuple(facts(runs, case, record).values()) for record in records}
        ends = "; ".join(f"{record[schema.RUN_ATTEMPT]}: {end(record)}" for record in records)
        lines.append("| " + " | ".join((case, asked_by, *known, ends)) + " |")
    page = PAGE.read_text()
    before, begin, rest = page.partition("<!-- matrix: filled by tests/runners/prefect_runner/test_server.py -->\n")
    _, finish, after = rest.partition("<!-- end of the matrix -->\n")
    written = before + begin + "\n".join(lines) + "\n" + finish + after
    if "WRITE_PREFECT_PAGE" in os.environ:
        PAGE.write_text(written)
    assert begin
    assert finish
    assert page == written


def facts(runs: Runs, case: str, record: dict[str, Any]) -> dict[str, str]:
    """Return what a record says, without what is another at each run."""
    of_case = {run_id: f"that of `{name}`" for name, run_id in runs.ids.items()}
    source = record[schema.SCRIPT_VERSION_SOURCE]
    version = f"`{record[schema.SCRIPT_VERSION]}`, declared" if source == "declared" else "of the code"
    parent = of_case[record[schema.PARENT_RUN_ID]] if schema.PARENT_RUN_ID in record else "none"
    if record.get(schema.PARENT_RUN_CLAIMED):
        parent += ", claimed"
    actor = record[schema.ACTOR_ID]
    if record[schema.ACTOR_EVIDENCE] == "os_user":
        assert actor == os_actor().id
        actor = "the user of the process"
    return {
        "run": "Prefect's" if record[schema.RUN_ID] == runs.ids[case] else "another",
        "version": version if source != "unknown" else "unknown",
        "trigger": str(record[schema.TRIGGER_TYPE]),
        "rule": f"`{record[schema.TRIGGER_RULE]}`",
        "actor": f"{actor} ({record[schema.ACTOR_EVIDENCE]})" if actor != "unknown" else "unknown",
        "parent": parent,
    }


def end(record: dict[str, Any]) -> str:
    event = str(record[schema.EVENT_TYPE]).removeprefix("workflow.execution.")
    return event if event == "cancelled" else f"{event}, {record[schema.OUTCOME]}"


def test_what_is_killed_leaves_one_interrupted_record_each(runs: Runs) -> None:
    (flow_run,), (task_run,) = runs.flow("killed"), runs.tasks("killed")
    for record in (flow_run, task_run):
        assert record[schema.EVENT_TYPE] == "workflow.execution.interrupted"
        assert record[schema.OUTCOME] == "unknown"
        assert record[schema.DEPLOYMENT_NAME if record is flow_run else schema.TASK_NAME]


def test_what_is_cancelled_says_so(runs: Runs) -> None:
    (flow_run,), (task_run,) = runs.flow("cancelled"), runs.tasks("cancelled")
    assert flow_run[schema.EVENT_TYPE] == "workflow.execution.cancelled"
    assert task_run[schema.EVENT_TYPE] == "workflow.execution.interrupted"  # for Prefect it has crashed


def test_every_attempt_is_there_and_in_one_trace(runs: Runs) -> None:
    first, last = runs.flow("retried")
    assert (first[schema.ERROR_TYPE], last.get(schema.ERROR_TYPE)) == ("LookupError", None)
    assert [t[schema.RUN_ATTEMPT] for t in runs.tasks("retried")] == [1, 1, 2]  # two task runs, one tried again
    assert len({record["trace"] for record in [first, last, *runs.tasks("retried")]}) == 1


def test_the_story_goes_on_in_the_processes_that_a_run_starts(runs: Runs) -> None:
    (parent,), (subflow,), (elsewhere,) = runs.flow("parent"), runs.flow("subflow"), runs.flow("run_deployment")
    assert parent["trace"] == subflow["trace"] == elsewhere["trace"]
    assert subflow[schema.PARENT_RECORD_ID] == elsewhere[schema.PARENT_RECORD_ID] == parent[schema.RECORD_ID]


def test_what_nobody_has_asked_for_here_is_not_caused_by_what_started_the_runner(runs: Runs) -> None:
    traces = [runs.flow(case)[0]["trace"] for case in CASES if case not in ("subflow", "run_deployment")]
    assert len(set(traces)) == len(traces)


def test_the_deployment_is_told(runs: Runs) -> None:
    (scheduled,), (asked,) = runs.flow("scheduled"), runs.flow("API")
    assert scheduled[schema.DEPLOYMENT_NAME] == "every-ten-seconds"
    assert scheduled[schema.DEPLOYMENT_VERSION] == "2026.11"
    assert scheduled[schema.TASK_SCHEDULED_TIME]
    assert asked[schema.DEPLOYMENT_VERSION] == "2026.12"
    assert schema.TASK_SCHEDULED_TIME not in asked


def test_the_records_follow_the_registry_hold_no_data_and_verify(runs: Runs) -> None:
    assert [record[schema.NONCONFORMANT] for record in runs.records if schema.NONCONFORMANT in record] == []
    assert "secret" not in repr(runs.records)
    assert verify_directory(open_directory(runs.folder / "log")).verdict is Verdict.PASSED
    assert "auditspan:" not in (runs.folder / "printed.log").read_text()
