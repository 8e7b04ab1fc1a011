# SPDX-License-Identifier: Apache-2.0
"""Builds the programs in ``interop/``: implementations of the formats that share nothing with ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = Path(__file__).parent / "interop"


def go_command() -> str:
    """Return the path of ``go``; without it skip, except where the whole must be tested."""
    if found := shutil.which("go"):
        return found
    missing = (
        "There is no `go`: the formats cannot be compared with the Go checksum database. Install Go 1.25 or newer."
    )
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)


def build(name: str) -> Path:
    """Return a program, built for exactly this source and kept in ``.cache``.

    Args:
        name: ``interop`` or ``verifier``.
    """
    files = sorted(path for path in SOURCE.rglob("*") if path.is_file())
    content = b"\0".join(str(file.relative_to(SOURCE)).encode() + b"\0" + file.read_bytes() for file in files)
    folder = ROOT / ".cache" / "interop"
    programs = folder / hashlib.sha256(content).hexdigest()[:16]
    go = go_command()
    if not programs.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.mkdtemp(prefix="unfinished-", dir=folder)
        done = subprocess.run(
            [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-o", unfinished, "./..."],
            cwd=SOURCE,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"the programs in {SOURCE} do not build:\n{done.stderr}"
        try:
            os.rename(unfinished, programs)
        except OSError:  # somebody else was faster, or a program of an older layout is there
            if programs.is_file():
                programs.unlink()
                os.rename(unfinished, programs)
    return programs / name
