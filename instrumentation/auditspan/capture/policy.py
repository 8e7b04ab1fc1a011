# SPDX-License-Identifier: Apache-2.0
"""The user's policy: a YAML file named by ``AUDITSPAN_POLICY``, read once per process.

Only what is needed here is read; other sections of the file belong to other parts. Without a file the defaults hold.
With one that cannot be read the strictest policy holds: its author wanted to say something about privacy, and what is
recorded cannot be taken back. The fault is counted and shown, and never stops the application.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from auditspan.capture import faults


class ClientAddress(str, Enum):
    """How much of a caller's network address is recorded."""

    NONE = "none"
    NETWORK = "network"
    FULL = "full"


@dataclass(frozen=True)
class Policy:
    """What may be recorded.

    Attributes:
        client_address: how much of a caller's address; by default its network, which tells a partner's data center
            from a stranger's but not one person from another.
    """

    client_address: ClientAddress = ClientAddress.NETWORK


STRICTEST = Policy(client_address=ClientAddress.NONE)


@functools.lru_cache(maxsize=1)
def policy() -> Policy:
    """Return the policy of this process."""
    path = os.environ.get("AUDITSPAN_POLICY")
    if path:
        with faults.contained("policy: read AUDITSPAN_POLICY"):
            return _read(Path(path))
        return STRICTEST
    return Policy()


def forget() -> None:
    """Read the policy again at its next use (for tests)."""
    policy.cache_clear()


def _read(path: Path) -> Policy:
    import yaml  # the extra `auditspan[policy]`; needed by nobody who has no policy file

    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    if document is None:
        return Policy()
    if not isinstance(document, Mapping):
        raise ValueError(f"{path}: a policy is a mapping, for example `client_address: network`")
    chosen = document.get("client_address", ClientAddress.NETWORK)
    try:
        return Policy(client_address=ClientAddress(chosen))
    except ValueError:
        allowed = ", ".join(choice.value for choice in ClientAddress)
        raise ValueError(f"{path}: client_address must be one of: {allowed}") from None
