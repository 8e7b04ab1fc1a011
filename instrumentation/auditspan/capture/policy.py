# SPDX-License-Identifier: Apache-2.0
"""The user's policy: a YAML file named by ``AUDITSPAN_POLICY``, read once per process. Explained in docs/privacy.md.

Without a file the defaults hold. With one that cannot be read the strictest policy holds: its author wanted to say
something about privacy, and what is recorded cannot be taken back. The fault is counted and shown, and never stops
the application.
"""

from __future__ import annotations

import fnmatch
import functools
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from auditspan import schema
from auditspan.capture import faults
from auditspan.schema import rules


class PolicyError(ValueError):
    """A policy file that does not say what it should; the message names the place in it."""


class Treatment(str, Enum):
    """What is done with a value before it is recorded."""

    KEEP = "keep"
    DROP = "drop"
    HASH = "hash"
    NETWORK = "network"
    TRUNCATE = "truncate"


@dataclass(frozen=True)
class Treat:
    """A treatment; `length` is how many characters ``truncate`` leaves."""

    kind: Treatment
    length: int = 64


DEFAULTS: Mapping[str, Treat] = {
    schema.CLIENT_ADDRESS: Treat(Treatment.NETWORK),
    schema.SESSION_ID: Treat(Treatment.HASH),
    schema.CLIENT_FINGERPRINT: Treat(Treatment.HASH),
}
"""What is done where the policy says nothing; everything else is kept."""


@dataclass(frozen=True)
class TargetRule:
    """What holds for records whose target type matches a pattern (shell style, for example ``crm.*``).

    Attributes:
        pattern: of the target type.
        treatments: attribute → treatment.
        tags: attribute → value (module, feature, risk level).
    """

    pattern: str
    treatments: Mapping[str, Treat]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Policy:
    """What may be recorded, and where identities are found.

    Attributes:
        treatments: attribute → treatment, for every target.
        personal: attributes that are personal beside those of the registry.
        targets: what holds for some targets; later ones win.
        environment: name of the deployment environment, if the resource does not say it.
        actor_header: request header that names the logged-in user, in lower case; believed only from `proxies`.
        proxies: networks from which `actor_header` is believed.
        session_cookie, session_header: where a request's session identifier is.
        fingerprint_header: where a request's browser fingerprint is.
    """

    treatments: Mapping[str, Treat] = field(default_factory=lambda: dict(DEFAULTS))
    personal: frozenset[str] = frozenset()
    targets: tuple[TargetRule, ...] = ()
    environment: str | None = None
    actor_header: str | None = None
    proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    session_cookie: str | None = None
    session_header: str | None = None
    fingerprint_header: str | None = None

    def for_target(self, target_type: str) -> tuple[Mapping[str, Treat], Mapping[str, str]]:
        """Return the treatments and the tags for a target type."""
        known = self._by_target.get(target_type)
        if known is None:
            if len(self._by_target) >= _TARGET_TYPES:
                self._by_target.clear()
            known = self._by_target[target_type] = _for_target(self, target_type)
        return known

    @functools.cached_property
    def _by_target(self) -> dict[str, tuple[Mapping[str, Treat], Mapping[str, str]]]:
        return {}

    @functools.cached_property
    def all_personal(self) -> frozenset[str]:
        """The attributes that are personal, by the registry or by this policy."""
        return self.personal | {name for name, privacy in rules.PRIVACY.items() if privacy == "personal"}

    def is_personal(self, name: str) -> bool:
        """Tell whether an attribute is personal, by the registry or by this policy."""
        return name in self.all_personal


_TARGET_TYPES = 256  # whose treatments are kept


def _for_target(policy: Policy, target_type: str) -> tuple[Mapping[str, Treat], Mapping[str, str]]:
    treatments: dict[str, Treat] = dict(policy.treatments)
    tags: dict[str, str] = {}
    for rule in policy.targets:
        if fnmatch.fnmatchcase(target_type, rule.pattern):
            treatments |= rule.treatments
            tags |= rule.tags
    return {name: treat for name, treat in treatments.items() if treat.kind is not Treatment.KEEP}, tags


