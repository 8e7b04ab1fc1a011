# SPDX-License-Identifier: Apache-2.0
"""Sends one record the whole way, from an audited process to a verified document."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from auditspan.backend_setup.check_result import Check, failed, ok, unknown
from auditspan_seal.errors import AuditspanError

_TIMEOUT: Final = 120.0
_PROGRAM: Final = """
import auditspan
auditspan.install()
with auditspan.action("READ", target="probe", target_type="auditspan.backend", actor="auditspan", actor_type="system"):
    pass
"""


def check(url: str, endpoint: str, wait: float) -> Check:
    """Record something in a process of its own, deliver it, and verify its documents with the key it was signed with.

    The documents stay: nobody can delete a record. They are a log of their own.

    Args:
        url: of the Elasticsearch, with the account to read with.
        endpoint: OTLP over HTTP of the Collector.
        wait: seconds to wait for the delivery, and for the documents.
    """
    with tempfile.TemporaryDirectory(prefix="auditspan-probe-") as name:
        directory = Path(name) / "log"
        problem = _recorded(directory, endpoint, wait)
        if problem:
            return failed("probe", f"it was not delivered: {problem}", "Look at the Collector and at its log.")
        return _verified(url, directory, wait)


def _recorded(directory: Path, endpoint: str, wait: float) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AUDITSPAN_"))}
    environment = kept | {
        "AUDITSPAN_DIR": str(directory),
        "AUDITSPAN_REQUIRED": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **{
            name: value
            for name, value in os.environ.items()
            if name.startswith(("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_CERT", "OTEL_EXPORTER_OTLP_CLIENT"))
        },
    }
    agent = [sys.executable, "-m", "auditspan.cli", "agent", "--once", "--timeout", str(wait), str(directory)]
    for command in ([sys.executable, "-c", _PROGRAM], agent):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return f"it took longer than {_TIMEOUT:.0f} s"
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            return lines[-1] if lines else f"exit code {done.returncode}"
    return ""


def _verified(url: str, directory: Path, wait: float) -> Check:
    from auditspan_seal.keys import read_verifier_key
    from auditspan_seal.log.directory import open_directory
    from auditspan_seal.verify.elasticsearch import verify_elasticsearch

    key = read_verifier_key(open_directory(directory).verifier_key)
    try:
        report = verify_elasticsearch(url, key, origin=key.name, wait=wait)
    except AuditspanError as error:
        return unknown("probe", f"it was delivered, and cannot be read back: {error.what}", error.advice)
    if report.verdict == "PASSED" and report.records:
        return ok("probe", f"a record of the log {key.name} arrived and was verified: {report.records} records")
    codes = ", ".join(sorted({str(finding.code.value) for finding in report.findings}))
    return failed(
        "probe",
        f"a record of the log {key.name} was delivered, and is {report.verdict.value} in Elasticsearch: {codes}",
        "Look at the Collector's log, and at `otelcol.elasticsearch.docs.processed` of its metrics.",
    )
