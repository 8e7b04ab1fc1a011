# SPDX-License-Identifier: Apache-2.0
"""Delivery against a receiver that answers as it likes: nothing is skipped, nothing is silent, all of it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from email.utils import formatdate
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from auditspan.cli import main, status
from auditspan_seal import ship
from auditspan_seal.delivery import Delivery, Rejected
from auditspan_seal.log import reader
from auditspan_seal.log.directory import Directory
from tests.benchmarks.logs import make_log
from tests.seal.receiver import HANG, JSON, PROTOBUF, RESET, Receiver, Reply, receiving, spans_of

Make = Callable[..., Directory]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "5")
        yield running


@pytest.fixture
def log(tmp_path: Path) -> Directory:
    """A log of 21 entries under 3 checkpoints."""
    return make_log(tmp_path / "log", 20, batch=7)


@pytest.fixture
def shipper(log: Directory, receiver: Receiver) -> Iterator[ship.Shipper]:
    made = ship.Shipper(log, ship.make_sender())
    yield made
    made.close()


ALL = list(range(21))


def state(log: Directory) -> Delivery:
    return Delivery.load(log.delivery)


def told(log: Directory) -> str:
    """What `auditspan status` has to say that needs attention."""
    return "; ".join(status.gather(log)["attention"])


def test_all_of_it_is_sent_once_as_json(log: Directory, receiver: Receiver, shipper: ship.Shipper) -> None:
    assert shipper.ship()
    assert receiver.indexes == ALL
    (request,) = receiver.requests  # three small batches in one request
    assert (request.path, request.headers["content-type"]) == ("/v1/traces", JSON)
    assert len(spans_of(request)) == len(ALL) + 3
    assert (state(log).size, state(log).error, told(log)) == (21, None, "")
    assert shipper.ship()
    assert len(receiver.requests) == 1


def test_one_connection_is_used_again(log: Directory, receiver: Receiver, shipper: ship.Shipper) -> None:
    for _ in range(5):
        assert shipper.send(ship.items_of(next(reader.batches(log.log))))
    assert (len(receiver.requests), receiver.connections) == (5, 1)


@pytest.mark.parametrize("code", [400, 415])
def test_who_takes_no_json_gets_protobuf(
    log: Directory, receiver: Receiver, shipper: ship.Shipper, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    receiver.reply = lambda request: Reply(code if request.headers["content-type"] == JSON else 200)
    assert shipper.ship()
    assert shipper.send(ship.items_of(next(reader.batches(log.log))))
    assert [request.headers["content-type"] for request in receiver.requests] == [JSON, PROTOBUF, PROTOBUF]
    assert receiver.accepted[0].indexes == ALL
    assert caplog.text.count("does not take OTLP/JSON") == 1
    assert state(log).error is None


def test_who_takes_neither_is_asked_both_again(log: Directory, receiver: Receiver, shipper: ship.Shipper) -> None:
    receiver.then(Reply(400), Reply(400), Reply(200))
    assert not shipper.ship()
    assert "HTTP 400" in told(log)
    assert shipper.ship()
    assert [request.headers["content-type"] for request in receiver.requests] == [JSON, PROTOBUF, JSON]


def test_json_that_is_asked_for_stays_json(log: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
    receiver.then(Reply(415))
    shipper = ship.Shipper(log, ship.make_sender())
    assert not shipper.ship()
    assert shipper.ship()
    assert {request.headers["content-type"] for request in receiver.requests} == {JSON}


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_who_is_busy_is_asked_again_soon(log: Directory, receiver: Receiver, shipper: ship.Shipper, code: int) -> None:
    receiver.then(*[Reply(code)] * 3)
    for _ in range(3):
        assert not shipper.ship()
    assert f"HTTP {code}" in told(log)
    assert "delivery stands still since" in told(log)
    assert (state(log).size, receiver.indexes) == (0, [])
    assert shipper.pause(100) <= 36
    assert shipper.ship()
    assert (receiver.indexes, told(log)) == (ALL, "")


@pytest.mark.parametrize("code", [301, 307, 401, 403, 404, 422, 500])
def test_who_refuses_is_asked_again_slowly_and_nothing_is_skipped(
    log: Directory, receiver: Receiver, shipper: ship.Shipper, code: int
) -> None:
    receiver.then(Reply(code, {"location": "/elsewhere", "content-type": "text/plain"}, b"because"))
    assert not shipper.ship()
    assert f"HTTP {code}: {'it is elsewhere' if code < 400 else 'because'}" in told(log)
    assert (state(log).size, receiver.indexes) == (0, [])
    assert shipper.pause(100) >= 200
    assert shipper.ship()
    assert receiver.indexes == ALL
    assert {request.path for request in receiver.requests} == {"/v1/traces"}


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_retry_after_is_kept_to(log: Directory, receiver: Receiver, shipper: ship.Shipper, kind: str) -> None:
    after = "2" if kind == "seconds" else formatdate(time.time() + 2.9, usegmt=True)
    receiver.then(Reply(503, {"retry-after": after}))
    begin = time.monotonic()
    assert not shipper.ship()
    assert not shipper.ship()
    assert len(receiver.requests) == 1
    assert 1 < shipper.pause(1) <= 3
    while not shipper.ship():
        time.sleep(shipper.pause(1))
    assert time.monotonic() - begin > 1.5
    assert (receiver.indexes, len(receiver.requests)) == (ALL, 2)


@pytest.mark.parametrize("after", ["soon", "-5", "nan", "inf", "", "Thu, 01 Jan 1970 00:00:00 GMT", "1e400"])
def test_a_retry_after_that_says_nothing_delays_nothing(
    log: Directory, receiver: Receiver, shipper: ship.Shipper, after: str
) -> None:
    receiver.then(Reply(429, {"retry-after": after}))
    assert not shipper.ship()
    assert shipper.pause(1) < 1
    assert shipper.ship()


def test_a_retry_after_of_a_year_is_an_hour(log: Directory, receiver: Receiver, shipper: ship.Shipper) -> None:
    receiver.then(Reply(429, {"retry-after": "31536000"}))
    assert not shipper.ship()
    assert 3590 < shipper.pause(1) <= 3600


def test_who_does_not_answer_is_left_in_time(
    log: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    receiver.then(HANG)
    shipper = ship.Shipper(log, ship.make_sender())
    begin = time.monotonic()
    assert not shipper.ship()
    assert time.monotonic() - begin < 3
    assert "does not answer in time" in told(log)
    assert shipper.ship()
    assert receiver.indexes == ALL


def test_a_connection_that_breaks_is_tried_again_at_once(
    log: Directory, receiver: Receiver, shipper: ship.Shipper
) -> None:
    receiver.then(RESET)
    assert shipper.ship()
    assert receiver.indexes == ALL
    receiver.then(RESET, RESET)
    log.delivery.unlink()
    again = ship.Shipper(log, ship.make_sender())
    assert not again.ship()
    assert "cannot be reached" in told(log)
    assert again.ship()


def test_nobody_there(log: Directory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@127.0.0.1:9")
    shipper = ship.Shipper(log, ship.make_sender())
    for _ in range(3):
        assert not shipper.ship()
    assert "Connection refused" in told(log)
    assert "secret" not in told(log) + caplog.text
    assert caplog.text.count("delivery stands still") == 1


# -- too large -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [Reply(413), Reply(400, {"content-type": "text/plain"}, b"http: request body too large")]
)
def test_what_is_too_large_is_sent_in_parts(
    log: Directory, receiver: Receiver, shipper: ship.Shipper, reply: Reply
) -> None:
    receiver.reply = lambda request: reply if len(request.body) > 20_000 else Reply()
    assert shipper.ship()
    assert sorted(receiver.indexes) == ALL
    assert len(receiver.accepted) > 1
    assert {request.headers["content-type"] for request in receiver.requests} == {JSON}
    assert (state(log).size, state(log).rejected) == (21, ())


def test_one_record_that_is_too_large_holds_up_no_other(
    log: Directory, receiver: Receiver, shipper: ship.Shipper
) -> None:
    receiver.reply = lambda request: Reply(413) if 5 in request.indexes else Reply()
    assert shipper.ship()
    assert sorted(receiver.indexes) == [index for index in ALL if index != 5]
    assert state(log).size == 21
    (rejected,) = state(log).rejected
    assert (rejected.first, rejected.end, rejected.spans) == (5, 6, 1)
    assert "HTTP 413" in rejected.reason
    assert "1 records of the entries 5 to 5 were not taken" in told(log)


def test_what_breaks_the_connection_because_it_is_too_large_gets_through_in_parts(
    tmp_path: Path, receiver: Receiver
) -> None:
    log = make_log(tmp_path / "log", 600, batch=600)
    receiver.limit = 500_000
    shipper = ship.Shipper(log, ship.make_sender())
    for _ in range(6):
        if shipper.ship():
            break
        assert "delivery stands still" in told(log)
    assert (sorted(set(receiver.indexes)), state(log).rejected) == (list(range(601)), ())
    assert told(log) == ""


def test_one_record_that_breaks_the_connection_again_and_again_holds_up_no_other(
    log: Directory, receiver: Receiver
) -> None:
    path = next(log.log.iterdir())
    path.write_bytes(path.read_bytes().replace(b"updated test.row", b"x" * 100_000, 3))
    receiver.limit = 100_000
    shipper = ship.Shipper(log, ship.make_sender())
    for _ in range(40):
        if shipper.ship():
            break
    assert state(log).size == 21
    assert sum(item.spans for item in state(log).rejected) == 3
    assert sorted({*ALL} - {*receiver.indexes}) == [1, 2, 3]
    assert "too large" in told(log)


def test_large_batches_are_divided_before_they_are_sent(tmp_path: Path, receiver: Receiver) -> None:
    log = make_log(tmp_path / "large", 3000, batch=3000)
    shipper = ship.Shipper(log, ship.make_sender())
    assert shipper.ship()
    assert receiver.indexes == list(range(3001))
    assert len(receiver.requests) > 1
    assert max(len(request.body) for request in receiver.requests) < 10_000_000


# -- partial success -----------------------------------------------------------------------------------------------


def partial(kind: str, spans: int, message: str) -> Reply:
    if kind == JSON:
        return Reply(body=orjson.dumps({"partialSuccess": {"rejectedSpans": str(spans), "errorMessage": message}}))
    success = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=spans, error_message=message)
    return Reply(body=trace_service_pb2.ExportTraceServiceResponse(partial_success=success).SerializeToString())


@pytest.mark.parametrize(("protocol", "kind"), [("http/json", JSON), ("http/protobuf", PROTOBUF)])
def test_what_is_rejected_is_remembered_and_not_sent_again_at_once(
    log: Directory, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, protocol: str, kind: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    receiver.then(partial(kind, 3, "no room for three"))
    shipper = ship.Shipper(log, ship.make_sender())
    assert shipper.ship()
    assert shipper.ship()
    assert len(receiver.requests) == 1
    assert (state(log).size, state(log).rejected) == (21, (Rejected(0, 21, 3, "no room for three"),))
    assert "3 records of the entries 0 to 20 were not taken" in told(log)
    assert main(["status", str(log.path)]) == 3
    # It survives the process, and ends when they are sent and taken.
    again = ship.Shipper(log, ship.make_sender())
    assert again.delivery.rejected
    assert all(again.send(ship.items_of(block)) for block in reader.batches(log.log))
    assert (state(log).rejected, told(log)) == ((), "")


def test_a_warning_without_a_rejection_is_only_told(
    log: Directory, receiver: Receiver, shipper: ship.Shipper, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.then(partial(JSON, 0, "please send less"))
    assert shipper.ship()
    assert "please send less" in caplog.text
    assert state(log).rejected == ()


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b'{"partialSuccess":{"rejectedSpans":"x"}}', b'{"a":'])
def test_an_answer_that_cannot_be_read_is_success(
    log: Directory, receiver: Receiver, shipper: ship.Shipper, body: bytes
) -> None:
    receiver.then(Reply(202, {"content-type": JSON}, body))
    assert shipper.ship()
    assert (state(log).size, state(log).rejected) == (21, ())


def test_an_endless_answer_is_not_read_to_its_end(log: Directory, receiver: Receiver, shipper: ship.Shipper) -> None:
    receiver.then(Reply(500, {"content-type": "text/plain"}, b"x" * 50_000_000))
    assert not shipper.ship()
    assert len(told(log)) < 1000
    assert shipper.ship()


def test_an_entry_of_a_later_version_is_remembered_and_holds_up_no_other(
    log: Directory, receiver: Receiver, shipper: ship.Shipper
) -> None:
    path = next(log.log.iterdir())
    path.write_bytes(path.read_bytes().replace(b'"v":2}', b'"v":9}', 3))
    assert shipper.ship()
    assert len(receiver.indexes) == 18
    assert sum(item.spans for item in state(log).rejected) == 3
    assert "version '9'" in told(log)


def test_ranges_are_put_together_and_cut() -> None:
    one = Delivery().with_rejected([Rejected(0, 10, 1, "a"), Rejected(10, 20, 2, "a"), Rejected(30, 40, 1, "b")])
    assert one.rejected == (Rejected(0, 20, 3, "a"), Rejected(30, 40, 1, "b"))
    assert one.without(5, 35).rejected == (Rejected(0, 5, 3, "a"), Rejected(35, 40, 1, "b"))
    assert one.without(0, 40).rejected == ()
    many = Delivery().with_rejected([Rejected(n * 10, n * 10 + 1, 1, str(n)) for n in range(1000)])
    assert len(many.rejected) <= 100
    assert sum(item.spans for item in many.rejected) == 1000
    assert many.rejected[-1].end == 9991


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[1]", b'{"file":"x","offset":1,"size":1,"rejected":[[1,2]]}', b"\x00"]
)
def test_a_damaged_state_means_from_the_start(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "delivery.json"
    path.write_bytes(damage)
    assert Delivery.load(path) == Delivery()


# -- the end of a process ------------------------------------------------------------------------------------------


def test_a_receiver_that_hangs_does_not_hold_up_the_end_of_a_process_for_long(
    make_records: Make, receiver: Receiver
) -> None:
    receiver.reply = lambda request: HANG
    begin = time.monotonic()
    directory = make_records(3)
    first = time.monotonic() - begin
    assert first < 8
    assert "did not answer within" in told(directory)
    # The next ones know, and do not wait for it.
    begin = time.monotonic()
    make_records(3)
    assert time.monotonic() - begin < 2
    receiver.reply = lambda request: Reply()
    make_records(1)
    assert sorted(set(receiver.indexes)) == list(range(state(directory).size)) != []
    assert told(directory) == ""


def test_what_comes_back_after_the_end_changes_nothing(log: Directory, receiver: Receiver) -> None:
    shipper = ship.Shipper(log, ship.make_sender())
    shipper.stop()
    assert not shipper.ship()
    assert not log.delivery.exists()
    shipper.settled(0, 5)
    assert not log.delivery.exists()


# -- gRPC ----------------------------------------------------------------------------------------------------------

Answer = Callable[[Any, grpc.ServicerContext], Any]


class Service(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
    """A gRPC receiver that answers as it is told."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        if self.answers:
            return self.answers.pop(0)(request, context)
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def indexes(self) -> list[int]:
        spans = [s for r in self.requests for p in r.resource_spans for c in p.scope_spans for s in c.spans]
        return [a.value.int_value for s in spans for a in s.attributes if a.key == "audit.log.index"]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    made = Service()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20a%2Cb")
    yield made
    server.stop(None).wait()


