# SPDX-License-Identifier: Apache-2.0
"""What every plugin shares: dependency check, patch table, own switch, clean removal."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any

from opentelemetry.instrumentation.dependencies import DependencyConflictError, get_dependency_conflicts
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from auditspan.capture import faults
from auditspan.capture.hooks import Patch, apply
from auditspan.capture.recorder import Recorder

logger = logging.getLogger("auditspan")

active: dict[str, str] = {}
"""Plugins that are switched on in this process, with the libraries they wrap."""

_not_audited: set[str] = set()


def say_not_audited(name: str, found: object, required: object) -> None:
    """Warn, once in a process, that a library is of a version that its plugin is not made for.

    Args:
        name: of the plugin.
        found: the library that is installed, with its version.
        required: what the plugin is for.
    """
    if name in _not_audited:
        return
    _not_audited.add(name)
    logger.warning(
        "auditspan: %s IS NOT AUDITED in this process: %s is installed, and the plugin is for %s. Install a "
        "version in that range, or a newer auditspan; AUDITSPAN_DISABLED_PLUGINS=%s silences this.",
        name,
        found,
        required,
        name,
    )


class AuditInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Base of all plugins. A plugin names itself, its library and its patches; the rest is here.

    OpenTelemetry keeps one instance per class; never subclass a concrete plugin (the instance would be shared).
    """

    name: str
    """Short name, as in AUDITSPAN_DISABLED_PLUGINS: ``apscheduler``."""
    dependencies: Collection[str] = ()
    """What must be installed, as PEP 508 requirements. Empty: the standard library."""

    _removals: list[Callable[[], None]]

    @abstractmethod
    def patches(self, recorder: Recorder) -> Sequence[Patch]:
        """Return the patch table. Called once, when the library is known to be there."""

    @classmethod
    def is_disabled(cls) -> bool:
        """Tell whether AUDITSPAN_DISABLED_PLUGINS names the plugin."""
        return cls.name in {part.strip() for part in os.environ.get("AUDITSPAN_DISABLED_PLUGINS", "").split(",")}

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return the requirements (contract of OpenTelemetry)."""
        return self.dependencies

    def _instrument(self, **kwargs: Any) -> None:
        if self.is_disabled():
            return
        # opentelemetry-instrument skips this check, so it is made here.
        conflict = get_dependency_conflicts(self.dependencies)
        if conflict is not None and conflict.found is None:
            raise DependencyConflictError(conflict)  # the library is not there: nothing to say, everyone goes on
        if conflict is not None:
            # Said here: what OpenTelemetry says of it depends on its version and on how the plugin was loaded.
            say_not_audited(self.name, conflict.found, conflict.required)
            return
        recorder = Recorder(type(self).__module__, _version(), kwargs.get("tracer_provider"))
        self._removals = []
        for patch in self.patches(recorder):
            # One function that a newer library no longer has must not switch off the others.
            with faults.contained(f"{self.name}: patch {patch.module}:{patch.attribute}"):
                self._removals.append(apply(patch, self.name))
        active[self.name] = ", ".join(self.dependencies) or "standard library"

    def _uninstrument(self, **kwargs: Any) -> None:
        for remove in reversed(getattr(self, "_removals", [])):
            remove()
        self._removals = []
        active.pop(self.name, None)


def _version() -> str:
    from auditspan import __version__

    return __version__
