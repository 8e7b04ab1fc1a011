# SPDX-License-Identifier: Apache-2.0
"""Salts for commitments to personal values."""

from __future__ import annotations

import os
from binascii import b2a_base64

from auditspan_seal.formats import commitment


class Salts:
    """Salts from the operating system, many at once: asking gives up the GIL, which another thread keeps for 5 ms."""

    def __init__(self) -> None:
        self._salts: list[tuple[bytes, str]] = []
        self._process = os.getpid()

    def take(self) -> tuple[bytes, str]:
        """Return a salt that nobody else has, in no process; as bytes and in base64."""
        if self._process != os.getpid():  # a child has the same ones
            self._salts, self._process = [], os.getpid()
        try:
            return self._salts.pop()  # one step, whatever other threads do
        except IndexError:
            size = commitment.SALT_SIZE
            block = os.urandom(256 * size)
            salts = [block[at : at + size] for at in range(0, len(block), size)]
            made = [(salt, b2a_base64(salt, newline=False).decode()) for salt in salts]
            self._salts += made[1:]
            return made[0]


SALTS = Salts()
"""Those of this process."""
