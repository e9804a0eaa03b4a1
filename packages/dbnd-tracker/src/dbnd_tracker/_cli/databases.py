"""The database that commands of the tracker work on, and how they are told times."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

_DURATION: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST_DAYS: Final = 36_500

database_option = click.option("--database", help="File, sqlite:///file or postgresql://… (tracker.database).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def database_url(given: str | None, settings: TrackerSettings) -> str:
    """``given`` on the command line, else ``tracker.database``, else the embedded tracker's own file."""
    from dbnd.tracking import embedded_url

    url = given or settings.database or embedded_url()
    assert url is not None, "this package serves SQLite files"
    return url


def open_configured(given: str | None, *, create: bool = True) -> Database:
    """The database of ``database_url``, open until the command ends.

    Raises:
        UsageError: Its file does not exist, and ``create`` is False.
    """
    from dbnd import UsageError, load_config
    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

    settings = load_config().settings(TrackerSettings)
    database = Database(database_url(given, settings), heartbeat_timeout_s=settings.heartbeat_timeout_s)
    if not create and database.path is not None and not database.path.exists():
        msg = f"The database {database.name} does not exist."
        raise UsageError(msg)
    click.get_current_context().call_on_close(database.close)
    database.open()
    return database


def duration(text: str, option: str) -> timedelta:
    """A time such as 30m, 12h or 90d.

    Args:
        text: What the user gave.
        option: For what.

    Raises:
        UsageError: It is no time.
    """
    from dbnd import UsageError

    found = _DURATION.fullmatch(text.strip())
    span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < span <= timedelta(days=_LONGEST_DAYS):
        msg = f"{option} {text!r} is no time such as 30m, 12h or 90d."
        raise UsageError(msg)
    return span
