"""The tracker that a command reads, and the runs that its words name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbnd_tracker._reader import RunReader
    from dbnd_tracker._views import RunDetail, RunSummary

LATEST: Final = "latest"
_UID_PREFIX: Final = re.compile(r"[0-9a-f]{4,32}")
_DASHES: Final = (8, 12, 16, 20)
_CANDIDATES: Final = 5
_COMPLETIONS: Final = 50


def open_configured() -> RunReader:
    """The configured tracker, open until the command ends."""
    from dbnd import load_config
    from dbnd_tracker._reader import open_run_reader

    reader = open_run_reader(load_config())
    click.get_current_context().call_on_close(reader.close)
    return reader


def where(reader: RunReader) -> str:
    """The tracker as sentences about missing runs name it."""
    from dbnd_tracker._reader import DatabaseReader

    is_missing = isinstance(reader, DatabaseReader) and not reader.exists
    return f"{reader.name}, which does not exist yet" if is_missing else reader.name


def resolve(reader: RunReader, text: str) -> RunSummary:
    """The one run that ``text`` names: by its uid or the first digits of it, by name, or as the latest one.

    Raises:
        UsageError: None does, or several do.
    """
    from dbnd import UsageError

    candidates = _candidates(reader, text)
    if len(candidates) > 1:
        shown = ", ".join(run.run_uid for run in candidates[:_CANDIDATES])
        more = ", …" if len(candidates) > _CANDIDATES else ""
        msg = f"{text!r} names more than one run: {shown}{more}. Give more of the uid."
        raise UsageError(msg)
    if not candidates:
        what = "There is no run" if text == LATEST else f"There is no run {text!r}"
        msg = f"{what} in {where(reader)}; `dbnd runs list` shows those that there are."
        raise UsageError(msg)
    return candidates[0]


def resolve_all(reader: RunReader, texts: Sequence[str]) -> list[RunSummary]:
    """The runs that ``texts`` name, each of them once."""
    found = {run.run_uid: run for run in (resolve(reader, text) for text in texts)}
    return list(found.values())


def resolve_whole(reader: RunReader, text: str) -> RunDetail:
    """The one run that ``text`` names, with everything in it.

    Raises:
        UsageError: No run has this name, or several have.
    """
    from dbnd import UsageError

    found = reader.run(resolve(reader, text).run_uid)
    if found is None:
        msg = f"The run {text!r} was deleted just now."
        raise UsageError(msg)
    return found


def _candidates(reader: RunReader, text: str) -> list[RunSummary]:
    from dbnd_tracker._queries.grammar import condition

    if text == LATEST:
        return reader.runs("", 1).data
    wanted = [condition("name", "=", text)]
    digits = text.lower().replace("-", "")
    if _UID_PREFIX.fullmatch(digits):
        dashed = "".join(f"-{digit}" if place in _DASHES else digit for place, digit in enumerate(digits))
        wanted.append(condition("uid", "like", f"{dashed}%"))
    found = {run.run_uid: run for each in wanted for run in reader.runs(each, _CANDIDATES + 1).data}
    return list(found.values())


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The newest runs of the embedded tracker; a tracker elsewhere would let the shell wait."""
    del ctx, param
    from dbnd import DatabandError, load_config
    from dbnd.plugins import plain
    from dbnd_tracker._reader import DatabaseReader, open_run_reader

    try:
        reader = open_run_reader(load_config())
        if not isinstance(reader, DatabaseReader):
            return []
        runs = reader.runs("", _COMPLETIONS).data
        reader.close()
    except DatabandError:  # there is no place for a sentence while the shell completes
        return []
    items = [CompletionItem(LATEST, help="the newest run")]
    # A line break would begin another completion.
    items += [CompletionItem(run.run_uid[:8], help=plain(f"{run.name} of {run.job_name}, {run.state}")) for run in runs]
    return [item for item in items if item.value.startswith(incomplete)]
