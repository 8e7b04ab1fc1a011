# SPDX-License-Identifier: Apache-2.0
"""Zero-code boot: an untouched program under ``opentelemetry-instrument``, in every configuration people use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from auditspan import schema
from auditspan.cli import main
from auditspan.cli.story import from_directory
from auditspan_seal.formats import statement as statements
from auditspan_seal.log import reader
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Verdict
from tests.conftest import Run
from tests.records import ON_PURPOSE

pytestmark = pytest.mark.slow

PROGRAM = """
import datetime, time
from apscheduler.schedulers.background import BackgroundScheduler
done = []
scheduler = BackgroundScheduler(timezone="UTC")
scheduler.add_job(lambda: done.append(1), "date", id="once", name="once")
scheduler.start()
while not done or scheduler.get_jobs():  # it takes the job out after it has run
    time.sleep(0.01)
scheduler.shutdown()
print("the program is done")
"""


def entries(folder: Path) -> list[dict[str, object]]:
    directory = open_directory(folder)
    return [
        fields
        for block in reader.blocks(directory.log)
        if isinstance(block, reader.Block)
        for fields in map(statements.decode, block.statements)
        if fields["type"] == "span"
    ]


def assert_audited(folder: Path) -> list[dict[str, object]]:
    began, *found = entries(folder)
    assert began["attributes"]["audit.event.type"] == "workflow.execution.started"  # type: ignore[index]
    assert len(found) == 1
    assert verify_directory(open_directory(folder)).verdict is Verdict.PASSED
    return found


def test_an_untouched_program_is_audited(instrumented: Run, log_folder: Path) -> None:
    plain = instrumented(PROGRAM, instrument=False)
    done = instrumented(PROGRAM)
    assert (done.returncode, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert_audited(log_folder)


def test_beside_a_console_exporter(instrumented: Run, log_folder: Path) -> None:
    done = instrumented(PROGRAM, env={"OTEL_TRACES_EXPORTER": "console"})
    assert '"audit.record.id"' in done.stdout
    assert_audited(log_folder)


def test_always_off_records_all_and_shows_the_users_exporter_nothing(instrumented: Run, log_folder: Path) -> None:
    done = instrumented(PROGRAM, env={"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_off"})
    assert done.stdout == "the program is done\n"
    (found,) = assert_audited(log_folder)
    assert int(str(found["trace_flags"])) & 1 == 0


def test_without_any_distro_the_sdk_is_started_all_the_same(instrumented: Run, log_folder: Path) -> None:
    # as if none was installed: OpenTelemetry loads only the distro and configurator of this name
    none = {"OTEL_PYTHON_DISTRO": "none", "OTEL_PYTHON_CONFIGURATOR": "none", "OTEL_TRACES_EXPORTER": "console"}
    done = instrumented(PROGRAM, env=none)
    assert '"audit.record.id"' in done.stdout
    assert_audited(log_folder)


def test_the_exporter_name_auditspan(instrumented: Run, log_folder: Path) -> None:
    instrumented(PROGRAM, env={"OTEL_TRACES_EXPORTER": "auditspan"})
    assert_audited(log_folder)


@pytest.mark.parametrize("exporter", ["console", "auditspan"])
def test_a_configuration_file(instrumented: Run, log_folder: Path, tmp_path: Path, exporter: str) -> None:
    config = tmp_path / "otel.yaml"
    config.write_text(
        'file_format: "1.0"\ntracer_provider:\n  processors:\n'
        f"    - simple:\n        exporter:\n          {exporter}: {{}}\n"
    )
    done = instrumented(PROGRAM, env={"OTEL_CONFIG_FILE": str(config)})
    assert "NOT ACTIVE" not in done.stderr
    assert_audited(log_folder)


BROKEN = {
    "the SDK is disabled": {"OTEL_SDK_DISABLED": "true"},
    "OpenTelemetry fails to boot": {"OTEL_TRACES_EXPORTER": "no-such-exporter"},
    "the directory cannot be made": {"AUDITSPAN_DIR": "/proc/nonexistent/auditspan"},
}


@pytest.mark.parametrize("how", BROKEN)
def test_it_says_loudly_that_auditing_is_not_active(instrumented: Run, how: str) -> None:
    done = instrumented("print('the program runs')", env=BROKEN[how])
    assert "auditspan: AUDITING IS NOT ACTIVE" in done.stderr
    assert (done.returncode, done.stdout) == (0, "the program runs\n")


@pytest.mark.parametrize("how", BROKEN)
def test_required_refuses_to_start(instrumented: Run, how: str) -> None:
    done = instrumented("print('the program runs')", env=BROKEN[how] | {"AUDITSPAN_REQUIRED": "true"})
    assert "AUDITSPAN_REQUIRED is set: the program is not started" in done.stderr
    assert (done.returncode, done.stdout) == (78, "")


def test_required_refuses_a_start_without_instrumentation(instrumented: Run) -> None:
    done = instrumented("print('the program runs')", env={"AUDITSPAN_REQUIRED": "true"}, instrument=False)
    assert (done.returncode, done.stdout) == (78, "")


def test_required_lets_an_audited_program_start(instrumented: Run, log_folder: Path) -> None:
    done = instrumented(PROGRAM, env={"AUDITSPAN_REQUIRED": "true"})
    assert (done.returncode, done.stdout) == (0, "the program is done\n")


def test_without_any_setting_nothing_of_ours_is_imported(instrumented: Run) -> None:
    done = instrumented("import sys; print([m for m in sys.modules if m.startswith('auditspan')])", instrument=False)
    assert done.stdout == "[]\n"


FAULT = (
    """
import auditspan.capture.recorder as recorder
def broken(*arguments, **named):
    raise RuntimeError("injected")
recorder.Recorder.start = broken
"""
    + PROGRAM
)


def test_a_fault_in_a_plugin_is_contained_counted_and_shown(
    instrumented: Run, log_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from auditspan.cli import main

    done = instrumented(FAULT)
    assert (done.returncode, done.stdout) == (0, "the program is done\n")
    assert main(["status", str(log_folder), "--json"]) == 3
    state = json.loads(capsys.readouterr().out)
    assert sum(state["faults"].values()) >= 1
    assert any("apscheduler" in where for where in state["faults"])
    assert main(["status", str(log_folder)]) == 3
    assert "faults in" in capsys.readouterr().out


def test_a_record_that_breaks_the_registry_is_kept_marked_and_shown(
    instrumented: Run, log_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import auditspan\n"
        "for _ in range(3):\n"
        "    with auditspan.action('APPROVE', target='1', target_type='payout', policy_name='p', policy_rule='r'):\n"
        "        pass\n"
        "print('done')\n"
    )
    done = instrumented(program, env={"AUDITSPAN_VALIDATE": "false"})
    (log_folder / ON_PURPOSE).touch()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr.count("does not follow the registry") == 1, "logged once, then only counted"
    records = [record.attributes for record in from_directory(open_directory(log_folder))]
    assert len(records) == 3, "never lost"
    assert all("audit.rationale: required, missing" in record[schema.NONCONFORMANT] for record in records)
    assert main(["status", str(log_folder)]) == 3
    assert "3 records of auditspan.api do not follow the registry" in " ".join(capsys.readouterr().out.split())
