"""``dbnd runs``: list, show, compare, export, open and delete tracked runs."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dbnd import UsageError
from dbnd_tracker._cli.databases import json_option
from dbnd_tracker._cli.references import complete_run, configured_reader, page_of, read_whole, resolve, resolve_all
from dbnd_tracker._errors import TrackerError

if TYPE_CHECKING:
    from dbnd_tracker._queries.language.expressions import QueryError

_RUN = click.argument("run", shell_complete=complete_run)
_RUNS = click.argument("runs", nargs=-1, required=True, shell_complete=complete_run, metavar="RUN...")


@click.group()
def runs() -> None:
    """List, show, compare, export, open and delete tracked runs.

    A RUN is named by its uid or the id of its MLflow run, or the first four or more digits of them, by its name or
    MLflow's, or by the word "latest". MLflow runs that are nested in another one are named so, too.
    """


@runs.command("list")
@click.argument("query", nargs=-1)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many runs at most.")
@click.option("--job", help="Only runs of this job.")
@click.option("--project", help="Only runs of this project.")
@click.option("--state", help="Only runs in this state, such as failed.")
@click.option("--user", help="Only runs of this user.")
@click.option("--name", help="Only runs of this name; % stands for any text.")
@click.option("--since", metavar="WHEN", help="Only runs that started then or later: an age as 12h or 7d, or a time.")
@click.option("--until", metavar="WHEN", help="Only runs that started earlier.")
@click.option(
    "--where",
    "wheres",
    multiple=True,
    metavar="CONDITION",
    help="Such as 'metrics.loss < 0.5 and params.lr = 0.1'; may be given more than once.",
)
@click.option(
    "--sort", default="-started", metavar="[-]NAME", help="Such as metrics.loss, or -took with the longest first."
)
@click.option(
    "--columns", metavar="NAME,...", help="What else to show of each, such as metrics.loss,min:metrics.loss,params.lr."
)
@json_option
def list_(
    *,
    query: tuple[str, ...],
    limit: int,
    sort: str,
    columns: str | None,
    as_json: bool,
    wheres: tuple[str, ...],
    **filters: str | None,
) -> None:
    """List runs, newest first.

    QUERY is one line of words to search for in names, and of conditions: wine 'metrics.loss < 0.5'. Asked for by what
    was logged, or sorted by it, MLflow runs and tasks that are nested in others are listed one by one.
    """
    from dbnd.plugins import console
    from dbnd_tracker._cli.text import list_text
    from dbnd_tracker._queries.language.grammar import joined

    conditions = _conditions(wheres, **filters)
    search = " ".join(query)
    shown = _columns(columns, sort, [*conditions, *_asked(search)])
    reader = configured_reader()
    page = reader.runs(joined(conditions), limit, search=search, sort=sort, columns=shown)
    if as_json:
        console.json_result([run.model_dump(mode="json") for run in page.data])
        return
    if not page.data:
        console.info(f"No run {'matches' if conditions or search else 'has been tracked yet'} in {reader.name}.")
        return
    console.result(list_text(page.data, shown))
    if page.meta.total > len(page.data):
        console.info(f"{page.meta.total - len(page.data)} more; --limit shows more.")


def _refused(error: QueryError, of: str = "") -> UsageError:
    """That a condition cannot be understood, in lines of which each is cleaned."""
    from dbnd.plugins import together

    return UsageError(together(f"{of}{error}".split("\n"), "\n"))


def _asked(search: str) -> list[str]:
    """The conditions in what is searched for."""
    from dbnd_tracker._queries.language.expressions import QueryError
    from dbnd_tracker._queries.language.grammar import parse_query

    try:
        return parse_query(search).conditions
    except QueryError as error:
        raise _refused(error) from None


def _columns(columns: str | None, sort: str, conditions: list[str]) -> list[str]:
    """The columns that are asked for; else those that conditions and order name."""
    from dbnd_tracker._queries.language.expressions import Field, QueryError, operands
    from dbnd_tracker._queries.language.grammar import joined, parse_expression
    from dbnd_tracker._queries.table.run_table import parse_column, parse_order

    try:
        order, _ = parse_order(sort)
        if columns is not None:
            return [str(parse_column(name.strip())) for name in columns.split(",") if name.strip()]
    except QueryError as error:
        raise UsageError(str(error)) from None
    named = [*operands(parse_expression(joined(conditions))), order]
    return [str(each) for each in dict.fromkeys(named) if isinstance(each, Field)]


def _conditions(wheres: tuple[str, ...], *, since: str | None, until: str | None, **filters: str | None) -> list[str]:
    """The conditions that the options say; each must be one, and compare with what exists, such as a state."""
    from dbnd_tracker._queries.language.expressions import QueryError
    from dbnd_tracker._queries.language.grammar import condition, parse_expression

    found = [("where", text) for text in wheres]
    for option, value in filters.items():
        if value is not None:
            found.append((option, condition(option, "like" if option == "name" else "=", value)))
    for option, sign, value in (("since", ">=", since), ("until", "<", until)):
        if value is not None:
            found.append((option, condition("start_time", sign, _moment(option, value))))
    for option, text in found:
        try:
            if parse_expression(text) is None:
                raise UsageError(f"--{option} is empty; it needs a condition such as 'metrics.loss < 0.5'.")
        except QueryError as error:
            raise _refused(error, f"--{option}: ") from None
    return [text for _, text in found]


def _moment(option: str, text: str) -> str:
    """The time that an option gives: an age such as 90m or 2w, or ISO 8601, in local time unless it says otherwise."""
    from dbnd.plugins import parse_duration

    age = parse_duration(text)
    try:
        time = datetime.fromisoformat(text.strip()) if age is None else datetime.now(timezone.utc) - age
        return time.astimezone(timezone.utc).isoformat()
    except (ValueError, OverflowError):
        raise UsageError(
            f"--{option} {text!r} is neither an age, such as 12h or 7d, nor a time, such as 2026-03-04T05:06."
        ) from None


@runs.command()
@_RUN
@json_option
def show(run: str, *, as_json: bool) -> None:
    """Show a run with its tasks, params, metrics and artifacts."""
    from dbnd.plugins import console
    from dbnd_tracker._cli.text import run_text

    reader = configured_reader()
    row = resolve(reader, run)
    found = read_whole(reader, row)
    if as_json:
        console.json_result(found.model_dump(mode="json"))
    else:
        console.result(run_text(row, found, reader.page_url(row)))


@runs.command()
@_RUNS
@click.option("--all", "everything", is_flag=True, help="Also what is the same in all runs.")
@json_option
def compare(*, runs: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Compare runs: the params that differ, and the last values of all metrics."""
    from dbnd.plugins import console
    from dbnd_tracker._cli.text import comparison_json, comparison_text

    reader = configured_reader()
    found = resolve_all(reader, runs)
    if len(found) < 2:
        raise UsageError("A comparison needs at least two runs; `dbnd runs list` shows those that there are.")
    comparison = reader.compare([run.uid for run in found])
    if as_json:
        console.json_result(comparison_json(comparison))
    else:
        console.result(comparison_text(comparison, everything=everything))


