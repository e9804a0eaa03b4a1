"""The console, words, core's settings, masking and paths: what commands and settings of plugins use."""

from dbnd._base.environment import script_name as script_name
from dbnd._base.masking import mask_text as mask_text
from dbnd._base.masking import mask_url as mask_url
from dbnd._base.masking import mask_value as mask_value
from dbnd._base.paths import SQLITE as SQLITE
from dbnd._base.paths import sqlite_path as sqlite_path
from dbnd._base.paths import sqlite_url as sqlite_url
from dbnd._cli.live import live_block as live_block
from dbnd._cli.live import look as look
from dbnd._cli.progress import RunProgress as RunProgress
from dbnd._cli.progress import Series as Series
from dbnd._cli.progress import TaskProgress as TaskProgress
from dbnd._cli.summary import run_summary as run_summary
from dbnd._config.settings import CoreSettings as CoreSettings
from dbnd._journal.folders import usable_folder as usable_folder
from dbnd._terminal import console as console
from dbnd._terminal.html import web_url as web_url
from dbnd._terminal.logs import clean_logs as clean_logs
from dbnd._terminal.region import Region as Region
from dbnd._terminal.text import Shown as Shown
from dbnd._terminal.text import cut as cut
from dbnd._terminal.text import did_you_mean as did_you_mean
from dbnd._terminal.text import duration as duration
from dbnd._terminal.text import first_problem as first_problem
from dbnd._terminal.text import number as number
from dbnd._terminal.text import pad as pad
from dbnd._terminal.text import parse_duration as parse_duration
from dbnd._terminal.text import plain as plain
from dbnd._terminal.text import together as together
from dbnd._terminal.text import width as width

__all__ = sorted(name for name in globals() if name[0] != "_")  # noqa: PLE0605  the imports are the one list of names
