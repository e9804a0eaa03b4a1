"""A run as text: its facts, its task tree, and what each task run logged."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from dbnd.plugins import Shown, console, together
from dbnd_tracker._format import cell_text, duration_text, local_time

if TYPE_CHECKING:
    from dbnd_tracker._views import RunDetail, TaskRunView


# Exceptions travel as the text of their class.
_CLASS: Final = re.compile(r"<class '(.*)'>")
STATE_COLOURS: Final = {
    "success": "green",
    "failed": "red",
    "upstream_failed": "red",
    "cancelled": "yellow",
    "lost": "yellow",
    "running": "cyan",
}
# Deepest step that the tree draws.
_DEEPEST: Final = 20
# Widest value in a column that others stand behind.
_WIDEST: Final = 60


def run_text(run: RunDetail, page_url: str | None) -> Shown:
    """``run`` in full.

    Args:
        run: What is shown.
        page_url: Where a browser shows it, or None.
    """
    facts = [
        ("Run", run.name),
        ("Uid", run.run_uid),
        ("Job", run.job_name),
        ("Project", run.project_name),
        ("User", run.user),
        ("Description", run.description),
        ("State", run.state or "unknown"),
        ("Started", local_time(run.start_time)),
        ("Took", duration_text(run.duration)),
        ("Page", page_url),
    ]
    lines: list[str] = [together((console.heading(f"{label}:"), value), " ") for label, value in facts if value]
    if run.task_runs:
        tree = [
            (_branch(task) + _name(task), task.state or "unknown", duration_text(task.duration))
            for task in run.task_runs
        ]
        lines += ["", console.table(("TASK", "STATE", "TOOK"), tree, colours=STATE_COLOURS)]
    for task in run.task_runs:
        parts = list(_parts(task))
        if parts:
            lines += ["", console.heading(f"Task run {_name(task)}")]
        for part in parts:
            lines += ["", part]
    return together(lines, "\n")


def _name(task: TaskRunView) -> str:
    return task.task_af_id or task.name or task.task_run_uid


def _branch(task: TaskRunView) -> str:
    return f"└{'──' * min(task.depth, _DEEPEST)} " if task.depth else ""


def _parts(task: TaskRunView) -> Iterator[str]:
    """What there is to say of one task run."""
    if task.error:
        kind = _CLASS.sub(r"\1", task.error.get("exc_type") or "")
        yield f"Error: {kind}: {task.error.get('msg') or ''}"
    yield from _table(("LINK", "PLACE"), [(name, str(url)) for name, url in task.links.items()], whole_last=True)
    params = [(param.name, param.source.removesuffix(".param"), cell_text(param.value)) for param in task.params]
    yield from _table(("PARAM", "SOURCE", "VALUE"), params)
    yield from _table(("TAG", "VALUE"), [(tag.name, cell_text(tag.value)) for tag in task.tags])
    metrics = [
        (
            metric.key,
            str(metric.points),
            cell_text(metric.last_value, _WIDEST),
            cell_text(metric.min),
            cell_text(metric.max),
            cell_text(metric.last_step),
        )
        for metric in task.metrics
    ]
    yield from _table(("METRIC", "POINTS", "LAST", "MIN", "MAX", "STEP"), metrics)
    places = [(artifact.name, artifact.path) for artifact in task.artifacts]
    yield from _table(("ARTIFACT", "PLACE"), places, whole_last=True)
    datasets = [
        (d.operation_type, d.path or "", _shape(d.data_dimensions), d.error or d.operation_status)
        for d in task.datasets
    ]
    yield from _table(("DATASET", "PATH", "SHAPE", "STATUS"), datasets)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, whole_last: bool = False) -> Iterator[str]:
    if rows:
        yield console.table(headers, rows, whole_last=whole_last)


def _shape(dimensions: list[int | None] | None) -> str:
    return " x ".join("?" if size is None else str(size) for size in dimensions or ())
