# SPDX-License-Identifier: Apache-2.0
"""The real registry, and as the document that tests edit."""

from __future__ import annotations

from typing import Any

import pytest

from auditspan.registry.emit_json import document as document_of
from auditspan.registry.load import SOURCE, load
from auditspan.registry.model import Registry


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The registry that is being edited."""
    return load(SOURCE)


@pytest.fixture
def document(registry: Registry) -> dict[str, Any]:
    """The same in the form that `Registry.parse` takes, to be edited."""
    return document_of(registry)
