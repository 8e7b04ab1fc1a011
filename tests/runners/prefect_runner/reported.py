# SPDX-License-Identifier: Apache-2.0
"""What Prefect's own API reports, and what our records say, in the same terms: one line for each attempt of a run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from auditspan import schema

Line = tuple[str, str, str]
"""``flow`` or ``task``, the ID of the run, how an attempt of it ended."""


def by_records(records: Iterable[Mapping[str, Any]]) -> Counter[Line]:
    """Return what records say; that a run has begun is no end of it."""
    lines: Counter[Line] = Counter()
    for record in records:
        kind = str(record[schema.TARGET_TYPE])
        event = str(record[schema.EVENT_TYPE]).removeprefix("workflow.execution.")
        if kind in ("prefect.flow", "prefect.task") and event != "started":
            how = event
            if event in ("finished", "skipped"):
                how = f"{event} {record[schema.OUTCOME]}"
            lines[kind.removeprefix("prefect."), record[schema.TASK_RUN_ID], how] += 1
    return lines


ENDS = {
    "COMPLETED": "finished success",
    "FAILED": "finished failure",
    "CRASHED": "interrupted",
    "CANCELLED": "cancelled",
}


class Api:
    """Prefect's own API, through its own client, from now on.

    Args:
        url: of the server; None: that of the harness.
    """

    def __init__(self, url: str | None = None) -> None:
        import prefect.main  # noqa: F401  (completes models that the client needs)
        from prefect.client.orchestration import SyncPrefectClient, get_client

        client: SyncPrefectClient = SyncPrefectClient(url) if url else get_client(sync_client=True)
        self._stack = ExitStack()
        self.client = self._stack.enter_context(client)
        self._before = {str(run.id) for run in [*self.flow_runs(), *self.task_runs()]}

    def close(self) -> None:
        self._stack.close()

    def flow_runs(self) -> list[Any]:
        return self._all(self.client.read_flow_runs)

    def task_runs(self) -> list[Any]:
        return self._all(self.client.read_task_runs)

    def _all(self, read: Any) -> list[Any]:
        found: list[Any] = []
        while page := read(limit=200, offset=len(found)):
            found += page
        return found

    def reported(self) -> Counter[Line]:
        """Return what the API reports of the runs that have begun since this object was made."""
        lines: Counter[Line] = Counter()
        flow_runs = self.flow_runs()
        # A task run that stands for a subflow or for a deployment's run is no execution: the flow run is.
        stand_ins = {str(run.parent_task_run_id) for run in flow_runs}
        crashed = {str(run.id) for run in flow_runs if run.state is not None and run.state.is_crashed()}
        for kind, runs in (("flow", flow_runs), ("task", self.task_runs())):
            for run in runs:
                state = run.state
                if str(run.id) in self._before or str(run.id) in stand_ins or state is None:
                    continue
                if state.is_scheduled() or (state.is_pending() and state.name != "NotReady"):
                    if not run.run_count:
                        continue  # it has not begun
                    lines[kind, str(run.id), "going on"] += 1
                elif state.is_cancelled() and not run.run_count:
                    continue  # called off before any process had it
                elif state.is_running() and kind == "task" and str(run.flow_run_id) in crashed:
                    lines[kind, str(run.id), "interrupted"] += 1  # its process was killed, and nobody tells the server
                elif state.is_pending():
                    lines[kind, str(run.id), "skipped failure"] += 1
                elif state.name == "Cached":
                    lines[kind, str(run.id), "skipped success"] += 1
                else:
                    lines[kind, str(run.id), ENDS.get(state.type.value, "going on")] += 1
                if run.run_count > 1:
                    lines[kind, str(run.id), "retried"] += run.run_count - 1
        return lines

    def agrees(self, records: Any, seconds: float = 90) -> Counter[Line]:
        """Wait until the API has taken in what its processes sent, and say the same as our records.

        Args:
            records: returns our records.
            seconds: how long to wait.

        Returns:
            What both say.
        """
        until = time.monotonic() + seconds
        while True:
            ours, theirs = by_records(records()), self.reported()
            if ours == theirs and not any(how == "going on" for *_, how in theirs):
                return ours
            assert time.monotonic() < until, f"only ours: {ours - theirs}\nonly Prefect's: {theirs - ours}"
            time.sleep(0.5)


def how(lines: Counter[Line]) -> Counter[tuple[str, str]]:
    """Return how often flows and tasks ended how."""
    counted: Counter[tuple[str, str]] = Counter()
    for (kind, _, end), number in lines.items():
        counted[kind, end] += number
    return counted
