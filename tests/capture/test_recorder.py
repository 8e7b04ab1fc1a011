# SPDX-License-Identifier: Apache-2.0
"""Records, runs and the way of a run through contexts, baggage and environment variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from auditspan import schema
from auditspan.capture import environ
from auditspan.capture import run as runs
from auditspan.capture.actor import Actor
from auditspan.capture.recorder import Event, Recorder, Target, inside
from auditspan.capture.run import Run
from auditspan.capture.sampling import AuditSampler
from auditspan.capture.version import ScriptVersion
from auditspan.schema.events import DataRead
from tests.plugins.conftest import Audited

SCRIPT = ScriptVersion("1.0", "declared", "script")
RUN = Run("run-1", "flow", schema.TriggerType.SCHEDULE, "cron[minute='*/5']", SCRIPT)


def event(action: str = "READ") -> Event:
    return Event(
        name="thing",
        details=DataRead(action=action),
        actor=Actor("someone", schema.ActorType.USER, schema.ActorEvidence.DECLARED),
        target=Target("row", "table"),
    )


@pytest.fixture
def recorder() -> tuple[Recorder, Audited]:
    harness = Audited()
    return Recorder("test.plugin", "1", harness.provider), harness


def test_what_is_inside_a_run_joins_it(recorder: tuple[Recorder, Audited]) -> None:
    make, seen = recorder
    with make.record(event("EXECUTE"), opens=RUN) as outer, make.record(event()):
        pass
    inner_record, outer_record = seen.records
    for name, value in ((schema.RUN_ID, "run-1"), (schema.TRIGGER_RULE, RUN.rule), (schema.SCRIPT_VERSION, "1.0")):
        assert inner_record[name] == outer_record[name] == value
    assert inner_record[schema.PARENT_RECORD_ID] == outer.id
    assert schema.PARENT_RUN_ID not in inner_record
    assert seen.spans[0].parent is not None
    assert seen.spans[0].context.trace_id == seen.spans[1].context.trace_id
    assert runs.current() is None, "the context was left"


def test_a_plugin_may_choose_the_id_of_its_record_and_what_is_inside_of_it_names_that(
    recorder: tuple[Recorder, Audited],
) -> None:
    make, seen = recorder
    chosen = "6f2a1f0e-5a4f-4e0b-9c0f-0d5f6c0a7a11"
    mine = replace(event("EXECUTE"), attributes={schema.RECORD_ID: chosen})
    with make.record(mine, opens=RUN) as outer, make.record(event()):
        handed = environ.extract(environ.carrier())
    inner_record, outer_record = seen.records
    assert outer.id == outer_record[schema.RECORD_ID] == chosen
    assert inner_record[schema.PARENT_RECORD_ID] == chosen
    assert runs.ancestor(handed) == inner_record[schema.RECORD_ID]


def test_an_exception_is_a_failure_without_its_words(recorder: tuple[Recorder, Audited]) -> None:
    make, seen = recorder
    with pytest.raises(KeyError, match="secret"), make.record(event(), opens=RUN):
        raise KeyError("secret")
    (record,) = seen.records
    assert record[schema.OUTCOME] == "failure"
    assert record[schema.ERROR_TYPE] == "KeyError"
    assert "secret" not in seen.spans[0].to_json()


def test_outside_of_any_run_the_trigger_is_said_to_be_unknown(recorder: tuple[Recorder, Audited]) -> None:
    make, seen = recorder
    with make.record(event()):
        pass
    (record,) = seen.records
    assert record[schema.TRIGGER_TYPE] == record[schema.TRIGGER_RULE] == record[schema.SCRIPT_VERSION] == "unknown"


def test_a_run_survives_the_start_of_a_process(recorder: tuple[Recorder, Audited]) -> None:
    make, seen = recorder
    with make.record(event("EXECUTE"), opens=RUN) as outer:
        variables = environ.carrier()
    assert set(variables) >= {"TRACEPARENT", "BAGGAGE"}
    handed = environ.extract({**variables, "OTHER": "x"})
    assert runs.current(handed) == RUN
    with make.record(event(), context=handed):
        pass
    child = seen.records[-1]
    assert child[schema.RUN_ID] == "run-1"
    assert child[schema.PARENT_RECORD_ID] == outer.id
    assert schema.PARENT_RUN_CLAIMED not in child
    assert seen.spans[-1].context.trace_id == seen.spans[0].context.trace_id


@pytest.mark.parametrize("run_id", ["x" * 10_000, "a\nb\x00c", "ordinary"])
def test_a_strangers_baggage_is_bounded_and_marked(recorder: tuple[Recorder, Audited], run_id: str) -> None:
    make, seen = recorder
    stranger = baggage.set_baggage(schema.RUN_ID, run_id, Context())
    stranger = baggage.set_baggage(schema.TRIGGER_TYPE, "no such type", stranger)
    with make.record(
        event(), opens=Run("mine", "flow", schema.TriggerType.WEBHOOK, "POST /x", SCRIPT), context=stranger
    ):
        pass
    (record,) = seen.records
    assert record[schema.RUN_ID] == "mine"
    assert record[schema.PARENT_RUN_CLAIMED] is True
    assert len(record[schema.PARENT_RUN_ID]) <= 512
    assert record[schema.PARENT_RUN_ID].isprintable()


@pytest.mark.parametrize("sampler", [ALWAYS_OFF, ALWAYS_ON, DEFAULT_ON])
@pytest.mark.parametrize("remote_sampled", [None, True, False])
def test_audit_spans_are_recorded_and_nobody_elses_sampling_changes(
    sampler: Sampler, remote_sampled: bool | None
) -> None:
    def spans_of(audit: bool) -> tuple[list[str], list[str]]:
        provider = TracerProvider(sampler=AuditSampler(sampler) if audit else sampler, shutdown_on_exit=False)
        exporter, everything = InMemorySpanExporter(), Audited()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.add_span_processor(everything)
        tracer = provider.get_tracer("t")
        parent: Any = Context()
        if remote_sampled is not None:
            flags = TraceFlags(1 if remote_sampled else 0)
            parent = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 2, True, flags)), parent)
        with tracer.start_as_current_span("user", context=parent):
            if audit:
                with tracer.start_as_current_span("audit", attributes={schema.RECORD_ID: "1"}):
                    tracer.start_span("child").end()
            else:
                tracer.start_span("child").end()
        exported = [span.name for span in exporter.get_finished_spans() if span.name != "audit"]
        return exported, [span.name for span in everything.spans if span.name == "audit"]

    assert spans_of(audit=True)[0] == spans_of(audit=False)[0]
    assert spans_of(audit=True)[1] == ["audit"]


def test_a_claim_is_about_the_run_that_was_claimed_and_not_about_those_after_it(
    recorder: tuple[Recorder, Audited],
) -> None:
    make, audited = recorder
    stranger = baggage.set_baggage(schema.RUN_ID, "invented", Context())
    with make.record(event(), opens=replace(RUN, id="first"), context=runs.from_outside(stranger)):
        with make.record(event(), opens=replace(RUN, id="second")):
            pass
        with make.record(event()):
            pass
    second, inside_first, first = audited.records
    assert (first[schema.PARENT_RUN_ID], first[schema.PARENT_RUN_CLAIMED]) == ("invented", True)
    assert second[schema.PARENT_RUN_ID] == "first" and schema.PARENT_RUN_CLAIMED not in second
    assert (inside_first[schema.PARENT_RUN_ID], inside_first[schema.PARENT_RUN_CLAIMED]) == ("invented", True)


def test_finishing_twice_is_once(recorder: tuple[Recorder, Audited]) -> None:
    make, seen = recorder
    record = make.start(event(), opens=RUN)
    with inside(record):
        assert runs.current() == RUN
    record.finish(schema.Outcome.UNKNOWN)
    record.finish(schema.Outcome.FAILURE)
    assert [found[schema.OUTCOME] for found in seen.records] == ["unknown"]
    assert context.get_current() == Context() or runs.current() is None
