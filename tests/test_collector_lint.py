# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables: one edit in a line
"""`auditspan backend lint`: the shipped configurations pass, and each rule has an edit of them that breaks it alone."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from auditspan.cli import main
from auditspan.collector_lint import RULES, Level, Report, lint, ottl
from auditspan_seal.errors import SourceError
from tests.environments import ROOT

FOLDER = ROOT / "collector-config"
AGENT, KAFKA_AGENT, KAFKA_GATEWAY = ("agent",), ("agent", "kafka-agent"), ("collector", "kafka-gateway")
RECEIVERS = (
    ("collector", "receiver-tls"),
    ("collector", "receiver-token"),
    ("collector", "receiver-tls", "receiver-token"),
)
SHIPPED = [
    ("collector",), ("collector", "archive"), *RECEIVERS, *((*some, "archive") for some in RECEIVERS),
    AGENT, ("agent", "agent-token"), KAFKA_AGENT, KAFKA_GATEWAY, (*KAFKA_GATEWAY, "archive"),
]  # fmt: skip
PUBLIC = {"AUDITSPAN_OTLP_GRPC": "0.0.0.0:4317", "AUDITSPAN_OTLP_HTTP": "0.0.0.0:4318"}

Edit = tuple[str, str]


def judge(tmp_path: Path, names: tuple[str, ...], edit: str | Edit = "", **environment: str) -> Report:
    """Lint shipped files with an edit: text that is merged over them, or a text of the first one for another."""
    files = [FOLDER / f"{name}.yaml" for name in names]
    if isinstance(edit, tuple):
        text = files[0].read_text()
        assert edit[0] in text, "the edit is of a text that is no longer there"
        files[0] = tmp_path / "edited.yaml"
        files[0].write_text(text.replace(*edit))
    elif edit:
        files.append(tmp_path / "over.yaml")
        files[-1].write_text(textwrap.dedent(edit))
    return lint(files, environment)


def broken(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings if finding.level is not Level.HINT}


@pytest.mark.parametrize("names", SHIPPED, ids="+".join)
def test_what_is_shipped_passes(tmp_path: Path, names: tuple[str, ...]) -> None:
    report = judge(tmp_path, names, **(PUBLIC if "receiver" in "".join(names) else {}))
    assert broken(report) == set(), report.findings
    assert {finding.rule for finding in report.findings} <= {"one-sink"}
    assert not report.refused and report.pipelines and report.sinks


PROCESSOR = """
    processors:
      {name}: {settings}
    service:
      pipelines:
        {pipeline}:
          processors: [{processors}]
"""


def processor(name: str, settings: str = "{}") -> str:
    """A processor in front of the routing connector."""
    kept = "memory_limiter, transform/untrusted"
    return PROCESSOR.format(name=name, settings=settings, pipeline="traces/in", processors=f"{kept}, {name}")


def exporter(settings: str, name: str = "elasticsearch/audit") -> str:
    return f"exporters: {{{name}: {settings}}}"


BASE = ("collector",)
ROW = """      - context: resource
        condition: attributes["team"] == "x"
        action: copy
        pipelines: [traces/general]
