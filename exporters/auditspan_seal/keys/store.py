# SPDX-License-Identifier: Apache-2.0
"""Which key signs a log directory, which one will be next, and how the next one becomes the current one.

The current signer is the first of these that is there::

    AUDITSPAN_KEY_FILE     a key file somewhere else
    signer.json            a command that signs
    key.pem                a key file

The next one is ``next-signer.json`` or ``next-key.pem`` (beside AUDITSPAN_KEY_FILE, with its name). That file is there
from the moment a rotation is asked for until it is done:

1. :func:`prepare` makes it. What belongs to the change is in ``next-change.json``, which is written before.
2. The sequencer sees it (:func:`prepared`), puts the rotation into the log, and signs that checkpoint with both keys.
3. :func:`complete` makes it the current one by one rename or unlink, and destroys the old private key.

Whatever dies in between, :func:`settle` finds the signer that goes on: a rotation that is in the log is completed, one
that is not is still prepared. At no moment is the only copy of a key that has to sign in a file that is being written.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import orjson

from auditspan_seal.errors import AuditspanError, FormatError, KeyFileError
from auditspan_seal.formats.keychange import MAX_REASON, moment_of
from auditspan_seal.formats.note import Note, VerifierKey
from auditspan_seal.keys import safe
from auditspan_seal.keys.command import CommandSigner
from auditspan_seal.keys.file import KeyFileSigner
from auditspan_seal.keys.places import KEY_FILE, Places, same, there
from auditspan_seal.keys.signer import Signer, certify_rotation


class Prepared:
    """The next signer, with what is to be said about the change.

    Args:
        signer: it.
        not_after: nanoseconds since the epoch from which it must not sign any more; None: no such time.
        reason: why the key is changed.
        actor: the account that asked for it.
    """

    def __init__(self, signer: Signer, not_after: int | None = None, reason: str = "", actor: str = "") -> None:
        self.signer = signer
        self.not_after = not_after
        self.reason = reason
        self.actor = actor

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half."""
        return self.signer.verifier_key

    def sign(self, message: bytes) -> bytes:
        """Return a signature over `message`."""
        return self.signer.sign(message)

    def entry(self, index: int, old: Signer) -> bytes:
        """Return the statement of the rotation from the current signer to this one.

        Args:
            index: that the entry will have; the log's name is that of the key.
            old: the current signer.

        Raises:
            SignerError: one of the two cannot sign now.
            MalformedKeyChange: the change is not possible.
        """
        return certify_rotation(
            self.verifier_key.name,
            index,
            old,
            self.signer,
            time=time.time_ns(),
            not_after=self.not_after,
            reason=self.reason,
            actor=self.actor,
        )


def current(directory: Path, origin: str, *, create: bool = False) -> Signer:
    """Return the signer of a directory.

    Args:
        directory: the log directory.
        origin: name of its log.
        create: make a key file if there is no signer.

    Raises:
        KeyFileError: there is none, or it cannot be used.
    """
    places = Places.of(directory)
    if places.command is not None:
        return CommandSigner.load(places.command, origin)
    return KeyFileSigner.load_or_create(places.key, origin) if create else KeyFileSigner.load(places.key, origin)


def prepared(directory: Path, origin: str) -> Prepared | None:
    """Return the next signer of a directory; None if no change of the key was asked for.

    Raises:
        KeyFileError: there is one but it cannot be used; the current one may go on.
    """
    places = Places.of(directory)
    signer = _next(places, origin)
    if signer is None:
        return None
    fields = _said(places, signer.verifier_key)
    return Prepared(signer, fields.get("not_after"), fields.get("reason", ""), fields.get("actor", ""))


