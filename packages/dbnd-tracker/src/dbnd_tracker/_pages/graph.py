"""The graph of a run's tasks, laid out in the server: who started whom, and who waits for whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._views import TaskRunView

NODE_WIDTH: Final = 190
NODE_HEIGHT: Final = 42
MAX_NODES: Final = 150
"""A graph of more task runs than this helps nobody."""

_COLUMN: Final = NODE_WIDTH + 60
_ROW: Final = NODE_HEIGHT + 16
_MARGIN: Final = 4
_LABEL: Final = 25


@dataclass(frozen=True, slots=True)
class Node:
    """A task run in the graph; ``x`` and ``y`` are its upper left corner."""

    task: TaskRunView
    label: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Edge:
    """An arrow as an SVG path; ``kind`` is ``child`` or ``upstream``."""

    path: str
    kind: str


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph with its size, in pixels."""

    nodes: list[Node]
    edges: list[Edge]
    width: int
    height: int

    @property
    def has_upstreams(self) -> bool:
        """Whether any task run waits for another."""
        return any(edge.kind == "upstream" for edge in self.edges)


def make_graph(tasks: Sequence[TaskRunView]) -> Graph | None:
    """The graph of some task runs, or None where it would show nothing, or too much.

    Args:
        tasks: Task runs as a tree laid out in lines.
    """
    if not 1 < len(tasks) <= MAX_NODES:
        return None
    layout = _Layout(tasks)
    places = {
        task.task_run_uid: (
            _MARGIN + layout.columns[task.task_run_uid] * _COLUMN,
            round(_MARGIN + layout.rows[task.task_run_uid] * _ROW),
        )
        for task in tasks
    }
    nodes = [Node(task, _short(task.name or task.task_run_uid), *places[task.task_run_uid]) for task in tasks]
    edges = [Edge(_path(places[start], places[end]), kind) for kind, start, end in layout.arrows]
    width = max(x for x, _ in places.values()) + NODE_WIDTH + _MARGIN
    height = max(y for _, y in places.values()) + NODE_HEIGHT + _MARGIN
    return Graph(nodes, edges, width, height)


def _short(name: str) -> str:
    return name if len(name) <= _LABEL else f"{name[: _LABEL - 1]}…"


def _path(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT // 2
    x2, y2 = end[0], end[1] + NODE_HEIGHT // 2
    bend = max((x2 - x1) // 2, 24)
    return f"M{x1} {y1}C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"


class _Layout:
    """Columns and rows: a task run stands to the right of what started it and of what it waits for.

    A leaf takes the row of the leaf that it waits for, if it can, and else a new one; what started others stands in
    the middle of them. Below it stand only its descendants, so that no two take one place.
    """

    def __init__(self, tasks: Sequence[TaskRunView]) -> None:
        self._tasks = {task.task_run_uid: task for task in tasks}
        self._children: dict[str, list[str]] = {uid: [] for uid in self._tasks}
        for task in tasks:
            if task.parent_task_run_uid in self._children:
                self._children[task.parent_task_run_uid].append(task.task_run_uid)
        self.arrows: list[tuple[str, str, str]] = []
        for task in tasks:
            self.arrows += self._arrows_to(task)
        self.columns = self._columns()
        self.rows: dict[str, float] = {}
        self._ends: dict[float, int] = {}
        self._place(tasks)

    def _arrows_to(self, task: TaskRunView) -> list[tuple[str, str, str]]:
        uid, parent = task.task_run_uid, task.parent_task_run_uid
        found = [("child", parent, uid)] if parent is not None and parent in self._tasks else []
        # Clients also say that a task waits for those that it started; the tree shows that already.
        related = {parent, uid, *self._children[uid]}
        found += [("upstream", other, uid) for other in task.upstreams if other in self._tasks and other not in related]
        return found

    def _columns(self) -> dict[str, int]:
        found = dict.fromkeys(self._tasks, 0)
        # Arrows in a circle would push each other to the right for ever.
        for _ in range(len(self._tasks)):
            changed = False
            for _, start, end in self.arrows:
                if found[end] <= found[start] and found[start] + 1 < len(self._tasks):
                    found[end] = found[start] + 1
                    changed = True
            if not changed:
                break
        return found

    def _place(self, tasks: Sequence[TaskRunView]) -> None:
        waits_for = {end: start for kind, start, end in self.arrows if kind == "upstream"}
        following = 0
        leaves = [task.task_run_uid for task in tasks if not self._children[task.task_run_uid]]
        for uid in leaves:
            row = self.rows.get(waits_for.get(uid, ""))
            same_parent = self._parent(waits_for.get(uid)) == self._parent(uid)
            if row is None or not same_parent or self._ends[row] >= self.columns[uid]:
                row, following = float(following), following + 1
            self.rows[uid] = row
            self._ends[row] = self.columns[uid]
        for task in reversed(tasks):
            children = self._children[task.task_run_uid]
            if children:
                rows = [self.rows[child] for child in children if child in self.rows] or [float(following)]
                self.rows[task.task_run_uid] = (min(rows) + max(rows)) / 2

    def _parent(self, uid: str | None) -> str | None:
        return self._tasks[uid].parent_task_run_uid if uid in self._tasks else None