STRICTEST = Policy(
    treatments={name: Treat(Treatment.DROP) for name, privacy in rules.PRIVACY.items() if privacy == "personal"}
)


@functools.lru_cache(maxsize=1)
def policy() -> Policy:
    """Return the policy of this process."""
    path = os.environ.get("AUDITSPAN_POLICY")
    if path:
        with faults.contained("policy: read AUDITSPAN_POLICY"):
            return read(Path(path))
        return STRICTEST
    return Policy()


def address_of(host: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address: without its zone, and an IPv4 one inside of an IPv6 one as itself. None: it is none."""
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def forget() -> None:
    """Read the policy again at its next use (for tests)."""
    policy.cache_clear()


def read(path: Path) -> Policy:
    """Read a policy file.

    Raises:
        PolicyError: something in it is not understood; nothing of it is used then.
        OSError: it cannot be read.
    """
    import yaml  # the extra `auditspan[policy]`; needed by nobody who has no policy file

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        raise PolicyError(f"{path}: not YAML") from None
    return parse({} if document is None else document, str(path))


def parse(document: Any, where: str = "policy") -> Policy:
    """Make a policy from what a YAML reader returned.

    Raises:
        PolicyError: something in it is not understood.
    """
    top = _section(document, where, _TOP)
    privacy = _section(top.get("privacy"), f"{where}: privacy", _PRIVACY)
    treatments = {**DEFAULTS, **_classes(privacy.get("classes"), f"{where}: privacy.classes")}
    treatments |= _treatments(privacy.get("attributes"), f"{where}: privacy.attributes")
    if "client_address" in top:  # the short form
        treatments[schema.CLIENT_ADDRESS] = _short_address(top["client_address"], where)
    actor = _section(top.get("actor"), f"{where}: actor", ("header", "from"))
    session = _section(top.get("session"), f"{where}: session", ("cookie", "header"))
    fingerprint = _section(top.get("fingerprint"), f"{where}: fingerprint", ("header",))
    if ("header" in actor) != ("from" in actor):
        raise PolicyError(f"{where}: actor: a header is believed only from the networks in `from`; give both")
    return Policy(
        treatments=treatments,
        personal=frozenset(_names(privacy.get("personal"), f"{where}: privacy.personal")),
        targets=tuple(_target(rule, f"{where}: targets[{i}]") for i, rule in enumerate(_list(top, "targets", where))),
        environment=_text(top, "environment", where),
        actor_header=_header(actor, "header", where),
        proxies=tuple(_network(item, f"{where}: actor.from") for item in _list(actor, "from", where)),
        session_cookie=_text(session, "cookie", where),
        session_header=_header(session, "header", where),
        fingerprint_header=_header(fingerprint, "header", where),
    )


_TOP = ("client_address", "environment", "privacy", "actor", "session", "fingerprint", "targets")
_PRIVACY = ("classes", "attributes", "personal")
_TAGS = {"module": schema.MODULE, "feature": schema.FEATURE, "risk": schema.RISK_LEVEL}


def _section(item: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if item is None:
        return {}
    if not isinstance(item, Mapping):
        raise PolicyError(f"{where}: must be a mapping, with any of: {', '.join(known)}")
    for name in item:
        if name not in known:
            raise PolicyError(f"{where}: {str(name)[:40]!r} is not known here; known are: {', '.join(known)}")
    return item


def _list(section: Mapping[str, Any], name: str, where: str) -> list[Any]:
    item = section.get(name)
    if item is not None and not isinstance(item, list):
        raise PolicyError(f"{where}: {name} must be a list")
    return item or []


def _text(section: Mapping[str, Any], name: str, where: str) -> str | None:
    item = section.get(name)
    if item is not None and (not isinstance(item, str) or not item):
        raise PolicyError(f"{where}: {name} must be a text")
    return item


def _header(section: Mapping[str, Any], name: str, where: str) -> str | None:
    text = _text(section, name, where)
    return text.lower() if text else None


def _names(item: Any, where: str) -> list[str]:
    names = item or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PolicyError(f"{where}: must be a list of attributes")
    for name in names:
        _attribute(name, where)
    return names


def _attribute(name: Any, where: str) -> str:
    if name not in rules.TYPES and str(name).startswith(("audit.", "automation.")):
        raise PolicyError(f"{where}: {str(name)[:80]!r} is not in the registry (`auditspan schema show`)")
    if name in _UNTOUCHABLE:
        raise PolicyError(f"{where}: {name} is what makes a record one; it is always kept as it is")
    return str(name)


_UNTOUCHABLE = frozenset(
    name
    for name, (kind, form) in rules.TYPES.items()
    if (kind in rules.ENUMERATIONS or form in ("uuid", "verb", "version")) or name in (schema.MESSAGE, schema.RUN_ID)
)


def _classes(item: Any, where: str) -> dict[str, Treat]:
    section = _section(item, where, ("internal", "personal"))
    found: dict[str, Treat] = {}
    for privacy, treatment in section.items():
        treat = _treat(treatment, f"{where}.{privacy}")
        found |= {n: treat for n, of in rules.PRIVACY.items() if of == privacy and n not in _UNTOUCHABLE}
    return found


def _treatments(item: Any, where: str) -> dict[str, Treat]:
    if item is None:
        return {}
    if not isinstance(item, Mapping):
        raise PolicyError(f"{where}: must be a mapping of attribute to treatment")
    return {_attribute(name, where): _treat(treat, f"{where}.{name}") for name, treat in item.items()}


def _treat(item: Any, where: str) -> Treat:
    allowed = ", ".join(kind.value for kind in Treatment)
    if isinstance(item, Mapping) and set(item) == {"truncate"} and type(item["truncate"]) is int:
        if not 0 < item["truncate"] <= 4096:
            raise PolicyError(f"{where}: truncate takes a length from 1 to 4096")
        return Treat(Treatment.TRUNCATE, item["truncate"])
    try:
        return Treat(Treatment(item))
    except ValueError:
        raise PolicyError(f"{where}: must be one of: {allowed}; or `truncate: 64`") from None


def _short_address(item: Any, where: str) -> Treat:
    choices = {"none": Treatment.DROP, "network": Treatment.NETWORK, "full": Treatment.KEEP, "hash": Treatment.HASH}
    if not isinstance(item, str) or item not in choices:
        raise PolicyError(f"{where}: client_address must be one of: {', '.join(choices)}")
    return Treat(choices[item])


def _target(item: Any, where: str) -> TargetRule:
    section = _section(item, where, ("type", "attributes", "tags"))
    pattern = _text(section, "type", where)
    if pattern is None:
        raise PolicyError(f"{where}: type is missing, for example `type: crm.*`")
    tags = _section(section.get("tags"), f"{where}.tags", tuple(_TAGS))
    for name, value in tags.items():
        if not isinstance(value, str) or (name == "risk" and value not in rules.ENUMERATIONS["risk_level"]):
            allowed = ", ".join(sorted(rules.ENUMERATIONS["risk_level"])) if name == "risk" else "a text"
            raise PolicyError(f"{where}.tags.{name}: must be {allowed}")
    return TargetRule(
        pattern,
        _treatments(section.get("attributes"), f"{where}.attributes"),
        {_TAGS[name]: value for name, value in tags.items()},
    )


def _network(item: Any, where: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(item, strict=False)
    except (ValueError, TypeError):
        raise PolicyError(f"{where}: {str(item)[:40]!r} is not a network such as 10.0.0.0/8") from None
