"""The tracker that a command reads, the runs that its words name, and where their pages are."""

from __future__ import annotations

import re
from contextlib import closing, suppress
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

from dbnd import DatabandError, UsageError
from dbnd_tracker._errors import RemoteError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import RunDetail, RunRow, RunSummary

LATEST: Final = "latest"
_UID_PREFIX: Final = re.compile(r"[0-9a-f]{4,32}")
_CANDIDATES: Final = 5
# Rows of one name that are read to find a run among them.
_MAX_NAMED: Final = 1_000
_COMPLETIONS: Final = 50
# Seconds for a server on this machine to answer.
_PATIENCE: Final = 3
# A tracker may take so many seconds while the shell completes.
_AT_ONCE: Final = {"core": {"connect_timeout": 1, "api_request_timeout_sec": 2}}


def configured_reader() -> RunReader:
    """The configured tracker, open until the command ends."""
    from dbnd import load_config
    from dbnd_tracker._reader import open_run_reader

    reader = open_run_reader(load_config())
    click.get_current_context().call_on_close(reader.close)
    return reader


def resolve(reader: RunReader, text: str) -> RunRow:
    """The one run, or task run nested in one, that ``text`` names.

    It does so by a uid or MLflow's id or the first digits of them, by a name of ours or MLflow's, by its experiment, or
    as the latest one.

    Raises:
        UsageError: None does, or several do.
    """
    candidates = _candidates(reader, text)
    if len(candidates) > 1:
        shown = ", ".join(run.uid for run in candidates[:_CANDIDATES])
        more = ", …" if len(candidates) > _CANDIDATES else ""
        raise UsageError(f"{text!r} names more than one run: {shown}{more}. Give more of the uid.")
    if not candidates:
        what = "There is no run" if text == LATEST else f"There is no run {text!r}"
        raise UsageError(f"{what} in {reader.name}; `dbnd runs list` shows those that there are.")
    return candidates[0]


def resolve_all(reader: RunReader, texts: Sequence[str]) -> list[RunRow]:
    """The runs that ``texts`` name, each of them once."""
    found = {run.uid: run for run in (resolve(reader, text) for text in texts)}
    return list(found.values())


def read_whole(reader: RunReader, run: RunSummary) -> RunDetail:
    """A run, or what is below a nested task run, with everything in it; UsageError where it was deleted meanwhile."""
    from dbnd_tracker._views import RunRow

    found = reader.run(run.run_uid)
    if found is None:
        raise UsageError(f"The run {run.run_uid} was deleted just now.")
    return _nested(found, run) if isinstance(run, RunRow) and run.nested_in else found


def _nested(found: RunDetail, row: RunRow) -> RunDetail:
    """The part of a run that is a task run nested in it."""
    from dbnd_tracker._storage.states import LOST

    tasks = iter(found.task_runs)
    top = next((task for task in tasks if task.task_run_uid == row.uid), None)
    below = [] if top is None else [top, *takewhile(lambda task: task.depth > top.depth, tasks)]
    depth = top.depth if top else 0
    now = top or found  # the row is as old as the question for it
    end = now.end_time or found.end_time  # what a run leaves unfinished ends with it
    state = found.state if found.state == LOST and end is None else now.state
    tasks_below = [task.model_copy(update={"depth": task.depth - depth}) for task in below]
    facts = {"name": row.name, "description": None, "start_time": row.start_time, "state": state, "end_time": end}
    return found.model_copy(update={**facts, "task_runs": tasks_below})


def _candidates(reader: RunReader, text: str) -> list[RunRow]:
    from dbnd_tracker._queries.ids import dashed
    from dbnd_tracker._queries.language.grammar import condition

    if text == LATEST:
        return reader.runs("", 1).data
    found: dict[str, RunRow] = {}
    wanted = [condition("name", "=", text), condition("mlflow_run_id", "=", text)]
    digits = text.lower().replace("-", "")
    if _UID_PREFIX.fullmatch(digits):
        uid = f"{dashed(digits)}%"
        found |= {run.uid: run for run in reader.runs(condition("uid", "like", uid), _CANDIDATES + 1).data}
        wanted += [condition("mlflow_run_id", "like", f"{digits}%"), condition("task_run_uid", "like", uid)]
    found |= {run.uid: run for run in reader.runs(" or ".join(wanted), _MAX_NAMED).data}
    # Tasks are often called as their runs are.
    runs = [run for run in found.values() if not run.nested_in]
    return runs or list(found.values()) or reader.runs(condition("experiment", "=", text), _CANDIDATES + 1).data


def page_of(reader: RunReader, run: RunRow) -> str:
    """The address of the run's page: on the configured tracker, or on one that serves the same database here.

    Raises:
        RemoteError: No tracker serves it.
    """
    from dbnd import load_config
    from dbnd.plugins import CoreSettings
    from dbnd.tracking import page_path
    from dbnd_tracker._reader import HttpReader
    from dbnd_tracker._settings import TrackerSettings

    url = reader.page_url(run)
    if url is not None:
        return url
    settings = load_config().settings(TrackerSettings)
    root = f"http://localhost:{settings.port}"
    url = f"{root}{page_path(run.job_name, *run.place)}"
    core = CoreSettings(
        databand_access_token=settings.token, connect_timeout=_PATIENCE, api_request_timeout_sec=_PATIENCE
    )
    with closing(HttpReader(root, core)) as here, suppress(DatabandError):
        if here.run_summary(run.run_uid) is not None:
            return url
    raise RemoteError(
        f"No tracker on {root} serves {reader.name}: start one with `dbnd tracker start`, and the page is {url}"
    )


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest runs; a tracker that does not answer at once has none, since the shell waits."""
    del ctx, param
    from dbnd import load_config
    from dbnd.plugins import plain
    from dbnd_tracker._reader import open_run_reader

    try:
        reader = open_run_reader(load_config(conf=_AT_ONCE))
        runs = reader.runs("", _COMPLETIONS).data
        reader.close()
    except DatabandError:  # there is no place for a sentence while the shell completes
        return []
    items = [CompletionItem(LATEST, help="the newest run")]
    # A line break would begin another completion.
    items += [CompletionItem(run.run_uid[:8], help=plain(f"{run.name} of {run.job_name}, {run.state}")) for run in runs]
    return [item for item in items if item.value.startswith(incomplete)]
