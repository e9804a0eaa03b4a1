"""Parts of events: what a tracker would refuse as too large is kept as several events from the start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from dbnd._model.points import MAX_POINTS, SIZE, Group
from dbnd._model.values import MAX_TEXT, shorten

# An event is no longer than this, in bytes of the journal, if it can be taken apart. The protocol's form of it, which
# says each value twice, then has about half of the values that our tracker takes in a body.
MAX_EVENT: Final = 1 << 19
_MAX_TASK_RUNS: Final = 500
# Longest text of a point that alone makes an event too long, in characters.
_LONGEST_TEXT: Final = 100_000


def parts_of(call: str, body: Any, size: int) -> list[Any]:
    """The bodies of several calls that say what one does; none when it may stay as it is.

    Args:
        call: Name of the wire call.
        body: Its body.
        size: Bytes that it takes in the journal.
    """
    if call == "log_metrics" and isinstance(body, list):
        points = sum(len(group[2]) for group in body) // SIZE
        if points == 1 and size > MAX_EVENT:
            shortened = [_shortened(group) for group in body]
            return [] if shortened == body else [shortened]
        each = _each(points, MAX_POINTS, size)
        return list(_groups(body, each * SIZE)) if each < points else []
    if call == "add_task_runs":
        info = body["task_runs_info"]
        task_runs = info["task_runs"]
        each = _each(len(task_runs), _MAX_TASK_RUNS, size)
        if each < len(task_runs):
            return [
                body | {"task_runs_info": _info(info, task_runs[start : start + each])}
                for start in range(0, len(task_runs), each)
            ]
    return []


def _each(count: int, most: int, size: int) -> int:
    """How many of ``count`` things, which take ``size`` bytes together, a part has."""
    return min(most, max(1, count * MAX_EVENT // size))


def _groups(groups: list[Group], most: int) -> Iterator[list[Group]]:
    """``groups`` in lists that hold ``most`` members of points each."""
    part: list[Group] = []
    room = most
    for attempt, source, members in groups:
        start = 0
        while start < len(members):
            taken = members[start : start + room]
            part.append([attempt, source, taken])
            start += len(taken)
            room -= len(taken)
            if not room:
                yield part
                part, room = [], most
    if part:
        yield part


def _shortened(group: Group) -> Group:
    """A group with its texts cut: no tracker keeps a text of a million characters."""
    attempt, source, members = group
    limits = (MAX_TEXT, _LONGEST_TEXT, 0, 0, 0)
    return [
        attempt,
        source,
        [
            shorten(part, limits[n % SIZE]) if isinstance(part, str) and limits[n % SIZE] else part
            for n, part in enumerate(members)
        ],
    ]


def _info(info: dict[str, Any], task_runs: list[dict[str, Any]]) -> dict[str, Any]:
    uids = {task_run["task_run_uid"] for task_run in task_runs}
    definitions = {task_run["task_definition_uid"] for task_run in task_runs}
    pairs = [pair for pair in info["parent_child_map"] if pair[1] in uids]
    return info | {
        "task_runs": task_runs,
        "task_definitions": [d for d in info["task_definitions"] if d["task_definition_uid"] in definitions],
        "parent_child_map": pairs,
        "upstreams_map": [list(pair) for pair in pairs],
    }
