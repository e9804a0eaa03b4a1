"""A metric over the runs of a job, with how long each took and which have failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from dbnd_tracker._format import duration_text
from dbnd_tracker._pages.runs.plots import Axis, make_axis
from dbnd_tracker._pages.templates import number_text, state_look
from dbnd_tracker._queries.language.expressions import Field, as_number
from dbnd_tracker._views import RunRow

WIDTH: Final = 1_000
HEIGHT: Final = 100
_GAP: Final = 10
_BARS: Final = 30
# Of a run's share of the width.
_BAR: Final = 0.7
_THINNEST: Final = 1


class Mark(NamedTuple):
    """A run, oldest first, in pixels."""

    run: RunRow
    look: str
    x: float
    y: float | None
    """Where its value stands; None where it has none."""
    bar: float
    """The height of its duration."""
    text: str


class Trend:
    """The runs of a page in the order of their start; without a ``metric`` only their durations are drawn."""

    def __init__(self, rows: Sequence[RunRow], values: Mapping[str, Mapping[Field, Any]], metric: Field | None) -> None:
        self.metric = metric
        runs = sorted(rows, key=lambda row: row.start_time)
        logged = [None if metric is None else as_number(values.get(run.uid, {}).get(metric)) for run in runs]
        self.axis: Axis = make_axis(logged)
        self.has_values = any(value is not None for value in logged)
        took = [run.duration.total_seconds() if run.duration else 0.0 for run in runs]
        self.longest = max(took, default=0.0)
        self.longest_text = duration_text(timedelta(seconds=self.longest))
        self.height = HEIGHT + _GAP + _BARS if self.has_values else _BARS
        share = WIDTH / max(len(runs), 1)
        self.bar_width = round(share * _BAR, 1)
        self.marks = [
            Mark(
                run,
                state_look(run.state),
                round((number + 0.5) * share, 1),
                None if (place := self.axis.place(value)) is None else round((1 - place) * HEIGHT, 1),
                round(max(seconds / (self.longest or 1) * _BARS, _THINNEST), 1),
                self._describe(run, value),
            )
            for number, (run, value, seconds) in enumerate(zip(runs, logged, took, strict=True))
        ]

    def _describe(self, run: RunRow, value: float | None) -> str:
        parts = [run.name or run.uid]
        if self.metric is not None and value is not None:
            parts.append(f"{self.metric.name} {number_text(value)}")
        parts.append(f"{run.state or 'unknown'}{f' after {duration_text(run.duration)}' if run.duration else ''}")
        return ", ".join(parts)

    @property
    def line(self) -> str:
        return "M" + "L".join(f"{mark.x} {mark.y}" for mark in self.marks if mark.y is not None)

    @property
    def ends(self) -> tuple[str, str]:
        return number_text(self.axis.high), number_text(self.axis.low)
