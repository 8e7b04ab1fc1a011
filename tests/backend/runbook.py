# SPDX-License-Identifier: Apache-2.0
"""The commands of a page of ``docs/runbooks``, read out of it and run in their order.

A block that is fenced as ``sh`` is run; one that is fenced as ``sh production`` needs what is not here, and is parsed
only. A remark ``# exits 0 or 3`` says with which codes a command may end; without one it must end with 0.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import string
import subprocess
import textwrap
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field

import pytest

from auditspan.cli import main
from tests.backend import honest
from tests.conftest import BIN
from tests.environments import ROOT

PAGES = ROOT / "docs" / "runbooks"
_BLOCK = re.compile(r"^( *)```sh( production)?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_EXITS = re.compile(r"\s+# exits ([\d, or]+)$")


@dataclass(frozen=True)
class Command:
    """One line of a block.

    Attributes:
        text: without the remark.
        codes: with which it may end.
        production: it is not run, only parsed.
    """

    text: str
    codes: frozenset[int]
    production: bool


def commands(page: str) -> list[Command]:
    """Read the commands of a page, in their order."""
    found = []
    for _, production, block in _BLOCK.findall((PAGES / f"{page}.md").read_text()):
        for line in textwrap.dedent(block).splitlines():
            said = _EXITS.search(line)
            codes = frozenset(map(int, re.findall(r"\d", said[1]))) if said else frozenset({0})
            found.append(Command(_EXITS.sub("", line), codes, bool(production)))
    assert found, page
    return found


@dataclass
class Runbook:
    """Runs a page.

    Attributes:
        page: its name.
        variables: what the page calls `$NAME`, and the environment of the commands.
        printed: command → what it printed.
        codes: command → how it ended.
    """

    page: str
    variables: dict[str, str]
    printed: dict[str, str] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def run(self, before: Mapping[str, Callable[[], None]] | None = None) -> None:
        """Run all commands.

        Args:
            before: part of a command → what happens before the first one that has it.
        """
        happens = dict(before or {})
        for command in commands(self.page):
            for part in [part for part in happens if part in command.text]:
                happens.pop(part)()
            if command.production:
                parse(command.text)
                continue
            code, printed = self._auditspan(command) if _alone(command.text) else self._shell(command)
            assert code in command.codes, f"{self.page}: {command.text}: exit code {code}\n{printed[-4000:]}"
            self.printed[command.text], self.codes[command.text] = printed, code
        assert not happens, f"{self.page} has no command with {list(happens)}"

    def said(self, part: str) -> str:
        """What the last command with this part in it printed."""
        return [printed for text, printed in self.printed.items() if part in text][-1]

    def ended(self, part: str) -> int:
        """How the last command with this part in it ended."""
        return [code for text, code in self.codes.items() if part in text][-1]

    def _shell(self, command: Command) -> tuple[int, str]:
        settings = honest.environment(**self.variables)
        settings["PATH"] = f"{BIN}{os.pathsep}{settings['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command.text],
            capture_output=True, text=True, timeout=180, env=settings, cwd=ROOT,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def _auditspan(self, command: Command) -> tuple[int, str]:
        """In this process, where everything is imported already."""
        words = [string.Template(word).substitute(self.variables) for word in shlex.split(command.text)]
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(out):
            for name, value in honest.environment(**self.variables).items():
                patch.setenv(name, value)
            try:
                code = main(words[1:])
            except SystemExit as end:
                code = int(end.code or 0)
        return code, out.getvalue()


def _alone(text: str) -> bool:
    # The agent takes over the signals of its process.
    return text.startswith("auditspan ") and not text.startswith("auditspan agent") and not set("|<>;&") & set(text)


class _Parsed(Exception):
    """The arguments are such as the command takes."""


def parse(text: str) -> None:
    """Look whether a command is one, without running it."""
    done = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = shlex.split(text)
    if words[0] != "auditspan":
        return
    original = argparse.ArgumentParser.parse_args

    def only(self: argparse.ArgumentParser, given: list[str]) -> None:
        original(self, given)
        raise _Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", only)
        with pytest.raises(_Parsed):
            main(words[1:])
