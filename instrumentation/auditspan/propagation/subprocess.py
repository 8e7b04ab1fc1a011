# SPDX-License-Identifier: Apache-2.0
"""Child processes: the run that starts one goes on in it.

A child that is started inside an audited run gets the trace context and the run in its environment, as the
OpenTelemetry specification "Environment Variables as Context Propagation Carriers" says; if it is audited too, what
it does belongs to the run. Nothing is recorded here, and outside a run nothing is changed.

`subprocess.Popen` is where `subprocess.run`, `os.popen` and asyncio's subprocesses come together. Not on this way:
`os.system`, `os.spawn*`, `os.posix_spawn` and multiprocessing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from auditspan.capture import environ
from auditspan.capture import run as runs
from auditspan.capture.hooks import Call, Hook, Patch
from auditspan.capture.instrumentor import AuditInstrumentor
from auditspan.capture.recorder import Recorder

_ENV = 10  # position of `env` among the arguments of Popen


class SubprocessInstrumentor(AuditInstrumentor):
    """Hands the current run to child processes."""

    name = "subprocess"

    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table."""
        return (Patch("subprocess", "Popen.__init__", start_child),)


def start_child(call: Call) -> Hook:
    """Add the run to the environment of a child."""
    context = environ.parent_context()
    given = call.argument(_ENV, "env")
    if given is None:
        given = os.environ
    # What is no environment at all is the application's error: the library will say so.
    if runs.current(context) is not None and isinstance(given, Mapping):
        env = _with_run(given, environ.carrier(context))
        if len(call.args) > _ENV:
            call.args = (*call.args[:_ENV], env, *call.args[_ENV + 1 :])
        else:
            call.kwargs["env"] = env
    yield


def _with_run(given: Mapping[Any, Any], carrier: Mapping[str, str]) -> dict[Any, Any]:
    """Return a copy of an environment with the run in it."""
    env = dict(given)
    for name, value in carrier.items():
        # What the application itself chose for this child stays; what came from our own parent is out of date.
        if given is os.environ or env.get(name) in (None, os.environ.get(name)):
            env[name] = value
    return env
