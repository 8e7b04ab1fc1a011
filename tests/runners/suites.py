# SPDX-License-Identifier: Apache-2.0
"""A library's own tests, from its source distribution: run with and without us, each has to end alike."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from tests.conftest import OURS


def source_of(package: str, folder: Path) -> Path:
    """Fetch the source distribution of the installed version of a package and unpack it.

    Args:
        package: its name.
        folder: where to put it.

    Returns:
        the folder that is in it.
    """
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", str(folder),
         f"{package}=={version(package)}"],
        check=True,
    )  # fmt: skip
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return source


def outcomes(
    place: Path, tests: Sequence[str], command: Sequence[str], settings: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """Run tests.

    Args:
        place: the folder to run them in.
        tests: files, and further arguments of pytest.
        command: goes before ``python``.
        settings: more environment variables.

    Returns:
        how each ended, and what was printed.
    """
    report = place / "report.xml"
    report.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [*command, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "60",
         f"--junitxml={report}", *tests],
        cwd=place, env=kept | dict(settings), capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    found = {}
    for case in ET.parse(report).iter("testcase"):
        ended = next((child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed")
        found[f"{case.get('classname')}::{case.get('name')}"] = ended
    return found, done.stdout + done.stderr


def different(without: Mapping[str, str], with_us: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Return the tests that did not end alike, with how they ended without and with us."""
    return {
        name: (without.get(name), with_us.get(name))
        for name in without.keys() | with_us.keys()
        if without.get(name) != with_us.get(name)
    }
