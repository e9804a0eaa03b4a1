"""The states of runs and task runs, and which of two wins when events arrive out of order."""

from __future__ import annotations

from typing import Final

from dbnd.tracking import TaskRunState

FINAL_STATES: Final = frozenset(state.value for state in TaskRunState if state.is_final)
"""States after which nothing runs any more, of runs and of task runs."""

LOST: Final = "lost"
"""What a run is shown as whose heartbeats have stopped; it is never stored."""

_CORRECTIONS: Final = frozenset({"success", "failed"})
_TASK_RANKS: Final = {"scheduled": 1, "queued": 2, "running": 3}
_RUN_RANKS: Final = {"scheduled": 1, "running": 2, "shutdown": 3}
_TOP_RANK: Final = 4


def next_task_state(old: str | None, new: str) -> str:
    """The state of an attempt in state ``old`` after an event that says ``new``.

    A higher rank wins; of equal rank, success and failure correct what was there, and everything else is late.
    """
    return _winner(_TASK_RANKS, old, new)


def next_run_state(old: str | None, new: str) -> str:
    """The state of a run in state ``old`` after an event that says ``new``, by the same rule."""
    return _winner(_RUN_RANKS, old, new)


def _winner(ranks: dict[str, int], old: str | None, new: str) -> str:
    if old is None:
        return new
    old_rank, new_rank = ranks.get(old, _TOP_RANK), ranks.get(new, _TOP_RANK)
    if new_rank > old_rank or (new_rank == old_rank and new in _CORRECTIONS):
        return new
    return old
