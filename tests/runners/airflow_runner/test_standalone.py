# SPDX-License-Identifier: Apache-2.0
"""A real `airflow standalone`: what its database says was executed is what the log says, in kind and number."""

from __future__ import annotations

import getpass
import hashlib
import json
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from auditspan import schema
from auditspan.cli.story import Record, from_directory
from auditspan_seal.log.directory import open_directory
from auditspan_seal.log.segment import process_of
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Verdict
from tests.runners.airflow_runner import cases
from tests.runners.airflow_runner.cases import DAG_RUN, TASK, TRIES, WEBHOOK_RUN, WEBHOOK_TRACE, Played, how_of, kind
from tests.runners.airflow_runner.serving import DAGS, Standalone, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

UNKNOWN = "unknown"
RUNS = "SELECT dag_id, run_id, state, clear_number FROM dag_run WHERE dag_id != 'warm'"


@pytest.fixture(scope="session")
def played(standalone: Standalone) -> Played:
    found = cases.play(standalone)
    # A process that was killed is noticed by whoever sequences the log.
    until(lambda: _kinds(standalone, "interrupted") >= 2, "the log says what was interrupted", 90)
    with suppress(AssertionError):  # the tests say better what is missing
        until(lambda: _all_is_told(standalone), "every process has written what it did", 60)
    before = -1
    while before != (now := len(standalone.home.records())):  # what is told twice would come now
        before = now
        time.sleep(1)
    return found


def _all_is_told(standalone: Standalone) -> bool:
    """Tell whether each try and each DAG run that Airflow knows of has a record that says how it ended."""
    found = [one for one in standalone.home.records() if not by_hand(one) and not goes_on(one)]
    tries = {str(uuid.UUID(row["id"])) for row in standalone.home.query(TRIES)}
    runs = {f"airflow/{row['dag_id']}/{row['run_id']}" for row in standalone.home.query(RUNS)}
    return tries <= {one.get(schema.TASK_RUN_ID) for one in found if one.get(schema.TARGET_TYPE) == TASK} and runs <= {
        one.get(schema.RUN_ID) for one in found if one.get(schema.TARGET_TYPE) == DAG_RUN
    }


def _kinds(standalone: Standalone, kind: str) -> int:
    return sum(record.get(schema.EVENT_TYPE).endswith(kind) for record in standalone.home.records())


def goes_on(record: Record) -> bool:
    return "same try goes on" in record.get(schema.RUN_REASON)


def by_hand(record: Record) -> bool:
    return "by hand" in record.get(schema.RUN_REASON) or kind(record) == "policy.evaluation"


def records_of(standalone: Standalone, played: Played, case: str) -> list[Record]:
    dag, run = played.runs[case]
    return [one for one in standalone.home.records() if one.get(schema.RUN_ID) == f"airflow/{dag}/{run}"]


# -- kinds and numbers -----------------------------------------------------------------------------------------------
def test_as_many_dag_runs_end_as_airflow_reports(standalone: Standalone, played: Played) -> None:
    reported: Counter[tuple[str, str]] = Counter()
    for row in standalone.home.query(RUNS):
        state = row["state"]
        if (row["dag_id"], state) == ("long", "success"):
            # A scheduler that had looked at it before has taken back what the user did, and said so in its own record.
            everything = from_directory(open_directory(standalone.home.audit))
            ends = [
                one
                for one in everything
                if (one.get(schema.TARGET_TYPE), one.get(schema.TARGET_ID)) == (DAG_RUN, "long")
            ]
            assert {one.get(schema.OUTCOME) for one in ends} >= {"success", "failure"}
            state = "failed"
        reported[row["dag_id"], "success" if state == "success" else "failure"] += 1
        if row[
            "clear_number"
        ]:  # `broken`: had failed; a task marked as a success, and cleared what follows; cleared again
            assert (row["dag_id"], row["clear_number"]) == ("broken", 2)
            reported["broken", "failure"] += 1
            reported["broken", "success"] += 1
    recorded = Counter(
        (record.get(schema.TARGET_ID), record.get(schema.OUTCOME))
        for record in standalone.home.records()
        if record.get(schema.TARGET_TYPE) == DAG_RUN
    )
    print(f"{sum(reported.values())} ends of DAG runs, {len(reported)} kinds")
    assert recorded == reported
    assert sum(reported.values()) >= 11


