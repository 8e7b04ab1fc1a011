# SPDX-License-Identifier: Apache-2.0
"""Every case in one table, filled from real records: docs/plugins/celery.md holds it, and may say nothing else.

``AUDITSPAN_TEST_WRITE_DOCS=true`` writes it there.
"""

from __future__ import annotations

import getpass
import os
import sys
import urllib.request
from typing import Any

import pytest

from auditspan import schema
from tests.conftest import BIN
from tests.environments import ROOT
from tests.runners.celery_runner.conftest import MODULE, Installation, told
from tests.runners.redis_broker import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = ROOT / "docs" / "plugins" / "celery.md"
BEGIN, END = "<!-- matrix: written by tests/runners/celery_runner/test_matrix.py -->", "<!-- end of matrix -->"
HEAD = (
    "case", "result backend", "records: event, outcome", "attempt", "trigger: rule", "parent run", "actor, for whom",
    "error type",
)  # fmt: skip


def test_the_matrix_of_newest(installation: Installation) -> None:
    ids: dict[str, str] = {}
    worker = installation.worker(concurrency=2)
    port = free_port()
    installation.start(
        sys.executable, "-m", "uvicorn", f"{MODULE.rpartition('.')[0]}.service:service", "--port", str(port),
        name="service",
    )  # fmt: skip
    installation.start(
        str(BIN / "celery"), "-A", MODULE, "beat", "--schedule", str(installation.folder / "schedule"), "--pidfile", "",
        name="beat", TEST_BEAT="yes",
    )  # fmt: skip
    installation.wait(lambda: len({line["task"] for line in installation.ledger()}) == 2, "beat")
    installation.processes["beat"].terminate()
    ids["scheduled (crontab)"] = next(
        line["id"] for line in installation.ledger() if line["task"] == "application.fail"
    )
    ids["scheduled (interval)"] = next(
        line["id"] for line in installation.ledger() if line["task"] == "application.add"
    )
    ids["manual: `delay()` in a script"] = installation.send("add.delay(1, 2)")
    installation.wait(lambda: "Uvicorn running" in installation.output("service"), "the service")
    for case, path in (
        ("API: a webhook delivery to FastAPI", "hooks/report"),
        ("API: a request to FastAPI that is no webhook", "reports"),
    ):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", method="POST", data=b"{}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            ids[case] = answer.read().decode().strip('"')
    parent = installation.send("parent.delay()")
    installation.states(parent)
    ids["parent: sent by a task"] = installation.app.AsyncResult(parent).result
    ids["parent: next link of a chain"] = installation.send("chain(add.s(1, 1), add.s(2)).apply_async()")
    ids["retried, then successful"] = installation.send("retried.delay(1)")
    ids["retried until it failed"] = installation.send("exhausted.delay()")
    ids["failed"] = installation.send("fail.delay()")
    ids["cancelled: revoked before it began"] = installation.send("add.apply_async((1, 2), countdown=3)")
    installation.app.control.revoke(ids["cancelled: revoked before it began"])
    ids["cancelled: revoked and terminated"] = installation.send("sleep.delay(60)")
    installation.wait(lambda: installation.attempts(ids["cancelled: revoked and terminated"]), "it to begin")
    installation.app.control.revoke(ids["cancelled: revoked and terminated"], terminate=True)
    ids["expired"] = installation.send("add.apply_async((5, 6), expires=-1)")
    ids["hard time limit"] = installation.send("limited.delay()")
    ids["killed: `kill -9` of the pool child"] = installation.send("sleep.delay(60)")
    killed = ids["killed: `kill -9` of the pool child"]
    installation.wait(lambda: installation.attempts(killed), "it to begin")
    os.kill(next(line["pid"] for line in installation.ledger() if line["id"] == killed), 9)
    ids["sent by a program that is not audited"] = installation.app.send_task("application.add", (1, 2)).id
    installation.wait(lambda: installation.output("worker0").count("Discarding revoked task") >= 2, "what is revoked")
    states = installation.states(*ids.values())
    installation.stop(worker)

    # What is said in every case alike.
    for case, one in ids.items():
        for record in installation.records(one):
            assert record[schema.RUN_ID] == record[schema.TASK_RUN_ID] == one, case
            assert record[schema.SCRIPT_VERSION] != "unknown", case
            assert record[schema.WORKFLOW_NAME].startswith("application."), case
        begun = len(installation.attempts(one))
        if begun:  # each attempt that the task itself has noted has one record
            assert len(installation.records(one)) == begun, case
    table = [HEAD, ("---",) * len(HEAD)] + [
        row(case, states[one], installation.records(one)) for case, one in ids.items()
    ]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in table)
    written = PAGE.read_text()
    before, _, rest = written.partition(BEGIN)
    _, _, after = rest.partition(END)
    expected = f"{before}{BEGIN}\n{text}\n{END}{after}"
    if os.environ.get("AUDITSPAN_TEST_WRITE_DOCS"):
        PAGE.write_text(expected)
    assert written == expected or os.environ.get("AUDITSPAN_TEST_WRITE_DOCS")


def row(case: str, state: str, records: list[dict[str, Any]]) -> tuple[str, ...]:
    """Make a row; IDs and users, which are others each time, are named by what they are."""

    def each(values: list[str]) -> str:
        return values[0] if len(set(values)) == 1 else ", ".join(values)

    def parent(record: dict[str, Any]) -> str:
        found = record.get(schema.PARENT_RUN_ID, "none")
        if found.startswith("webhook/"):
            return "the delivery's"
        return found if found == "none" else "the sending task's"

    def actor(record: dict[str, Any]) -> str:
        assert record[schema.ACTOR_ID] in (getpass.getuser(), "(withheld)") or isinstance(record[schema.ACTOR_ID], dict)
        return "OS user of the worker" + (", sender" if schema.BEHALF_ID in record else "")

    return (
        case,
        state,
        "; ".join(f"{kind}, {outcome}" for kind, outcome in map(told, records)),
        each([str(record[schema.RUN_ATTEMPT]) for record in records]),
        each([f"{record[schema.TRIGGER_TYPE]}: `{record[schema.TRIGGER_RULE]}`" for record in records]),
        each([parent(record) for record in records]),
        each([actor(record) for record in records]),
        each([f"`{record[schema.ERROR_TYPE]}`" if schema.ERROR_TYPE in record else "none" for record in records]),
    )