def failing(code: grpc.StatusCode, details: str = "because", retry: float | None = None) -> Answer:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if retry is not None:
            info = RetryInfo()
            info.retry_delay.FromMilliseconds(int(retry * 1000))
            packed = AnyMessage()
            packed.Pack(info)
            said = Status(code=code.value[0], message=details, details=[packed])
            context.set_trailing_metadata((("grpc-status-details-bin", said.SerializeToString()),))
        context.abort(code, details)

    return answer


def test_grpc_delivers_with_headers(log: Directory, service: Service) -> None:
    shipper = ship.Shipper(log, ship.make_sender())
    assert shipper.ship()
    assert sorted(service.indexes) == ALL
    assert service.metadata[0]["authorization"] == "Bearer a,b"
    shipper.close()


def test_grpc_partial_success(log: Directory, service: Service) -> None:
    success = trace_service_pb2.ExportTracePartialSuccess(rejected_spans=2, error_message="two are bad")
    service.answers = [lambda *_: trace_service_pb2.ExportTraceServiceResponse(partial_success=success)]
    shipper = ship.Shipper(log, ship.make_sender())
    assert shipper.ship()
    assert state(log).rejected == (Rejected(0, 21, 2, "two are bad"),)
    shipper.close()


@pytest.mark.parametrize(
    ("code", "slow"),
    [
        (grpc.StatusCode.UNAVAILABLE, False),
        (grpc.StatusCode.DEADLINE_EXCEEDED, False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.INVALID_ARGUMENT, True),
        (grpc.StatusCode.UNIMPLEMENTED, True),
    ],
)
def test_grpc_failures_are_told_and_tried_again(
    log: Directory, service: Service, code: grpc.StatusCode, slow: bool
) -> None:
    service.answers = [failing(code)]
    shipper = ship.Shipper(log, ship.make_sender())
    assert not shipper.ship()
    assert f"{code.name}: because" in told(log)
    assert (shipper.pause(100) > 100) is slow
    assert shipper.ship()
    assert sorted(service.indexes) == ALL
    shipper.close()


