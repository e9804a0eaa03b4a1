from __future__ import annotations

import pytest

from dbnd_tracker._storage.states import next_run_state, next_task_state


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (None, "queued", "queued"),
        ("scheduled", "running", "running"),
        ("running", "scheduled", "running"),
        ("success", "running", "success"),
        ("running", "failed", "failed"),
        ("failed", "success", "success"),
        ("success", "failed", "failed"),
        ("success", "cancelled", "success"),
        ("upstream_failed", "failed", "failed"),
        ("failed", "upstream_failed", "failed"),
    ],
)
def test_the_higher_rank_wins_and_results_correct_each_other(old: str | None, new: str, expected: str) -> None:
    assert next_task_state(old, new) == expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("running", "shutdown", "shutdown"),
        ("shutdown", "running", "shutdown"),
        ("shutdown", "cancelled", "cancelled"),
        ("success", "running", "success"),
        ("cancelled", "shutdown", "cancelled"),
        ("success", "failed", "failed"),
    ],
)
def test_a_run_that_is_told_to_stop_can_still_end(old: str, new: str, expected: str) -> None:
    assert next_run_state(old, new) == expected
