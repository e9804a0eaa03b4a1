"""The database that commands of the tracker work on, and how they are told times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from datetime import timedelta

    from dbnd_tracker._settings import TrackerSettings
    from dbnd_tracker._storage.database import Database

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
    """A time such as 30m, 12h, 90d or 2w.

    Args:
        text: What the user gave.
        option: For what.

    Raises:
        UsageError: It is no time.
    """
    from dbnd import UsageError
    from dbnd.plugins import parse_duration

    span = parse_duration(text)
    if not span:
        msg = f"{option} {text!r} is no time such as 30m, 12h, 90d or 2w."
        raise UsageError(msg)
    return span
