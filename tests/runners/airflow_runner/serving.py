# SPDX-License-Identifier: Apache-2.0
"""A real Airflow, of this environment or of another: SQLite, its processes, its REST API, a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from auditspan import schema
from auditspan.cli.story import Record, from_directory
from auditspan_seal.log.directory import open_directory
from tests.conftest import OURS, QUIET

BIN = Path(sys.executable).parent
DAGS = Path(__file__).parent / "dags"
WARMING = "warm"
"""A DAG that runs until all of Airflow's processes are up: what becomes of it is not looked at."""
STARTS_WITHIN = 240.0  # seconds: on a busy machine


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what: Callable[[], Any], why: str, within: float = 60.0) -> Any:
    end = time.monotonic() + within
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {within} s: {why}")


@dataclass
class Home:
    """A folder with an Airflow database, and how its processes are started."""

    folder: Path
    env: dict[str, str]
    audit: Path

    def run(
        self, *command: str, audited: bool = True, more: Mapping[str, str] | None = None, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        env = self.env | ({"AUDITSPAN_DIR": str(self.audit)} if audited else {}) | dict(more or {})
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, cwd=self.folder)
        assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def query(self, sql: str) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(self.folder / "airflow.db", timeout=30)) as database:
            database.row_factory = sqlite3.Row
            return database.execute(sql).fetchall()

    def records(self) -> list[Record]:
        """Return what is in the log, with personal values, but for what only says that something has begun.

        A user who calls a run off and a scheduler that looks at it at that moment both end it, and Airflow calls both
        their listeners. The two records have one ID, and are one end.
        """
        if not (self.audit / "origin").exists():
            return []
        found: dict[str, Record] = {}
        for one in from_directory(open_directory(self.audit)):
            if one.get(schema.WORKFLOW_NAME) == WARMING:
                continue
            kept = found.get(one.get(schema.RECORD_ID))
            if one.get(schema.EVENT_TYPE) == "workflow.execution.started" or (
                kept and kept.get(schema.ACTOR_ID) == "admin"
            ):
                continue
            if kept:
                assert kept.get(schema.OUTCOME) == one.get(schema.OUTCOME), (kept.attributes, one.attributes)
            found[one.get(schema.RECORD_ID)] = one
        return list(found.values())


def make_home(
    folder: Path,
    *,
    dags: Path = DAGS,
    programs: Path = BIN,
    audit: Path | None = None,
    database: bool = True,
    **settings: str,
) -> Home:
    """Make a folder with the database of an Airflow.

    Args:
        folder: it is made.
        dags: folder with the DAGs; they are copied.
        programs: where Airflow is installed, a ``bin`` folder.
        audit: log directory; None: one in the folder.
        database: False: leave it out.
        settings: more environment variables for its processes.
    """
    folder.mkdir()
    notes = folder / "notes"
    notes.mkdir()
    shutil.copytree(dags, folder / "dags")  # out of the repository: there their version would be a commit
    inherited = {k: v for k, v in os.environ.items() if not k.startswith((*OURS, "AIRFLOW")) and k != "PYTHONPATH"}
    env = inherited | {
        "PATH": f"{programs}{os.pathsep}{inherited['PATH']}",
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCARF_ANALYTICS": "false",
        "SHOP_NOTES": str(notes),
        "AUDITSPAN_VALIDATE": "true",
        **QUIET,
        **settings,
    }
    home = Home(folder, env, audit or folder / "audit")
    if database:
        home.run(str(programs / "airflow"), "db", "migrate", audited=False)
    return home


@dataclass
class Standalone:
    """`airflow standalone`, and its REST API."""

    home: Home
    url: str
    token: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    """Case → Airflow's ID of the run."""

    def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, again: int = 3
    ) -> Any:
        asked = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {self.token}"} if self.token else {}),
                **(headers or {}),
            },
        )
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.load(answer)
        except TimeoutError:
            if method != "GET" or not again:
                raise
            return self.call(method, path, body, headers, again - 1)  # a busy machine; asking changes nothing
        except urllib.error.HTTPError as error:
            if error.code == 500 and again:  # SQLite was locked for too long: nothing has happened
                time.sleep(2)
                return self.call(method, path, body, headers, again - 1)
            raise AssertionError(f"{method} {path}: {error.code} {error.read()[:2000]!r}") from error

    def trigger(self, dag: str, headers: Mapping[str, str] | None = None) -> str:
        body = {"logical_date": None}
        return str(self.call("POST", f"/api/v2/dags/{dag}/dagRuns", body, headers)["dag_run_id"])

    def run(self, dag: str, run: str) -> Any:
        return self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")

    def ended(self, dag: str, run: str, within: float = 90.0) -> Any:
        """Wait until a DAG run has ended."""
        return until(
            lambda: (found := self.run(dag, run))["state"] in ("success", "failed") and found,
            f"the end of {dag} {run}",
            within,
        )

    def runs_of(self, dag: str) -> list[Any]:
        return list(self.call("GET", f"/api/v2/dags/{dag}/dagRuns")["dag_runs"])


@contextmanager
def running(
    folder: Path,
    *,
    audited: bool = True,
    dags: Path = DAGS,
    programs: Path = BIN,
    audit: Path | None = None,
    **settings: str,
) -> Iterator[Standalone]:
    """Start `airflow standalone`, under `opentelemetry-instrument` if it is audited; else as `make_home` does."""
    port, logs, trigger_logs = free_ports(3)
    home = make_home(
        folder,
        dags=dags,
        programs=programs,
        audit=audit,
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__HOST="127.0.0.1",
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__API__BASE_URL=f"http://127.0.0.1:{port}",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{port}/execution/",
        AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(logs),
        AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(trigger_logs),
        AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="False",
        AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC="1",
        AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="3600",
        AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="3600",
        AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="1",  # so long it may take to notice that a task has ended
        AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="60",
        AIRFLOW__WORKERS__MISSING_DAG_RETRIES="0",
        AIRFLOW__API_AUTH__JWT_SECRET="only-for-these-tests-only-for-these-tests-only-for-these-tests",
        **settings,
    )
    output = home.folder / "standalone.log"
    with open(output, "w") as log:
        process = subprocess.Popen(
            [
                *([str(programs / "opentelemetry-instrument")] if audited else []),
                str(programs / "airflow"),
                "standalone",
            ],
            env=home.env | ({"AUDITSPAN_DIR": str(home.audit)} if audited else {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home.folder,
            start_new_session=True,
        )
    server = Standalone(home, f"http://127.0.0.1:{port}")
    expected = sum(path.read_text().count("with DAG(") for path in (home.folder / "dags").glob("*.py"))
    try:
        passwords = home.folder / "simple_auth_manager_passwords.json.generated"

        def answers() -> bool:
            assert process.poll() is None, output.read_text()[-6000:]
            try:
                password = json.loads(passwords.read_text())["admin"]
                found = server.call("POST", "/auth/token", {"username": "admin", "password": password})
                server.token = found["access_token"]
                return len(server.call("GET", "/api/v2/dags")["dags"]) >= expected
            except (OSError, ValueError, AssertionError):
                return False

        until(answers, "airflow standalone answers and knows its DAGs", STARTS_WITHIN)
        yield server
    finally:
        stop(process)


def stop(process: subprocess.Popen[Any]) -> None:
    """End Airflow and all that it has started: it has a process group of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(8)  # it seldom ends by itself, and nothing that is looked at comes from its end
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
