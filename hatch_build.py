# SPDX-License-Identifier: Apache-2.0
"""Builds auditspan_seal._native where there is a compiler. Where there is none, all is done in Python, and slower."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "_native.abi3.so"


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles ``exporters/native`` into ``exporters/auditspan_seal``, where an editable installation finds it, too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say so to the wheel (contract of hatchling)."""
        root = Path(self.root)
        sources = sorted((root / "exporters" / "native").iterdir())
        made = root / "exporters" / "auditspan_seal" / NAME
        if os.environ.get("AUDITSPAN_NATIVE", "").lower() == "off" or os.name != "posix":
            made.unlink(missing_ok=True)
            return
        if not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            try:
                _compile(root, made)
            except Exception as error:  # whatever is wrong with the compiler, the package works without
                made.unlink(missing_ok=True)
                self.app.display_warning(f"auditspan_seal._native is not built, all is done in Python: {error}")
                return
        if version != "editable":
            build_data["pure_python"] = False
            build_data["tag"] = f"cp310-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
            build_data["force_include"][str(made)] = f"auditspan_seal/{NAME}"


def _compile(root: Path, made: Path) -> None:
    from setuptools import Distribution, Extension

    optimised = ["-O3"] if sys.platform != "win32" else []
    extension = Extension(
        "_native", [str(root / "exporters/native/module.c")], py_limited_api=True, extra_compile_args=optimised
    )
    with tempfile.TemporaryDirectory(dir=made.parent, prefix=".build-") as folder:
        command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
        command.build_lib = command.build_temp = folder
        command.ensure_finalized()
        command.run()
        # At once: a process that is about to import it gets the old one or the new one, never half of it.
        os.replace(next(Path(folder).glob("_native*.so")), made)