"""
EDITS: list[tuple[str, tuple[str, ...], str | Edit]] = [
    ("audit-dropped", BASE, "service: {pipelines: {traces/audit: {exporters: [nop]}}}"),
    ("audit-dropped", BASE, ("pipelines: [traces/audit]", "pipelines: [traces/unsealed]")),
    ("audit-dropped", BASE, "service: {pipelines: {traces/in: {exporters: [nop]}}}"),
    ("sampler", BASE, processor("probabilistic_sampler", "{sampling_percentage: 10}")),
    ("sampler", BASE, processor("tail_sampling", "{policies: []}")),
    ("filter", BASE, processor("filter", "{traces: {span: ['attributes[\"http.route\"] == \"/health\"']}}")),
    ("filter", BASE, processor("filter", "{trace_conditions: [{context: span, conditions: ['kind == 1']}]}")),
    ("filter", BASE, processor("filter", "{spans: {exclude: {match_type: strict, services: [a]}}}")),
    ("rewrite", BASE, processor("attributes", '{actions: [{pattern: "^audit\\\\.actor", action: hash}]}')),
    ("rewrite", BASE, processor("attributes", "{actions: [{key: audit.actor.id, action: delete}]}")),
    ("rewrite", BASE, processor("resource", "{attributes: [{key: service.name, value: x, action: upsert}]}")),
    ("rewrite", BASE, processor("redaction", "{allow_all_keys: true, blocked_values: ['4[0-9]{15}']}")),
    ("rewrite", BASE, processor("redaction", "{allowed_keys: [audit.statement]}")),
    ("rewrite", BASE, processor("span", "{name: {from_attributes: [http.route]}}")),
    ("rewrite", BASE, processor("groupbyattrs", "{keys: [host.name]}")),
    ("rewrite", BASE, processor("transform/x", "{trace_statements: [{statements: ['truncate_all(span.attributes, 4096)']}]}")),
    ("rewrite", BASE, processor("transform/x", "{trace_statements: [{statements: ['keep_keys(span.attributes, [\"a\"])']}]}")),
    ("rewrite", BASE, processor("transform/x", "{trace_statements: ['set(span.name, \"x\") where span.kind == 1']}")),
    ("rewrite", BASE, processor("transform/x", "{trace_statements: ['delete_matching_keys(span.attributes, \"id$\")']}")),
    ("may-rewrite", BASE, processor("attributes", "{actions: [{key: user.email, action: delete}]}")),
    ("may-rewrite", BASE, processor("resourcedetection", "{detectors: [system]}")),
    ("unknown-processor", BASE, processor("acme/enricher")),
    ("batch-in-memory", BASE, processor("batch")),
    ("batch-in-memory", BASE, processor("groupbytrace")),
    ("memory-limiter-late", BASE, "service: {pipelines: {traces/in: {processors: [transform/untrusted, memory_limiter]}}}"),
    ("memory-limiter-late", BASE, "service: {pipelines: {traces/audit: {processors: [memory_limiter, transform/audit]}}}"),
    ("queue-not-durable", BASE, exporter("{sending_queue: {storage: null}}")),
    ("queue-not-durable", AGENT, exporter("{sending_queue: {storage: null}}", "otlp_grpc/gateway")),
    ("storage-absent", BASE, exporter("{sending_queue: {storage: file_storage/other}}")),
    ("storage-absent", BASE, "service: {extensions: [health_check]}"),
    ("storage-no-fsync", BASE, ("fsync: true", "fsync: false")),
    ("storage-no-fsync", AGENT, ("    fsync: true\n", "")),
    ("storage-volatile", BASE, "extensions: {file_storage: {directory: /dev/shm/queue}}"),
    ("storage-volatile", BASE, "extensions: {file_storage: {recreate: true}}"),
    ("queue-not-blocking", BASE, exporter("{sending_queue: {block_on_overflow: false}}")),
    ("queue-not-blocking", AGENT, ("      block_on_overflow: true\n", "")),
    ("queue-size", BASE, ("      queue_size: 4294967296\n", "")),
    ("retry-bounded", BASE, exporter("{retry: {max_retries: 10}}")),
    ("retry-bounded", BASE, exporter("{retry: {enabled: false}}")),
    ("retry-bounded", AGENT, ("      max_elapsed_time: 0\n", "")),
    ("retry-bounded", AGENT, exporter("{retry_on_failure: {enabled: false}}", "otlp_grpc/gateway")),
    ("retry-status", BASE, ("[401, 403, 404, 408, 429, 500, 502, 503, 504]", "[429, 502, 503, 504]")),
    ("timeout-bounds-retries", BASE, ("    timeout: 0\n", "")),
    ("refusal-drops", AGENT, exporter("{auth: {authenticator: bearertokenauth}}", "otlp_grpc/gateway")),
    ("refusal-drops", AGENT, exporter("{headers: {Authorization: Bearer x}}", "otlp_grpc/gateway")),
    ("refusal-drops", KAFKA_AGENT, exporter(
        "{sending_queue: {enabled: true, storage: file_storage, queue_size: 9, block_on_overflow: true},"
        " retry_on_failure: {enabled: true, max_elapsed_time: 0}}", "kafka/records",
    )),
    ("kafka-acks", KAFKA_AGENT, exporter("{producer: {required_acks: 1}}", "kafka/records")),
    ("kafka-marks-early", KAFKA_GATEWAY, "receivers: {kafka: {message_marking: {on_error: true}}}"),
    ("kafka-marks-early", KAFKA_GATEWAY, "receivers: {kafka: {error_backoff: {enabled: false}}}"),
    ("control-attributes", BASE, ("elasticsearch\\\\..*|", "")),
    ("control-attributes", BASE, ("|encoding\\\\.format", "")),
    ("control-attributes", BASE, ("      - context: spanevent\n        statements:\n          - delete_m",
                                  '      - context: spanevent\n        conditions: [name == "x"]\n        statements:\n          - delete_m')),
    ("strip-fails-open", BASE, "processors: {transform/untrusted: {error_mode: ignore}}"),
    ("statements-without-context", BASE, processor(
        "transform/x", "{trace_statements: ['set(spanevent.attributes[\"a\"], 1)', 'set(span.attributes[\"b\"], 1)']}"
    )),
    ("metadata-header", BASE, "receivers: {otlp: {protocols: {http: {include_metadata: true}}}}"),
    ("mapping-mode", BASE, exporter("{mapping: {allowed_modes: [otel, ecs]}}")),
    ("mapping-mode", BASE, exporter("{mapping: null}")),
    ("id-not-dynamic", BASE, exporter("{traces_dynamic_id: {enabled: false}}")),
    ("id-not-dynamic", BASE, ('condition: attributes["audit.log.document"] != nil', 'condition: attributes["audit.log.x"] != nil and false')),
    ("stream-not-fixed", BASE, ("    traces_index: auditspan-log\n", "")),
    ("stream-not-fixed", BASE, ('          - set(resource.attributes["data_stream.dataset"], "audit")\n',
                                '          - set(resource.attributes["x"], "y") where attributes["x"] == nil\n')),
    ("routed-by-claim", BASE, ("    table:\n", "    table:\n" + ROW)),
    ("routed-by-claim", ("collector", "archive"), exporter("{group_by: {enabled: true}}", "file/archive")),
    ("routed-by-claim", KAFKA_AGENT, exporter("{topic_from_attribute: team}", "kafka/records")),
    ("listener-open", BASE, "receivers: {otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317'}}}}"),
    ("listener-open", BASE, "receivers: {otlp: {protocols: {http: {endpoint: '[::]:4318', auth: {authenticator: x}}}}}"),
    ("listener-anonymous", BASE, "receivers: {otlp: {protocols: {http: {endpoint: 'collector:4318', tls: {cert_file: c, key_file: k}}}}}"),
    ("archive-truncates", BASE, exporter("{path: x}", "file/b") + "\nservice: {pipelines: {traces/audit: {exporters: [file/b]}}}"),
    ("archive-deletes", ("collector", "archive"), exporter("{rotation: {max_backups: 10}}", "file/archive")),
    ("no-metrics", BASE, "service: {telemetry: {metrics: {level: none}}}"),
    ("not-readable", BASE, exporter("{endpoint: '${vault:secret/es}'}")),
    ("undefined", BASE, "service: {pipelines: {traces/general: {exporters: [elasticsearch/none]}}}"),
]  # fmt: skip
HINTS: list[tuple[str, tuple[str, ...], str]] = [
    ("one-sink", BASE, ""),
    ("no-memory-limit", BASE, "service: {pipelines: {traces/in: {processors: [transform/untrusted]}}}"),
]


@pytest.mark.parametrize(("rule", "names", "edit"), EDITS, ids=[f"{n}-{rule}" for n, (rule, _, _) in enumerate(EDITS)])
def test_each_rule_is_broken_alone(tmp_path: Path, rule: str, names: tuple[str, ...], edit: str | Edit) -> None:
    report = judge(tmp_path, names, edit)
    assert broken(report) == {rule}, [(item.rule, item.what) for item in report.findings]
    assert report.refused is (RULES[rule].level is Level.ERROR)


@pytest.mark.parametrize(("rule", "names", "edit"), HINTS, ids=[rule for rule, _, _ in HINTS])
def test_hints_refuse_nothing(tmp_path: Path, rule: str, names: tuple[str, ...], edit: str) -> None:
    report = judge(tmp_path, names, edit)
    assert rule in {finding.rule for finding in report.findings if finding.level is Level.HINT}
    assert broken(report) == set()


def test_every_rule_has_an_edit_that_breaks_it() -> None:
    assert {rule for rule, _, _ in (*EDITS, *HINTS)} == set(RULES)


def test_a_place_is_the_line_in_the_file_it_stands_in(tmp_path: Path) -> None:
    report = judge(
        tmp_path, ("collector", "archive"), "# one\n# two\nexporters:\n  elasticsearch/log:\n    timeout: 30s\n"
    )
    (finding,) = [item for item in report.findings if item.level is Level.ERROR]
    assert (finding.rule, finding.component) == ("timeout-bounds-retries", "exporters::elasticsearch/log")
    assert finding.file is not None and finding.file.endswith("over.yaml") and finding.line == 5
    # The same through an anchor: the line is that of the value, wherever it is merged in.
    report = judge(tmp_path, BASE, ("    timeout: 0\n", "    timeout: 30s\n"))
    lines = {item.line for item in report.findings if item.rule == "timeout-bounds-retries"}
    text = (tmp_path / "edited.yaml").read_text().splitlines()
    assert {text[line - 1].strip() for line in lines if line} == {"timeout: 30s"}


TYPICAL = r"""
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "0.0.0.0:4317"}
      http: {endpoint: "${env:HOST:-0.0.0.0}:4318"}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 512}
  batch: {}
  probabilistic_sampler: {sampling_percentage: 10}
  filter/health:
    traces:
      span: ['attributes["http.route"] == "/health"']
  attributes/pii:
    actions:
      - {key: user.email, action: delete}
      - {pattern: "^audit\\.actor", action: hash}
