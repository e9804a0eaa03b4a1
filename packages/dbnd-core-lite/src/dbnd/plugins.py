"""The console, words, core's settings, masking and paths: what commands and settings of plugins use."""

from __future__ import annotations

from dbnd._base.environment import script_name
from dbnd._base.masking import mask_text, mask_url, mask_value
from dbnd._base.paths import SQLITE, sqlite_path, sqlite_url
from dbnd._config.settings import CoreSettings
from dbnd._journal.folders import usable_folder
from dbnd._terminal import console
from dbnd._terminal.html import web_url
from dbnd._terminal.logs import clean_logs
from dbnd._terminal.text import (
    Shown,
    did_you_mean,
    duration,
    first_problem,
    number,
    parse_duration,
    plain,
    together,
    width,
)

__all__ = [
    "SQLITE",
    "CoreSettings",
    "Shown",
    "clean_logs",
    "console",
    "did_you_mean",
    "duration",
    "first_problem",
    "mask_text",
    "mask_url",
    "mask_value",
    "number",
    "parse_duration",
    "plain",
    "script_name",
    "sqlite_path",
    "sqlite_url",
    "together",
    "usable_folder",
    "web_url",
    "width",
]
