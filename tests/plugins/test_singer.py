# SPDX-License-Identifier: Apache-2.0
"""The plugin on the real Singer SDK: small taps and targets, run as the SDK runs them."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from singer_sdk import BatchSink, RecordSink, Stream, Tap
from singer_sdk import Target as SingerTarget
from singer_sdk import typing as th
from singer_sdk.exceptions import MaxRecordsLimitException
from singer_sdk.plugin_base import BaseSingerReader

from auditspan import schema
from auditspan.capture import faults
from auditspan.capture.state import state_hash
from auditspan.connectors import singer as plugin
from auditspan.connectors.singer import SingerInstrumentor
from auditspan_seal.formats import statement as statements
from auditspan_seal.log import reader
from auditspan_seal.log.directory import open_directory
from tests.conftest import Run
from tests.plugins.conftest import Audited

SECRET_CONFIG = "s3cret-in-the-config"
SECRET_ROW = "s3cret-in-a-row"
SECRET_ERROR = "s3cret-in-an-error"
ROWS = [{"date": f"2012-01-{day:02}", "text": SECRET_ROW} for day in range(1, 11)]


class Days(Stream):
    """Sorted and incremental."""

    name = "days"
    primary_keys = ("date",)
    replication_key = "date"
    is_sorted = True
    schema = th.PropertiesList(
        th.Property("date", th.DateType), th.Property("text", th.StringType), th.Property("month", th.IntegerType)
    ).to_dict()

    def get_records(self, context: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
        start = self.get_starting_replication_key_value(context) or ""
        for count, row in enumerate(row for row in ROWS if row["date"] > start):
            if count == self.config.get("fail_after"):
                raise ConnectionError(SECRET_ERROR)
            yield dict(row)


class Months(Stream):
    """The parent of `Hours`: two rows."""

    name = "months"
    primary_keys = ("month",)
    schema = th.PropertiesList(th.Property("month", th.IntegerType)).to_dict()

    def get_records(self, context: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
        yield from ({"month": 1}, {"month": 2})

    def get_child_context(self, record: Any, context: Any) -> Any:
        return {"month": record["month"]}


class Hours(Days):
    """A child: once per month, each with a bookmark of its own."""

    name = "hours"
    parent_stream_type = Months
    ignore_parent_replication_key = True

    def _write_record_message(self, record: Any) -> None:
        super()._write_record_message(record)  # overridden, as some taps do: rows must be counted all the same


class TapWeather(Tap):
    name = "tap-weather-in-a-test"
    config_jsonschema = th.PropertiesList(
        th.Property("api_key", th.StringType, secret=True),
        th.Property("fail_after", th.IntegerType),
        th.Property("kind", th.StringType),
    ).to_dict()

    def discover_streams(self) -> list[Stream]:
        return [Months(self), Hours(self)] if self.config.get("kind") == "children" else [Days(self)]


class Written:
    rows: ClassVar[list[dict[str, Any]]] = []


class Batches(BatchSink):
    max_size = 4

    def process_batch(self, context: dict[str, Any]) -> None:
        if self.config.get("fail_in_batch"):
            raise ConnectionError(SECRET_ERROR)
        Written.rows += context["records"]


class OneByOne(RecordSink):
    def process_record(self, record: dict[str, Any], context: dict[str, Any]) -> None:
        if str(record["date"]) == self.config.get("fail_at"):
            raise ConnectionError(SECRET_ERROR)
        Written.rows.append(record)


class TargetList(SingerTarget):
    name = "target-list-in-a-test"
    config_jsonschema = th.PropertiesList(
        th.Property("password", th.StringType, secret=True),
        th.Property("fail_in_batch", th.BooleanType),
        th.Property("fail_at", th.StringType),
        th.Property("one_by_one", th.BooleanType),
    ).to_dict()

    def get_sink_class(self, stream_name: str) -> Any:
        return OneByOne if self.config.get("one_by_one") else Batches


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """The SDK installs signal handlers in every tap and target."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    Written.rows.clear()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def make_tap(state: dict[str, Any] | None = None, **config: Any) -> TapWeather:
    return TapWeather(config={"api_key": SECRET_CONFIG, **config}, state=state)


def make_target(**config: Any) -> TargetList:
    return TargetList(config={"password": SECRET_CONFIG, **config})


