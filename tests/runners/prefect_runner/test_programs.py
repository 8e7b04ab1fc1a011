# SPDX-License-Identifier: Apache-2.0
"""Programs under ``opentelemetry-instrument`` beside a real server: transparency, Prefect's own spans, versions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from auditspan import schema
from tests.conftest import QUIET
from tests.runners.prefect_runner.reported import Api, how
from tests.runners.prefect_runner.serving import HERE, INSTRUMENTED, audited, environment, read

pytestmark = pytest.mark.slow


def run(command: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def spans(printed: str) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Return Prefect's own spans by span ID, and ours, from what the console exporter printed."""
    decoder, at, own, ours = json.JSONDecoder(), 0, {}, []
    while (begin := printed.find("{", at)) >= 0:
        span, at = decoder.raw_decode(printed, begin)
        if schema.RECORD_ID in span["attributes"]:
            ours.append(span)
        elif "prefect.run.id" in span["attributes"]:
            own[span["context"]["span_id"]] = span
    return own, ours


def test_everything_is_the_same_with_and_without_us(served: tuple[Path, str], tmp_path: Path) -> None:
    _, url = served
    program = str(HERE / "everyday.py")
    plain = run([sys.executable, program], environment(tmp_path, PREFECT_API_URL=url), tmp_path)
    with closing(Api(url)) as api:
        watched = run([*INSTRUMENTED, program], audited(tmp_path, url), tmp_path)
        lines = how(api.agrees(lambda: read(tmp_path / "log")))
    assert watched.stdout == plain.stdout
    assert plain.stdout.count("\n") == 8
    assert "auditspan" not in watched.stderr
    assert sum(lines.values()) > 15
    assert lines["flow", "finished failure"] == 2  # returned, and called with what is no number


def test_the_example(served: tuple[Path, str], tmp_path: Path) -> None:
    _, url = served
    program = HERE.parents[2] / "examples" / "prefect-weather" / "report.py"
    env = {"REPORTS": str(tmp_path)}
    plain = run([sys.executable, str(program), "2015"], environment(tmp_path, PREFECT_API_URL=url) | env, tmp_path)
    report = (tmp_path / "2015.json").read_bytes()
    (tmp_path / "file-server-is-down").touch()
    with closing(Api(url)) as api:
        watched = run([*INSTRUMENTED, str(program), "2015"], audited(tmp_path, url) | env, tmp_path)
        assert how(api.agrees(lambda: read(tmp_path / "log"))) == {
            ("flow", "finished success"): 2, ("task", "finished success"): 14, ("task", "retried"): 1,
        }  # fmt: skip
    assert (watched.stdout, (tmp_path / "2015.json").read_bytes()) == (plain.stdout, report)


def test_prefects_own_spans_are_neither_doubled_nor_lost(served: tuple[Path, str], tmp_path: Path) -> None:
    _, url = served
    command = [*INSTRUMENTED, "-c", "import deployed; deployed.inner(); deployed.tick()"]
    printing = {"OTEL_TRACES_EXPORTER": "console", "PYTHONPATH": str(HERE)}
    without = run(command, audited(tmp_path, url) | printing | {"AUDITSPAN_DISABLED_PLUGINS": "prefect"}, tmp_path)
    with_us = run(command, audited(tmp_path, url) | printing, tmp_path)
    before, none = spans(without.stdout)
    own, ours = spans(with_us.stdout)
    assert none == []

    def kinds(found: dict[str, dict[str, Any]]) -> Counter[str]:
        return Counter(str(span["attributes"]["prefect.run.type"]) for span in found.values())

    assert kinds(own) == kinds(before) == {"flow": 2, "task": 2}
    ended = [span for span in ours if span["attributes"][schema.EVENT_TYPE] == "workflow.execution.finished"]
    assert len(ended) == 4
    for span in ended:
        above = own[span["parent_id"]]
        assert above["attributes"]["prefect.run.id"] == span["attributes"][schema.TASK_RUN_ID]
        assert above["context"]["trace_id"] == span["context"]["trace_id"]


def test_a_sampler_that_drops_everything_drops_no_record(served: tuple[Path, str], tmp_path: Path) -> None:
    _, url = served
    env = audited(tmp_path, url, OTEL_TRACES_SAMPLER="always_off")
    with closing(Api(url)) as api:
        run([*INSTRUMENTED, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import deployed; deployed.inner()",
             str(HERE)], env, tmp_path)  # fmt: skip
        assert how(api.agrees(lambda: read(tmp_path / "log"))) == {
            ("flow", "finished success"): 1, ("task", "finished success"): 1,
        }  # fmt: skip


def test_tasks_in_a_process_pool(served: tuple[Path, str], tmp_path: Path) -> None:
    _, url = served
    with closing(Api(url)) as api:
        done = run([*INSTRUMENTED, str(HERE / "pooled.py")], audited(tmp_path, url), tmp_path)
        assert "other processes: True" in done.stdout
        lines = how(api.agrees(lambda: read(tmp_path / "log")))
    assert lines == {("flow", "finished success"): 1, ("task", "finished success"): 3}
    records = read(tmp_path / "log")
    assert len({record[schema.RUN_ID] for record in records}) == 1
    assert len({record["trace"] for record in records}) == 1


@pytest.mark.parametrize("version", ["2.20.4", "4.0.1"])
def test_a_version_outside_of_the_range_is_said_once_and_left_alone(tmp_path: Path, version: str) -> None:
    """The real Prefect says by its metadata that it is another version, as an upgrade would."""
    metadata = tmp_path / "first" / f"prefect-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: prefect\nVersion: {version}\n")
    program = "from prefect.flow_engine import FlowRunEngine as E; print(type(vars(E)['initialize_run']).__name__)"
    env = environment(tmp_path, **QUIET) | {
        "AUDITSPAN_DIR": str(tmp_path / "log"),
        "PYTHONPATH": str(tmp_path / "first"),
    }
    done = run([*INSTRUMENTED, "-c", program], env, tmp_path)
    assert done.stdout.strip() == "function"
    said = [line for line in done.stderr.splitlines() if "auditspan" in line]
    assert len(said) == 1, done.stderr
    assert f"prefect {version}" in said[0]
    assert "prefect >= 3.4, < 4" in said[0]
