# SPDX-License-Identifier: Apache-2.0
"""Environments of their own, for what cannot share one with the rest: built once, kept in ``.cache``."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from auditspan.devstack.system import exclusively

ROOT = Path(__file__).parent.parent

_TOOLS = (
    "pytest>=8",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "httpx>=0.27",
    "uvicorn>=0.30",
    "pyyaml>=6",
    "zstandard>=0.22",
)
NAMED: dict[str, tuple[str, ...]] = {
    "notebook": ("ipython", "ipykernel", "numpy"),
    # The Python client speaks with servers of its own major version: `pip install 'elasticsearch<9'` is what users do.
    "elasticsearch-8": ("elasticsearch>=8.19,<9",),
    "elastic": ("elastic-opentelemetry", "apscheduler>=3.11,<4"),
    # One resolution: contrib's wheels appear unevenly, and what fits together decides the SDK.
    "contrib": (
        *_TOOLS,
        "fastapi",
        "standardwebhooks",
        "opentelemetry-instrumentation-fastapi",
        "opentelemetry-instrumentation-starlette",
        "opentelemetry-instrumentation-asgi",
    ),
    "oldest": (
        *_TOOLS,
        "opentelemetry-sdk==1.39.1",
        "opentelemetry-exporter-otlp==1.39.1",
        "opentelemetry-instrumentation==0.60b1",
        "opentelemetry-distro==0.60b1",
        "wrapt==1.17.3",
        "starlette==0.41.3",
        "fastapi==0.115.6",
        "apscheduler==3.11.0",
        "singer-sdk==0.45.0",
        "setuptools==65.5.0",  # newer ones warn of pkg_resources, which this singer-sdk needs; warnings are errors here
        "standardwebhooks",
        "elasticsearch>=8.19,<9",
    ),
    "webhook": (
        "fastapi>=0.139,<1",
        "uvicorn>=0.30",
        "httpx>=0.27",
        "opentelemetry-instrumentation-httpx>=0.60b0,<1",  # hands trace context and baggage to whom it asks
    ),
}
"""What is in which environment; those of the runners are in ``tests/runners/environments.py``."""


def named(name: str) -> Path:
    """Return the ``bin`` folder of one of :data:`NAMED`."""
    return environment(name, *NAMED[name])


def environment(name: str, *requirements: str) -> Path:
    """Return the ``bin`` folder of a virtual environment with auditspan (editable) and some requirements.

    Of several processes that want the same one at the same time, one builds it and the others wait.

    Args:
        name: for the folder.
        requirements: PEP 508 requirements, installed together with auditspan in one resolution.

    Raises:
        AssertionError: they do not resolve; the message has pip's words.
    """
    wanted = "\n".join([sys.version, (ROOT / "pyproject.toml").read_text(), *requirements])
    folder = ROOT / ".cache" / "environments" / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    if not (folder / ".complete").exists():
        lock = folder.parent / f".{name}"
        lock.mkdir(parents=True, exist_ok=True)
        with exclusively(lock):
            if not (folder / ".complete").exists():
                _build(folder, name, requirements)
    return folder / "bin"


def pip(programs: Path) -> list[str]:
    """Return how pip is called for an environment, given its ``bin`` folder: it has none of its own."""
    return [sys.executable, "-m", "pip", "--python", str(programs / "python")]


def _build(folder: Path, name: str, requirements: tuple[str, ...]) -> None:
    for old in folder.parent.glob(f"{name}-*"):
        shutil.rmtree(old)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AUDITSPAN_REQUIRED")}
    # By our own pip, which is newer than the one that a new environment gets. A quarter of the work: what is imported
    # is compiled then, and little is.
    done = subprocess.run(
        [*pip(folder / "bin"), "install", "--quiet", "--no-compile", "--editable", str(ROOT), *requirements],
        capture_output=True,
        text=True,
        env=clean,
    )
    assert done.returncode == 0, f"the environment {name} does not resolve:\n{done.stderr}"
    (folder / ".complete").touch()
