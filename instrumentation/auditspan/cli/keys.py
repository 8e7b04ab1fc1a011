# SPDX-License-Identifier: Apache-2.0
"""``auditspan keys new|show|rotate|revoke``: the keys that sign a log, from the first to the last."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import shlex
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.markup import escape

from auditspan.cli import common
from auditspan.cli.keychain import Chain
from auditspan.cli.keys_show import key_fields, kind, show, when
from auditspan_seal.errors import KeyFileError
from auditspan_seal.formats.merkle import leaf_hash
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import CommandSigner, Signer, read_verifier_key, store
from auditspan_seal.keys.command import TIMEOUT
from auditspan_seal.keys.places import KEY_FILE, Places
from auditspan_seal.keys.signer import certify_revocation
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory, default_path, open_directory
from auditspan_seal.log.segment import CONTROL, SegmentWriter
from auditspan_seal.log.sequencer import Sequencer

_UNDONE = 3
_WAIT = 30.0  # seconds
_POLL = 0.1  # seconds
_SECOND = 1_000_000_000  # nanoseconds


def register(verbs: common.Verbs) -> None:
    """Add the verb with its four commands."""
    parser = common.add_verb(
        verbs,
        "keys",
        show,
        "Make, show, change and revoke the key that signs the log.",
        "auditspan keys show\n  auditspan keys rotate --not-after 365d",
        "0 done, 2 wrong usage or unusable key, 3 something needs attention, or is not in the log yet",
    )
    parser.set_defaults(directory=None)
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND")
    making = common.add_verb(
        commands,
        "new",
        new,
        "Make the first key of a log, or take a command that signs; print the public key.",
        "auditspan keys new --command '/usr/local/bin/sign-with-vault audit' --public audit.pem",
        "0 done, 2 there is a key already, wrong usage, or the command does not sign",
        inner=True,
    )
    showing = common.add_verb(
        commands,
        "show",
        show,
        "Show which key signs, which is next, and every change of the key so far.",
        "auditspan keys show --json",
        "0 all is well, 2 wrong usage or unreadable directory, 3 something needs attention",
        inner=True,
    )
    rotating = common.add_verb(
        commands,
        "rotate",
        rotate,
        "Change to a new key: the change is an entry certified by both keys, and the old private key is destroyed.",
        "auditspan keys rotate --not-after 365d --reason 'yearly'",
        "0 done, 2 wrong usage or unusable key, 3 prepared, but the process that signs has not done it yet",
        inner=True,
    )
    revoking = common.add_verb(
        commands,
        "revoke",
        revoke,
        "Say that a key that was replaced must not be trusted for what it signed since a time.",
        "auditspan keys revoke 1f2e3d4c --since 2026-11-20T08:00Z --reason 'ticket 4711' --out revoked.json",
        "0 done, 2 wrong usage or unusable key, 3 recorded, but not in the log yet",
        inner=True,
    )
    revoking.add_argument("key_id", metavar="KEYID", help="ID of the key (8 hexadecimal digits, see keys show)")
    for command in (making, showing, rotating, revoking):
        command.add_argument(
            "directory", nargs="?", type=Path, help="log directory (default: AUDITSPAN_DIR, else the state directory)"
        )
    for command in (making, rotating):
        command.add_argument("--command", metavar="COMMAND", help="program and arguments that sign; no shell")
        command.add_argument("--public", type=Path, metavar="FILE", help="with --command: its public key, PEM or vkey")
        command.add_argument(
            "--timeout",
            type=float,
            default=TIMEOUT,
            metavar="SECONDS",
            help=f"with --command: how long a signature may take (default: {TIMEOUT:g})",
        )
    rotating.add_argument(
        "--file", action="store_true", help="where a command signs: change to a key file in the directory all the same"
    )
    rotating.add_argument(
        "--not-after", type=_moment, metavar="T", help="when the new key expires: a time, or for example 365d"
    )
    rotating.add_argument("--reason", default="", metavar="TEXT", help="why; it is signed and public")
    revoking.add_argument(
        "--since", type=_moment, required=True, metavar="T", help="since when it is not to be trusted; UTC if not said"
    )
    revoking.add_argument("--reason", required=True, metavar="TEXT", help="why; it is signed and public")
    revoking.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the revocation, for those who verify (--revoked FILE)"
    )
    for command in (rotating, revoking):
        command.add_argument(
            "--wait",
            type=float,
            default=_WAIT,
            metavar="SECONDS",
            help=f"how long to wait for a running process that signs (default: {_WAIT:g})",
        )


def _moment(text: str) -> int:
    """Read a time: ISO 8601, days from now (``90d``), or nanoseconds since the epoch. Returns nanoseconds."""
    if re.fullmatch(r"\d{1,6}d", text):
        return time.time_ns() + int(text[:-1]) * 86_400 * _SECOND
    if re.fullmatch(r"\d{16,19}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        found = int(moment.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        found = -1
    if found < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 2027-01-31, 2027-01-31T12:00Z or 365d")
    return found


# -- new -------------------------------------------------------------------------------------------------------------
def new(options: argparse.Namespace) -> int:
    """Run ``auditspan keys new``."""
    directory = open_directory(options.directory or default_path(), create=True)
    places = Places.of(directory.path)
    if reader.files(directory.log):
        raise KeyFileError(
            f"The log in {directory.path} has begun: another key could not go on with it.",
            "To change the key, use `auditspan keys rotate`. If it is lost, begin a new directory (AUDITSPAN_DIR).",
        )
    key = store.create(directory.path, directory.origin, command=_command(options, directory.origin))
    if options.json:
        common.print_json(
            {
                "origin": directory.origin,
                "key_id": key.key_id.hex(),
                "vkey": str(key),
                "signer": kind(places),
                "file": str(places.current),
                "public_key_file": str(places.verifier_key),
            }
        )
        return 0
    console = common.console()
    console.print(f"key {key.key_id.hex()} of the log {escape(directory.origin)}: {kind(places)} {places.current}")
    console.print(escape(str(key)), soft_wrap=True)
    console.print(f"Copy {escape(str(places.verifier_key))} to whoever verifies, by another way than the records take.")
    return 0


def _command(options: argparse.Namespace, origin: str) -> CommandSigner | None:
    if options.command is None:
        if options.public is not None:
            raise KeyFileError("--public was given without --command.", "Give both, or neither.")
        return None
    if options.public is None:
        raise KeyFileError(
            "The public key of the command is not known: every signature is verified with it.",
            "Give it with --public FILE, as PEM or vkey.",
        )
    try:
        program, *arguments = shlex.split(options.command)
    except ValueError:
        raise KeyFileError(f"The command cannot be read: {options.command!r}.", "Check its quotes.") from None
    found = shutil.which(program)
    if found is None:
        raise KeyFileError(f"There is no program {program!r} that can be run.", "Give its absolute path.")
    key = read_verifier_key(options.public)
    if key.name not in ("", origin):
        raise KeyFileError(f"{options.public} is the key of another log, {key.name}.", f"This log is {origin}.")
    if not 0 < options.timeout <= 300:
        raise KeyFileError("The timeout must be above 0 and up to 300 seconds.", "Leave it out for 10 seconds.")
    return CommandSigner([os.path.abspath(found), *arguments], VerifierKey(origin, key.public), timeout=options.timeout)


# -- rotate ----------------------------------------------------------------------------------------------------------
def rotate(options: argparse.Namespace) -> int:
    """Run ``auditspan keys rotate``."""
    directory = common.directory_of(options)
    path, origin = directory.path, directory.origin
    if options.not_after is not None and options.not_after <= time.time_ns():
        raise KeyFileError("The new key would have expired already.", "Give a time in the future with --not-after.")
    waiting = store.prepared(path, origin)
    if waiting is None:
        chain = Chain.read(directory)
        old = _signs(chain, directory).verifier_key
        command = _command(options, origin)
        if command is not None and command.verifier_key in [link.key for link in chain.links]:
            raise KeyFileError(
                f"The key {command.verifier_key.key_id.hex()} was a key of this log before, and does not count again.",
                "Make a new key where the command signs, and give its public key.",
            )
        if command is None and Places.of(path).command is not None and not options.file:
            raise KeyFileError(
                "A command signs this log, so that no private key is on this machine; this would put one here.",
                "Make a new key where the command signs, and give --command and --public; or say --file.",
            )
        key = store.prepare(
            path, origin, command=command, not_after=options.not_after, reason=options.reason, actor=_who()
        )
    elif options.not_after is not None or options.reason or options.command or options.file:
        raise KeyFileError(
            f"A change to the key {waiting.verifier_key.key_id.hex()} is prepared already, and not done yet.",
            "Run `auditspan keys rotate` without options to go on with it.",
        )
    else:
        old, key = store.current(path, origin).verifier_key, waiting.verifier_key
        common.progress(f"going on with the change to {key.key_id.hex()} that is prepared")
    done = _sequence(directory, lambda: _current_is(directory, key), options.wait)
    index = next((link.index for link in Chain.read(directory).links if link.key == key), None) if done else None
    public = str(Places.of(path).verifier_key)
    result = {
        "done": done,
        "old": key_fields(old),
        "new": key_fields(key),
        "index": index,
        "public_key_file": public,
    }
    if options.json:
        common.print_json(result)
        return 0 if done else _UNDONE
    console = common.console()
    if not done:
        console.print(
            f"[bold yellow]! The change to the key {key.key_id.hex()} is prepared, but the process that signs has not "
            f"done it within {options.wait:g} seconds.[/]"
        )
        console.print(
            f"  It does it when it goes on; see `auditspan status`. It must have the same {KEY_FILE} as this command."
        )
        return _UNDONE
    console.print(f"key {old.key_id.hex()} replaced by [bold]{key.key_id.hex()}[/], on record at index {index}")
    console.print(escape(str(key)), soft_wrap=True)
    console.print(
        f"Who has the old public key can still verify. Hand out {escape(public)} all the same: the "
        "old key vouches for the new one only as long as it is not revoked."
    )
    return 0


def _signs(chain: Chain, directory: Directory) -> Signer:
    """Return the signer here; it must be the one that signs the log."""
    signer = store.current(directory.path, directory.origin)
    if chain.links and chain.links[-1].key != signer.verifier_key:
        raise KeyFileError(
            f"{Places.of(directory.path).current} is not the key that signs this log: that is "
            f"{chain.links[-1].key.key_id.hex()}.",
            f"Run the command with the {KEY_FILE} and as the user of the process that signs.",
        )
    return signer


def _current_is(directory: Directory, key: VerifierKey) -> bool:
    try:
        return (
            Places.of(directory.path).next is None
            and store.current(directory.path, directory.origin).verifier_key == key
        )
    except KeyFileError:
        return False  # between two steps of another process


def _sequence(directory: Directory, done: Any, wait: float) -> bool:
    """Have the sequencer do its work: this process if nobody else is it. Tell whether it is done in time."""
    deadline = time.monotonic() + wait
    told = False
    while True:
        sequencer = Sequencer.acquire(directory)
        if sequencer is not None:
            try:
                while sequencer.integrate():
                    pass
                sequencer.change_key()
            finally:
                sequencer.close()
        if done():
            return True
        if sequencer is not None or time.monotonic() >= deadline:
            return False
        if not told:
            common.progress("another process signs this log; waiting for it")
            told = True
        time.sleep(_POLL)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


# -- revoke ----------------------------------------------------------------------------------------------------------
def revoke(options: argparse.Namespace) -> int:
    """Run ``auditspan keys revoke``."""
    directory = common.directory_of(options)
    chain = Chain.read(directory)
    signer = _signs(chain, directory)
    link = next((link for link in chain.links if options.key_id in (link.key.key_id.hex(), str(link.key))), None)
    if link is None:
        raise KeyFileError(
            f"The log {directory.origin} never had a key {options.key_id!r}.", "`auditspan keys show` lists them."
        )
    if link is chain.links[-1]:
        raise KeyFileError(
            f"The key {options.key_id} signs the log now: revoked, it could not even sign its own revocation.",
            "Run `auditspan keys rotate` first, then revoke it.",
        )
    now = time.time_ns()
    if options.since > now:
        raise KeyFileError("The time since when the key is not to be trusted is in the future.", "Give when it leaked.")
    entry = certify_revocation(
        directory.origin,
        chain.size,
        link.key,
        signer,
        since=options.since,
        reason=options.reason,
        time=now,
        actor=_who(),
    )
    try:
        with open(options.out, "xb") as file:
            file.write(entry + b"\n")
    except OSError as error:
        raise KeyFileError(f"{options.out} cannot be written: {error.strerror}.", "Name a new file.") from None
    directory.control.mkdir(mode=0o700, exist_ok=True)
    writer = SegmentWriter(directory.control, CONTROL)
    try:
        writer.append(lambda name, number: entry)
    finally:
        writer.close()
    leaf = leaf_hash(entry)
    done = _sequence(directory, lambda: _is_in(directory, leaf), options.wait)
    if options.json:
        common.print_json(
            {"done": done, "revoked": key_fields(link.key), "since": str(options.since), "file": str(options.out)}
        )
        return 0 if done else _UNDONE
    console = common.console()
    if done:
        console.print(f"key {link.key.key_id.hex()} revoked since {when(str(options.since))}, on record in the log")
    else:
        console.print(
            f"[bold yellow]! The revocation is recorded, but the process that signs has not put it into the log within "
            f"{options.wait:g} seconds.[/] It does it when it goes on; see `auditspan status`."
        )
    console.print(
        f"Give {escape(str(options.out))} and {escape(str(Places.of(directory.path).verifier_key))} to whoever "
        "verifies: who trusts only the revoked key, and does not know of this, can be shown a forged log."
    )
    return 0 if done else _UNDONE


def _is_in(directory: Directory, leaf: bytes) -> bool:
    return any(leaf in block.batch.leaves for block in reader.batches(directory.log))