def test_as_many_tries_end_as_airflow_reports(standalone: Standalone, played: Played) -> None:
    notes = standalone.home.folder / "notes"
    killed = {int((notes / name).read_text()) for name in ("sleeping", "victim")}  # processes
    reported = {}
    for row in standalone.home.query(TRIES):
        how = ("interrupted", UNKNOWN) if row["pid"] in killed else how_of(row)
        reported[str(uuid.UUID(row["id"]))] = (row["task_id"], *how)
    recorded: dict[str, tuple[str, str, str]] = {}
    given_up = set()
    for record in standalone.home.records():
        if record.get(schema.TARGET_TYPE) != TASK or by_hand(record) or goes_on(record):
            continue
        key = record.get(schema.TASK_RUN_ID)
        if "gave it up" in record.get(schema.RUN_REASON):
            given_up.add(key)  # by the scheduler, on a busy machine: its process goes on, and records another end
            continue
        assert key not in recorded, f"two records of one try: {recorded[key]}, {record.attributes}"
        recorded[key] = (record.get(schema.TASK_NAME), kind(record), record.get(schema.OUTCOME))
    print(f"{len(reported)} tries, {len(given_up)} given up: {Counter(how[1:] for how in reported.values())}")
    assert recorded.keys() == reported.keys()
    assert {reported[key][2] for key in given_up} <= {"failure", UNKNOWN}  # unknown to the log: killed
    assert {key: how for key, how in recorded.items() if key not in given_up} == {
        key: how for key, how in reported.items() if key not in given_up
    }
    assert len(reported) >= 20


def test_of_a_run_whose_trace_is_not_sampled_everything_is_recorded(standalone: Standalone, played: Played) -> None:
    """With its tracing off, Airflow keeps a `traceparent` that ends in -00, and OpenTelemetry's sampler follows it."""
    (stored,) = standalone.home.query("SELECT state, context_carrier FROM dag_run WHERE dag_id = 'untraced'")
    carrier = json.loads(stored["context_carrier"])
    traceparent = carrier.get("__var", carrier)["traceparent"]
    assert traceparent.endswith("-00")
    found = records_of(standalone, played, "untraced")
    assert {one.fields["trace_id"] for one in found} == {traceparent.split("-")[1]}
    assert {int(one.fields["trace_flags"]) & 1 for one in found} == {0}  # what Airflow decided is left as it is
    of_it = [row for row in standalone.home.query(TRIES) if row["task_id"] in ("each", "flaky_too", "in_vain")]
    reported = Counter((row["task_id"], *how_of(row)) for row in of_it)
    assert reported == {
        ("each", "finished", "success"): 2, ("flaky_too", "retried", "failure"): 1,
        ("flaky_too", "finished", "success"): 1, ("in_vain", "finished", "failure"): 1,
    }  # fmt: skip
    assert stored["state"] == "failed"
    assert Counter(
        (one.get(schema.TASK_NAME), kind(one), one.get(schema.OUTCOME)) for one in found
    ) == reported + Counter(
        {("", "finished", "failure"): 1}  # the run itself
    )


def test_what_goes_on_later_is_told_from_what_has_ended(standalone: Standalone, played: Played) -> None:
    on_hold = [one for one in records_of(standalone, played, "waiting") if one.get(schema.OUTCOME) == UNKNOWN]
    assert sorted(one.get(schema.RUN_REASON).split()[0] for one in on_hold) == ["deferred", "rescheduled;"]


# -- who, why, which -------------------------------------------------------------------------------------------------
def test_processes_correlate(standalone: Standalone, played: Played) -> None:
    """One trace and one run for scheduler, API server and tasks, and the task's parent is the run's record."""
    for case in played.runs:
        found = [one for one in records_of(standalone, played, case) if not by_hand(one)]
        ends = [one for one in records_of(standalone, played, case) if one.get(schema.TARGET_TYPE) == DAG_RUN]
        if case == "broken":
            continue  # cleared: below
        assert len(ends) == 1, case
        assert len({one.fields["trace_id"] for one in found}) == 1, case
        ran = [one for one in found if one.get(schema.TARGET_TYPE) == TASK]
        # The log itself says what was interrupted: inside of the record that was never written.
        inside = [one for one in ran if one.get(schema.RUN_REASON) != "its process ended before it did"]
        assert {one.get(schema.PARENT_RECORD_ID) for one in inside} <= {ends[0].get(schema.RECORD_ID)}, case
        processes = {process_of(one.fields["segment"]) for one in found}
        assert len(processes) >= (2 if ran else 1), case


