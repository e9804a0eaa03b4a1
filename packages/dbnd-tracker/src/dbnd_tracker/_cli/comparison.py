"""Runs side by side: a row for each param, metric and fact, a column for each run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dbnd.plugins import Shown, console, together
from dbnd_tracker._format import cell_text, duration_text, local_time

if TYPE_CHECKING:
    from dbnd_tracker._views import RunDetail, TaskRunView

Values = dict[str, list[Any]]


def compared(runs: Sequence[RunDetail]) -> dict[str, Any]:
    """The runs' uids, and their params and last values of metrics by name; null where a run has none.

    What a nested task logged has its task's name in front.
    """
    return {
        "runs": [run.run_uid for run in runs],
        "params": _by_name([_params(run) for run in runs]),
        "metrics": _by_name([_metrics(run) for run in runs]),
    }


def comparison_text(runs: Sequence[RunDetail], *, everything: bool) -> Shown:
    """The comparison as tables.

    Args:
        runs: What is compared.
        everything: Whether params are shown that are the same in all runs.
    """
    headers = [f"{run.name or ''} {run.run_uid[:8]}".strip() for run in runs]
    facts: list[tuple[str, list[str]]] = [
        ("job", [run.job_name or "" for run in runs]),
        ("state", [run.state or "unknown" for run in runs]),
        ("started", [local_time(run.start_time) for run in runs]),
        ("took", [duration_text(run.duration) for run in runs]),
    ]
    parts = [console.table(("", *headers), [(name, *values) for name, values in facts])]
    params = _by_name([_params(run) for run in runs])
    shown = {name: values for name, values in params.items() if everything or len(set(values)) > 1}
    parts += _table("PARAM", headers, shown)
    if len(shown) < len(params):
        parts.append(console.dimmed(f"{len(params) - len(shown)} params are the same in all; --all shows them."))
    parts += _table("METRIC", headers, _by_name([_metrics(run) for run in runs]))
    return together(parts, "\n\n")


def _table(title: str, headers: Sequence[str], values: Values) -> list[Shown]:
    if not values:
        return []
    rows = [(name, *(cell_text(value) for value in row)) for name, row in values.items()]
    return [console.table((title, *headers), rows)]


def _params(run: RunDetail) -> dict[str, Any]:
    return {f"{_owner(task)}{param.name}": param.value for task in run.task_runs for param in task.params}


def _metrics(run: RunDetail) -> dict[str, Any]:
    return {f"{_owner(task)}{metric.key}": metric.last_value for task in run.task_runs for metric in task.metrics}


def _owner(task: TaskRunView) -> str:
    return "" if task.is_root else f"{task.task_af_id or task.name}."


def _by_name(found: Sequence[dict[str, Any]]) -> Values:
    names = {name: None for values in found for name in values}
    return {name: [values.get(name) for values in found] for name in names}
