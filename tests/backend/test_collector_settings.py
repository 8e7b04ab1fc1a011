# SPDX-License-Identifier: Apache-2.0
"""Each protocol, compression and TLS with the real Collector: what arrives is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from elasticsearch import Elasticsearch

from auditspan.devstack import Stack
from auditspan_seal import ship
from auditspan_seal.delivery import Delivery
from auditspan_seal.log.directory import Directory
from tests.backend.test_collector_faults import complete
from tests.benchmarks.logs import make_log
from tests.records import ON_PURPOSE
from tests.seal.certificates import make_certificates

pytestmark = [pytest.mark.backend, pytest.mark.timeout(900)]

WAYS = [
    (None, None), (None, "zstd"),
    ("http/json", "none"), ("http/json", "gzip"), ("http/json", "deflate"),
    ("http/protobuf", None), ("http/protobuf", "gzip"), ("http/protobuf", "zstd"),
    ("grpc", None), ("grpc", "gzip"),
]  # fmt: skip
VALUES = {
    "text": '"quoted" \\ \0 \u2028 \u00e9 \U0001f600 <&>', "big": 2**53 + 1, "small": -(2**63), "beyond": 2**70,
    "float": 0.1, "zero": -0.0, "bytes": b"\x00\xff", "texts": ["a", "b"], "none": [],
}  # fmt: skip


def deliver(directory: Directory, monkeypatch: pytest.MonkeyPatch, endpoint: str, **given: str | None) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    for name, text in given.items():
        if text is not None:
            monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name.upper()}", text)
    shipper = ship.Shipper(directory, ship.make_sender())
    # What is too large for the Collector breaks a connection with TLS: it is sent again in smaller parts.
    assert any(shipper.ship() for _ in range(8)), Delivery.load(directory.delivery).error
    shipper.close()
    assert Delivery.load(directory.delivery).rejected == ()


@pytest.mark.parametrize(("protocol", "compression"), WAYS)
def test_each_protocol_and_compression_brings_the_same_documents(
    stack: Stack, elasticsearch: Elasticsearch, make_records: Callable[..., Directory], log_folder: Path,
    monkeypatch: pytest.MonkeyPatch, protocol: str | None, compression: str | None,
) -> None:  # fmt: skip
    directory = make_records(20, **{f"automation.{name}": value for name, value in VALUES.items()})
    (log_folder / ON_PURPOSE).touch()  # values of each type, under names that the registry does not know
    endpoint = stack.otlp_grpc_endpoint if protocol == "grpc" else stack.otlp_http_endpoint
    deliver(directory, monkeypatch, endpoint, protocol=protocol, compression=compression)
    complete(directory, stack, elasticsearch)  # verified field by field against the statements


LIMIT = 200_000  # bytes
OVERLAY = """
receivers:
  otlp:
    protocols:
      grpc:
        max_recv_msg_size_mib: 1
        tls: &tls
          cert_file: {server}
          key_file: {server_key}
          client_ca_file: {authority}
      http:
        max_request_body_size: 200000
        tls: *tls
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A Collector that wants to see a certificate and takes only small requests, and the settings for it."""
    folder = tmp_path_factory.mktemp("strict")
    made = make_certificates(folder / "certificates")
    overlay = folder / "overlay.yaml"
    overlay.write_text(OVERLAY.format(**{name: str(path) for name, path in vars(made).items()}))
    with Stack.start(folder / "stack", elasticsearch=False, overlay=overlay) as running:
        yield (
            running,
            {
                "certificate": str(made.authority),
                "client_certificate": str(made.client),
                "client_key": str(made.client_key),
            },
        )


@pytest.mark.parametrize("protocol", ["http/json", "http/protobuf", "grpc"])
def test_certificates_on_both_sides_and_requests_that_are_too_large(
    strict: tuple[Stack, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    running, given = strict
    directory = make_log(tmp_path / "log", 1500, batch=1500)
    endpoint = running.otlp_grpc_endpoint if protocol == "grpc" else running.otlp_http_endpoint
    deliver(directory, monkeypatch, endpoint.replace("http://", "https://"), protocol=protocol, **given)
    assert Delivery.load(directory.delivery).size == 1501


def test_one_record_that_the_collector_finds_too_large_holds_up_no_other(
    strict: tuple[Stack, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, given = strict
    directory = make_log(tmp_path / "log", 1)
    file = next(directory.log.iterdir())
    file.write_bytes(file.read_bytes().replace(b"updated test.row", b"x" * LIMIT))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.otlp_http_endpoint.replace("http://", "https://"))
    for name, text in given.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name.upper()}", text)
    shipper = ship.Shipper(directory, ship.make_sender())
    assert any(shipper.ship() for _ in range(30))
    shipper.close()
    (rejected,) = orjson.loads(directory.delivery.read_bytes())["rejected"]
    assert rejected[:3] == [1, 2, 1]
