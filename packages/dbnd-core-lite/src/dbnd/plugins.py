"""The console, words, core's settings, masking and paths: what commands and settings of plugins use."""

from __future__ import annotations

from dbnd._base.environment import script_name
from dbnd._base.masking import mask_text, mask_url, mask_value
from dbnd._base.paths import SQLITE, sqlite_path, sqlite_url
from dbnd._cli.live import block as live_block
from dbnd._cli.live import look
from dbnd._cli.progress import RunProgress, Series, TaskProgress
from dbnd._cli.summary import summary as run_summary
from dbnd._config.settings import CoreSettings
from dbnd._journal.folders import usable_folder
from dbnd._terminal import console
from dbnd._terminal.html import web_url
from dbnd._terminal.logs import clean_logs
from dbnd._terminal.region import Region
from dbnd._terminal.text import (
    Shown,
    cut,
    did_you_mean,
    duration,
    first_problem,
    number,
    pad,
    parse_duration,
    plain,
    together,
    width,
)

__all__ = [
    "SQLITE",
    "CoreSettings",
    "Region",
    "RunProgress",
    "Series",
    "Shown",
    "TaskProgress",
    "clean_logs",
    "console",
    "cut",
    "did_you_mean",
    "duration",
    "first_problem",
    "live_block",
    "look",
    "mask_text",
    "mask_url",
    "mask_value",
    "number",
    "pad",
    "parse_duration",
    "plain",
    "run_summary",
    "script_name",
    "sqlite_path",
    "sqlite_url",
    "together",
    "usable_folder",
    "web_url",
    "width",
]
