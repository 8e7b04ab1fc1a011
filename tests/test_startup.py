# SPDX-License-Identifier: Apache-2.0
"""Starting an audited process stays cheap: what only records need, or signing, is imported with the first record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LATER = (
    "cryptography", "auditspan_seal.log.sequencer", "auditspan_seal.driver", "auditspan_seal.keys.signer",
    "auditspan.capture.secret_detection", "starlette", "apscheduler", "singer_sdk", "standardwebhooks", "rich",
    "google.protobuf", "requests", "yaml",
)  # fmt: skip
ASKED = f"import json, sys; print(json.dumps([name for name in {LATER!r} if name in sys.modules]))"


def loaded(tmp_path: Path, program: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AUDITSPAN_"))}
    for signal in ("TRACES", "METRICS", "LOGS"):
        environment[f"OTEL_{signal}_EXPORTER"] = "none"
    command = [str(Path(sys.executable).parent / "opentelemetry-instrument"), sys.executable, "-c", program]
    done = subprocess.run(
        command,
        env={**environment, "AUDITSPAN_DIR": str(tmp_path / "log")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_process_that_records_nothing_imports_nothing_of_it(tmp_path: Path) -> None:
    assert loaded(tmp_path, ASKED) == []


@pytest.mark.slow
def test_the_first_record_imports_what_it_needs(tmp_path: Path) -> None:
    program = "import auditspan\nwith auditspan.action('READ', target='x', target_type='y'): pass\n"
    program += f"from opentelemetry import trace\ntrace.get_tracer_provider().force_flush()\n{ASKED}"
    found = loaded(tmp_path, program)
    assert {"cryptography", "auditspan_seal.log.sequencer", "auditspan.capture.secret_detection"} <= set(found)


@pytest.mark.slow
def test_what_every_child_needs_is_loaded_before_the_first_fork(tmp_path: Path) -> None:
    # A worker for each task would import it, and compile its patterns, for each task.
    asked = ASKED.replace("print", "import os\nif os.fork() == 0: print") + "\nelse: os.wait()"
    assert loaded(tmp_path, asked) == ["auditspan.capture.secret_detection"]


FORKING = """
import importlib.abc, os, sys, threading, time
import auditspan
auditspan.install()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("auditspan.capture.secret_detection", "auditspan_seal.driver"):
            importing.set()
            time.sleep(0.5)

def record():
    with auditspan.action("READ", target="x", target_type="y"):
        pass

importing = threading.Event()
sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=record)
thread.start()
for _ in range(2):  # once for each of the two
    importing.wait(10)
    importing.clear()
    if os.fork() == 0:
        record()
        os._exit(7)
    done = time.monotonic() + 20
    while (found := os.waitpid(-1, os.WNOHANG)) == (0, 0) and time.monotonic() < done:
        time.sleep(0.05)
    print(found[1] >> 8 if found[0] else "the child hangs")
thread.join()
"""


@pytest.mark.slow
def test_a_fork_in_the_middle_of_the_first_record_leaves_a_child_that_records(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AUDITSPAN_"))}
    environment |= {"AUDITSPAN_DIR": str(tmp_path / "log"), "OTEL_TRACES_EXPORTER": "none"}
    environment |= {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    done = subprocess.run([sys.executable, "-c", FORKING], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n") == ["7", "7", ""], done.stderr


@pytest.mark.slow
def test_a_command_loads_its_own_verb_and_no_other() -> None:
    program = "import contextlib, sys\nfrom auditspan.cli import VERBS, main\nwith contextlib.suppress(SystemExit):\n"
    program += (
        "    main(['prove', '--help'])\nprint({m for m in VERBS.values() if f'auditspan.cli.{m}' in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "{'prove'}", done.stderr
