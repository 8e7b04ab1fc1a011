# SPDX-License-Identifier: Apache-2.0
"""A command that signs, so that the private key can be in a KMS, an HSM or a Vault, or belong to another user.

The command gets the message on standard input and writes the signature to standard output: 64 bytes as they are, or
base64. It is started anew for each signature, without a shell, and has a limited time. No answer is believed: each
signature is verified with the public key before it is used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from auditspan_seal.errors import KeyFileError, MalformedNote, SignerError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import safe

TIMEOUT = 10.0  # seconds
MAX_TIMEOUT = 300.0  # seconds; all records wait to be signed meanwhile
_MAX_OUTPUT = 4096  # bytes; a signature as base64 has 88
_MAX_STDERR = 4096  # bytes that are kept
_SHOWN = 400  # characters of standard error in a message
_SIGNATURE_SIZE = 64
_POLL = 0.1  # seconds
# A command that is a Python program with this project installed must not be audited itself.
_NOT_FOR_IT = ("AUDITSPAN_", "OTEL_", "TRACEPARENT", "TRACESTATE", "BAGGAGE")


class CommandSigner:
    """Signs by running a command.

    Args:
        command: program and arguments; no shell.
        key: the public key that its signatures are verified with.
        timeout: seconds that it may take.
    """

    def __init__(self, command: Sequence[str], key: VerifierKey, timeout: float = TIMEOUT) -> None:
        self._command = tuple(command)
        self._key = key
        self._timeout = timeout

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half."""
        return self._key

    @property
    def command(self) -> tuple[str, ...]:
        """Program and arguments."""
        return self._command

    def sign(self, message: bytes) -> bytes:
        """Return a signature over `message`.

        Raises:
            SignerError: the command cannot be run, fails, hangs, or answers with something else.
        """
        output = self._run(message)
        signature = _signature(output)
        if signature is None:
            raise SignerError(
                f"The signing command {self._name} did not answer with a signature: {len(output)} bytes, which are "
                "neither 64 bytes nor the base64 of 64 bytes.",
                "Have it write nothing but the signature to standard output; messages belong on standard error.",
            )
        if not self._key.verifies(message, signature):
            raise SignerError(
                f"The signing command {self._name} signed with another key than {self._key.key_id.hex()}, or signed "
                "something else than what it was given.",
                "It must make a pure Ed25519 signature (RFC 8032, not prehashed) over all of its standard input, with "
                "the key whose public half is in signer.json.",
            )
        return signature

    @property
    def _name(self) -> str:
        return repr(self._command[0])

    # -- running it ------------------------------------------------------------------------------------------------
    def _run(self, message: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_IT)},
                start_new_session=True,  # so that what it has started can be ended with it
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise SignerError(
                f"The signing command {self._name} cannot be run: {reason}.",
                "Give the absolute path of a program that this user may execute, in signer.json.",
            ) from None
        output, errors = bytearray(), bytearray()
        ended = None
        try:
            _talk(process, message, output, errors, deadline)
            if len(output) <= _MAX_OUTPUT:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    ended = process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            if ended is None and process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if len(output) > _MAX_OUTPUT:
            raise SignerError(
                f"The signing command {self._name} wrote more than {_MAX_OUTPUT} bytes where a signature has 64.",
                "Have it write nothing but the signature to standard output.",
            )
        if ended is None:
            raise SignerError(
                f"The signing command {self._name} did not answer within {self._timeout:g} seconds and was stopped"
                f"{_said(errors)}.",
                "It gets the message on standard input, to its end, and nobody is there to answer a question. Records "
                "are kept meanwhile. `timeout` in signer.json gives it more time.",
            )
        if ended != 0:
            how = f"was ended by signal {-ended}" if ended < 0 else f"ended with exit code {ended}"
            raise SignerError(
                f"The signing command {self._name} {how}{_said(errors)}.",
                "Run it by hand as this user, with any text on standard input. Records are kept meanwhile.",
            )
        return bytes(output)

    # -- its description in a file ---------------------------------------------------------------------------------
    def description(self) -> bytes:
        """Return the content of the file that :meth:`load` reads."""
        fields = {"command": list(self._command), "key": str(self._key), "timeout": self._timeout}
        return orjson.dumps(fields, option=orjson.OPT_INDENT_2) + b"\n"

    @classmethod
    def load(cls, path: Path, name: str) -> CommandSigner:
        """Read the description of a command: {"command": [program, argument, …], "key": vkey, "timeout": seconds}.

        Args:
            path: the file. Others must not be able to write it: they could have any command run.
            name: that the key must have.

        Raises:
            KeyFileError: it cannot be read, could have been changed by others, or is not such a description.
        """
        content = safe.read(path, "The signer description", safe.WRITABLE_BY_OTHERS)
        try:
            fields = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise _unusable(path, "it is not JSON") from None
        if not isinstance(fields, dict) or not {"command", "key"} <= fields.keys() <= {"command", "key", "timeout"}:
            raise _unusable(path, "it must be an object with command, key and, if need be, timeout, and nothing else")
        command, timeout = fields["command"], fields.get("timeout", TIMEOUT)
        if not isinstance(command, list) or not all(isinstance(part, str) for part in command) or not any(command[:1]):
            raise _unusable(path, "the command must be a list of texts, the program first")
        if any("\0" in part for part in command):
            raise _unusable(path, "the command has a NUL character")
        if type(timeout) not in (int, float) or not 0 < timeout <= MAX_TIMEOUT:
            raise _unusable(path, f"the timeout must be a number of seconds above 0 and up to {MAX_TIMEOUT:g}")
        try:
            key = VerifierKey.parse(fields["key"] if isinstance(fields["key"], str) else "")
        except MalformedNote as error:
            raise _unusable(path, f"the key is no verifier key ({error.what.rstrip('.')})") from None
        if key.name != name:
            raise _unusable(path, f"the key has the name {key.name}, and this log is {name}")
        return cls(command, key, float(timeout))


