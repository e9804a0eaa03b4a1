"""Runs as text: one in full, or several side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from dbnd.plugins import Shown, console, together
from dbnd_tracker._format import cell_text, duration_text, local_time, type_name
from dbnd_tracker._views import RunComparison, RunDetail, RunRow, TaskRunView

_STATE_COLOURS: Final = {
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


def list_text(runs: Sequence[RunRow], columns: Sequence[str]) -> Shown:
    """Rows as a table, with their values of some columns."""
    rows = [
        (
            run.uid[:8],
            " / ".join([*run.nested_in, row_name(run)]),
            run.job_name or "",
            run.state or "unknown",
            local_time(run.start_time),
            duration_text(run.duration),
            run.user or "",
            *(cell_text(run.values.get(column), _WIDEST) for column in columns),
        )
        for run in runs
    ]
    names = (column.replace("metrics.", "").removeprefix("params.").removeprefix("tags.") for column in columns)
    headers = ("RUN", "NAME", "JOB", "STATE", "STARTED", "TOOK", "USER", *names)
    return console.table(headers, rows, colours=_STATE_COLOURS, uncut=("STARTED", "TOOK"))


def row_name(run: RunRow) -> str:
    """What a row is called: by its own name, and by MLflow's where that is another."""
    mlflow = run.mlflow_run_name
    named = f"{run.name or ''} ({mlflow})".strip() if mlflow and mlflow != run.name else run.name or ""
    return f"{named} [deleted in MLflow]" if run.is_deleted_in_mlflow else named


def run_text(row: RunRow, run: RunDetail, page_url: str | None) -> Shown:
    """A run, or what is nested in one, in full: its facts, its task tree, and what each task run logged."""
    facts = {
        "Run": row_name(row),
        "Nested in": " / ".join(row.nested_in),
        "Uid": row.uid,
        "MLflow run": row.mlflow_run_id,
        "Job": run.job_name,
        "Project": run.project_name,
        "User": run.user,
        "Description": run.description,
        "State": run.state or "unknown",
        "Started": local_time(run.start_time),
        "Took": duration_text(run.duration),
        "Page": page_url,
    }
    lines: list[str] = [together((console.heading(f"{name}:"), value), " ") for name, value in facts.items() if value]
    if run.task_runs:
        tree = [
            (branch + task.label, task.state or "unknown", duration_text(task.duration))
            for branch, task in zip(_branches(run.task_runs), run.task_runs, strict=True)
        ]
        lines += ["", console.table(("TASK", "STATE", "TOOK"), tree, colours=_STATE_COLOURS)]
    for task in run.task_runs:
        parts = list(_parts(task))
        if parts:
            lines += ["", console.heading(f"Task run {task.label}")]
        for part in parts:
            lines += ["", part]
    return together(lines, "\n")


def comparison_json(comparison: RunComparison) -> dict[str, Any]:
    """The runs' uids, and their params and last values of metrics by name; null where a run has none."""
    uids = [run.uid for run in comparison.runs]
    by_kind = {
        kind: {row.name: [row.values.get(uid) for uid in uids] for row in comparison.data if row.kind == kind}
        for kind in ("params", "metrics")
    }
    return {"runs": uids, **by_kind}


def comparison_text(comparison: RunComparison, *, everything: bool) -> Shown:
    """Runs side by side: a row for each fact, param and metric; without ``everything``, for params that differ."""
    runs = comparison.runs
    headers = [f"{run.name or ''} {run.uid[:8]}".strip() for run in runs]
    facts = [
        ("job", *(run.job_name or "" for run in runs)),
        ("state", *(run.state or "unknown" for run in runs)),
        ("started", *(local_time(run.start_time) for run in runs)),
        ("took", *(duration_text(run.duration) for run in runs)),
    ]
    parts = [console.table(("", *headers), facts)]
    for kind, title in (("params", "PARAM"), ("metrics", "METRIC")):
        rows = [row for row in comparison.data if row.kind == kind]
        shown = [row for row in rows if everything or row.differs or kind == "metrics"]
        cells = [(row.name, *(cell_text(row.values.get(run.uid)) for run in runs)) for row in shown]
        parts += _table((title, *headers), cells)
        if len(shown) < len(rows):
            parts.append(console.dimmed(f"{len(rows) - len(shown)} params are the same in all; --all shows them."))
    return together(parts, "\n\n")


def _branches(tasks: Sequence[TaskRunView]) -> list[str]:
    """What is drawn before the names of task runs, each of which is followed by those below it."""
    found: list[str] = []
    going_on: set[int] = set()  # depths of which another one follows; seen from the last task run
    for task in reversed(tasks):
        depth = min(task.depth, _DEEPEST)
        above = "".join("│   " if place in going_on else "    " for place in range(1, depth))
        found.append(above + ("├── " if depth in going_on else "└── ") if depth else "")
        going_on = {place for place in going_on if place < depth} | {depth}
    return found[::-1]


def _parts(task: TaskRunView) -> Iterator[str]:
    """What there is to say of one task run."""
    if task.error:
        yield f"Error: {type_name(task.error.get('exc_type') or '')}: {task.error.get('msg') or ''}"
    yield from _table(("LINK", "PLACE"), [(name, str(url)) for name, url in task.links.items()], whole_last=True)
    params = [(param.name, param.source.removesuffix(".param"), cell_text(param.value)) for param in task.params]
    yield from _table(("PARAM", "SOURCE", "VALUE"), params)
    yield from _table(("TAG", "VALUE"), [(tag.name, cell_text(tag.value)) for tag in task.tags])
    metrics = [
        (m.key, str(m.points), cell_text(m.last_value, _WIDEST), *map(cell_text, (m.min, m.max, m.last_step)))
        for m in task.metrics
    ]
    yield from _table(("METRIC", "POINTS", "LAST", "MIN", "MAX", "STEP"), metrics)
    places = [(artifact.name, artifact.path) for artifact in task.artifacts]
    yield from _table(("ARTIFACT", "PLACE"), places, whole_last=True)
    datasets = [
        (d.operation_type, d.path or "", _shape(d.data_dimensions), d.error or d.operation_status)
        for d in task.datasets
    ]
    yield from _table(("DATASET", "PATH", "SHAPE", "STATUS"), datasets)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, whole_last: bool = False) -> Iterator[Shown]:
    if rows:
        yield console.table(headers, rows, whole_last=whole_last)


def _shape(dimensions: list[int | None] | None) -> str:
    return " x ".join("?" if size is None else str(size) for size in dimensions or ())
