"""What tasks have printed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from markupsafe import Markup
from sqlalchemy.orm import Session

from dbnd_tracker._content.terminal import Sheet
from dbnd_tracker._queries.details import log_tails
from dbnd_tracker._views import TaskRunView

_LINES: Final = 200
_CHARACTERS: Final = 200_000
"""How much of a log is read: its end."""
_FURTHER: Final = 20
"""How many logs a page shows besides the first, and ..."""
_FURTHER_LINES: Final = 40
_FURTHER_CHARACTERS: Final = 20_000


class LogTail(NamedTuple):
    """The end of the log of a task run."""

    task: TaskRunView
    html: Markup
    lines: int
    is_cut: bool


def run_logs(session: Session, tasks: Iterable[TaskRunView]) -> list[LogTail]:
    """The ends of the logs of those of ``tasks`` that have one, of the first one more than of those that follow."""
    chosen = list(tasks)
    first = _tails(session, chosen[:1], _LINES, _CHARACTERS)
    return [*first, *_tails(session, chosen[1 : 1 + _FURTHER], _FURTHER_LINES, _FURTHER_CHARACTERS)]


def _tails(session: Session, tasks: list[TaskRunView], lines: int, characters: int) -> list[LogTail]:
    ends = log_tails(session, [task.task_run_uid for task in tasks], characters)
    found = []
    for task in tasks:
        if text := ends.get(task.task_run_uid):
            is_short = len(text) <= characters
            sheet = Sheet(text if is_short else _from_a_line(text))
            is_cut = not is_short or len(sheet) > lines
            found.append(LogTail(task, sheet.html(lines), min(len(sheet), lines), is_cut))
    return found


def _from_a_line(text: str) -> str:
    """``text`` without the part of a line that it begins with."""
    return re.split("[\\r\\n]", text, maxsplit=1)[-1]
