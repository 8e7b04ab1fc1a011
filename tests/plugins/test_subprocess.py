# SPDX-License-Identifier: Apache-2.0
"""The plugin on the real `subprocess`: real children print the environment they got."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from auditspan.capture import environ, faults
from auditspan.capture import run as runs
from auditspan.propagation import subprocess as plugin
from auditspan.propagation.subprocess import SubprocessInstrumentor

# -S and -E: a child that only prints has no use for site-packages.
CHILD = [sys.executable, "-SE", "-c", "import os, json; print(json.dumps(dict(os.environ)))"]
OURS = ("TRACEPARENT", "BAGGAGE")


@pytest.fixture(autouse=True)
def clean(monkeypatch: Any) -> Iterator[None]:
    for name in (*OURS, "TRACESTATE"):
        monkeypatch.delenv(name, raising=False)
    environ.forget()
    yield
    environ.forget()


@pytest.fixture
def in_run(
    audited: Any, in_run: Callable[[], AbstractContextManager[Any]]
) -> Callable[[], AbstractContextManager[Any]]:
    audited.instrument(SubprocessInstrumentor)
    return in_run


def printed(output: bytes | str | None) -> dict[str, str]:
    return dict(json.loads(output or ""))


def has_the_run(env: dict[str, str]) -> bool:
    run = runs.current(environ.extract(env))
    return run is not None and run.id == "outer-run" and not run.claimed and "TRACEPARENT" in env


def test_a_child_of_a_run_goes_on_with_it(audited: Any, in_run: Any) -> None:
    with in_run():
        env = printed(subprocess.run(CHILD, capture_output=True, check=True).stdout)
    assert has_the_run(env)
    (span,) = audited.spans  # nothing of its own is recorded
    assert env["TRACEPARENT"].split("-")[1:3] == [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]
    assert env.items() >= {k: v for k, v in os.environ.items() if k not in OURS}.items()
    assert not set(OURS) & set(os.environ)  # our own environment stays as it is


def test_outside_of_a_run_nothing_is_changed(audited: Any) -> None:
    audited.instrument(SubprocessInstrumentor)
    given = {"PATH": os.environ["PATH"], "A": "1"}
    assert not set(OURS) & set(printed(subprocess.check_output(CHILD)))
    assert not set(OURS) & set(printed(subprocess.check_output(CHILD, env=given)))
    with audited.provider.get_tracer("user").start_as_current_span("the user's own span is not an audited run"):
        assert not set(OURS) & set(printed(subprocess.check_output(CHILD)))


def test_env_by_keyword_is_extended_and_not_changed(in_run: Any) -> None:
    given = {"A": "1"}
    with in_run():
        env = printed(subprocess.check_output(CHILD, env=given))
    assert has_the_run(env) and env["A"] == "1" and "PATH" not in env
    assert given == {"A": "1"}


@pytest.mark.parametrize("given", [{"A": "1"}, None, {}])
def test_env_by_position(in_run: Any, given: dict[str, str] | None) -> None:
    before_env = (-1, None, None, subprocess.PIPE, None, None, True, False, None)
    with in_run(), subprocess.Popen(CHILD, *before_env, given, True) as child:
        env = printed(child.communicate()[0])
    assert has_the_run(env)
    assert env.get("A") == (given or {}).get("A")
    assert ("PATH" in env) is (given is None)


def test_what_the_application_chose_for_the_child_stays(in_run: Any, monkeypatch: Any) -> None:
    chosen = "00-11111111111111111111111111111111-2222222222222222-01"
    with in_run():
        env = printed(subprocess.check_output(CHILD, env={"TRACEPARENT": chosen}))
        assert env["TRACEPARENT"] == chosen and "BAGGAGE" in env
        # A copy of our own environment is no choice: what our parent put there would be out of date.
        monkeypatch.setenv("TRACEPARENT", chosen)
        for env in (
            printed(subprocess.check_output(CHILD, env=dict(os.environ))),
            printed(subprocess.check_output(CHILD)),
        ):
            assert has_the_run(env) and env["TRACEPARENT"] != chosen


def test_a_process_that_a_run_started_hands_it_on(audited: Any, in_run: Any, monkeypatch: Any) -> None:
    with in_run():
        handed = environ.carrier()
    for name, value in handed.items():
        monkeypatch.setenv(name, value)
    environ.forget()
    assert has_the_run(printed(subprocess.check_output(CHILD, env={"A": "1"})))


def test_asyncio(in_run: Any) -> None:
    async def main() -> bytes:
        with in_run():
            child = await asyncio.create_subprocess_exec(*CHILD, stdout=subprocess.PIPE)
            return (await child.communicate())[0]

    assert has_the_run(printed(asyncio.run(main())))


def test_shell_popen_and_subclasses(in_run: Any) -> None:
    class Mine(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, command: Any) -> None:
            super().__init__(command, stdout=subprocess.PIPE)

    with in_run():
        with Mine(CHILD) as child:
            assert has_the_run(printed(child.communicate()[0]))
        if os.name == "posix":
            assert "outer-run" in subprocess.check_output("echo $BAGGAGE", shell=True, text=True)
            with os.popen("echo $BAGGAGE") as stream:
                assert "outer-run" in stream.read()


def test_errors_and_the_signature_are_those_of_the_library(in_run: Any) -> None:
    SubprocessInstrumentor().uninstrument()
    signature = inspect.signature(subprocess.Popen)
    SubprocessInstrumentor().instrument()
    with in_run():
        with pytest.raises(FileNotFoundError):
            subprocess.run(["/nonexistent"], check=False)
        with pytest.raises(TypeError, match="bufsize must be an integer"):
            subprocess.Popen(CHILD, "x")  # type: ignore[call-overload]
        with pytest.raises(AttributeError, match="'int' object has no attribute 'items'"):
            subprocess.Popen(CHILD, env=5)  # type: ignore[call-overload]
        assert inspect.signature(subprocess.Popen) == signature


def test_a_fault_of_ours_leaves_the_child_as_it_was(in_run: Any, monkeypatch: Any) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(plugin, "_with_run", broken)
    with in_run():
        assert not set(OURS) & set(printed(subprocess.check_output(CHILD)))
    assert faults.snapshot()["subprocess: Popen.__init__"].count == 1
    faults.forget()


def test_uninstrument_restores(audited: Any) -> None:
    before = vars(subprocess.Popen)["__init__"]
    audited.instrument(SubprocessInstrumentor)
    assert vars(subprocess.Popen)["__init__"] is not before
    SubprocessInstrumentor().uninstrument()
    assert vars(subprocess.Popen)["__init__"] is before
