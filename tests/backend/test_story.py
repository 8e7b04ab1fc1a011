# SPDX-License-Identifier: Apache-2.0
"""One story over four environments: a webhook asks for an Airflow run, its task sends a job, that runs a flow."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from auditspan import schema
from auditspan_seal import spans
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from tests.backend.test_end_to_end import AUDIT, attributes, eventually
from tests.conftest import BIN, OURS, QUIET
from tests.environments import named
from tests.runners import redis_broker
from tests.runners.airflow_runner import serving as airflow
from tests.runners.environments import RUNNERS, environment_of
from tests.runners.prefect_runner import serving as prefect

pytestmark = [pytest.mark.backend, pytest.mark.slow, pytest.mark.timeout(1800)]  # environments may be built first

PROGRAMS = Path(__file__).parent / "story"
TOLD = ("fulfil", "fulfil.send", "shop.bill", "invoice", "write")
"""A DAG run, its task, a job, a flow, its task: each is caused by the one before, the first by a delivery."""


def newest(name: str) -> Path:
    """Return the ``bin`` folder of the environment in which the newest version of a runner is tested."""
    (runner,) = (one for one in RUNNERS if (one.name, one.version) == (name, "newest"))
    return environment_of(runner)


@contextlib.contextmanager
def process(command: list[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process as long as the ``with`` block, in a group of its own; what it prints comes into `log`."""
    with log.open("wb") as out:
        started = subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)
    try:
        yield started
    finally:
        started.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait(10)


def deliver(url: str) -> Any:
    """Deliver an order."""
    order = urllib.request.Request(
        url, data=json.dumps({"number": 4711}).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(order, timeout=90) as answer:
        return json.load(answer)


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True


def play(folder: Path, endpoint: str) -> str:
    """Have the story happen; returns Airflow's ID of its run, when everything is over.

    Args:
        folder: for everything that is written; the log directory is ``audit`` in it.
        endpoint: OTLP/HTTP address of the Collector.
    """
    log, invoices = folder / "audit", folder / "invoices"
    invoices.mkdir()
    homes = {name: newest(name) for name in ("airflow", "celery", "prefect")}
    homes["webhook"] = named("webhook")
    audited = {**QUIET, "AUDITSPAN_VALIDATE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    outside = {
        k: v for k, v in os.environ.items() if not k.startswith((*OURS, "AIRFLOW", "PREFECT")) and k != "PYTHONPATH"
    }
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_broker.redis(folder / "redis"))
        broker = {"SHOP_REDIS": redis, "SHOP_QUEUE": f"shop-{uuid.uuid4().hex[:12]}"}
        (folder / "prefect").mkdir()
        prefect_api = stack.enter_context(prefect.server(folder / "prefect", homes["prefect"]))
        server = stack.enter_context(
            airflow.running(
                folder / "airflow", dags=PROGRAMS / "dags", programs=homes["airflow"], audit=log,
                **broker, **audited,
            )
        )  # fmt: skip
        every = outside | audited | {"AUDITSPAN_DIR": str(log), "PYTHONUNBUFFERED": "1"}

        celery = homes["celery"]
        flow = [homes["prefect"] / "opentelemetry-instrument", homes["prefect"] / "python", PROGRAMS / "flows.py"]
        mine = prefect.environment(folder / "prefect", PREFECT_API_URL=prefect_api)
        worker = folder / "worker.log"
        stack.enter_context(
            process(
                [
                    str(celery / "opentelemetry-instrument"), str(celery / "celery"), "--workdir", str(PROGRAMS),
                    "-A", "jobs", "worker", "-c", "1", "--loglevel", "INFO",
                ],
                every
                | {name: value for name, value in mine.items() if name.startswith("PREFECT_") or name == "DO_NOT_TRACK"}
                | broker
                | {"SHOP_INVOICES": str(invoices), "SHOP_FLOW": " ".join(map(str, flow))},
                worker,
            )
        )  # fmt: skip
        (port,) = airflow.free_ports(1)
        webhook = [homes["webhook"] / "opentelemetry-instrument", homes["webhook"] / "python", PROGRAMS / "webhook.py"]
        stack.enter_context(
            process(
                [*map(str, webhook), str(port)],
                every | {"SHOP_AIRFLOW": server.url, "SHOP_TOKEN": server.token},
                folder / "webhook.log",
            )
        )
        eventually(lambda: answers(f"http://127.0.0.1:{port}/docs"), "the webhook answers")
        eventually(lambda: "ready." in worker.read_text(), "the worker is ready")

        run = str(deliver(f"http://127.0.0.1:{port}/hooks/orders")["run"])
        assert server.ended("fulfil", run, 180)["state"] == "success"
        eventually(lambda: "succeeded in" in worker.read_text(), "the job is done", 180)
        assert (invoices / "4711.txt").read_text() == "invoice 4711\n"
    said = "".join(path.read_text(errors="replace") for path in folder.rglob("*.log"))
    assert "auditspan: a fault" not in said
    # The last process that could deliver may have been killed: whoever runs next on the directory does, here the agent.
    subprocess.run(
        [str(BIN / "auditspan"), "agent", "--once", str(log)], check=True, capture_output=True,
        env=os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
    )  # fmt: skip
    return run


