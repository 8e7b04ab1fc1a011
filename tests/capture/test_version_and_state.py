# SPDX-License-Identifier: Apache-2.0
"""Script versions are found, never guessed; state hashes depend on meaning, not on spelling."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditspan.capture import version
from auditspan.capture.state import state_hash
from auditspan.capture.version import package_version, script_version

SOURCE = """
import functools
def plain(): pass
def decorate(f):
    @functools.wraps(f)
    def inner(*a): return f(*a)
    return inner
@decorate
def decorated(): pass
class Thing:
    def method(self): pass
    def __call__(self): pass
fn = lambda: None
"""


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    version._resolve.cache_clear()
    yield
    version._resolve.cache_clear()
    sys.modules.pop("a_script", None)


def load(path: Path, text: str = SOURCE) -> Any:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("a_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["a_script"] = module
    spec.loader.exec_module(module)
    return module


def test_the_source_hash_of_a_loose_script(tmp_path: Path) -> None:
    module = load(tmp_path / "a_script.py")
    expected = "sha256:" + hashlib.sha256(SOURCE.encode()).hexdigest()
    for function in (
        module.plain, module.decorated, module.fn, module.Thing().method, module.Thing.method, module.Thing(),
        functools.partial(module.plain), functools.partial(functools.partial(module.decorated)),
    ):  # fmt: skip
        found = script_version(function)
        assert (found.version, found.source) == (expected, "source_hash")
    assert script_version(module.decorated).name == "a_script.decorated"


def test_a_declared_version_wins(tmp_path: Path) -> None:
    module = load(tmp_path / "a_script.py", SOURCE + '\n__version__ = "4.2"\n')
    assert script_version(module.plain) == version.ScriptVersion("4.2", "declared", "a_script.plain")


def test_a_tracked_and_unchanged_script_has_its_commit(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def found() -> str:
        version._resolve.cache_clear()
        return script_version(module.plain).source

    module = load(tmp_path / "a_script.py")
    git("init", "-q")
    assert found() == "source_hash", "there is no commit yet"
    (tmp_path / "other").touch()
    git("add", "other")
    git("commit", "-qm", "x")
    assert found() == "source_hash", "the script is not tracked"
    (tmp_path / ".gitignore").write_text("a_script.py")
    assert found() == "source_hash", "the script is ignored"
    git("add", "-f", "a_script.py")
    assert found() == "source_hash", "the script is not in the commit yet"
    git("commit", "-qm", "x")
    version._resolve.cache_clear()
    assert script_version(module.plain).version == f"git:{git('rev-parse', 'HEAD')}"
    (tmp_path / "a_script.py").write_text(SOURCE + "# changed\n")
    assert found() == "source_hash", "a changed file is not what the commit says"


def test_an_installed_package_has_its_release() -> None:
    import orjson
    import rich.console

    found = script_version(rich.console.Console.print)
    assert found.source == "package"
    assert found.version.startswith("rich ")
    assert script_version(orjson.dumps).source in ("declared", "unknown")  # no Python source to look at
    assert package_version("no-such-distribution").source == "unknown"


EQUAL: list[list[Any]] = [
    [{"a": 1, "b": [1, 2]}, OrderedDict([("b", (1, 2)), ("a", 1.0)])],
    [1, 1.0, 1e0],
    [-0.0, 0.0, 0],
    [{1, 2, 3}, frozenset([3, 2, 1])],
    [10**20, 1e20],
]
DIFFERENT: list[Any] = [
    None,
    False,
    0,
    "0",
    "",
    [],
    {},
    [0],
    {"0": 0},
    "null",
    1,
    True,
    "1",
    [1, 2],
    [2, 1],
    b"1",
    0.1,
    {1},
]


@pytest.mark.parametrize("states", EQUAL)
def test_equal_states_hash_equal(states: list[Any]) -> None:
    assert len({state_hash(state) for state in states}) == 1


def test_different_states_hash_differently() -> None:
    assert len({state_hash(state) for state in DIFFERENT}) == len(DIFFERENT)
