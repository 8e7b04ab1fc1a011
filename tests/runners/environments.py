# SPDX-License-Identifier: Apache-2.0
"""Which versions of which runner are tested, and where: a row for each environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.environments import environment


@dataclass(frozen=True)
class Runner:
    """One environment of one runner.

    Attributes:
        name: of the runner; its tests are in ``tests/runners/NAME/``.
        version: what is tested: ``newest`` or ``oldest``.
        requirements: PEP 508 requirements, pinned: what a resolver may pick is a test that may change by itself.
        select: further arguments of pytest, for example a smaller selection for the oldest version.
        at_least: so many tests must have passed.
        part: which part of ``make test`` runs it (``tests/parts.py``).
        inside: the version whose environment it runs in; empty: it has one of its own.
    """

    name: str
    version: str
    requirements: tuple[str, ...]
    select: tuple[str, ...] = ()
    at_least: int = 1
    part: str = "runners"
    inside: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{self.version}"


BESIDE = "beside"
TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "pyyaml>=6", "zstandard>=0.22")

# Prefect caps neither: with newer ones its server does not start, or its scheduler dies while all else works.
NEWEST_PREFECT = ("prefect==3.8.8", "fastapi==0.139.2", "sqlalchemy>=2.0,<2.1")
OLDEST_PREFECT = ("prefect==3.4.0", "fastapi>=0.115,<0.116", "sqlalchemy>=2.0,<2.1", "importlib-metadata")
# Its runner does not tell a run why it is ended, and it has no pools of processes.
SINCE_THEN = ("--ignore=tests/runners/prefect_runner/test_server.py", "-k", "not process_pool")

_AIRFLOW = (
    "apache-airflow==3.3.2",
    # To send jobs with from a task (tests/backend/test_story.py).
    "celery==5.7.0",
    "kombu==5.7.0",
    "redis==8.1.0",
    # For Airflow's own tests.
    "kgb==7.3",
    "pandas>=2.2",
    "pip",
    "time-machine>=2.16",
)
# Unpinned, the resolver takes a fastapi and a cadwyn with which no task of Airflow 3.0 can be started.
_AIRFLOW_3_0 = (
    "apache-airflow==3.0.6",
    "fastapi[standard]==0.117.1",
    "cadwyn==5.4.4",
    "apache-airflow-providers-standard==1.6.0",
)

RUNNERS: tuple[Runner, ...] = (
    Runner(
        "celery",
        "newest",
        (
            "celery==5.7.0",
            "kombu==5.7.0",
            "billiard==4.3.2",
            "redis==8.1.0",
            "gevent==26.9.0",
            "fastapi>=0.139,<1",
            "httpx>=0.27",
            "uvicorn>=0.30",
            "opentelemetry-instrumentation-celery>=0.60b0,<1",
        ),
        ("-k", "not transparency"),
        at_least=38,
    ),
    # No newer redis-py and kombu than there were: this Celery does not say that it cannot do with them.
    Runner(
        "celery",
        "oldest",
        ("celery==5.3.6", "kombu==5.3.5", "billiard==4.2.0", "redis==5.0.1"),
        ("-k", "not newest and not transparency"),
        at_least=32,
        part=BESIDE,
    ),
    Runner(
        "celery",
        "transparency",
        (
            "celery==5.7.0",
            "kombu==5.7.0",
            "billiard==4.3.2",
            "redis==8.1.0",
            "pytest-subtests==0.15.0",
            "freezegun==1.5.5",
            "setuptools>=70",
            "pip",  # fetches the source distribution
        ),
        ("-k", "transparency"),
        part=BESIDE,
    ),
    Runner(
        "airflow",
        "newest",
        _AIRFLOW,
        ("-k", "not transparency"),
        at_least=21,
        part="airflow",
    ),
    Runner("airflow", "transparency", _AIRFLOW, ("-k", "transparency"), part=BESIDE, inside="newest"),
    Runner("airflow", "oldest", _AIRFLOW_3_0, ("-k", "test_dag_test or test_plugin"), at_least=8, part=BESIDE),
    Runner("prefect", "newest", NEWEST_PREFECT, at_least=44),
    Runner("prefect", "oldest", OLDEST_PREFECT, SINCE_THEN, at_least=34, part=BESIDE),
)


def environment_of(runner: Runner) -> Path:
    """Return the ``bin`` folder of a row's environment."""
    return environment(f"{runner.name}-{runner.inside or runner.version}", *TOOLS, *runner.requirements)
