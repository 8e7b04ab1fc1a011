# SPDX-License-Identifier: Apache-2.0
"""A real server, a runner that serves deployments, and a child process for each run: counted by Prefect's own API.

All cases run at the same time and are looked at when the last one has ended: see `run_everything`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
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
    server,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = HERE.parents[2] / "docs" / "plugins" / "prefect.md"


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
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("prefect")
    with server(folder) as url:
        api = Api(url)
        try:
            with process([*INSTRUMENTED, str(HERE / "deployed.py")], audited(folder, url), folder) as serving:
                runs = run_everything(folder, url, api, serving)
                runs.lines = api.agrees(lambda: read(folder / "log"))
                runs.records = read(folder / "log")
            yield runs
        finally:
            api.close()


def run_everything(folder: Path, url: str, api: Api, serving: subprocess.Popen[bytes]) -> Runs:
    """Have every case run to its end."""
    from prefect.states import Cancelling

    runs, client = Runs(folder), api.client

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

    # -- everything is asked for at once
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
        until((folder / "killed.pid").exists, 60, "the run that is to be killed begins")
        os.kill(int((folder / "killed.pid").read_text()), signal.SIGKILL)
        assert manual.wait(120) == 0, printed(folder)

    def arrived() -> bool:
        happened = {
            "id": str(uuid.uuid4()), "event": "test.file.arrived", "occurred": datetime.now(timezone.utc).isoformat(),
            "resource": {"prefect.resource.id": "test.file"}, "related": [], "payload": {},
        }  # fmt: skip
        client.request("POST", "/events", json=[happened])
        time.sleep(3)
        return any(getattr(run.created_by, "type", None) == "AUTOMATION" for run in api.flow_runs())

    until(arrived, 90, "the automation asks for a run")
    until(
        lambda: any(run.auto_scheduled and run.state.is_completed() for run in api.flow_runs()),
        120,
        "a scheduled run completes",
    )
    client.request("POST", f"/deployments/{deployment('tick/every-ten-seconds').id}/pause_deployment")
    until(
        lambda: all(run.state.is_final() or (run.auto_scheduled and not run.run_count) for run in api.flow_runs()),
        180,
        "all runs end",
    )
    for run in api.flow_runs():
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
