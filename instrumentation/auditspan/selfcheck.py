# SPDX-License-Identifier: Apache-2.0
"""Says loudly when auditing was asked for and did not start; refuses to start the program if it is required.

OpenTelemetry boots fail-open: any error in a distro, a configuration file or another plugin is logged and the program
runs, unaudited. So the check does not rely on that boot: ``auditspan-selfcheck.pth`` imports this module at interpreter
start, if AUDITSPAN_REQUIRED is set or the program was started under ``opentelemetry-instrument``, and the check runs
after the instrumentation had its turn and before the first line of the program.
"""

from __future__ import annotations

import os
import site
import sys

active = False
"""Whether auditing is active in this process; set by the boot."""

_reason: str | None = None
_EX_CONFIG = 78  # sysexits.h: configuration error
_TOOLS = (
    "opentelemetry-instrument",
    "opentelemetry-bootstrap",
    "opentelemetry.instrumentation.auto_instrumentation",
    "auditspan",
    "auditspan.cli",
    "pip",
)


def failed(reason: str) -> None:
    """Keep the reason why auditing could not start, and say it at once where no check follows."""
    global _reason
    _reason = reason
    if not _installed:
        _say()


def required() -> bool:
    """Tell whether AUDITSPAN_REQUIRED forbids to run unaudited."""
    return os.environ.get("AUDITSPAN_REQUIRED", "").strip().lower() in ("1", "true", "yes", "on")


def check() -> None:
    """Check that auditing is active; else say so, and end the process if it is required."""
    if not active:
        _say()
        if required():
            sys.stderr.flush()
            os._exit(_EX_CONFIG)


def _say() -> None:
    reason = _reason or (
        "OpenTelemetry did not get as far as loading auditspan (its own message is above), or the program was not "
        "started under `opentelemetry-instrument`."
    )
    decision = (
        "AUDITSPAN_REQUIRED is set: the program is not started."
        if required()
        else "The program runs UNAUDITED. Set AUDITSPAN_REQUIRED=true to refuse that."
    )
    sys.stderr.write(f"auditspan: AUDITING IS NOT ACTIVE in process {os.getpid()}.\n  {reason}\n  {decision}\n")


def _is_tool() -> bool:
    """Tell whether this process only starts or looks after audited programs, and is not one itself."""
    command = " ".join(os.path.basename(part) for part in sys.orig_argv[1:3])
    return any(name in command.split() for name in _TOOLS)


def _install() -> bool:
    """Run the check right after site customisation, which is where OpenTelemetry boots."""
    original = getattr(site, "execsitecustomize", None)
    if original is None or "sitecustomize" in sys.modules or _is_tool():
        return False

    def execsitecustomize() -> None:
        original()
        check()

    site.execsitecustomize = execsitecustomize
    return True


_installed = _install()
