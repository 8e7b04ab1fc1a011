# SPDX-License-Identifier: Apache-2.0
"""Script versions are found, never guessed: with real files, archives, repositories, environments and notebooks."""

from __future__ import annotations

import asyncio
import functools
import gc
import hashlib
import importlib
import importlib.util
import json
import linecache
import os
import platform
import py_compile
import shutil
import subprocess
import sys
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from auditspan.capture import version, version_content, version_release
from auditspan.capture.version import ScriptVersion, package_version, script_version
from tests.conftest import OURS
from tests.environments import ROOT, named

SOURCE = """
import dataclasses, functools
def plain(): pass
def decorate(f):
    @functools.wraps(f)
    def inner(*a): return f(*a)
    return inner
def old_decorate(f):
    def inner(*a): return f(*a)
    return inner
@decorate
def decorated(): pass
@old_decorate
def hidden(): pass
@functools.lru_cache
def cached(): pass
@functools.singledispatch
def dispatched(a): pass
class Thing:
    def method(self): pass
    @classmethod
    def of_class(cls): pass
    @staticmethod
    def static(): pass
    @decorate
    def __call__(self): pass
    part = functools.partialmethod(method)
class Child(Thing): pass
@dataclasses.dataclass
class Data:
    x: int = 1
async def asynchronous(): pass
def generator(): yield
async def both(): yield
def outer():
    def inner(): pass
    return inner
fn = lambda: None
"""
PYTHON = f"{platform.python_implementation()} {platform.python_version()}"
UNKNOWN = ("unknown", "unknown")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # of what is newer than the process it is the evidence
    forget()
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name in [name for name in sys.modules if name.partition(".")[0] in ("a_script", "a_package", "a_space")]:
        del sys.modules[name]
    forget()


def forget() -> None:
    version._answers.clear()
    version._releases.clear()


