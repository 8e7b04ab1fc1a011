# SPDX-License-Identifier: Apache-2.0
"""OTEL_EXPORTER_OTLP_* mean to delivery what they mean to OpenTelemetry's own exporters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.sdk.trace.export import SpanExportResult

from auditspan.cli import status
from auditspan_seal import ship, spans
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from auditspan_seal.otlp import settings
from tests.benchmarks.logs import make_log
from tests.environments import ROOT
from tests.seal.certificates import Certificates, make_certificates
from tests.seal.receiver import JSON, PROTOBUF, Receiver, receiving
from tests.seal.test_ship import Service

ALL = list(range(6))


@pytest.fixture
def log(tmp_path: Path) -> Directory:
    return make_log(tmp_path / "log", 5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def deliver(log: Directory) -> bool:
    shipper = ship.Shipper(log, ship.make_sender())
    try:
        return shipper.ship()
    finally:
        shipper.close()


def told(log: Directory) -> str:
    return "; ".join(status.gather(log)["attention"])


COMBINED = {
    "endpoint for all": {"ENDPOINT": "{url}"},
    "with a slash": {"ENDPOINT": "{url}/"},
    "with a path": {"ENDPOINT": "{url}/collect/here"},
    "for traces: as it is": {"TRACES_ENDPOINT": "{url}/mine", "ENDPOINT": "http://127.0.0.1:9"},
    "for traces: without a path": {"TRACES_ENDPOINT": "{url}"},
    "headers": {"ENDPOINT": "{url}", "HEADERS": "api-key=a%20b%3Dc, Authorization=Basic%20eA==,x=1"},
    "headers for traces": {"ENDPOINT": "{url}", "HEADERS": "all=1", "TRACES_HEADERS": "traces=2"},
    "gzip": {"ENDPOINT": "{url}", "COMPRESSION": "gzip"},
    "deflate": {"ENDPOINT": "{url}", "COMPRESSION": "gzip", "TRACES_COMPRESSION": "deflate"},
    "none": {"ENDPOINT": "{url}", "COMPRESSION": "none"},
    "an encoding by header": {"ENDPOINT": "{url}", "HEADERS": "content-encoding=identity"},
}


@pytest.mark.parametrize("protocol", ["http/json", "http/protobuf"])
@pytest.mark.parametrize("name", COMBINED)
def test_as_the_sdks_own_exporter_does_it(
    log: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, name: str, protocol: str
) -> None:
    for setting, text in COMBINED[name].items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{setting}", text.format(url=receiver.url))
    block = next(reader.batches(log.log))
    span = spans.document_of(block.statements[1], b"", log.origin, 1)
    exporter = OTLPSpanExporter()
    assert exporter.export([span]) is SpanExportResult.SUCCESS
    exporter.shutdown()  # type: ignore[no-untyped-call]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    assert deliver(log)
    theirs, ours = receiver.requests
    assert ours.path == theirs.path
    own = {"content-type", "content-length", "user-agent"}
    assert {name: text for name, text in ours.headers.items() if name not in own} == {
        name: text for name, text in theirs.headers.items() if name not in own
    }
    assert ours.headers["content-type"] == (JSON if protocol == "http/json" else PROTOBUF)
    assert ours.indexes == ALL


def test_zstd(log: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")
    assert deliver(log)
    assert receiver.requests[0].headers["content-encoding"] == "zstd"
    assert receiver.indexes == ALL


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip", "deflate", "zstd"])
def test_requests_are_made_in_two_threads(tmp_path: Path, compression: str) -> None:
    # In a process of its own: what is not made for two threads ends it (zstd's compressor did).
    program = f"""
import os, sys, threading
from pathlib import Path
from tests.benchmarks.logs import make_log
from tests.environments import ROOT
from auditspan_seal import ship
from auditspan_seal.log import reader

