"""Runs side by side: a row for each param, metric and fact, a column for each run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dbnd.plugins import Shown, console, together
from dbnd_tracker._format import cell_text, duration_text, local_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._views import ComparedValue, RunComparison


def comparison_json(comparison: RunComparison) -> dict[str, Any]:
    """The runs' uids, and their params and last values of metrics by name; null where a run has none."""
    uids = [run.run_uid for run in comparison.runs]
    by_kind = {
        kind: {row.name: [row.values.get(uid) for uid in uids] for row in comparison.data if row.kind == kind}
        for kind in ("params", "metrics")
    }
    return {"runs": uids, **by_kind}


def comparison_text(comparison: RunComparison, *, everything: bool) -> Shown:
    """The comparison as tables.

    Args:
        comparison: What is compared.
        everything: Whether params are shown that are the same in all runs.
    """
    runs = comparison.runs
    headers = [f"{run.name or ''} {run.run_uid[:8]}".strip() for run in runs]
    facts = [
        ("job", *(run.job_name or "" for run in runs)),
        ("state", *(run.state or "unknown" for run in runs)),
        ("started", *(local_time(run.start_time) for run in runs)),
        ("took", *(duration_text(run.duration) for run in runs)),
    ]
    params = [row for row in comparison.data if row.kind == "params"]
    shown = [row for row in params if everything or row.differs]
    uids = [run.run_uid for run in runs]
    parts = [console.table(("", *headers), facts), *_table("PARAM", headers, uids, shown)]
    if len(shown) < len(params):
        parts.append(console.dimmed(f"{len(params) - len(shown)} params are the same in all; --all shows them."))
    parts += _table("METRIC", headers, uids, [row for row in comparison.data if row.kind == "metrics"])
    return together(parts, "\n\n")


def _table(title: str, headers: Sequence[str], uids: Sequence[str], rows: Sequence[ComparedValue]) -> list[Shown]:
    cells = [(row.name, *(cell_text(row.values.get(uid)) for uid in uids)) for row in rows]
    return [console.table((title, *headers), cells)] if cells else []