def prepare(
    directory: Path,
    origin: str,
    *,
    command: CommandSigner | None = None,
    not_after: int | None = None,
    reason: str = "",
    actor: str = "",
) -> VerifierKey:
    """Ask for a change of the key: make the next one, or take a command for it.

    Args:
        directory: the log directory.
        origin: name of its log.
        command: the next signer; None: make a key file.
        not_after: nanoseconds since the epoch from which the next key must not sign any more; None: no such time.
        reason: why; it is public.
        actor: the account that asks for it.

    Returns:
        The next public key.

    Raises:
        KeyFileError: the current signer cannot be used, a change is being made already, or nothing can be written.
        SignerError: the command does not sign.
    """
    places = Places.of(directory)
    now = current(directory, origin)
    _check_change(places, now, command, reason)
    if command is not None:
        prove(command)
        key, target, content = command.verifier_key, places.next_signer, command.description()
    else:
        signer, content = KeyFileSigner.generate(origin)
        key, target = signer.verifier_key, places.next_key
    assert target is not None
    said = {"key": str(key), "reason": reason, "actor": actor}
    if not_after is not None:
        said["not_after"] = str(not_after)
    try:
        safe.replace(places.change, orjson.dumps(said), 0o600)
        made = safe.create(target, content)
    except OSError as error:
        raise KeyFileError(
            f"The next key {target} could not be made: {error.strerror}.",
            "Run the command as the user that owns the current key.",
        ) from None
    if not made:
        raise KeyFileError(f"{target} has just been made by somebody else.", "See `auditspan keys show`.")
    return key


def _check_change(places: Places, now: Signer, command: CommandSigner | None, reason: str) -> None:
    if places.next is not None:
        raise KeyFileError(
            f"A change of the key is being made already: {places.next} is there.",
            "Wait until it is done (`auditspan keys show`).",
        )
    if len(reason) > MAX_REASON:
        raise KeyFileError(f"The reason is longer than {MAX_REASON} characters.", "Name a ticket.")
    if places.key.is_symlink():
        raise KeyFileError(
            f"{places.key} is a symbolic link: the change would replace the link, and the old key would stay.",
            f"Set {KEY_FILE} to the file itself.",
        )
    if command is not None:
        if places.signer is None:
            raise KeyFileError(
                f"{KEY_FILE} is set: a command would never be used.",
                "Unset it for all processes of this log, with the key as key.pem in the directory; then go on.",
            )
        if command.verifier_key.public == now.verifier_key.public:
            raise KeyFileError(
                "The command signs with the key that is the current one.",
                "Make a new key where the command signs, and give its public key.",
            )
    elif places.command is not None and there(places.key):
        raise KeyFileError(
            f"{places.key} is there although a command signs; the next key would take its name.",
            "Move it away: it signs nothing.",
        )


def prove(command: CommandSigner) -> None:
    """Have a command sign something that means nothing, to see that it does.

    Raises:
        SignerError: it does not.
    """
    command.sign(b"auditspan/key-test/v1\n%s\n" % os.urandom(16).hex().encode())


def create(directory: Path, origin: str, *, command: CommandSigner | None = None) -> VerifierKey:
    """Make the first signer of a directory, and write its public key.

    Raises:
        KeyFileError: there is one already, or nothing can be written.
        SignerError: the command does not sign.
    """
    places = Places.of(directory)
    if there(places.current):
        raise KeyFileError(
            f"There is a signer already: {places.current}.", "To change it, use `auditspan keys rotate`."
        )
    try:
        if command is not None:
            if places.signer is None:
                raise KeyFileError(
                    f"{KEY_FILE} is set: a command would never be used.", "Unset it for all processes of this log."
                )
            prove(command)
            safe.create(places.signer, command.description())
            signer = current(directory, origin)
        else:
            signer = KeyFileSigner.load_or_create(places.key, origin)
        safe.replace(places.verifier_key, f"{signer.verifier_key}\n".encode(), 0o644)
    except OSError as error:
        raise KeyFileError(
            f"The key could not be made in {directory}: {error.strerror}.", "Check the permissions of the folder."
        ) from None
    return signer.verifier_key


def settle(directory: Path, origin: str, note: Note) -> Signer:
    """Return the signer that goes on with a log, whatever died while its key was changed.

    Args:
        directory: the log directory.
        origin: name of its log.
        note: the last checkpoint that is in the log.

    Raises:
        KeyFileError: the key that has to sign next is not there, or cannot be used.
    """
    places = Places.of(directory)
    problem: AuditspanError | None = None
    try:
        after = _next(places, origin)
    except AuditspanError as error:
        after, problem = None, error
    if after is not None and note.signed_by(after.verifier_key):
        complete(directory, origin)
        return after
    with contextlib.suppress(OSError):
        _tidy(places)
    signer = current(directory, origin)
    key = signer.verifier_key
    signed = [key_id for name, key_id, _ in note.signatures if name == origin]
    # In a note by two keys the new one is the last. Going on with the old one would sign a second history.
    if not note.signed_by(key) or signed[-1] != key.key_id:
        if problem is not None:
            raise problem
        raise KeyFileError(
            f"The log in {directory} is not signed with the key {key.key_id.hex()} in {places.current} but with "
            f"{' and then '.join(key_id.hex() for key_id in signed) or 'another one'}.",
            f"Put the key that signed last in its place ({KEY_FILE}), or start a new directory (AUDITSPAN_DIR).",
        )
    return signer


