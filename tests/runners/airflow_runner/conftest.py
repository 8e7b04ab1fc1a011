# SPDX-License-Identifier: Apache-2.0
"""A real Airflow, started once: it takes half a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runners.airflow_runner.serving import Home, Standalone, make_home, running


@pytest.fixture(scope="session")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """An Airflow in which the DAG `orders` has run by `dag.test()`, under `opentelemetry-instrument`."""
    home = make_home(tmp_path_factory.mktemp("airflow") / "tested")
    done = home.run("opentelemetry-instrument", "python", str(home.folder / "dags" / "shop.py"))
    assert "auditspan: a fault" not in done.stdout + done.stderr
    return home


@pytest.fixture(scope="session")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A running `airflow standalone`; everything that the tests look at has happened in it."""
    with running(tmp_path_factory.mktemp("airflow") / "standalone") as server:
        yield server