def load(path: Path, text: str = SOURCE) -> Any:
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("a_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["a_script"] = module
    spec.loader.exec_module(module)
    return module


def sha(content: str | bytes) -> str:
    return "sha256:" + hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def found(function: Any) -> tuple[str, str]:
    answer = script_version(function)
    return answer.version, answer.source


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


# What is printed by a program of its own: its files are all older than the process.
REPORT = """
def report(*functions):
    import json
    from auditspan.capture.version import script_version
    for function in functions:
        answer = script_version(function)
        print(json.dumps([answer.version, answer.source, answer.name]))
"""


def run(*command: str | Path, cwd: Path, path: Path | str | None = None) -> list[tuple[str, str, str]]:
    env = {key: value for key, value in os.environ.items() if not key.startswith((*OURS, "PYTHON"))}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stderr
    return [(answer[0], answer[1], answer[2]) for answer in map(json.loads, done.stdout.splitlines())]


# -- what is behind a callable ----------------------------------------------------------------------------------------
def test_the_source_hash_of_a_loose_script(tmp_path: Path) -> None:
    module = load(tmp_path / "a_script.py")
    coroutine, started = module.asynchronous(), module.generator()
    names = {
        "plain": module.plain, "decorated": module.decorated, "cached": module.cached, "<lambda>": module.fn,
        "dispatched": module.dispatched, "Thing.method": module.Thing().method, "Thing": module.Thing,
        "Thing.of_class": module.Thing.of_class, "Thing.static": module.Thing.static, "Thing.__call__": module.Thing(),
        "Child.__call__": module.Child(), "Data": module.Data, "asynchronous": module.asynchronous,
        "generator": module.generator, "both": module.both, "outer.<locals>.inner": module.outer(),
        "old_decorate.<locals>.inner": module.hidden,
    }  # fmt: skip
    callables = [(f"a_script.{name}", function) for name, function in names.items()]
    callables += [
        ("a_script.plain", functools.partial(module.plain)),
        ("a_script.decorated", functools.partial(functools.partial(module.decorated), 1)),
        ("a_script.Thing.method", module.Thing.method),
        ("a_script.Thing.method", module.Thing.part),
        ("a_script.Thing.method", module.Thing().part),
        ("a_script.Thing.method", vars(module.Thing)["part"]),
        ("a_script.Thing.static", vars(module.Thing)["static"]),
        ("a_script.Thing.of_class", vars(module.Thing)["of_class"]),
        ("a_script.asynchronous", coroutine),
        ("a_script.generator", started),
    ]
    for name, function in callables:
        assert script_version(function) == ScriptVersion(sha(SOURCE), "source_hash", name)
    coroutine.close()


def test_a_decorator_that_hides_what_it_decorates_is_what_is_named(tmp_path: Path) -> None:
    (tmp_path / "a_package.py").write_text(
        "def old(f):\n    def inner(*a): return f(*a)\n    inner.__name__ = inner.__qualname__ = f.__name__\n"
        "    inner.__module__ = f.__module__\n    return inner\n"
    )
    sys.path.insert(0, str(tmp_path))
    text = "import a_package\n@a_package.old\ndef job(): pass\n"
    module = load(tmp_path / "a_script.py", text)
    assert module.job.__module__ == "a_script"
    answer = script_version(module.job)
    assert answer.version == sha((tmp_path / "a_package.py").read_bytes())
    assert answer.name.startswith("a_package.")
    assert answer.name.endswith("inner")


def test_no_code_of_the_application_runs(tmp_path: Path) -> None:
    text = "def __getattr__(name): raise SystemExit(name)\ndef plain(): pass\n"
    module = load(tmp_path / "a_script.py", text)
    assert found(module.plain) == (sha(text), "source_hash")

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            raise SystemExit(name)

        def __call__(self) -> None: ...

    assert script_version(Proxy()).name.endswith("Proxy.__call__")


def test_decorators_around_each_other_without_end(tmp_path: Path) -> None:
    module = load(tmp_path / "a_script.py")
    module.plain.__wrapped__ = module.hidden
    module.hidden.__wrapped__ = module.plain
    assert found(module.plain) == (sha(SOURCE), "source_hash")


def test_what_belongs_to_the_interpreter() -> None:
    import base64
    import operator
    import re

    for function in (len, os.walk, os.getcwd, base64.b64encode, "".upper, str.upper, dict.fromkeys, int, time.sleep,
                     operator.itemgetter(1), asyncio.sleep, [].append, object.__init__):  # fmt: skip
        assert found(function) == (PYTHON, "package"), function
    assert script_version(len).name == "builtins.len"
    assert script_version("".upper).name == "builtins.str.upper"
    assert found(re.compile("a").match) == (re.__version__, "declared")


# -- declared ---------------------------------------------------------------------------------------------------------
def test_a_declared_version_wins(tmp_path: Path) -> None:
    module = load(tmp_path / "a_script.py", SOURCE + '\n__version__ = "4.2"\n')
    assert script_version(module.plain) == ScriptVersion("4.2", "declared", "a_script.plain")
    assert found(module.Data) == ("4.2", "declared")


def test_the_nearest_package_declares(tmp_path: Path) -> None:
    files = {
        "a_space/inner/__init__.py": "__version__ = '2'",
        "a_space/inner/deep/__init__.py": "__version__ = None",
        "a_space/inner/deep/mod.py": "def job(): pass",
        "a_space/inner/deep/run.py": f"{REPORT}\ndef job(): pass\nreport(job)",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    sys.path.insert(0, str(tmp_path))
    assert found(importlib.import_module("a_space.inner.deep.mod").job) == ("2", "declared")
    answers = run(sys.executable, "-m", "a_space.inner.deep.run", cwd=tmp_path)
    assert answers == [("2", "declared", "__main__.job")]


# -- packages ---------------------------------------------------------------------------------------------------------
def test_an_installed_package_has_its_release() -> None:
    import orjson
    import rich.console

    answer = script_version(rich.console.Console.print)
    assert answer.source == "package"
    assert answer.version.startswith("rich ")
    assert found(orjson.dumps) == (orjson.__version__, "declared")
    assert package_version("no-such-distribution").source == "unknown"
    assert package_version("rich", declared="x") == ScriptVersion("x", "declared", "rich")


def test_an_extension_module_has_the_release_of_the_distribution_that_owns_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import orjson

    monkeypatch.delattr(orjson, "__version__")
    monkeypatch.delattr(sys.modules["orjson.orjson"], "__version__", raising=False)
    for function in (orjson.dumps, orjson.Fragment):
        forget()
        assert found(function) == (f"orjson {package_version('orjson').version}", "package")
    forget()
    monkeypatch.setattr(version_release, "distribution_of", lambda content: None)
    file = Path(sys.modules["orjson.orjson"].__file__ or "")
    assert file.suffix == ".so"
    assert found(orjson.dumps) == (f"binary-{sha(file.read_bytes())}", "source_hash")
    forget()
    monkeypatch.setattr(version_content, "_STARTED", 0)
    assert found(orjson.dumps) == UNKNOWN, "the file may have been exchanged since"


def distribution(folder: Path, files: dict[str, str], release: str = "1.5") -> None:
    """Lay out an installed distribution, as pip does."""
    info = folder / f"a_dist-{release}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: A.Dist\nVersion: {release}\n")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (info / "RECORD").write_text("".join(f"{name},sha256=x,1\n" for name in files))


REPORTER = f"{REPORT}\nimport os, a_package.mod\nreport(a_package.mod.job)\n"


def test_a_package_by_its_own_list_of_files(tmp_path: Path) -> None:
    distribution(tmp_path / "site", {"a_package/__init__.py": "", "a_package/mod.py": "def job(): pass"})
    script = tmp_path / "script.py"
    script.write_text(REPORTER)
    assert run(sys.executable, script, cwd=tmp_path, path=tmp_path / "site") == [
        ("A.Dist 1.5", "package", "a_package.mod.job")
    ]
    listed = tmp_path / "site" / "a_dist-1.5.dist-info" / "RECORD"
    listed.write_text(listed.read_text().replace("a_package/mod.py", "a_package/mod.pyx"))
    ((release, source, _),) = run(sys.executable, script, cwd=tmp_path, path=tmp_path / "site")
    assert (release, source) == (sha("def job(): pass"), "source_hash"), "a like-sounding name is no evidence"


def test_a_release_that_was_installed_since_is_not_what_runs(tmp_path: Path) -> None:
    distribution(tmp_path / "site", {"a_package/__init__.py": "", "a_package/mod.py": "def job(): pass"})
    script = tmp_path / "script.py"
    script.write_text(
        f"{REPORT}\nimport shutil, a_package.mod, auditspan.capture.version\n"
        "shutil.move('site/a_dist-1.5.dist-info', 'site/a_dist-1.6.dist-info')\n"
        "p = 'site/a_dist-1.6.dist-info/RECORD'; t = open(p).read(); open(p, 'w').write(t)\n"
        "report(a_package.mod.job)\n"
    )
    assert run(sys.executable, script, cwd=tmp_path, path=tmp_path / "site") == [
        (sha("def job(): pass"), "source_hash", "a_package.mod.job")
    ]


BACKEND = """
import base64, hashlib, zipfile
INFO = "a_dist-1.5.dist-info"
FILES = {f"{INFO}/METADATA": "Metadata-Version: 2.1\\nName: a-dist\\nVersion: 1.5\\n",
         f"{INFO}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"}
def write(folder, files):
    record = "".join(f"{name},," + "\\n" for name in files) + f"{INFO}/RECORD,,\\n"
    with zipfile.ZipFile(f"{folder}/a_dist-1.5-py3-none-any.whl", "w") as wheel:
        for name, text in {**files, f"{INFO}/RECORD": record}.items():
            wheel.writestr(name, text)
    return "a_dist-1.5-py3-none-any.whl"
def build_wheel(folder, settings=None, metadata=None):
    return write(folder, {"a_package/__init__.py": "", "a_package/mod.py": open("a_package/mod.py").read(), **FILES})
def build_editable(folder, settings=None, metadata=None):
    import os
    return write(folder, {"a_dist.pth": os.getcwd() + "\\n", **FILES})
"""


@pytest.mark.slow
def test_installed_by_pip_from_a_wheel_and_for_editing(tmp_path: Path) -> None:
    project, script = tmp_path / "project", tmp_path / "script.py"
    (project / "a_package").mkdir(parents=True)
    (project / "a_package" / "__init__.py").touch()
    (project / "a_package" / "mod.py").write_text("def job(): pass\n")
    (project / "backend.py").write_text(BACKEND)
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "a-dist"\nversion = "1.5"\n'
    )
    script.write_text(REPORTER)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    ours = os.pathsep.join(map(str, [ROOT / "instrumentation", *_site_packages()]))

    def install(*arguments: str) -> list[tuple[str, str, str]]:
        command = [python, "-m", "pip", "install", "-q", "--no-index", "--no-build-isolation", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return run(python, script, cwd=tmp_path, path=ours)

    assert install(str(project)) == [("a-dist 1.5", "package", "a_package.mod.job")]
    ((release, source, _),) = install("--force-reinstall", "--editable", str(project))
    assert (release, source) == (sha("def job(): pass\n"), "source_hash")
    git(project, "init", "-q")
    git(project, "add", "a_package")
    git(project, "commit", "-qm", "x")
    ((release, source, _),) = run(python, script, cwd=tmp_path, path=ours)
    assert (release, source) == (f"git:{git(project, 'rev-parse', 'HEAD')}", "vcs")


def _site_packages() -> list[str]:
    return [entry for entry in sys.path if entry.endswith("site-packages")]


# -- git --------------------------------------------------------------------------------------------------------------
def test_a_tracked_and_unchanged_script_has_its_commit(tmp_path: Path) -> None:
    def source() -> str:
        forget()
        return script_version(module.plain).source

    module = load(tmp_path / "a_script.py")
    git(tmp_path, "init", "-q")
    assert source() == "source_hash", "there is no commit yet"
    (tmp_path / "other").touch()
    git(tmp_path, "add", "other")
    git(tmp_path, "commit", "-qm", "x")
    assert source() == "source_hash", "the script is not tracked"
    (tmp_path / ".gitignore").write_text("a_script.py")
    assert source() == "source_hash", "the script is ignored"
    git(tmp_path, "add", "-f", "a_script.py")
    assert source() == "source_hash", "the script is not in the commit yet"
    git(tmp_path, "commit", "-qm", "x")
    forget()
    assert script_version(module.plain).version == f"git:{git(tmp_path, 'rev-parse', 'HEAD')}"
    module = load(tmp_path / "a_script.py", SOURCE + "# changed\n")
    assert source() == "source_hash", "a changed file is not what the commit says"
    git(tmp_path, "update-index", "--assume-unchanged", "a_script.py")
    assert source() == "source_hash", "git is told not to look, but we do"


def test_a_repository_with_sha256_and_a_checkout_with_other_line_ends(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--object-format=sha256")
    module = load(tmp_path / "a_script.py")
    git(tmp_path, "add", "a_script.py")
    git(tmp_path, "commit", "-qm", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert len(commit) == 64
    assert found(module.plain) == (f"git:{commit}", "vcs")
    (tmp_path / "a_script.py").unlink()
    spec = importlib.util.spec_from_file_location("a_script", tmp_path / "a_script.py")
    assert spec is not None and spec.loader is not None
    (tmp_path / "a_script.py").write_bytes(SOURCE.replace("\n", "\r\n").encode())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert found(module.plain) == (f"git:{commit}", "vcs")


def test_git_is_asked_once_per_file_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(tmp_path / "a_script.py")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "a_script.py")
    git(tmp_path, "commit", "-qm", "x")
    asked, original = [], subprocess.Popen

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", counted)
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # an application that is started by a hook of git has it set
    index = (tmp_path / ".git" / "index").stat()
    for function in (module.plain, module.decorated, module.Thing, module.Thing(), module.fn, module.plain):
        assert script_version(function).source == "vcs"
    assert len(asked) == 1
    assert (tmp_path / ".git" / "index").stat() == index


def test_a_git_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec sleep 30\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    module = load(tmp_path / "a_script.py")
    began = time.monotonic()
    assert found(module.plain) == (sha(SOURCE), "source_hash")
    assert time.monotonic() - began < 5
    assert found(module.decorated) == (sha(SOURCE), "source_hash")
    assert time.monotonic() - began < 5, "it is asked once"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    forget()
    assert found(module.plain) == (sha(SOURCE), "source_hash")


# -- other ways to run a script ---------------------------------------------------------------------------------------
def test_a_script_that_is_run_itself(tmp_path: Path) -> None:
    text = f"{REPORT}\nimport os\nos.chdir('/')\ndef job(): pass\nclass Plain: pass\nreport(job, Plain)\n"
    (tmp_path / "script.py").write_text(text)
    assert run(sys.executable, "script.py", cwd=tmp_path) == [
        (sha(text), "source_hash", "__main__.job"),
        (sha(text), "source_hash", "__main__.Plain"),
    ]


def test_code_that_is_in_no_file_is_not_known(tmp_path: Path) -> None:
    text = f"{REPORT}\ndef job(): pass\nreport(job)\n"
    for command in ((sys.executable, "-c", text), ("sh", "-c", f"echo '{text}' | {sys.executable} -")):
        ((release, source, name),) = run(*command, cwd=tmp_path)
        # Newer Pythons keep the text for tracebacks.
        assert (release, source) == UNKNOWN or (source == "source_hash" and sys.version_info >= (3, 13))
        assert name == "__main__.job (made at run time)"


def test_bytecode_alone(tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / "a_package.py").write_text("def job(): pass\nclass Thing:\n    def __call__(self): pass\n")
    out = tmp_path / "site" / "a_package.pyc"
    py_compile.compile(str(build / "a_package.py"), str(out), doraise=True)
    # Where the source was when it was compiled, there is now something else.
    (build / "a_package.py").write_text("def other(): pass\n")
    script = tmp_path / "script.py"
    script.write_text(
        f"{REPORT}\nimport a_package\nexec('def made(): pass', vars(a_package))\n"
        "report(a_package.job, a_package.Thing(), a_package.made)\n"
    )
    digest = f"bytecode-{sha(out.read_bytes())}"
    assert run(sys.executable, script, cwd=tmp_path, path=tmp_path / "site") == [
        (digest, "source_hash", "a_package.job"),
        (digest, "source_hash", "a_package.Thing.__call__"),
        ("unknown", "unknown", "a_package.made (made at run time)"),
    ]
    main = tmp_path / "main.pyc"
    (build / "main.py").write_text(f"{REPORT}\ndef job(): pass\nreport(job)\n")
    py_compile.compile(str(build / "main.py"), str(main), doraise=True)
    (build / "main.py").unlink()
    assert run(sys.executable, main, cwd=tmp_path) == [
        (f"bytecode-{sha(main.read_bytes())}", "source_hash", "__main__.job")
    ]


def test_bytecode_that_is_never_compared_with_its_source(tmp_path: Path) -> None:
    module = tmp_path / "a_package.py"
    module.write_text("def job(): return 1\n")
    py_compile.compile(str(module), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    script = tmp_path / "script.py"
    script.write_text(f"{REPORT}\nimport a_package\nreport(a_package.job)\n")
    assert run(sys.executable, script, cwd=tmp_path)[0][:2] == (sha("def job(): return 1\n"), "source_hash")
    module.write_text("def job(): return 2\n")
    assert run(sys.executable, script, cwd=tmp_path)[0][:2] == UNKNOWN, "the old bytecode runs"


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_that_is_run(tmp_path: Path) -> None:
    main = f"{REPORT}\nimport a_package.mod\ndef job(): pass\nreport(job, a_package.mod.job, a_package.mod.Plain)\n"
    mod = "def job(): pass\nclass Plain: pass\n"
    archive = zipped(tmp_path / "app.zip", {"__main__.py": main, "a_package/__init__.py": "", "a_package/mod.py": mod})
    expected = [
        (sha(main), "source_hash", "__main__.job"),
        (sha(mod), "source_hash", "a_package.mod.job"),
        (sha(mod), "source_hash", "a_package.mod.Plain"),
    ]
    assert run(sys.executable, "app.zip", cwd=tmp_path) == expected
    executable = tmp_path / "app"
    executable.write_bytes(b"#!/usr/bin/env python\n" + archive.read_bytes())
    assert run(sys.executable, executable, cwd=tmp_path) == expected
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "app.zip")
    git(tmp_path, "commit", "-qm", "x")
    commit = f"git:{git(tmp_path, 'rev-parse', 'HEAD')}"
    assert [answer[:2] for answer in run(sys.executable, "app.zip", cwd=tmp_path)] == [(commit, "vcs")] * 3


def test_modules_in_a_zip_on_the_path(tmp_path: Path) -> None:
    mod = "def job(): pass\n"
    info = "a_dist-1.5.dist-info"
    files: dict[str, str | bytes] = {
        "a_package/__init__.py": "", "a_package/mod.py": mod, f"{info}/METADATA": "Name: a-dist\nVersion: 1.5\n",
    }  # fmt: skip
    script = tmp_path / "script.py"
    script.write_text(REPORTER)
    archive = zipped(tmp_path / "app.zip", files)
    assert run(sys.executable, script, cwd=tmp_path, path=archive)[0][:2] == (sha(mod), "source_hash")
    zipped(archive, {**files, f"{info}/RECORD": "a_package/__init__.py,,\na_package/mod.py,,\n"})
    assert run(sys.executable, script, cwd=tmp_path, path=archive)[0][:2] == ("a-dist 1.5", "package")
    zipped(
        archive, {f"lib/{name}": text for name, text in files.items()} | {f"lib/{info}/RECORD": "a_package/mod.py,,"}
    )
    assert run(sys.executable, script, cwd=tmp_path, path=archive / "lib")[0][:2] == ("a-dist 1.5", "package")
    zipped(archive, {**files, "a_package/__init__.py": "__version__ = '9'"})
    assert run(sys.executable, script, cwd=tmp_path, path=archive)[0][:2] == ("9", "declared")
    (tmp_path / "mod.py").write_text(mod)
    bytecode = Path(py_compile.compile(str(tmp_path / "mod.py"), str(tmp_path / "mod.pyc"), doraise=True)).read_bytes()
    zipped(archive, {"a_package/__init__.py": "", "a_package/mod.pyc": bytecode})
    assert run(sys.executable, script, cwd=tmp_path, path=archive)[0][:2] == (
        f"bytecode-{sha(bytecode)}",
        "source_hash",
    )


def test_a_zip_that_was_exchanged(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "app.zip", {"a_package/__init__.py": "", "a_package/mod.py": "def job(): return 1\n"})
    zipped(tmp_path / "new.zip", {"a_package/__init__.py": "", "a_package/mod.py": "def job(): return 2\n"})
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, a_package.mod, auditspan.capture.version\nos.replace('new.zip', 'app.zip')\n{REPORTER}"
    )
    assert run(sys.executable, script, cwd=tmp_path, path=archive)[0][:2] == UNKNOWN


def test_a_loader_that_has_its_sources_elsewhere(tmp_path: Path) -> None:
    class Database(importlib.machinery.SourcelessFileLoader):
        text = "def job(): return 1\n"

        def get_code(self, fullname: str) -> CodeType:
            return compile(self.text, "database:a_script", "exec")

        def get_source(self, fullname: str) -> str:
            return self.text

    loader = Database("a_script", "database:a_script")
    spec = importlib.util.spec_from_loader("a_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = "database:a_script"
    loader.exec_module(module)
    assert found(module.job) == (sha(Database.text), "source_hash")
    forget()
    Database.text = "def job(): return 2\n"
    assert found(module.job) == UNKNOWN


# -- code that was made at run time, and notebooks --------------------------------------------------------------------
def made(text: str, filename: str, namespace: dict[str, Any] | None = None) -> FunctionType:
    namespace = {"__name__": "a_script", "__version__": "1"} if namespace is None else namespace
    exec(compile(text, filename, "exec"), namespace)
    function = namespace["job"]
    assert isinstance(function, FunctionType)
    return function


@pytest.fixture
def remembered() -> Iterator[Callable[[str, str], None]]:
    names = []

    def remember(filename: str, text: str) -> None:
        names.append(filename)
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)

    yield remember
    for name in names:
        linecache.cache.pop(name, None)


def test_code_that_is_only_executed(tmp_path: Path, remembered: Callable[[str, str], None]) -> None:
    text = "def job(): return 1\n"
    expected = "a_script.job (made at run time)"
    function = made(text, "<template 1>")
    assert script_version(function) == ScriptVersion("unknown", "unknown", expected)
    forget()
    remembered("<template 1>", text)
    assert script_version(function) == ScriptVersion(sha(text), "source_hash", expected)
    forget()
    remembered("<template 1>", "def job(): return 2\n")  # names like <string> are used by many
    assert script_version(function) == ScriptVersion("unknown", "unknown", expected)
    module = load(tmp_path / "a_script.py", SOURCE + "__version__ = '1'\n")
    assert script_version(made(text, "<string>", vars(module))).source == "unknown", "not what the module declares"


def test_a_file_name_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "real.py"
    path.write_text("def job(): return 1\n")
    assert found(made(path.read_text(), str(path), {})) == UNKNOWN, "it is newer than the process"
    monkeypatch.setattr(version_content, "_STARTED", time.time_ns())
    assert found(made(path.read_text(), str(path), {})) == (sha(path.read_bytes()), "source_hash")
    assert found(made("def job(): return 2\n", str(path), {})) == UNKNOWN
    assert found(made("def job(): return True\n", str(path), {})) == UNKNOWN
    assert script_version(made("def job(): pass", str(tmp_path / "gone.py"), {})).name == "job"


def test_future_features_are_those_of_the_code(remembered: Callable[[str, str], None]) -> None:
    text = "def job(a: int) -> int: return a\n"
    namespace: dict[str, Any] = {}
    exec(compile("from __future__ import annotations\n" + text, "<future>", "exec"), namespace)
    flags = namespace["job"].__code__.co_flags & version_content._FUTURE
    exec(compile(text, "<cell>", "exec", flags), namespace)
    remembered("<cell>", text)
    assert found(namespace["job"]) == (sha(text), "source_hash")


@pytest.mark.parametrize(
    "filename",
    ["<ipython-input-3-0a1b2c3d4e5f>", "/tmp/ipykernel_123/4294967295.py", "/tmp/ipython-input-1-2.py",
     "C:\\Temp\\ipykernel_9\\1.py"],
)  # fmt: skip
def test_a_cell_of_a_notebook(filename: str, remembered: Callable[[str, str], None]) -> None:
    text = "def job(): return 1\n"
    function = made(text, filename, {"__name__": "__main__"})
    assert script_version(function) == ScriptVersion("unknown", "unknown", "__main__.job (notebook cell)")
    forget()
    remembered(filename, text)
    assert script_version(function) == ScriptVersion(sha(text), "source_hash", "__main__.job (notebook cell)")
    function = made(text, filename, {"__name__": "__main__", "__version__": "3"})
    assert script_version(function) == ScriptVersion("3", "declared", "__main__.job (notebook cell)")


NOTEBOOK = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
from ipykernel.inprocess.manager import InProcessKernelManager
CELL = '''from __future__ import annotations
x = 1
def job(a: int): return x
class Thing:
    def method(self): pass
fn = lambda: !ls
'''
SECOND = '''import asyncio
await asyncio.sleep(0)
async def later(a: int): await asyncio.sleep(0)
'''
def ask(shell):
    import hashlib
    from auditspan.capture.version import script_version
    ns = shell.user_ns
    for function in (ns["job"], ns["Thing"], ns["Thing"]().method, ns["later"]):
        found = script_version(function)
        cell = shell.transform_cell(SECOND if function is ns["later"] else CELL)
        expected = "sha256:" + hashlib.sha256(cell.encode()).hexdigest()
        print(json.dumps([found.version == expected, found.source, found.name]))
CELL = CELL.replace("fn = lambda: !ls", "listing = !ls")
if sys.argv[1] == "shell":
    shell = InteractiveShell.instance()
else:
    manager = InProcessKernelManager()
    manager.start_kernel()
    shell = manager.kernel.shell
for cell in (CELL, SECOND):
    shell.run_cell(cell, store_history=True).raise_error()
assert ("ipykernel" in shell.user_ns["job"].__code__.co_filename) is (sys.argv[1] != "shell")
ask(shell)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["shell", "kernel"])
def test_a_real_notebook(tmp_path: Path, kind: str) -> None:
    folder = named("notebook")
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    assert run(folder / "python", script, kind, cwd=tmp_path) == [
        (True, "source_hash", f"__main__.{name} (notebook cell)") for name in ("job", "Thing", "Thing.method", "later")
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_states_of_numpy(tmp_path: Path) -> None:
    folder = named("notebook")
    script = tmp_path / "numbers.py".replace("numbers", "of_numpy")
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from fractions import Fraction
            from auditspan.capture.state import StateNotHashable, canonical_form as form
            assert form(np.int64(120)) == form(np.uint8(120)) == form(np.float64(120)) == form(120)
            assert form(np.bool_(True)) == "true" and form(np.float64("nan")) == "nan" and form(np.str_("a")) == '"a"'
            assert form(np.float64(0.1)) == "1e-1" and form(np.float32(0.1)) == form(float(np.float32(0.1)))
            wide = np.longdouble(1) + np.finfo(np.longdouble).eps
            assert Fraction(form(wide)) == Fraction(*wide.as_integer_ratio()) != 1
            assert form({np.int64(1): np.float16(0.5)}) == "{1e0:5e-1}"
            for other in (np.zeros(2), np.datetime64("2024-01-01"), np.complex128(1j)):
                try:
                    form(other)
                except StateNotHashable:
                    continue
                raise AssertionError(other)
            """
        )
    )
    assert run(folder / "python", script, cwd=tmp_path) == []


# -- what is there now is not what was loaded -------------------------------------------------------------------------
CHANGES = {
    "a function": ("return 1", "return 2"),
    "another function": ("return 3", "return 4"),
    "a method": ("return 5", "return 6"),
    "a constant": ("LIMIT = 1", "LIMIT = 20"),
    "a comment": ("# end", "# the end"),
    "a line": ("# begin", "# begin\n"),
}
CHANGEABLE = """\
# begin
LIMIT = 1
def job(): return 1
def other(): return 3
class Thing:
    def method(self): return 5
# end
"""


@pytest.mark.parametrize("change", CHANGES)
def test_a_module_that_was_changed_after_its_import(tmp_path: Path, change: str) -> None:
    path = tmp_path / "a_script.py"
    module = load(path, CHANGEABLE)
    assert found(module.job) == (sha(CHANGEABLE), "source_hash")
    forget()
    path.write_text(CHANGEABLE.replace(*CHANGES[change]))
    assert found(module.job) == UNKNOWN
    forget()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "a_script.py")
    git(tmp_path, "commit", "-qm", "x")
    assert found(module.job) == UNKNOWN, "the new commit is not what runs"
    old = module.job
    shutil.rmtree(tmp_path / "__pycache__")  # Python believes it: same second, same size
    module = load(path, path.read_text())
    assert script_version(module.job).source == "vcs"
    assert found(old) == UNKNOWN


def test_an_answer_is_that_of_the_code_that_was_asked_for(tmp_path: Path) -> None:
    """Code that is loaded anew has the same names, and may be equal."""
    path = tmp_path / "a_script.py"
    module = load(path, CHANGEABLE)
    old = module.job
    assert found(old) == (sha(CHANGEABLE), "source_hash")
    changed = CHANGEABLE.replace("return 3", "return 33")
    module = load(path, changed)
    assert module.job.__code__ == old.__code__
    assert found(module.job) == (sha(changed), "source_hash")
    assert found(old) == (sha(CHANGEABLE), "source_hash")


def test_a_script_that_changes_itself_after_its_start(tmp_path: Path) -> None:
    text = (
        f"{REPORT}\ndef job(): return 1\nimport auditspan.capture.version, sys\n"
        "text = open(__file__).read()\nopen(__file__, 'w').write(text + '# changed')\nreport(job)\n"
    )
    (tmp_path / "script.py").write_text(text)
    assert run(sys.executable, "script.py", cwd=tmp_path) == [("unknown", "unknown", "__main__.job")]


def test_bytecode_that_python_takes_for_current(tmp_path: Path) -> None:
    path = tmp_path / "a_script.py"
    load(path, CHANGEABLE)
    times = path.stat()
    path.write_text(CHANGEABLE.replace("return 3", "return 4"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    spec = importlib.util.spec_from_file_location("a_script", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.other() == 3
    assert found(module.job) == UNKNOWN


def test_without_bytecode_a_newer_file_is_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = load(tmp_path / "a_script.py")
    assert found(module.plain) == UNKNOWN
    forget()
    monkeypatch.setattr(version_content, "_STARTED", time.time_ns())
    assert found(module.plain) == (sha(SOURCE), "source_hash")


def test_a_file_that_is_moved_into_place_is_newer_than_its_time_says(tmp_path: Path) -> None:
    (tmp_path / "a_package.py").write_text("def job(): return 1\n")
    (tmp_path / "new.py").write_text("def job(): return 2\n")
    os.utime(tmp_path / "new.py", (1, 1))
    script = tmp_path / "script.py"
    script.write_text(
        f"{REPORT}\nimport os, a_package, auditspan.capture.version\nos.replace('new.py', 'a_package.py')\n"
        "report(a_package.job)\n"
    )
    assert run(sys.executable, script, cwd=tmp_path)[0][:2] == UNKNOWN


def test_a_module_whose_file_is_gone(tmp_path: Path) -> None:
    module = load(tmp_path / "a_script.py")
    (tmp_path / "a_script.py").unlink()
    assert found(module.plain) == UNKNOWN


# -- what is kept -----------------------------------------------------------------------------------------------------
def test_answers_are_kept_but_not_what_they_are_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_LIMIT", 10)
    module = load(tmp_path / "a_script.py")
    for number in range(50):
        assert found(type(f"Class{number}", (), {"__module__": "a_script"})) == (sha(SOURCE), "source_hash")
        script_version(made(f"def job(): return {number}", f"<{number}>"))
    assert len(version._answers) <= 10
    resolved = []
    monkeypatch.setattr(version, "_resolve", lambda origin: resolved.append(origin) or UNKNOWN)
    forget()
    for _ in range(3):
        script_version(module.plain)
        script_version(functools.partial(module.Thing().method))
        script_version(module.Thing.method)
    assert len(resolved) == 2
    forget()
    resolved.clear()
    gc.collect()
    kind: Any = type("Gone", (), {})
    script_version(kind)
    ((reference, _),) = version._answers.values()
    del kind
    resolved.clear()
    gc.collect()
    assert reference() is None