def complete(directory: Path, origin: str) -> None:
    """Make the prepared signer the current one, and destroy the old private key file.

    To be called when the rotation is in the log. It may be called again: it does what is left to do.

    Raises:
        KeyFileError: something cannot be written; call it again.
    """
    places = Places.of(directory)
    after = _next(places, origin)
    try:
        if after is not None:
            # First the public key: whoever looks it up finds one that vouches for the whole chain.
            safe.replace(places.verifier_key, f"{after.verifier_key}\n".encode(), 0o644)
            _switch(places)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(places.change)
        _tidy(places)
    except OSError as error:
        raise KeyFileError(
            f"The key of {directory} could not be changed: {error.strerror}.",
            "Check the permissions of the folder that the key is in. The next key signs already; keep its file.",
        ) from None


def _switch(places: Places) -> None:
    """Do the one step that makes the next signer the current one, and what has to come before."""
    coming = places.next
    if coming is None:
        return
    if places.command is not None and coming == places.next_key:
        # key.pem does not count as long as signer.json is there.
        if not same(coming, places.key):
            os.link(coming, places.key)
            safe.sync_folder(places.key.parent)
        os.unlink(places.command)  # the switch
    else:
        if places.command is None and not same(places.key, places.old_key):
            safe.destroy(places.old_key)  # of a change before; normally there is none
            os.link(places.key, places.old_key)  # so that it can be destroyed when its name is taken
            safe.sync_folder(places.key.parent)
        target = places.key if coming == places.next_key else places.signer
        assert target is not None
        os.replace(coming, target)  # the switch
    safe.sync_folder(places.current.parent)


def _tidy(places: Places) -> None:
    """Do what is left when the next signer is the current one; nothing before that."""
    coming, done = places.next, False
    if coming is not None:
        if places.command is not None or not same(coming, places.key):
            return
        os.unlink(coming)  # a second name of what is the current key now
        done = True
    if same(places.old_key, places.key) and places.command is None:
        os.unlink(places.old_key)  # the change was given up: this is the current key
    elif there(places.old_key):
        if same(places.old_key, places.key):
            os.unlink(places.key)
        safe.sync_folder(places.key.parent)  # the switch must be on disk before what it replaced is destroyed
        done = True
    if done:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(places.change)
    safe.destroy(places.old_key)


def _next(places: Places, origin: str) -> Signer | None:
    coming = places.next
    if coming is None or (places.command is None and same(coming, places.key)):
        return None  # in the second case the change is done, but for this second name of the key
    try:
        return (
            CommandSigner.load(coming, origin) if coming == places.next_signer else KeyFileSigner.load(coming, origin)
        )
    except KeyFileError:
        if not there(coming):
            return None  # it has just become the current one
        raise


def _said(places: Places, key: VerifierKey) -> dict[str, Any]:
    """Read what is to be said about a change to this key; nothing if that was written for another one."""
    try:
        fields = orjson.loads(safe.read(places.change, "The file", safe.WRITABLE_BY_OTHERS))
        if not isinstance(fields, dict) or fields.get("key") != str(key):
            return {}
        said: dict[str, Any] = {n: str(fields[n])[:MAX_REASON] for n in ("reason", "actor") if n in fields}
        if "not_after" in fields:
            said["not_after"] = moment_of(fields, "not_after")
        return said
    except (orjson.JSONDecodeError, FormatError):
        raise KeyFileError(
            f"{places.change} is damaged.", f"Remove it and {places.next}, and run `auditspan keys rotate` again."
        ) from None
    except KeyFileError:
        if there(places.change):
            raise
        return {}  # a key that was put there by hand
