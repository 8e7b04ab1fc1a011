# SPDX-License-Identifier: Apache-2.0
"""The rules by name: what breaking one means for audit records, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

ERROR_MEANING = "a record can be lost, hidden, re-routed or altered: refused"


class Level(str, Enum):
    """How bad it is. Errors refuse a configuration, warnings and hints do not."""

    ERROR = "error"
    WARNING = "warning"
    HINT = "hint"


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        level: of its findings, unless another path keeps every record (then they are hints).
        means: what happens to audit records where it is broken.
        todo: what to do about it.
    """

    level: Level
    means: str
    todo: str


@dataclass(frozen=True)
class Finding:
    """A rule that is broken.

    Args:
        rule: name of the rule.
        level: of this finding.
        what: what stands there.
        component: what it was found in, e.g. ``exporters::elasticsearch/audit``.
        file: of the configuration; None: it is about something that is not there.
        line: in the file, from 1.
    """

    rule: str
    level: Level
    what: str
    component: str
    file: str | None = None
    line: int | None = None


_E, _W, _H = Level.ERROR, Level.WARNING, Level.HINT

RULES: dict[str, Rule] = {
    # What stands in the way of a record.
    "audit-dropped": Rule(
        _E, "Audit records end there, and nobody keeps them.",
        "Let every path of a record end in an exporter that stores it.",
    ),
    "sampler": Rule(
        _E, "A sampler leaves records out; verification then finds holes that nobody can fill.",
        "Route audit spans away before the sampler: a routing connector, and the sampler in the pipeline of the rest.",
    ),
    "filter": Rule(
        _E, "A filter can drop records, and a later change of its conditions will.",
        "Filter only behind the routing connector, in the pipeline of ordinary spans.",
    ),
    "rewrite": Rule(
        _E, "The visible document then differs from what was signed; verification calls it altered.",
        "Apply it to ordinary spans only. Personal values are minimised before signing, by AUDITSPAN_POLICY.",
    ),
    "may-rewrite": Rule(
        _W, "If a record has that field, its visible document differs from what was signed.",
        "Add fields of other names (insert), and replace none.",
    ),
    "unknown-processor": Rule(
        _W, "This lint does not know what the processor does to records.",
        "Apply it to ordinary spans only, or make sure that it drops and replaces nothing.",
    ),
    "batch-in-memory": Rule(
        _E, "It holds records in memory after their sender was told that they are accepted, and drops what the "
        "exporter refuses.",
        "Remove it from this pipeline; let the exporter batch (sending_queue.batch), behind the queue on disk.",
    ),
    "memory-limiter-late": Rule(
        _W, "It refuses records after work and memory were spent on them, and behind a buffer refusing is dropping.",
        "Make it the first processor of the pipeline that has the receiver.",
    ),
    # Queues and retries.
    "queue-not-durable": Rule(
        _E, "Records that were accepted are in memory only: a crash or a restart of the Collector loses them.",
        "sending_queue.storage: file_storage, or switch the queue off so that senders wait for the answer.",
    ),
    "storage-absent": Rule(
        _E, "The queue has no storage to be kept in; the Collector does not start.",
        "Define the storage under `extensions` and name it in `service.extensions`.",
    ),
    "storage-no-fsync": Rule(
        _E, "A power failure takes records that their sender has already let go.",
        "file_storage: {fsync: true}.",
    ),
    "storage-volatile": Rule(
        _W, "What is in that folder is gone after a restart of the machine, or is thrown away on damage.",
        "A folder on a real disk, e.g. /var/lib/auditspan-collector, without `recreate`.",
    ),
    "queue-not-blocking": Rule(
        _E, "A full queue refuses records; a sender that does not keep them loses them.",
        "sending_queue.block_on_overflow: true, so that senders wait.",
    ),
    "queue-size": Rule(
        _W, "The default holds a few requests (10 to 1000), whatever their size: nobody decided how long an outage it "
        "bridges.",
        "sending_queue: {sizer: bytes, queue_size: N}, N = disk that may be used.",
    ),
    "retry-bounded": Rule(
        _E, "When the retries are used up, the batch is dropped, queue on disk or not.",
        "elasticsearch: retry.max_retries: 2147483647; others: retry_on_failure.max_elapsed_time: 0.",
    ),
    "retry-status": Rule(
        _E, "Answers that are not retried drop the whole batch; by default only 429 is.",
        "retry.retry_on_status: [401, 403, 404, 408, 429, 500, 502, 503, 504].",
    ),
    "timeout-bounds-retries": Rule(
        _E, "It covers a bulk request with all its retries: an outage that is longer loses all that is in flight.",
        "timeout: 0.",
    ),
    "refusal-drops": Rule(
        _W, "A next hop that refuses the credentials (401, 403; of Kafka: the right to write) is a permanent error: "
        "this exporter drops the batch from its queue.",
        "Authenticate with a client certificate (a failed handshake is retried), or, and for Kafka always, "
        "sending_queue.enabled: false, so that the refusal goes back to the sender, which keeps its records.",
    ),
    "kafka-acks": Rule(
        _E, "Kafka answers before its replicas have the record: the death of one broker loses it.",
        "producer.required_acks: all (-1).",
    ),
    "kafka-marks-early": Rule(
        _E, "Messages are marked as done before they are: a crash of this Collector loses them.",
        "message_marking: {after: true, on_error: false}, and error_backoff: {enabled: true, max_elapsed_time: 0}.",
    ),
    # What a sender can choose.
    "control-attributes": Rule(
        _E, "A sender chooses index, document id or mapping with them, or hides a record without an error.",
        "Delete them before the exporter, at resource, scope, span and span event: see transform/untrusted in "
        "collector.yaml.",
    ),
    "strip-fails-open": Rule(
        _E, "Where a statement fails, records pass with what the sender put in.",
        "error_mode: propagate.",
    ),
    "statements-without-context": Rule(
        _E, "The processor infers one context for the whole list, the innermost: with span events in it, none of the "
        "statements runs for a span that has no events.",
        "Write groups, each with its `context`.",
    ),
    "metadata-header": Rule(
        _E, "The header X-Elastic-Mapping-Mode of a sender reaches the exporter: another mapping, or a refused batch "
        "with the records of others in it.",
        "Leave include_metadata off on the receivers of audit spans.",
    ),
    "mapping-mode": Rule(
        _E, "A sender can choose a mapping in which durations, status, or the whole statement are not written.",
        "mapping: {allowed_modes: [otel]}.",
    ),
    "id-not-dynamic": Rule(
        _E, "Every repeated delivery becomes a second document.",
        "traces_dynamic_id: {enabled: true}, and set elasticsearch.document_id from origin, index and statement: see "
        "transform/audit in collector.yaml.",
    ),
    "stream-not-fixed": Rule(
        _E, "The data stream then follows from what the sender says (name of the scope), and is not the one that is "
        "verified.",
        'traces_index, or set(resource.attributes["data_stream.dataset"], "audit") after the control attributes are '
        "deleted.",
    ),
    "routed-by-claim": Rule(
        _W, "Whoever sends a record decides by that value where it goes.",
        'Route by what makes a span a record: attributes["audit.statement"] != nil, attributes["audit.log.document"] '
        "!= nil.",
    ),
    "listener-open": Rule(
        _E, "Anyone who reaches that address can send records, and read those of others on the wire.",
        "Listen on loopback, or set tls with client_ca_file, or tls and auth: see receiver-tls.yaml.",
    ),
    "listener-anonymous": Rule(
        _W, "The line is encrypted, and anyone may send.",
        "tls.client_ca_file (client certificates) or auth.authenticator (token).",
    ),
    # What remains.
    "archive-truncates": Rule(
        _E, "The file is emptied at every start of the Collector.",
        "append: true, or rotation.",
    ),
    "archive-deletes": Rule(
        _W, "Old files of the archive are deleted, by default all but the last hundred.",
        "rotation: {max_backups: 0}, and move old files away by your own means.",
    ),
    "one-sink": Rule(
        _H, "Who can delete in the only place where records are kept can hide them from all but the signed log.",
        "Add a second exporter with credentials of its own: see archive.yaml.",
    ),
    "no-memory-limit": Rule(
        _H, "A burst of large requests can end the Collector (the queue on disk survives).",
        "memory_limiter as the first processor of the pipeline that has the receiver.",
    ),
    "no-metrics": Rule(
        _W, "That Elasticsearch refused a document is seen in the Collector's own metrics, and nowhere else.",
        "service.telemetry.metrics: leave the level at normal, and read them: see alerts.yaml.",
    ),
    "not-readable": Rule(
        _W, "The value comes from a provider that this lint does not read; it was not checked.",
        "Look at it yourself, or lint the configuration with the value in it.",
    ),
    "undefined": Rule(
        _E, "The Collector does not start with this configuration.",
        "Define the component, or remove it from the pipeline.",
    ),
}  # fmt: skip
