# SPDX-License-Identifier: Apache-2.0
"""How long the queries of a dashboard take on many audit documents, in peace and while more are written.

The documents are those of a recorded week (``tests/backend/incident.py``) that came through the Collector, multiplied:
each copy of the week has traces, runs, records, actors, targets, times and a host of its own, also in its statements.

``python -m tests.benchmarks.queries [DOCUMENTS]`` measures this part alone and prints it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from auditspan.devstack import Stack
from auditspan.kibana.dashboards import ACTIVITY, RECORDS, SEARCHES
from tests.backend.honest import Api, Hit
from tests.benchmarks.recording import SHORT

TITLE = "Queries of a dashboard"
DOCUMENTS = 20_000 if SHORT else 1_000_000
SECONDS = 5 if SHORT else 60
"""For which queries are asked, once in peace and once while documents are written."""
INDEX = "auditspan-benchmark"
DAYS, ACTORS, TARGETS, HOSTS = 90, 500, 10_000, 20
ENVIRONMENTS = ("production", "staging", "test")
_OF_STREAMS = ("auditspan@failure-store", "auditspan@retention")
_BULK = 2_000
_PREFIX = "attributes."
_NOW = 1_795_219_200  # seconds; the copies lie in the days before


@dataclass
class Times:
    """Seconds, of single queries and of a whole dashboard."""

    queries: list[float] = field(default_factory=list)
    dashboards: list[float] = field(default_factory=list)


class Copies:
    """Copies of documents, as many as are wanted."""

    def __init__(self, hits: list[Hit]) -> None:
        self._texts = [json.dumps(hit["_source"]) for hit in hits]
        self._own = [self._names(hit["_source"]) for hit in hits]
        begins = [float(hit["_source"]["@timestamp"]) for hit in hits]
        self._offsets = [begin - min(begins) for begin in begins]
        self.made = 0

    @staticmethod
    def _names(source: dict[str, Any]) -> list[str]:
        said = source["attributes"]
        names = [source["trace_id"], source["span_id"], source.get("parent_span_id"), said["audit.record.id"]]
        return [name for name in [*names, said["automation.run.id"], said.get("audit.parent.record.id")] if name]

    def documents(self, count: int) -> Iterator[str]:
        """Give so many documents more."""
        for number in itertools.islice(itertools.count(self.made), count):
            week, item = divmod(number, len(self._texts))
            text = self._texts[item]
            for name in self._own[item]:
                text = text.replace(name, _another(name, week))
            source = orjson.loads(text)
            said = source["attributes"]
            chance = random.Random(number)
            # Some people do much, most do little.
            who = int(ACTORS * chance.random() ** 3)
            said["audit.actor.id"] = f"person-{who}@example.com"
            said["audit.target.id"] = f"{said['audit.target.id']}-{chance.randrange(TARGETS)}"
            said["deployment.environment.name"] = ENVIRONMENTS[week % len(ENVIRONMENTS)]
            said["audit.log.origin"] = f"host-{week % HOSTS}/auditspan/0123456789abcdef"
            said["audit.log.index"] = number
            begin = (_NOW - chance.random() * DAYS * 86400) * 1000 if week else _NOW * 1000 - self._offsets[item]
            source["@timestamp"] = f"{int(begin)}.{chance.randrange(10**6)}"
            yield orjson.dumps(source).decode()
        self.made += count


def _another(name: str, week: int) -> str:
    """Return a name for a copy: of the same form and length, where it is an identifier."""
    if len(name) in (16, 32) and "-" not in name:
        return f"{(int(name, 16) ^ (week * 0x9E3779B97F4A7C15)) % 16 ** len(name):0{len(name)}x}"
    return f"{name}-{week}" if "/" in name or len(name) != 36 else f"{week:08x}{name[8:]}"


class Bench:
    """An index with many documents in an Elasticsearch."""

    def __init__(self, api: Api, hits: list[Hit]) -> None:
        self._api = api
        self._copies = Copies(hits)

    @property
    def made(self) -> int:
        """How many documents were written."""
        return self._copies.made

    @contextmanager
    def index(self) -> Iterator[None]:
        """Have an index with the mappings and settings of the audit data stream, and remove it in the end."""
        template = self._api("GET", "/_index_template/auditspan-traces")["index_templates"][0]["index_template"]
        # What keeps and ends a data stream is not for the plain index that this is, so that it can be removed.
        parts = [name for name in template["composed_of"] if name not in _OF_STREAMS]
        own = {"index_patterns": [INDEX], "priority": 250, "composed_of": parts}
        missing = [name for name in template.get("ignore_missing_component_templates", []) if name in parts]
        self._api("PUT", f"/_index_template/{INDEX}", own | {"ignore_missing_component_templates": missing})
        self._api("DELETE", f"/{INDEX}?ignore_unavailable=true")
        self._api("PUT", f"/{INDEX}")
        try:
            yield
        finally:
            self._api("DELETE", f"/{INDEX}")
            self._api("DELETE", f"/_index_template/{INDEX}")

    def write(self, count: int) -> None:
        """Write so many documents."""
        while count > 0:
            some = min(count, _BULK)
            lines = [line for text in self._copies.documents(some) for line in (_ACTION, text)]
            for item in self._api.bulk(lines):
                assert item["status"] == 201, item
            count -= some

    def refresh(self) -> None:
        """Make visible what was written."""
        self._api("POST", f"/{INDEX}/_refresh")

    def count(self) -> int:
        """Return how many documents are visible."""
        return int(self._api("GET", f"/{INDEX}/_count")["count"])

    def size(self) -> int:
        """Return the bytes on disk."""
        return int(self._api("GET", f"/{INDEX}/_stats/store")["_all"]["total"]["store"]["size_in_bytes"])

    def heap(self) -> tuple[str, int]:
        """Return the version of Elasticsearch and its heap in MiB."""
        (node,) = self._api("GET", "/_nodes/jvm")["nodes"].values()
        return node["version"], node["jvm"]["mem"]["heap_max_in_bytes"] >> 20

    def filters(self, chance: random.Random) -> dict[str, dict[str, Any] | None]:
        """Return what people filter a dashboard by, with a value that is there."""
        at_random = {"random_score": {"seed": chance.randrange(10**9), "field": "_seq_no"}}
        answer = self._api("POST", f"/{INDEX}/_search", {"size": 1, "query": {"function_score": at_random}})
        said = answer["hits"]["hits"][0]["_source"]["attributes"]
        names = {
            "actor": "audit.actor.id", "action": "audit.action", "run": "automation.run.id",
            "resource": "audit.target.id", "environment": "deployment.environment.name",
        }  # fmt: skip
        found = {label: {"term": {_PREFIX + name: said[name]}} for label, name in names.items()}
        return {"nothing": None, **found}

    def ask(self, seconds: float, chance: random.Random) -> dict[str, Times]:
        """Ask what a dashboard asks, for so long; at least once each."""
        measured: dict[str, Times] = {}
        until, rounds = time.monotonic() + seconds, 0
        while rounds < 1 or time.monotonic() < until:
            for label, wanted in self.filters(chance).items():
                times = measured.setdefault(label, Times())
                requests = dashboard(wanted)
                for body in requests:
                    begin = time.perf_counter()
                    answer = self._api("POST", f"/{INDEX}/_search?request_cache=false", body)
                    times.queries.append(time.perf_counter() - begin)
                    assert not answer["timed_out"]
                    assert answer["_shards"]["failed"] == 0
                lines = [line for body in requests for line in ('{"request_cache":false}', json.dumps(body))]
                begin = time.perf_counter()
                self._api.msearch(INDEX, lines)
                times.dashboards.append(time.perf_counter() - begin)
            rounds += 1
        return measured

    @contextmanager
    def writing(self) -> Iterator[list[float]]:
        """Write without pause as long as the ``with`` block; the list that it gives then has documents per second."""
        done, rate, failed = threading.Event(), list[float](), list[BaseException]()

        def write() -> None:
            begin, before = time.monotonic(), self.made
            try:
                while not done.is_set():
                    self.write(_BULK // 4)
            except BaseException as error:
                failed.append(error)
            rate.append((self.made - before) / (time.monotonic() - begin))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            yield rate
        finally:
            done.set()
            thread.join()
        assert not failed, failed


_ACTION = json.dumps({"create": {"_index": INDEX}})


def dashboard(wanted: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the searches of the dashboard of activity, with a filter, over all of the time."""
    whole = {"range": {"@timestamp": {"gte": (_NOW - DAYS * 86400) * 1000, "format": "epoch_millis"}}}
    also = [whole, *([wanted] if wanted else [])]
    panels = [panel.request(*also) for panel in ACTIVITY.all_panels() if panel.of == RECORDS]
    return [*panels, *(item.request(*also, size=100) for item in SEARCHES if item.id in ACTIVITY.searches)]


