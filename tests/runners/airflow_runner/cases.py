# SPDX-License-Identifier: Apache-2.0
"""What is done to a running Airflow: every case of docs/plugins/airflow.md, once."""

from __future__ import annotations

import os
import signal
import sqlite3
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from auditspan import schema
from auditspan.capture import environ
from auditspan.capture import run as runs
from auditspan.capture.run import Run
from auditspan.capture.version import ScriptVersion
from auditspan.cli.story import Record
from auditspan.schema import TriggerType
from tests.runners.airflow_runner.serving import WARMING, Standalone, until

DAG_RUN, TASK = "airflow.dag_run", "airflow.task"
WEBHOOK_TRACE = 0x0AF7651916CD43DD8448EB211C80319C
WEBHOOK_RUN = "hook-delivery-1"


@dataclass(frozen=True)
class Played:
    """Case → DAG and Airflow's ID of the run."""

    runs: dict[str, tuple[str, str]]


def webhook_headers() -> dict[str, str]:
    """Return the headers of a request that is made inside an audited run: a webhook's, say."""
    span = SpanContext(WEBHOOK_TRACE, 0xB7AD6B7169203331, is_remote=False, trace_flags=TraceFlags(1))
    run = Run(WEBHOOK_RUN, "hooks", TriggerType.WEBHOOK, "/hooks/orders", ScriptVersion("1", "declared", "hooks"))
    context = runs.enter(run, trace.set_span_in_context(NonRecordingSpan(span), Context()))
    return {name.lower(): value for name, value in environ.carrier(context).items()}


def play(airflow: Standalone) -> Played:
    """Do it all; returns when every DAG run has ended."""
    notes = airflow.home.folder / "notes"
    airflow.ended(WARMING, airflow.trigger(WARMING), 240)
    airflow.call("PATCH", "/api/v2/dags/nightly", {"is_paused": False})

    # a user calls a run off while its task sleeps
    found = {"long": ("long", airflow.trigger("long"))}
    until((notes / "sleeping").exists, "the long task sleeps", 120)
    airflow.call("PATCH", f"/api/v2/dags/long/dagRuns/{found['long'][1]}", {"state": "failed"})
    # and the process of another is killed
    found["killed"] = ("killed", airflow.trigger("killed"))
    until((notes / "victim").exists, "the victim runs", 120)
    os.kill(int(until((notes / "victim").read_text, "its process ID")), signal.SIGKILL)

    found |= {dag: (dag, airflow.trigger(dag)) for dag in ("waiting", "parent", "broken", "unloadable")}
    found["webhook"] = ("child", airflow.trigger("child", webhook_headers()))
    airflow.home.run("airflow", "dags", "trigger", "orders")
    found["orders"] = ("orders", airflow.runs_of("orders")[0]["dag_run_id"])
    # by a process that is not audited and has no tracer provider: what Airflow stores of the run's trace is not sampled
    airflow.home.run("airflow", "dags", "trigger", "untraced", audited=False)
    found["untraced"] = ("untraced", airflow.runs_of("untraced")[0]["dag_run_id"])

    # a user marks what has failed as a success, and has another task run again
    broken = found["broken"][1]
    airflow.ended("broken", broken)
    airflow.call("PATCH", f"/api/v2/dags/broken/dagRuns/{broken}/taskInstances/fails", {"new_state": "success"})
    until(lambda: airflow.run("broken", broken)["state"] == "success", "Airflow runs what comes after it")
    airflow.call(
        "POST",
        "/api/v2/dags/broken/clearTaskInstances",
        {"dry_run": False, "dag_run_id": broken, "task_ids": ["once_fixed"], "only_failed": False},
    )

    def of_others(dag: str, known: tuple[str, ...] = ()) -> str:
        return str(
            until(
                lambda: [run["dag_run_id"] for run in airflow.runs_of(dag) if run["dag_run_id"] not in known],
                f"a run of {dag}",
            )[0]
        )

    found["nightly"] = ("nightly", of_others("nightly"))
    found["on_orders"] = ("on_orders", of_others("on_orders"))
    found["child"] = ("child", of_others("child", (found["webhook"][1],)))
    for dag, run in found.values():
        airflow.ended(dag, run)
    until(lambda: _is_quiet(airflow), "nothing runs any more", 90)
    return Played(found)


def _is_quiet(airflow: Standalone) -> bool:
    going_on = airflow.home.query(
        "SELECT 1 FROM dag_run WHERE state IN ('queued', 'running') UNION ALL "
        "SELECT 1 FROM task_instance WHERE state IN ('queued', 'running', 'scheduled', 'up_for_retry', 'deferred')"
    )
    return not going_on


# -- what Airflow says, in the words of the log -----------------------------------------------------------------------
TRIES = """
    SELECT id, task_id, state, pid, 0 AS past FROM task_instance WHERE dag_id != 'warm'
    UNION ALL SELECT task_instance_id, task_id, state, pid, 1 FROM task_instance_history WHERE dag_id != 'warm'
"""


def how_of(row: sqlite3.Row) -> tuple[str, str]:
    """Return what Airflow says of a try, in the words of the log."""
    state = row["state"]
    if row["pid"] is None:
        return ("skipped", {"skipped": "success", "upstream_failed": "failure"}[state])
    if row["task_id"] == "fails":
        state = "failed"  # it was marked as a success by hand, after it had failed
    if state == "failed":
        return ("retried" if row["past"] else "finished", "failure")
    return {"success": ("finished", "success"), "skipped": ("skipped", "success")}[state]


def kind(record: Record) -> str:
    return record.get(schema.EVENT_TYPE).removeprefix("workflow.execution.")
