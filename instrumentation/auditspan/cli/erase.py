# SPDX-License-Identifier: Apache-2.0
"""``auditspan erase``: removes personal values from the log and from Elasticsearch, on record."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections import Counter
from typing import Any

from auditspan.cli import common
from auditspan_seal import ship
from auditspan_seal.erase import disk
from auditspan_seal.errors import SourceError
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.sequencer import Sequencer

_LEFT = 3
BEYOND = (
    "Not reached by this command: backups and snapshots, proofs written with --disclose, spans that the application's "
    "own exporter sent elsewhere, and what waits in a Collector's queue (run it again once that is delivered)."
)


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "erase",
        run,
        "Remove personal values from the log and from Elasticsearch, on record; signatures stay valid.",
        "auditspan erase --value 203.0.113.7 --reason 'request 4711' --elasticsearch http://127.0.0.1:9200",
        "0 erased, 2 nothing found, wrong usage or unreadable source, 3 something is not reached yet: run it again",
    )
    common.add_source(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--value", metavar="TEXT", help="every personal value that is this text; - reads it from input")
    what.add_argument("--record", metavar="ID", help="the personal values of this record (record ID or span ID)")
    parser.add_argument(
        "--attribute", metavar="NAME", action="append", default=[], help="only this attribute; may be repeated"
    )
    parser.add_argument(
        "--reason", required=True, metavar="TEXT", help="why; it is signed and public: name a ticket, not a person"
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be erased")


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    value = sys.stdin.readline().rstrip("\n") if options.value == "-" else options.value
    if value == "":
        raise SourceError("The value to erase is empty.", "Give the whole value, for example an address.")
    if value is not None and value in options.reason:
        raise SourceError(
            "The reason contains the value that is to be erased; it would be signed and stay forever.",
            "Name a ticket or a request instead.",
        )
    directory = common.directory_of(options)
    wanted = disk.Wanted(value, options.record, frozenset(options.attribute))
    if options.dry_run:
        with disk.sequenced(directory, common.progress):
            found = disk.find(directory, wanted)
        return _show(found, {"dry_run": True}, options, 0 if found else 2)
    found = disk.erase(directory, wanted, options.reason, _who(), common.progress)
    delivered = _deliver(directory)
    result: dict[str, Any] = {"dry_run": False, "delivered": delivered}
    left = not delivered
    if options.elasticsearch:
        result |= _in_elasticsearch(options.elasticsearch, directory)
        left = left or bool(result["not_delivered_yet"] or result["documents_left"])
    nothing = not found and not result.get("documents_changed")
    return _show(found, result, options, 2 if nothing else _LEFT if left else 0)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _deliver(directory: Directory) -> bool:
    """Send the erasure record; True also where nothing is sent at all, or another process sends."""
    if ship.endpoint() is None:
        return True
    sequencer = Sequencer.acquire(directory)
    if sequencer is None:
        return True
    shipper = ship.Shipper(directory, ship.make_exporter())
    try:
        return shipper.ship()
    finally:
        shipper.close()
        sequencer.close()


def _in_elasticsearch(url: str, directory: Directory) -> dict[str, Any]:
    from auditspan_seal.erase import elasticsearch

    # All that was ever erased on record, not only now: a document may have come late.
    erased = disk.erased_before(directory)
    common.progress(f"looking for the documents of {len(erased)} entries in Elasticsearch")
    changed, absent = elasticsearch.erase(url, directory.origin, erased)
    return {
        "documents_changed": changed,
        "documents_left": elasticsearch.still_there(url, directory.origin, erased),
        "not_delivered_yet": absent,
    }


def _show(found: list[disk.Found], result: dict[str, Any], options: argparse.Namespace, code: int) -> int:
    if options.json:
        places = [{"index": f.index, "attribute": f.name, "record": f.record, "run": f.run} for f in found]
        common.print_json({"erased": places, **result, "not_reached": BEYOND})
        return code
    console = common.console()
    verb = "would be erased" if result["dry_run"] else "erased"
    if not found:
        console.print("Nothing to erase in the log: no personal value there is the one that was named.")
    for name, count in sorted(Counter(item.name for item in found).items()):
        console.print(f"  {count} value{'' if count == 1 else 's'} of {name} {verb}")
    for item in found[:20]:
        console.print(f"    index {item.index} · record {item.record} · run {item.run} · {item.name}", style="dim")
    if len(found) > 20:
        console.print(f"    … and {len(found) - 20} more; --json has them all", style="dim")
    if "documents_changed" in result:
        console.print(f"  {result['documents_changed']} documents changed in Elasticsearch")
        if result["not_delivered_yet"] or result["documents_left"]:
            late = len(result["not_delivered_yet"])
            console.print(
                f"[bold yellow]! {late} entries have no document there yet, {result['documents_left']} documents still "
                "show an erased value: run the command again[/]"
            )
    if not result["dry_run"]:
        console.print(BEYOND, style="dim")
    return code
