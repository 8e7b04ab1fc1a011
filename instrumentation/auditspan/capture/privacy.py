# SPDX-License-Identifier: Apache-2.0
"""Data minimisation: what becomes of a value before it enters a record. Nothing that this removes is kept anywhere.

Twice: what a plugin says goes through :func:`minimise` before it becomes a span attribute, so that no exporter of the
application sees more than the policy allows; and the whole span, with what others have added to it meanwhile, goes
through :class:`Guard` just before it is sealed.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import os
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from auditspan import schema
from auditspan.capture.policy import Treat, Treatment, address_of, policy
from auditspan.schema import rules


def scrub_mapping(attributes: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Take the secrets out of attributes; see :mod:`auditspan.capture.secret_detection`.

    That is imported with the first record, or fork: its patterns take time to compile, and many processes record
    nothing.
    """
    _load()
    return scrub_mapping(attributes)


def scrub_text(text: str) -> str:
    """Take the secrets out of a text; see :func:`scrub_mapping`."""
    _load()
    return scrub_text(text)


def _load() -> None:
    global _begun, _known
    _begun = True
    from auditspan.capture import secret_detection, secret_labels

    globals().update(scrub_mapping=secret_detection.scrub_mapping, scrub_text=secret_detection.scrub_text)
    known = (secret_detection._clean, secret_detection._clean_names, secret_detection.scrub_text)
    _known = (*known, secret_labels.digits_do_not_matter)


def _before_fork() -> None:
    """Load it for all children at once: a worker may be made for each task, and each would take 30 ms for it.

    What another thread is importing is finished by that, too: the child could never import it.
    """
    if _begun or _key_file is not None:
        _load()


_begun = False
_Known = tuple[set[str], set[tuple[str, ...]], Callable[[str], str], Callable[[str], bool]]
_known: _Known | None = None
PSEUDONYM = "hmac-sha256:"
_key_file: Path | None = None
_key: bytes | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)


def use_key(path: Path) -> None:
    """Keep the key of pseudonyms in a file; it is made, readable by its owner only, when it is first needed."""
    global _key_file, _key
    _key_file, _key = path, None


def pseudonym(name: str, value: str) -> str:
    """Return what stands for a value that may be compared but not known: a keyed hash.

    Without the key nobody can try all values out. The attribute's name is part of it, so that equal values of
    different attributes are not linked.

    Args:
        name: the attribute.
        value: its value.

    Returns:
        ``hmac-sha256:`` and 32 hexadecimal digits.
    """
    digest = hmac.new(_pseudonym_key(), f"{name}\0{value}".encode("utf-8", "replace"), hashlib.sha256)
    return PSEUDONYM + digest.hexdigest()[:32]


def minimise(attributes: dict[str, Any], target_type: str) -> dict[str, Any]:
    """Return the attributes as they may be recorded.

    Args:
        attributes: what a plugin says; may be changed in place.
        target_type: type of the target of the record.
    """
    treatments, tags = policy().for_target(target_type)
    for name, treat in treatments.items():
        if name in attributes:
            value = _treated(name, attributes[name], treat)
            if value is None:
                del attributes[name]
            else:
                attributes[name] = value
    for name in _SECRETS & attributes.keys():
        del attributes[name]
    for name, value in tags.items():
        attributes.setdefault(name, value)
    cleaned, removed = scrub_mapping(attributes)
    return _noting(cleaned, removed) if removed else attributes


def hides(name: str, target_type: str) -> bool:
    """Tell whether the policy keeps an attribute out of texts such as the message and the name of the span."""
    return name in policy().personal or name in policy().for_target(target_type)[0]


class Guard:
    """What the seal asks about privacy (the protocol ``auditspan_seal.guard.Guard``)."""

    def attributes(self, attributes: Mapping[str, Any] | None, where: str) -> Mapping[str, Any]:
        """Return attributes without secrets; the names of those of the span that lost one are added."""
        cleaned, removed = scrub_mapping(attributes or {})
        return _noting(cleaned, removed) if removed and where == "span" else cleaned

    def text(self, text: str) -> str:
        """Return a text without secrets."""
        return scrub_text(text)

    def usual(self) -> tuple[Any, ...] | None:
        """Return what need not be asked (``auditspan_seal.guard.Usual``); None before the first record."""
        if _known is None:
            return None
        texts, names, look, alike = _known
        return texts, names, look, policy().all_personal, alike

    def personal(self, names: Collection[str]) -> Collection[str]:
        """Return the attributes that enter the statement only as commitments."""
        return policy().all_personal.intersection(names)


def _noting(cleaned: Mapping[str, Any], removed: Iterable[str]) -> dict[str, Any]:
    return {**cleaned, schema.REDACTED: sorted({*(cleaned.get(schema.REDACTED) or ()), *removed})}


_REQUIRED = frozenset[str]().union(*rules.REQUIRED.values())
_SECRETS = frozenset(name for name, privacy in rules.PRIVACY.items() if privacy == "secret")


def _treated(name: str, value: Any, treat: Treat) -> Any:
    """Return the value after its treatment; None: the attribute is left out."""
    if treat.kind is Treatment.DROP:
        return schema.WITHHELD if name in _REQUIRED else None
    if treat.kind is Treatment.HASH:
        return [pseudonym(name, str(v)) for v in value] if _is_list(value) else pseudonym(name, str(value))
    if treat.kind is Treatment.TRUNCATE:
        return [str(v)[: treat.length] for v in value] if _is_list(value) else str(value)[: treat.length]
    return network_of(str(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def network_of(host: str) -> str | None:
    """Return the network of an address (/24 or /48); None for what is no address: less than all of it is nothing."""
    address = address_of(host)
    if address is None:
        try:
            return str(ipaddress.ip_network(host)) if "/" in host else None
        except ValueError:
            return None
    return str(ipaddress.ip_network((address, 24 if address.version == 4 else 48), strict=False))


def _pseudonym_key() -> bytes:
    global _key
    if _key is None:
        _key = _read_key(_key_file) if _key_file is not None else secrets.token_bytes(32)
    return _key


def _read_key(path: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError):
        return bytes.fromhex(path.read_text(encoding="ascii"))
    # Many processes may start at once: the one whose link is first makes the key.
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".pseudonym-")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.unlink(draft)
    return bytes.fromhex(path.read_text(encoding="ascii"))
