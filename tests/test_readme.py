# SPDX-License-Identifier: Apache-2.0
"""What the README shows is what the commands print."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import BIN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_help_is_the_real_one() -> None:
    printed = subprocess.run(
        [str(BIN / "auditspan"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    ).stdout
    assert f"```\n$ auditspan --help\n{printed}```" in README


def test_every_verb_has_an_example_and_its_exit_codes() -> None:
    for verb in re.findall(r"^    (\w+) ", README.split("positional arguments:")[1].split("options:")[0], re.MULTILINE):
        if verb == "VERB":
            continue
        printed = subprocess.run(
            [str(BIN / "auditspan"), verb, "--help"], capture_output=True, text=True, check=True
        ).stdout
        assert "example:" in printed
        assert "exit codes:" in printed
        assert "--json" in printed


def test_every_make_command_that_is_named_is_there_once() -> None:
    targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = {
        name
        for page in ("README.md", "CONTRIBUTING.md")
        for name in re.findall(r"\bmake ([a-z-]+)", (ROOT / page).read_text())
    }
    assert {"demo", "demo-stack", "test", "generate"} <= named
    assert [name for name in sorted(named) if targets.count(name) != 1] == []


def test_links_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "collector-config").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_demo_shows_what_the_readme_shows() -> None:
    """Line by line, with what differs from run to run (times, IDs, ports) left out."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OTEL_", "AUDITSPAN_"))}
    done = subprocess.run(
        [str(BIN / "auditspan"), "demo"], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = README.split("$ auditspan demo\n")[1].split("```")[0]
    assert [_stable(line) for line in shown.splitlines()] == [_stable(line) for line in done.stdout.splitlines()]


def _stable(line: str) -> str:
    line = re.sub(r"msg_[0-9a-f]+|[0-9a-f]{16,32}|/\S*auditspan-demo-\S+|127\.0\.0\.1:\d+", "…", line)
    line = re.sub(r"vm/auditspan/|\S+/auditspan/…", "…/", line)
    line = re.sub(r"system \S+", "system …", line)
    return re.sub(r"[\s\d:.,-]+", " ", line).strip()
