"""The console, core's settings, masking and paths: what commands and settings of plugins use."""

from __future__ import annotations

from dbnd._base.environment import script_name
from dbnd._base.masking import mask_text, mask_url, mask_value
from dbnd._base.paths import SQLITE, sqlite_path, sqlite_url
from dbnd._config.settings import CoreSettings
from dbnd._terminal import console
from dbnd._terminal.logs import clean_logs
from dbnd._terminal.text import Shown, plain, together, width

__all__ = [
    "SQLITE",
    "CoreSettings",
    "Shown",
    "clean_logs",
    "console",
    "mask_text",
    "mask_url",
    "mask_value",
    "plain",
    "script_name",
    "sqlite_path",
    "sqlite_url",
    "together",
    "width",
]
