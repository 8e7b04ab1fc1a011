# SPDX-License-Identifier: Apache-2.0
"""``auditspan witness keys|serve``: a second place for one site, which cosigns what continues what it has seen."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path

from rich.markup import escape

from auditspan.cli import common
from auditspan_seal.errors import DirectoryError, KeyFileError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import read_verifier_keys
from auditspan_seal.witness import server

_LISTEN = "127.0.0.1:8432"


def register(verbs: common.Verbs) -> None:
    """Add the verb with its two commands."""
    parser = common.add_verb(
        verbs,
        "witness",
        serve,
        "Run a witness: it cosigns checkpoints of other hosts' logs, and none that takes something back.",
        "auditspan witness keys /var/lib/witness --name witness.example/w1\n"
        "  auditspan witness serve /var/lib/witness --log log.vkey",
        "0 done or stopped, 2 wrong usage, or a folder or key that cannot be used",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    showing = common.add_verb(
        commands,
        "keys",
        keys,
        "Show the public key of a witness, as a policy has it; with --name begin a witness if there is none.",
        "auditspan witness keys /var/lib/witness --name witness.example/w1",
        "0 done, 2 wrong usage, or a folder or key that cannot be used",
        inner=True,
    )
    showing.add_argument(
        "--name", metavar="NAME", help="begin a witness of this name: an address without scheme; it is for good"
    )
    serving = common.add_verb(
        commands,
        "serve",
        serve,
        "Answer over HTTP until stopped (C2SP tlog-witness).",
        "auditspan witness serve /var/lib/witness --log web1.vkey --log web2.vkey --listen 0.0.0.0:8432",
        "0 stopped, 2 wrong usage, or a folder, key or address that cannot be used",
        inner=True,
    )
    serving.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        action="append",
        required=True,
        help="public keys of a log to cosign for: its log.vkey; may be repeated",
    )
    serving.add_argument(
        "--listen", metavar="HOST:PORT", default=_LISTEN, help=f"where to listen (default: {_LISTEN}); port 0: any"
    )
    for command in (showing, serving):
        command.add_argument("folder", type=Path, metavar="FOLDER", help="what the witness remembers, and its key")


def keys(options: argparse.Namespace) -> int:
    """Run ``auditspan witness keys``."""
    _, key = server.load_key(options.folder, options.name)
    line = f"witness {key.name} {key}"
    if options.json:
        common.print_json({"name": key.name, "key": str(key), "policy_line": line})
    else:
        console = common.console()
        console.print(escape(line))
        console.print("put this line into the policy, with the address of the witness at its end", style="dim")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Run ``auditspan witness serve``."""
    host, port = _address(options.listen)
    witness = server.Witness(options.folder, [key for path in options.log for key in _log_keys(path)])
    try:
        serving = server.Server(witness, host, port, common.progress)
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        if options.json:
            # one line, at once: whoever started this waits for it
            print(json.dumps({"url": serving.url, "key": str(witness.key), "logs": witness.sizes}), flush=True)
        else:
            console = common.console()
            console.print(f"witness {escape(witness.key.name)} at {serving.url}, until stopped")
            for origin, size in witness.sizes.items():
                console.print(f"  log {escape(origin)}: " + (f"{size} entries cosigned" if size else "new"))
        stopping.wait()
        serving.shutdown()
        serving.server_close()
    finally:
        witness.close()
    return 0


def _log_keys(path: Path) -> list[VerifierKey]:
    found = read_verifier_keys(path)
    if not all(key.name for key in found):
        raise KeyFileError(
            f"{path} holds a key without the name of its log; a witness must know whose it is.",
            "Use the file log.vkey of the log directory.",
        )
    return found


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) < 65536) or not host:
        raise DirectoryError(f"{listen!r} is not HOST:PORT.", f"For example: --listen {_LISTEN}.")
    return host, int(port)
