# SPDX-License-Identifier: Apache-2.0
"""Who acts, from where, and what that rests on. An identity without evidence is said to be unknown, never guessed."""

from __future__ import annotations

import functools
import getpass
import ipaddress
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from auditspan import schema
from auditspan.capture.policy import address_of, policy
from auditspan.schema import ActorEvidence, ActorType

_LIMIT = 256  # characters of what a request says


@dataclass(frozen=True)
class Actor:
    """Who or what acted.

    Attributes:
        id: stable identity; ``unknown`` if there is none to be had.
        type: user, service or system.
        evidence: where the identity is known from.
        behalf: the person behind an agent or a service, where known.
    """

    id: str
    type: ActorType
    evidence: ActorEvidence
    behalf: Actor | None = None

    def attributes(self) -> dict[str, str]:
        """Return the attributes of a record that say so; not to be changed."""
        return self._attributes

    @functools.cached_property
    def _attributes(self) -> dict[str, str]:
        found = {
            schema.ACTOR_ID: self.id or schema.UNKNOWN,
            schema.ACTOR_TYPE: self.type.value,
            schema.ACTOR_EVIDENCE: self.evidence.value,
        }
        if self.behalf is not None:
            found[schema.BEHALF_ID] = self.behalf.id
            found[schema.BEHALF_TYPE] = self.behalf.type.value
        return found


NOBODY_KNOWN = Actor(schema.UNKNOWN, ActorType.SYSTEM, ActorEvidence.UNKNOWN)
"""There is an actor, but nothing tells who."""


def os_actor() -> Actor:
    """Return the operating-system user that this process runs as."""
    return _os_actor(os.getuid() if hasattr(os, "getuid") else -1)


@functools.lru_cache(maxsize=8)
def _os_actor(uid: int) -> Actor:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        if uid < 0:
            return NOBODY_KNOWN
        name = f"uid:{uid}"
    return Actor(name, ActorType.SYSTEM, ActorEvidence.OS_USER)


_PERSON_KEY = otel_context.create_key("auditspan-person")


def with_person(find: Callable[[], Actor | None], in_context: Context) -> Context:
    """Return a context in which what is done is done for a person.

    Args:
        find: returns the person; asked late, because a web framework logs in only after a request has begun.
        in_context: the context. It never leaves the process: people are not put into baggage.
    """
    return otel_context.set_value(_PERSON_KEY, find, in_context)


def person_behind(in_context: Context) -> Actor | None:
    """Return the person for whom something is done in a context; None: nobody, or not known."""
    find = otel_context.get_value(_PERSON_KEY, in_context)
    person = find() if callable(find) else None
    return person if isinstance(person, Actor) else None


@dataclass(frozen=True)
class Caller:
    """What a request says about the person behind it, as far as the policy lets it be looked at.

    Attributes:
        person: the logged-in user; None: there is none, or nothing that may be believed says so.
        session: the session identifier, as it is: the recorder hashes it.
        fingerprint: the browser fingerprint, as it is: the recorder hashes it.
    """

    person: Actor | None = None
    session: str | None = None
    fingerprint: str | None = None


def caller_of(headers: Mapping[str, str], peer: str | None, login: str | None = None) -> Caller:
    """Find out who is behind a request.

    Args:
        headers: of the request, names in lower case.
        peer: address of whoever is connected to the server, without port.
        login: the user that the web framework has logged in; None: nobody, or it does not know.
    """
    allowed = policy()
    person = Actor(login[:_LIMIT], ActorType.USER, ActorEvidence.FRAMEWORK_LOGIN) if login else None
    if person is None and allowed.actor_header and _is_in(peer, allowed.proxies):
        name = headers.get(allowed.actor_header, "").strip()
        person = Actor(name[:_LIMIT], ActorType.USER, ActorEvidence.HEADER) if name else None
    session = headers.get(allowed.session_header) if allowed.session_header else None
    if not session and allowed.session_cookie:
        session = _cookie(headers.get("cookie", ""), allowed.session_cookie)
    fingerprint = headers.get(allowed.fingerprint_header) if allowed.fingerprint_header else None
    return Caller(person, session or None, fingerprint or None)


def _is_in(peer: str | None, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> bool:
    address = address_of(peer)
    return address is not None and any(address in network for network in networks)


def _cookie(header: str, name: str) -> str | None:
    try:
        morsel = SimpleCookie(header[:8192]).get(name)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None
