# SPDX-License-Identifier: Apache-2.0
"""What gevent replaces, as it was: for what we do ourselves in a process of its kind.

gevent starts a program by forking in Python: hooks that run in the child then, such as the one of OpenTelemetry's SDK,
which starts threads there, let the application's greenlets run in the child as well, and they read what the parent is
waiting for. (Seen with Celery's gevent pool: tasks were gone.) The interpreter's own way has no Python in the child.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any


def popen() -> type[subprocess.Popen[Any]]:
    """Return the interpreter's own :class:`subprocess.Popen`."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("subprocess"):
        return subprocess.Popen
    original: type[subprocess.Popen[Any]] = monkey.get_original("subprocess", "Popen")
    return original
