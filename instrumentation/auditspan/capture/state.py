# SPDX-License-Identifier: Apache-2.0
"""A deterministic hash of a state: equal states hash equal, whatever their key order or container type."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Set
from typing import Any


def state_hash(state: Any) -> str:
    """Hash a JSON-like state.

    Mappings hash by sorted keys, lists and tuples alike in order, sets without order; 1, 1.0 and 1e0 are one number.
    What JSON does not know hashes by its type's name and ``str()``.

    Args:
        state: the state; nothing of it is kept.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.
    """
    text = json.dumps(_canonical(state), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"n": str(value)}
    if isinstance(value, float):
        if math.isfinite(value) and value.is_integer():
            return {"n": str(int(value))}
        return {"n": repr(value)}
    if isinstance(value, Mapping):
        return {"m": [[str(key), _canonical(value[key])] for key in sorted(value, key=str)]}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, (set, frozenset, Set)):
        return {"s": sorted((_canonical(item) for item in value), key=lambda item: json.dumps(item, sort_keys=True))}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    return {"t": type(value).__name__, "v": str(value)}
