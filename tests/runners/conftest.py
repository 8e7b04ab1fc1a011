# SPDX-License-Identifier: Apache-2.0
"""The tests of a runner are only there where the runner is: in its own environment (`environments.py`)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

collect_ignore = [
    folder.name
    for folder in Path(__file__).parent.iterdir()
    if (folder / "__init__.py").exists() and find_spec(folder.name.removesuffix("_runner")) is None
]
"""A folder is named after the library's package and ``_runner``: a folder of the library's own name would hide it."""
