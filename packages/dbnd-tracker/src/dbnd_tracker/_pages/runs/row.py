"""A row of the table as HTML: there are hundreds of them, and a template would take three times as long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from dbnd_tracker._pages.runs.table import TablePage
    from dbnd_tracker._views import RunRow


def row_html(page: TablePage, run: RunRow) -> Markup:
    """The row of a run, or of a task run nested in one, on a page of the table."""
    uid, name = run.uid, escape(run.name or run.uid)
    cells = "\n".join(_cells(page, run))
    return Markup(  # noqa: S704  all is escaped
        f'<tr id="run-{uid}">\n'
        f'<td class="check"><input type="checkbox" name="run" value="{uid}" form="compare" aria-label="Select {name}">'
        f'</td>\n<td class="name"><div>{_name(page, run)}</div></td>\n{cells}\n</tr>'
    )


def _name(page: TablePage, run: RunRow) -> str:
    name = escape(run.name or short_uid(run.uid))
    parts = [f'<a href="{row_url(run)}" data-open>{name}</a>']
    if page.is_flat:
        parts[:0] = [f'<span class="quiet above">{escape(above)} / </span>' for above in run.nested_in]
    elif run.has_nested:
        label = f"What is nested in {escape(run.name or run.uid)}"
        href = escape(page.below(run))
        parts.insert(0, f'<a class="unfold" href="{href}" aria-expanded="false" aria-label="{label}"></a>')
    elif page.unfolds:
        parts.insert(0, '<span class="unfold"></span>')
    if run.mlflow_run_name and run.mlflow_run_name != run.name:
        its = escape(run.mlflow_run_name)
        parts.append(f' <span class="quiet mlflow-name" title="The name of its MLflow run">{its}</span>')
    if run.is_deleted_in_mlflow:
        parts.append(' <span class="mark">deleted in MLflow</span>')
    return "".join(parts)


def _cells(page: TablePage, run: RunRow) -> Iterator[str]:
    yield f"<td>{state_element(run.state)}</td>"
    for field in page.optional.values():
        text = escape(getattr(run, field) or "")
        if field == "job_name" and text:
            yield f'<td><a class="plain" href="{escape(job_url(run.job_name))}">{text}</a></td>'
        else:
            yield f"<td>{text}</td>"
    for time in page.times:
        took = (
            elapsed_element(run.start_time, run.end_time, run.state) if time == "took" else ago_element(run.start_time)
        )
        yield f'<td class="fixed">{took}</td>'
    yield value_cells(page.values.get(run.uid, {}), page.columns.shown)
