# SPDX-License-Identifier: Apache-2.0
"""``auditspan demo``: a real automation, recorded with no code change, shown as a timeline, verified, tampered with."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

import auditspan
from auditspan import schema
from auditspan.cli import common, story
from auditspan.cli.verify import show
from auditspan_seal import spans
from auditspan_seal.errors import AuditspanError, SourceError
from auditspan_seal.formats.note import VerifierKey
from auditspan_seal.keys import read_verifier_key
from auditspan_seal.log.directory import open_directory
from auditspan_seal.verify.directory import verify_directory
from auditspan_seal.verify.report import Report, Verdict

EXAMPLE = "weather-sync"
_START_TIMEOUT = 20.0  # seconds for the service to listen
_DELIVERY_TIMEOUT = 30.0  # seconds for all documents to be in Elasticsearch


def register(verbs: common.Verbs) -> None:
    """Add the verb."""
    parser = common.add_verb(
        verbs,
        "demo",
        run,
        "Run a real automation under audit, show and verify its records, then tamper with one and see the alarm.",
        "auditspan demo",
        "0 the run was recorded, verified, and the tampering was found; 1 it was not; 2 something is missing",
    )
    parser.add_argument(
        "--stack", action="store_true", help="through a real Collector and Elasticsearch (see devstack)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep everything in this new folder")


def example_folder(name: str = EXAMPLE) -> Path:
    """Find an example: in the source checkout, or where the wheel put it.

    Raises:
        SourceError: it is not there.
    """
    package = Path(auditspan.__file__).resolve().parent
    for root in (package.parent.parent, Path(sysconfig.get_path("data")) / "share" / "auditspan"):
        if (root / "examples" / name / "service.py").is_file():
            return root / "examples" / name
    raise SourceError(f"The example {name} is not installed.", "Reinstall auditspan, or run from a source checkout.")


def run(options: argparse.Namespace) -> int:
    """Run the verb."""
    try:
        import apscheduler  # noqa: F401
        import fastapi  # noqa: F401
        import singer_sdk  # noqa: F401
        import standardwebhooks  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SourceError(
            f"The demo runs real libraries and {error.name} is not installed.", "Run `pip install 'auditspan[demo]'`."
        ) from None
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=False)
        return _in_folder(options.keep.resolve(), options)
    with tempfile.TemporaryDirectory(prefix="auditspan-demo-") as folder:
        return _in_folder(Path(folder), options)


def _in_folder(folder: Path, options: argparse.Namespace) -> int:
    console = Console(quiet=True) if options.json else common.console()
    if options.stack:
        from auditspan.devstack import Stack

        common.progress("starting a Collector and an Elasticsearch …")
        with Stack.start(folder / "stack") as stack:
            for part, which in stack.parts.items():
                common.progress(f"{part}: {which}")
            result = _through_stack(folder, console, stack)
    else:
        result = _on_disk(folder, console)
    if options.json:
        common.print_json(result)
    return 0 if result["passed"] and result["tampering_found"] else 1


def _on_disk(folder: Path, console: Console) -> dict[str, Any]:
    log = folder / "auditspan"
    _automation(folder, console, {})
    directory = open_directory(log)
    key = read_verifier_key(directory.verifier_key)
    _heading(console, 2, "What happened: the run as a timeline (`auditspan show`)")
    runs = _show_runs(story.by_run(story.from_directory(directory)), console)
    _heading(console, 3, "Verify it (`auditspan verify`)")
    honest = verify_directory(directory, key)
    show(honest, console)
    _heading(console, 4, "Now somebody edits the log: one byte")
    copy = folder / "tampered"
    shutil.copytree(log, copy)
    console.print(f"  {_alter_one_byte(copy)}")
    tampered = verify_directory(open_directory(copy), key)
    show(tampered, console)
    return _result(runs, honest, tampered, {"directory": str(log)})


def _through_stack(folder: Path, console: Console, stack: Any) -> dict[str, Any]:
    from auditspan_seal.verify.elasticsearch import verify_elasticsearch

    url = stack.elasticsearch_url
    _automation(
        folder,
        console,
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": stack.otlp_http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
        },
    )
    directory = open_directory(folder / "auditspan")
    key: VerifierKey = read_verifier_key(directory.verifier_key)
    _heading(console, 2, f"What happened, read back from Elasticsearch at {url}")
    recorded = verify_directory(directory, key).logs
    deadline = time.monotonic() + _DELIVERY_TIMEOUT
    while True:
        honest = verify_elasticsearch(url, key, origin=directory.origin, wait=0)
        # What is there may verify while more is on its way; here we know how much it has to be.
        if (honest.logs.items() >= recorded.items() and not honest.findings) or time.monotonic() >= deadline:
            break
        time.sleep(0.5)
    runs = _show_runs(story.by_run(story.from_elasticsearch(url, directory.origin)), console)
    _heading(console, 3, "Verify it from the documents alone (`auditspan verify --elasticsearch`)")
    show(honest, console)
    _heading(console, 4, "Now somebody with write access edits a document")
    restore, text = _alter_document(url, directory.origin)
    console.print(f"  {text}")
    tampered = verify_elasticsearch(url, key, origin=directory.origin, wait=0)
    show(tampered, console)
    restore()
    return _result(runs, honest, tampered, {"elasticsearch": url})


def _result(runs: list[str], honest: Report, tampered: Report, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "passed": honest.verdict is Verdict.PASSED and bool(runs),
        "tampering_found": tampered.verdict is Verdict.FAILED,
        "runs": runs,
        "honest": honest.as_json(),
        "tampered": tampered.as_json(),
    } | more


# -- the automation ----------------------------------------------------------------------------------------------


def _automation(folder: Path, console: Console, environment: dict[str, str]) -> None:
    """Run the example, untouched, under ``opentelemetry-instrument``, and send it one webhook delivery."""
    example = example_folder()
    _heading(console, 1, f"A real automation runs, with no auditspan in its code: examples/{EXAMPLE}")
    with _service(example, folder, environment) as url:
        console.print(f"  $ opentelemetry-instrument python service.py     → {url}", style="dim")
        console.print("  $ python deliver.py                              → one signed webhook delivery", style="dim")
        done = subprocess.run(
            [sys.executable, str(example / "deliver.py"), url], capture_output=True, text=True, timeout=60
        )
        for line in done.stdout.splitlines():
            console.print(f"    {escape(line)}")
        if done.returncode:
            raise AuditspanError(f"The example automation failed:\n{done.stderr}", "Run it by hand, see its README.")


@contextlib.contextmanager
def _service(example: Path, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    settings = {
        **os.environ,
        "AUDITSPAN_DIR": str(folder / "auditspan"),
        "AUDITSPAN_REQUIRED": "true",
        "OTEL_SERVICE_NAME": EXAMPLE,
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "PYTHONUNBUFFERED": "1",
        **environment,
    }
    if not environment:
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
            settings.pop(name, None)
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    command = [
        str(instrument),
        sys.executable,
        str(example / "service.py"),
        "--port",
        "0",
        "--data",
        str(folder / "data"),
    ]
    errors = folder / "service.log"
    with open(errors, "wb") as log:
        service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=settings, text=True)
    try:
        yield _listening(service, errors)
    finally:
        service.terminate()
        try:
            service.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            service.kill()
            service.communicate()


def _listening(service: subprocess.Popen[str], errors: Path) -> str:
    assert service.stdout is not None
    deadline = time.monotonic() + _START_TIMEOUT
    for line in service.stdout:
        if line.startswith("listening on "):
            return line.split()[-1]
        if time.monotonic() > deadline:
            break
    raise AuditspanError(
        f"The example service did not start:\n{errors.read_text(errors='replace')[-2000:]}",
        "Run it by hand, see its README.",
    )


# -- showing and tampering ---------------------------------------------------------------------------------------


def _heading(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}[/]  [bold]{escape(text)}[/]")


def _show_runs(runs: dict[str, list[story.Record]], console: Console) -> list[str]:
    for run_id, records in runs.items():
        story.show_run(run_id, records, console)
    return list(runs)


def _alter_one_byte(directory: Path) -> str:
    """Change one digit of the number of rows written in the copy of a log; the line stays well-formed."""
    name = schema.CONNECTOR_ROWS_WRITTEN.encode()
    for path in sorted((directory / "log").glob("*.log")):
        content = bytearray(path.read_bytes())
        at = content.find(b'"' + name + b'":')
        if at >= 0:
            digit = at + len(name) + 3
            before = chr(content[digit])
            content[digit] = ord("1") if content[digit] != ord("1") else ord("2")
            path.write_bytes(content)
            return f"{path.name}, byte {digit}: {name.decode()} begins with {chr(content[digit])} instead of {before}"
    raise AuditspanError("The demo's log has no record of written rows.", "Report this as a bug.")


def _alter_document(url: str, origin: str) -> tuple[Any, str]:
    """Change one field of one document through its backing index; returns how to undo it, and what was done."""
    from auditspan_seal.verify.elasticsearch import connect

    client = connect(url)
    name = schema.CONNECTOR_ROWS_WRITTEN
    own = [{"exists": {"field": f"attributes.{name}"}}, {"term": {f"attributes.{spans.ORIGIN}": origin}}]
    hits = client.search(index="traces-audit*.otel-*", query={"bool": {"filter": own}}, size=1)
    hit = hits["hits"]["hits"][0]
    attributes = hit["_source"]["attributes"]
    before = attributes[name]

    def update(value: Any) -> None:
        client.update(index=hit["_index"], id=hit["_id"], doc={"attributes": attributes | {name: value}}, refresh=True)

    update(before + 1)
    index = attributes[spans.INDEX]
    return (
        lambda: update(before)
    ), f"document {hit['_id']} (index {index}): attributes.{name} is {before + 1}, was {before}"
