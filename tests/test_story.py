# SPDX-License-Identifier: Apache-2.0
"""How a run ended, in one word."""

from __future__ import annotations

import pytest

from auditspan import schema
from auditspan.cli.story import Record, outcome_of
from auditspan.schema import EventType


def ended(event: EventType, outcome: str) -> Record:
    return Record({}, {schema.EVENT_TYPE: event.value, schema.OUTCOME: outcome})


FINISHED = EventType.WORKFLOW_FINISHED
RETRIED = EventType.WORKFLOW_RETRIED


@pytest.mark.parametrize(
    ("records", "word"),
    [
        ([(RETRIED, "failure"), (FINISHED, "success")], "success"),
        ([(RETRIED, "failure"), (FINISHED, "failure")], "failure"),
        ([(FINISHED, "success"), (FINISHED, "failure")], "failure"),
        ([(FINISHED, "success"), (FINISHED, "unknown")], "unknown"),
        ([(EventType.WORKFLOW_INTERRUPTED, "unknown"), (FINISHED, "success")], "interrupted"),
        ([(EventType.WORKFLOW_STARTED, "success")], "running"),
    ],
)
def test_an_attempt_that_was_made_again_does_not_fail_the_run(records: list[tuple[EventType, str]], word: str) -> None:
    assert outcome_of([ended(*record) for record in records]) == word
