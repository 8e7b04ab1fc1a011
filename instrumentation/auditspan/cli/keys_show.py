# SPDX-License-Identifier: Apache-2.0
"""``auditspan keys show``: which key signs a log, which is next, and every change so far."""

from __future__ import annotations

import argparse
import os
import time
from datetime import datetime, timedelta, timezone
from typing import Any

from rich.markup import escape

from auditspan.cli import common
from auditspan.cli.keychain import Chain, Link
from auditspan_seal.errors import AuditspanError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import store
from auditspan_seal.keys.places import KEY_FILE, Places
from auditspan_seal.log.directory import Directory

_TROUBLE = 3
_SOON = timedelta(days=30)
_SECOND = 1_000_000_000  # nanoseconds


def show(options: argparse.Namespace) -> int:
    """Run ``auditspan keys show``."""
    directory = common.directory_of(options)
    state = gather(directory)
    if options.json:
        common.print_json(state)
        return _TROUBLE if state["attention"] else 0
    console = common.console()
    console.print(f"[bold]log[/] {escape(state['origin'])}  in {escape(state['directory'])}")
    for title, what in (("signs now", state["current"]), ("next", state["prepared"])):
        text = f"{what['key_id']}  {what['signer']} {what['file']}" if what else "none"
        console.print(f"  {title:<12}{escape(text)}")
    console.print(f"  public key  {escape(state['public_key_file'])}")
    for link in state["chain"]:
        expires = f"  expires {when(link['not_after'])}" if link["not_after"] else ""
        revoked = f"  [bold red]revoked since {when(link['revoked_since'])}[/]" if link["revoked_since"] else ""
        console.print(
            f"  {link['key_id']}  from index {link['index']}, {when(link['time'])}{expires}{revoked}"
            + (f"  [dim]{escape(link['reason'])}[/]" if link["reason"] else "")
        )
    for item in state["attention"]:
        console.print(f"[bold yellow]! {escape(item)}[/]")
    if not state["attention"]:
        console.print("[bold green]all is well[/]")
    return _TROUBLE if state["attention"] else 0


def gather(directory: Directory) -> dict[str, Any]:
    """Collect what is known about the keys of a directory."""
    places = Places.of(directory.path)
    chain = Chain.read(directory)
    attention = list(chain.problems)
    current, problem = _try(lambda: store.current(directory.path, directory.origin).verifier_key)
    attention += [problem] if problem else []
    coming, problem = _try(lambda: store.prepared(directory.path, directory.origin))
    attention += [problem] if problem else []
    last = chain.links[-1] if chain.links else None
    if coming is not None:
        attention.append(f"the change to the key {coming.verifier_key.key_id.hex()} is prepared, but not done yet")
    if last is not None and current is not None and coming is None and last.key != current:
        attention.append(
            f"{places.current} is not the key that signs this log: that is {last.key.key_id.hex()}"
            + ("" if os.environ.get(KEY_FILE) else f"; is {KEY_FILE} set for the audited process?")
        )
    if last is not None and last.revoked_since is not None:
        attention.append(f"the key that signs, {last.key.key_id.hex()}, is revoked; run `auditspan keys rotate`")
    if last is not None and last.not_after is not None:
        left = timedelta(seconds=(last.not_after - time.time_ns()) / _SECOND)
        if left < _SOON:
            said = f"expires in {left.days} days" if left > timedelta() else "has expired"
            attention.append(f"the key that signs, {last.key.key_id.hex()}, {said}; run `auditspan keys rotate`")
    return {
        "origin": directory.origin,
        "directory": str(directory.path),
        "current": current and {**key_fields(current), "signer": kind(places), "file": str(places.current)},
        "prepared": coming
        and {
            **key_fields(coming.verifier_key),
            "signer": "command" if places.next == places.next_signer else "key file",
            "file": str(places.next),
            "not_after": coming.not_after and str(coming.not_after),
            "reason": coming.reason,
        },
        "public_key_file": str(places.verifier_key),
        "chain": [_link_fields(link) for link in chain.links],
        "attention": attention,
    }


def _try(load: Any) -> tuple[Any, str | None]:
    try:
        return load(), None
    except AuditspanError as error:
        return None, f"{error.what} {error.advice}"


def kind(places: Places) -> str:
    """Say what kind of signer is the current one."""
    return "command" if places.command is not None else "key file"


def key_fields(key: VerifierKey) -> dict[str, Any]:
    """Return how ``--json`` names a key."""
    return {"key_id": key.key_id.hex(), "vkey": str(key)}


def _link_fields(link: Link) -> dict[str, Any]:
    return {
        **key_fields(link.key),
        "index": link.index,
        "time": str(link.time),
        "not_after": None if link.not_after is None else str(link.not_after),
        "reason": link.reason,
        "revoked_since": None if link.revoked_since is None else str(link.revoked_since),
    }


def when(nanoseconds: str) -> str:
    """Return a time for people."""
    try:
        moment = datetime.fromtimestamp(int(nanoseconds) // _SECOND, timezone.utc)
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns"
    return moment.strftime("%Y-%m-%d %H:%M UTC")
