"""Halves of events: what a tracker would refuse as too large is kept as several events from the start."""

from __future__ import annotations

from typing import Any, Final

from dbnd._model.points import MAX_POINTS, SIZE, Group
from dbnd._model.values import MAX_TEXT, shorten

# An event is no longer than this, in bytes of the journal, if it can be taken apart. The protocol's form of it, which
# says each value twice, then has about half of the values that our tracker takes in a body.
MAX_EVENT: Final = 1 << 19
_MAX_TASK_RUNS: Final = 500
# Longest text of a point that alone makes an event too long, in characters: no tracker keeps one of a million.
_LONGEST_TEXT: Final = 100_000


def parts_of(call: str, body: Any, size: int) -> list[Any]:
    """The bodies of two calls that say what one does, or of a shorter one; none when it may stay as it is.

    ``size`` is the number of bytes that the body takes in the journal.
    """
    if call == "log_metrics" and isinstance(body, list):
        points = sum(len(members) for _, _, members in body) // SIZE
        if _is_too_large(points, MAX_POINTS, size):
            return _halves_of_groups(body, points // 2 * SIZE)
        shortened = [_shortened(group) for group in body] if size > MAX_EVENT else body
        return [] if shortened == body else [shortened]
    if call == "add_task_runs":
        info = body["task_runs_info"]
        task_runs, middle = info["task_runs"], len(info["task_runs"]) // 2
        if _is_too_large(len(task_runs), _MAX_TASK_RUNS, size):
            halves = task_runs[:middle], task_runs[middle:]
            return [body | {"task_runs_info": _with_only(half, info)} for half in halves]
    return []


def _is_too_large(count: int, most: int, size: int) -> bool:
    return count > most or (size > MAX_EVENT and count > 1)


def _halves_of_groups(groups: list[Group], size: int) -> list[list[Group]]:
    """``groups`` in two lists, of which the first holds ``size`` members of points."""
    first: list[Group] = []
    second: list[Group] = []
    for attempt, source, members in groups:
        for half, part in ((first, members[:size]), (second, members[size:])):
            if part:
                half.append([attempt, source, part])
        size = max(0, size - len(members))
    return [first, second]


def _shortened(group: Group) -> Group:
    """A group of at most one point, with its texts cut."""
    attempt, source, members = group
    texts = zip(members, (MAX_TEXT, _LONGEST_TEXT), strict=False)
    cut = [shorten(text, limit) if isinstance(text, str) else text for text, limit in texts]
    return [attempt, source, [*cut, *members[2:]]]


def _with_only(task_runs: list[dict[str, Any]], info: dict[str, Any]) -> dict[str, Any]:
    uids = {task_run["task_run_uid"] for task_run in task_runs}
    definitions = {task_run["task_definition_uid"] for task_run in task_runs}
    pairs = [pair for pair in info["parent_child_map"] if pair[1] in uids]
    return info | {
        "task_runs": task_runs,
        "task_definitions": [d for d in info["task_definitions"] if d["task_definition_uid"] in definitions],
        "parent_child_map": pairs,
        "upstreams_map": pairs,
    }
