from __future__ import annotations

import uuid
from typing import Any

import pytest

from dbnd._tracking.contracts import Batch, PartlyAppliedError
from dbnd_tracker._errors import PayloadError
from dbnd_tracker._ingest import BatchId, apply_batch
from dbnd_tracker._ingest.metrics import log_points
from dbnd_tracker._ingest.points import from_groups


def _batch(journal: str, first: int, last: int, body: Any) -> Batch:
    return Batch("log_metrics", body, journal, first, last)


def test_a_batch_that_comes_again_changes_nothing(tracker: Any) -> None:
    _, task = tracker.started()
    journal = uuid.uuid4().hex
    for _ in range(3):
        apply_batch(tracker.database, _batch(journal, 1, 3, task.floats("m", 3)))
    apply_batch(tracker.database, _batch(journal, 4, 5, task.floats("m", 2)))
    apply_batch(tracker.database, _batch(uuid.uuid4().hex, 1, 1, task.floats("m", 1)))

    assert len(tracker.history(task, "m")) == 6


def test_a_batch_that_overlaps_says_where_to_go_on(tracker: Any) -> None:
    _, task = tracker.started()
    journal = uuid.uuid4().hex
    apply_batch(tracker.database, _batch(journal, 1, 3, task.floats("m", 3)))

    with pytest.raises(PartlyAppliedError) as caught:
        apply_batch(tracker.database, _batch(journal, 2, 5, task.floats("m", 4)))

    assert caught.value.last == 3
    assert len(tracker.history(task, "m")) == 3


def test_a_batch_that_is_refused_is_not_remembered(tracker: Any) -> None:
    _, task = tracker.started()
    journal = uuid.uuid4().hex
    with pytest.raises(PayloadError):
        apply_batch(tracker.database, _batch(journal, 1, 2, {"metrics_info": 5}))

    apply_batch(tracker.database, _batch(journal, 1, 2, task.floats("m", 2)))

    assert len(tracker.history(task, "m")) == 2


def test_ids_of_a_transaction_that_failed_are_forgotten(tracker: Any) -> None:
    _, task = tracker.started()

    def fail(writer: Any) -> None:
        log_points(writer, from_groups([[task.attempt, "user", ["m", 1.0, 5, None, None]]]))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tracker.database.write(fail)
    tracker.call("log_metrics", task.floats("m", 3))

    assert len(tracker.history(task, "m")) == 3


@pytest.mark.parametrize("text", ["", "x", f"{'a' * 32}:0-1", f"{'a' * 32}:3-2", f"{'A' * 32}:1-2", f"{'a' * 32}:1-2 "])
def test_a_malformed_batch_is_refused(text: str) -> None:
    with pytest.raises(PayloadError, match="32 hex digits"):
        BatchId.parse(text)


def test_a_batch_is_parsed() -> None:
    assert BatchId.parse(f"{'0a' * 16}:1-22") == BatchId("0a" * 16, 1, 22)