def test_one_story_over_four_environments(stack: Any, elasticsearch: Elasticsearch, tmp_path: Path) -> None:
    airflow_run = f"airflow/fulfil/{play(tmp_path, stack.otlp_http_endpoint)}"
    directory = open_directory(tmp_path / "audit")
    records = verify_directory(directory, read_verifier_key(directory.verifier_key)).records

    def found(query: dict[str, Any]) -> list[dict[str, Any]]:
        elasticsearch.indices.refresh(index=AUDIT, ignore_unavailable=True)
        order: list[Any] = [{"@timestamp": "asc"}, {f"attributes.{spans.INDEX}": "asc"}]
        hits = elasticsearch.search(index=AUDIT, query=query, sort=order, size=500, ignore_unavailable=True)
        return list(hits["hits"]["hits"])

    of_this_log = {"term": {f"attributes.{spans.ORIGIN}": directory.origin}}
    eventually(lambda: len(found(of_this_log)) == records, "every record is in Elasticsearch")
    (trace,) = {hit["_source"]["trace_id"] for hit in found(of_this_log)}

    # The one query: all that there is, of one origin, in order.
    story = [attributes(hit) for hit in found({"term": {"trace_id": trace}})]
    assert {record[spans.ORIGIN] for record in story} == {directory.origin}
    assert [(record[schema.EVENT_TYPE], record[schema.TARGET_ID]) for record in story] == [
        ("workflow.execution.started", "/hooks/orders"),
        ("webhook.delivery", "/hooks/orders"),
        *((f"workflow.execution.{what}", one) for one in TOLD for what in ("started", "finished")),
    ]
    assert len(story) == records

    # Who caused whom: the runs, and record by record.
    delivery, dag_run, task, job, flow, step = ended = [
        record for record in story if record[schema.EVENT_TYPE] != "workflow.execution.started"
    ]
    assert dag_run[schema.RUN_ID] == task[schema.RUN_ID] == airflow_run
    assert flow[schema.RUN_ID] == step[schema.RUN_ID]
    assert len({record[schema.RUN_ID] for record in story}) == 4
    assert schema.PARENT_RUN_ID not in delivery
    assert dag_run[schema.PARENT_RUN_ID] == task[schema.PARENT_RUN_ID] == delivery[schema.RUN_ID]
    assert job[schema.PARENT_RUN_ID] == airflow_run
    assert flow[schema.PARENT_RUN_ID] == step[schema.PARENT_RUN_ID] == job[schema.RUN_ID]
    assert schema.PARENT_RECORD_ID not in delivery
    for before, after in itertools.pairwise(ended):
        assert after[schema.PARENT_RECORD_ID] == before[schema.RECORD_ID], after
    assert dag_run[schema.PARENT_RUN_CLAIMED] is True  # it came with a request, from whoever asked

    assert [record[schema.TRIGGER_TYPE] for record in ended] == ["webhook", "api", "api", *["parent_run"] * 3]
    assert {record[schema.OUTCOME] for record in story} == {"success"}
    assert all(record[schema.SCRIPT_VERSION] != schema.UNKNOWN for record in story)
    # Webhook, scheduler, task, worker's child, and the flow with its step.
    streams = [record[spans.STREAM] for record in ended]
    assert streams[-1] == streams[-2]
    assert len(set(streams)) == 5

    key = ["--key", str(directory.verifier_key)]
    for place in ([str(directory.path)], ["--elasticsearch", stack.elasticsearch_url, "--origin", directory.origin]):
        done = subprocess.run([str(BIN / "auditspan"), "verify", *place, *key], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"PASSED  {records} audit records" in done.stdout