exporters:
  debug: {}
  elasticsearch:
    endpoints: ["https://es:9200"]
    mapping: {mode: ecs}
service:
  pipelines:
    traces:
      receivers: [otlp]
      processors: [memory_limiter, batch, filter/health, attributes/pii, probabilistic_sampler]
      exporters: [elasticsearch, debug]
    metrics:
      receivers: [otlp]
      exporters: [debug]
"""


def test_what_people_usually_have_is_refused_for_every_reason_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "typical.yaml").write_text(TYPICAL)
    report = lint([tmp_path / "typical.yaml"], {})
    assert {item.rule for item in report.findings if item.level is Level.ERROR} == {
        "listener-open", "batch-in-memory", "sampler", "filter", "rewrite", "control-attributes", "id-not-dynamic",
        "queue-not-blocking", "queue-not-durable", "retry-bounded", "retry-status", "stream-not-fixed",
        "timeout-bounds-retries", "mapping-mode",
    }  # fmt: skip
    assert {item.rule for item in report.findings if item.level is Level.WARNING} == {"may-rewrite", "queue-size"}
    assert report.sinks == ("elasticsearch",)


BESIDE = """
receivers: {otlp: {protocols: {grpc: {endpoint: "localhost:4317"}}}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 512}
  tail_sampling: {policies: []}