@runs.command()
@_RUNS
@click.option(
    "--format", "form", type=click.Choice(["json", "csv", "parquet"]), help="Else what the name of the file says; json."
)
@click.option("-o", "--output", "path", type=click.Path(dir_okay=False), help="The file; else standard output.")
def export(*, runs: tuple[str, ...], form: str | None, path: str | None) -> None:
    """Write runs to a file: as JSON everything in them, as CSV or Parquet a row for each point of their metrics."""
    from dbnd.plugins import console
    from dbnd_tracker._cli.export import export_runs

    reader = configured_reader()
    file = None if path is None or path == "-" else Path(path)
    found = [read_whole(reader, run) for run in resolve_all(reader, runs)]
    count = export_runs(reader, found, form, file)
    if file is not None:
        console.info(f"Wrote {file} with {count} points.")


@runs.command("open")
@_RUN
@click.option("--print", "only_print", is_flag=True, help="Print the address, and start no browser.")
@json_option
def open_(run: str, *, only_print: bool, as_json: bool) -> None:
    """Print the address of a run's page and open it in the browser."""
    import webbrowser

    from dbnd.plugins import console

    reader = configured_reader()
    url = page_of(reader, resolve(reader, run))
    if as_json:
        console.json_result({"url": url})
        return
    console.result(url)
    if not only_print and sys.stdout.isatty():
        webbrowser.open(url)


@runs.command()
@_RUNS
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also runs that still go on.")
@json_option
def delete(*, runs: tuple[str, ...], yes: bool, force: bool, as_json: bool) -> None:
    """Delete runs from the tracker, with everything in them, for good; MLflow's own copies stay."""
    from dbnd.plugins import console

    reader = configured_reader()
    found = resolve_all(reader, runs)
    nested = next((run for run in found if run.nested_in), None)
    if nested is not None:
        part = f"{nested.name} ({nested.uid[:8]}) is a part of the run {nested.nested_in[0]} ({nested.run_uid[:8]})"
        raise UsageError(f"{part}: only whole runs can be deleted.")
    going = [run for run in found if run.state == "running"]
    if going and not force:
        which = f"{going[0].name} ({going[0].run_uid[:8]})"
        raise UsageError(f"The run {which} still goes on: wait for its end, or add --force.")
    named = ", ".join(f"{run.name} ({run.run_uid[:8]})" for run in found)
    if not yes and not console.is_confirmed(f"Delete {named} from {reader.name}, for good?"):
        raise TrackerError("Nothing was deleted.")
    deleted = [run.run_uid for run in found if reader.delete(run.run_uid)]
    if as_json:
        console.json_result({"deleted": deleted})
    else:
        console.success(f"Deleted {named}.")