def _unusable(path: Path, why: str) -> KeyFileError:
    return KeyFileError(
        f"The signer description {path} cannot be used: {why}.",
        "See docs/keys.md, or have it written by `auditspan keys new --command`.",
    )


def _talk(
    process: subprocess.Popen[bytes], message: bytes, output: bytearray, errors: bytearray, deadline: float
) -> None:
    """Write the message and read both answers, until they end, are too long, or the time is over."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    os.set_blocking(process.stdin.fileno(), False)
    left = memoryview(message)
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdin, selectors.EVENT_WRITE)
        selector.register(process.stdout, selectors.EVENT_READ, output)
        selector.register(process.stderr, selectors.EVENT_READ, errors)
        while selector.get_map() and len(output) <= _MAX_OUTPUT and time.monotonic() < deadline:
            ready = selector.select(min(_POLL, max(0.0, deadline - time.monotonic())))
            if not ready and process.poll() is not None:
                return  # something that it has left running holds its output open
            for key, _ in ready:
                if key.data is None:
                    try:
                        left = left[os.write(key.fd, left) :]
                    except OSError:  # it ended without reading: its answer says why
                        left = left[len(left) :]
                    if not left:
                        selector.unregister(key.fileobj)
                        process.stdin.close()
                    continue
                data = os.read(key.fd, 65_536)
                if not data:
                    selector.unregister(key.fileobj)
                key.data.extend(data)
                del errors[:-_MAX_STDERR]  # what it said last says most


def _signature(output: bytes) -> bytes | None:
    if len(output) == _SIGNATURE_SIZE:
        return output
    try:
        decoded = base64.b64decode(b"".join(output.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) == _SIGNATURE_SIZE else None


def _said(errors: bytearray) -> str:
    """Return the end of what the command said, in one printable line."""
    text = " ".join(errors.decode(errors="replace").split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    if len(text) > _SHOWN:
        text = f"…{text[-_SHOWN:]}"
    return f"; it said: {text}" if text else ""
