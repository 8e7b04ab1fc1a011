# SPDX-License-Identifier: Apache-2.0
"""`make test`: all parts run at once, everything is in one of them, and one that is red is not overlooked."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests import ahead, environments
from tests import parts as module
from tests.parts import LAST, PARTS, ROOT, run
from tests.runners.environments import RUNNERS

pytestmark = pytest.mark.slow


def write(folder: Path, name: str, body: str) -> str:
    path = folder / f"test_{name}.py"
    path.write_text(textwrap.dedent(body))
    return str(path)


def waits_for(folder: Path, own: str, other: str) -> str:
    """A test that passes only while the other one runs."""
    return write(
        folder,
        own,
        f"""
        import time
        from pathlib import Path

        def test_it():
            Path({str(folder / own)!r}).touch()
            end = time.monotonic() + 60
            while not Path({str(folder / other)!r}).exists():
                assert time.monotonic() < end
                time.sleep(0.02)
        """,
    )


def test_they_run_at_once(tmp_path: Path) -> None:
    out = io.StringIO()
    parts = {"a": ["-q", waits_for(tmp_path, "a", "b")], "b": ["-q", waits_for(tmp_path, "b", "a")]}
    assert run(parts, out) == 0
    assert re.search(r"^ *a \| passed after \d+ s: 1 passed", out.getvalue(), re.MULTILINE)
    assert re.search(r"^ *b \| passed after \d+ s: 1 passed", out.getvalue(), re.MULTILINE)


@pytest.mark.parametrize(
    ("body", "first"),
    [("def test_it(): assert 0, 'the reason'", True), ("raise SystemExit('the reason')", False), ("", False)],
)
def test_red_if_one_is_red(tmp_path: Path, body: str, first: bool) -> None:
    out = io.StringIO()
    good, bad = write(tmp_path, "good", "def test_it(): pass"), write(tmp_path, "bad", body)
    parts = {"good": [good], "bad": [bad]}
    assert run(parts if not first else dict(reversed(parts.items())), out) != 0
    said = out.getvalue()
    assert "bad | FAILED" in said
    assert "good | passed" in said
    at_the_end = said[said.index("all that the part 'bad' said") :]
    assert "the reason" in at_the_end or not body


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_all_and_what_they_started(tmp_path: Path, how: signal.Signals) -> None:
    body = """
    import subprocess, time
    from pathlib import Path

    def test_it():
        process = subprocess.Popen(["sleep", "300"])
        Path({place!r}).write_text(str(process.pid))
        {then}
        time.sleep(300)
    """
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    parts = {
        name: [write(tmp_path, name, body.format(place=str(tmp_path / name), then=then))]
        for name, then in (("a", "pass"), ("b", deaf))
    }
    program = (
        f"import sys; from tests import parts; parts.PARTS = {parts!r}; parts._PATIENCE = 3\nsys.exit(parts.main())"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not all((tmp_path / name).exists() and (tmp_path / name).read_text() for name in parts):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(how)
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.communicate()
    for name in parts:
        pid = int((tmp_path / name).read_text())
        deadline = time.monotonic() + 10
        while alive(pid):
            assert time.monotonic() < deadline, f"what the part {name} started still runs"
            time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_one_part_leaves_out_another_has_and_all_look_at_their_records() -> None:
    everything, *ignored = PARTS["others"]
    assert everything == "tests"
    apart = {name: arguments for name, arguments in PARTS.items() if name != "others"}
    assert all(arguments[-1] == LAST for arguments in apart.values())
    left_out = {
        argument.removeprefix("--ignore=") for arguments in PARTS.values() for argument in arguments if "=" in argument
    }
    assert left_out >= {argument.removeprefix("--ignore=") for argument in ignored}
    taken = [argument for arguments in apart.values() for argument in arguments if "=" not in argument]
    assert all((ROOT / path.partition("::")[0]).exists() for path in taken)
    # Of the folder of the runners' tests, each row is in one part, and there is nothing else in it.
    rows = [path for path in taken if path.startswith(module.APART["runners"])]
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", module.APART["runners"]],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert sorted(rows) == sorted(line for line in collected.stdout.splitlines() if "::" in line)
    assert left_out <= {*taken, module.APART["runners"]}


def test_every_environment_is_built_ahead_for_a_part_that_there_is() -> None:
    assert ahead.WANTED_BY.keys() == environments.NAMED.keys()
    names = [name for name, _ in ahead.wanted(PARTS)]
    assert sorted(names) == sorted(
        {"kafka", *environments.NAMED, *(f"{row.name}-{row.inside or row.version}" for row in RUNNERS)}
    )
    assert {*ahead.WANTED_BY.values(), *(row.part for row in RUNNERS)} <= PARTS.keys()


def test_make_test_runs_the_parts() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ntest:")[2].partition("\n\n")[0]
    assert f"-m {module.__name__}" in recipe