def test_grpc_says_when_to_come_again(log: Directory, service: Service) -> None:
    service.answers = [failing(grpc.StatusCode.RESOURCE_EXHAUSTED, retry=7.5)]
    shipper = ship.Shipper(log, ship.make_sender())
    assert not shipper.ship()
    assert 7 < shipper.pause(1) <= 7.5
    shipper.close()


def test_grpc_too_large_is_sent_in_parts(tmp_path: Path, service: Service) -> None:
    log = make_log(tmp_path / "large", 300, batch=300)
    large = "received message larger than max (9 vs. 8)"

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        service.answers.append(answer)
        if request.ByteSize() > 200_000:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, large)
        service.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    service.answers = [answer]
    shipper = ship.Shipper(log, ship.make_sender())
    assert shipper.ship()
    assert sorted(service.indexes) == list(range(301))
    shipper.close()


def test_grpc_hangs(log: Directory, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.3")
    service.answers = [lambda *_: time.sleep(1)]
    shipper = ship.Shipper(log, ship.make_sender())
    begin = time.monotonic()
    assert not shipper.ship()
    assert time.monotonic() - begin < 0.9
    assert "DEADLINE_EXCEEDED" in told(log)
    assert shipper.ship()
    shipper.close()


def test_grpc_is_away_and_comes_back(log: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    shipper = ship.Shipper(log, ship.make_sender())
    begin = time.monotonic()
    assert not shipper.ship()
    assert time.monotonic() - begin < 4
    assert "UNAVAILABLE" in told(log)
    shipper.close()
