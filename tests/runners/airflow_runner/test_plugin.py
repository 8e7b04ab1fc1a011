# SPDX-License-Identifier: Apache-2.0
"""Where the plugin of Airflow leaves a process alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runners.airflow_runner.serving import Home, make_home

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ASKED = """
from airflow.listeners.listener import get_listener_manager
from airflow.sdk.execution_time import task_runner
from auditspan.runners.airflow import AirflowInstrumentor
plugins = [type(one).__name__ for one in get_listener_manager().pm.get_plugins()]
wrapped = type(task_runner.finalize).__name__ != "function"  # Airflow's own decorators leave a function
print("plugins", plugins, "wrapped", wrapped, "on", AirflowInstrumentor().server is not None)
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home", database=False)


def test_it_is_on_where_a_log_directory_is_named(home: Home) -> None:
    said = home.run("python", "-c", ASKED)
    assert "plugins ['_Listener'] wrapped True on True" in said.stdout, said.stdout + said.stderr


def test_that_it_is_installed_alone_changes_nothing(home: Home) -> None:
    said = home.run("python", "-c", ASKED, audited=False)
    assert "plugins [] wrapped False on False" in said.stdout, said.stdout + said.stderr


@pytest.mark.parametrize("version", ["2.11.2", "4.0.1"])
@pytest.mark.parametrize("started", [(), ("opentelemetry-instrument",)], ids=["by itself", "instrumented"])
def test_a_version_that_is_not_supported_gets_one_warning(home: Home, version: str, started: tuple[str, ...]) -> None:
    """The real Airflow says by its metadata that it is another version, as after an upgrade."""
    metadata = home.folder / "first" / f"apache_airflow_core-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: apache-airflow-core\nVersion: {version}\n")
    said = home.run(*started, "python", "-c", ASKED, more={"PYTHONPATH": str(metadata.parent)})
    assert "plugins [] wrapped False on False" in said.stdout
    (warning,) = [line for line in (said.stdout + said.stderr).splitlines() if "auditspan" in line]
    assert "airflow IS NOT AUDITED" in warning
    assert f"apache-airflow-core {version}" in warning
    assert "apache-airflow-core >= 3.0, < 4" in warning
    assert "Traceback" not in said.stdout + said.stderr
