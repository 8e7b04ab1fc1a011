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


def _build(folder: Path, name: str, requirements: tuple[str, ...]) -> None:
    for old in folder.parent.glob(f"{name}-*"):
        shutil.rmtree(old)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AUDITSPAN_REQUIRED")}
    done = subprocess.run(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--editable", str(ROOT), *requirements],
        capture_output=True,
        text=True,
        env=clean,
    )
    assert done.returncode == 0, f"the environment {name} does not resolve:\n{done.stderr}"
    (folder / ".complete").touch()
