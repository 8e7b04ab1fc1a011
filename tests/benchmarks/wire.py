# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire: a batch of documents as OTLP/JSON, compressed, with the statement in each and without."""

from __future__ import annotations

import gzip
import random
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import orjson
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from auditspan import schema
from auditspan_seal import spans
from auditspan_seal.log.directory import open_directory
from auditspan_seal.recording import StatementMaker
from tests.benchmarks.logs import otlp
from tests.records import audit_attributes

BATCH = 512


def wire() -> list[tuple[str, str, str, str]]:
    """Return the rows of the table."""
    rows = []
    for what, chance in (("attributes alike", None), ("attributes at random", random.Random(7))):
        documents = _documents(chance)
        with_it = orjson.dumps(otlp(documents))
        for document in documents:
            assert document.attributes is not None
            document._attributes = {n: v for n, v in document.attributes.items() if n != spans.STATEMENT}
        without = orjson.dumps(otlp(documents))
        name, squeeze = _squeeze()
        sizes = [len(squeeze(part)) / BATCH for part in (with_it, without)]
        said = f"{sizes[0] / sizes[1]:.2f}; {sizes[0]:.0f} bytes a span of {sizes[1]:.0f} ({name})"
        rows.append((f"bytes on the wire, with the statement to without, {what}", said, "≤ 2.2", "≤ 1.6"))
    return rows


def _squeeze() -> tuple[str, Callable[[bytes], bytes]]:
    try:
        import zstandard
    except ImportError:
        return "gzip, as there is no zstandard here", lambda data: gzip.compress(data, 1)
    return "zstd", zstandard.ZstdCompressor(level=1).compress


def _documents(chance: random.Random | None) -> list[ReadableSpan]:
    with tempfile.TemporaryDirectory() as folder:
        origin = open_directory(Path(folder), create=True).origin
    maker = StatementMaker(origin)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("benchmark", "1.0")
    documents = []
    for number in range(BATCH):
        more = {schema.TARGET_ID: f"order {number}", schema.DATA_COUNT: number % 7, "code.function.name": "app.sync"}
        if chance is not None:
            more = {
                schema.TARGET_ID: str(uuid.UUID(int=chance.getrandbits(128))),
                schema.DATA_COUNT: chance.randrange(10**6),
                "code.function.name": f"app.f{chance.randrange(1000)}",
                schema.CONNECTOR_STREAM: chance.randbytes(12).hex(),
            }
        span = tracer.start_span("update order", attributes=audit_attributes(**more))
        span.end()
        assert isinstance(span, ReadableSpan)
        statement = maker.line(span, "0123456789abcdef", number + 1)
        documents.append(spans.document_of(statement, b"", origin, number))
    return documents
