# SPDX-License-Identifier: Apache-2.0
"""Settings of Airflow for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def conf_vars(settings: Mapping[tuple[str, str], str | None]) -> Iterator[None]:
    """Set some settings inside of the ``with`` block, or the decorated test; None: take one away.

    Args:
        settings: (section, name) → value.
    """
    with contextlib.ExitStack() as stack:
        for (section, key), value in settings.items():
            name = f"AIRFLOW__{section.upper()}__{key.upper()}"
            stack.callback(_put, name, os.environ.get(name))  # and leaves alone what else is changed meanwhile
            _put(name, value)
        yield


def _put(name: str, value: str | None) -> None:
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
