# SPDX-License-Identifier: Apache-2.0
"""Which versions of which runner are tested, and where: a row for each environment."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Runner:
    """One environment of one runner.

    Attributes:
        name: of the runner; its tests are in ``tests/runners/NAME/``.
        version: what is tested: ``newest`` or ``oldest``.
        requirements: PEP 508 requirements, pinned: what a resolver may pick is a test that may change by itself.
        select: further arguments of pytest, for example a smaller selection for the oldest version.
        at_least: so many tests must have passed.
    """

    name: str
    version: str
    requirements: tuple[str, ...]
    select: tuple[str, ...] = ()
    at_least: int = 1


TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "pyyaml>=6", "zstandard>=0.22")

# Unpinned, the resolver takes a fastapi and a cadwyn with which no task of Airflow 3.0 can be started.
_AIRFLOW_3_0 = (
    "apache-airflow==3.0.6",
    "fastapi[standard]==0.117.1",
    "cadwyn==5.4.4",
    "apache-airflow-providers-standard==1.6.0",
)

RUNNERS: tuple[Runner, ...] = (
    Runner("airflow", "newest", ("apache-airflow==3.3.2",), at_least=17),
    Runner("airflow", "oldest", _AIRFLOW_3_0, ("-k", "test_dag_test or test_plugin"), at_least=5),
)