exporters:
  otlp_grpc/apm: {endpoint: "apm:4317"}
  otlp_grpc/audit:
    endpoint: "gateway:4317"
    sending_queue: {enabled: false}
    retry_on_failure: {enabled: false}
service:
  pipelines:
    traces/apm: {receivers: [otlp], processors: [memory_limiter, tail_sampling], exporters: [otlp_grpc/apm]}
    traces/audit: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc/audit]}
"""


def test_a_copy_may_be_sampled_where_another_way_keeps_every_record(tmp_path: Path) -> None:
    (tmp_path / "beside.yaml").write_text(BESIDE)
    report = lint([tmp_path / "beside.yaml"], {})
    assert not report.refused
    sampled = [item for item in report.findings if item.rule == "sampler"]
    assert [item.level for item in sampled] == [Level.HINT] and "only a copy" in sampled[0].what


def test_a_way_that_only_some_records_take_must_be_as_good(tmp_path: Path) -> None:
    # Whoever sets `team` decides whether a record is sampled.
    over = BESIDE + textwrap.dedent(
        """
        connectors:
          routing:
            default_pipelines: [traces/audit]
            table: [{context: span, condition: 'attributes["team"] == "x"', pipelines: [traces/apm]}]
        """
    )
    over = over.replace("{receivers: [otlp], processors", "{receivers: [routing], processors")
    over = over.replace("  pipelines:\n", "  pipelines:\n    traces/in: {receivers: [otlp], exporters: [routing]}\n")
    (tmp_path / "routed.yaml").write_text(over)
    report = lint([tmp_path / "routed.yaml"], {})
    assert report.refused
    assert {"sampler", "routed-by-claim"} <= {item.rule for item in report.findings if item.level is not Level.HINT}


def test_variables_are_read_as_the_collector_does(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "a: ${env:A:-7}\nb: ${B}\nc: x-${env:A:-y}-$${z}\nd: ${env:D:-true}\ne: ${env:E}\nf: ${env:F:-}\n"
        "g: ${file:/x}\nh: {<<: &one {k: 1, l: 2}, l: 3}\ni: *one\n"
    )
    from auditspan.collector_lint.source import UNREAD, load

    assert load([file], {"B": "[1, 2]", "E": "2024-01-01"}).content == {
        "a": 7, "b": [1, 2], "c": "x-y-${z}", "d": True, "e": "2024-01-01", "f": None, "g": UNREAD,
        "h": {"k": 1, "l": 3}, "i": {"k": 1, "l": 2},
    }  # fmt: skip


def test_later_files_are_merged_over_the_earlier(tmp_path: Path) -> None:
    from auditspan.collector_lint.source import load

    for name, text in (("a", "x: {y: 1, z: [1, 2]}\nw: {q: 1}"), ("b", "x: {z: [3]}\nw: null"), ("c", "")):
        (tmp_path / name).write_text(text)
    merged = load([tmp_path / name for name in "abc"], {})
    assert merged.content == {"x": {"y": 1, "z": [3]}, "w": None}
    assert merged.place("x", "z", "0") == (str(tmp_path / "b"), 1)


@pytest.mark.parametrize("text", ["- a\n- b", "a: [", "x", "a: &a [*a]", "\x00", "a: " + "[" * 3000])
def test_what_is_no_configuration_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(SourceError):
        lint([tmp_path / "c.yaml"], {})


@pytest.mark.parametrize("value", ["null", "7", "text", "[]", "[1, null]", "{x: 1}", "[[]]", "[{statements: 5}]"])
def test_values_of_the_wrong_kind_break_no_check(tmp_path: Path, value: str) -> None:
    for path in (
        "service: {v}", "service: {pipelines: {v}}", "service: {pipelines: {traces/in: {v}}}", "exporters: {v}",
        "exporters: {elasticsearch/audit: {v}}", "exporters: {elasticsearch/audit: {retry: {v}}}",
        "exporters: {elasticsearch/audit: {retry: {retry_on_status: {v}, max_retries: {v}}}}",
        "exporters: {elasticsearch/audit: {sending_queue: {v}}}", "processors: {transform/untrusted: {trace_statements: {v}}}",
        "connectors: {routing: {v}}", "connectors: {routing: {table: {v}, default_pipelines: {v}}}",
        "receivers: {otlp: {protocols: {v}}}", "receivers: {otlp: {protocols: {grpc: {v}}}}", "extensions: {v}",
        "receivers: {otlp: {protocols: {grpc: {endpoint: {v}, tls: {v}}}}}", "service: {extensions: {v}, telemetry: {v}}",
    ):  # fmt: skip
        judge(tmp_path, ("collector", "archive"), path.replace("{v}", value))


CONDITIONS: Mapping[str, tuple[bool | None, bool | None, bool | None]] = {
    'attributes["audit.statement"] != nil': (True, True, False),
    'span.attributes["audit.log.document"] == nil': (True, False, False),
    'attributes["audit.log.document"] == "entry"': (False, True, False),
    'not attributes["audit.log.document"] != "entry"': (False, True, False),
    'attributes["x"] != nil': (None, None, None),
    'resource.attributes["audit.statement"] != nil': (None, None, None),
    'attributes["audit.statement"] == nil and attributes["x"] == "y and z"': (False, False, None),
    '(attributes["audit.log.document"] != nil or attributes["audit.statement"] != nil) and true': (True, True, True),
    'IsString(attributes["audit.statement"]) and IsInt(attributes["audit.log.index"])': (True, True, False),
    'IsMatch(attributes["audit.statement"], ".*(") or attributes["audit.log.document"] == "entry"': (None, True, None),
    "kind == (1": (None, None, None),
    "": (None, None, None),
}  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_can_be_decided_of_a_condition_is(condition: str) -> None:
    assert tuple(ottl.holds(condition, kind, "span") for kind in ottl.KINDS) == CONDITIONS[condition]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in ("AUDITSPAN_COLLECTOR_QUEUE", *PUBLIC):
        monkeypatch.delenv(name, raising=False)

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main(["backend", "lint", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def test_the_command_says_where_what_and_what_to_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = str(FOLDER / "collector.yaml")
    code, out, _ = run(base)
    assert code == 0 and out.startswith("ACCEPTED")
    monkeypatch.setenv("AUDITSPAN_OTLP_GRPC", "0.0.0.0:4317")
    code, out, _ = run(base)
    assert code == 1 and out.startswith("REFUSED")
    text = (FOLDER / "collector.yaml").read_text().splitlines()
    line = 1 + next(number for number, item in enumerate(text) if "AUDITSPAN_OTLP_GRPC:-" in item)
    assert f"collector.yaml:{line}" in out
    assert RULES["listener-open"].means in out and RULES["listener-open"].todo in out


def test_the_command_as_json_and_strict(run: Run, tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("extensions: {file_storage: {directory: /tmp/queue}}")
    files = str(FOLDER / "collector.yaml"), str(over)
    code, out, _ = run(*files, "--json")
    said = json.loads(out)
    assert (code, said["verdict"]) == (0, "accepted")
    assert said["pipelines"] == ["traces/in", "traces/audit", "traces/log"]
    (warning,) = [item for item in said["findings"] if item["level"] == "warning"]
    assert warning["rule"] == "storage-volatile" and warning["file"] == str(over) and warning["line"] == 1
    assert all(warning[name] for name in ("what", "means", "todo", "component"))
    code, out, _ = run(*files, "--json", "--strict")
    assert (code, json.loads(out)["verdict"]) == (1, "refused")


def test_the_command_without_a_file_and_with_one_that_is_not_there(run: Run) -> None:
    for arguments in ((), ("/nowhere/collector.yaml",)):
        code, _, err = run(*arguments)
        assert code == 2 and "What to do" in err
    code, out, _ = run("--rules", "--json")
    assert code == 0 and json.loads(out).keys() == RULES.keys()
    code, out, _ = run("--rules")
    assert code == 0 and all(name in out for name in RULES)


def test_the_rules_are_documented() -> None:
    text = (ROOT / "docs" / "collector-lint.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `")}
    assert rows.keys() == RULES.keys()
    for name, rule in RULES.items():
        assert f"| {rule.level.value} |" in rows[name] and rule.means in rows[name]
