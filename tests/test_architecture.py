# SPDX-License-Identifier: Apache-2.0
"""Imports go one way (docs/decisions/0001): capture never sees the seal, the seal never sees the plugins."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {"auditspan": ROOT / "instrumentation" / "auditspan", "auditspan_seal": ROOT / "exporters" / "auditspan_seal"}

# module prefix -> what it may import of ours (itself is always allowed). The longest matching prefix decides.
MAY_IMPORT = {
    "auditspan": ("auditspan.api", "auditspan.boot"),
    "auditspan.api": ("auditspan", "auditspan.schema", "auditspan.capture"),
    "auditspan.schema": (),
    "auditspan.selfcheck": (),
    "auditspan.capture": ("auditspan", "auditspan.schema"),
    "auditspan.runners": ("auditspan.schema", "auditspan.capture"),
    "auditspan.connectors": ("auditspan.schema", "auditspan.capture"),
    "auditspan.webhooks": ("auditspan.schema", "auditspan.capture"),
    "auditspan.propagation": ("auditspan.schema", "auditspan.capture"),
    "auditspan.collector_lint": ("auditspan_seal.errors",),
    "auditspan.devstack": ("auditspan", "auditspan.backend_setup", "auditspan_seal.errors"),
    "auditspan.backend_setup": (
        "auditspan.registry", "auditspan_seal.errors", "auditspan_seal.spans", "auditspan_seal.keys",
        "auditspan_seal.log", "auditspan_seal.verify",
    ),
    # the event model at its source; the pure part knows nothing of files
    "auditspan.registry": ("auditspan.registry", "auditspan_seal.errors"),
    "auditspan.registry.model": ("auditspan_seal.errors",),
    "auditspan.registry.compare": ("auditspan.registry.model", "auditspan.registry.compare_rules"),
    "auditspan.registry.compare_rules": (),
    # what Kibana shows of records; it reads the registry, and nothing of records themselves
    "auditspan.kibana": ("auditspan.registry", "auditspan_seal.errors"),
    # the two composition roots
    "auditspan.metrics": ("auditspan.capture", "auditspan_seal"),
    "auditspan.boot": ("auditspan", "auditspan.metrics", "auditspan.selfcheck", "auditspan.capture", "auditspan_seal"),
    "auditspan.cli": (
        "auditspan", "auditspan.metrics", "auditspan.schema", "auditspan.registry", "auditspan.devstack",
        "auditspan.backend_setup", "auditspan.collector_lint", "auditspan.kibana", "auditspan_seal",
    ),
    # the seal, lowest layer first
    "auditspan_seal.errors": (),
    "auditspan_seal.formats": ("auditspan_seal.errors",),
    "auditspan_seal.keys": ("auditspan_seal.errors", "auditspan_seal.formats"),
    "auditspan_seal.log": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.keys", "auditspan_seal.native",
    ),
    "auditspan_seal.witness": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.keys", "auditspan_seal.log",
    ),
    "auditspan_seal.interrupts": (),
    "auditspan_seal.forks": (),
    "auditspan_seal.guard": ("auditspan_seal.interrupts",),
    "auditspan_seal.native": ("auditspan_seal",),  # the module in C
    "auditspan_seal.recording": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.guard", "auditspan_seal.interrupts",
        "auditspan_seal.log", "auditspan_seal.native", "auditspan_seal.salts",
    ),
    "auditspan_seal.salts": ("auditspan_seal.formats",),
    "auditspan_seal.spans": ("auditspan_seal.errors", "auditspan_seal.formats"),
    "auditspan_seal.otlp": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.spans", "auditspan_seal.forks",
        "auditspan_seal.otlp.as_json",
    ),
    "auditspan_seal.otlp.as_json": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.spans", "auditspan_seal.otlp.parcel",
        "auditspan_seal.native",
    ),
    "auditspan_seal.delivery": ("auditspan_seal.log",),
    "auditspan_seal.ship": (
        "auditspan_seal.errors", "auditspan_seal.delivery", "auditspan_seal.otlp", "auditspan_seal.log",
    ),
    "auditspan_seal.standing": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.log", "auditspan_seal.delivery",
    ),
    "auditspan_seal.driver": (
        "auditspan_seal.errors", "auditspan_seal.log", "auditspan_seal.ship", "auditspan_seal.witness",
    ),
    "auditspan_seal.modes": (),
    "auditspan_seal.patience": (
        "auditspan_seal.errors", "auditspan_seal.log", "auditspan_seal.modes", "auditspan_seal.synced",
    ),
    "auditspan_seal.beginning": ("auditspan_seal.errors", "auditspan_seal.salts"),
    "auditspan_seal.losses": ("auditspan_seal.formats", "auditspan_seal.log"),
    "auditspan_seal.late": (
        "auditspan_seal.forks",
        "auditspan_seal.driver", "auditspan_seal.keys", "auditspan_seal.standing", "auditspan_seal.ship",
    ),
    "auditspan_seal.synced": ("auditspan_seal.formats", "auditspan_seal.log"),
    "auditspan_seal.deferred": ("auditspan_seal.interrupts",),
    "auditspan_seal.service": (
        "auditspan_seal.errors", "auditspan_seal.beginning", "auditspan_seal.recording", "auditspan_seal.log",
        "auditspan_seal.driver", "auditspan_seal.guard", "auditspan_seal.modes", "auditspan_seal.synced",
        "auditspan_seal.deferred", "auditspan_seal.interrupts", "auditspan_seal.forks",
        "auditspan_seal.late", "auditspan_seal.losses", "auditspan_seal.native", "auditspan_seal.patience",
    ),
    "auditspan_seal.processor": ("auditspan_seal.interrupts", "auditspan_seal.recording", "auditspan_seal.service"),
    "auditspan_seal.verify": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.keys", "auditspan_seal.log",
        "auditspan_seal.native", "auditspan_seal.spans", "auditspan_seal.delivery", "auditspan_seal.witness.trusted",
    ),
    "auditspan_seal.reconcile": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.log", "auditspan_seal.spans",
        "auditspan_seal.ship", "auditspan_seal.otlp", "auditspan_seal.delivery", "auditspan_seal.verify",
    ),
    "auditspan_seal.erase": (
        "auditspan_seal.errors", "auditspan_seal.formats", "auditspan_seal.log", "auditspan_seal.spans",
        "auditspan_seal.verify",
    ),
    "auditspan_seal": (),
}  # fmt: skip

PURE = (
    "auditspan.schema", "auditspan.registry.model", "auditspan.registry.compare", "auditspan.registry.compare_rules",
    "auditspan_seal.formats", "auditspan_seal.errors", "auditspan_seal.otlp.as_json",
)  # fmt: skip
NO_IO = {"os", "io", "pathlib", "socket", "subprocess", "time", "random", "secrets", "threading", "fcntl", "tempfile"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
            yield ".".join(parts), ast.parse(path.read_text())


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> str:
    return max((p for p in MAY_IMPORT if module == p or module.startswith(p + ".")), key=len)


def ours(name: str) -> bool:
    return name.partition(".")[0] in SOURCES


KNOWN = {name for name, _ in modules()}


@pytest.mark.parametrize(("module", "tree"), list(modules()), ids=lambda item: item if isinstance(item, str) else "")
def test_imports_go_one_way(module: str, tree: ast.Module) -> None:
    own = layer(module)
    for name in imports(tree):
        if not ours(name) or name not in KNOWN:
            continue  # a name inside a module is judged by the module
        target = layer(name)
        if target == own or name in ("auditspan", "auditspan_seal"):
            continue
        allowed = MAY_IMPORT[own]
        assert any(name == a or name.startswith(a + ".") for a in allowed), f"{module} may not import {name}"


@pytest.mark.parametrize(("module", "tree"), list(modules()), ids=lambda item: item if isinstance(item, str) else "")
def test_pure_layers_do_no_io(module: str, tree: ast.Module) -> None:
    if layer(module) in PURE:
        assert not {name.partition(".")[0] for name in imports(tree)} & NO_IO


def test_the_rules_name_every_module() -> None:
    for name in KNOWN - {"auditspan", "auditspan_seal"}:
        assert layer(name) not in ("auditspan", "auditspan_seal"), f"say in MAY_IMPORT what {name} may import"


def test_modules_can_be_read_in_one_sitting() -> None:
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            if "Generated from registry.yaml" in path.read_text()[:200]:
                continue  # read the registry instead
            lines = len(path.read_text().splitlines())
            assert lines <= 400, f"{package}: {path.name} has {lines} lines; split it"