def messages(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def singer_input(*streams: str, rows: int = 10, broken: bool = False) -> io.StringIO:
    lines: list[Any] = [
        {"type": "SCHEMA", "stream": stream, "schema": Days.schema, "key_properties": ["date"]} for stream in streams
    ]
    for number, row in enumerate(ROWS[:rows]):
        lines += [{"type": "RECORD", "stream": stream, "record": row} for stream in streams]
        if number == 5:
            lines.append({"type": "STATE", "value": {"bookmarks": {"half": 1}}})
    lines.append({"type": "STATE", "value": {"bookmarks": {"all": 2}}})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    return io.StringIO(text + ('{"type": "NONSENSE"}\n' if broken else ""))


def of_type(audited: Audited, target_type: str) -> list[dict[str, Any]]:
    return [record for record in audited.records if record[schema.TARGET_TYPE] == target_type]


@pytest.fixture
def no_secrets(audited: Audited) -> Iterator[None]:
    yield
    for span in audited.spans:
        text = span.to_json()
        assert not re.search("s3cret", text), text


pytestmark = pytest.mark.usefixtures("no_secrets")


# -- taps ----------------------------------------------------------------------------------------------------------
def test_a_first_sync_and_an_incremental_one(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    audited.instrument(SingerInstrumentor)
    first = make_tap()
    first.sync_all()
    state = messages(capsys.readouterr().out)[-1]["value"]
    state["bookmarks"]["days"]["replication_key_value"] = "2012-01-07"
    kept = json.loads(json.dumps(state))
    make_tap(state).sync_all()

    one, two = of_type(audited, "singer.stream")
    assert one[schema.EVENT_TYPE] == "data.read"
    assert one[schema.ACTION] == "READ"
    assert one[schema.TARGET_ID] == one[schema.CONNECTOR_STREAM] == "days"
    assert one[schema.OUTCOME] == two[schema.OUTCOME] == "success"
    assert (one[schema.CONNECTOR_ROWS_READ], two[schema.CONNECTOR_ROWS_READ]) == (10, 3)
    assert schema.CONNECTOR_BOOKMARK_BEFORE not in one
    assert two[schema.CONNECTOR_BOOKMARK_BEFORE] == "2012-01-07"
    assert one[schema.CONNECTOR_BOOKMARK_AFTER] == two[schema.CONNECTOR_BOOKMARK_AFTER] == "2012-01-10"
    assert one[schema.STATE_BEFORE_HASH] == state_hash({})
    assert two[schema.STATE_BEFORE_HASH] == state_hash(kept["bookmarks"]["days"])
    assert one[schema.STATE_AFTER_HASH] == two[schema.STATE_AFTER_HASH] == state_hash(first.state["bookmarks"]["days"])

    runs = of_type(audited, "singer.tap")
    assert [run[schema.CONNECTOR_ROWS_READ] for run in runs] == [10, 3]
    assert [run[schema.EVENT_TYPE] for run in runs] == ["workflow.execution.finished"] * 2
    assert runs[0][schema.STATE_AFTER_HASH] == state_hash(first.state)
    assert runs[1][schema.STATE_BEFORE_HASH] == state_hash(kept)
    assert one[schema.PARENT_RECORD_ID] == runs[0][schema.RECORD_ID]
    assert one[schema.RUN_ID] == runs[0][schema.RUN_ID] != runs[1][schema.RUN_ID]
    assert runs[0][schema.TRIGGER_TYPE] == "unknown"


def test_a_sync_without_news_changes_no_state(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    done = {"bookmarks": {"days": {"replication_key": "date", "replication_key_value": "2012-01-10"}}}
    make_tap(done).sync_all()
    for record in audited.records:
        assert record[schema.CONNECTOR_ROWS_READ] == 0
        assert record[schema.STATE_BEFORE_HASH] == record[schema.STATE_AFTER_HASH]


def test_a_stream_that_fails_tells_how_far_it_came(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    with pytest.raises(ConnectionError, match=SECRET_ERROR):
        make_tap(fail_after=4).sync_all()
    stream, run = audited.records
    for record in (stream, run):
        assert record[schema.OUTCOME] == "failure"
        assert record[schema.ERROR_TYPE] == "ConnectionError"
        assert record[schema.CONNECTOR_ROWS_READ] == 4
    assert stream[schema.CONNECTOR_BOOKMARK_AFTER] == "2012-01-04"


def test_child_streams_are_recorded_by_partition_inside_their_parent(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    tap = make_tap(kind="children")
    tap.sync_all()
    one, two, parent, run = audited.records
    assert [record[schema.TARGET_ID] for record in audited.records[:3]] == ["hours", "hours", "months"]
    assert one[schema.PARENT_RECORD_ID] == two[schema.PARENT_RECORD_ID] == parent[schema.RECORD_ID]
    assert parent[schema.PARENT_RECORD_ID] == run[schema.RECORD_ID]
    assert [record[schema.CONNECTOR_ROWS_READ] for record in audited.records] == [10, 10, 2, 22]
    partitions = tap.state["bookmarks"]["hours"]["partitions"]
    assert one[schema.STATE_AFTER_HASH] == state_hash(partitions[0])
    assert two[schema.STATE_AFTER_HASH] == state_hash(partitions[1])
    assert one[schema.STATE_BEFORE_HASH] == two[schema.STATE_BEFORE_HASH] == state_hash({})
    assert two[schema.CONNECTOR_BOOKMARK_AFTER] == "2012-01-10"


def test_a_parent_that_is_read_for_its_children_alone_has_no_row_count(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    tap = make_tap(kind="children")
    tap.streams["months"].selected = False
    tap.sync_all()
    *_, parent, run = audited.records
    assert parent[schema.TARGET_ID] == "months"
    assert schema.CONNECTOR_ROWS_READ not in parent
    assert run[schema.CONNECTOR_ROWS_READ] == 20


def test_a_connection_test_is_a_test(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    assert make_tap().run_connection_test() is True
    stream, run = audited.records
    assert (run[schema.ACTION], run[schema.OUTCOME]) == ("TEST", "success")
    assert stream[schema.CONNECTOR_ROWS_READ] == 1
    assert stream[schema.ERROR_TYPE] == "singer_sdk.exceptions.AbortedSyncPausedException"
    assert MaxRecordsLimitException.__name__ not in str(stream)


def test_the_version_is_never_the_librarys_placeholder(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plugin._version.cache_clear()
    audited.instrument(SingerInstrumentor)
    make_tap().sync_all()
    run = audited.records[-1]
    assert run[schema.SCRIPT_VERSION_SOURCE] in ("vcs", "source_hash")  # this file: committed, or being worked on
    assert run[schema.SCRIPT_NAME].endswith(".TapWeather")
    assert run[schema.CONNECTOR_VERSION] == run[schema.SCRIPT_VERSION]
    assert run[schema.CONNECTOR_NAME] == "tap-weather-in-a-test"

    plugin._version.cache_clear()
    monkeypatch.setattr(TapWeather, "package_name", "singer-sdk")
    make_tap().sync_all()
    assert audited.records[-1][schema.SCRIPT_VERSION_SOURCE] == "package"
    assert audited.records[-1][schema.SCRIPT_NAME] == "singer-sdk"

    plugin._version.cache_clear()
    monkeypatch.setattr(TapWeather, "get_plugin_version", classmethod(lambda cls: "7.1"))
    make_tap().sync_all()
    run = audited.records[-1]
    assert (run[schema.SCRIPT_VERSION], run[schema.SCRIPT_VERSION_SOURCE]) == ("7.1", "declared")
    plugin._version.cache_clear()


# -- targets -------------------------------------------------------------------------------------------------------
def test_every_batch_is_recorded_and_empty_ones_are_not(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    make_target().listen(singer_input("days"))
    *batches, run = audited.records
    assert [batch[schema.CONNECTOR_ROWS_WRITTEN] for batch in batches] == [4, 4, 2]
    for batch in batches:
        assert batch[schema.EVENT_TYPE] == "data.write"
        assert (batch[schema.TARGET_TYPE], batch[schema.TARGET_ID]) == ("singer.sink", "days")
        assert batch[schema.OUTCOME] == "success"
        assert batch[schema.PARENT_RECORD_ID] == run[schema.RECORD_ID]
    assert (run[schema.TARGET_TYPE], run[schema.CONNECTOR_ROWS_WRITTEN]) == ("singer.target", 10)
    assert run[schema.STATE_AFTER_HASH] == state_hash({"bookmarks": {"all": 2}})
    assert len(Written.rows) == 10


def test_sinks_that_are_drained_in_threads_belong_to_the_run(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    make_target().listen(singer_input("days", "nights", rows=3))
    run = audited.records[-1]
    sinks = audited.records[:-1]
    assert sorted(sink[schema.TARGET_ID] for sink in sinks) == ["days", "nights"]
    assert {sink[schema.PARENT_RECORD_ID] for sink in sinks} == {run[schema.RECORD_ID]}
    assert {sink[schema.RUN_ID] for sink in sinks} == {run[schema.RUN_ID]}
    assert len({span.context.trace_id for span in audited.spans if span.context}) == 1
    assert run[schema.CONNECTOR_ROWS_WRITTEN] == 6


def test_a_batch_that_fails(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    with pytest.raises(ConnectionError, match=SECRET_ERROR):
        make_target(fail_in_batch=True).listen(singer_input("days"))
    batch, run = audited.records
    for record in (batch, run):
        assert (record[schema.OUTCOME], record[schema.ERROR_TYPE]) == ("failure", "ConnectionError")
    assert schema.CONNECTOR_ROWS_WRITTEN not in batch  # it may have written some of them
    assert run[schema.CONNECTOR_ROWS_WRITTEN] == 0
    assert schema.STATE_AFTER_HASH not in run


def test_rows_written_one_by_one(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    make_target(one_by_one=True).listen(singer_input("days"))
    sink, run = audited.records
    assert sink[schema.CONNECTOR_ROWS_WRITTEN] == run[schema.CONNECTOR_ROWS_WRITTEN] == 10


def test_rows_written_one_by_one_before_a_failure(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    with pytest.raises(ConnectionError):
        make_target(one_by_one=True, fail_at="2012-01-07").listen(singer_input("days"))
    sink, run = audited.records
    assert sink[schema.CONNECTOR_ROWS_WRITTEN] == run[schema.CONNECTOR_ROWS_WRITTEN] == len(Written.rows) == 6
    assert sink[schema.OUTCOME] == run[schema.OUTCOME] == "failure"


def test_rows_written_one_by_one_are_counted_once(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    target = make_target(one_by_one=True)
    for rows in (3, 5):
        target.process_lines(singer_input("days", rows=rows))
        target.drain_all()
    target.drain_all()
    assert [record[schema.CONNECTOR_ROWS_WRITTEN] for record in audited.records] == [3, 5]


def test_input_that_is_broken_at_its_end(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    with pytest.raises(ValueError, match="Unknown message type"):
        make_target().listen(singer_input("days", broken=True))
    run = audited.records[-1]
    assert run[schema.ERROR_TYPE] == "ValueError"
    assert run[schema.CONNECTOR_ROWS_WRITTEN] == len(Written.rows) == 8


def test_a_target_that_the_program_feeds_itself(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    target = make_target()
    with audited.provider.get_tracer("program").start_as_current_span("load") as span:
        target.process_lines(singer_input("days", "nights", rows=3))
        target.process_endofpipe()
    assert [record[schema.CONNECTOR_ROWS_WRITTEN] for record in audited.records] == [3, 3]
    assert {own.context.trace_id for own in audited.spans if own.context} == {span.get_span_context().trace_id}


def test_rows_that_come_as_files(audited: Audited, tmp_path: Path) -> None:
    audited.instrument(SingerInstrumentor)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    encoding = {"format": "jsonl", "compression": "none"}
    batch = {"type": "BATCH", "stream": "days", "encoding": encoding, "manifest": [file.as_uri()]}
    lines = singer_input("days", rows=0).getvalue() + json.dumps(batch) + "\n"
    make_target().listen(io.StringIO(lines))
    write, run = audited.records
    assert (write[schema.TARGET_ID], write[schema.EVENT_TYPE]) == ("days", "data.write")
    assert len(Written.rows) == 10
    for record in (write, run):
        assert schema.CONNECTOR_ROWS_WRITTEN not in record  # the library does not count them


# -- the application comes first -----------------------------------------------------------------------------------
def without_times(output: str) -> str:
    return re.sub(r'"time_extracted": ?"[^"]*"', "", output)


@pytest.mark.parametrize("kind", ["days", "children"])
def test_what_a_tap_prints_is_the_same(audited: Audited, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    plain_tap = make_tap(kind=kind)
    plain_tap.sync_all()
    plain = capsys.readouterr()
    audited.instrument(SingerInstrumentor)
    tap = make_tap(kind=kind)
    assert tap.sync_all() is None
    seen = capsys.readouterr()
    assert without_times(seen.out) == without_times(plain.out) != ""
    assert tap.state == plain_tap.state
    for name, stream in tap.streams.items():  # nothing of ours stays behind
        assert set(vars(stream)) == set(vars(plain_tap.streams[name]))


def test_what_the_application_replaced_in_a_stream_stays(audited: Audited) -> None:
    audited.instrument(SingerInstrumentor)
    tap = make_tap()
    written: list[Any] = []
    tap.streams["days"]._write_record_message = replaced = written.append
    tap.sync_all()
    assert tap.streams["days"]._write_record_message is replaced
    assert audited.records[0][schema.CONNECTOR_ROWS_READ] == len(written) == 10


def test_what_a_target_prints_is_the_same(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    make_target().listen(singer_input("days", "nights"))
    plain, rows = capsys.readouterr(), list(Written.rows)
    Written.rows.clear()
    audited.instrument(SingerInstrumentor)
    make_target().listen(singer_input("days", "nights"))
    assert capsys.readouterr().out == plain.out != ""
    assert sorted(map(str, Written.rows)) == sorted(map(str, rows))


@pytest.mark.parametrize("broken", ["_stream_state", "_event", "_total", "_bookmark", "_counted"])
def test_a_fault_of_ours_is_contained(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    make_tap().sync_all()
    plain = capsys.readouterr().out

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("injected")

    monkeypatch.setattr(plugin, broken, fail)
    audited.instrument(SingerInstrumentor)
    make_tap().sync_all()
    assert without_times(capsys.readouterr().out) == without_times(plain)
    make_target().listen(singer_input("days", "nights"))
    assert len(Written.rows) == 20
    with pytest.raises(ConnectionError):
        make_tap(fail_after=1).sync_all()
    assert faults.snapshot()
    assert all(where.startswith("singer: ") for where in faults.snapshot())
    for record in audited.records:  # a fault of ours is not a failure of theirs
        assert record.get(schema.ERROR_TYPE, "ConnectionError") == "ConnectionError"
    faults.forget()


def test_uninstrument_restores(audited: Audited) -> None:
    def methods() -> list[Any]:
        owners = ((Tap, "sync_all"), (Tap, "run_sync_dry_run"), (Stream, "sync"), (BaseSingerReader, "listen"))
        drains = ("drain_all", "drain_one", "_process_batch_message")
        return [vars(owner)[name] for owner, name in owners] + [vars(SingerTarget)[name] for name in drains]

    before = methods()
    audited.instrument(SingerInstrumentor)
    assert not any(now is then for now, then in zip(methods(), before, strict=True))
    audited.close()
    assert all(now is then for now, then in zip(methods(), before, strict=True))
    make_tap().sync_all()
    assert audited.spans == []


@pytest.mark.slow
def test_the_library_is_not_imported_for_the_sake_of_the_plugin() -> None:
    program = """
import sys
from auditspan.connectors.singer import SingerInstrumentor
SingerInstrumentor().instrument()
assert not any(name.startswith("singer_sdk") for name in sys.modules)
import singer_sdk
assert hasattr(singer_sdk.Tap.sync_all, "__wrapped__")
assert hasattr(singer_sdk.Target.listen, "__wrapped__")
SingerInstrumentor().uninstrument()
assert not hasattr(singer_sdk.Tap.sync_all, "__wrapped__")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


CLI = """
import sys
from singer_sdk import Stream, Tap, typing as th

class Days(Stream):
    name = "days"
    replication_key = "date"
    is_sorted = True
    schema = th.PropertiesList(th.Property("date", th.StringType)).to_dict()
    def get_records(self, context):
        yield from ({"date": f"2012-01-0{day}"} for day in range(1, 6))

class TapDays(Tap):
    name = "tap-days"
    def discover_streams(self):
        return [Days(self)]

if __name__ == "__main__":
    TapDays.cli(["--config", "ENV"])
"""


@pytest.mark.slow
def test_a_tap_on_the_command_line(instrumented: Run, log_folder: Path) -> None:
    plain = instrumented(CLI, instrument=False)
    done = instrumented(CLI)
    assert (done.returncode, without_times(done.stdout)) == (0, without_times(plain.stdout))
    found = [
        statements.decode(statement)["attributes"]
        for block in reader.blocks(open_directory(log_folder).log)
        if isinstance(block, reader.Block)
        for statement in block.statements
        if statements.decode(statement)["type"] == "span"
    ]
    began, stream, run = found
    assert began[schema.EVENT_TYPE] == "workflow.execution.started"
    assert began[schema.PARENT_RECORD_ID] == run[schema.RECORD_ID]
    assert (stream[schema.TARGET_ID], stream[schema.CONNECTOR_ROWS_READ]) == ("days", 5)
    assert (run[schema.TARGET_ID], run[schema.OUTCOME]) == ("tap-days", "success")
    assert run[schema.SCRIPT_VERSION_SOURCE] == "source_hash"