os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["OTEL_EXPORTER_OTLP_COMPRESSION"] = "{compression}"
log = make_log(Path(sys.argv[1]), 2000)
items = [ship.items_of(block) for block in reader.batches(log.log)]
sender = ship.make_sender()
wanted = [sender.encode("o", part).content for part in items]

def work():
    for _ in range(6):
        assert [sender.encode("o", part).content for part in items] == wanted

threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("endpoint", "compression"),
    [
        ("http://localhost:4318", "none"), ("http://127.0.0.1:4318/x", "none"), ("http://[::1]:4318", "none"),
        ("https://collector.example:4318", "gzip"), ("http://10.0.0.1", "gzip"), ("http://128.0.0.1", "gzip"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [None, "http/json", "http/protobuf", "grpc"])
def test_what_leaves_the_machine_is_compressed(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, compression: str, protocol: str | None
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    if protocol:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    assert settings.load().compression == compression
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    assert settings.load().compression == "none"


def test_zstd_without_its_package_is_gzip(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")
    assert settings.load().compression == "gzip"
    assert "pip install 'auditspan[zstd]'" in caplog.text


def test_what_is_not_understood_is_said_and_does_not_stop_delivery(
    log: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "rar")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    assert deliver(log)
    assert "'rar'" in caplog.text
    assert "'soon'" in caplog.text
    assert receiver.indexes == ALL


@pytest.mark.parametrize(
    ("given", "target", "secure"),
    [
        ({"ENDPOINT": "http://collector:4317"}, "collector:4317", False),
        ({"ENDPOINT": "https://collector:4317"}, "collector:4317", True),
        ({"ENDPOINT": "https://collector:4317", "INSECURE": "true"}, "collector:4317", True),
        ({"ENDPOINT": "collector:4317"}, "collector:4317", True),
        ({"ENDPOINT": "collector:4317", "INSECURE": "true"}, "collector:4317", False),
        ({"ENDPOINT": "collector:4317", "INSECURE": "true", "TRACES_INSECURE": "false"}, "collector:4317", True),
        ({"TRACES_ENDPOINT": "http://traces:1", "ENDPOINT": "https://all:2"}, "traces:1", False),
    ],
)
def test_where_grpc_goes(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], target: str, secure: bool) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    for name, text in given.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", text)
    found = settings.load()
    assert (found.endpoint, found.secure) == (target, secure)


# -- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["http/json", "http/protobuf", "grpc"])
def secure(
    request: pytest.FixtureRequest, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A receiver that wants to see a certificate, by each protocol; returns what has `indexes`."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3")
    if request.param != "grpc":
        with receiving(certificates.context()) as running:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
            yield running
        return
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service = Service()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    credentials = grpc.ssl_server_credentials(
        [(certificates.server_key.read_bytes(), certificates.server.read_bytes())],
        certificates.authority.read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"https://localhost:{port}")
    yield service
    server.stop(None).wait()


def test_both_sides_show_certificates(
    log: Directory, secure: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.authority))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/nowhere")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", str(certificates.client))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(certificates.client_key))
    # Of the process, not of delivery: it must not come first.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates.client))
    assert deliver(log)
    assert sorted(secure.indexes) == ALL


def test_certificate_and_key_in_one_file(
    log: Directory, secure: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.client.read_bytes() + certificates.client_key.read_bytes())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.authority))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(both))
    assert deliver(log)
    assert sorted(secure.indexes) == ALL


@pytest.mark.parametrize("missing", ["authority", "client", "files"])
def test_without_the_right_certificates_nothing_is_sent_and_it_is_said(
    log: Directory, secure: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing != "authority":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.authority))
    if missing != "client":
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/nowhere" if missing == "files" else str(certificates.client)
        )
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(certificates.client_key))
    assert not deliver(log)
    assert secure.indexes == []
    assert "delivery stands still" in told(log)
    assert "localhost" in told(log)
    assert "Traceback" not in told(log)
