# SPDX-License-Identifier: Apache-2.0
"""What processes say about themselves: a file for each in the folder ``processes``."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import orjson

from auditspan_seal.log.directory import Directory, mode_of

KEPT = 7 * 24 * 3600.0  # seconds after which the status of a process is removed


def write(directory: Directory, started: float, fields: Mapping[str, Any]) -> None:
    """Write what this process says about itself.

    Args:
        directory: the directory.
        started: when it began, seconds since the epoch; tells it from another one that had its number.
        fields: what it says, JSON-like.

    Raises:
        OSError: it cannot be written.
        TypeError: it is not JSON-like.
    """
    path = directory.processes / f"{os.getpid()}-{int(started * 1000):x}.json"
    draft = path.with_suffix(f".{threading.get_ident()}")
    draft.write_bytes(orjson.dumps(fields))
    draft.chmod(mode_of(directory.processes))  # where an agent signs, it must be able to read
    os.replace(draft, path)


def remove_old(directory: Directory) -> None:
    """Remove what processes said about themselves long ago; thousands of short-lived ones leave thousands of files."""
    oldest = time.time() - KEPT
    with contextlib.suppress(OSError):
        for item in os.scandir(directory.processes):
            with contextlib.suppress(OSError):
                if item.stat().st_mtime < oldest:
                    os.unlink(item.path)