def hits_of_a_week(stack: Stack) -> list[Hit]:
    """Record the week and return its documents, as they came through the Collector."""
    from tests.backend import incident_data

    with tempfile.TemporaryDirectory() as folder:
        told = incident_data.tell(Path(folder) / "incident", stack.otlp_http_endpoint, stack.elasticsearch_url)
    return [hit for hit in told.hits if hit["_index"].startswith(".ds-traces-audit")]


def measure(stack: Stack, hits: list[Hit], documents: int, seconds: float) -> list[str]:
    """Measure, and return the paragraphs of the page."""
    api = Api(stack.elasticsearch_url)
    bench, chance = Bench(api, hits), random.Random(1)
    try:
        with bench.index():
            begin = time.monotonic()
            bench.write(documents)
            bench.refresh()
            written = documents / (time.monotonic() - begin)
            found = bench.count()
            assert found == documents, f"{found} of {documents} are there"
            size, heap = bench.size(), bench.heap()
            peace = bench.ask(seconds, chance)
            with bench.writing() as rate:
                busy = bench.ask(seconds, chance)
    finally:
        api.close()
    return [
        f"## {TITLE}",
        f"{documents:,} audit documents ({size / documents:,.0f} bytes each on disk, {DAYS} days, {ACTORS} actors, "
        f"{HOSTS} hosts)\nin one shard of Elasticsearch {heap[0]}, heap {heap[1]} MB, {os.cpu_count()} processors "
        "shared with whoever asks and writes.\n"
        f"Asked is what the dashboard “{ACTIVITY.title}” asks over all the {DAYS} days "
        f"({len(dashboard(None))} searches), filtered by one value\n"
        "taken at random; nothing comes from the request cache. Written at "
        f"{written:,.0f} documents/s before, and at {rate[0]:,.0f}/s\nmeanwhile in the right-hand columns.",
        _table(peace, busy),
    ]


def _table(peace: dict[str, Times], busy: dict[str, Times]) -> str:
    lines = [
        "| filtered by | one search: median, p95 | the dashboard at once: median, p95 | one search while writing "
        "| the dashboard while writing |\n|---|---|---|---|---|"
    ]
    for label, quiet in peace.items():
        cells = [_said(values) for times in (quiet, busy[label]) for values in (times.queries, times.dashboards)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _said(seconds: list[float]) -> str:
    p95 = statistics.quantiles(seconds * 2 if len(seconds) < 2 else seconds, n=20, method="inclusive")[-1]
    return f"{statistics.median(seconds) * 1000:,.0f} ms, {p95 * 1000:,.0f} ms"


def page(documents: int = DOCUMENTS, seconds: float = SECONDS) -> list[str]:
    """Start an Elasticsearch, measure, and return the paragraphs of the page."""
    with tempfile.TemporaryDirectory() as folder, Stack.start(folder) as stack:
        return measure(stack, hits_of_a_week(stack), documents, seconds)


if __name__ == "__main__":
    print("\n\n".join(page(*map(int, sys.argv[1:2]))))
