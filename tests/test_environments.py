# SPDX-License-Identifier: Apache-2.0
"""Two test sessions at once want the same environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.environments import ROOT

WANTED = """
import sys, time
from pathlib import Path
from tests import environments

environments.ROOT = Path(sys.argv[1])


def build(folder, name, requirements):
    folder.mkdir(parents=True)  # a second builder fails here
    time.sleep(1)
    (folder / ".complete").touch()
    print("built")


environments._build = build
assert (environments.environment("twice") / ".." / ".complete").resolve().exists()
"""


@pytest.mark.slow
def test_of_two_that_want_an_environment_at_the_same_time_one_builds_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    both = [
        subprocess.Popen([sys.executable, "-c", WANTED, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "".join(printed) == "built\n"
