# SPDX-License-Identifier: Apache-2.0
"""Entries that the log writes about itself: they read like records, with the names of the registry."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from auditspan_seal.formats import statement as statements

SCHEMA_VERSION = "0.3.0"
"""Version of the registry that these entries follow: that of auditspan.schema, as a test sees to."""


def own_attributes(event_type: str, action: str, origin: str, message: str, outcome: str = "success") -> dict[str, Any]:
    """Return what an entry that the log writes about itself says, so that it reads like a record.

    Args:
        event_type: of the registry, for example ``log.gap``.
        action: the verb.
        origin: name of the log.
        message: one line for people.
        outcome: ``success`` or ``failure``.
    """
    return {
        "audit.schema.version": SCHEMA_VERSION,
        "audit.event.type": event_type,
        "audit.action": action,
        "audit.outcome": outcome,
        "audit.actor.id": "auditspan",
        "audit.actor.type": "system",
        "audit.actor.evidence": "self",
        "audit.target.id": origin,
        "audit.target.type": "auditspan.log",
        "audit.message": message,
    }


def genesis(origin: str, key: str, time: int, predecessor: Mapping[str, Any] | None = None) -> bytes:
    """Make the first entry of a log.

    Args:
        origin: name of the log.
        key: verifier key of the first signing key.
        time: nanoseconds since the epoch.
        predecessor: origin, size, root (base64) and note of the last checkpoint of the log that this one replaces.
    """
    message = f"the log {origin} begins"
    if predecessor is not None:
        message += f", as successor of {predecessor['origin']} with {predecessor['size']} entries"
    fields = _own("genesis", origin, time, own_attributes("log.started", "CREATE", origin, message))
    # Erasures and revocations are only taken from the segments of the log's owner: see docs/formats.md.
    fields |= {"key": key, "control": True}
    return statements.encode(fields | ({"predecessor": dict(predecessor)} if predecessor is not None else {}))


def gap(origin: str, segment: str, number: int, lost: bytes, reason: str, time: int) -> bytes:
    """Make the entry that stands in the place of something that was recorded and cannot be read.

    Args:
        origin: name of the log.
        segment: where it was.
        number: its running number there; 0: it is the torn last line of a process that died.
        lost: what was there; only its length and hash are told.
        reason: why it is not in the log.
        time: nanoseconds since the epoch.
    """
    said = own_attributes("log.gap", "LOSE", origin, f"something recorded was lost: {reason}", "failure")
    return statements.encode(
        _own("gap", origin, time, said)
        | {
            "segment": segment,
            "number": number,
            "reason": reason,
            "bytes": len(lost),
            "sha256": hashlib.sha256(lost).hexdigest(),
        }
    )


def lost(origin: str, segment: str, number: int, records: int, reason: str, time: int) -> bytes:
    """Make the gap entry by which a process says that it could not record something.

    Args:
        origin: name of the log.
        segment: where this entry stands.
        number: its running number there.
        records: how many records there were.
        reason: why they could not be recorded.
        time: nanoseconds since the epoch.
    """
    what = "1 record" if records == 1 else f"{records} records"
    said = own_attributes("log.gap", "LOSE", origin, f"{what} could not be written: {reason}", "failure")
    more = {"segment": segment, "number": number, "records": records, "reason": reason}
    return statements.encode(_own("gap", origin, time, said) | more)


def heartbeat(origin: str, time: int, following: int) -> bytes:
    """Make the entry that promises another one, or a close, as long as the log is open.

    Args:
        origin: name of the log.
        time: nanoseconds since the epoch.
        following: seconds within which there will be another entry; from here on, until the log is closed.
    """
    message = f"the log is open; at least every {following} s an entry follows"
    said = own_attributes("log.heartbeat", "CONTINUE", origin, message)
    return statements.encode(_own("heartbeat", origin, time, said) | {"next": following})


def close(origin: str, time: int) -> bytes:
    """Make the entry that ends the promise of heartbeats."""
    said = own_attributes("log.closed", "CLOSE", origin, "the log is closed; nothing more is promised")
    return statements.encode(_own("close", origin, time, said))


def _own(kind: str, origin: str, time: int, said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "v": statements.VERSION,
        "type": kind,
        "origin": origin,
        "time": str(time),
        "attributes": statements.values(said),
    }