def test_a_cleared_run_is_one_run_in_several_traces(standalone: Standalone, played: Played) -> None:
    found = records_of(standalone, played, "broken")
    assert len({one.fields["trace_id"] for one in found}) == 3  # Airflow gives it a new one each time
    again = [one for one in found if one.get(schema.TASK_NAME) == "once_fixed" and not by_hand(one)]
    assert sorted((one.get(schema.RUN_ATTEMPT), one.get(schema.OUTCOME)) for one in again) == [
        ("1", "success"),
        ("2", "success"),
    ]


def test_a_triggered_run_names_its_parent(standalone: Standalone, played: Played) -> None:
    parent = f"airflow/parent/{played.runs['parent'][1]}"
    children = records_of(standalone, played, "child")
    assert {one.get(schema.PARENT_RUN_ID) for one in children} == {parent}
    assert {one.get("automation.parent.run.claimed") for one in children} == {""}
    parents = records_of(standalone, played, "parent")
    assert {one.fields["trace_id"] for one in children} == {one.fields["trace_id"] for one in parents}
    trigger = next(one for one in parents if one.get(schema.TARGET_TYPE) == TASK)
    child = next(one for one in children if one.get(schema.TARGET_TYPE) == DAG_RUN)
    assert child.get(schema.PARENT_RECORD_ID) == trigger.get(schema.RECORD_ID)


def test_a_run_asked_for_inside_an_audited_run_goes_on_with_its_trace(standalone: Standalone, played: Played) -> None:
    found = records_of(standalone, played, "webhook")
    assert {one.get(schema.PARENT_RUN_ID) for one in found} == {WEBHOOK_RUN}
    assert {one.get("automation.parent.run.claimed") for one in found} == {"True"}  # by whoever sent the request
    assert {one.fields["trace_id"] for one in found} == {f"{WEBHOOK_TRACE:032x}"}


def test_what_is_done_by_hand_names_who_did_it(standalone: Standalone, played: Played) -> None:
    long = [one for one in records_of(standalone, played, "long") if by_hand(one)]
    assert ("cancelled", DAG_RUN, "admin") in {_deed(one) for one in long}
    broken = {_deed(one) for one in records_of(standalone, played, "broken") if by_hand(one)}
    assert broken == {("policy.evaluation", TASK, "admin"), ("retried", TASK, "admin")}
    cleared = {one.get(schema.TASK_NAME) for one in records_of(standalone, played, "broken") if kind(one) == "retried"}
    assert cleared == {"once_fixed", "after_failure"}  # with `fails` a success, Airflow cleared what had waited for it
    # and Airflow's own log of events says the same
    events = standalone.home.query("SELECT event, owner FROM log WHERE owner = 'admin'")
    assert {"patch_dag_run", "post_clear_task_instances", "patch_task_instance"} <= {row["event"] for row in events}


def _deed(record: Record) -> tuple[str, str, str]:
    return kind(record), record.get(schema.TARGET_TYPE), record.get(schema.ACTOR_ID)


def test_no_data_of_tasks_is_recorded(standalone: Standalone, played: Played) -> None:
    assert b"4111 1111" not in b"".join(
        path.read_bytes() for path in standalone.home.audit.rglob("*") if path.is_file()
    )


def test_no_fault_was_contained(standalone: Standalone, played: Played) -> None:
    said = (standalone.home.folder / "standalone.log").read_text()
    assert "auditspan: a fault" not in said
    assert {one.get(schema.NONCONFORMANT) for one in standalone.home.records()} == {""}


def test_the_log_verifies(standalone: Standalone, played: Played) -> None:
    report = verify_directory(open_directory(standalone.home.audit))
    assert report.verdict is Verdict.PASSED, report.findings[:5]


