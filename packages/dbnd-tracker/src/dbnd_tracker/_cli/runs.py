"""``dbnd runs``: list and show tracked runs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from dbnd_tracker._reader import Reader
    from dbnd_tracker._views import RunDetail, RunSummary

_UID_PREFIX: Final = re.compile(r"[0-9a-f]{4,32}")
_DASHES: Final = (8, 12, 16, 20)
_CANDIDATES: Final = 5


@click.group()
def runs() -> None:
    """List and show tracked runs."""


@runs.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many runs at most.")
@click.option("--job", help="Only runs of this job.")
@click.option("--state", help="Only runs in this state, such as failed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(*, limit: int, job: str | None, state: str | None, as_json: bool) -> None:
    """List runs, newest first."""
    from dbnd import _console
    from dbnd_tracker._format import duration_text, local_time
    from dbnd_tracker._queries import Condition

    reader = _reader()
    given = {"job_name": job, "state": state}
    page = reader.runs([Condition(name, "eq", value) for name, value in given.items() if value is not None], limit)
    if as_json:
        _print_json([run.model_dump(mode="json") for run in page.data])
        return
    if not page.data:
        _console.info(f"No run {'matches' if job or state else 'has been tracked yet'} in {_where(reader)}.")
        return
    rows = [
        (
            run.run_uid[:8],
            run.name or "",
            run.job_name or "",
            run.state or "unknown",
            local_time(run.start_time),
            duration_text(run.duration),
            run.user or "",
        )
        for run in page.data
    ]
    _console.result(_console.table(("RUN", "NAME", "JOB", "STATE", "STARTED", "TOOK", "USER"), rows))
    if page.meta.total > len(rows):
        _console.info(f"{page.meta.total - len(rows)} more; --limit shows more.")


@runs.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(run: str, *, as_json: bool) -> None:
    """Show a run with its tasks, params, metrics and artifacts.

    RUN is the uid of a run or the first four or more digits of it, the name of a run, or the word "latest".
    """
    from dbnd import _console
    from dbnd_tracker._cli.run_text import run_text

    reader = _reader()
    found = _resolve(reader, run)
    if as_json:
        _print_json(found.model_dump(mode="json"))
    else:
        _console.result(run_text(found, reader.page_url(found)))


def _reader() -> Reader:
    from dbnd._config import Config
    from dbnd_tracker._reader import open_reader

    reader = open_reader(Config.load())
    click.get_current_context().call_on_close(reader.close)
    return reader


def _where(reader: Reader) -> str:
    from dbnd_tracker._reader import DatabaseReader

    is_missing = isinstance(reader, DatabaseReader) and not reader.exists
    return f"{reader.name}, which does not exist yet" if is_missing else reader.name


def _resolve(reader: Reader, text: str) -> RunDetail:
    """The one run that ``text`` names.

    Raises:
        UsageError: None does, or several do.
    """
    from dbnd._errors import UsageError

    candidates = _candidates(reader, text)
    if len(candidates) > 1:
        shown = ", ".join(run.run_uid for run in candidates[:_CANDIDATES])
        more = ", …" if len(candidates) > _CANDIDATES else ""
        msg = f"{text!r} names more than one run: {shown}{more}. Give more of the uid."
        raise UsageError(msg)
    found = reader.run(candidates[0].run_uid) if candidates else None
    if found is None:
        what = "There is no run" if text == "latest" else f"There is no run {text!r}"
        msg = f"{what} in {_where(reader)}; `dbnd runs list` shows those that there are."
        raise UsageError(msg)
    return found


def _candidates(reader: Reader, text: str) -> list[RunSummary]:
    from dbnd_tracker._queries import Condition

    if text == "latest":
        return reader.runs([], 1).data
    wanted = [Condition("name", "eq", text)]
    digits = text.lower().replace("-", "")
    if _UID_PREFIX.fullmatch(digits):
        dashed = "".join(f"-{digit}" if place in _DASHES else digit for place, digit in enumerate(digits))
        wanted.append(Condition("uid", "startswith", dashed))
    found = {run.run_uid: run for condition in wanted for run in reader.runs([condition], _CANDIDATES + 1).data}
    return list(found.values())


def _print_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    from dbnd import _console

    _console.result(json.dumps(value, indent=2))
