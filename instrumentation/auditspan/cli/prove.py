# SPDX-License-Identifier: Apache-2.0
"""``auditspan prove``."""

from __future__ import annotations

import argparse
from pathlib import Path

from auditspan.cli import common
from auditspan_seal.verify import proof


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "prove",
        run,
        "Write a proof of one record for a third party: two small files, checked offline with the public key.",
        "auditspan prove 4c0b505fe87cb763 --out evidence",
        "0 written, 2 no such record or unreadable source",
    )
    parser.add_argument("span", metavar="SPAN", help="span ID (16 hexadecimal digits) or audit.record.id")
    common.add_source(parser)
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where to write (default: here)")
    parser.add_argument(
        "--disclose", action="store_true", help="also write the personal values, which the proof itself does not hold"
    )


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    if options.elasticsearch:
        from auditspan_seal.verify.elasticsearch import batches_of, entries_of

        statement, private = proof.find(entries_of(options.elasticsearch), options.span)
        proven = proof.prove(batches_of(options.elasticsearch, statement), statement)
    else:
        directory = common.directory_of(options)
        common.say_pruned(directory)
        statement, private = proof.find(proof.entries_of(directory), options.span)
        proven = proof.prove(proof.batches_of(directory), statement)
    places = proof.write(options.out, options.span, statement, proven, private if options.disclose else None)
    if options.json:
        checkpoint = proven.checkpoint()
        common.print_json(
            {
                "statement": str(places[0]),
                "proof": str(places[1]),
                "values": str(places[2]) if options.disclose else None,
                "origin": checkpoint.origin,
                "index": proven.index,
                "tree_size": checkpoint.size,
            }
        )
    else:
        console = common.console()
        console.print("\n".join(map(str, places)))
        console.print(f"check it anywhere with: auditspan verify {places[1]} --key log.vkey", style="dim")
    return 0