# -- the matrix ------------------------------------------------------------------------------------------------------
# case → trigger type, rule, who asked (None: nobody)
CASES = {
    "scheduled": ("nightly", "schedule", "0 3 * * *", None),
    "manual (command line)": ("orders", "manual", "cli", getpass.getuser()),
    "API": ("waiting", "api", "rest_api", "admin"),
    "API, inside an audited run": ("webhook", "api", "rest_api", "admin"),
    "by an asset": ("on_orders", "event", "asset: file:///orders", None),
    "by a parent run": ("child", "parent_run", "operator: parent", "admin"),
    "failed": ("broken", "api", "rest_api", "admin"),
    "cannot be started": ("unloadable", "api", "rest_api", "admin"),
    "cancelled (marked failed)": ("long", "api", "rest_api", "admin"),
    "killed (`kill -9`), then retried": ("killed", "api", "rest_api", "admin"),
}
DOCS = Path(__file__).parents[3] / "docs" / "plugins" / "airflow.md"


def test_the_matrix_is_right_in_every_case(standalone: Standalone, played: Played) -> None:
    me = getpass.getuser()
    file_hash = {
        name: "sha256:" + hashlib.sha256((DAGS / name).read_bytes()).hexdigest()
        for name in ("shop.py", "unloadable.py")
    }
    dag_hashes = {
        row["dag_id"]: f"dag:{row['dag_hash']}"
        for row in standalone.home.query("SELECT dag_id, dag_hash FROM serialized_dag")
    }
    rows = []
    for title, (case, trigger, rule, person) in CASES.items():
        dag, run = played.runs[case]
        found = records_of(standalone, played, case)
        assert found, title
        assert {one.get(schema.TRIGGER_TYPE) for one in found} == {trigger}, title
        assert {one.get(schema.TRIGGER_RULE) for one in found} == {rule}, title
        assert {one.get(schema.WORKFLOW_VERSION) for one in found} == {"1"}, title
        assert {one.get(schema.WORKFLOW_BUNDLE) for one in found} == {"dags-folder"}, title
        for one in found:
            ran = one.get(schema.TARGET_TYPE) == TASK and one.get(schema.CODE_FUNCTION)
            versions = {dag_hashes[dag], file_hash["shop.py"]} if ran else {dag_hashes[dag]}
            assert one.get(schema.SCRIPT_VERSION) in versions, (title, one.attributes)
            if by_hand(one):
                assert one.get(schema.ACTOR_ID) == "admin", title
            elif one.get(schema.TARGET_TYPE) == DAG_RUN:
                assert one.get(schema.ACTOR_ID) == (person or me), title
            elif one.get(schema.ACTOR_ID) == "admin":  # what does not run any more because a user called the run off
                assert (case, kind(one)) == ("long", "skipped")
            else:
                assert one.get(schema.ACTOR_ID) == me, title
                assert one.get(schema.BEHALF_ID) == (person or ""), (title, one.attributes)
        tries = sorted(
            (one.get(schema.TASK_NAME), int(one.get(schema.RUN_ATTEMPT)), kind(one), one.get(schema.OUTCOME))
            for one in found
            if one.get(schema.TARGET_TYPE) == TASK
            and not by_hand(one)
            and "gave it up" not in one.get(schema.RUN_REASON)
        )
        api = standalone.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        assert {(task, attempt) for task, attempt, *_ in tries} >= {
            (ti["task_id"], max(ti["try_number"], 1)) for ti in api if ti["state"] not in ("removed", None)
        }, title
        said = "; ".join(dict.fromkeys(f"{task} {attempt}: {how} {outcome}" for task, attempt, how, outcome in tries))
        rows.append(f"| {title} | Airflow's | right | {trigger} | `{rule}` | {_who(person)} | {said} |")
    table = "\n".join(
        [
            "| case | run ID | script version | trigger | rule | who asked | tries: attempt, kind, outcome |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    written = DOCS.read_text() if DOCS.exists() else ""
    if table not in written:
        proposal = standalone.home.folder / "matrix.md"
        proposal.write_text(table + "\n")
        raise AssertionError(f"{DOCS} has not what was found; it is in {proposal}:\n{table}")


def _who(person: str | None) -> str:
    if person is None:
        return "nobody: the scheduler's account"
    return f"user {person}" if person == "admin" else "the OS user"
