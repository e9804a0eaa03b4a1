"""The rows of the table as HTML, without a template: there are hundreds of them, and its macros take their time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from markupsafe import Markup, escape

from dbnd_tracker._pages.templates import (
    ago_element,
    elapsed_element,
    job_url,
    row_url,
    short_uid,
    state_element,
    value_cells,
)
from dbnd_tracker._queries.language.expressions import Field
from dbnd_tracker._views import RunRow

SIZES: Final = (25, 50, 100, 200)
"""How many rows a page can have."""


@dataclass(frozen=True)
class RowLook:
    """How the rows of one page look.

    Args:
        is_flat: Whether nested rows stand among the others, each behind what it is nested in.
        unfolds: Whether any of them unfolds.
        facts: The columns of what rows are, by their fields.
        times: Those that say when they were.
        shown: Those of what they logged.
        values: What they logged, by their uids.
    """

    is_flat: bool
    unfolds: bool
    facts: Collection[str]
    times: Sequence[str]
    shown: Sequence[Field]
    values: Mapping[str, Mapping[Field, Any]]

    def html(self, run: RunRow) -> Markup:
        """The row of a run, or of a task run nested in one."""
        uid, name = run.uid, escape(run.name or run.uid)
        cells = "\n".join(self._cells(run))
        return Markup(  # noqa: S704  all is escaped
            f'<tr id="run-{uid}">\n<td class="check">'
            f'<input type="checkbox" name="run" value="{uid}" form="compare" aria-label="Select {name}"></td>\n'
            f'<td class="name"><div>{"".join(self._name(run))}</div></td>\n{cells}\n</tr>'
        )

    def _name(self, run: RunRow) -> Iterator[str]:
        if self.is_flat:
            for name in run.nested_in:
                yield f'<span class="quiet above">{escape(name)} / </span>'
        elif run.has_nested:
            label = f"What is nested in {escape(run.name or run.uid)}"
            href = escape(f"/?{urlencode({'below': run.uid, 'limit': SIZES[-1]})}")
            yield f'<a class="unfold" href="{href}" aria-expanded="false" aria-label="{label}"></a>'
        elif self.unfolds:
            yield '<span class="unfold"></span>'
        yield f'<a href="{row_url(run)}" data-open>{escape(run.name or short_uid(run.uid))}</a>'
        if run.mlflow_run_name and run.mlflow_run_name != run.name:
            its = escape(run.mlflow_run_name)
            yield f' <span class="quiet mlflow-name" title="The name of its MLflow run">{its}</span>'
        if run.is_deleted_in_mlflow:
            yield ' <span class="mark">deleted in MLflow</span>'

    def _cells(self, run: RunRow) -> Iterator[str]:
        yield f"<td>{state_element(run.state)}</td>"
        for field in self.facts:
            text = escape(getattr(run, field) or "")
            if field == "job_name" and text:
                yield f'<td><a class="plain" href="{escape(job_url(run.job_name))}">{text}</a></td>'
            else:
                yield f"<td>{text}</td>"
        for time in self.times:
            took = time == "took"
            text = elapsed_element(run.start_time, run.end_time, run.state) if took else ago_element(run.start_time)
            yield f'<td class="fixed">{text}</td>'
        yield value_cells(self.values.get(run.uid, {}), self.shown)
