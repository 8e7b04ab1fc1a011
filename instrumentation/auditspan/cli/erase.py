# SPDX-License-Identifier: Apache-2.0
"""``auditspan erase``: removes personal values from the log and from Elasticsearch, on record."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections import Counter
from typing import Any

from rich.markup import escape

from auditspan.cli import common
from auditspan_seal import ship
from auditspan_seal.delivery import Delivery
from auditspan_seal.erase import disk
from auditspan_seal.erase.wanted import Found, Hit, Wanted
from auditspan_seal.errors import AuditspanError, SourceError
from auditspan_seal.log.directory import Directory
from auditspan_seal.log.pruned import Pruned
from auditspan_seal.log.sequencer import Sequencer

_LEFT = 3
BEYOND = (
    "Not reached by this command: backups and snapshots, old blocks of the file system, proofs written with "
    "--disclose, spans that the application's own exporter sent elsewhere, and what waits in a Collector's queue (run "
    "it again once that is delivered)."
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
        "--reason",
        required=True,
        metavar="TEXT",
        help="why; it is signed and public, as is your user name: name a ticket, not a person",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="with --elasticsearch: how long to wait for old versions to leave its files (default: 120)",
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
    if options.elasticsearch:
        from auditspan_seal.verify.elasticsearch import connect

        connect(options.elasticsearch)  # what is no URL is said before anything is changed
    directory = common.directory_of(options)
    wanted = Wanted(value, options.record, frozenset(options.attribute))
    gone, left = _in_what_was_pruned(options.elasticsearch, directory, wanted)
    if options.dry_run:
        with disk.sequenced(directory, common.progress):
            found = [*(item for item, _ in gone), *disk.find(directory, wanted)]
        return _show(found, {"dry_run": True, "left": left}, options, _LEFT if left else 0 if found else 2)
    found = disk.erase(directory, wanted, options.reason, _who(), common.progress, gone)
    delivered, more = _deliver(directory)
    left += more
    if segments := disk.still_recorded(directory):
        left.append(
            f"{len(segments)} segments of running processes of other users still hold a value ({segments[0]} …): "
            "they go when those processes end. Run the command again then."
        )
    result: dict[str, Any] = {"dry_run": False, "delivered": delivered}
    if options.elasticsearch:
        try:
            result |= _in_elasticsearch(options.elasticsearch, directory, options.wait)
            left += _left_there(result)
        except SourceError as error:
            left.append(str(error))
    elif any(item.index < Delivery.load(directory.delivery).size for item in found):
        left.append("These records were delivered: give --elasticsearch URL to erase the values there, too.")
    result["left"] = left
    nothing = not (found or result.get("documents_changed") or result.get("old_versions_released"))
    return _show(found, result, options, _LEFT if left else 2 if nothing else 0)


def _in_what_was_pruned(url: str | None, directory: Directory, wanted: Wanted) -> tuple[list[Hit], list[str]]:
    """Find the values in entries that are no longer in the directory; what cannot be found is said."""
    pruned = Pruned.load(directory)
    if pruned is None:
        return [], []
    if url is None:
        return [], [
            f"The indexes below {pruned.size} were pruned from this directory: give --elasticsearch URL to have values "
            f"in them found and erased where they still are ({pruned.place})."
        ]
    from auditspan_seal.erase import elasticsearch

    common.progress(f"looking in Elasticsearch for values below index {pruned.size}, which were pruned here")
    return elasticsearch.find(url, directory.origin, wanted, pruned.size), []


def _left_there(result: dict[str, Any]) -> list[str]:
    """Say what is not erased in Elasticsearch yet."""
    said = (
        (len(result["not_delivered_yet"]), "entries have no document there yet (or no more)"),
        (result["documents_left"], "documents still show an erased value"),
        (result["old_versions_left"], "old versions of documents are still in its files"),
    )
    return [f"Elasticsearch: {count} {what}; run the command again." for count, what in said if count]


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _deliver(directory: Directory) -> tuple[bool, list[str]]:
    """Send the erasure record.

    Returns:
        whether it is sent, also where nothing is sent at all, or another process sends; and what is left to do. What
        goes wrong here does not undo what was erased, and must not keep it from being erased in Elasticsearch.
    """
    if ship.endpoint() is None:
        return True, []
    try:
        sequencer = Sequencer.acquire(directory)
        if sequencer is None:
            return True, []
        try:
            shipper = ship.Shipper(directory, ship.make_sender())
            try:
                delivered = shipper.ship()
            finally:
                shipper.close()
        finally:
            sequencer.close()
    except AuditspanError as error:
        return False, [str(error)]
    return delivered, [] if delivered else ["The record of the erasure is not delivered yet; it will be sent again."]


def _in_elasticsearch(url: str, directory: Directory, wait: float) -> dict[str, Any]:
    from auditspan_seal.erase import elasticsearch

    # All that was ever erased on record, not only now: a document may have come late.
    erased = disk.erased_before(directory)
    common.progress(f"looking for the documents of {len(erased)} entries in Elasticsearch")
    outcome = elasticsearch.erase(url, directory.origin, erased, wait, common.progress)
    return {
        "documents_changed": outcome.changed,
        "documents_left": elasticsearch.still_there(url, directory.origin, erased),
        "old_versions_released": outcome.released,
        "old_versions_left": outcome.old_versions,
        "not_delivered_yet": outcome.absent,
    }


def _show(found: list[Found], result: dict[str, Any], options: argparse.Namespace, code: int) -> int:
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
        console.print(f"  {result['old_versions_released']} old versions of documents gone from its files")
    for item in result.get("left", ()):
        console.print(f"[bold yellow]! {escape(item)}[/]")
    if not result["dry_run"]:
        console.print(BEYOND, style="dim")
    return code
